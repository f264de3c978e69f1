//! In-memory stand-ins for tests: a store that dies at any step, a source, a decoder, a reader, a SQL engine.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{
    Array, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use schemars::JsonSchema;
use serde::Deserialize;
use twinlake_contracts::{
    BatchIterator, Checkpoint, Component, Decoder, Error, Location, LoggedMessage, Message, MessageLog,
    MessageStream, Position, Reader, Registry, Rejects, Result, Source, SqlEngine, TableName, TableSpec,
    TableStore, TableWriter, WriteMode, timestamp_type,
};

use crate::cell;
use crate::components::Components;

/// Everything that survives a crash.
#[derive(Default)]
pub struct Durable {
    pub log: Vec<LoggedMessage>,
    pub released: u64,
    /// Rows as text, by table.
    pub tables: BTreeMap<String, Vec<String>>,
    pub committed: HashMap<(String, String), u64>,
    pub states: BTreeMap<u64, Vec<u8>>,
    pub versions: HashMap<String, u64>,
    pub specs: BTreeMap<String, TableSpec>,
}

/// When steps fail.
pub struct Faults {
    /// Steps until the process dies; negative for never.
    pub dies_after: AtomicI64,
    /// Whether the last step before the death still has its effect.
    pub takes_effect: bool,
    /// Every so many steps one fails in a way that passes; 0 for never.
    pub stumbles_every: i64,
    pub steps: AtomicI64,
}

impl Faults {
    pub fn none() -> Arc<Self> {
        Self::new(-1, false, 0)
    }

    pub fn new(dies_after: i64, takes_effect: bool, stumbles_every: i64) -> Arc<Self> {
        Arc::new(Self { dies_after: dies_after.into(), takes_effect, stumbles_every, steps: 0.into() })
    }

    /// Runs a step with its faults.
    fn step<T>(&self, effect: impl FnOnce() -> T) -> Result<T> {
        let number = self.steps.fetch_add(1, Ordering::SeqCst);
        let dies_after = self.dies_after.load(Ordering::SeqCst);
        if dies_after >= 0 && number >= dies_after {
            if number == dies_after && self.takes_effect {
                effect();
            }
            return Err(Error::permanent("process", "killed"));
        }
        if self.stumbles_every > 0 && number % self.stumbles_every == 0 {
            return Err(Error::transient("disk", "full"));
        }
        Ok(effect())
    }
}

/// A process's view of the store.
pub struct FakeStore {
    pub durable: Arc<Mutex<Durable>>,
    pub faults: Arc<Faults>,
    pub fresh: Arc<Mutex<Fresh>>,
}

/// Fresh rows as text, by table and writer.
pub type Fresh = HashMap<(String, String), Vec<String>>;

impl FakeStore {
    pub fn new(durable: &Arc<Mutex<Durable>>, faults: Arc<Faults>) -> Self {
        Self { durable: Arc::clone(durable), faults, fresh: Arc::default() }
    }

    fn table(&self, name: TableName) -> Arc<dyn TableWriter> {
        Arc::new(FakeTable {
            name,
            durable: Arc::clone(&self.durable),
            faults: Arc::clone(&self.faults),
            fresh: Arc::clone(&self.fresh),
        })
    }
}

struct FakeLog(Arc<Mutex<Durable>>, Arc<Faults>);

struct FakeTable {
    name: TableName,
    durable: Arc<Mutex<Durable>>,
    faults: Arc<Faults>,
    fresh: Arc<Mutex<Fresh>>,
}

#[async_trait]
impl TableStore for FakeStore {
    async fn open_table(&self, spec: TableSpec) -> Result<Arc<dyn TableWriter>> {
        self.faults.step(|| {
            let mut durable = self.durable.lock().unwrap();
            durable.tables.entry(spec.name.to_string()).or_default();
            durable.specs.entry(spec.name.to_string()).or_insert_with(|| spec.clone());
            self.table(spec.name)
        })
    }

    async fn grow_table(&self, spec: TableSpec) -> Result<Arc<dyn TableWriter>> {
        self.faults.step(|| {
            let mut durable = self.durable.lock().unwrap();
            durable.tables.entry(spec.name.to_string()).or_default();
            let known = durable.specs.entry(spec.name.to_string()).or_insert_with(|| spec.clone());
            let mut fields = known.schema.fields().to_vec();
            for field in spec.schema.fields() {
                match known.schema.field_with_name(field.name()) {
                    Err(_) => fields.push(Arc::clone(field)),
                    Ok(there) if there.data_type() == field.data_type() => {}
                    Ok(_) => return Err(Error::config(format!("'{}' has another type", field.name()))),
                }
            }
            known.schema = Arc::new(Schema::new(fields));
            Ok(self.table(spec.name))
        })?
    }

    async fn describe_table(&self, name: &TableName) -> Result<Option<TableSpec>> {
        self.faults.step(|| self.durable.lock().unwrap().specs.get(&name.to_string()).cloned())
    }

    async fn open_log(&self, _pipeline: &str) -> Result<Arc<dyn MessageLog>> {
        self.faults.step(|| {
            Arc::new(FakeLog(Arc::clone(&self.durable), Arc::clone(&self.faults))) as Arc<dyn MessageLog>
        })
    }

    async fn put_state(&self, _pipeline: &str, sequence: u64, keep_from: u64, state: Vec<u8>) -> Result<()> {
        self.faults.step(|| {
            let mut durable = self.durable.lock().unwrap();
            durable.states.insert(sequence, state);
            durable.states.retain(|at, _| *at >= keep_from);
        })
    }

    async fn newest_state(&self, _pipeline: &str) -> Result<Option<(u64, Vec<u8>)>> {
        self.faults.step(|| {
            let durable = self.durable.lock().unwrap();
            durable.states.last_key_value().map(|(sequence, state)| (*sequence, state.clone()))
        })
    }

    async fn state(&self, _pipeline: &str, sequence: u64) -> Result<Option<Vec<u8>>> {
        self.faults.step(|| self.durable.lock().unwrap().states.get(&sequence).cloned())
    }
}

#[async_trait]
impl MessageLog for FakeLog {
    async fn append(&self, source: &str, messages: Vec<Message>) -> Result<u64> {
        self.1.step(|| {
            let mut durable = self.0.lock().unwrap();
            for message in messages {
                let sequence = durable.log.len() as u64 + 1;
                durable.log.push(LoggedMessage { sequence, source: source.into(), message });
            }
            durable.log.len() as u64
        })
    }

    async fn read(&self, after: u64, limit: usize) -> Result<Vec<LoggedMessage>> {
        self.1.step(|| {
            let durable = self.0.lock().unwrap();
            assert!(after >= durable.released, "a released message was asked for");
            durable.log.iter().filter(|logged| logged.sequence > after).take(limit).cloned().collect()
        })
    }

    fn last_sequence(&self) -> u64 {
        self.0.lock().unwrap().log.len() as u64
    }

    fn checkpoint(&self, source: &str) -> Checkpoint {
        let durable = self.0.lock().unwrap();
        let last = durable.log.iter().rev().find(|logged| &*logged.source == source);
        Checkpoint(last.map(|logged| logged.message.position.clone()))
    }

    async fn release(&self, upto: u64) -> Result<()> {
        self.1.step(|| self.0.lock().unwrap().released = upto)
    }
}

#[async_trait]
impl TableWriter for FakeTable {
    fn name(&self) -> &TableName {
        &self.name
    }

    async fn committed(&self, writer: &str) -> Result<Option<u64>> {
        let key = (self.name.to_string(), writer.to_owned());
        self.faults.step(|| self.durable.lock().unwrap().committed.get(&key).copied())
    }

    async fn add_fresh(&self, writer: &str, rows: RecordBatch) -> Result<()> {
        self.faults.step(|| {
            let durable = self.durable.lock().unwrap();
            let known = &durable.specs[&self.name.to_string()].schema;
            for field in rows.schema_ref().fields() {
                let column = known.field_with_name(field.name()).unwrap();
                assert_eq!(column.data_type(), field.data_type(), "column '{}'", field.name());
            }
            let rows =
                (0..rows.num_rows()).map(|at| serde_json::Value::Object(cell::row(&rows, at)).to_string());
            let key = (self.name.to_string(), writer.to_owned());
            self.fresh.lock().unwrap().entry(key).or_default().extend(rows);
        })
    }

    async fn commit(&self, writer: &str, upto: u64, mode: WriteMode) -> Result<u64> {
        self.faults.step(|| {
            let mut durable = self.durable.lock().unwrap();
            let key = (self.name.to_string(), writer.to_owned());
            let committed = durable.committed.entry(key.clone()).or_default();
            if upto > *committed {
                *committed = upto;
                let fresh = self.fresh.lock().unwrap().remove(&key).unwrap_or_default();
                let rows = durable.tables.entry(self.name.to_string()).or_default();
                if mode == WriteMode::Replace {
                    rows.clear();
                }
                rows.extend(fresh);
                *durable.versions.entry(self.name.to_string()).or_default() += 1;
            }
            durable.versions.get(&self.name.to_string()).copied().unwrap_or_default()
        })
    }
}

/// A bounded source: `count` messages; lines of `payloads` in turn.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FakeSource {
    /// The broker's address.
    url: String,
    #[serde(default)]
    payloads: Vec<String>,
    #[serde(default)]
    count: u64,
    #[serde(default = "yes")]
    bounded: bool,
    #[serde(default)]
    password_file: Option<String>,
}

fn yes() -> bool {
    true
}

impl Component for FakeSource {
    const TYPE: &'static str = "fake";
    type Product = dyn Source;
    fn build(self) -> Result<Box<dyn Source>> {
        if !self.url.starts_with("fake://") {
            return Err(Error::config(format!("'{}' is not a fake address", self.url)).with_help("fake://…"));
        }
        assert!(self.password_file.as_ref().is_none_or(|path| path.starts_with("folder")));
        Ok(Box::new(self))
    }
}

#[async_trait]
impl Source for FakeSource {
    async fn open(&mut self, resume: &Checkpoint) -> Result<MessageStream> {
        let (from, count, payloads) = (resume.ordinal() + 1, self.count, self.payloads.clone());
        let messages = futures::stream::iter(from..=count).then(move |ordinal| {
            let payload = Bytes::from(
                payloads[(ordinal as usize - 1) % payloads.len()].replace('#', &ordinal.to_string()),
            );
            async move {
                if ordinal % 3 == 0 {
                    tokio::task::yield_now().await;
                }
                Ok(Message {
                    payload,
                    origin: format!("topic/{ordinal}").into(),
                    position: Position { ordinal, token: format!("#{ordinal}") },
                    received_at_us: ordinal as i64 * 1_000_000,
                })
            }
        });
        Ok(if self.bounded { messages.boxed() } else { messages.chain(futures::stream::pending()).boxed() })
    }

    async fn acknowledge(&mut self, _upto: &Checkpoint) -> Result<()> {
        Ok(())
    }

    fn bounded(&self) -> bool {
        self.bounded
    }
}

/// Decodes `id,seconds,value`; an empty part is null, `bad` is refused, `none` gives no row, `two` gives two, `die`
/// panics.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FakeDecoder {
    #[serde(default)]
    root: Option<String>,
}

fn columns() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Utf8, true),
        Field::new("ts", timestamp_type(), true),
        Field::new("value", DataType::Float64, true),
    ]))
}

impl Component for FakeDecoder {
    const TYPE: &'static str = "fake";
    type Product = dyn Decoder;
    fn build(self) -> Result<Box<dyn Decoder>> {
        match self.root.as_deref() {
            Some("nowhere") => Err(Error::config("'nowhere' is no place")),
            _ => Ok(Box::new(self)),
        }
    }
}

impl Decoder for FakeDecoder {
    fn schema(&self) -> SchemaRef {
        columns()
    }

    fn decode(
        &self,
        window: &[Message],
        rejects: &mut Rejects,
        rows_of: &mut Vec<u32>,
    ) -> Result<RecordBatch> {
        let mut rows: Vec<(Option<String>, Option<i64>, Option<f64>)> = Vec::new();
        for (index, message) in window.iter().enumerate() {
            let text = std::str::from_utf8(&message.payload).unwrap();
            match text {
                "bad" => rejects.push(index, "invalid", "not a row"),
                "none" => {}
                "die" => panic!("a defect of the decoder"),
                "two" => {
                    for id in ["two-1", "two-2"] {
                        rows.push((Some(id.into()), Some(message.received_at_us), Some(1.0)));
                        rows_of.push(index as u32);
                    }
                }
                _ => {
                    let parts: Vec<&str> = text.split(',').collect();
                    let seconds = parts[1].parse::<i64>().ok().map(|seconds| seconds * 1_000_000);
                    rows.push((Some(parts[0].to_owned()), seconds, parts[2].parse().ok()));
                    rows_of.push(index as u32);
                }
            }
        }
        let ids: StringArray = rows.iter().map(|row| row.0.clone()).collect();
        let times: TimestampMicrosecondArray = rows.iter().map(|row| row.1).collect();
        let values: Float64Array = rows.iter().map(|row| row.2).collect();
        let columns =
            vec![Arc::new(ids) as _, Arc::new(times.with_timezone("UTC")) as _, Arc::new(values) as _];
        Ok(RecordBatch::try_new(self.schema(), columns)?)
    }
}

/// Gives `rows` rows, then fails if the path ends in `broken`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FakeReader {
    rows: i64,
}

impl Component for FakeReader {
    const TYPE: &'static str = "fake";
    type Product = dyn Reader;
    fn build(self) -> Result<Box<dyn Reader>> {
        Ok(Box::new(self))
    }
}

impl Reader for FakeReader {
    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("number", DataType::Int64, false)]))
    }

    fn read(&self, at: &Location) -> Result<BatchIterator> {
        let (schema, broken) = (self.schema(), at.0.ends_with("broken"));
        let batches = (0..self.rows).map(move |number| {
            Ok(RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(Int64Array::from(vec![number]))])?)
        });
        let end = broken.then(|| Err(Error::data("truncated", "the file ends in the middle")));
        Ok(Box::new(batches.chain(end)))
    }
}

pub fn components() -> Arc<Components> {
    Arc::new(Components::new(
        Registry::new("source").with::<FakeSource>(),
        Registry::new("decoder").with::<FakeDecoder>(),
        Registry::new("reader").with::<FakeReader>(),
    ))
}

/// Knows `SELECT *`, `WHERE value > 0` (fails on 666) and that `GROUP` is not row-wise.
#[derive(Default)]
pub struct FakeEngine {
    /// Every so many runs one fails in a way that passes; 0 for never.
    pub stumbles_every: i64,
    pub runs: AtomicI64,
}

#[async_trait]
impl SqlEngine for FakeEngine {
    async fn plan(&self, sql: &str, inputs: &[(String, SchemaRef)]) -> Result<SchemaRef> {
        if sql.contains("valeu") {
            return Err(Error::config("no field named 'valeu'").with_help("did you mean 'value'?"));
        }
        if sql.contains("SELCT") {
            return Err(Error::config("Expected: an SQL statement, found: SELCT at Line: 2, Column: 1"));
        }
        Ok(Arc::clone(&inputs[0].1))
    }

    async fn is_row_wise(&self, sql: &str, _inputs: &[(String, SchemaRef)]) -> Result<bool> {
        Ok(!sql.contains("GROUP"))
    }

    async fn run(
        &self,
        sql: &str,
        inputs: &[(String, SchemaRef, Vec<RecordBatch>)],
        carry: Option<&str>,
    ) -> Result<Vec<RecordBatch>> {
        let number = self.runs.fetch_add(1, Ordering::SeqCst);
        if self.stumbles_every > 0 && number % self.stumbles_every == 1 {
            return Err(Error::transient("engine", "away"));
        }
        let batches = &inputs[0].2;
        if let Some(carry) = carry {
            assert_eq!(batches[0].schema().fields().last().unwrap().name(), carry);
        }
        if !sql.contains("value > 0") {
            return Ok(batches.clone());
        }
        batches
            .iter()
            .map(|batch| {
                let values = batch.column_by_name("value").unwrap().as_primitive::<Float64Type>();
                if values.iter().flatten().any(|value| value == 666.0) {
                    return Err(Error::data("overflow", "666 is too much"));
                }
                let keep: BooleanArray =
                    (0..values.len()).map(|at| Some(values.is_null(at) || values.value(at) > 0.0)).collect();
                Ok(filter_record_batch(batch, &keep)?)
            })
            .collect()
    }

    async fn read_tables(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        match sql {
            "SELECT * FROM fake" => Ok(vec![fake_table()]),
            "SELECT * FROM one" => Ok(vec![fake_table().slice(0, 2)]),
            _ => Err(Error::config("there is no such table")),
        }
    }
}

/// What [`FakeEngine`] answers to a question about its tables.
fn fake_table() -> RecordBatch {
    let ids: StringArray = [Some("a"), Some("b"), Some("b"), None].into_iter().collect();
    let since: TimestampMicrosecondArray =
        [Some(0), Some(0), Some(10_000_000), Some(0)].into_iter().collect();
    let limits: Int64Array = [Some(1), Some(2), Some(3), Some(4)].into_iter().collect();
    let areas: StringArray = [
        Some("POLYGON ((0 0, 2 0, 2 2, 0 2, 0 0))"),
        Some("POLYGON ((1 0, 3 0, 3 2, 1 2, 1 0))"),
        None,
        None,
    ]
    .into_iter()
    .collect();
    RecordBatch::try_from_iter([
        ("id", Arc::new(ids) as _),
        ("since", Arc::new(since.with_timezone("UTC")) as _),
        ("limit", Arc::new(limits) as _),
        ("area", Arc::new(areas) as _),
    ])
    .unwrap()
}

pub fn engine() -> Arc<dyn SqlEngine> {
    Arc::new(FakeEngine::default())
}
