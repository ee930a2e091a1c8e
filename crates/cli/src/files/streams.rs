//! The standard streams: which files they are, whether they are there at all, and results on a terminal.

use std::{
    fs,
    io::{self, IsTerminal, Write},
    sync::atomic::{AtomicBool, Ordering},
};

use crate::error::{CliError, printable_lines};

/// A standard stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdin,
    Stdout,
    Stderr,
}

/// Whether stdin and stdout were closed when the program began.
static CLOSED: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];

/// Says that the program began with stdin or stdout closed. Rust opens `/dev/null` in their place before `main`, so that only code
/// which runs earlier can tell; results would vanish without a word.
#[cfg(target_os = "linux")]
pub(crate) fn standard_streams_were_closed(stdin: bool, stdout: bool) {
    CLOSED[0].store(stdin, Ordering::Relaxed);
    CLOSED[1].store(stdout, Ordering::Relaxed);
}

/// Refuses a stream that was closed when the program began.
pub(crate) fn check_open(stream: Stream) -> Result<(), CliError> {
    let (action, name, closed) = match stream {
        Stream::Stdin => ("read", "<stdin>", &CLOSED[0]),
        Stream::Stdout => ("write", "<stdout>", &CLOSED[1]),
        Stream::Stderr => return Ok(()),
    };
    if closed.load(Ordering::Relaxed) {
        return Err(CliError::File { action, path: name.into(), source: io::Error::other("it is closed") });
    }
    Ok(())
}

/// What the system says of a stream.
#[cfg(unix)]
pub(super) fn metadata(stream: Stream) -> Option<fs::Metadata> {
    use std::os::fd::AsFd;
    let copy = match stream {
        Stream::Stdin => io::stdin().as_fd().try_clone_to_owned(),
        Stream::Stdout => io::stdout().as_fd().try_clone_to_owned(),
        Stream::Stderr => io::stderr().as_fd().try_clone_to_owned(),
    };
    fs::File::from(copy.ok()?).metadata().ok()
}

/// What the system says of a stream.
#[cfg(not(unix))]
pub(super) fn metadata(_: Stream) -> Option<fs::Metadata> {
    None
}

/// Stdout for results. They come from models and other files that may hold anything: on a terminal, what would control it is
/// written in letters. Everywhere else they stay as they are.
pub(crate) fn results() -> Box<dyn Write> {
    let stdout = io::stdout();
    if stdout.is_terminal() { Box::new(Escaping(stdout)) } else { Box::new(stdout) }
}

/// Writes whole texts, their control characters as [`printable_lines`] has them.
struct Escaping<W>(W);

impl<W: Write> Write for Escaping<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(printable_lines(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_do_not_control_a_terminal() {
        let mut seen = Vec::new();
        let mut out = Escaping(&mut seen);
        out.write_all("é\t\u{1b}[31mred\r\u{9b}0m\n".as_bytes()).unwrap();
        out.flush().unwrap();
        assert_eq!(String::from_utf8(seen).unwrap(), "é\t\\u{1b}[31mred\\r\\u{9b}0m\n");
    }
}
