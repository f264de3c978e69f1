//! Where commands print their rows.

use std::io::{ErrorKind, Result, StdoutLock, Write};

/// Standard output whose reader may go away (`| head`): that ends the program, and is no failure.
pub(crate) struct Printed(StdoutLock<'static>);

impl Printed {
    pub(crate) fn new() -> Self {
        Self(std::io::stdout().lock())
    }
}

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let written = self.0.write(bytes);
        ended(written)
    }

    fn flush(&mut self) -> Result<()> {
        let flushed = self.0.flush();
        ended(flushed)
    }
}

fn ended<T>(outcome: Result<T>) -> Result<T> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        outcome => outcome,
    }
}
