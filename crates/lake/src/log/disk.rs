//! The few file operations of a log's writer, behind a trait so that a test can let the disk fail.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use crate::durable::sync_directory;

/// An open segment.
pub(super) trait SegmentFile: Send {
    /// Writes all bytes at `offset`, or fails; after a failure any part of them may be there.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Returns when all that was written is on stable storage.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file.
    fn truncate(&mut self, bytes: u64) -> io::Result<()>;
}

/// Creates and opens segments.
pub(super) trait Disk: Send {
    /// Creates a segment with its header; file and name are on stable storage when it returns. On an error there is
    /// no such segment.
    fn create(&self, path: &Path, header: &[u8]) -> io::Result<Box<dyn SegmentFile>>;
    /// Opens a segment to go on writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>>;
}

/// The disk itself.
pub(super) struct LocalDisk;

impl Disk for LocalDisk {
    fn create(&self, path: &Path, header: &[u8]) -> io::Result<Box<dyn SegmentFile>> {
        let staged = path.with_extension("tmp");
        let created = (|| {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&staged)?;
            file.write_all(header)?;
            file.sync_all()?;
            std::fs::rename(&staged, path)?;
            if let Err(error) = path.parent().map_or(Ok(()), sync_directory) {
                std::fs::remove_file(path)?;
                return Err(error);
            }
            Ok(file)
        })();
        if created.is_err() {
            // Opening the log removes what stays here.
            let _ = std::fs::remove_file(&staged);
        }
        Ok(Box::new(created?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(OpenOptions::new().write(true).open(path)?))
    }
}

impl SegmentFile for File {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.seek(SeekFrom::Start(offset))?;
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }
}
