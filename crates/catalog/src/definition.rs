//! The definition of a table: what its owner says of it. One TOML file a table, in `schemas/tables`.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use twinlake_contracts::{Error, Place, Result, TableName, TomlFile, suggest};

use crate::duration::Seconds;
use crate::rule::QualityRule;

/// What the owner of a table says of it: the contents of a file in `schemas/tables`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableDefinition {
    /// The table, for example `traffic.vehicle_position`.
    pub table: TableName,
    /// What a row of it is, in a sentence.
    #[serde(default)]
    pub description: String,
    /// Who answers for it: a team or a person, with a way to reach them.
    #[serde(default)]
    pub owner: String,
    /// Words to find it by.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The columns that tell one row from another; the first list is the primary key.
    #[serde(default)]
    pub keys: Vec<Vec<String>>,
    /// How old the newest row may be.
    pub freshness: Option<Freshness>,
    /// What is known of its columns, by name. Columns that are not named are shown as they are.
    #[serde(default)]
    pub columns: IndexMap<String, ColumnDefinition>,
    /// Conditions on each row, by name, in SQL. They are constraints of the table itself, so that other engines that write
    /// it are held to them, too; a row for which one is not true becomes a reject.
    #[serde(default)]
    pub constraints: IndexMap<String, String>,
    /// What must hold for its rows.
    #[serde(default)]
    pub quality: Vec<QualityRule>,
}

/// How old the newest row may be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Freshness {
    /// The column with the time that counts; without it the time of the table's newest version counts.
    pub column: Option<String>,
    /// The promise, for example `10m`, `24h`, `7d`; without it the age is shown and nothing is promised.
    pub promise: Option<Seconds>,
}

/// What is known of a column.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ColumnDefinition {
    /// What it says, in a sentence.
    #[serde(default)]
    pub description: String,
    /// The unit of its values, for example `m/s`.
    #[serde(default)]
    pub unit: String,
    /// The coordinate reference system of its geometries, for example `OGC:CRS84`. It must be the one that the table has.
    pub crs: Option<String>,
    /// What kind of personal data it holds, for example `name`, `phone`, `home_location`; empty for none.
    #[serde(default)]
    pub personal: String,
}

impl TableDefinition {
    /// Reads a definition; a mistake is shown with its line. `file` is its name for messages.
    pub fn parse(file: &str, text: &str) -> Result<Self> {
        let source = TomlFile::new(file, text);
        let mut definition: Self = source.parse()?;
        for (number, rule) in definition.quality.iter().enumerate() {
            rule.check().map_err(|error| error.at(rule_place(&source, number)))?;
        }
        let mut names = std::collections::BTreeSet::new();
        for rule in &definition.quality {
            if !names.insert(rule.label()) {
                let message = format!("two quality rules are named '{}'", rule.label());
                return Err(source.mistake(message, &rule.label()).with_help("give one a 'name' of its own"));
            }
        }
        for (name, expression) in &definition.constraints {
            let rule = QualityRule::constraint(name, expression);
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                let message = format!("the constraint '{name}' is not named with letters, digits and _");
                return Err(source.mistake(message, name));
            }
            if !names.insert(rule.label()) {
                let message = format!("a quality rule is named '{}', as a constraint", rule.label());
                return Err(source.mistake(message, name).with_help("give one another name"));
            }
            definition.quality.push(rule);
        }
        if definition.keys.iter().any(Vec::is_empty) {
            return Err(source.mistake("a key of 'keys' has no columns", "keys"));
        }
        Ok(definition)
    }

    /// Says nothing of the table.
    pub(crate) fn empty(table: &TableName) -> Self {
        Self {
            table: table.clone(),
            description: String::new(),
            owner: String::new(),
            tags: Vec::new(),
            keys: Vec::new(),
            freshness: None,
            columns: IndexMap::new(),
            constraints: IndexMap::new(),
            quality: Vec::new(),
        }
    }

    /// Checks the definition against the columns that the table has.
    pub fn check_columns<'a>(&'a self, known: &[&'a str]) -> Result<()> {
        let keys = self.keys.iter().flatten().map(|name| ("keys", name.as_str()));
        let named = self.columns.keys().map(|name| ("columns", name.as_str()));
        let fresh =
            self.freshness.iter().filter_map(|own| own.column.as_deref()).map(|name| ("freshness", name));
        let rules = self
            .quality
            .iter()
            .flat_map(|rule| rule.named_columns().into_iter().map(|name| ("quality", name)));
        for (place, name) in keys.chain(named).chain(fresh).chain(rules) {
            if !known.contains(&name) {
                let error = Error::config(format!(
                    "the definition of table {} names a column '{name}' in {place}, but the table has none",
                    self.table
                ));
                let help = suggest(name, known.iter().copied()).map_or_else(
                    || format!("columns: {}", known.join(", ")),
                    |near| format!("did you mean '{near}'?"),
                );
                return Err(error.with_help(help));
            }
        }
        Ok(())
    }

    /// Whether a column belongs to the primary key.
    pub fn is_key(&self, column: &str) -> bool {
        self.keys.first().is_some_and(|key| key.iter().any(|name| name == column))
    }
}

/// Where the rule of that number begins.
fn rule_place(source: &TomlFile, number: usize) -> Place {
    let headers = source.text().match_indices("[[quality]]");
    let mut outside_comments = headers.filter(|(at, _)| {
        let line = source.text()[..*at].rfind('\n').map_or(0, |newline| newline + 1);
        !source.text()[line..*at].contains('#')
    });
    match outside_comments.nth(number) {
        Some((at, header)) => source.place_at(at..at + header.len()),
        None => source.locate("quality"),
    }
}

/// The JSON Schema of a definition (2020-12), for editors.
pub fn definition_schema() -> Json {
    let mut schema = schemars::SchemaGenerator::new(schemars::generate::SchemaSettings::draft2020_12())
        .into_root_schema_for::<TableDefinition>()
        .to_value();
    schema["title"] = "Twinlake table definition".into();
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
table = "traffic.vehicle_position"
owner = "mobility"
keys = [["vehicle_id", "ts"]]

[freshness]
column = "_ingested_at"
promise = "10m"

[columns.speed_mps]
unit = "m/s"

[[quality]]
rule = "not_null"
columns = ["vehicle_id"]
severity = "reject"

[[quality]]
rule = "unique"
columns = ["vehicle_id", "ts"]
severity = "stop"
"#;

    fn shown(text: &str) -> String {
        TableDefinition::parse("a.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn a_good_file_is_read() {
        let own = TableDefinition::parse("a.toml", GOOD).unwrap();
        assert_eq!(own.freshness.as_ref().unwrap().promise.unwrap().0, 600);
        assert!(own.is_key("ts") && !own.is_key("speed_mps"));
        assert!(own.check_columns(&["vehicle_id", "ts", "speed_mps", "_ingested_at"]).is_ok());
        let error = own.check_columns(&["vehicle_id", "ts", "speed_kmh", "_ingested_at"]).unwrap_err();
        assert!(error.to_string().contains("did you mean 'speed_kmh'?"), "{error}");
    }

    #[test]
    fn mistakes_show_their_line_and_the_way_out() {
        for (from, to, parts) in [
            ("owner =", "ownr =", vec!["a.toml:3:1", "did you mean 'owner'?"]),
            ("\"10m\"", "\"10 minutes\"", vec!["a.toml:8", "10 minutes"]),
            ("\"not_null\"", "\"not_nul\"", vec!["a.toml:14", "did you mean 'not_null'?"]),
            ("unit = \"m/s\"", "units = \"m/s\"", vec!["a.toml:11", "did you mean 'unit'?"]),
            (
                "severity = \"stop\"",
                "severity = \"reject\"",
                vec!["a.toml:18", "unique", "cannot reject rows", "stop"],
            ),
            ("columns = [\"vehicle_id\"]", "min = 3", vec!["'min' does not belong to the rule 'not_null'"]),
            ("traffic.vehicle_position", "Vehicles", vec!["not a table name"]),
        ] {
            let error = shown(&GOOD.replace(from, to));
            for part in parts {
                assert!(error.contains(part), "{part}: {error}");
            }
        }
        let twice = format!("{GOOD}\n[[quality]]\nrule = \"unique\"\ncolumns = [\"vehicle_id\", \"ts\"]\n");
        assert!(shown(&twice).contains("two quality rules are named"));
    }

    #[test]
    fn the_schema_knows_every_key() {
        let text = definition_schema().to_string();
        for key in ["freshness", "quality", "personal", "referential", "tolerance", "severity"] {
            assert!(text.contains(&format!("\"{key}\"")), "{key}");
        }
    }
}
