//! A cache of data files on object stores: blocks in memory and, where a folder is given, on the local disk.
//!
//! Only Parquet files are kept: they never change, and their names are never used twice. What Delta's log says is read
//! from the store each time. Reads are served in whole blocks, so that a footer, a page index and the columns of one query
//! share them with the next; what is missing is asked of the store in as few requests as there are gaps. Rows that this
//! process commits are in memory at once. What the cache cannot do (a damaged disk, no room) is done by the store.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use foyer::{
    BlockEngineConfig, Cache, CacheBuilder, DeviceBuilder as _, FsDeviceBuilder, HybridCache,
    HybridCacheBuilder, RecoverMode,
};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
    Result,
};
use serde::{Deserialize, Serialize};

/// What is read from the store at least, and kept together.
const BLOCK: u64 = 1 << 20;
/// Larger files are not put into memory when they are written.
const KEEP_WRITTEN: usize = 64 << 20;
/// How many sizes of files are remembered.
const SIZES: usize = 65_536;

/// How much is kept of lakes on object stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheOptions {
    /// Bytes in memory; 0 is no cache at all.
    pub memory_bytes: usize,
    /// Bytes on disk; 0 is none.
    pub disk_bytes: usize,
    /// The folder of the disk tier. One process uses it at a time; another one that finds it taken does without.
    pub folder: PathBuf,
}

impl Default for CacheOptions {
    /// 256 MiB in memory, nothing on disk.
    fn default() -> Self {
        Self { memory_bytes: 256 << 20, disk_bytes: 0, folder: PathBuf::from("./twinlake-data/_cache") }
    }
}

/// What the cache did since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheStats {
    /// Blocks that were there.
    pub hits: u64,
    /// Blocks that the store was asked for.
    pub misses: u64,
    /// Bytes served from the cache.
    pub bytes_served: u64,
    /// Bytes read from the store.
    pub bytes_fetched: u64,
    /// Requests to the store for data files.
    pub requests: u64,
    /// Bytes in memory now.
    pub memory_bytes: u64,
}

#[derive(Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    bytes_served: AtomicU64,
    bytes_fetched: AtomicU64,
    requests: AtomicU64,
}

fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// The cache itself; stores share it.
pub(crate) struct BlockCache {
    blocks: HybridCache<String, Bytes>,
    sizes: Cache<String, ObjectMeta>,
    counters: Counters,
    /// Held as long as the folder is in use.
    #[allow(dead_code, reason = "held, not read")]
    lock: Option<std::fs::File>,
}

impl fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockCache").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// The folder of the disk tier, if this process may use it.
fn take(options: &CacheOptions) -> Option<std::fs::File> {
    if options.disk_bytes == 0 {
        return None;
    }
    let taken = std::fs::create_dir_all(&options.folder)
        .and_then(|()| std::fs::File::create(options.folder.join("lock")))
        .map(|file| file.try_lock().is_ok().then_some(file));
    match taken {
        Ok(Some(file)) => Some(file),
        Ok(None) => {
            tracing::info!(folder = %options.folder.display(), "another process uses the cache on disk");
            None
        }
        Err(error) => {
            tracing::warn!(folder = %options.folder.display(), %error, "no cache on disk");
            None
        }
    }
}

impl BlockCache {
    /// Opens it; what cannot be on disk is in memory only. `None` when nothing is to be kept.
    pub(crate) async fn open(options: &CacheOptions) -> Option<Arc<Self>> {
        if options.memory_bytes == 0 {
            return None;
        }
        let builder = || {
            HybridCacheBuilder::new()
                .with_name("twinlake")
                .memory(options.memory_bytes)
                .with_weighter(|key: &String, block: &Bytes| key.len() + block.len())
                .storage()
        };
        let mut lock = take(options);
        let mut blocks = None;
        if lock.is_some() {
            let device = FsDeviceBuilder::new(&options.folder).with_capacity(options.disk_bytes).build();
            let opened = match device {
                Ok(device) => {
                    let engine = BlockEngineConfig::new(device).with_block_size(16 << 20);
                    builder().with_engine_config(engine).with_recover_mode(RecoverMode::Quiet).build().await
                }
                Err(error) => Err(error),
            };
            match opened {
                Ok(opened) => blocks = Some(opened),
                Err(error) => {
                    tracing::warn!(folder = %options.folder.display(), %error, "no cache on disk");
                    lock = None;
                }
            }
        }
        let blocks = match blocks {
            Some(blocks) => blocks,
            None => match builder().build().await {
                Ok(blocks) => blocks,
                Err(error) => {
                    tracing::warn!(%error, "no cache");
                    return None;
                }
            },
        };
        let sizes = CacheBuilder::new(SIZES).build();
        Some(Arc::new(Self { blocks, sizes, counters: Counters::default(), lock }))
    }

    /// What it did so far.
    pub(crate) fn stats(&self) -> CacheStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheStats {
            hits: of(&self.counters.hits),
            misses: of(&self.counters.misses),
            bytes_served: of(&self.counters.bytes_served),
            bytes_fetched: of(&self.counters.bytes_fetched),
            requests: of(&self.counters.requests),
            memory_bytes: self.blocks.memory().usage() as u64,
        }
    }

    /// Blocks on their way to the disk arrive there.
    pub(crate) async fn close(&self) {
        if let Err(error) = self.blocks.close().await {
            tracing::debug!(%error, "the cache on disk is not closed");
        }
    }

    fn keep(&self, location: &Path, file: &Bytes) {
        for (number, start) in (0..file.len()).step_by(BLOCK as usize).enumerate() {
            let block = file.slice(start..file.len().min(start + BLOCK as usize));
            // A copy of its own: a slice would keep the whole file in memory.
            self.blocks.insert(key(location, number as u64), Bytes::copy_from_slice(&block));
        }
    }
}

fn key(location: &Path, block: u64) -> String {
    format!("{location}#{block}")
}

/// An object store whose data files are read through a cache.
pub(crate) struct CachedStore {
    inner: Arc<dyn ObjectStore>,
    cache: Arc<BlockCache>,
}

impl CachedStore {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, cache: Arc<BlockCache>) -> Self {
        Self { inner, cache }
    }

    async fn meta(&self, location: &Path) -> Result<ObjectMeta> {
        if let Some(known) = self.cache.sizes.get(location.as_ref()) {
            return Ok(known.value().clone());
        }
        count(&self.cache.counters.requests, 1);
        let meta = self.inner.head(location).await?;
        self.cache.sizes.insert(location.to_string(), meta.clone());
        Ok(meta)
    }

    /// Some of a file, which has all of the range.
    async fn read(&self, location: &Path, range: Range<u64>) -> Result<Bytes> {
        let mut read = BytesMut::with_capacity((range.end - range.start) as usize);
        let blocks = range.start / BLOCK..range.end.div_ceil(BLOCK);
        let mut wanted = blocks.start;
        while wanted < blocks.end {
            if let Some(block) = self.cached(location, wanted).await {
                append(&mut read, &block, wanted, &range);
                count(&self.cache.counters.bytes_served, block.len() as u64);
                wanted += 1;
                continue;
            }
            let mut after = wanted + 1;
            let mut next = None;
            while after < blocks.end {
                next = self.cached(location, after).await;
                if next.is_some() {
                    break;
                }
                after += 1;
            }
            let file = self.fetch(location, wanted..after).await?;
            for (number, start) in (wanted..after).zip((0..file.len()).step_by(BLOCK as usize)) {
                let block = file.slice(start..file.len().min(start + BLOCK as usize));
                append(&mut read, &block, number, &range);
                self.cache.blocks.insert(key(location, number), Bytes::copy_from_slice(&block));
            }
            if let Some(block) = next {
                append(&mut read, &block, after, &range);
                count(&self.cache.counters.bytes_served, block.len() as u64);
                after += 1;
            }
            wanted = after;
        }
        Ok(read.freeze())
    }

    async fn cached(&self, location: &Path, number: u64) -> Option<Bytes> {
        let found = self.cache.blocks.get(&key(location, number)).await.ok().flatten();
        count(if found.is_some() { &self.cache.counters.hits } else { &self.cache.counters.misses }, 1);
        found.map(|entry| entry.value().clone())
    }

    async fn fetch(&self, location: &Path, blocks: Range<u64>) -> Result<Bytes> {
        let options =
            GetOptions::new().with_range(Some(GetRange::Bounded(blocks.start * BLOCK..blocks.end * BLOCK)));
        let read = self.inner.get_opts(location, options).await?;
        let bytes = read.bytes().await?;
        count(&self.cache.counters.requests, 1);
        count(&self.cache.counters.bytes_fetched, bytes.len() as u64);
        Ok(bytes)
    }
}

/// The part of a block that is in the range.
fn append(read: &mut BytesMut, block: &Bytes, number: u64, range: &Range<u64>) {
    let first = number * BLOCK;
    let from = range.start.saturating_sub(first).min(block.len() as u64) as usize;
    let to = range.end.saturating_sub(first).min(block.len() as u64) as usize;
    read.extend_from_slice(&block[from.min(to)..to]);
}

/// Whether a file never changes.
fn is_data(location: &Path) -> bool {
    location.as_ref().ends_with(".parquet") && !location.as_ref().contains("_delta_log/")
}

/// Whether anything but some bytes is asked for.
fn is_plain(options: &GetOptions) -> bool {
    options.if_match.is_none()
        && options.if_none_match.is_none()
        && options.if_modified_since.is_none()
        && options.if_unmodified_since.is_none()
        && options.version.is_none()
        && !options.head
}

impl fmt::Debug for CachedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CachedStore({:?})", self.inner)
    }
}

impl fmt::Display for CachedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cached {}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for CachedStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let kept = is_data(location) && payload.content_length() <= KEEP_WRITTEN;
        let bytes = kept.then(|| Bytes::from(payload.clone()));
        let put = self.inner.put_opts(location, payload, options).await?;
        if let Some(bytes) = bytes {
            self.cache.keep(location, &bytes);
        }
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let Some(range) = options.range.clone().filter(|_| is_data(location) && is_plain(&options)) else {
            return self.inner.get_opts(location, options).await;
        };
        let meta = self.meta(location).await?;
        let range = match range {
            GetRange::Bounded(range) => range.start..range.end.min(meta.size),
            GetRange::Offset(start) => start..meta.size,
            GetRange::Suffix(count) => meta.size.saturating_sub(count)..meta.size,
        };
        if range.start >= range.end {
            // The store has the words for it.
            return self.inner.get_opts(location, options).await;
        }
        let bytes = self.read(location, range.clone()).await?;
        let payload = GetResultPayload::Stream(futures::stream::once(async { Ok(bytes) }).boxed());
        Ok(GetResult { payload, meta, range, attributes: object_store::Attributes::default() })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        if !is_data(location) || ranges.iter().any(|range| range.start >= range.end) {
            return self.inner.get_ranges(location, ranges).await;
        }
        futures::future::try_join_all(ranges.iter().map(|range| self.read(location, range.clone()))).await
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
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    fn options(folder: PathBuf, memory_bytes: usize, disk_bytes: usize) -> CacheOptions {
        CacheOptions { memory_bytes, disk_bytes, folder }
    }

    /// A file of three and a half blocks, put behind the cache's back.
    async fn store() -> (Arc<InMemory>, Path, Bytes) {
        let inner = Arc::new(InMemory::new());
        let location = Path::from("a/part-1.parquet");
        let bytes: Bytes = (0..BLOCK * 7 / 2).map(|at| (at % 251) as u8).collect::<Vec<_>>().into();
        inner.put(&location, bytes.clone().into()).await.unwrap();
        (inner, location, bytes)
    }

    #[tokio::test]
    async fn what_is_read_is_what_is_there_and_asked_for_once() {
        let (inner, location, bytes) = store().await;
        let cache = BlockCache::open(&options(PathBuf::new(), 16 << 20, 0)).await.unwrap();
        let cached = CachedStore::new(inner.clone(), Arc::clone(&cache));
        let end = bytes.len() as u64;
        let ranges =
            [0..1, 5..BLOCK + 7, BLOCK - 1..BLOCK, end - 9..end, 0..end, BLOCK * 2..BLOCK * 3, end - 1..end];
        for range in &ranges {
            let read = cached.get_range(&location, range.clone()).await.unwrap();
            assert_eq!(read, bytes.slice(range.start as usize..range.end as usize), "{range:?}");
        }
        let several = cached.get_ranges(&location, &ranges).await.unwrap();
        for (range, read) in ranges.iter().zip(several) {
            assert_eq!(read, bytes.slice(range.start as usize..range.end as usize), "{range:?}");
        }
        let suffix = GetOptions::new().with_range(Some(GetRange::Suffix(12)));
        let suffix = cached.get_opts(&location, suffix).await.unwrap();
        assert_eq!((suffix.range.clone(), suffix.meta.size), (end - 12..end, end));
        assert_eq!(suffix.bytes().await.unwrap(), bytes.slice(bytes.len() - 12..));
        let beyond = cached.get_range(&location, end - 3..end + 30).await.unwrap();
        assert_eq!(beyond.len(), 3);
        assert!(cached.get_range(&location, end + 1..end + 2).await.is_err());
        assert_eq!(cache.stats().bytes_fetched, end, "each block once");

        // Gone in the store, still read: data files never change.
        inner.delete(&location).await.unwrap();
        assert_eq!(cached.get_range(&location, 3..9).await.unwrap(), bytes.slice(3..9));
        assert!(cached.get_range(&Path::from("a/none.parquet"), 0..3).await.is_err());
    }

    #[tokio::test]
    async fn the_log_is_never_kept_and_what_is_written_is() {
        let inner = Arc::new(InMemory::new());
        let cache = BlockCache::open(&options(PathBuf::new(), 16 << 20, 0)).await.unwrap();
        let cached = CachedStore::new(inner.clone(), Arc::clone(&cache));
        let log = Path::from("a/_delta_log/00000000000000000001.checkpoint.parquet");
        cached.put(&log, Bytes::from_static(b"one").into()).await.unwrap();
        inner.put(&log, Bytes::from_static(b"two").into()).await.unwrap();
        assert_eq!(cached.get_range(&log, 0..3).await.unwrap(), Bytes::from_static(b"two"));
        let data = Path::from("a/part-2.parquet");
        cached.put(&data, Bytes::from_static(b"rows").into()).await.unwrap();
        assert_eq!(cached.get_ranges(&data, &[1..3, 0..1]).await.unwrap(), ["ow", "r"]);
        assert_eq!((cache.stats().bytes_fetched, cache.stats().hits), (0, 2));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_leaves_memory_is_on_disk_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (inner, location, bytes) = store().await;
        let options = options(folder.path().to_owned(), 1 << 20, 256 << 20);
        let end = bytes.len() as u64;
        {
            let cache = BlockCache::open(&options).await.unwrap();
            let second = BlockCache::open(&options).await.unwrap();
            assert!(cache.lock.is_some() && second.lock.is_none(), "one process a folder");
            let cached = CachedStore::new(inner.clone(), Arc::clone(&cache));
            for _ in 0..3 {
                assert_eq!(cached.get_range(&location, 0..end).await.unwrap(), bytes);
            }
            cache.close().await;
        }
        let cache = BlockCache::open(&options).await.unwrap();
        let cached = CachedStore::new(inner, Arc::clone(&cache));
        assert_eq!(cached.get_range(&location, 0..end).await.unwrap(), bytes);
        let stats = cache.stats();
        assert!(stats.hits > 0 && stats.bytes_fetched < end, "{stats:?}");
    }
}
