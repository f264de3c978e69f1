//! The local file system as an object store whose writes are on stable storage when they return.
//!
//! `object_store`'s own local store leaves written bytes in the page cache: after a power cut a Delta commit may name a
//! data file that is empty, while the log behind it has been released. This store writes each object to a staging
//! file, syncs it, gives it its name, and syncs the folder. Reads and lists are the original's.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

/// A local object store rooted at `/` that syncs what it writes.
#[derive(Debug)]
pub(crate) struct DurableLocal {
    inner: LocalFileSystem,
}

impl DurableLocal {
    /// The whole file system; locations are absolute paths without the leading `/`.
    pub(crate) fn new() -> Self {
        Self { inner: LocalFileSystem::new() }
    }
}

impl fmt::Display for DurableLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DurableLocal")
    }
}

/// Makes the entries of a folder (a new name, a removed one) durable.
pub(crate) fn sync_directory(directory: &FilePath) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Creates a folder and all above it that are missing, durably.
pub(crate) fn create_directory(directory: &FilePath) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_directory(parent)?;
    }
    match std::fs::create_dir(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_directory(parent.unwrap_or(FilePath::new(".")))
}

fn generic(path: &FilePath, source: io::Error) -> Error {
    let named = io::Error::new(source.kind(), format!("{}: {source}", path.display()));
    Error::Generic { store: "local disk", source: Box::new(named) }
}

/// A staging file beside `path`; its suffix of digits hides it from `object_store`'s lists.
fn stage(path: &FilePath) -> io::Result<(File, PathBuf)> {
    let mut number = u64::from(std::process::id()) << 32;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("#{number}"));
        let staged = PathBuf::from(name);
        match OpenOptions::new().write(true).create_new(true).open(&staged) {
            Ok(file) => return Ok((file, staged)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let parent = path.parent().ok_or(error)?;
                create_directory(parent)?;
            }
            Err(error) => return Err(error),
        }
    }
}

fn write_durably(path: &FilePath, payload: &PutPayload, create_only: bool) -> Result<()> {
    let (mut file, staged) = stage(path).map_err(|error| generic(path, error))?;
    let written = (|| {
        for part in payload {
            file.write_all(part)?;
        }
        file.sync_all()?;
        if create_only {
            // A hard link fails when the name exists: that is the atomic "create if absent" of a Delta commit.
            std::fs::hard_link(&staged, path)?;
            // The object is there; a staging file that stays is hidden and harmless.
            let _ = std::fs::remove_file(&staged);
        } else {
            std::fs::rename(&staged, path)?;
        }
        path.parent().map_or(Ok(()), sync_directory)
    })();
    written.map_err(|error: io::Error| {
        let _ = std::fs::remove_file(&staged);
        if create_only && error.kind() == ErrorKind::AlreadyExists {
            Error::AlreadyExists { path: path.display().to_string(), source: Box::new(error) }
        } else {
            generic(path, error)
        }
    })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|source| Error::JoinError { source })?
}

#[async_trait]
impl ObjectStore for DurableLocal {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if matches!(options.mode, PutMode::Update(_)) || !options.attributes.is_empty() {
            // The original says what is not supported.
            return self.inner.put_opts(location, payload, options).await;
        }
        let path = self.inner.path_to_filesystem(location)?;
        let create_only = matches!(options.mode, PutMode::Create);
        blocking(move || write_durably(&path, &payload, create_only)).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let path = self.inner.path_to_filesystem(location)?;
        let inner = self.inner.put_multipart_opts(location, options).await?;
        Ok(Box::new(DurableUpload { inner, path }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await?;
        self.sync_parent(to).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await?;
        self.sync_parent(to).await
    }
}

impl DurableLocal {
    async fn sync_parent(&self, location: &Path) -> Result<()> {
        let path = self.inner.path_to_filesystem(location)?;
        blocking(move || path.parent().map_or(Ok(()), sync_directory).map_err(|error| generic(&path, error)))
            .await
    }
}

/// A large object in parts; synced when it is complete.
#[derive(Debug)]
struct DurableUpload {
    inner: Box<dyn MultipartUpload>,
    path: PathBuf,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.inner.complete().await?;
        let path = self.path.clone();
        blocking(move || {
            File::open(&path)
                .and_then(|file| file.sync_all())
                .and_then(|()| path.parent().map_or(Ok(()), sync_directory))
                .map_err(|error| generic(&path, error))
        })
        .await?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt as _;

    use super::*;

    #[tokio::test]
    async fn creates_once_overwrites_and_hides_staging_files() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableLocal::new();
        let at = Path::from_absolute_path(folder.path().join("a b/deep/object.json")).unwrap();
        let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        store.put_opts(&at, "one".into(), create.clone()).await.unwrap();
        let second = store.put_opts(&at, "two".into(), create).await.unwrap_err();
        assert!(matches!(second, Error::AlreadyExists { .. }), "{second}");
        assert_eq!(store.get(&at).await.unwrap().bytes().await.unwrap(), "one");
        store.put(&at, "three".into()).await.unwrap();
        assert_eq!(store.get(&at).await.unwrap().bytes().await.unwrap(), "three");
        let names: Vec<_> = std::fs::read_dir(folder.path().join("a b/deep")).unwrap().collect();
        assert_eq!(names.len(), 1, "a staging file stayed: {names:?}");
    }

    #[tokio::test]
    async fn a_write_that_fails_leaves_no_object() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableLocal::new();
        std::fs::write(folder.path().join("file"), "x").unwrap();
        let below_a_file = Path::from_absolute_path(folder.path().join("file/object")).unwrap();
        assert!(store.put(&below_a_file, "one".into()).await.is_err());
    }
}
