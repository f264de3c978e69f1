//! Rows as Parquet files of a table: clustered, compressed, with statistics.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::{SortColumn, SortOptions, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use deltalake_core::DeltaTableError;
use deltalake_core::datafile::writer::{DeltaWriter, WriterConfig};
use deltalake_core::kernel::{Add, LogicalFileView, Remove};
use deltalake_core::logstore::ObjectStoreRef;
use deltalake_core::table::config::TablePropertiesExt as _;
use deltalake_core::table::state::DeltaTableState;
use object_store::ObjectStoreExt as _;
use object_store::memory::InMemory;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use twinlake_contracts::{Error, now_us, parse_us};

use super::cell::H3_COLUMN;
use super::extent;

/// The tag of a file, in the table's log, that names its writer.
pub(super) const WRITER_TAG: &str = "twinlake.writer";
const TIME_COLUMN: &str = "ts";
const FILE_BYTES: NonZeroU64 = NonZeroU64::new(128 << 20).unwrap();
const ROWS_AT_ONCE: usize = 8192;

fn properties(schema: &SchemaRef) -> Result<WriterProperties, DeltaTableError> {
    let mut builder = WriterProperties::builder()
        .set_created_by(concat!("twinlake ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?));
    for field in schema.fields() {
        // The least and greatest bytes of payloads and geometries prune nothing.
        if matches!(field.data_type(), DataType::Binary) {
            let column = ColumnPath::from(field.name().as_str());
            builder = builder.set_column_statistics_enabled(column, EnabledStatistics::None);
        }
    }
    Ok(builder.build())
}

/// Rows of a commit in one batch, with the boxes of their geometries. With cells they are sorted by cell and time, so that a file's pages hold
/// neighbours; equal keys keep the order in which they came. The same batches always give the same order.
fn cluster(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<RecordBatch, DeltaTableError> {
    let rows = extent::with_boxes(&concat_batches(&extent::visible(schema), batches)?, schema)?;
    let Some(cells) = rows.column_by_name(H3_COLUMN) else { return Ok(rows) };
    let options = Some(SortOptions { descending: false, nulls_first: false });
    let mut keys = vec![SortColumn { values: Arc::clone(cells), options }];
    if let Some(times) = rows.column_by_name(TIME_COLUMN)
        && matches!(times.data_type(), DataType::Timestamp(..))
    {
        keys.push(SortColumn { values: Arc::clone(times), options });
    }
    // The sort is not stable: the place of each row is the last key.
    let places = UInt64Array::from_iter_values(0..rows.num_rows() as u64);
    keys.push(SortColumn { values: Arc::new(places), options: None });
    let order = lexsort_to_indices(&keys, None)?;
    Ok(take_record_batch(&rows, &order)?)
}

/// Writes rows of one writer as files of a table, whose columns `schema` names with those that queries do not see; they
/// belong to it only when a commit names them. They are encoded in memory on a blocking thread and then stored as a whole:
/// the Delta writer's own upload panics in the background when the store fails in the middle of a file.
pub(super) async fn write(
    store: ObjectStoreRef,
    state: &DeltaTableState,
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    writer: &str,
) -> Result<Vec<Add>, DeltaTableError> {
    if batches.iter().all(|batch| batch.num_rows() == 0) {
        return Ok(Vec::new());
    }
    let indexed_columns = state.table_config().num_indexed_cols();
    let runtime = tokio::runtime::Handle::current();
    let memory = Arc::new(InMemory::new());
    let encoded: ObjectStoreRef = Arc::clone(&memory) as _;
    let work = move || {
        let rows = cluster(&schema, &batches)?;
        drop(batches);
        let properties = properties(&schema)?;
        let config = WriterConfig::new(
            Arc::clone(&schema),
            Vec::new(),
            Some(properties),
            Some(FILE_BYTES),
            Some(ROWS_AT_ONCE),
            indexed_columns,
            None,
        );
        runtime.block_on(async move {
            let mut writer = DeltaWriter::new(encoded, config);
            writer.write(&rows).await?;
            writer.close().await
        })
    };
    let adds: Result<Vec<Add>, DeltaTableError> = tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| DeltaTableError::Generic(error.to_string()))?;
    let mut adds = adds?;
    for add in &mut adds {
        let location = Path::from(add.path.as_str());
        let file = memory.get(&location).await?.bytes().await?;
        memory.delete(&location).await?;
        store.put(&location, file.into()).await?;
        add.tags = Some(HashMap::from([(WRITER_TAG.to_owned(), Some(writer.to_owned()))]));
    }
    Ok(adds)
}

/// The rows of a data file, in its own columns.
pub(super) async fn read(store: ObjectStoreRef, add: &Add) -> Result<Vec<RecordBatch>, DeltaTableError> {
    let file = store.get(&Path::from(add.path.as_str())).await?.bytes().await?;
    let work = move || {
        let reader = ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(ROWS_AT_ONCE).build()?;
        reader.collect::<Result<Vec<_>, _>>().map_err(DeltaTableError::from)
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| DeltaTableError::Generic(error.to_string()))?
}

/// The entry of the table's log that names a file, with its statistics and its writer.
pub(super) fn entry(file: &LogicalFileView) -> Add {
    #[expect(deprecated, reason = "the view shows neither tags nor statistics in another way")]
    file.add_action()
}

/// The entry that takes a file away.
pub(super) fn remove(add: &Add, data_change: bool) -> Remove {
    Remove {
        path: add.path.clone(),
        data_change,
        deletion_timestamp: Some(now_us() / 1000),
        extended_file_metadata: Some(true),
        partition_values: Some(add.partition_values.clone()),
        size: Some(add.size),
        tags: add.tags.clone(),
        deletion_vector: add.deletion_vector.clone(),
        base_row_id: add.base_row_id,
        default_row_commit_version: add.default_row_commit_version,
    }
}

/// Whose rows a file holds; `None` for files that others wrote.
pub(super) fn writer_of(add: &Add) -> Option<&str> {
    add.tags.as_ref()?.get(WRITER_TAG)?.as_deref()
}

/// How many rows a file has, by its statistics.
pub(super) fn row_count(add: &Add) -> Option<u64> {
    statistics(add)?.get("numRecords")?.as_u64()
}

/// The least and the greatest of a column of whole numbers, and how many rows have none, by the file's statistics.
pub(super) fn range_of(add: &Add, column: &str) -> Option<(i64, i64, u64)> {
    let statistics = statistics(add)?;
    let of = |kind: &str| statistics.get(kind)?.get(column)?.as_i64();
    let nulls = statistics.get("nullCount")?.get(column)?.as_u64()?;
    Some((of("minValues")?, of("maxValues")?, nulls))
}

/// The least event time of a file's rows in microseconds, by its statistics.
pub(super) fn least_time_us(add: &Add) -> Option<i64> {
    time_range_us(add, TIME_COLUMN).map(|(least, _)| least)
}

/// The least and the greatest of a column of times, in microseconds, by the file's statistics; these have milliseconds,
/// so the greatest may be up to one too low.
pub(super) fn time_range_us(add: &Add, column: &str) -> Option<(i64, i64)> {
    let statistics = statistics(add)?;
    let of = |kind: &str| parse_us(statistics.get(kind)?.get(column)?.as_str()?);
    Some((of("minValues")?, of("maxValues").map_or(i64::MAX, |most| most.saturating_add(999))))
}

/// How many rows of a file have no value in a column, by its statistics.
pub(super) fn nulls_of(add: &Add, column: &str) -> Option<u64> {
    statistics(add)?.get("nullCount")?.get(column)?.as_u64()
}

fn statistics(add: &Add) -> Option<serde_json::Value> {
    serde_json::from_str(add.stats.as_deref()?).ok()
}

/// Rows that another engine has marked as deleted without rewriting their file are not understood when files are read one
/// by one.
pub(super) fn refuse_deletion_vector(system: &str, add: &Add) -> twinlake_contracts::Result<()> {
    if add.deletion_vector.is_none() {
        return Ok(());
    }
    let message = format!("{system}: rows of the file {} are deleted by a deletion vector", add.path);
    Err(Error::config(message)
        .with_help("have the engine that deleted them rewrite the file (REORG TABLE … APPLY (PURGE))"))
}
