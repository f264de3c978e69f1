//! Readings that lie on a straight line between others.
//!
//! From the last reading that passed, `(t₀, v₀)`, each later one allows the slopes
//! `(vᵢ ± deviation − v₀) / (tᵢ − t₀)`. While the line to the newest reading is allowed by all those between, they are not
//! needed; when it is not, the reading before the newest passes and becomes `(t₀, v₀)`. The idea is the swinging door of
//! Bristol 1990 (US patent 4 669 097); testing the line to the newest reading itself, as Hale & Sellars 1981 do for their
//! slopes, makes the promise exact: what was left out lies within `deviation` of the straight line between the readings
//! that passed.
//!
//! One reading of each thing is held back: whether it passes, the next one tells.

use arrow::array::Array;
use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::Deserialize;
use twinlake_contracts::{Error, HeldReject, Result};

use super::operator::{Keyed, Operator, Place, read_origin, write_origin};
use super::work::{Origin, Work};
use crate::codec::{Reader, Writer};
use crate::duration::Microseconds;
use crate::transforms::rows::{Bytes, fingerprint, number_column};
use crate::transforms::things::Stored;

/// Which readings are needed to draw the line.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DoorSettings {
    /// The column whose line is drawn.
    column: String,
    /// How far a reading that is left out may lie from the line, in the column's unit.
    deviation: f64,
    /// The longest time (of events) between two readings that pass, if there are readings between them.
    max_silence: Option<Microseconds>,
}

impl DoorSettings {
    /// The column whose line is drawn.
    pub fn column(&self) -> &String {
        &self.column
    }

    pub fn check(&self) -> Result<()> {
        if self.deviation.is_finite() && self.deviation > 0.0 {
            return Ok(());
        }
        Err(Error::config("'deviation' of the swinging door is not a number above 0")
            .with_help("deviation = 0.1, in the unit of the column"))
    }
}

/// A reading that waits for the next one.
#[derive(Debug)]
struct Candidate {
    row: Box<[u8]>,
    origin: Origin,
    time: i64,
    value: f64,
    /// The slopes that it and those left out before it allow.
    low: f64,
    high: f64,
}

/// What is remembered of a thing.
#[derive(Debug, Default)]
struct Door {
    /// The last reading that passed: event time, value.
    pivot: Option<(i64, f64)>,
    candidate: Option<Candidate>,
}

impl Stored for Door {
    fn write(&self, out: &mut Writer) {
        out.option(self.pivot, |out, (time, value)| {
            out.signed(time);
            out.number(value);
        });
        out.option(self.candidate.as_ref(), |out, candidate| {
            out.bytes(&candidate.row);
            write_origin(candidate.origin, out);
            out.signed(candidate.time);
            for number in [candidate.value, candidate.low, candidate.high] {
                out.number(number);
            }
        });
    }

    fn read(input: &mut Reader<'_>) -> Result<Self> {
        let pivot = input.option(|input| Ok((input.signed()?, input.number()?)))?;
        let candidate = input.option(|input| {
            Ok(Candidate {
                row: input.bytes()?.into(),
                origin: read_origin(input)?,
                time: input.signed()?,
                value: input.number()?,
                low: input.number()?,
                high: input.number()?,
            })
        })?;
        Ok(Self { pivot, candidate })
    }
}

/// Rows on their way out, and those that are left out.
#[derive(Default)]
struct Passing {
    rows: Vec<(Box<[u8]>, Origin)>,
    left_out: Vec<(Origin, String)>,
}

pub(super) struct SwingingDoor {
    settings: DoorSettings,
    column: usize,
    keyed: Keyed<Door>,
    schema: SchemaRef,
    whole: Bytes,
}

impl SwingingDoor {
    pub fn new(place: &Place<'_>, schema: &SchemaRef, settings: &DoorSettings) -> Result<Self> {
        Ok(Self {
            column: number_column(place.schema, &settings.column, "a line")?,
            settings: settings.clone(),
            keyed: Keyed::new(place, true)?,
            schema: SchemaRef::clone(schema),
            whole: Bytes::whole(schema)?,
        })
    }

    fn give(&self, work: &mut Work, passing: Passing) -> Result<()> {
        let rows: Vec<&[u8]> = passing.rows.iter().map(|(row, _)| row.as_ref()).collect();
        let rows = self.whole.batch(&self.schema, &rows)?;
        work.replace(rows, passing.rows.iter().map(|(_, origin)| *origin).collect());
        for (origin, detail) in passing.left_out {
            work.released.extend(origin.sequence);
            work.refused.push(HeldReject {
                sequence: origin.sequence,
                reason: "swinging_door".into(),
                detail,
            });
        }
        Ok(())
    }
}

impl Door {
    /// The candidate passes.
    fn open(&mut self, passing: &mut Passing, released: &mut Vec<u64>) {
        if let Some(candidate) = self.candidate.take() {
            self.pivot = Some((candidate.time, candidate.value));
            released.extend(candidate.origin.sequence);
            passing.rows.push((candidate.row, candidate.origin));
        }
    }

    /// A reading comes, later than all before; it is held back if there is one that it may end a line from.
    fn come(&mut self, mut new: Candidate, own: &DoorSettings, passing: &mut Passing, work: &mut Held<'_>) {
        if let (Some((from, start)), Some(old)) = (self.pivot, &self.candidate) {
            let slope = (new.value - start) / seconds(from, new.time);
            let silent = own.max_silence.is_some_and(|most| new.time.saturating_sub(from) > most.0);
            if slope < old.low || slope > old.high || silent {
                self.open(passing, work.released);
            }
        }
        let Some((from, start)) = self.pivot else {
            self.pivot = Some((new.time, new.value));
            passing.rows.push((new.row, new.origin));
            return;
        };
        let apart = seconds(from, new.time);
        new.low = (new.value - own.deviation - start) / apart;
        new.high = (new.value + own.deviation - start) / apart;
        if let Some(old) = self.candidate.take() {
            new.low = new.low.max(old.low);
            new.high = new.high.min(old.high);
            let detail = format!("{} = {} lies on the line to the next reading", own.column, old.value);
            passing.left_out.push((old.origin, detail));
        }
        work.held.extend(new.origin.sequence);
        new.origin.index = None;
        self.candidate = Some(new);
    }
}

/// What is held back and let go.
struct Held<'a> {
    held: &'a mut Vec<u64>,
    released: &'a mut Vec<u64>,
}

fn seconds(from: i64, to: i64) -> f64 {
    to.abs_diff(from) as f64 / 1e6
}

impl Operator for SwingingDoor {
    fn name(&self) -> &'static str {
        "swinging_door"
    }

    fn apply(&mut self, work: &mut Work) -> Result<()> {
        let heads = self.keyed.heads(&work.rows)?;
        let encoded = self.whole.of(&work.rows)?;
        let values = work.numbers(self.column)?;
        let mut passing = Passing::default();
        for (row, origin) in work.origins.iter().enumerate() {
            let bytes = encoded.row(row);
            let Some((key, time)) = heads.key(row).zip(heads.time(row)) else {
                passing.rows.push((bytes, *origin));
                continue;
            };
            let (door, forgotten) = self.keyed.things.touch(&key);
            if let Some(mut forgotten) = forgotten {
                forgotten.open(&mut passing, &mut work.released);
            }
            let newest = door.candidate.as_ref().map(|old| old.time).or(door.pivot.map(|(time, _)| time));
            if newest.is_some_and(|newest| time <= newest) {
                passing.rows.push((bytes, *origin)); // not later than all others: no line leads to it
                continue;
            }
            let value = values.is_valid(row).then(|| values.value(row)).filter(|value| value.is_finite());
            let Some(value) = value else {
                // A gap: the line ends before it, and a new one begins after it.
                door.open(&mut passing, &mut work.released);
                door.pivot = None;
                passing.rows.push((bytes, *origin));
                continue;
            };
            let new = Candidate { row: bytes, origin: *origin, time, value, low: 0.0, high: 0.0 };
            let mut held = Held { held: &mut work.held, released: &mut work.released };
            door.come(new, &self.settings, &mut passing, &mut held);
        }
        self.give(work, passing)
    }

    fn finish(&mut self, work: &mut Work) -> Result<bool> {
        let mut passing = Passing::default();
        self.keyed.things.for_each(|door| door.open(&mut passing, &mut work.released));
        let any = !passing.rows.is_empty();
        self.give(work, passing)?;
        Ok(any)
    }

    fn holds_rows(&self) -> bool {
        self.keyed.things.iter().any(|door| door.candidate.is_some())
    }

    fn shape(&self) -> String {
        format!("{} | {} | {}", self.keyed.shape(), self.settings.column, fingerprint(&self.schema))
    }

    fn write(&self, out: &mut Writer) {
        self.keyed.things.write(out);
    }

    fn read(&mut self, input: &mut Reader<'_>) -> Result<()> {
        self.keyed.things.read(input)
    }
}
