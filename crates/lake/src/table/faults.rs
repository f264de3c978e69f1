//! An object store that is slow and fails every fifth request, half of the time after it did what it was asked to do:
//! no row is lost, none is there twice, and no query sees a part of a commit.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use bytes::Bytes;
use datafusion::prelude::SessionContext;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use twinlake_contracts::{Retry, TableSpec, TableStore};

use super::*;
use crate::storage::Storage;
use crate::{Lake, LakeOptions};

/// One request in so many fails.
const ONE_IN: u64 = 5;

#[derive(Debug)]
struct Flaky {
    inner: Arc<dyn ObjectStore>,
    requests: AtomicU64,
    failed: AtomicU64,
    delay: Duration,
}

/// Where a request fails.
#[derive(PartialEq)]
enum Fate {
    Well,
    Before,
    After,
}

impl Flaky {
    /// What becomes of the next request (Steele, Lea, Flood 2014: SplitMix64 over the number of the request).
    async fn fate(&self) -> Fate {
        tokio::time::sleep(self.delay).await;
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        if !mixed.is_multiple_of(ONE_IN) {
            return Fate::Well;
        }
        self.failed.fetch_add(1, Ordering::Relaxed);
        if (mixed / ONE_IN).is_multiple_of(2) { Fate::Before } else { Fate::After }
    }

    fn broken() -> StoreError {
        StoreError::Generic { store: "flaky", source: "the connection was reset".into() }
    }

    async fn through<T>(&self, work: impl Future<Output = StoreResult<T>>) -> StoreResult<T> {
        match self.fate().await {
            Fate::Well => work.await,
            Fate::Before => Err(Self::broken()),
            Fate::After => {
                // It was done, or failed in its own way; the answer is lost in both cases.
                let _ = work.await;
                Err(Self::broken())
            }
        }
    }
}

impl fmt::Display for Flaky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flaky")
    }
}

#[async_trait]
impl ObjectStore for Flaky {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        self.through(self.inner.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.through(self.inner.put_multipart_opts(location, options)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.through(self.inner.get_opts(location, options)).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> StoreResult<Vec<Bytes>> {
        self.through(self.inner.get_ranges(location, ranges)).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.through(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.through(self.inner.copy_opts(from, to, options)).await
    }
}

fn numbers(from: i64, count: i64) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("n", DataType::Int64, true)]);
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from_iter_values(from..from + count))])
        .unwrap()
}

/// Tries until it works, as a pipeline does; only failures that may pass are tried again.
async fn insist<T, F: Future<Output = Result<T>>>(mut work: impl FnMut() -> F) -> T {
    for _ in 0..200 {
        match work().await {
            Ok(done) => return done,
            Err(error) => {
                assert_eq!(error.retry(), Retry::Backoff, "{error}");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }
    panic!("200 tries in a row failed");
}

async fn summary(table: &LakeTable) -> Result<(i64, i64)> {
    let context = SessionContext::new();
    let provider = table.provider().await?;
    let failed = |error: &datafusion::error::DataFusionError| Error::transient("query", error.to_string());
    context.register_table("t", provider).map_err(|error| failed(&error))?;
    let frame =
        context.sql("SELECT count(*), count(DISTINCT n) FROM t").await.map_err(|error| failed(&error))?;
    let rows = frame.collect().await.map_err(|error| failed(&error))?;
    let value = |column: usize| rows[0].column(column).as_primitive::<Int64Type>().value(0);
    Ok((value(0), value(1)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_store_that_fails_every_fifth_request_loses_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let options = LakeOptions { checkpoint_interval: 5, ..LakeOptions::default() };
    let mut storage = Storage::open(folder.path().to_str().unwrap(), &options).unwrap();
    let flaky = Arc::new(Flaky {
        inner: Arc::clone(&storage.root),
        requests: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        delay: Duration::from_millis(3),
    });
    storage.root = Arc::clone(&flaky) as _;
    let lake = loop {
        let storage = Storage {
            root: Arc::clone(&storage.root),
            prefix: storage.prefix.clone(),
            url: storage.url.clone(),
            logs: storage.logs.clone(),
        };
        if let Ok(lake) = Lake::over(storage, options.clone()).await {
            break lake;
        }
    };
    let spec = TableSpec {
        name: TableName::parse("test.readings").unwrap(),
        schema: numbers(0, 1).schema(),
        description: String::new(),
    };
    let table = insist(|| lake.open_lake_table(spec.clone())).await;
    for round in 0..40_i64 {
        insist(|| table.add_fresh("test/rows", numbers(round * 100, 100))).await;
        let sequence = (round as u64 + 1) * 100;
        insist(|| table.commit("test/rows", sequence, WriteMode::Append)).await;
        assert_eq!(insist(|| table.committed("test/rows")).await, Some(sequence));
        insist(|| lake.put_state("test", sequence, sequence, sequence.to_le_bytes().to_vec())).await;
        let all = (round + 1) * 100;
        assert_eq!(insist(|| summary(&table)).await, (all, all), "round {round}");
    }
    let state = insist(|| lake.state("test", 4_000)).await;
    assert_eq!(state, Some(4_000_u64.to_le_bytes().to_vec()));
    let (requests, failed) = (flaky.requests.load(Ordering::Relaxed), flaky.failed.load(Ordering::Relaxed));
    assert!(failed * 7 > requests && failed > 40, "{failed} of {requests} requests failed");
    drop((table, lake));
    // The next process, on a store that is well again.
    let lake = Lake::open(folder.path().to_str().unwrap(), LakeOptions::default()).await.unwrap();
    let table = lake.table(&spec.name).unwrap();
    assert_eq!(summary(&table).await.unwrap(), (4_000, 4_000));
}
