//! MATPOWER case files, format version 2: the electrical networks that power-flow studies share.
//!
//! A case is a MATLAB function that fills `mpc.baseMVA` and the matrices `mpc.bus`, `mpc.gen` and `mpc.branch` (their
//! columns: the appendix "Data File Format" of the MATPOWER User's Manual). Some cases go on to calculate: they hold
//! ohms and kilowatts and convert them by statements at the end. Those statements are run, not skipped: this reader
//! knows constants of `idx_bus`, `idx_gen` and `idx_brch`, scalars, whole columns and `+ - * / ^`. A statement beyond
//! that is refused with its line, because leaving it out would give another network.

mod columns;
mod evaluate;
mod syntax;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use twinlake_contracts::{Error, Place, Result};

use evaluate::{Case, Matrix};

/// Reads a case: `system` (one row: base_mva), `buses`, `generators` and `branches`, a row for each row of the file in
/// its order.
///
/// `buses`: bus_id, name (null without `mpc.bus_name`), kind (`pq`, `pv`, `slack`, `isolated`), demand_mw, demand_mvar,
/// shunt_mw, shunt_mvar (at 1 p.u.), vm_pu and va_deg (where a solution may start; the slack keeps its angle), base_kv,
/// vm_max_pu, vm_min_pu. `generators`: generator_id (the row from 1), bus_id, p_mw, q_mvar, q_max_mvar, q_min_mvar (may be
/// infinite), vm_setpoint_pu, in_service, p_max_mw, p_min_mw. `branches`: branch_id (the row from 1), from_bus, to_bus,
/// r_pu, x_pu, b_pu (total line charging), rating_mva (null for none), tap_ratio (at the from end; 1 for a line),
/// shift_deg, in_service. `file` names the text in errors. Costs, names of fuels and DC lines are not read.
pub fn read_case(text: &str, file: &str) -> Result<BTreeMap<String, RecordBatch>> {
    let case = Case::read(text, file)?;
    let base_mva = case.scalar("baseMVA")?;
    if !(base_mva.is_finite() && base_mva > 0.0) {
        return Err(refuse(file, format!("mpc.baseMVA is {base_mva}, but must be above 0")));
    }
    let system = RecordBatch::try_from_iter([("base_mva", float(vec![base_mva]))])?;
    Ok(BTreeMap::from([
        ("system".to_owned(), system),
        ("buses".to_owned(), buses(&case)?),
        ("generators".to_owned(), generators(&case)?),
        ("branches".to_owned(), branches(&case)?),
    ]))
}

/// An error of the file as a whole.
fn refuse(file: &str, message: impl Into<String>) -> Error {
    Error::config(message).at(Place { file: Some(PathBuf::from(file)), ..Place::default() })
}

fn buses(case: &Case<'_>) -> Result<RecordBatch> {
    let table = Rows::new(case, "bus", 13)?;
    let kind = |row: usize| -> Result<&'static str> {
        Ok(match table.whole(row, 1, "bus type")? {
            1 => "pq",
            2 => "pv",
            3 => "slack",
            4 => "isolated",
            other => return Err(table.error(row, &format!("bus type {other} is none of 1, 2, 3, 4"))),
        })
    };
    let names = case.cells("bus_name");
    if let Some(names) = names
        && names.len() != table.rows()
    {
        let message = format!("mpc.bus_name has {} names for {} buses", names.len(), table.rows());
        return Err(refuse(case.file(), message));
    }
    let names: StringArray =
        (0..table.rows()).map(|row| names.map(|names| names[row].trim().to_owned())).collect();
    let kinds: Vec<&str> = (0..table.rows()).map(kind).collect::<Result<_>>()?;
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("bus_id", table.integers(0, "bus number")?, false),
        ("name", Arc::new(names) as ArrayRef, true),
        ("kind", Arc::new(StringArray::from(kinds)) as ArrayRef, false),
        ("demand_mw", table.finite(2, "Pd")?, false),
        ("demand_mvar", table.finite(3, "Qd")?, false),
        ("shunt_mw", table.finite(4, "Gs")?, false),
        ("shunt_mvar", table.finite(5, "Bs")?, false),
        ("vm_pu", table.finite(7, "Vm")?, false),
        ("va_deg", table.finite(8, "Va")?, false),
        ("base_kv", table.finite(9, "baseKV")?, false),
        ("vm_max_pu", table.numbers(11), false),
        ("vm_min_pu", table.numbers(12), false),
    ])?)
}

fn generators(case: &Case<'_>) -> Result<RecordBatch> {
    let table = Rows::new(case, "gen", 10)?;
    Ok(RecordBatch::try_from_iter([
        ("generator_id", table.row_numbers()),
        ("bus_id", table.integers(0, "bus number")?),
        ("p_mw", table.finite(1, "Pg")?),
        ("q_mvar", table.finite(2, "Qg")?),
        ("q_max_mvar", table.numbers(3)),
        ("q_min_mvar", table.numbers(4)),
        ("vm_setpoint_pu", table.finite(5, "Vg")?),
        ("in_service", table.above_zero(7)),
        ("p_max_mw", table.numbers(8)),
        ("p_min_mw", table.numbers(9)),
    ])?)
}

fn branches(case: &Case<'_>) -> Result<RecordBatch> {
    let table = Rows::new(case, "branch", 11)?;
    // A rating of 0 says "no limit"; a ratio of 0 says "a line".
    let rating: Float64Array = table.column(5).map(|rating| (rating != 0.0).then_some(rating)).collect();
    let ratio: Float64Array =
        table.column(8).map(|ratio| Some(if ratio == 0.0 { 1.0 } else { ratio })).collect();
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("branch_id", table.row_numbers(), false),
        ("from_bus", table.integers(0, "from bus")?, false),
        ("to_bus", table.integers(1, "to bus")?, false),
        ("r_pu", table.finite(2, "r")?, false),
        ("x_pu", table.finite(3, "x")?, false),
        ("b_pu", table.finite(4, "b")?, false),
        ("rating_mva", Arc::new(rating) as ArrayRef, true),
        ("tap_ratio", Arc::new(ratio) as ArrayRef, false),
        ("shift_deg", table.finite(9, "angle")?, false),
        ("in_service", table.above_zero(10), false),
    ])?)
}

fn float(values: Vec<f64>) -> ArrayRef {
    Arc::new(Float64Array::from(values))
}

/// One of the case's matrices, with at least the columns that are needed.
struct Rows<'a> {
    case: &'a Case<'a>,
    name: &'static str,
    matrix: &'a Matrix,
}

impl<'a> Rows<'a> {
    fn new(case: &'a Case<'a>, name: &'static str, columns: usize) -> Result<Self> {
        let matrix = case.matrix(name)?;
        let table = Self { case, name, matrix };
        if matrix.rows() == 0 {
            return Err(refuse(case.file(), format!("mpc.{name} has no row")));
        }
        if matrix.columns < columns {
            let message = format!("mpc.{name} has {} columns, but needs {columns}", matrix.columns);
            return Err(table.error(0, &message));
        }
        Ok(table)
    }

    fn rows(&self) -> usize {
        self.matrix.rows()
    }

    fn column(&self, column: usize) -> impl Iterator<Item = f64> + '_ {
        self.matrix.values.iter().skip(column).step_by(self.matrix.columns).copied()
    }

    fn error(&self, row: usize, message: &str) -> Error {
        let message = format!("row {} of mpc.{}: {message}", row + 1, self.name);
        self.case.error_at_line(self.matrix.lines.get(row).copied().unwrap_or(0), message)
    }

    fn whole(&self, row: usize, column: usize, what: &str) -> Result<i64> {
        let value = self.matrix.values[row * self.matrix.columns + column];
        if value.fract() == 0.0 && value.abs() < 1e15 {
            Ok(value as i64)
        } else {
            Err(self.error(row, &format!("{what} {value} is not a whole number")))
        }
    }

    fn integers(&self, column: usize, what: &str) -> Result<ArrayRef> {
        let values: Vec<i64> =
            (0..self.rows()).map(|row| self.whole(row, column, what)).collect::<Result<_>>()?;
        Ok(Arc::new(Int64Array::from(values)))
    }

    fn numbers(&self, column: usize) -> ArrayRef {
        float(self.column(column).collect())
    }

    fn finite(&self, column: usize, what: &str) -> Result<ArrayRef> {
        match self.column(column).enumerate().find(|(_, value)| !value.is_finite()) {
            Some((row, value)) => Err(self.error(row, &format!("{what} {value} is not a finite number"))),
            None => Ok(self.numbers(column)),
        }
    }

    fn above_zero(&self, column: usize) -> ArrayRef {
        Arc::new(self.column(column).map(|value| Some(value > 0.0)).collect::<BooleanArray>())
    }

    fn row_numbers(&self) -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(1..=self.rows() as i64))
    }
}

#[cfg(test)]
mod tests;
