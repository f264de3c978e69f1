//! The `columns` and `topic` tables of a decoder's settings.

use std::borrow::Cow;

use arrow::datatypes::Field;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use twinlake_contracts::{Error, Result};

use crate::values::{Cell, EpochUnit, ValueType, shown};

/// A column: the short form is its type, `veh = "int64"`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "serde_json::Value")]
#[schemars(with = "ColumnForms")]
pub struct Column {
    /// Where the value lies.
    pub path: Option<String>,
    /// Its type.
    pub value_type: ValueType,
    /// Whether a row without it is rejected.
    pub required: bool,
    /// What a numeric time stamp counts.
    pub unit: Option<EpochUnit>,
}

/// Both forms, for the schema.
#[derive(JsonSchema, Serialize)]
#[serde(untagged)]
#[allow(dead_code, reason = "only its schema is used")]
enum ColumnForms {
    /// The type alone; the value lies under the column's own name.
    Short(ValueType),
    /// The type with more.
    Long(ColumnTable),
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ColumnTable {
    /// Where the value lies: a JSON pointer (`/a/b/0`), a dotted path (`a.b.0`), or for CSV the name in the header or
    /// the number of the field from 0. Without it, the column's own name.
    path: Option<String>,
    /// The type.
    #[serde(rename = "type")]
    value_type: ValueType,
    /// Whether a row without the value (or with null) is rejected as `missing_value`.
    #[serde(default)]
    required: bool,
    /// For a `timestamp` that is a number: what it counts since 1970-01-01T00:00:00Z.
    unit: Option<EpochUnit>,
}

impl TryFrom<serde_json::Value> for Column {
    type Error = String;

    fn try_from(value: serde_json::Value) -> std::result::Result<Self, String> {
        if value.is_string() {
            let value_type = serde_json::from_value(value).map_err(|error| error.to_string())?;
            return Ok(Self { path: None, value_type, required: false, unit: None });
        }
        let table: ColumnTable = serde_json::from_value(value).map_err(|error| error.to_string())?;
        if table.unit.is_some() && table.value_type != ValueType::Timestamp {
            return Err("'unit' belongs to the type timestamp".to_owned());
        }
        Ok(Self {
            path: table.path,
            value_type: table.value_type,
            required: table.required,
            unit: table.unit,
        })
    }
}

impl Column {
    /// The Arrow field of this name.
    pub(crate) fn field(&self, name: &str) -> Field {
        Field::new(name, self.value_type.arrow(), !self.required)
    }
}

/// A column taken from the topic: the short form is the number of the segment, `mode = 5`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "serde_json::Value")]
#[schemars(with = "TopicForms")]
pub struct TopicColumn {
    /// The number of the segment.
    pub segment: i32,
    /// Its type.
    pub value_type: ValueType,
    /// Whether a message whose topic lacks it is rejected.
    pub required: bool,
}

/// Both forms, for the schema.
#[derive(JsonSchema, Serialize)]
#[serde(untagged)]
#[allow(dead_code, reason = "only its schema is used")]
enum TopicForms {
    /// The number of the segment alone; its text is the value.
    Short(i32),
    /// The segment with more.
    Long(TopicTable),
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TopicTable {
    /// The number of the segment between slashes, from 0; from the end with -1 for the last. As MQTT counts, a leading
    /// `/` makes an empty segment 0: in `/hfp/v1/journey/ongoing/bus`, segment 1 is `hfp` and segment 5 is `bus`.
    segment: i32,
    /// The type; text without it.
    #[serde(rename = "type", default = "text")]
    value_type: ValueType,
    /// Whether a message whose topic lacks the segment, or has it empty, is rejected as `topic_mismatch`.
    #[serde(default)]
    required: bool,
}

fn text() -> ValueType {
    ValueType::Utf8
}

impl TryFrom<serde_json::Value> for TopicColumn {
    type Error = String;

    fn try_from(value: serde_json::Value) -> std::result::Result<Self, String> {
        if value.is_number() {
            let segment = serde_json::from_value(value).map_err(|error| error.to_string())?;
            return Ok(Self { segment, value_type: ValueType::Utf8, required: false });
        }
        let table: TopicTable = serde_json::from_value(value).map_err(|error| error.to_string())?;
        Ok(Self { segment: table.segment, value_type: table.value_type, required: table.required })
    }
}

/// Why a row was rejected: the code and the sentence of a [`twinlake_contracts::Reject`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) reason: &'static str,
    pub(crate) detail: String,
}

impl Refused {
    pub(crate) fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

impl TopicColumn {
    pub(crate) fn field(&self, name: &str) -> Field {
        Field::new(name, self.value_type.arrow(), !self.required)
    }

    /// The cell of this column in a topic that was split at `/`.
    fn cell<'a>(&self, name: &str, segments: &[&'a str]) -> Result<Cell<'a>, Refused> {
        let index = if self.segment < 0 {
            segments.len().checked_sub(self.segment.unsigned_abs() as usize)
        } else {
            Some(self.segment as usize)
        };
        let found = index.and_then(|index| segments.get(index)).filter(|segment| !segment.is_empty());
        match found {
            None if self.required => Err(Refused::new(
                "topic_mismatch",
                format!(
                    "column '{name}': the topic has no segment {} ({} in all)",
                    self.segment,
                    segments.len()
                ),
            )),
            None => Ok(Cell::Null),
            Some(segment) => self.value_type.parse(segment, None).ok_or_else(|| {
                Refused::new(
                    "wrong_type",
                    format!(
                        "column '{name}': topic segment {} is '{}', not {}",
                        self.segment,
                        shown(segment),
                        self.value_type.word()
                    ),
                )
            }),
        }
    }
}

/// The columns that come with every row of a message: segments of its topic, and the topic itself.
#[derive(Debug, Clone)]
pub(crate) struct OriginColumns {
    topic: IndexMap<String, TopicColumn>,
    whole: Option<String>,
}

impl OriginColumns {
    pub(crate) fn new(topic: IndexMap<String, TopicColumn>, whole: Option<String>) -> Self {
        Self { topic, whole }
    }

    pub(crate) fn fields(&self) -> impl Iterator<Item = Field> {
        let topic = self.topic.iter().map(|(name, column)| column.field(name));
        topic.chain(self.whole.iter().map(|name| Field::new(name, arrow::datatypes::DataType::Utf8, false)))
    }

    pub(crate) fn cells<'a>(&self, origin: &'a str) -> Result<Vec<Cell<'a>>, Refused> {
        let segments: Vec<&str> =
            if self.topic.is_empty() { Vec::new() } else { origin.split('/').collect() };
        let mut cells = Vec::with_capacity(self.topic.len() + 1);
        for (name, column) in &self.topic {
            cells.push(column.cell(name, &segments)?);
        }
        if self.whole.is_some() {
            cells.push(Cell::Utf8(Cow::Borrowed(origin)));
        }
        Ok(cells)
    }
}

/// Fails when two columns have the same name or there is none.
pub(crate) fn check_names(fields: &[Field]) -> Result<()> {
    if fields.is_empty() {
        return Err(Error::config("the decoder has no columns")
            .with_help("name them, for example columns = { speed_mps = \"float64\" }"));
    }
    let mut seen = std::collections::HashSet::new();
    for field in fields {
        if !seen.insert(field.name()) {
            return Err(Error::config(format!("the column '{}' is there twice", field.name())));
        }
    }
    Ok(())
}
