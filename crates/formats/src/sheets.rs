//! Rows whose columns nobody named beforehand, collected into one batch a table.
//!
//! A column has the type of its first value. A row with a value of another type starts a second batch of the same table,
//! which has types of its own; the rows after it go into the first batch that they fit. So no row is lost here, and
//! whoever knows the table's types decides which rows fit it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch, RecordBatchOptions,
    StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{Field, Schema};
use twinlake_contracts::{COLUMN_ROLE, CRS84, ORIGINAL_NAME, Result, geometry_field, timestamp_type};

use crate::values::{Cell, ValueType};

/// What a column is to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    Plain,
    Tag,
    Field,
}

/// A value with the name of its column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Named<'a> {
    pub role: Role,
    pub name: Cow<'a, str>,
    pub cell: Cell<'a>,
}

/// The rows of a body, by table.
pub(crate) struct Sheets {
    /// Whether whole numbers and fractions share a column of fractions.
    widening: bool,
    groups: Vec<Group>,
    index: HashMap<String, usize, ahash::RandomState>,
    /// The group of the row before.
    last: usize,
}

struct Group {
    name: String,
    sheets: Vec<Sheet>,
}

/// One batch in the making.
#[derive(Default)]
struct Sheet {
    columns: Vec<Column>,
    index: HashMap<(Role, String), usize, ahash::RandomState>,
    places: Vec<u32>,
    /// The columns of the last row's values, in their order: mostly those of the next row, too.
    layout: Vec<usize>,
    /// The columns of the row that is being looked at.
    found: Vec<Option<usize>>,
}

struct Column {
    role: Role,
    name: String,
    builder: Builder,
    /// The number of the last row that was looked at and names this column, from 1.
    seen: usize,
}

enum Builder {
    Boolean(BooleanBuilder),
    /// With the largest magnitude that it holds.
    Int64(Int64Builder, u64),
    Float64(Float64Builder),
    Utf8(StringBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Geometry(BinaryBuilder),
}

/// Up to here a double holds every whole number: 2⁵³.
const EXACT: u64 = 1 << 53;

/// Whether a row went in.
enum Outcome {
    Done,
    /// A value is not of its column's type.
    Unfit,
    /// A column is named twice.
    Twice,
}

impl Sheets {
    pub(crate) fn new(widening: bool) -> Self {
        Self { widening, groups: Vec::new(), index: HashMap::default(), last: 0 }
    }

    /// Adds a row to a table. Null says nothing; of a column that is named twice the last value counts.
    pub(crate) fn push(&mut self, table: &str, place: u32, row: &mut Vec<Named<'_>>) {
        let at = match self.groups.get(self.last) {
            Some(group) if group.name == table => self.last,
            _ => self.group(table),
        };
        self.last = at;
        let sheets = &mut self.groups[at].sheets;
        let mut next = 0;
        loop {
            if next == sheets.len() {
                sheets.push(Sheet::default());
            }
            match sheets[next].push(place, row, self.widening) {
                Outcome::Done => return,
                Outcome::Unfit => next += 1,
                Outcome::Twice => keep_last(row),
            }
        }
    }

    fn group(&mut self, table: &str) -> usize {
        if let Some(at) = self.index.get(table) {
            return *at;
        }
        let at = self.groups.len();
        self.groups.push(Group { name: table.to_owned(), sheets: Vec::new() });
        self.index.insert(table.to_owned(), at);
        at
    }

    /// The batches with their tables and the place of each row, by the first place of each.
    pub(crate) fn finish(self) -> Result<Vec<(String, RecordBatch, Vec<u32>)>> {
        let mut batches = Vec::new();
        for group in self.groups {
            for sheet in group.sheets {
                let (rows, places) = sheet.finish()?;
                batches.push((group.name.clone(), rows, places));
            }
        }
        batches.sort_by_key(|(_, _, places)| places.first().copied());
        Ok(batches)
    }
}

/// Of values of the same column keeps the last, at the place of the first.
fn keep_last(row: &mut Vec<Named<'_>>) {
    let mut kept: Vec<Named<'_>> = Vec::with_capacity(row.len());
    let mut index: HashMap<(Role, String), usize, ahash::RandomState> = HashMap::default();
    for named in row.drain(..) {
        let at = *index.entry((named.role, named.name.to_string())).or_insert(kept.len());
        if at < kept.len() {
            kept[at] = named;
        } else {
            kept.push(named);
        }
    }
    row.append(&mut kept);
}

impl Sheet {
    fn push(&mut self, place: u32, row: &[Named<'_>], widening: bool) -> Outcome {
        let number = self.places.len() + 1;
        self.found.clear();
        let mut new = false;
        for (at, named) in row.iter().enumerate() {
            let found = self.find(at, named);
            new |= found.is_none();
            self.found.push(found);
            let Some(column) = found.and_then(|found| self.columns.get_mut(found)) else { continue };
            if column.seen == number {
                return self.leave(Outcome::Twice);
            }
            column.seen = number;
            if !column.builder.takes(&named.cell, widening) {
                return self.leave(Outcome::Unfit);
            }
        }
        if new && twice(row) {
            return self.leave(Outcome::Twice);
        }
        self.layout.clear();
        for (at, named) in row.iter().enumerate() {
            let column = match self.found[at] {
                Some(found) => found,
                None if named.cell == Cell::Null => continue,
                None => self.add(named),
            };
            self.layout.push(column);
            self.columns[column].builder.append(&named.cell, number - 1);
        }
        self.places.push(place);
        Outcome::Done
    }

    /// Forgets a row that does not go in.
    fn leave(&mut self, outcome: Outcome) -> Outcome {
        self.columns.iter_mut().for_each(|column| column.seen = 0);
        outcome
    }

    /// The column of the value at this place of its row.
    fn find(&self, at: usize, named: &Named<'_>) -> Option<usize> {
        if let Some(guess) = self.layout.get(at)
            && let Some(column) = self.columns.get(*guess)
            && column.name == named.name
            && column.role == named.role
        {
            return Some(*guess);
        }
        if self.columns.is_empty() {
            return None;
        }
        self.index.get(&(named.role, named.name.to_string())).copied()
    }

    fn add(&mut self, named: &Named<'_>) -> usize {
        let at = self.columns.len();
        let name = named.name.to_string();
        self.index.insert((named.role, name.clone()), at);
        self.columns.push(Column { role: named.role, name, builder: Builder::of(&named.cell), seen: 0 });
        at
    }

    fn finish(self) -> Result<(RecordBatch, Vec<u32>)> {
        let count = self.places.len();
        let mut fields = Vec::with_capacity(self.columns.len());
        let mut arrays = Vec::with_capacity(self.columns.len());
        for mut column in self.columns {
            column.builder.fill(count);
            let (mut field, array) = column.builder.finish(&column.name);
            let role = match column.role {
                Role::Plain => None,
                Role::Tag => Some("tag"),
                Role::Field => Some("field"),
            };
            if let Some(role) = role {
                field.set_metadata(HashMap::from([
                    (ORIGINAL_NAME.to_owned(), column.name),
                    (COLUMN_ROLE.to_owned(), role.to_owned()),
                ]));
            }
            fields.push(field);
            arrays.push(array);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let schema = Arc::new(Schema::new(fields));
        Ok((RecordBatch::try_new_with_options(schema, arrays, &options)?, self.places))
    }
}

fn twice(row: &[Named<'_>]) -> bool {
    let mut seen = std::collections::HashSet::with_capacity(row.len());
    row.iter().any(|named| !seen.insert((named.role, named.name.as_ref())))
}

impl Builder {
    fn of(cell: &Cell<'_>) -> Self {
        match cell {
            Cell::Boolean(_) => Self::Boolean(BooleanBuilder::new()),
            Cell::Int64(_) => Self::Int64(Int64Builder::new(), 0),
            Cell::Float64(_) => Self::Float64(Float64Builder::new()),
            Cell::Timestamp(_) => {
                Self::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(timestamp_type()))
            }
            Cell::Geometry(_) => Self::Geometry(BinaryBuilder::new()),
            Cell::Utf8(_) | Cell::Null => Self::Utf8(StringBuilder::new()),
        }
    }

    fn takes(&self, cell: &Cell<'_>, widening: bool) -> bool {
        match (self, cell) {
            (_, Cell::Null)
            | (Self::Boolean(_), Cell::Boolean(_))
            | (Self::Int64(..), Cell::Int64(_))
            | (Self::Float64(_), Cell::Float64(_))
            | (Self::Utf8(_), Cell::Utf8(_))
            | (Self::Timestamp(_), Cell::Timestamp(_))
            | (Self::Geometry(_), Cell::Geometry(_)) => true,
            (Self::Int64(_, largest), Cell::Float64(_)) => widening && *largest <= EXACT,
            (Self::Float64(_), Cell::Int64(value)) => widening && value.unsigned_abs() <= EXACT,
            _ => false,
        }
    }

    fn length(&self) -> usize {
        use arrow::array::ArrayBuilder;
        match self {
            Self::Boolean(builder) => builder.len(),
            Self::Int64(builder, _) => builder.len(),
            Self::Float64(builder) => builder.len(),
            Self::Utf8(builder) => builder.len(),
            Self::Timestamp(builder) => builder.len(),
            Self::Geometry(builder) => builder.len(),
        }
    }

    /// Appends nulls up to `count` rows.
    fn fill(&mut self, count: usize) {
        let missing = count.saturating_sub(self.length());
        if missing == 0 {
            return;
        }
        match self {
            Self::Boolean(builder) => builder.append_nulls(missing),
            Self::Int64(builder, _) => builder.append_nulls(missing),
            Self::Float64(builder) => builder.append_nulls(missing),
            Self::Utf8(builder) => (0..missing).for_each(|_| builder.append_null()),
            Self::Timestamp(builder) => builder.append_nulls(missing),
            Self::Geometry(builder) => (0..missing).for_each(|_| builder.append_null()),
        }
    }

    /// Appends a value that it takes as row `row`.
    fn append(&mut self, cell: &Cell<'_>, row: usize) {
        self.fill(row);
        if let (Self::Int64(builder, _), Cell::Float64(_)) = (&mut *self, cell) {
            let whole = builder.finish();
            let mut wide = Float64Builder::with_capacity(whole.len() + 1);
            whole.iter().for_each(|value| wide.append_option(value.map(|value| value as f64)));
            *self = Self::Float64(wide);
        }
        match (self, cell) {
            (Self::Boolean(builder), Cell::Boolean(value)) => builder.append_value(*value),
            (Self::Int64(builder, largest), Cell::Int64(value)) => {
                *largest = (*largest).max(value.unsigned_abs());
                builder.append_value(*value);
            }
            (Self::Float64(builder), Cell::Float64(value)) => builder.append_value(*value),
            (Self::Float64(builder), Cell::Int64(value)) => builder.append_value(*value as f64),
            (Self::Utf8(builder), Cell::Utf8(value)) => builder.append_value(value),
            (Self::Timestamp(builder), Cell::Timestamp(value)) => builder.append_value(*value),
            (Self::Geometry(builder), Cell::Geometry(value)) => builder.append_value(value),
            // Null, which the next value or the end fills up.
            _ => {}
        }
    }

    /// The column under its name, and its values.
    fn finish(self, name: &str) -> (Field, ArrayRef) {
        let plain = |value_type: ValueType| Field::new(name, value_type.arrow(), true);
        match self {
            Self::Boolean(mut builder) => (plain(ValueType::Boolean), Arc::new(builder.finish())),
            Self::Int64(mut builder, _) => (plain(ValueType::Int64), Arc::new(builder.finish())),
            Self::Float64(mut builder) => (plain(ValueType::Float64), Arc::new(builder.finish())),
            Self::Utf8(mut builder) => (plain(ValueType::Utf8), Arc::new(builder.finish())),
            Self::Timestamp(mut builder) => (plain(ValueType::Timestamp), Arc::new(builder.finish())),
            Self::Geometry(mut builder) => (geometry_field(name, CRS84, true), Arc::new(builder.finish())),
        }
    }
}
