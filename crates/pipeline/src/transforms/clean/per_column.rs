//! What the operators have in common that judge numbers by the past of a thing: settings and a past for each column.

use arrow::array::Float64Array;
use twinlake_contracts::Result;

use super::operator::{Keyed, Operator, Place};
use super::work::Work;
use crate::codec::{Reader, Writer};
use crate::transforms::rows::number_column;
use crate::transforms::things::Stored;

/// A way to judge numbers by their past.
pub(super) trait Judge: Sized + Send {
    /// The key of its settings.
    const NAME: &'static str;
    /// What is wanted of a column, for the error when it has no numbers.
    const WANTS: &'static str;
    /// What is set for a column.
    type Settings: Clone + Send;
    /// What is remembered of a thing.
    type Past: Default + Stored + Send;

    /// Judges rows.
    fn judge(own: &mut PerColumn<Self>, work: &mut Work) -> Result<()>;
}

/// The operator that a [`Judge`] makes.
pub(super) struct PerColumn<J: Judge> {
    /// Name, place and settings of each column.
    pub columns: Vec<(String, usize, J::Settings)>,
    pub keyed: Keyed<J::Past>,
}

impl<J: Judge> PerColumn<J> {
    /// `timed` when it needs the time of the rows.
    pub fn new<'a>(
        place: &Place<'_>,
        settings: impl IntoIterator<Item = (&'a String, &'a J::Settings)>,
        timed: bool,
    ) -> Result<Self>
    where
        J::Settings: 'a,
    {
        let columns = settings
            .into_iter()
            .map(|(name, own)| Ok((name.clone(), number_column(place.schema, name, J::WANTS)?, own.clone())));
        Ok(Self { columns: columns.collect::<Result<_>>()?, keyed: Keyed::new(place, timed)? })
    }

    /// The numbers of each column.
    pub fn values(&self, work: &Work) -> Result<Vec<Float64Array>> {
        self.columns.iter().map(|(_, at, _)| work.numbers(*at)).collect()
    }

    /// The columns' names.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|(name, ..)| name.as_str()).collect();
        names.join(", ")
    }
}

impl<J: Judge> Operator for PerColumn<J> {
    fn name(&self) -> &'static str {
        J::NAME
    }

    fn apply(&mut self, work: &mut Work) -> Result<()> {
        J::judge(self, work)
    }

    fn shape(&self) -> String {
        format!("{} | {}", self.keyed.shape(), self.names())
    }

    fn write(&self, out: &mut Writer) {
        self.keyed.things.write(out);
    }

    fn read(&mut self, input: &mut Reader<'_>) -> Result<()> {
        self.keyed.things.read(input)
    }
}

/// A time and a value of each column.
#[derive(Debug, Default)]
pub(super) struct Marks(pub Vec<Option<(i64, f64)>>);

impl Stored for Marks {
    fn write(&self, out: &mut Writer) {
        out.unsigned(self.0.len() as u64);
        for mark in &self.0 {
            out.option(*mark, |out, (time, value)| {
                out.signed(time);
                out.number(value);
            });
        }
    }

    fn read(input: &mut Reader<'_>) -> Result<Self> {
        let count = input.unsigned()?;
        let each = (0..count).map(|_| input.option(|input| Ok((input.signed()?, input.number()?))));
        Ok(Self(each.collect::<Result<_>>()?))
    }
}
