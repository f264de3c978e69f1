//! Columns get other names or wider types: every file is written anew, in one commit.
//!
//! Every engine then reads the table with these columns, and earlier versions keep the ones that they had. Writers that
//! still use an old name are understood: a name once given up stands for the new one until it is let go of
//! ([`Evolution::forget`]). Rows that were staged before the change cannot be committed after it; files say so by a mark.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use deltalake_core::DeltaTableError;
use deltalake_core::kernel::{Action, Add, MetadataExt as _, StructType};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::table::state::DeltaTableState;
use serde::Serialize;
use twinlake_contracts::{Error, GEOMETRY_COLUMN, Result, TableName, TableSpec, suggest};

use super::change::{Change, Changed};
use super::open::kernel_fields;
use super::schema::{align, fits, missing_columns, stored_schema};
use super::{LakeTable, extent, files};
use crate::error;

/// The property of a table with the names that were given up, as a JSON object: old name, present name.
const RENAMED: &str = "twinlake.renamed";
/// The property of a table that counts its evolutions.
const EVOLUTION: &str = "twinlake.evolution";

/// A change of a table's columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evolution {
    /// Old names and new ones.
    pub rename: Vec<(String, String)>,
    /// Columns, by their new names, and the types that they get: every value of the old type is one of the new.
    pub widen: Vec<(String, DataType)>,
    /// Names that were given up and are free for new columns again.
    pub forget: Vec<String>,
}

/// What an evolution did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Evolved {
    /// The table's version after it.
    pub version: u64,
    /// Files that were written anew.
    pub files: u64,
    /// Their rows.
    pub rows: u64,
}

/// The type of a column by its name in SQL; `None` for what columns cannot be widened to.
pub fn wider_type(text: &str) -> Option<DataType> {
    let text = text.trim().to_lowercase();
    Some(match text.as_str() {
        "smallint" | "int2" => DataType::Int16,
        "int" | "integer" | "int4" => DataType::Int32,
        "bigint" | "int8" => DataType::Int64,
        "real" | "float" | "float4" => DataType::Float32,
        "double" | "double precision" | "float8" => DataType::Float64,
        _ => {
            let inner = text.strip_prefix("decimal").or_else(|| text.strip_prefix("numeric"))?.trim();
            let inner = inner.strip_prefix('(')?.strip_suffix(')')?;
            let (digits, scale) = inner.split_once(',')?;
            let (digits, scale): (u8, i8) = (digits.trim().parse().ok()?, scale.trim().parse().ok()?);
            if digits == 0 || digits > 38 || scale < 0 || scale.unsigned_abs() > digits {
                return None;
            }
            DataType::Decimal128(digits, scale)
        }
    })
}

/// Names that were given up, and the present ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Renames(Arc<BTreeMap<String, String>>);

impl Renames {
    /// Those of a version.
    pub(super) fn of(state: &DeltaTableState) -> Self {
        let property = state.metadata().configuration().get(RENAMED);
        Self(Arc::new(property.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()))
    }

    fn present<'a>(&'a self, field: &Field, columns: &Schema) -> Option<&'a str> {
        if columns.field_with_name(field.name()).is_ok() {
            return None;
        }
        self.0.get(field.name()).map(String::as_str)
    }

    /// A writer's columns with the names that the table has now.
    pub(super) fn schema(&self, given: &SchemaRef, columns: &Schema) -> SchemaRef {
        if given.fields().iter().all(|field| self.present(field, columns).is_none()) {
            return Arc::clone(given);
        }
        let field = |field: &FieldRef| match self.present(field, columns) {
            Some(name) => Arc::new(field.as_ref().clone().with_name(name)),
            None => Arc::clone(field),
        };
        let fields: Vec<FieldRef> = given.fields().iter().map(field).collect();
        Arc::new(Schema::new_with_metadata(fields, given.metadata().clone()))
    }

    /// A writer's rows with the names that the table has now.
    pub(super) fn rows(&self, rows: RecordBatch, columns: &Schema) -> Result<RecordBatch> {
        let schema = self.schema(&rows.schema(), columns);
        if Arc::ptr_eq(&schema, rows.schema_ref()) {
            return Ok(rows);
        }
        RecordBatch::try_new(schema, rows.columns().to_vec()).map_err(Error::from)
    }
}

/// How many times the columns of a version had been changed.
pub(super) fn evolution(state: &DeltaTableState) -> u64 {
    let property = state.metadata().configuration().get(EVOLUTION);
    property.and_then(|count| count.parse().ok()).unwrap_or_default()
}

/// The tag of a staged file that says for which columns it was written.
pub(super) const EVOLUTION_TAG: &str = EVOLUTION;

struct Evolve<'a> {
    evolution: &'a Evolution,
    /// Files written anew so far, by the path of the old one, with their rows.
    rewritten: HashMap<String, (Vec<Add>, u64)>,
    outcome: Evolved,
}

impl Evolution {
    fn new_name<'a>(&'a self, column: &'a str) -> &'a str {
        self.rename.iter().find(|(old, _)| old == column).map_or(column, |(_, new)| new)
    }

    /// The columns after it; an error that says why it cannot be.
    fn columns(&self, table: &TableName, present: &Schema) -> Result<Schema> {
        let names: Vec<&str> = present.fields().iter().map(|field| field.name().as_str()).collect();
        let missing = |column: &str| {
            let error = Error::config(format!("table {table} has no column '{column}'"));
            let help = suggest(column, names.iter().copied()).map_or_else(
                || format!("columns: {}", names.join(", ")),
                |near| format!("did you mean '{near}'?"),
            );
            Err(error.with_help(help))
        };
        for (old, new) in &self.rename {
            if !names.contains(&old.as_str()) {
                return missing(old);
            }
            if [old, new].iter().any(|name| name.starts_with('_') || *name == GEOMETRY_COLUMN) {
                return Err(Error::config(format!("column '{old}' of table {table} cannot become '{new}'"))
                    .with_help(format!(
                        "'{GEOMETRY_COLUMN}' and names that begin with _ have a meaning of their own"
                    )));
            }
            if names.iter().any(|name| name.eq_ignore_ascii_case(new)) && !old.eq_ignore_ascii_case(new) {
                return Err(Error::config(format!("table {table} has a column '{new}' already")));
            }
        }
        let mut fields = Vec::with_capacity(names.len());
        for field in present.fields() {
            let name = self.new_name(field.name());
            let mut field = field.as_ref().clone().with_name(name);
            if let Some((_, wide)) = self.widen.iter().find(|(column, _)| column == name) {
                if !fits(field.data_type(), wide) {
                    return Err(Error::config(format!(
                        "column '{name}' of table {table} is {}: not every value of it is {wide}",
                        field.data_type()
                    ))
                    .with_help(
                        "whole numbers become longer ones, decimals with as many digits, or (up to 32 bits) double",
                    ));
                }
                field = field.with_data_type(wide.clone());
            }
            fields.push(field);
        }
        for (column, _) in &self.widen {
            if !fields.iter().any(|field| field.name() == column) {
                return missing(column);
            }
        }
        // Checks the names, too.
        stored_schema(table, &Schema::new(fields))
    }
}

#[async_trait]
impl Change for Evolve<'_> {
    fn operation(&self) -> DeltaOperation {
        DeltaOperation::Write { mode: SaveMode::Overwrite, partition_by: None, predicate: None }
    }

    async fn actions(&mut self, table: &LakeTable, state: &DeltaTableState) -> Result<Vec<Action>> {
        let failed = |error: DeltaTableError| error::delta(&table.system, &error);
        let kernel_failed =
            |error: deltalake_core::kernel::Error| error::delta(&table.system, &DeltaTableError::from(error));
        self.outcome = Evolved::default();
        let present = table.schema();
        let columns = self.evolution.columns(&table.name, &present)?;
        let mut renames = Renames::of(state).0.as_ref().clone();
        for name in renames.values_mut() {
            *name = self.evolution.new_name(name).to_owned();
        }
        renames.extend(self.evolution.rename.iter().cloned());
        renames
            .retain(|old, _| columns.field_with_name(old).is_err() && !self.evolution.forget.contains(old));
        let same = columns.fields() == present.fields();
        if same && renames == *Renames::of(state).0 {
            return Ok(Vec::new());
        }
        if !state.metadata().partition_columns().is_empty() {
            let message = format!("{} is partitioned: its columns cannot be changed here", table.system);
            return Err(Error::config(message).with_help("change them with the engine that made the table"));
        }
        let hidden = table.stored_schema();
        let hidden = hidden.fields().iter().filter(|field| extent::is_hidden(field.name()));
        let fields: Vec<Field> =
            columns.fields().iter().chain(hidden).map(|field| field.as_ref().clone()).collect();
        let stored = Arc::new(Schema::new(fields.clone()));
        let visible = extent::visible(&stored);
        let kernel = StructType::try_new(kernel_fields(&table.name, &fields)?)
            .map_err(|error| Error::config(format!("{}: {error}", table.system)))?;
        let names = serde_json::to_string(&renames).map_err(Error::internal)?;
        let metadata = state.metadata().clone().with_schema(&kernel).map_err(kernel_failed)?;
        let metadata = metadata.add_config_key(RENAMED.to_owned(), names).map_err(kernel_failed)?;
        let count = evolution(state) + u64::from(!same);
        let metadata =
            metadata.add_config_key(EVOLUTION.to_owned(), count.to_string()).map_err(kernel_failed)?;
        let mut actions = vec![Action::Metadata(metadata)];
        if same {
            return Ok(actions);
        }
        for file in state.log_data().iter() {
            let add = files::entry(&file);
            files::refuse_deletion_vector(&table.system, &add)?;
            if !self.rewritten.contains_key(&add.path) {
                let store = table.log_store.object_store(None);
                let mut rows = Vec::new();
                for batch in files::read(Arc::clone(&store), &add).await.map_err(failed)? {
                    let batch = batch.project(&extent::visible_places(&batch.schema()))?;
                    rows.push(align(&table.name, &self.renamed(&batch)?, &visible)?);
                }
                let count = rows.iter().map(|batch| batch.num_rows() as u64).sum();
                let writer = files::writer_of(&add).unwrap_or_default();
                let written = files::write(store, state, Arc::clone(&stored), rows, writer).await;
                self.rewritten.insert(add.path.clone(), (written.map_err(failed)?, count));
            }
            let Some((new, rows)) = self.rewritten.get(&add.path) else { continue };
            self.outcome.files += 1;
            self.outcome.rows += rows;
            actions.push(Action::Remove(files::remove(&add, false)));
            actions.extend(new.iter().map(|add| Action::Add(Add { data_change: false, ..add.clone() })));
        }
        Ok(actions)
    }
}

impl Evolve<'_> {
    fn renamed(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let field = |field: &FieldRef| {
            Arc::new(field.as_ref().clone().with_name(self.evolution.new_name(field.name())))
        };
        let fields: Vec<FieldRef> = rows.schema().fields().iter().map(field).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), rows.columns().to_vec()).map_err(Error::from)
    }
}

impl LakeTable {
    /// Gives columns other names or wider types. Readers and writers go on: queries see the old columns until the commit,
    /// and what a writer sends under an old name afterwards lands under the new one. Asked for what is so already, it
    /// does nothing.
    pub async fn evolve(&self, evolution: &Evolution) -> Result<Evolved> {
        let mut evolve = Evolve { evolution, rewritten: HashMap::new(), outcome: Evolved::default() };
        let changed = self.change(&mut evolve).await?;
        let Evolve { rewritten, outcome, .. } = evolve;
        let used = changed.files();
        let unused: Vec<Add> = rewritten
            .into_values()
            .flat_map(|(adds, _)| adds)
            .filter(|add| !used.contains(&add.path))
            .collect();
        self.delete_unused(&unused).await;
        match changed {
            Changed::Committed { version, .. } => Ok(Evolved { version, ..outcome }),
            Changed::Nothing { version } => Ok(Evolved { version, ..Evolved::default() }),
        }
    }

    /// The columns that must be widened, as the table is, so that a writer's fit; an error that names the columns when they
    /// would not fit even then.
    pub(crate) fn widenings(&self, spec: &TableSpec) -> Result<Vec<(String, DataType)>> {
        let present = self.schema();
        let wanted = stored_schema(&self.name, &self.named_now(&spec.schema))?;
        let wider = |field: &FieldRef| {
            let known = present.field_with_name(field.name()).ok()?.data_type();
            let grows = !fits(field.data_type(), known) && fits(known, field.data_type());
            grows.then(|| (field.name().clone(), field.data_type().clone()))
        };
        let widen: Vec<(String, DataType)> = wanted.fields().iter().filter_map(wider).collect();
        let evolution = Evolution { widen: widen.clone(), ..Evolution::default() };
        let after = evolution.columns(&self.name, &present)?;
        missing_columns(&self.name, &after, &wanted)?;
        Ok(widen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present() -> Schema {
        Schema::new(vec![
            Field::new("speed", DataType::Float32, true),
            Field::new("n", DataType::Int32, true),
            Field::new("_seq", DataType::Int64, true),
        ])
    }

    fn evolve(evolution: &Evolution) -> Result<Schema> {
        evolution.columns(&TableName::parse("a.b").unwrap(), &present())
    }

    #[test]
    fn names_and_types_change_together() {
        let evolution = Evolution {
            rename: vec![("speed".to_owned(), "speed_mps".to_owned())],
            widen: vec![
                ("speed_mps".to_owned(), DataType::Float64),
                ("n".to_owned(), DataType::Decimal128(12, 2)),
            ],
            forget: Vec::new(),
        };
        let columns = evolve(&evolution).unwrap();
        let shown: Vec<String> =
            columns.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
        assert_eq!(shown, ["speed_mps Float64", "n Decimal128(12, 2)", "_seq Int64"]);
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_way_out() {
        let rename = |old: &str, new: &str| Evolution {
            rename: vec![(old.to_owned(), new.to_owned())],
            ..Evolution::default()
        };
        let widen =
            |column: &str, to| Evolution { widen: vec![(column.to_owned(), to)], ..Evolution::default() };
        for (evolution, part) in [
            (rename("sped", "x"), "did you mean 'speed'?"),
            (rename("speed", "N"), "has a column 'N' already"),
            (rename("_seq", "x"), "meaning of their own"),
            (rename("speed", "geom"), "meaning of their own"),
            (rename("speed", "a b"), "cannot name a column"),
            (widen("n", DataType::Int16), "not every value of it is Int16"),
            (widen("n", DataType::Float32), "not every value"),
            (widen("n", DataType::Decimal128(9, 0)), "not every value"),
            (widen("m", DataType::Int64), "no column 'm'"),
        ] {
            let error = evolve(&evolution).unwrap_err().to_string();
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn types_have_the_names_of_sql() {
        assert_eq!(wider_type("BIGINT"), Some(DataType::Int64));
        assert_eq!(wider_type("double precision"), Some(DataType::Float64));
        assert_eq!(wider_type("Decimal(12, 2)"), Some(DataType::Decimal128(12, 2)));
        for wrong in ["decimal(2,3)", "decimal(40,0)", "text", "decimal"] {
            assert_eq!(wider_type(wrong), None, "{wrong}");
        }
    }
}
