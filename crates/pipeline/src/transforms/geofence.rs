//! `type = "geofence"`: which named areas hold a position, and when a thing enters and leaves them.
//!
//! A position lies in an area when it is inside or on its boundary; the edges of an area are straight lines in the plane of
//! its coordinates (longitude and latitude for OGC:CRS84), and positions and areas must have the same coordinate reference
//! system. The test is exact (robust predicates, Shewchuk 1997, by the `geo` crate).

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use twinlake_contracts::{
    Batch, ColumnEdge, Component, Dependency, Error, GEOMETRY_COLUMN, Rejects, Result, Settlement, Transform,
    format_us,
};

use super::fences::{Fences, geometry};
use super::lineage::{computed, decides, handed_on};
use super::rows::{
    Bytes, column, fingerprint, free_name, million, only_input, read_head, sequence, time, time_column,
    times, ts, write_head,
};
use super::table::{Table, TableSettings};
use super::things::{Stored, Things};
use super::{TransformBuilder, TransformContext};
use crate::codec::{Reader, Writer};

const VERSION: u64 = 1;

/// Which named areas hold a position, and when a thing enters and leaves them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Geofence {
    /// The areas by name, as well-known text: `{ depot = "POLYGON ((24.9 60.1, …))" }`; also `MULTIPOLYGON`.
    #[serde(default)]
    fences: IndexMap<String, String>,
    /// A table of areas, in place of `fences`.
    table: Option<FenceTable>,
    /// The column with the position, WKB (default `geom`).
    #[serde(default = "geom")]
    geometry: String,
    /// The column that is added with the area's name (default `fence`).
    #[serde(default = "fence")]
    column: String,
    /// What comes out (default `all`).
    #[serde(default)]
    give: Give,
    /// The columns that tell one thing from another; needed for `events`.
    #[serde(default)]
    key: Vec<String>,
    /// The column with the event time (default `ts`); used for `events` only.
    #[serde(default = "ts")]
    time: String,
    /// The most things whose areas are remembered (default 1000000); the one unheard for the longest is forgotten first, and
    /// enters its areas again when it is next heard.
    #[serde(default = "million")]
    max_keys: usize,
}

/// A table of areas.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FenceTable {
    /// The table: a file or a query over the lake. It is read once, when the first rows come.
    table: TableSettings,
    /// Its column with the names (default `name`).
    #[serde(default = "name")]
    name: String,
    /// Its column with the areas, as well-known text or WKB (default `geom`).
    #[serde(default = "geom")]
    geometry: String,
}

/// What comes out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Give {
    /// All rows, with the name of the first area that holds them, or null.
    #[default]
    All,
    /// The rows that an area holds; the others are refused as `outside_fence`.
    Inside,
    /// The rows that no area holds; the others are refused as `inside_fence`.
    Outside,
    /// A row for each area that a thing enters or leaves: the row of its new position, with the name of the area and a
    /// column `event` that says `enter` or `leave`. The first position of a thing inside an area enters it.
    Events,
}

const EVENT: &str = "event";

fn geom() -> String {
    GEOMETRY_COLUMN.to_owned()
}

fn fence() -> String {
    "fence".to_owned()
}

fn name() -> String {
    "name".to_owned()
}

impl Component for Geofence {
    const TYPE: &'static str = "geofence";
    type Product = dyn TransformBuilder;

    fn build(self) -> Result<Box<dyn TransformBuilder>> {
        if self.fences.is_empty() == self.table.is_none() {
            return Err(Error::config("a geofence needs either 'fences' or a 'table'")
                .with_help("fences = { depot = \"POLYGON ((24.9 60.1, 25 60.1, 25 60.2, 24.9 60.1))\" }"));
        }
        self.areas()?;
        if self.give == Give::Events && self.key.is_empty() {
            return Err(
                Error::config("'give' = \"events\" needs the key 'key'").with_help("key = [\"vehicle_id\"]")
            );
        }
        if self.max_keys == 0 {
            return Err(Error::config("'max_keys' must be above 0"));
        }
        Ok(Box::new(self))
    }
}

impl Geofence {
    /// The areas of `fences`.
    fn areas(&self) -> Result<Fences> {
        let mut fences = Fences::default();
        for (name, text) in &self.fences {
            fences.add_text(name, text)?;
        }
        Ok(fences)
    }
}

#[async_trait]
impl TransformBuilder for Geofence {
    async fn build(&self, context: &TransformContext<'_>) -> Result<Box<dyn Transform>> {
        let input = only_input(&context.inputs, "geofence")?;
        let position = column(&input, &self.geometry).map_err(|error| {
            error.with_help(
                "geometry = \"…\" names the column with the position; make one with st_point(lon, lat)",
            )
        })?;
        if input.field(position).data_type() != &DataType::Binary {
            return Err(Error::config(format!(
                "'{}' has type {}, not a geometry",
                self.geometry,
                input.field(position).data_type()
            ))
            .with_help("make one in a sql transform with st_point(lon, lat)"));
        }
        free_name(&input, &self.column, "column")?;
        let mut fields: Vec<_> = input.fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new(&self.column, DataType::Utf8, true)));
        let events = self.give == Give::Events;
        if events {
            let schema = Schema::new(fields.clone());
            free_name(&schema, EVENT, "a sql transform")?;
            fields.push(Arc::new(Field::new(EVENT, DataType::Utf8, true)));
        }
        let table = self.table.as_ref().map(|own| {
            let table = own.table.build(context)?;
            let at = |name: &str, fit: fn(&DataType) -> bool| match table.schema.column_with_name(name) {
                Some((at, field)) if fit(field.data_type()) => Ok(at),
                Some((_, field)) => {
                    Err(Error::config(format!("'{name}' of the table has type {}", field.data_type())))
                }
                None => Err(Error::config(format!("there is no column '{name}' in the table"))),
            };
            let name = at(&own.name, |kind| kind == &DataType::Utf8)?;
            let area = at(&own.geometry, |kind| matches!(kind, DataType::Utf8 | DataType::Binary))?;
            Ok::<_, Error>((table, name, area))
        });
        let table = table.transpose()?;
        Ok(Box::new(GeofenceTransform {
            give: self.give,
            fences: if table.is_none() { Some(self.areas()?) } else { None },
            table,
            position,
            keys: Bytes::named(&input, &self.key)?,
            time: if events { Some(time_column(&input, &self.time)?) } else { None },
            time_name: self.time.clone(),
            schema: Arc::new(Schema::new(fields)),
            things: Things::new(self.max_keys),
            settlement: Settlement::default(),
        }))
    }

    async fn lineage(&self, context: &TransformContext<'_>, out: &SchemaRef) -> Result<Vec<ColumnEdge>> {
        let Some((input, schema)) = context.inputs.first() else { return Ok(Vec::new()) };
        let mut edges = handed_on(input, schema, out, &[]);
        let mut by = vec![self.geometry.as_str()];
        if self.give == Give::Events {
            by.extend(self.key.iter().chain([&self.time]).map(String::as_str));
            for column in &by {
                let what = Some("geofence: event".to_owned());
                edges.push(ColumnEdge::new(Some(EVENT), input, column, Dependency::Aggregate, what));
            }
        }
        edges.extend(computed(&self.column, input, [self.geometry.as_str()], "geofence"));
        if self.give != Give::All {
            edges.extend(decides(input, by, Dependency::Filter, "geofence"));
        }
        if let Some(own) = &self.table {
            let theirs = own.table.lineage(context).await?;
            let what = || Some("geofence".to_owned());
            edges.extend(theirs.of(&own.name).map(|source| ColumnEdge {
                output: Some(self.column.clone()),
                expression: what(),
                ..source
            }));
            edges.extend(theirs.of(&own.geometry).map(|source| ColumnEdge {
                output: None,
                dependency: Dependency::Join,
                expression: what(),
                ..source
            }));
        }
        Ok(edges)
    }
}

/// Where a thing was last.
#[derive(Debug, Default)]
struct Whereabouts {
    newest_us: Option<i64>,
    inside: Vec<String>,
}

impl Stored for Whereabouts {
    fn write(&self, out: &mut Writer) {
        out.option(self.newest_us, Writer::signed);
        out.unsigned(self.inside.len() as u64);
        for name in &self.inside {
            out.bytes(name.as_bytes());
        }
    }

    fn read(input: &mut Reader<'_>) -> Result<Self> {
        let newest_us = input.option(Reader::signed)?;
        let count = input.unsigned()?;
        let inside = (0..count).map(|_| input.text()).collect::<Result<_>>()?;
        Ok(Self { newest_us, inside })
    }
}

struct GeofenceTransform {
    give: Give,
    fences: Option<Fences>,
    /// A table of areas with the columns of names and areas.
    table: Option<(Table, usize, usize)>,
    position: usize,
    keys: Bytes,
    time: Option<usize>,
    time_name: String,
    schema: SchemaRef,
    things: Things<Whereabouts>,
    settlement: Settlement,
}

/// The names of the areas that hold each row; `None` for rows that are refused.
type Around = Vec<Option<Vec<String>>>;

impl GeofenceTransform {
    fn around(&self, rows: &RecordBatch, rejects: &mut Rejects) -> Around {
        let positions = rows.column(self.position).as_binary::<i32>();
        let around = |row: usize| {
            if positions.is_null(row) {
                return Some(Vec::new());
            }
            match geometry(positions.value(row)) {
                Ok(Some(position)) => {
                    let fences = self.fences.iter().flat_map(|fences| fences.around(&position));
                    Some(fences.map(str::to_owned).collect())
                }
                Ok(None) => Some(Vec::new()),
                Err(what) => {
                    rejects.push(row, "invalid_geometry", what);
                    None
                }
            }
        };
        (0..rows.num_rows()).map(around).collect()
    }

    /// Rows with the name of the first area.
    fn named(&self, batch: Batch, around: &Around, rejects: &mut Rejects) -> Result<Batch> {
        let first = |names: &Vec<String>| names.first().cloned();
        let names: StringArray = around.iter().map(|names| names.as_ref().and_then(first)).collect();
        let mut keep = Vec::with_capacity(around.len());
        for (row, names) in around.iter().enumerate() {
            let Some(names) = names else {
                keep.push(false);
                continue;
            };
            let reason = match (self.give, names.first()) {
                (Give::Inside, None) => Some(("outside_fence", "no fence holds the position".to_owned())),
                (Give::Outside, Some(name)) => {
                    Some(("inside_fence", format!("the position lies in '{name}'")))
                }
                _ => None,
            };
            keep.push(reason.is_none());
            if let Some((reason, detail)) = reason {
                rejects.push(row, reason, detail);
            }
        }
        let columns = batch.rows.columns().iter().cloned().chain([Arc::new(names) as ArrayRef]).collect();
        let rows = RecordBatch::try_new(SchemaRef::clone(&self.schema), columns)?;
        let sequences = batch.sequences.map(|own| {
            own.into_iter().zip(&keep).filter(|(_, keep)| **keep).map(|(sequence, _)| sequence).collect()
        });
        Ok(Batch { rows: filter_record_batch(&rows, &BooleanArray::from(keep))?, sequences })
    }

    /// Rows for what is entered and left.
    fn events(&mut self, batch: &Batch, around: Around, rejects: &mut Rejects) -> Result<Batch> {
        let at = self.time.map(|at| times(&batch.rows, at)).transpose()?;
        let keys = self.keys.of(&batch.rows)?;
        let positions = batch.rows.column(self.position).clone();
        let mut events: Vec<(u32, String, &str)> = Vec::new();
        for (row, now) in around.into_iter().enumerate() {
            let Some(now) = now else { continue };
            let time_us = at.as_ref().and_then(|at| time(at, row));
            let (Some(time_us), false) = (time_us, keys.has_null(row)) else {
                let what = if time_us.is_none() { self.time_name.as_str() } else { "a part of the key" };
                rejects.push(row, "missing_value", format!("no value for {what}"));
                continue;
            };
            let (thing, _) = self.things.touch(&keys.row(row));
            if let Some(newest_us) = thing.newest_us.filter(|newest| time_us < *newest) {
                let detail =
                    format!("{} comes after the position of {}", format_us(time_us), format_us(newest_us));
                rejects.push(row, "late", detail);
                continue;
            }
            thing.newest_us = Some(time_us);
            self.settlement.absorbed.extend(sequence(batch, row));
            if positions.is_null(row) {
                continue; // no news of where it is
            }
            let left = thing.inside.iter().filter(|name| !now.contains(name));
            events.extend(left.map(|name| (row as u32, name.clone(), "leave")));
            let entered = now.iter().filter(|name| !thing.inside.contains(name));
            events.extend(entered.map(|name| (row as u32, name.clone(), "enter")));
            thing.inside = now;
        }
        let rows: UInt32Array = events.iter().map(|(row, ..)| *row).collect();
        let names: StringArray = events.iter().map(|(_, name, _)| Some(name.as_str())).collect();
        let kinds: StringArray = events.iter().map(|(.., kind)| Some(*kind)).collect();
        let sequences =
            batch.sequences.as_ref().map(|own| rows.values().iter().map(|row| own[*row as usize]).collect());
        let added: [ArrayRef; 2] = [Arc::new(names), Arc::new(kinds)];
        let columns = take_record_batch(&batch.rows, &rows)?.columns().iter().cloned().chain(added).collect();
        Ok(Batch { rows: RecordBatch::try_new(SchemaRef::clone(&self.schema), columns)?, sequences })
    }

    fn shape(&self) -> String {
        format!("{:?} {}", self.keys.columns(), fingerprint(&self.schema))
    }
}

#[async_trait]
impl Transform for GeofenceTransform {
    fn output_schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    async fn process(&mut self, _input: usize, batch: Batch, rejects: &mut Rejects) -> Result<Vec<Batch>> {
        if self.fences.is_none()
            && let Some((table, name, area)) = &self.table
        {
            self.fences = Some(Fences::from_table(&table.read().await?, *name, *area)?);
        }
        let around = self.around(&batch.rows, rejects);
        Ok(vec![match self.give {
            Give::Events => self.events(&batch, around, rejects)?,
            _ => self.named(batch, &around, rejects)?,
        }])
    }

    fn settle(&mut self) -> Settlement {
        std::mem::take(&mut self.settlement)
    }

    fn state(&self) -> Result<Vec<u8>> {
        if self.give != Give::Events {
            return Ok(Vec::new());
        }
        let mut out = Writer::default();
        write_head(&mut out, VERSION, &self.shape(), false);
        self.things.write(&mut out);
        Ok(out.finish())
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        let mut input = Reader::new(state);
        if self.give == Give::Events && read_head(&mut input, VERSION, &self.shape())? {
            self.things.read(&mut input)?;
        }
        Ok(())
    }

    fn remembers(&self) -> bool {
        self.give == Give::Events
    }
}
