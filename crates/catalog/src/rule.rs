//! Quality rules as they stand in a table's definition, and the SQL that judges them.
//!
//! A rule is *row-wise* when each row is judged by itself (`not_null`, `range`, `values`, `pattern`, `sql` with an
//! `expression`): only such a rule can refuse rows while they stream in. The others look at the table as a whole.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use twinlake_contracts::{Error, Result, TableName};

use crate::duration::Seconds;

/// One thing that must hold for a table.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QualityRule {
    /// What must hold.
    pub rule: RuleKind,
    /// What becomes of it when it does not hold (default `warn`).
    #[serde(default)]
    pub severity: Severity,
    /// Its name in `meta.quality`; default: the rule and its columns, for example `range:speed_mps`.
    pub name: Option<String>,
    /// Why it must hold, in a sentence.
    #[serde(default)]
    pub description: String,
    /// The column, for a rule on a single one.
    pub column: Option<String>,
    /// The columns, for a rule on several.
    #[serde(default)]
    pub columns: Vec<String>,
    /// `range`: the least value allowed.
    pub min: Option<f64>,
    /// `range`: the greatest value allowed.
    pub max: Option<f64>,
    /// `values`: all values allowed, texts or numbers.
    #[serde(default)]
    pub values: Vec<Json>,
    /// `pattern`: a regular expression that the whole text matches.
    pub pattern: Option<String>,
    /// `referential`: the table in which every value stands.
    pub table: Option<TableName>,
    /// `referential`: the columns of that table (default: of the same names).
    #[serde(default)]
    pub references: Vec<String>,
    /// `freshness`: how old the newest row may be (default: the promise of the table).
    pub promise: Option<Seconds>,
    /// `drift`: which figure is compared (default `mean`).
    pub statistic: Option<Statistic>,
    /// `drift`: by how much the figure may differ, as a part of the earlier one (default 0.2); for `distribution` the
    /// population stability index allowed (default 0.2).
    pub tolerance: Option<f64>,
    /// `drift`: with the mean of how many earlier results the figure is compared (default 10).
    pub earlier_runs: Option<usize>,
    /// `drift`: compare the rows after this stretch of time with those in it, instead of with earlier runs.
    pub reference: Option<Reference>,
    /// `sql`: an SQL expression over one row's columns that must not be false.
    pub expression: Option<String>,
    /// `sql`: an SQL query that must give no rows, in place of `expression`.
    pub query: Option<String>,
}

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RuleKind {
    /// The columns have values.
    NotNull,
    /// No two rows have the same values; rows with a null in one of the columns do not count.
    Unique,
    /// The values lie between `min` and `max`, both allowed. A null passes.
    Range,
    /// The values are among `values`. A null passes.
    Values,
    /// The whole text matches `pattern`. A null passes.
    Pattern,
    /// The values stand in another table. A row with a null in one of the columns passes.
    Referential,
    /// The newest row is not older than promised.
    Freshness,
    /// A figure is about what it was before.
    Drift,
    /// What `expression` or `query` says.
    Sql,
}

/// What becomes of a rule that does not hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It is recorded in `meta.quality`.
    #[default]
    Warn,
    /// Rows at fault become rows of `meta.rejects`, with the payload of their message; the others go on.
    Reject,
    /// The pipeline stops before the commit.
    Stop,
}

/// A figure that is compared with what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Statistic {
    /// The number of rows; needs no column.
    Rows,
    /// The part of nulls, 0 to 1.
    NullFraction,
    /// The number of distinct values, estimated (HyperLogLog).
    Distinct,
    /// The arithmetic mean.
    Mean,
    /// The median, estimated (t-digest).
    Median,
    /// The sample standard deviation.
    StandardDeviation,
    /// The least value.
    Min,
    /// The greatest value.
    Max,
    /// The population stability index over the deciles of the reference: `Σ (p − q) · ln(p / q)`; above 0.1 a shift is
    /// usually called small, above 0.25 large. Needs `reference`.
    Distribution,
}

/// A stretch of time whose rows are the reference.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// The column with the time.
    pub time: String,
    /// Its begin (RFC 3339), included.
    pub from: String,
    /// Its end (RFC 3339), excluded; rows from here on are compared with the reference.
    pub to: String,
}

impl RuleKind {
    /// The word in TOML and in `meta.quality`.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotNull => "not_null",
            Self::Unique => "unique",
            Self::Range => "range",
            Self::Values => "values",
            Self::Pattern => "pattern",
            Self::Referential => "referential",
            Self::Freshness => "freshness",
            Self::Drift => "drift",
            Self::Sql => "sql",
        }
    }

    /// The keys that belong to the rule beside `rule`, `severity`, `name` and `description`; the first of each list in
    /// `needed` is named when none of them is there.
    fn keys(self) -> (&'static [&'static [&'static str]], &'static [&'static str]) {
        match self {
            Self::NotNull | Self::Unique => (&[&["columns", "column"]], &[]),
            Self::Range => (&[&["column", "columns"], &["min", "max"]], &[]),
            Self::Values => (&[&["column", "columns"], &["values"]], &[]),
            Self::Pattern => (&[&["column", "columns"], &["pattern"]], &[]),
            Self::Referential => (&[&["columns", "column"], &["table"]], &["references"]),
            Self::Freshness => (&[], &["column", "promise"]),
            Self::Drift => (&[], &["column", "statistic", "tolerance", "earlier_runs", "reference"]),
            Self::Sql => (&[&["expression", "query"]], &[]),
        }
    }
}

impl Severity {
    /// The word in TOML and in `meta.quality`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warn => "warn",
            Self::Reject => "reject",
            Self::Stop => "stop",
        }
    }
}

impl Statistic {
    /// The word in TOML.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::NullFraction => "null_fraction",
            Self::Distinct => "distinct",
            Self::Mean => "mean",
            Self::Median => "median",
            Self::StandardDeviation => "standard_deviation",
            Self::Min => "min",
            Self::Max => "max",
            Self::Distribution => "distribution",
        }
    }
}

impl QualityRule {
    /// Its name in `meta.quality`.
    pub fn label(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let mut label = self.rule.name().to_owned();
        if let Some(statistic) = self.statistic {
            label = format!("{label}:{}", statistic.name());
        }
        let columns = self.own_columns();
        match (&self.expression, columns.is_empty()) {
            (Some(expression), _) => format!("{label}:{}", expression.trim()),
            (None, false) => format!("{label}:{}", columns.join(",")),
            (None, true) => label,
        }
    }

    /// The rule that refuses rows for which a constraint is not true.
    pub(crate) fn constraint(name: &str, expression: &str) -> Self {
        Self {
            rule: RuleKind::Sql,
            severity: Severity::Reject,
            name: Some(format!("constraint:{name}")),
            description: String::new(),
            column: None,
            columns: Vec::new(),
            min: None,
            max: None,
            values: Vec::new(),
            pattern: None,
            table: None,
            references: Vec::new(),
            promise: None,
            statistic: None,
            tolerance: None,
            earlier_runs: None,
            reference: None,
            expression: Some(format!("({expression}) IS TRUE")),
            query: None,
        }
    }

    /// The columns that it is about.
    pub fn own_columns(&self) -> Vec<String> {
        self.column.iter().chain(&self.columns).cloned().collect()
    }

    /// All columns of the table that it names.
    pub(crate) fn named_columns(&self) -> Vec<&str> {
        let time = self.reference.as_ref().map(|reference| reference.time.as_str());
        self.column.iter().chain(&self.columns).map(String::as_str).chain(time).collect()
    }

    /// Whether each row is judged by itself.
    pub fn is_row_wise(&self) -> bool {
        match self.rule {
            RuleKind::NotNull | RuleKind::Range | RuleKind::Values | RuleKind::Pattern => true,
            RuleKind::Sql => self.expression.is_some(),
            RuleKind::Unique | RuleKind::Referential | RuleKind::Freshness | RuleKind::Drift => false,
        }
    }

    /// Whether it can be judged over rows that are about to replace a table, before they are committed.
    pub(crate) fn judges_replacement(&self) -> bool {
        matches!(self.rule, RuleKind::Unique | RuleKind::Referential)
    }

    /// Finds keys that are missing or do not belong, and severities that are not possible.
    pub(crate) fn check(&self) -> Result<()> {
        let given: Vec<&'static str> = [
            ("column", self.column.is_some()),
            ("columns", !self.columns.is_empty()),
            ("min", self.min.is_some()),
            ("max", self.max.is_some()),
            ("values", !self.values.is_empty()),
            ("pattern", self.pattern.is_some()),
            ("table", self.table.is_some()),
            ("references", !self.references.is_empty()),
            ("promise", self.promise.is_some()),
            ("statistic", self.statistic.is_some()),
            ("tolerance", self.tolerance.is_some()),
            ("earlier_runs", self.earlier_runs.is_some()),
            ("reference", self.reference.is_some()),
            ("expression", self.expression.is_some()),
            ("query", self.query.is_some()),
        ]
        .into_iter()
        .filter_map(|(key, there)| there.then_some(key))
        .collect();
        let (needed, allowed) = self.rule.keys();
        let rule = self.rule.name();
        for key in &given {
            if !allowed.contains(key) && !needed.iter().any(|keys| keys.contains(key)) {
                let own: Vec<&str> =
                    needed.iter().flat_map(|keys| keys.iter()).chain(allowed).copied().collect();
                return Err(Error::config(format!("'{key}' does not belong to the rule '{rule}'"))
                    .with_help(format!("its keys: {}", own.join(", "))));
            }
        }
        for keys in needed {
            if !keys.iter().any(|key| given.contains(key)) {
                return Err(Error::config(format!("the rule '{rule}' needs the key '{}'", keys[0])));
            }
        }
        if self.severity == Severity::Reject && !self.is_row_wise() {
            return Err(Error::config(format!(
                "the rule '{rule}' looks at the whole table and cannot reject rows"
            ))
            .with_help(if self.rule == RuleKind::Unique {
                "choose severity = \"warn\" or \"stop\"; a clean transform with 'dedup' refuses repeated rows"
            } else {
                "choose severity = \"warn\" or \"stop\""
            }));
        }
        if let (Some(min), Some(max)) = (self.min, self.max)
            && min > max
        {
            return Err(Error::config(format!(
                "the rule '{rule}' allows nothing: min {min} is above max {max}"
            )));
        }
        if self.rule == RuleKind::Sql && self.expression.is_some() && self.query.is_some() {
            return Err(Error::config("the rule 'sql' has either an 'expression' or a 'query'"));
        }
        if self.rule == RuleKind::Referential
            && !self.references.is_empty()
            && self.references.len() != self.own_columns().len()
        {
            return Err(Error::config("the rule 'referential' needs as many 'references' as columns"));
        }
        if self.rule == RuleKind::Drift {
            self.check_drift()?;
        }
        if let Some(value) =
            self.values.iter().find(|value| !(value.is_string() || value.is_number() || value.is_boolean()))
        {
            return Err(Error::config(format!(
                "'values' holds {value}: only texts, numbers and booleans are possible"
            )));
        }
        Ok(())
    }

    fn check_drift(&self) -> Result<()> {
        let statistic = self.statistic();
        if statistic != Statistic::Rows && self.column.is_none() {
            return Err(Error::config("the rule 'drift' needs the key 'column'")
                .with_help("only statistic = \"rows\" can do without"));
        }
        if statistic == Statistic::Distribution && self.reference.is_none() {
            return Err(Error::config("statistic = \"distribution\" of the rule 'drift' needs a 'reference'")
                .with_help("reference = { time = \"ts\", from = \"2026-01-01T00:00:00Z\", to = \"2026-02-01T00:00:00Z\" }"));
        }
        if self.reference.is_some() && self.earlier_runs.is_some() {
            return Err(Error::config("the rule 'drift' has either 'earlier_runs' or a 'reference'"));
        }
        if self.tolerance.is_some_and(|tolerance| tolerance.is_nan() || tolerance <= 0.0) {
            return Err(Error::config("'tolerance' of the rule 'drift' must be above 0"));
        }
        if let Some(reference) = &self.reference {
            for text in [&reference.from, &reference.to] {
                if twinlake_contracts::parse_us(text).is_none() {
                    return Err(Error::config(format!("'{text}' in 'reference' is not an instant"))
                        .with_help("write it as in 2026-01-01T00:00:00Z"));
                }
            }
        }
        Ok(())
    }

    /// The figure of a drift rule.
    pub fn statistic(&self) -> Statistic {
        self.statistic.unwrap_or(Statistic::Mean)
    }

    /// The condition that a good row fulfils, never null; `None` for a rule on the whole table.
    pub fn row_condition(&self) -> Option<String> {
        let columns: Vec<String> = self.own_columns().iter().map(|column| quoted(column)).collect();
        let all = |of: &dyn Fn(&String) -> String| columns.iter().map(of).collect::<Vec<_>>().join(" AND ");
        let passes_null = |condition: String| format!("coalesce({condition}, true)");
        match self.rule {
            RuleKind::NotNull => Some(all(&|column| format!("{column} IS NOT NULL"))),
            RuleKind::Range => {
                let bounds = |column: &String| {
                    let low = self.min.map(|min| format!("CAST({column} AS DOUBLE) >= {min:e}"));
                    let high = self.max.map(|max| format!("CAST({column} AS DOUBLE) <= {max:e}"));
                    low.into_iter().chain(high).collect::<Vec<_>>().join(" AND ")
                };
                Some(passes_null(all(&bounds)))
            }
            RuleKind::Values => {
                let values: Vec<String> = self.values.iter().map(literal).collect();
                Some(passes_null(all(&|column| format!("{column} IN ({})", values.join(", ")))))
            }
            RuleKind::Pattern => {
                let pattern = text(&format!("^(?:{})$", self.pattern.as_deref().unwrap_or_default()));
                Some(passes_null(all(&|column| format!("regexp_like({column}, {pattern})"))))
            }
            RuleKind::Sql => {
                self.expression.as_ref().map(|expression| passes_null(format!("({expression})")))
            }
            RuleKind::Unique | RuleKind::Referential | RuleKind::Freshness | RuleKind::Drift => None,
        }
    }
}

/// A column's name in SQL.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table's name in SQL.
pub(crate) fn quoted_table(name: &TableName) -> String {
    format!("{}.{}", quoted(&name.schema), quoted(&name.table))
}

/// A text in SQL.
pub(crate) fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

fn literal(value: &Json) -> String {
    match value {
        Json::String(value) => text(value),
        other => other.to_string(),
    }
}
