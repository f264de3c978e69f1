//! Rows of certain messages exchanged for others, in one commit.
//!
//! A data file belongs to one writer, which its tag in the Delta log names. Files of the writer whose sequences lie wholly among those that go are
//! removed; files that hold others too are written anew without them. Nothing of this is safe to carry over to a newer
//! version of the table (a compaction may have moved the rows meanwhile), so each attempt starts from the newest version
//! and gives up when another commit is first; rewritten files are kept from one attempt to the next.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int64Type;
use async_trait::async_trait;
use deltalake_core::kernel::transaction::CommitProperties;
use deltalake_core::kernel::{Action, Add, Transaction};
use deltalake_core::protocol::DeltaOperation;
use deltalake_core::table::state::DeltaTableState;
use twinlake_contracts::{Error, Result, Revised, Revision, SEQUENCE, Sequences, StagedFile};

use super::change::{Change, Changed};
use super::evolve::{EVOLUTION_TAG, evolution};
use super::{LakeTable, extent, files};
use crate::error;

/// A file of a writer that holds, or may hold, rows of some of the messages.
struct Touched {
    add: Add,
    rows: u64,
    /// Whether every row of it is of one of the messages, by its statistics.
    whole: bool,
}

/// A file without the rows that go: the files that hold the rest, and how many rows went.
pub(super) struct Rewritten {
    pub rest: Vec<Add>,
    pub rows_gone: u64,
}

/// Which rows are of none of the messages.
fn of_none(table: &LakeTable, batch: &RecordBatch, gone: &Sequences) -> Result<BooleanArray> {
    let sequences = batch
        .column_by_name(SEQUENCE)
        .and_then(|column| column.as_primitive_opt::<Int64Type>())
        .ok_or_else(|| {
            let message =
                format!("table {} has no column '{SEQUENCE}': its rows come from no messages", table.name);
            Error::config(message)
        })?;
    let stays = |row: usize| {
        let sequence = sequences.is_valid(row).then(|| u64::try_from(sequences.value(row)).ok()).flatten();
        !sequence.is_some_and(|sequence| gone.contains(sequence))
    };
    Ok((0..batch.num_rows()).map(|row| Some(stays(row))).collect())
}

/// One exchange on its way.
struct Exchange<'a> {
    revision: Revision<'a>,
    transaction: String,
    come: Vec<Add>,
    /// Files written anew so far, by the path of the old one.
    rewritten: HashMap<String, Rewritten>,
    outcome: Revised,
}

#[async_trait]
impl Change for Exchange<'_> {
    fn operation(&self) -> DeltaOperation {
        DeltaOperation::Update { predicate: None }
    }

    fn properties(&self) -> CommitProperties {
        CommitProperties::default().with_application_transaction(Transaction::new(&self.transaction, 1))
    }

    async fn actions(&mut self, table: &LakeTable, state: &DeltaTableState) -> Result<Vec<Action>> {
        let done = state.transaction_version(&table.log_store, &self.transaction).await;
        if done.map_err(|error| error::delta(&table.system, &error))?.is_some() {
            return Ok(Vec::new());
        }
        let columns = evolution(state);
        let staged = |add: &Add| -> u64 {
            let tag = add.tags.as_ref().and_then(|tags| tags.get(EVOLUTION_TAG)?.as_ref());
            tag.and_then(|count| count.parse().ok()).unwrap_or_default()
        };
        if self.come.iter().any(|add| staged(add) != columns) {
            return Err(Error::config(format!(
                "the columns of table {} have changed since its new rows were computed; nothing has been exchanged",
                table.name
            ))
            .with_help("start the reprocessing again"));
        }
        let (writer, gone) = (self.revision.writer, self.revision.gone);
        (self.outcome.files, self.outcome.rows_gone) = (0, 0);
        let mut actions: Vec<Action> = self.come.iter().cloned().map(Action::Add).collect();
        for file in table.touched(state, writer, gone)? {
            let path = file.add.path.clone();
            if !file.whole && !self.rewritten.contains_key(&path) {
                let stays = |batch: &RecordBatch| of_none(table, batch, gone);
                let rest = table.rewritten(state, writer, &file.add, stays).await?;
                self.rewritten.insert(path.clone(), rest);
            }
            let part = self.rewritten.get(&path).filter(|_| !file.whole);
            if part.is_some_and(|part| part.rows_gone == 0) {
                continue;
            }
            self.outcome.files += 1;
            self.outcome.rows_gone += part.map_or(file.rows, |part| part.rows_gone);
            actions.push(Action::Remove(files::remove(&file.add, true)));
            actions.extend(part.into_iter().flat_map(|part| part.rest.iter().cloned()).map(Action::Add));
        }
        Ok(actions)
    }
}

impl LakeTable {
    pub(super) async fn stage_rows(&self, writer: &str, rows: RecordBatch) -> Result<Vec<StagedFile>> {
        let rows = self.shaped(rows).await?;
        let constraints = self.readable().constraints.clone();
        constraints.hold(&self.name, &rows)?;
        let (state, schema) = self.committed_state();
        let store = self.log_store.object_store(None);
        let written = files::write(store, &state, schema, vec![rows], writer).await;
        let adds = written.map_err(|error| error::delta(&self.system, &error))?;
        let columns = evolution(&state).to_string();
        let staged = adds.into_iter().map(|mut add| {
            add.tags.get_or_insert_default().insert(EVOLUTION_TAG.to_owned(), Some(columns.clone()));
            let entry = serde_json::to_string(&add).map_err(Error::internal)?;
            let bytes = u64::try_from(add.size).unwrap_or_default();
            Ok(StagedFile { rows: files::row_count(&add).unwrap_or_default(), bytes, entry })
        });
        staged.collect()
    }

    pub(super) async fn affected_by(&self, writer: &str, gone: &Sequences) -> Result<Revised> {
        self.provider().await?;
        let (state, _) = self.committed_state();
        let touched = self.touched(&state, writer, gone)?;
        Ok(Revised {
            version: state.version(),
            files: touched.len() as u64,
            rows_gone: touched.iter().map(|file| file.rows).sum(),
            rows_come: 0,
        })
    }

    pub(super) async fn revise_to_its_end(&self, revision: Revision<'_>) -> Result<Revised> {
        let parsed: serde_json::Result<Vec<Add>> =
            revision.come.iter().map(|file| serde_json::from_str(&file.entry)).collect();
        let come = parsed.map_err(|error| {
            Error::internal(format!("a staged file of {} is unreadable: {error}", self.name))
        })?;
        let rows_come = revision.come.iter().map(|file| file.rows).sum();
        let transaction = format!("revision/{}", revision.key);
        let mut exchange = Exchange {
            revision,
            transaction,
            come,
            rewritten: HashMap::new(),
            outcome: Revised { rows_come, ..Revised::default() },
        };
        let changed = self.change(&mut exchange).await?;
        let Exchange { rewritten, outcome, .. } = exchange;
        let used: HashSet<String> = changed.files();
        let unused: Vec<Add> = rewritten
            .into_values()
            .flat_map(|part| part.rest)
            .filter(|add| !used.contains(&add.path))
            .collect();
        self.delete_unused(&unused).await;
        match changed {
            Changed::Committed { version, .. } => Ok(Revised { version, ..outcome }),
            Changed::Nothing { version } => Ok(Revised { version, ..Revised::default() }),
        }
    }

    /// The writer's files that may hold rows of the messages.
    fn touched(&self, state: &DeltaTableState, writer: &str, gone: &Sequences) -> Result<Vec<Touched>> {
        let mut touched = Vec::new();
        for file in state.log_data().iter() {
            let add = files::entry(&file);
            if files::writer_of(&add) != Some(writer) {
                continue;
            }
            files::refuse_deletion_vector(&self.system, &add)?;
            let rows = files::row_count(&add).unwrap_or_default();
            let Some((least, most, nulls)) = files::range_of(&add, SEQUENCE) else {
                touched.push(Touched { add, rows, whole: false });
                continue;
            };
            let (Ok(least), Ok(most)) = (u64::try_from(least), u64::try_from(most)) else { continue };
            if gone.meets(least, most) {
                // One range of the set over all of them: no row can be of another message.
                let covered = gone.ranges().iter().any(|(first, last)| *first <= least && most <= *last);
                touched.push(Touched { add, rows, whole: covered && nulls == 0 });
            }
        }
        Ok(touched)
    }

    /// The rows of a file that stay, written anew; `stays` says of each row whether it does.
    pub(super) async fn rewritten(
        &self,
        state: &DeltaTableState,
        writer: &str,
        add: &Add,
        stays: impl Fn(&RecordBatch) -> Result<BooleanArray> + Send,
    ) -> Result<Rewritten> {
        let mut rows_gone = 0;
        let mut rest = Vec::new();
        for batch in self.rows_of(add).await? {
            let keep = stays(&batch)?;
            rows_gone += (batch.num_rows() - keep.true_count()) as u64;
            rest.push(filter_record_batch(&batch, &keep)?);
        }
        if rows_gone == 0 {
            return Ok(Rewritten { rest: Vec::new(), rows_gone });
        }
        let (_, schema) = self.committed_state();
        let store = self.log_store.object_store(None);
        let written = files::write(store, state, schema, rest, writer).await;
        let rest = written.map_err(|error| error::delta(&self.system, &error))?;
        Ok(Rewritten { rest, rows_gone })
    }

    /// The rows of a data file, in the columns that queries see.
    pub(super) async fn rows_of(&self, add: &Add) -> Result<Vec<RecordBatch>> {
        let store = self.log_store.object_store(None);
        let read = files::read(store, add).await.map_err(|error| error::delta(&self.system, &error))?;
        let schema = self.schema();
        let seen = |batch: &RecordBatch| {
            let batch = batch.project(&extent::visible_places(&batch.schema()))?;
            super::schema::align(&self.name, &batch, &schema)
        };
        read.iter().map(seen).collect()
    }

    /// What is committed, with the columns as files hold them.
    pub(super) fn committed_state(&self) -> (DeltaTableState, Arc<arrow::datatypes::Schema>) {
        let readable = self.readable();
        (readable.state.clone(), readable.committed.schema())
    }
}
