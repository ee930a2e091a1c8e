//! Ending single sentences of a batch before their time.

use elgen_tensor::{Recorder, Rows};

use super::{DeviceSearch, Host, Result, SearchError};

impl DeviceSearch {
    /// Ends sentences of the running batch that are not done: from here on they are (`rec` goes on with the next step), and their rows are active no more.
    /// [`DeviceSearch::finish`] will give what they have by now, as if the batch had ended here; the others go on, their results are the
    /// same.
    ///
    /// # Errors
    /// A sentence that the batch does not have; the device failed.
    pub fn cancel(&mut self, rec: &mut Recorder, sentences: &[usize], rows: &mut Rows) -> Result<()> {
        if let Some(sentence) = sentences.iter().find(|sentence| **sentence >= self.starts.len()) {
            let message = format!("sentence {sentence} of a batch of {} is to be cancelled", self.starts.len());
            return Err(SearchError::Batch { message });
        }
        let found = self.found()?;
        let width = self.width();
        for &sentence in sentences {
            self.cancelled.push((sentence, found[sentence].clone()));
            rec.write(&self.buffers.open, sentence as u64 * 4, &0u32.to_ne_bytes())?;
            match &mut self.buffers.host {
                Host::Idle => {}
                Host::Beams(host) => host.cancel(sentence),
                Host::Rows(host) => host.cancel(sentence, width),
            }
        }
        Ok(rows.retain(rec, |row| !sentences.contains(&(row as usize / width)))?)
    }
}
