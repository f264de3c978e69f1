//! Rows that repeat an earlier one.
//!
//! A row is a duplicate when an accepted row of the same thing (`key`) has equal values in the columns `by` and its time
//! lies within `within` of this row's; when the time column is itself one of `by`, their times are equal. What is
//! remembered reaches back `within` from the thing's newest time: a repetition that comes later than that is not
//! recognised. Each thing has its own newest time, so a device with a wrong clock harms nobody else. Rows with a null
//! in `by`, `key` or the time are never duplicates.
//!
//! Whether a row is a duplicate depends on the rows before it alone, never on the cut into batches: forgetting is decided
//! by time, and the memory is only swept now and then.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{Schema, TimestampMicrosecondType};
use arrow::row::{RowConverter, SortField};
use schemars::JsonSchema;
use serde::Deserialize;
use twinlake_contracts::{Error, Result, format_us, timestamp_type};

use super::operator::{Operator, Place};
use super::work::Work;
use crate::codec::{Reader, Writer};
use crate::duration::Microseconds;
use crate::transforms::rows::{column, fingerprint, time_column};

const VERSION: u64 = 1;

/// Which rows repeat others.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DedupSettings {
    /// The columns that are equal in a row and its repetition.
    by: Vec<String>,
    /// How far back in event time repetitions are recognised (default `10m`).
    #[serde(default = "ten_minutes")]
    within: Microseconds,
    /// The column with the event time (default: that of the transform, `ts`).
    time: Option<String>,
    /// The most things (values of `key`) that are remembered (default: that of the transform, 1000000); the one unheard
    /// for the longest is forgotten first.
    max_keys: Option<usize>,
}

impl DedupSettings {
    /// The columns by which rows are compared.
    pub fn columns(&self) -> &[String] {
        &self.by
    }
}

fn ten_minutes() -> Microseconds {
    Microseconds(600_000_000)
}

/// What is remembered of one thing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Memory {
    /// The newest event time, in microseconds.
    newest_us: i64,
    /// The number of the row that touched it last; 0 never.
    touched: u64,
    /// Accepted rows: the values of `by` (without key and time, which are known), the time.
    seen: BTreeSet<(Box<[u8]>, i64)>,
    /// How many were left after the last sweep.
    swept: usize,
}

pub(super) struct Dedup {
    by: Vec<String>,
    time: usize,
    within_us: i64,
    /// How far apart the times of a row and its repetition may lie.
    tolerance_us: i64,
    max_keys: usize,
    key_columns: Vec<usize>,
    rest_columns: Vec<usize>,
    key_converter: RowConverter,
    rest_converter: RowConverter,
    things: HashMap<Box<[u8]>, Memory>,
    /// The things by the row that touched them last.
    order: BTreeMap<u64, Box<[u8]>>,
    rows: u64,
    shape: String,
}

impl Dedup {
    pub fn new(place: &Place<'_>, settings: &DedupSettings) -> Result<Self> {
        let schema = place.schema;
        let max_keys = settings.max_keys.unwrap_or(place.max_keys);
        if settings.by.is_empty() {
            return Err(Error::config("'by' names no column").with_help("by = [\"vehicle_id\", \"ts\"]"));
        }
        if max_keys == 0 {
            return Err(Error::config("'max_keys' must be above 0"));
        }
        let time = time_column(schema, settings.time.as_deref().unwrap_or(place.time))?;
        let key_columns = place.key.iter().map(|name| column(schema, name)).collect::<Result<Vec<_>>>()?;
        let by = settings.by.iter().map(|name| column(schema, name)).collect::<Result<Vec<_>>>()?;
        // A key that is not a part of `by` would make equal rows of two things no duplicates: that is what `key` says.
        let rest_columns: Vec<usize> =
            by.iter().copied().filter(|at| *at != time && !key_columns.contains(at)).collect();
        let fields = |columns: &[usize]| {
            let fields: Vec<_> = columns.iter().map(|at| schema.field(*at).clone()).collect();
            fingerprint(&Schema::new(fields))
        };
        let converter = |columns: &[usize]| {
            RowConverter::new(
                columns.iter().map(|at| SortField::new(schema.field(*at).data_type().clone())).collect(),
            )
        };
        Ok(Self {
            by: settings.by.clone(),
            time,
            within_us: settings.within.0,
            tolerance_us: if by.contains(&time) { 0 } else { settings.within.0 },
            max_keys,
            shape: format!("{} | {}", fields(&key_columns), fields(&rest_columns)),
            key_converter: converter(&key_columns)?,
            rest_converter: converter(&rest_columns)?,
            key_columns,
            rest_columns,
            things: HashMap::new(),
            order: BTreeMap::new(),
            rows: 0,
        })
    }

    /// Whether the row is new; remembers it if so.
    fn accept(&mut self, key: &[u8], rest: &[u8], time_us: i64) -> bool {
        self.rows += 1;
        let rows = self.rows;
        if !self.things.contains_key(key) {
            if self.things.len() >= self.max_keys
                && let Some((_, oldest)) = self.order.pop_first()
            {
                self.things.remove(&oldest);
            }
            self.things.insert(key.into(), Memory { newest_us: time_us, ..Memory::default() });
        }
        let Some(memory) = self.things.get_mut(key) else { return true };
        let key: Box<[u8]> = self.order.remove(&memory.touched).unwrap_or_else(|| key.into());
        self.order.insert(rows, key);
        memory.touched = rows;
        memory.newest_us = memory.newest_us.max(time_us);
        let horizon = memory.newest_us.saturating_sub(self.within_us);
        let low = time_us.saturating_sub(self.tolerance_us).max(horizon);
        let high = time_us.saturating_add(self.tolerance_us);
        let bound = |time: i64| -> (Box<[u8]>, i64) { (rest.into(), time) };
        if low <= high && memory.seen.range(bound(low)..=bound(high)).next().is_some() {
            return false;
        }
        if time_us >= horizon {
            memory.seen.insert(bound(time_us));
            if memory.seen.len() > 2 * memory.swept + 16 {
                memory.seen.retain(|(_, time)| *time >= horizon);
                memory.swept = memory.seen.len();
            }
        }
        true
    }
}

impl Operator for Dedup {
    fn name(&self) -> &'static str {
        "dedup"
    }

    fn apply(&mut self, work: &mut Work) -> Result<()> {
        let pick = |columns: &[usize]| -> Vec<ArrayRef> {
            columns.iter().map(|at| work.rows.column(*at).clone()).collect()
        };
        let (keys, rest) = (pick(&self.key_columns), pick(&self.rest_columns));
        let times = cast(work.rows.column(self.time), &timestamp_type())?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let null =
            |row: usize| times.is_null(row) || keys.iter().chain(&rest).any(|column| column.is_null(row));
        let key_rows = if keys.is_empty() { None } else { Some(self.key_converter.convert_columns(&keys)?) };
        let rest_rows =
            if rest.is_empty() { None } else { Some(self.rest_converter.convert_columns(&rest)?) };
        for row in 0..work.rows.num_rows() {
            if null(row) {
                continue;
            }
            let key = key_rows.as_ref().map(|rows| rows.row(row));
            let rest = rest_rows.as_ref().map(|rows| rows.row(row));
            let key = key.as_ref().map_or(&[][..], AsRef::as_ref);
            let rest = rest.as_ref().map_or(&[][..], AsRef::as_ref);
            let time_us = times.value(row);
            if !self.accept(key, rest, time_us) {
                let detail = format!(
                    "an earlier row has the same {} (time {})",
                    self.by.join(", "),
                    format_us(time_us)
                );
                work.refuse(row, "duplicate", detail);
            }
        }
        Ok(())
    }

    fn shape(&self) -> String {
        self.shape.clone()
    }

    fn write(&self, out: &mut Writer) {
        out.unsigned(VERSION);
        out.unsigned(self.rows);
        out.unsigned(self.order.len() as u64);
        for (touched, key) in &self.order {
            let Some(memory) = self.things.get(key) else { continue };
            out.bytes(key);
            out.unsigned(*touched);
            out.signed(memory.newest_us);
            let horizon = memory.newest_us.saturating_sub(self.within_us);
            let live = || memory.seen.iter().filter(|(_, time)| *time >= horizon);
            out.unsigned(live().count() as u64);
            let mut before = memory.newest_us;
            for (rest, time) in live() {
                out.bytes(rest);
                out.signed(time.wrapping_sub(before));
                before = *time;
            }
        }
    }

    fn read(&mut self, input: &mut Reader<'_>) -> Result<()> {
        self.things.clear();
        self.order.clear();
        if input.unsigned()? != VERSION {
            return Err(Error::internal("the state of dedup was written by another version"));
        }
        self.rows = input.unsigned()?;
        for _ in 0..input.unsigned()? {
            let key: Box<[u8]> = input.bytes()?.into();
            let touched = input.unsigned()?;
            let newest_us = input.signed()?;
            let mut seen = BTreeSet::new();
            let mut before = newest_us;
            for _ in 0..input.unsigned()? {
                let rest: Box<[u8]> = input.bytes()?.into();
                before = before.wrapping_add(input.signed()?);
                seen.insert((rest, before));
            }
            self.order.insert(touched, key.clone());
            let swept = seen.len();
            self.things.insert(key, Memory { newest_us, touched, seen, swept });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch, TimestampMicrosecondArray};
    use arrow::datatypes::{DataType, Field};
    use proptest::prelude::*;
    use twinlake_contracts::Batch;

    use super::*;

    fn dedup(by: &[&str], within_us: i64, max_keys: usize) -> Dedup {
        let schema = Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("event", DataType::Int64, true),
            Field::new("ts", timestamp_type(), true),
        ]);
        let settings = DedupSettings {
            by: by.iter().map(|name| (*name).to_owned()).collect(),
            within: Microseconds(within_us),
            time: None,
            max_keys: Some(max_keys),
        };
        let place = Place { schema: &schema, key: &["id".to_owned()], time: "ts", max_keys: 1 };
        Dedup::new(&place, &settings).unwrap()
    }

    type Row = (Option<i64>, Option<i64>, Option<i64>);

    fn batch(rows: &[Row]) -> Batch {
        let ids: Int64Array = rows.iter().map(|row| row.0).collect();
        let events: Int64Array = rows.iter().map(|row| row.1).collect();
        let times: TimestampMicrosecondArray = rows.iter().map(|row| row.2).collect();
        let rows = RecordBatch::try_from_iter([
            ("id", Arc::new(ids) as ArrayRef),
            ("event", Arc::new(events)),
            ("ts", Arc::new(times.with_timezone("UTC"))),
        ]);
        Batch { rows: rows.unwrap(), sequences: None }
    }

    fn kept(dedup: &mut Dedup, rows: &[Row]) -> Vec<bool> {
        let mut work = Work::new(batch(rows), None);
        dedup.apply(&mut work).unwrap();
        let keep: Vec<bool> = (0..rows.len()).map(|row| work.keeps(row)).collect();
        assert_eq!(work.rejects.0.len(), keep.iter().filter(|keep| !**keep).count());
        keep
    }

    fn state_of(dedup: &Dedup) -> Vec<u8> {
        let mut out = Writer::default();
        dedup.write(&mut out);
        out.finish()
    }

    #[test]
    fn a_repetition_is_refused_and_a_null_never_is_one() {
        let mut dedup = dedup(&["id", "ts"], 100, 10);
        let rows = [
            (Some(1), Some(1), Some(1_000)),
            (Some(2), Some(1), Some(1_000)),
            (Some(1), Some(2), Some(1_000)),
            (Some(1), Some(1), None),
            (Some(1), Some(1), None),
            (Some(1), Some(1), Some(900)),
            (Some(1), Some(1), Some(900)),
            (Some(1), Some(1), Some(899)),
            (Some(1), Some(1), Some(899)),
        ];
        let expected = [true, true, false, true, true, true, false, true, true];
        assert_eq!(kept(&mut dedup, &rows), expected, "899 lies further back than `within`");
    }

    #[test]
    fn without_the_time_in_by_rows_near_in_time_are_repetitions() {
        let mut dedup = dedup(&["event"], 10, 10);
        let rows: Vec<Row> = [0, 6, 11, 5, 22].map(|time| (Some(1), Some(7), Some(time))).into();
        assert_eq!(kept(&mut dedup, &rows), [true, false, true, false, true]);
    }

    /// The definition, word for word, without any memory management.
    fn by_definition(rows: &[Row], by_time: bool, within: i64) -> Vec<bool> {
        let mut newest: HashMap<i64, i64> = HashMap::new();
        let mut accepted: Vec<(i64, i64, i64)> = Vec::new();
        rows.iter()
            .map(|row| {
                let (Some(id), Some(time)) = (row.0, row.2) else { return true };
                let rest = if by_time { 0 } else { row.1.unwrap_or(-1) };
                if !by_time && row.1.is_none() {
                    return true;
                }
                let newest = newest.entry(id).or_insert(time);
                *newest = time.max(*newest);
                let tolerance = if by_time { 0 } else { within };
                let repeated = accepted.iter().any(|(other, value, at)| {
                    *other == id
                        && *value == rest
                        && (at - time).abs() <= tolerance
                        && *at >= *newest - within
                });
                if !repeated {
                    accepted.push((id, rest, time));
                }
                !repeated
            })
            .collect()
    }

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let row = (
            proptest::option::weighted(0.95, 0..3i64),
            proptest::option::weighted(0.95, 0..3i64),
            proptest::option::weighted(0.95, 0..80i64),
        );
        proptest::collection::vec(row, 0..200)
    }

    proptest! {
        #[test]
        fn the_cut_and_restarts_change_nothing(rows in rows(), cuts in proptest::collection::vec(1..40usize, 1..40), by_time: bool, within in 0..40i64) {
            let by: &[&str] = if by_time { &["id", "ts"] } else { &["event"] };
            let mut cut = dedup(by, within, 10);
            let mut results = Vec::new();
            let mut rest = rows.as_slice();
            for length in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (head, tail) = rest.split_at((*length).min(rest.len()));
                results.extend(kept(&mut cut, head));
                rest = tail;
                let mut restarted = dedup(by, within, 10);
                let state = state_of(&cut);
                restarted.read(&mut Reader::new(&state)).unwrap();
                prop_assert_eq!(state_of(&restarted), state);
                cut = restarted;
            }
            prop_assert_eq!(&results, &kept(&mut dedup(by, within, 10), &rows));
            prop_assert_eq!(results, by_definition(&rows, by_time, within));
        }

        #[test]
        fn memory_is_bounded(rows in rows()) {
            let mut bounded = dedup(&["id", "ts"], 5, 2);
            kept(&mut bounded, &rows);
            prop_assert!(bounded.things.len() <= 2 && bounded.order.len() == bounded.things.len());
            prop_assert!(bounded.things.values().all(|memory| memory.seen.len() <= 28));
        }
    }
}
