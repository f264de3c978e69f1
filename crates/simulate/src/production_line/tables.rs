//! Rows of the line's tables as typed columns, with errors that name the element.

use arrow::array::RecordBatch;
use twinlake_contracts::{Error, Result, Snapshot};

use super::distribution::Distribution;
use crate::columns::Table;

/// A table that may be left out; an empty one counts as left out.
pub(super) fn optional<'a>(city: &'a Snapshot, role: &str) -> Option<&'a RecordBatch> {
    city.tables.get(role).filter(|batch| batch.num_rows() > 0)
}

/// The columns of one table. A column other than a name may be missing: then all its values are.
pub(super) struct Rows<'a> {
    role: &'a str,
    count: usize,
    table: Table<'a>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(role: &'a str, batch: &'a RecordBatch) -> Self {
        Self { role, count: batch.num_rows(), table: Table::new(role, batch) }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// A text in every row.
    pub(super) fn names(&self, column: &str) -> Result<Vec<String>> {
        let texts = self.table.texts(column)?.into_iter().enumerate();
        texts
            .map(|(row, text)| {
                text.filter(|text| !text.is_empty()).ok_or_else(|| {
                    Error::config(format!("row {} of '{}' has no {column}", row + 1, self.role))
                })
            })
            .collect()
    }

    /// A text or nothing.
    pub(super) fn texts(&self, column: &str) -> Result<Vec<Option<String>>> {
        if self.table.has(column) { self.table.texts(column) } else { Ok(vec![None; self.count]) }
    }

    /// True, false or nothing.
    pub(super) fn flags(&self, column: &str) -> Result<Vec<Option<bool>>> {
        if self.table.has(column) { self.table.flags(column) } else { Ok(vec![None; self.count]) }
    }

    /// A finite number or nothing.
    pub(super) fn numbers(&self, column: &str) -> Result<Vec<Option<f64>>> {
        if !self.table.has(column) {
            return Ok(vec![None; self.count]);
        }
        let numbers = self.table.numbers(column)?;
        match numbers.iter().position(|number| number.is_some_and(|number| !number.is_finite())) {
            Some(row) => Err(self.refused(row, column, "a finite number")),
            None => Ok(numbers),
        }
    }

    /// A finite number in every row.
    pub(super) fn needed(&self, column: &str, names: &[String]) -> Result<Vec<f64>> {
        let numbers = self.numbers(column)?.into_iter().zip(names);
        numbers
            .map(|(number, name)| number.ok_or_else(|| Error::config(format!("'{name}' has no {column}"))))
            .collect()
    }

    /// A number above 0 or nothing.
    pub(super) fn positive(&self, column: &str) -> Result<Vec<Option<f64>>> {
        self.within(column, "above 0", |number| number > 0.0)
    }

    /// A share from 0 to 1 or nothing.
    pub(super) fn share(&self, column: &str) -> Result<Vec<Option<f64>>> {
        self.within(column, "from 0 to 1", |number| (0.0..=1.0).contains(&number))
    }

    /// A whole number, not below `least`, or nothing.
    pub(super) fn whole(&self, column: &str, least: usize) -> Result<Vec<Option<usize>>> {
        let wanted = format!("a whole number from {least} to 1000000");
        let range = least as f64..=1e6;
        let fits = |number: f64| number.fract() == 0.0 && range.contains(&number);
        Ok(self
            .within(column, &wanted, fits)?
            .into_iter()
            .map(|number| number.map(|it| it as usize))
            .collect())
    }

    fn within(&self, column: &str, wanted: &str, fits: impl Fn(f64) -> bool) -> Result<Vec<Option<f64>>> {
        let numbers = self.numbers(column)?;
        match numbers.iter().position(|number| number.is_some_and(|number| !fits(number))) {
            Some(row) => Err(self.refused(row, column, wanted)),
            None => Ok(numbers),
        }
    }

    /// The element's name is the first column of every table here.
    fn refused(&self, row: usize, column: &str, wanted: &str) -> Error {
        let text = |column: &str| self.table.texts(column).ok().and_then(|texts| texts[row].clone());
        let key = ["machine", "buffer", "source", "pool", "shift", "product", "transport", "element", "line"];
        let name = key.iter().filter(|column| self.table.has(column)).find_map(|column| text(column));
        let value = self.table.numbers(column).ok().and_then(|numbers| numbers[row]).unwrap_or(f64::NAN);
        Error::config(format!(
            "'{}' (row {} of {}) has {column} = {value}, which must be {wanted}",
            name.unwrap_or_default(),
            row + 1,
            self.role
        ))
    }

    /// The distributions of the table `times`.
    pub(super) fn distributions(
        &self,
        elements: &[String],
        purposes: &[String],
    ) -> Result<Vec<Distribution>> {
        let kinds = self.names("distribution")?;
        let columns = ["value_s", "mean_s", "deviation_s", "min_s", "mode_s", "max_s", "shape", "phases"];
        let values = columns.map(|column| self.numbers(column));
        let mut parameters = Vec::with_capacity(columns.len());
        for (column, values) in columns.into_iter().zip(values) {
            parameters.push((column, values?));
        }
        (0..self.count)
            .map(|row| {
                let given: Vec<(&str, f64)> = parameters
                    .iter()
                    .filter_map(|(column, values)| values[row].map(|value| (*column, value)))
                    .collect();
                let whose = format!("the {} time of '{}'", purposes[row], elements[row]);
                distribution(&whose, &kinds[row], &given)
            })
            .collect()
    }
}

/// The distribution of that name with those parameters, each needed, none unknown.
fn distribution(whose: &str, kind: &str, given: &[(&str, f64)]) -> Result<Distribution> {
    let wanted: &[&str] = match kind {
        "constant" => &["value_s"],
        "exponential" => &["mean_s"],
        "uniform" => &["min_s", "max_s"],
        "triangular" => &["min_s", "mode_s", "max_s"],
        "lognormal" | "gamma" => &["mean_s", "deviation_s"],
        "erlang" => &["mean_s", "phases"],
        "weibull" => &["mean_s", "shape"],
        _ => {
            return Err(Error::config(format!("{whose} has the distribution '{kind}', which is unknown"))
                .with_help(
                    "known: constant, exponential, uniform, triangular, lognormal, gamma, erlang, weibull",
                ));
        }
    };
    let usage = || format!("'{kind}' takes {}", wanted.join(", "));
    if let Some((name, _)) = given.iter().find(|(name, _)| !wanted.contains(name)) {
        return Err(Error::config(format!("{whose} has a {name}, but is '{kind}'")).with_help(usage()));
    }
    let value = |name: &str| {
        let found = given.iter().find(|(other, _)| *other == name).map(|(_, value)| *value);
        found.ok_or_else(|| Error::config(format!("{whose} has no {name}")).with_help(usage()))
    };
    let refuse = |what: &str| Error::config(format!("{whose}: {what}")).with_help(usage());
    if let Some((name, value)) = given.iter().find(|(_, value)| *value < 0.0) {
        return Err(refuse(&format!("{name} is {value}, it must not be negative")));
    }
    let above_zero = |name: &str| match value(name)? {
        0.0 => Err(refuse(&format!("{name} is 0, it must be above 0"))),
        number => Ok(number),
    };
    let in_order = |numbers: &[f64]| numbers.windows(2).all(|pair| pair[0] <= pair[1]);
    Ok(match kind {
        "constant" => Distribution::Constant { value: value("value_s")? },
        "exponential" => Distribution::Exponential { mean: value("mean_s")? },
        "uniform" => {
            let (min, max) = (value("min_s")?, value("max_s")?);
            if !in_order(&[min, max]) {
                return Err(refuse("min_s is above max_s"));
            }
            Distribution::Uniform { min, max }
        }
        "triangular" => {
            let (min, mode, max) = (value("min_s")?, value("mode_s")?, value("max_s")?);
            if !in_order(&[min, mode, max]) {
                return Err(refuse("min_s, mode_s and max_s must ascend"));
            }
            Distribution::Triangular { min, mode, max }
        }
        "lognormal" => Distribution::log_normal(above_zero("mean_s")?, above_zero("deviation_s")?),
        "gamma" => Distribution::gamma(above_zero("mean_s")?, above_zero("deviation_s")?),
        "erlang" => {
            let (mean, phases) = (above_zero("mean_s")?, above_zero("phases")?);
            if phases.fract() != 0.0 {
                return Err(refuse("phases must be a whole number"));
            }
            Distribution::Gamma { shape: phases, scale: mean / phases }
        }
        _ => Distribution::weibull(above_zero("mean_s")?, above_zero("shape")?),
    })
}
