//! Profiles: what a table or file holds, in one pass, and what is proposed for its definition: types, units, keys, reference
//! systems, personal data, duplicates.
//!
//! Figures over all rows looked at: nulls, distinct values, bounds, means. Over a part that is chosen the same way each time:
//! quantiles (20,000 values), personal data and types of texts (the first 5,000 distinct ones), pairs of key columns and
//! duplicates (the first 200,000 rows).

mod column;
mod distinct;
mod home;
mod keys;
mod personal;
mod reference_system;
mod report;
mod text_types;
mod units;

#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, SchemaRef};
use futures::StreamExt as _;
use serde::Serialize;
use twinlake_contracts::{INGESTED_AT, Result, SEQUENCE, is_geometry, timestamp_type};
use twinlake_query::Session;

pub use self::column::ColumnProfile;
pub use self::keys::KeyCandidate;
pub use self::personal::{Finding, PersonalKind};
pub use self::reference_system::CrsProposal;
pub use self::text_types::TextType;
pub use self::units::UnitProposal;

use self::column::Column;
use self::home::{Homes, names_a_thing};
use self::keys::RowHashes;
use self::reference_system::{Extent, coordinate_columns, propose};
use crate::rule::quoted;

/// The first and the last character of the columns that are added for the coordinates of a geometry.
const X_OF: &str = "\u{1}x ";
const Y_OF: &str = "\u{1}y ";

/// What a table or file holds.
#[derive(Debug, Clone, Serialize)]
pub struct TableProfile {
    /// The table or file.
    pub name: String,
    /// Rows looked at.
    pub rows: u64,
    /// Whether those are all rows.
    pub complete: bool,
    /// Its columns.
    pub columns: Vec<ColumnProfile>,
    /// Columns, and pairs of columns, that tell all rows looked at from each other.
    pub keys: Vec<KeyCandidate>,
    /// Reference systems of its coordinates.
    pub crs: Vec<CrsProposal>,
    /// Rows that are equal to an earlier one in all columns, without those that the pipeline adds.
    pub duplicate_rows: u64,
    /// The columns of the key that was given, and rows that repeat an earlier one in it and differ elsewhere.
    pub repeated_keys: Option<(Vec<String>, u64)>,
}

/// The hash of a value; the same in every run.
pub(crate) fn hash_of<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    mixed(hasher.finish()).max(1)
}

/// A number's bits, mixed (Steele, Lea, Flood 2014: the finaliser of SplitMix64).
pub(crate) fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Profiles a relation (a table's name or a quoted file) as the session sees it: the first `limit` rows, or all.
/// `key` is the key that its definition gives, if it has one.
pub async fn profile(
    session: &Session,
    name: &str,
    relation: &str,
    limit: Option<usize>,
    key: Option<&[String]>,
) -> Result<TableProfile> {
    let schema = Arc::clone(session.sql(&format!("SELECT * FROM {relation}")).await?.schema().inner());
    let geometries: Vec<String> =
        schema.fields().iter().filter(|field| is_geometry(field)).map(|field| field.name().clone()).collect();
    let mut select = "*".to_owned();
    for geometry in &geometries {
        let column = quoted(geometry);
        let _ = write!(
            select,
            ", st_x(st_centroid({column})) AS {}, st_y(st_centroid({column})) AS {}",
            quoted(&format!("{X_OF}{geometry}")),
            quoted(&format!("{Y_OF}{geometry}"))
        );
    }
    let limited = limit.map(|rows| format!(" LIMIT {}", rows + 1)).unwrap_or_default();
    let mut stream = session.execute(&format!("SELECT {select} FROM {relation}{limited}")).await?;
    let mut profiler = Profiler::new(&stream.schema());
    let mut complete = true;
    while let Some(batch) = stream.next().await {
        let mut batch = batch.map_err(|error| session.error(error))?;
        let room = limit.map_or(usize::MAX, |limit| limit.saturating_sub(profiler.rows as usize));
        if batch.num_rows() > room {
            complete = false;
            batch = batch.slice(0, room);
        }
        profiler.add(&batch)?;
    }
    Ok(profiler.finish(name, complete, key))
}

/// The accumulators of a table.
pub(crate) struct Profiler {
    schema: SchemaRef,
    rows: u64,
    columns: Vec<Column>,
    hashes: RowHashes,
    homes: Vec<(usize, usize, usize, usize, Homes)>,
    visible: usize,
}

impl Profiler {
    pub(crate) fn new(schema: &SchemaRef) -> Self {
        let columns: Vec<Column> = schema.fields().iter().map(|field| Column::new(field)).collect();
        let visible = columns.iter().filter(|column| !column.name().starts_with('\u{1}')).count();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let mut places = coordinate_columns(&names[..visible]);
        places.extend((visible..names.len()).step_by(2).map(|at| (at, at + 1)));
        let times = schema.fields().iter().take(visible).position(|field| {
            matches!(field.data_type(), DataType::Timestamp(..)) && field.name() != INGESTED_AT
        });
        let mut homes = Vec::new();
        for (thing, name) in names[..visible].iter().enumerate().filter(|(_, name)| names_a_thing(name)) {
            let plain =
                !matches!(schema.field(thing).data_type(), DataType::Timestamp(..) | DataType::Float64);
            if let (Some(time), true, false) = (times, plain, name.starts_with('_')) {
                homes.extend(places.iter().map(|(x, y)| (thing, time, *x, *y, Homes::default())));
            }
        }
        Self { schema: Arc::clone(schema), rows: 0, columns, hashes: RowHashes::default(), homes, visible }
    }

    pub(crate) fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        let mut hashes = Vec::with_capacity(self.columns.len());
        for (column, array) in self.columns.iter_mut().zip(batch.columns()) {
            hashes.push(column.add(array)?);
        }
        for (thing, time, x, y, homes) in &mut self.homes {
            let times = cast(batch.column(*time), &timestamp_type())?;
            let times = cast(&times, &DataType::Int64)?;
            let times = times.as_primitive::<Int64Type>();
            let (xs, ys) =
                (cast(batch.column(*x), &DataType::Float64)?, cast(batch.column(*y), &DataType::Float64)?);
            let (xs, ys) = (xs.as_primitive::<Float64Type>(), ys.as_primitive::<Float64Type>());
            for (row, thing) in hashes[*thing].iter().enumerate().filter(|(_, thing)| **thing != 0) {
                if times.is_valid(row) && xs.is_valid(row) && ys.is_valid(row) {
                    homes.add(*thing, times.value(row), xs.value(row), ys.value(row));
                }
            }
        }
        hashes.truncate(self.visible);
        self.hashes.add(&hashes, batch.num_rows());
        Ok(())
    }

    pub(crate) fn finish(self, name: &str, complete: bool, key: Option<&[String]>) -> TableProfile {
        let names: Vec<&str> = self.columns[..self.visible].iter().map(Column::name).collect();
        let added = |name: &str| [SEQUENCE, INGESTED_AT].contains(&name);
        let own: Vec<usize> = (0..self.visible).filter(|at| !added(names[*at])).collect();
        let mut columns: Vec<ColumnProfile> =
            self.columns[..self.visible].iter().map(Column::profile).collect();
        for (thing, _, x, y, homes) in &self.homes {
            let Some(found) = homes.found() else { continue };
            let part = found.homes as f64 / found.things as f64;
            let finding = Finding { kind: PersonalKind::HomeLocation, part, confidence: part };
            let places = if *x >= self.visible {
                vec![geometry_of(self.columns[*x].name())]
            } else {
                vec![names[*x], names[*y]]
            };
            for column in columns
                .iter_mut()
                .filter(|column| places.contains(&column.name.as_str()) && *thing < self.visible)
            {
                if !column.personal.iter().any(|known| known.kind == finding.kind) {
                    column.personal.push(finding.clone());
                }
            }
        }
        let mut crs = Vec::new();
        for (x, y) in coordinate_columns(&names) {
            if let (Some(across), Some(up)) = (self.columns[x].bounds(), self.columns[y].bounds()) {
                let (found, because) = propose(Extent { x: across, y: up });
                crs.push(CrsProposal {
                    columns: vec![names[x].to_owned(), names[y].to_owned()],
                    crs: found,
                    because,
                });
            }
        }
        for at in (self.visible..self.columns.len()).step_by(2) {
            if let (Some(across), Some(up)) = (self.columns[at].bounds(), self.columns[at + 1].bounds()) {
                let (found, because) = propose(Extent { x: across, y: up });
                crs.push(CrsProposal {
                    columns: vec![geometry_of(self.columns[at].name()).to_owned()],
                    crs: found,
                    because,
                });
            }
        }
        let key: Option<Vec<usize>> =
            key.map(|key| key.iter().filter_map(|name| names.iter().position(|own| own == name)).collect());
        let duplicates = self.hashes.duplicates(&own);
        let repeated = key.filter(|key| !key.is_empty()).map(|key| {
            let repeats = self.hashes.duplicates(&key).saturating_sub(duplicates);
            (key.iter().map(|at| names[*at].to_owned()).collect(), repeats)
        });
        let keys = self.hashes.keys(&self.columns[..self.visible], &self.schema, &own, self.rows);
        TableProfile {
            name: name.to_owned(),
            rows: self.rows,
            complete,
            columns,
            keys,
            crs,
            duplicate_rows: duplicates,
            repeated_keys: repeated,
        }
    }
}

fn geometry_of(added: &str) -> &str {
    added.trim_start_matches(X_OF).trim_start_matches(Y_OF)
}
