//! Where commands print their rows.

use std::io::{ErrorKind, Result, StdoutLock, Write};

/// Standard output whose reader may go away (`| head`): that is no failure. What comes after is lost, and the command goes on to its
/// end and its own exit code.
pub(crate) struct Printed(StdoutLock<'static>);

impl Printed {
    pub(crate) fn new() -> Self {
        Self(std::io::stdout().lock())
    }
}

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let written = self.0.write(bytes);
        unread(written, bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        let flushed = self.0.flush();
        unread(flushed, ())
    }
}

/// What nobody reads counts as written.
fn unread<T>(outcome: Result<T>, written: T) -> Result<T> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(written),
        outcome => outcome,
    }
}
