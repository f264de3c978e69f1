//! The operators of a clean transform, one after the other.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use twinlake_contracts::{Error, Result};

use super::work::{Origin, Work};
use crate::codec::{Reader, Writer};
use crate::transforms::rows::{Bytes, Encoded, fingerprint, time_column, times};
use crate::transforms::things::{Stored, Things};

/// One way to clean rows.
pub(super) trait Operator: Send {
    /// The key of its settings; one of each in a transform.
    fn name(&self) -> &'static str;

    /// Judges rows.
    fn apply(&mut self, work: &mut Work) -> Result<()>;

    /// The input has ended: the rows that were held back, in the places of [`Work::replace`].
    fn finish(&mut self, _work: &mut Work) -> Result<bool> {
        Ok(false)
    }

    /// Whether rows are held back.
    fn holds_rows(&self) -> bool {
        false
    }

    /// Whether its judgement of a row depends on rows before it.
    fn remembers(&self) -> bool {
        true
    }

    /// What its state depends on: a state of another shape is not taken back.
    fn shape(&self) -> String {
        String::new()
    }

    /// What must be remembered across a restart.
    fn write(&self, _out: &mut Writer) {}

    /// Takes back what [`Operator::write`] gave.
    fn read(&mut self, _input: &mut Reader<'_>) -> Result<()> {
        Ok(())
    }
}

/// What operators learn about the rows and the settings that they share.
pub(super) struct Place<'a> {
    pub schema: &'a Schema,
    pub key: &'a [String],
    pub time: &'a str,
    pub max_keys: usize,
}

/// A state for each thing.
pub(super) struct Keyed<T> {
    keys: Bytes,
    time: Option<usize>,
    pub things: Things<T>,
    shape: String,
}

/// The keys and times of the rows of a batch.
pub(super) struct Heads {
    keys: Encoded,
    times: Option<arrow::array::TimestampMicrosecondArray>,
}

impl<T: Default + Stored> Keyed<T> {
    pub fn new(place: &Place<'_>, timed: bool) -> Result<Self> {
        let keys = Bytes::named(place.schema, place.key)?;
        let fields: Vec<_> = keys.columns().iter().map(|at| place.schema.field(*at).clone()).collect();
        Ok(Self {
            shape: fingerprint(&Schema::new(fields)),
            keys,
            time: if timed { Some(time_column(place.schema, place.time)?) } else { None },
            things: Things::new(place.max_keys),
        })
    }

    pub fn shape(&self) -> &str {
        &self.shape
    }

    pub fn heads(&self, rows: &RecordBatch) -> Result<Heads> {
        let times = self.time.map(|at| times(rows, at)).transpose()?;
        Ok(Heads { keys: self.keys.of(rows)?, times })
    }
}

impl Heads {
    /// The key of a row; `None` when a part of it is null: such a row belongs to nothing that could be remembered.
    pub fn key(&self, row: usize) -> Option<Box<[u8]>> {
        (!self.keys.has_null(row)).then(|| self.keys.row(row))
    }

    /// The event time of a row.
    pub fn time(&self, row: usize) -> Option<i64> {
        crate::transforms::rows::time(self.times.as_ref()?, row)
    }
}

/// All operators in their order.
pub(super) struct Chain(pub Vec<Box<dyn Operator>>);

impl Chain {
    /// Sends rows through the operators from number `from` on.
    pub fn run(&mut self, work: &mut Work, from: usize) -> Result<()> {
        for operator in self.0.iter_mut().skip(from) {
            operator.apply(work)?;
            work.apply()?;
        }
        Ok(())
    }

    /// Brings out what each operator holds back, and sends it through those behind it.
    pub fn finish(&mut self, mut empty: impl FnMut() -> Work) -> Result<Vec<Work>> {
        let mut out = Vec::new();
        for at in 0..self.0.len() {
            let mut work = empty();
            if self.0[at].finish(&mut work)? {
                work.apply()?;
                self.run(&mut work, at + 1)?;
                out.push(work);
            }
        }
        Ok(out)
    }

    pub fn write(&self, out: &mut Writer) {
        out.unsigned(self.0.len() as u64);
        for operator in &self.0 {
            out.bytes(operator.name().as_bytes());
            out.bytes(operator.shape().as_bytes());
            out.flag(operator.holds_rows());
            let mut own = Writer::default();
            operator.write(&mut own);
            out.bytes(&own.finish());
        }
    }

    /// Gives each operator its state. One that is new or whose columns were changed in the file starts without a state;
    /// rows that were held back are never given up that way.
    pub fn read(&mut self, input: &mut Reader<'_>) -> Result<()> {
        for _ in 0..input.unsigned()? {
            let (name, shape) = (input.text()?, input.text()?);
            let (held, state) = (input.flag()?, input.bytes()?);
            let own = self.0.iter_mut().find(|operator| operator.name() == name);
            match own.filter(|operator| operator.shape() == shape) {
                Some(operator) => operator.read(&mut Reader::new(state))?,
                None if held => {
                    return Err(Error::config(format!("'{name}' was changed while it held rows back"))
                        .with_help("put its settings and columns back, or give the transform another name and lose those rows"));
                }
                None => {}
            }
        }
        Ok(())
    }
}

/// The origin of a row, written.
pub(super) fn write_origin(origin: Origin, out: &mut Writer) {
    out.option(origin.sequence, Writer::unsigned);
}

/// The origin of a row that was held back.
pub(super) fn read_origin(input: &mut Reader<'_>) -> Result<Origin> {
    Ok(Origin { index: None, sequence: input.option(Reader::unsigned)? })
}
