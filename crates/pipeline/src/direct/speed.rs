//! How fast direct ingest is without a lake: line protocol bodies, a log that syncs its file, tables that keep rows in
//! memory and forget them with their commit (what a commit costs is measured in the lake).
//!
//! `taskset -c 0 cargo test --release -p twinlake-pipeline --lib direct::speed -- --ignored --nocapture`

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use twinlake_contracts::{
    BodyFormat, Checkpoint, Delivery, Intake, LoggedMessage, Message, MessageLog, Precision, Result,
    TableName, TableSpec, TableStore, TableWriter, WriteMode,
};
use twinlake_formats::Bodies;

use super::{DirectIngest, DirectOptions};

#[derive(Default)]
struct Memory {
    specs: Mutex<std::collections::HashMap<TableName, TableSpec>>,
    syncs: Arc<AtomicU64>,
}

struct Table(TableName, Mutex<Vec<RecordBatch>>);

struct FileLog(Mutex<(std::fs::File, u64)>, Arc<AtomicU64>);

#[async_trait]
impl TableStore for Memory {
    async fn open_table(&self, spec: TableSpec) -> Result<Arc<dyn TableWriter>> {
        self.grow_table(spec).await
    }

    async fn grow_table(&self, spec: TableSpec) -> Result<Arc<dyn TableWriter>> {
        let table = Table(spec.name.clone(), Mutex::default());
        self.specs.lock().unwrap().insert(spec.name.clone(), spec);
        Ok(Arc::new(table))
    }

    async fn describe_table(&self, name: &TableName) -> Result<Option<TableSpec>> {
        Ok(self.specs.lock().unwrap().get(name).cloned())
    }

    async fn open_log(&self, pipeline: &str) -> Result<Arc<dyn MessageLog>> {
        let path = std::env::temp_dir().join(format!("twinlake-speed-{pipeline}-{}", std::process::id()));
        let file = std::fs::File::create(&path)?;
        std::fs::remove_file(&path)?;
        Ok(Arc::new(FileLog(Mutex::new((file, 0)), Arc::clone(&self.syncs))))
    }

    async fn put_state(&self, _: &str, _: u64, _: u64, _: Vec<u8>) -> Result<()> {
        Ok(())
    }

    async fn newest_state(&self, _: &str) -> Result<Option<(u64, Vec<u8>)>> {
        Ok(None)
    }

    async fn state(&self, _: &str, _: u64) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

#[async_trait]
impl MessageLog for FileLog {
    async fn append(&self, _: &str, messages: Vec<Message>) -> Result<u64> {
        let mut log = self.0.lock().unwrap();
        for message in &messages {
            log.0.write_all(&message.payload)?;
            log.1 += 1;
        }
        log.0.sync_data()?;
        self.1.fetch_add(1, Ordering::Relaxed);
        Ok(log.1)
    }

    async fn read(&self, _: u64, _: usize) -> Result<Vec<LoggedMessage>> {
        Ok(Vec::new())
    }

    fn last_sequence(&self) -> u64 {
        self.0.lock().unwrap().1
    }

    fn checkpoint(&self, _: &str) -> Checkpoint {
        Checkpoint::default()
    }

    async fn release(&self, _: u64) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl TableWriter for Table {
    fn name(&self) -> &TableName {
        &self.0
    }

    async fn committed(&self, _: &str) -> Result<Option<u64>> {
        Ok(None)
    }

    async fn add_fresh(&self, _: &str, rows: RecordBatch) -> Result<()> {
        self.1.lock().unwrap().push(rows);
        Ok(())
    }

    async fn commit(&self, _: &str, _: u64, _: WriteMode) -> Result<u64> {
        self.1.lock().unwrap().clear();
        Ok(0)
    }
}

fn body(start: u64, fields: usize) -> Bytes {
    let mut text = String::new();
    for number in start..start + 5_000 {
        let _ = write!(text, "cpu,host=server{:04},region=eu ", number % 1_000);
        for field in 0..fields {
            let _ =
                write!(text, "{}field{field}={}.{}", if field == 0 { "" } else { "," }, number % 100, field);
        }
        let _ = writeln!(text, " {}", 1_539_059_573_000_000_000 + number * 1_000_000);
    }
    Bytes::from(text)
}

#[tokio::test]
#[ignore = "a measurement"]
async fn points_per_second() {
    for fields in [1, 10] {
        let store = Arc::new(Memory::default());
        let intake =
            DirectIngest::open(Arc::clone(&store) as _, Arc::new(Bodies), None, DirectOptions::default())
                .await
                .unwrap();
        let bodies: Vec<Bytes> = (0..40).map(|number| body(number * 5_000, fields)).collect();
        let (clients, rounds) = (8, 40);
        let start = Instant::now();
        let client = |client: usize| {
            let (intake, bodies) = (&intake, &bodies);
            async move {
                let mut rows = 0;
                for round in 0..rounds {
                    let format = BodyFormat::LineProtocol {
                        database: "d".to_owned(),
                        precision: Precision::Nanoseconds,
                    };
                    let body = bodies[(client + round) % bodies.len()].clone();
                    rows += intake.take(Delivery { body, format, key: None }).await.unwrap().rows;
                }
                rows
            }
        };
        let rows: u64 = join_all((0..clients).map(client)).await.iter().sum();
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{fields} field(s) a line: {:.2} million lines/s, {:.2} million values/s, {} syncs in {seconds:.2} s",
            rows as f64 / seconds / 1e6,
            rows as f64 * fields as f64 / seconds / 1e6,
            store.syncs.load(Ordering::Relaxed),
        );
        intake.stop().await.unwrap();
    }
}
