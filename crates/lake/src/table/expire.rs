//! Rows that are older than they may be kept, taken out of the table in one commit.
//!
//! The files that held them stay in storage, and versions that name them can be read, until a vacuum.

use std::collections::HashMap;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use async_trait::async_trait;
use deltalake_core::kernel::Action;
use deltalake_core::protocol::DeltaOperation;
use deltalake_core::table::state::DeltaTableState;
use serde::Serialize;
use twinlake_contracts::{Error, Result, format_us};

use super::change::{Change, Changed};
use super::revise::Rewritten;
use super::{LakeTable, files};

/// What an expiry did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Expired {
    /// The table's version after it.
    pub version: u64,
    /// Files that went or were written anew.
    pub files: u64,
    /// Rows that went.
    pub rows: u64,
}

struct Expiry<'a> {
    column: &'a str,
    before_us: i64,
    rewritten: HashMap<String, Rewritten>,
    outcome: Expired,
}

#[async_trait]
impl Change for Expiry<'_> {
    fn operation(&self) -> DeltaOperation {
        DeltaOperation::Delete {
            predicate: Some(format!("{} < '{}'", self.column, format_us(self.before_us))),
        }
    }

    async fn actions(&mut self, table: &LakeTable, state: &DeltaTableState) -> Result<Vec<Action>> {
        self.outcome = Expired::default();
        let mut actions = Vec::new();
        for file in state.log_data().iter() {
            let add = files::entry(&file);
            let range = files::time_range_us(&add, self.column);
            if range.is_some_and(|(least, _)| least >= self.before_us) {
                continue;
            }
            files::refuse_deletion_vector(&table.system, &add)?;
            let nulls = files::nulls_of(&add, self.column);
            if range.is_some_and(|(_, most)| most < self.before_us) && nulls == Some(0) {
                self.outcome.files += 1;
                self.outcome.rows += files::row_count(&add).unwrap_or_default();
                actions.push(Action::Remove(files::remove(&add, true)));
                continue;
            }
            if !self.rewritten.contains_key(&add.path) {
                let stays = |batch: &RecordBatch| young(table, batch, self.column, self.before_us);
                let writer = files::writer_of(&add).unwrap_or_default().to_owned();
                let part = table.rewritten(state, &writer, &add, stays).await?;
                self.rewritten.insert(add.path.clone(), part);
            }
            if let Some(part) = self.rewritten.get(&add.path).filter(|part| part.rows_gone > 0) {
                self.outcome.files += 1;
                self.outcome.rows += part.rows_gone;
                actions.push(Action::Remove(files::remove(&add, true)));
                actions.extend(part.rest.iter().cloned().map(Action::Add));
            }
        }
        Ok(actions)
    }
}

/// Which rows are young enough; a row without a time is.
fn young(table: &LakeTable, batch: &RecordBatch, column: &str, before_us: i64) -> Result<BooleanArray> {
    let times = batch
        .column_by_name(column)
        .and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>())
        .ok_or_else(|| no_times(table, column))?;
    Ok((0..times.len()).map(|row| Some(times.is_null(row) || times.value(row) >= before_us)).collect())
}

fn no_times(table: &LakeTable, column: &str) -> Error {
    let schema = table.schema();
    let times = schema.fields().iter().filter(|field| matches!(field.data_type(), DataType::Timestamp(..)));
    let names: Vec<&str> = times.map(|field| field.name().as_str()).collect();
    Error::config(format!("table {} has no column '{column}' with times", table.name))
        .with_help(format!("columns with times: {}", names.join(", ")))
}

impl LakeTable {
    /// Takes out the committed rows whose time in `column` lies before `before_us` (microseconds since the epoch, UTC).
    /// Rows without a time stay.
    pub async fn expire(&self, column: &str, before_us: i64) -> Result<Expired> {
        let field = self.schema().field_with_name(column).cloned();
        if !field.is_ok_and(|field| matches!(field.data_type(), DataType::Timestamp(..))) {
            return Err(no_times(self, column));
        }
        let mut expiry = Expiry { column, before_us, rewritten: HashMap::new(), outcome: Expired::default() };
        Ok(match self.change(&mut expiry).await? {
            Changed::Committed { version, .. } => Expired { version, ..expiry.outcome },
            Changed::Nothing { version } => Expired { version, ..Expired::default() },
        })
    }
}
