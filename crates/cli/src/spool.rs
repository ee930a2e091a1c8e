//! Results that came before their turn: a bounded amount in memory, the rest in a temporary file.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
};

/// Numbered byte strings.
#[derive(Debug)]
pub(crate) struct Spool {
    limit: usize,
    in_memory: usize,
    waiting: BTreeMap<u64, Place>,
    overflow: Option<File>,
    /// Length of what is in use of the overflow file, and how many entries that is.
    overflow_bytes: u64,
    overflow_entries: usize,
}

#[derive(Debug)]
enum Place {
    Memory(Vec<u8>),
    File { at: u64, length: usize },
}

impl Spool {
    /// A spool that holds at most `limit` bytes in memory.
    pub(crate) fn new(limit: usize) -> Spool {
        Spool { limit, in_memory: 0, waiting: BTreeMap::new(), overflow: None, overflow_bytes: 0, overflow_entries: 0 }
    }

    /// Keeps the bytes of entry `index`.
    ///
    /// # Errors
    /// The temporary file cannot be made or written.
    pub(crate) fn insert(&mut self, index: u64, bytes: Vec<u8>) -> io::Result<()> {
        let place = if self.in_memory.saturating_add(bytes.len()) <= self.limit {
            self.in_memory += bytes.len();
            Place::Memory(bytes)
        } else {
            let file = match &mut self.overflow {
                Some(file) => file,
                none => none.insert(tempfile::tempfile()?),
            };
            file.seek(SeekFrom::Start(self.overflow_bytes))?;
            file.write_all(&bytes)?;
            let at = self.overflow_bytes;
            self.overflow_bytes += bytes.len() as u64;
            self.overflow_entries += 1;
            Place::File { at, length: bytes.len() }
        };
        self.waiting.insert(index, place);
        Ok(())
    }

    /// Removes entry `index` and gives its bytes, if it is there.
    ///
    /// # Errors
    /// The temporary file cannot be read.
    pub(crate) fn take(&mut self, index: u64) -> io::Result<Option<Vec<u8>>> {
        match self.waiting.remove(&index) {
            None => Ok(None),
            Some(Place::Memory(bytes)) => {
                self.in_memory -= bytes.len();
                Ok(Some(bytes))
            }
            Some(Place::File { at, length }) => {
                let file = self.overflow.as_mut().ok_or(io::ErrorKind::NotFound)?;
                let mut bytes = vec![0; length];
                file.seek(SeekFrom::Start(at))?;
                file.read_exact(&mut bytes)?;
                self.overflow_entries -= 1;
                if self.overflow_entries == 0 {
                    file.set_len(0)?;
                    self.overflow_bytes = 0;
                }
                Ok(Some(bytes))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exceeds_the_memory_waits_in_a_file_that_is_used_again() {
        let mut spool = Spool::new(100);
        let entry = |index: u64| vec![index as u8; 30 + index as usize];
        for round in 0..3 {
            for index in (0..10).rev() {
                spool.insert(index, entry(index)).unwrap();
                assert!(spool.in_memory <= 100);
            }
            assert!(spool.overflow_entries > 5 && spool.overflow_bytes < 400, "{round} {spool:?}");
            assert_eq!(spool.take(10).unwrap(), None);
            for index in 0..10 {
                assert_eq!(spool.take(index).unwrap(), Some(entry(index)));
                assert_eq!(spool.take(index).unwrap(), None);
            }
            assert_eq!((spool.in_memory, spool.overflow_bytes), (0, 0));
            assert_eq!(spool.overflow.as_ref().unwrap().metadata().unwrap().len(), 0);
        }
    }

    #[test]
    fn small_results_need_no_file() {
        let mut spool = Spool::new(100);
        spool.insert(3, vec![0; 100]).unwrap();
        assert!(spool.overflow.is_none());
        spool.insert(4, Vec::new()).unwrap();
        assert_eq!(spool.take(4).unwrap(), Some(Vec::new()));
        assert!(spool.overflow.is_none());
    }
}
