//! Whether an output is what the notes of its run say.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

use super::journal::Note;

const CHUNK_BYTES: usize = 1 << 18;

/// What an output holds.
#[derive(Debug)]
pub(super) struct Compared {
    /// The last note whose bytes are all there, and the hash behind them.
    pub(super) good: Note,
    pub(super) hash: Sha256,
    /// What lies behind them.
    pub(super) rest: Rest,
}

/// What lies behind the part of an output that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing, or a write that was under way.
    Torn,
    /// Bytes that were written are gone, those of so many records.
    Lost(u64),
    /// NUL bytes, as they are left where a machine stopped before its data reached the disk.
    Crashed,
    /// So many bytes that the run did not write.
    Foreign(u64),
    /// Other bytes than the run wrote, within the records from the first to the second number, which counts from 1.
    Changed(u64, u64),
}

/// Compares an output with its notes, which are in order.
pub(super) fn compare(mut output: impl Read, notes: &[Note]) -> io::Result<Compared> {
    let mut compared = Compared {
        good: Note { hash: Note::digits(&Sha256::new()), ..Note::default() },
        hash: Sha256::new(),
        rest: Rest::Torn,
    };
    let empty = notes.iter().take_while(|note| note.bytes == 0).count();
    let mut next = notes[empty..].iter().peekable();
    let mut hash = Sha256::new();
    let (mut at, mut any_nul) = (0u64, false);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let wanted = match next.peek() {
            Some(note) => CHUNK_BYTES.min(usize::try_from(note.bytes - at).unwrap_or(CHUNK_BYTES)),
            None => CHUNK_BYTES,
        };
        let read = match output.read(&mut chunk[..wanted]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if read == 0 {
            break;
        }
        at += read as u64;
        hash.update(&chunk[..read]);
        any_nul |= chunk[..read].contains(&0);
        let Some(note) = next.next_if(|note| note.bytes == at) else { continue };
        if Note::digits(&hash) != note.hash {
            compared.rest =
                if any_nul { Rest::Crashed } else { Rest::Changed(compared.good.records + 1, note.records) };
            return Ok(compared);
        }
        compared.good = note.clone();
        compared.hash = hash.clone();
        any_nul = false;
    }
    let behind = at - compared.good.bytes;
    compared.rest = match next.peek() {
        _ if any_nul => Rest::Crashed,
        None if behind > 0 => Rest::Foreign(behind),
        None => Rest::Torn,
        // What the last note announced may not have been written, what those before it did was.
        Some(_) => match next.rev().nth(1) {
            Some(written) => Rest::Lost(written.records - compared.good.records),
            None => Rest::Torn,
        },
    };
    Ok(compared)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = "a\nbb\n\né\nlast\n".as_bytes();

    /// A note for each line.
    fn notes() -> Vec<Note> {
        let ends = (1..=TEXT.len()).filter(|end| TEXT[end - 1] == b'\n');
        let note = |(number, end): (usize, usize)| Note {
            records: number as u64 + 1,
            bytes: end as u64,
            failed: 0,
            hash: Note::digits(&Sha256::new_with_prefix(&TEXT[..end])),
        };
        ends.enumerate().map(note).collect()
    }

    fn rest(output: &[u8], notes: &[Note]) -> (u64, Rest) {
        let compared = compare(output, notes).unwrap();
        assert_eq!(Note::digits(&compared.hash), compared.good.hash);
        (compared.good.records, compared.rest)
    }

    #[test]
    fn cuts_are_found_wherever_they_are() {
        let notes = notes();
        assert_eq!(rest(TEXT, &notes), (5, Rest::Torn));
        for end in 0..TEXT.len() {
            let complete = TEXT[..end].iter().filter(|byte| **byte == b'\n').count() as u64;
            let lost = 4 - complete.min(4);
            let expected = if lost == 0 { Rest::Torn } else { Rest::Lost(lost) };
            assert_eq!(rest(&TEXT[..end], &notes), (complete, expected), "{end}");
            // The run was killed in the write that it had announced last.
            assert_eq!(rest(&TEXT[..end], &notes[..complete as usize + 1]), (complete, Rest::Torn), "{end}");
            // What the machine had not brought to the disk.
            let mut crashed = TEXT.to_owned();
            crashed[end..].fill(0);
            assert_eq!(rest(&crashed, &notes), (complete, Rest::Crashed), "{end}");
        }
    }

    #[test]
    fn every_change_is_found() {
        let notes = notes();
        for at in 0..TEXT.len() {
            let mut changed = TEXT.to_owned();
            changed[at] ^= 0x20;
            let record = notes.iter().take_while(|note| note.bytes <= at as u64).count() as u64;
            assert_eq!(rest(&changed, &notes), (record, Rest::Changed(record + 1, record + 1)), "{at}");
        }
        let text = String::from_utf8(TEXT.to_owned()).unwrap();
        assert_eq!(rest(text.replace("bb\n", "").as_bytes(), &notes), (1, Rest::Changed(2, 2)));
        assert_eq!(rest(format!("{text}x\n").as_bytes(), &notes), (5, Rest::Foreign(2)));
        assert_eq!(rest(b"x", &[]), (0, Rest::Foreign(1)));
        assert_eq!(rest(b"", &[]), (0, Rest::Torn));
        // With fewer notes the place is told less exactly.
        let few = [notes[0].clone(), notes[3].clone()];
        assert_eq!(rest(text.replace("bb", "cc").as_bytes(), &few), (1, Rest::Changed(2, 4)));
    }
}
