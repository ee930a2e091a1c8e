//! Which standard streams a person sees, and what follows from it.

use std::io::{self, IsTerminal};

use crate::output::OutputFormat;

/// The standard streams that are terminals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terminal {
    /// Results are seen as they come.
    pub(crate) stdout: bool,
}

/// How a stream of texts looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Line ends of a text are line ends.
    pub(crate) raw: bool,
    /// The input stands before its continuation.
    pub(crate) echo: bool,
}

impl Terminal {
    /// This process's.
    pub(crate) fn of_process() -> Terminal {
        Terminal { stdout: io::stdout().is_terminal() }
    }

    /// How texts look: as asked, else made for people where a text grows before their eyes, and for programs elsewhere.
    pub(crate) fn look(self, format: OutputFormat, stream: bool, decoder_only: bool, asked: Asked) -> Look {
        let is_text = format == OutputFormat::Text;
        let shown = self.stdout && stream && is_text;
        Look {
            raw: is_text && asked.raw.unwrap_or(shown),
            echo: is_text && stream && decoder_only && asked.echo.unwrap_or(shown),
        }
    }
}

/// `--raw` and `--echo` as they were typed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) raw: Option<bool>,
    pub(crate) echo: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(stdout: bool, format: OutputFormat, stream: bool, asked: (Option<bool>, Option<bool>)) -> (bool, bool) {
        let look = Terminal { stdout }.look(format, stream, true, Asked { raw: asked.0, echo: asked.1 });
        (look.raw, look.echo)
    }

    #[test]
    fn texts_that_grow_before_people_are_made_for_people() {
        use OutputFormat::{Jsonl, Moses, Text};
        assert_eq!(look(true, Text, true, (None, None)), (true, true));
        assert_eq!(look(false, Text, true, (None, None)), (false, false), "a pipe has a line for each text");
        assert_eq!(look(true, Text, false, (None, None)), (false, false));
        for format in [Jsonl, Moses] {
            assert_eq!(look(true, format, true, (Some(true), Some(true))), (false, false));
        }
    }

    #[test]
    fn what_is_asked_for_holds_anywhere() {
        use OutputFormat::Text;
        assert_eq!(look(true, Text, true, (Some(false), Some(false))), (false, false));
        assert_eq!(look(false, Text, true, (Some(true), Some(true))), (true, true));
        assert_eq!(look(false, Text, false, (Some(true), None)), (true, false));
        let encoder = Terminal { stdout: true }.look(Text, true, false, Asked::default());
        assert_eq!(encoder, Look { raw: true, echo: false }, "a source is not the beginning of its translation");
    }
}
