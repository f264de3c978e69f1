//! Lineage of columns: which column of a result comes from which columns of its sources, and how.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a result depends on a column. The order is from the closest to the loosest dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dependency {
    /// The value is handed on unchanged, perhaps under another name.
    Direct,
    /// The value is made of the column's value in the same row.
    Computed,
    /// The value is made of the column's values in several rows.
    Aggregate,
    /// The column decides which rows there are.
    Filter,
    /// The column decides which rows meet.
    Join,
}

impl Dependency {
    /// The word for it in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Computed => "computed",
            Self::Aggregate => "aggregate",
            Self::Filter => "filter",
            Self::Join => "join",
        }
    }

    /// The dependency of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Direct, Self::Computed, Self::Aggregate, Self::Filter, Self::Join]
            .into_iter()
            .find(|one| one.name() == name)
    }
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One arrow between two columns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ColumnEdge {
    /// The column of the result; `None` for what all columns depend on ([`Dependency::Filter`], [`Dependency::Join`]).
    pub output: Option<String>,
    /// The source: a table, or a step of a pipeline.
    pub table: String,
    /// Its column.
    pub column: String,
    /// How the result depends on it.
    pub dependency: Dependency,
    /// What is computed, as SQL or in the words of the step; `None` where the value is handed on.
    pub expression: Option<String>,
}

impl ColumnEdge {
    /// A value that is handed on.
    pub fn direct(output: &str, table: &str, column: &str) -> Self {
        Self::new(Some(output), table, column, Dependency::Direct, None)
    }

    /// Any arrow.
    pub fn new(
        output: Option<&str>,
        table: &str,
        column: &str,
        dependency: Dependency,
        expression: Option<String>,
    ) -> Self {
        Self {
            output: output.map(str::to_owned),
            table: table.to_owned(),
            column: column.to_owned(),
            dependency,
            expression,
        }
    }
}
