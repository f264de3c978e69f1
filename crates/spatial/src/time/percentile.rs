//! `percentile_sketch`, `percentile_merge` and `percentile_at`: quantiles of numbers that are no longer there.
//!
//! A sketch is computed once, say for each hour and street, kept in a table, and merged for any longer time and any
//! larger area afterwards.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array};
use arrow::datatypes::{DataType, Field, Float64Type};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

use super::aggregate::{Aggregate, passes};
use super::sketch::{DEFAULT_ERROR, Sketch};
use crate::call::Call;
use crate::definition::{CrsRule, Definition, FLOAT64, Kind};

pub(crate) static SKETCH: Aggregate = Aggregate {
    name: "percentile_sketch",
    summary: "A sketch of the values for percentile_at and percentile_merge: a few hundred bytes that know every percentile within a relative error, 0.01 when nothing is said (0.0001 to 0.5). Null and values that are not finite do not count; without any the sketch is null. DDSketch (Masson, Rim and Lee, 2019)",
    syntax: "percentile_sketch(value number) | percentile_sketch(value number, relative_error number)",
    accept: |given| {
        let numbers = given.iter().all(|given| given.is_numeric() || given.is_null());
        (numbers && (1..=2).contains(&given.len())).then(|| vec![DataType::Float64; given.len()])
    },
    result: |_| Field::new("sketch", DataType::Binary, true),
    state: |_| vec![DataType::Binary],
    make: |arguments| {
        let error = match arguments.constants.as_slice() {
            [_] => DEFAULT_ERROR,
            [_, Some(error)] => match error.cast_to(&DataType::Float64)? {
                datafusion::common::ScalarValue::Float64(Some(error)) => error,
                _ => return plan_err!("percentile_sketch: the relative error must not be null"),
            },
            _ => return plan_err!("percentile_sketch: the relative error must be a constant"),
        };
        if Sketch::new(error).is_none() {
            return plan_err!(
                "percentile_sketch: the relative error must be from 0.0001 to 0.5, not {error}"
            );
        }
        Ok(Box::new(Sketches { name: SKETCH.name, error, groups: Vec::new() }))
    },
};

pub(crate) static MERGE: Aggregate = Aggregate {
    name: "percentile_merge",
    summary: "The sketch of all values that went into the sketches; exactly that which percentile_sketch gives of all of them. Sketches of different relative errors do not merge: that is an error. Null does not count",
    syntax: "percentile_merge(sketch binary)",
    accept: |given| match given {
        [DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::Null] => {
            Some(vec![DataType::Binary])
        }
        _ => None,
    },
    result: |_| Field::new("sketch", DataType::Binary, true),
    state: |_| vec![DataType::Binary],
    make: |_| Ok(Box::new(Sketches { name: MERGE.name, error: DEFAULT_ERROR, groups: Vec::new() })),
};

pub(crate) static AT: Definition = Definition {
    name: "percentile_at",
    aliases: &[],
    summary: "The value below which the share (0 to 1) of a sketch's values lie, within the sketch's relative error; 0.5 is the median",
    overloads: &[&[("sketch", Kind::Bytes), ("share", Kind::Number)]],
    crs: CrsRule::Same,
    output: FLOAT64,
    body: at,
};

fn at(call: &Call<'_>) -> Result<ArrayRef> {
    let (sketches, shares) = (call.bytes(0)?, call.numbers(1)?);
    call.rows::<Float64Array, _>(|row| {
        let (Some(bytes), Some(share)) = (sketches.get(row), shares.get(row)) else { return Ok(None) };
        if !(0.0..=1.0).contains(&share) {
            return call.error(format!("the share must be from 0 to 1, not {share}"));
        }
        match Sketch::decode(bytes) {
            Some(sketch) => Ok(sketch.quantile(share)),
            None => call.error("this is not a sketch of percentile_sketch"),
        }
    })
}

/// A sketch for each group; of none, as long as nothing was counted.
struct Sketches {
    name: &'static str,
    error: f64,
    groups: Vec<Option<Box<Sketch>>>,
}

impl Sketches {
    fn merge_rows(
        &mut self,
        sketches: &BinaryArray,
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.groups.resize(total, None);
        for (row, &group) in groups.iter().enumerate() {
            if sketches.is_null(row) || !passes(filter, row) {
                continue;
            }
            let Some(sketch) = Sketch::decode(sketches.value(row)) else {
                return exec_err!("{}: this is not a sketch of percentile_sketch", self.name);
            };
            match &mut self.groups[group] {
                Some(held) => {
                    if !held.merge(&sketch) {
                        return exec_err!(
                            "{}: sketches of different relative errors do not merge",
                            self.name
                        );
                    }
                }
                none => *none = Some(Box::new(sketch)),
            }
        }
        Ok(())
    }
}

impl GroupsAccumulator for Sketches {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        let Some(values) = values[0].as_primitive_opt::<Float64Type>() else {
            return self.merge_rows(values[0].as_binary(), groups, filter, total);
        };
        self.groups.resize(total, None);
        for (row, &group) in groups.iter().enumerate() {
            if values.is_valid(row) && values.value(row).is_finite() && passes(filter, row) {
                let held = &mut self.groups[group];
                if held.is_none() {
                    *held = Sketch::new(self.error).map(Box::new);
                }
                if let Some(held) = held {
                    held.add(values.value(row));
                }
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let groups = emit.take_needed(&mut self.groups);
        let encoded = groups.iter().map(|sketch| sketch.as_ref().map(|sketch| sketch.encode()));
        Ok(Arc::new(encoded.collect::<BinaryArray>()))
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(emit)?])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.merge_rows(values[0].as_binary(), groups, None, total)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values[0].len();
        let mut each = Self { name: self.name, error: self.error, groups: Vec::new() };
        each.update_batch(values, &(0..rows).collect::<Vec<_>>(), filter, rows)?;
        each.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        let held: usize = self.groups.iter().flatten().map(|sketch| sketch.size()).sum();
        held + self.groups.capacity() * size_of::<Option<Box<Sketch>>>()
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{eval, fails, query};

    #[test]
    fn percentiles_through_sketches() {
        let series = "generate_series(1, 1000) AS t(v)";
        let sql = format!("SELECT round(percentile_at(percentile_sketch(v), 0.5) / 5) FROM {series}");
        assert_eq!(query(&sql).unwrap(), ["100.0"]);
        let sql = format!(
            "SELECT percentile_merge(s) = (SELECT percentile_sketch(v) FROM {series}) \
             FROM (SELECT v % 7, percentile_sketch(v) AS s FROM {series} GROUP BY 1)"
        );
        assert_eq!(query(&sql).unwrap(), ["true"]);
        let sql = format!("SELECT percentile_sketch(v, 0.05) IS NULL FROM {series} WHERE v > 5000");
        assert_eq!(query(&sql).unwrap(), ["true"]);
        assert_eq!(eval("percentile_at(NULL, 0.5)"), "NULL");
        assert_eq!(eval("percentile_at(percentile_merge(NULL), 0.5)"), "NULL");
    }

    #[test]
    fn wrong_input_is_named() {
        fails("percentile_at(X'00', 0.5)", "percentile_at: this is not a sketch");
        fails("percentile_merge(X'00')", "percentile_merge: this is not a sketch");
        fails("percentile_at(percentile_sketch(1), 1.5)", "from 0 to 1");
        fails("percentile_sketch(1, 0.9)", "from 0.0001 to 0.5");
        fails("percentile_sketch('x')", "percentile_sketch does not take");
    }
}
