//! The tables that bodies go to: found by name or by measurement, opened once, made and widened when rows ask for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use twinlake_contracts::{
    DATABASE, Error, MEASUREMENT, MessageLog, Result, RowsFor, TableName, TableSpec, TableStore, TableWriter,
    WriteMode,
};

use super::names::{self, TIME};
use super::patience::Patience;
use crate::plan::added_fields;

/// A table, as far as direct ingest writes it.
pub(super) struct Target {
    pub writer: String,
    /// The columns that it has; none before it is made.
    pub schema: SchemaRef,
    /// Rows of messages up to this one are committed: they are not added again.
    pub committed: u64,
    /// Whether it has rows that wait for their commit.
    pub dirty: bool,
    pub table: Option<Arc<dyn TableWriter>>,
}

/// A measurement, in the client's own words.
struct Claim {
    database: Arc<str>,
    measurement: Arc<str>,
}

/// All tables that were asked for since the start.
pub(super) struct Tables {
    store: Arc<dyn TableStore>,
    log: Arc<dyn MessageLog>,
    /// The first part of the writers' names.
    writers: String,
    patience: Patience,
    pub targets: BTreeMap<TableName, Target>,
    measurements: HashMap<Arc<str>, HashMap<Arc<str>, TableName>>,
}

/// The name that rows' table has, unless it is taken.
pub(super) fn first_name(rows: &RowsFor) -> TableName {
    match rows {
        RowsFor::Table(name) => name.clone(),
        RowsFor::Measurement { database, measurement } => {
            let [first, _] = names::tables(database, measurement);
            first
        }
    }
}

/// Whether a measurement may write a table: its own, or one that nobody claimed and that has its very name.
fn is_for(spec: &TableSpec, claim: &Claim) -> bool {
    let time = spec.schema.field_with_name(TIME).ok();
    let own = |key: &str| time.and_then(|field| field.metadata().get(key)).map(String::as_str);
    match (own(DATABASE), own(MEASUREMENT)) {
        (None, None) => *spec.name.schema == *claim.database && *spec.name.table == *claim.measurement,
        (database, measurement) => {
            database == Some(&claim.database) && measurement == Some(&claim.measurement)
        }
    }
}

impl Tables {
    pub fn new(
        store: Arc<dyn TableStore>,
        log: Arc<dyn MessageLog>,
        writers: String,
        patience: Patience,
    ) -> Self {
        Self { store, log, writers, patience, targets: BTreeMap::new(), measurements: HashMap::new() }
    }

    fn writer_of(&self, name: &TableName) -> String {
        format!("{}/{name}", self.writers)
    }

    /// The table for rows, opened if it is there; the inner error is a name that others have taken.
    pub async fn resolve(&mut self, rows: &RowsFor) -> Result<Result<TableName, TableName>> {
        match rows {
            RowsFor::Table(name) => {
                if !self.targets.contains_key(name) {
                    let spec = self.describe(name).await?;
                    self.open(name.clone(), spec).await?;
                }
                Ok(Ok(name.clone()))
            }
            RowsFor::Measurement { database, measurement } => {
                let known = self.measurements.get(database).and_then(|known| known.get(measurement));
                if let Some(name) = known {
                    return Ok(Ok(name.clone()));
                }
                let claim = Claim { database: Arc::clone(database), measurement: Arc::clone(measurement) };
                self.claim(&claim).await
            }
        }
    }

    async fn claim(&mut self, claim: &Claim) -> Result<Result<TableName, TableName>> {
        let [first, second] = names::tables(&claim.database, &claim.measurement);
        for name in [first, second.clone()] {
            let spec = self.describe(&name).await?;
            if spec.as_ref().is_none_or(|spec| is_for(spec, claim)) {
                let made = spec.is_some();
                self.open(name.clone(), spec).await?;
                if made {
                    // Before that, the name is not taken: whoever makes the table first has it.
                    self.remember(claim, &name);
                }
                return Ok(Ok(name));
            }
        }
        Ok(Err(second))
    }

    fn remember(&mut self, claim: &Claim, name: &TableName) {
        let known = self.measurements.entry(Arc::clone(&claim.database)).or_default();
        known.insert(Arc::clone(&claim.measurement), name.clone());
    }

    async fn describe(&self, name: &TableName) -> Result<Option<TableSpec>> {
        self.patience.retry("describing a table", || self.store.describe_table(name)).await
    }

    async fn open(&mut self, name: TableName, spec: Option<TableSpec>) -> Result<()> {
        if self.targets.get(&name).is_some_and(|target| target.table.is_some()) {
            return Ok(());
        }
        let writer = self.writer_of(&name);
        let target = match spec {
            None => {
                Target { writer, schema: Arc::new(Schema::empty()), committed: 0, dirty: false, table: None }
            }
            Some(spec) => {
                let schema = Arc::clone(&spec.schema);
                let table =
                    self.patience.retry("opening a table", || self.store.open_table(spec.clone())).await?;
                let committed = self.committed(&table, &writer).await?;
                Target { writer, schema, committed, dirty: false, table: Some(table) }
            }
        };
        self.targets.insert(name, target);
        Ok(())
    }

    /// Opens a table with given columns, whose writer has another name than usual.
    pub async fn open_as(&mut self, spec: TableSpec, writer: String) -> Result<()> {
        let table = self.patience.retry("opening a table", || self.store.open_table(spec.clone())).await?;
        let committed = self.committed(&table, &writer).await?;
        let target = Target { writer, schema: spec.schema, committed, dirty: false, table: Some(table) };
        self.targets.insert(spec.name, target);
        Ok(())
    }

    /// What a writer has committed. Above the end of the log it is of another log, whose sequences come again: rows
    /// would be taken for rows that are there.
    async fn committed(&self, table: &Arc<dyn TableWriter>, writer: &str) -> Result<u64> {
        let committed = self.patience.retry("opening a table", || table.committed(writer)).await?;
        let (committed, last) = (committed.unwrap_or_default(), self.log.last_sequence());
        if committed <= last {
            return Ok(committed);
        }
        Err(Error::config(format!(
            "the log of direct ingest ends at message {last}, but the table {} holds rows up to message {committed}",
            table.name()
        ))
        .with_help("the log was removed or belongs to another lake: restore it"))
    }

    pub fn get(&self, name: &TableName) -> Result<&Target> {
        self.targets.get(name).ok_or_else(|| Error::internal(format!("the table {name} is not open")))
    }

    fn get_mut(&mut self, name: &TableName) -> Result<&mut Target> {
        self.targets.get_mut(name).ok_or_else(|| Error::internal(format!("the table {name} is not open")))
    }

    /// Makes the table with these columns, or adds them to it. Durable when it returns. Another writer may have added a
    /// column meanwhile: an error of the kind `Config` says that one does not fit; the columns are known anew then.
    pub async fn grow(&mut self, name: &TableName, new: &[FieldRef], rows: &RowsFor) -> Result<()> {
        let target = self.get(name)?;
        let lacks = |field: &Field| target.schema.field_with_name(field.name()).is_err();
        let added = added_fields().into_iter().filter(lacks).map(Arc::new);
        let mut fields: Vec<FieldRef> = target.schema.fields().iter().map(Arc::clone).collect();
        fields.extend(new.iter().map(Arc::clone));
        fields.extend(added);
        if fields.len() == target.schema.fields().len() {
            return Ok(());
        }
        let made = target.table.is_none();
        let description = if made { describe(rows, &mut fields) } else { String::new() };
        let spec = TableSpec { name: name.clone(), schema: Arc::new(Schema::new(fields)), description };
        let grown = self.patience.retry("changing a table", || self.store.grow_table(spec.clone())).await;
        let now = self.describe(name).await?;
        if let Some(now) = now {
            self.get_mut(name)?.schema = now.schema;
        } else if grown.is_ok() {
            return Err(Error::internal(format!("the table {name} was made and is not there")));
        }
        let table = grown?;
        let writer = self.writer_of(name);
        let committed = if made { self.committed(&table, &writer).await? } else { self.get(name)?.committed };
        let target = self.get_mut(name)?;
        target.table = Some(table);
        target.committed = committed;
        if let (true, RowsFor::Measurement { database, measurement }) = (made, rows) {
            let claim = Claim { database: Arc::clone(database), measurement: Arc::clone(measurement) };
            self.remember(&claim, name);
        }
        Ok(())
    }

    /// Adds rows, which every query sees from then on.
    pub async fn add(&self, name: &TableName, rows: &RecordBatch) -> Result<()> {
        let target = self.get(name)?;
        let table = target.table.as_ref().ok_or_else(|| Error::internal(format!("{name} is not made")))?;
        table.add_fresh(&target.writer, rows.clone()).await
    }

    /// A table has rows that wait for their commit.
    pub fn added(&mut self, name: &TableName) -> Result<()> {
        self.get_mut(name)?.dirty = true;
        Ok(())
    }

    /// Commits the rows of one table, which end at `upto`.
    pub async fn commit_one(&mut self, name: &TableName, upto: u64) -> Result<()> {
        let patience = self.patience.clone();
        commit(&patience, self.get_mut(name)?, upto).await
    }

    /// Commits the rows of all tables that have some, with the sequence that they reach.
    pub async fn commit(&mut self, upto: u64) -> Result<usize> {
        let due = self.targets.values_mut().filter(|target| target.dirty);
        let commits = due.map(|target| commit(&self.patience, target, upto));
        Ok(futures::future::try_join_all(commits).await?.len())
    }
}

async fn commit(patience: &Patience, target: &mut Target, upto: u64) -> Result<()> {
    let Some(table) = target.table.as_ref() else { return Ok(()) };
    patience.retry("committing", || table.commit(&target.writer, upto, WriteMode::Append)).await?;
    target.committed = target.committed.max(upto);
    target.dirty = false;
    Ok(())
}

/// The description of a new table; the column of the time remembers the measurement.
fn describe(rows: &RowsFor, fields: &mut [FieldRef]) -> String {
    let RowsFor::Measurement { database, measurement } = rows else {
        return "Rows that clients handed in".to_owned();
    };
    for field in fields.iter_mut().filter(|field| field.name() == TIME) {
        let mut metadata = field.metadata().clone();
        metadata.insert(DATABASE.to_owned(), database.to_string());
        metadata.insert(MEASUREMENT.to_owned(), measurement.to_string());
        *field = Arc::new(field.as_ref().clone().with_metadata(metadata));
    }
    format!("The measurement '{measurement}' of '{database}', handed in as line protocol")
}
