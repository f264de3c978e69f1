//! Spikes, by the values before and after them: the Hampel identifier over a window around each row.
//!
//! A row is held back until the rows that it is compared with have come: at most the widest `window` rows of each thing
//! are held. The rows of a thing keep their order; those of other things may overtake them. A row whose `key` is null
//! is not judged and goes on at once. When a thing has to be forgotten (`max_keys`) its rows go on, judged by what is there.

use std::collections::VecDeque;

use arrow::array::{Array, Float64Array};
use arrow::datatypes::SchemaRef;
use indexmap::IndexMap;
use twinlake_contracts::Result;

use super::hampel::SpikeSettings;
use super::operator::{Keyed, Operator, Place, read_origin, write_origin};
use super::spike::Before;
use super::work::{Origin, Work};
use crate::codec::{Reader, Writer};
use crate::transforms::rows::{Bytes, fingerprint, number_column};
use crate::transforms::things::Stored;

/// A row that waits.
#[derive(Debug)]
struct Waiting {
    row: Box<[u8]>,
    origin: Origin,
    values: Vec<Option<f64>>,
}

/// The rows of a thing that wait, and the values before them.
#[derive(Debug, Default)]
struct Line {
    before: Before,
    waiting: VecDeque<Waiting>,
}

impl Stored for Line {
    fn write(&self, out: &mut Writer) {
        self.before.write(out);
        out.unsigned(self.waiting.len() as u64);
        for waiting in &self.waiting {
            out.bytes(&waiting.row);
            write_origin(waiting.origin, out);
            out.unsigned(waiting.values.len() as u64);
            for value in &waiting.values {
                out.option(*value, Writer::number);
            }
        }
    }

    fn read(input: &mut Reader<'_>) -> Result<Self> {
        let before = Before::read(input)?;
        let mut waiting = VecDeque::new();
        for _ in 0..input.unsigned()? {
            let row = input.bytes()?.into();
            let origin = read_origin(input)?;
            let count = input.unsigned()?;
            let values = (0..count).map(|_| input.option(Reader::number)).collect::<Result<_>>()?;
            waiting.push_back(Waiting { row, origin, values });
        }
        Ok(Self { before, waiting })
    }
}

/// A row that goes on, and what is wrong with it: number of the column, reason, detail.
struct Judged {
    row: Box<[u8]>,
    origin: Origin,
    verdicts: Vec<(usize, &'static str, String)>,
}

/// Spikes of the columns that are `centred`.
pub(super) struct SpikeCentred {
    columns: Vec<(String, usize, SpikeSettings)>,
    keyed: Keyed<Line>,
    schema: SchemaRef,
    whole: Bytes,
}

impl SpikeCentred {
    pub fn new(
        place: &Place<'_>,
        schema: &SchemaRef,
        settings: &IndexMap<String, SpikeSettings>,
    ) -> Result<Self> {
        let own = settings.iter().filter(|(_, own)| own.centred);
        let columns = own
            .map(|(name, own)| Ok((name.clone(), number_column(place.schema, name, "spikes")?, own.clone())));
        Ok(Self {
            columns: columns.collect::<Result<_>>()?,
            keyed: Keyed::new(place, false)?,
            schema: SchemaRef::clone(schema),
            whole: Bytes::whole(schema)?,
        })
    }

    /// Replaces the rows of `work` by those that go on, with their verdicts.
    fn give(&self, work: &mut Work, out: Vec<Judged>) -> Result<()> {
        let rows: Vec<&[u8]> = out.iter().map(|judged| &*judged.row).collect();
        let rows = self.whole.batch(&self.schema, &rows)?;
        work.replace(rows, out.iter().map(|judged| judged.origin).collect());
        for (row, judged) in out.into_iter().enumerate() {
            for (number, reason, detail) in judged.verdicts {
                let (_, at, own) = &self.columns[number];
                work.judge(row, *at, own.action, reason, detail);
            }
        }
        Ok(())
    }
}

/// Judges the first row that waits.
fn next(columns: &[(String, usize, SpikeSettings)], line: &mut Line) -> Option<Judged> {
    let first = line.waiting.pop_front()?;
    line.before.0.resize(columns.len(), VecDeque::new());
    let mut verdicts = Vec::new();
    for (number, (name, _, own)) in columns.iter().enumerate() {
        let Some(value) = first.values[number] else { continue };
        if !value.is_finite() {
            verdicts.push((number, "not_finite", format!("{name} = {value}")));
            continue;
        }
        let after = line.waiting.iter().take(own.window).filter_map(|row| row.values[number]);
        let mut neighbours: Vec<f64> = line.before.0[number].iter().copied().collect();
        neighbours.extend(after.filter(|value| value.is_finite()));
        if let Some(detail) = own.spike(name, value, &mut neighbours) {
            verdicts.push((number, "spike", detail));
        }
        line.before.push(number, value, own.window);
    }
    Some(Judged { row: first.row, origin: first.origin, verdicts })
}

impl Operator for SpikeCentred {
    fn name(&self) -> &'static str {
        "spike_centred"
    }

    fn apply(&mut self, work: &mut Work) -> Result<()> {
        let heads = self.keyed.heads(&work.rows)?;
        let encoded = self.whole.of(&work.rows)?;
        let values: Vec<Float64Array> =
            self.columns.iter().map(|(_, at, _)| work.numbers(*at)).collect::<Result<_>>()?;
        let widest = self.columns.iter().map(|(_, _, own)| own.window).max().unwrap_or(0);
        let mut out = Vec::new();
        for (row, origin) in work.origins.iter().enumerate() {
            let bytes = encoded.row(row);
            let Some(key) = heads.key(row) else {
                out.push(Judged { row: bytes, origin: *origin, verdicts: Vec::new() });
                continue;
            };
            let (line, forgotten) = self.keyed.things.touch(&key);
            work.held.extend(origin.sequence);
            line.waiting.push_back(Waiting {
                row: bytes,
                origin: Origin { index: None, sequence: origin.sequence },
                values: values.iter().map(|v| v.is_valid(row).then(|| v.value(row))).collect(),
            });
            let mut ready: Vec<Judged> = Vec::new();
            while line.waiting.len() > widest {
                ready.extend(next(&self.columns, line));
            }
            if let Some(mut line) = forgotten {
                while let Some(judged) = next(&self.columns, &mut line) {
                    ready.push(judged);
                }
            }
            work.released.extend(ready.iter().filter_map(|judged| judged.origin.sequence));
            out.extend(ready);
        }
        self.give(work, out)
    }

    fn finish(&mut self, work: &mut Work) -> Result<bool> {
        let mut out = Vec::new();
        let columns = &self.columns;
        self.keyed.things.for_each(|line| {
            while let Some(judged) = next(columns, line) {
                out.push(judged);
            }
        });
        work.released.extend(out.iter().filter_map(|judged| judged.origin.sequence));
        let any = !out.is_empty();
        self.give(work, out)?;
        Ok(any)
    }

    fn holds_rows(&self) -> bool {
        self.keyed.things.iter().any(|line| !line.waiting.is_empty())
    }

    fn shape(&self) -> String {
        let columns: Vec<String> =
            self.columns.iter().map(|(name, _, own)| format!("{name} {}", own.window)).collect();
        format!("{} | {} | {}", self.keyed.shape(), columns.join(", "), fingerprint(&self.schema))
    }

    fn write(&self, out: &mut Writer) {
        self.keyed.things.write(out);
    }

    fn read(&mut self, input: &mut Reader<'_>) -> Result<()> {
        self.keyed.things.read(input)
    }
}
