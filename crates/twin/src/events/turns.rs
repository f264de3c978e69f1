//! Rows of a table as what happens to instances, one thing after the other: readings, and ends.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use twinlake_contracts::{Error, Result};

use super::conditions::Conditions;
use super::watch::{Transition, Watch};
use crate::Twins;
use crate::live::{Shape, readings};
use crate::model::{TwinModel, VALID_TIME};
use crate::point::take_steps;

/// What happened, in the order of the rows.
pub(super) struct Turns {
    /// Readings as the twin shows them.
    shown: RecordBatch,
    ids: StringArray,
    times: TimestampMicrosecondArray,
    order: Vec<Turn>,
}

enum Turn {
    /// The row of a reading.
    Reading(usize),
    /// An instance ended then.
    End(String, i64),
}

/// The keys, as texts, and the times of rows of a twin.
fn keys_and_times(rows: &RecordBatch, key: &str) -> Result<(StringArray, TimestampMicrosecondArray)> {
    let column = |name: &str| {
        rows.column_by_name(name).ok_or_else(|| Error::internal(format!("a state without '{name}'")))
    };
    let keys = cast(column(key)?, &DataType::Utf8)?;
    let times = column(VALID_TIME)?.as_primitive::<TimestampMicrosecondType>().clone();
    Ok((keys.as_string::<i32>().clone(), times))
}

impl Turns {
    /// The states of instances as readings.
    pub(super) fn of_states(model: &TwinModel, shown: RecordBatch) -> Result<Self> {
        let (ids, times) = keys_and_times(&shown, &model.key)?;
        let order = (0..shown.num_rows()).map(Turn::Reading).collect();
        Ok(Self { shown, ids, times, order })
    }

    /// The rows of the model's table: what the twin does not show of them is an end.
    pub(super) async fn of_rows(
        twins: &Twins,
        model: &Arc<TwinModel>,
        shape: &Shape,
        rows: &RecordBatch,
    ) -> Result<Self> {
        let stored = readings(model, shape, rows)?.rows;
        let Some(shown) = take_steps(twins, model, &stored).await? else {
            return Err(Error::config(format!(
                "twin model '{}' needs more than its readings, so its readings cannot be watched",
                model.name
            )));
        };
        let (ids, times) = keys_and_times(&shown, &model.key)?;
        let (all, at) = keys_and_times(&stored, &model.key)?;
        let mut next = 0;
        let order = (0..stored.num_rows()).map(|row| {
            let is_shown = next < shown.num_rows()
                && ids.value(next) == all.value(row)
                && times.value(next) == at.value(row);
            if is_shown {
                next += 1;
                Turn::Reading(next - 1)
            } else {
                Turn::End(all.value(row).to_owned(), at.value(row))
            }
        });
        let order = order.collect();
        Ok(Self { shown, ids, times, order })
    }

    /// Runs them through the rule; `seen_us` is this machine's time.
    pub(super) fn run(
        &self,
        watch: &mut Watch,
        conditions: &Conditions,
        seen_us: i64,
    ) -> Result<Vec<Transition>> {
        let evaluated = conditions.evaluate(&self.shown)?;
        let steps = self.order.iter().filter_map(|turn| match turn {
            Turn::Reading(row) => {
                let (id, at_us) = (self.ids.value(*row), self.times.value(*row));
                watch.reading(id, at_us, seen_us, evaluated.of(*row))
            }
            Turn::End(id, at_us) => watch.ended(id, *at_us),
        });
        Ok(steps.collect())
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }
}
