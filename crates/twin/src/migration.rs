//! From one version of a model to the next: what changed, what of it changes the meaning, and which rows it is about.
//!
//! A twin holds no rows of its own: its state is folded from the table whenever it is asked, so that a new version holds at once, for
//! the past as well. What a version promises is its meaning: names, types, units, keys, where values come from. A change of these
//! without a higher `version` is refused, because whoever reads the twin could not know.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::model::{Property, TwinModel};

/// How much a change asks of those who read the twin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// Nothing: words, promises, something more.
    Compatible,
    /// What was there means something else now, or is there no more: the version must be raised.
    Meaning,
}

/// One change between two versions of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelChange {
    /// What it is about: `property speed_mps`, `key`, `relation on`.
    pub what: String,
    /// What happened to it.
    pub how: String,
    /// How much it asks.
    pub weight: Weight,
    /// What must be done with rows that are there, if something must.
    pub rows: Option<String>,
}

impl ModelChange {
    fn new(what: impl Into<String>, how: impl Into<String>, weight: Weight) -> Self {
        Self { what: what.into(), how: how.into(), weight, rows: None }
    }

    fn about_rows(mut self, rows: impl Into<String>) -> Self {
        self.rows = Some(rows.into());
        self
    }
}

/// What changes from one definition of a model to another, in the order of the definitions.
pub fn changes(old: &TwinModel, new: &TwinModel) -> Vec<ModelChange> {
    let mut found = Vec::new();
    if old.description != new.description {
        found.push(ModelChange::new("description", "says something else", Weight::Compatible));
    }
    if old.key != new.key {
        let how = format!("{} was {}", new.key, old.key);
        let rows =
            "instances have other identities: events that are open, and scenarios by key, name the old ones";
        found.push(ModelChange::new("key", how, Weight::Meaning).about_rows(rows));
    }
    binding(old, new, &mut found);
    if json(&old.freshness) != json(&new.freshness) {
        found.push(ModelChange::new("freshness", "is promised otherwise", Weight::Compatible));
    }
    if json(&old.lifecycle) != json(&new.lifecycle) {
        found.push(ModelChange::new("lifecycle", "ends instances otherwise", Weight::Meaning));
    }
    properties(old, new, &mut found);
    named("relation", &old.relations, &new.relations, &mut found, |relation| {
        let mut said = json(relation);
        said.as_object_mut().map(|said| said.remove("description"));
        said
    });
    match (&old.simulation, &new.simulation) {
        (None, Some(_)) => found.push(ModelChange::new("simulation", "is new", Weight::Compatible)),
        (Some(_), None) => found.push(ModelChange::new("simulation", "is gone", Weight::Meaning)),
        (Some(before), Some(after)) if json(before) != json(after) => {
            let rows = format!("runs in {} are of the binding before: simulate again", before.table);
            found
                .push(ModelChange::new("simulation", "is bound otherwise", Weight::Meaning).about_rows(rows));
        }
        _ => {}
    }
    named("analysis", &old.analyses_by_operator(), &new.analyses_by_operator(), &mut found, |analysis| {
        json(&(&analysis.inputs, &analysis.parameters))
    });
    named("view", &old.views, &new.views, &mut found, |view| json(&view.sql));
    found
}

fn json<T: Serialize>(value: &T) -> serde_json::Value {
    serde_json::json!(value)
}

fn binding(old: &TwinModel, new: &TwinModel, found: &mut Vec<ModelChange>) {
    let kind = |model: &TwinModel| if model.map.is_some() { "map" } else { "telemetry" };
    let table = |model: &TwinModel| model.table().map(ToString::to_string).unwrap_or_default();
    if (kind(old), table(old)) != (kind(new), table(new)) {
        let how = format!("{} {} was {} {}", kind(new), table(new), kind(old), table(old));
        let rows = format!(
            "states and history are those of {}; what is in {} is no longer read",
            table(new),
            table(old)
        );
        found.push(ModelChange::new("table", how, Weight::Meaning).about_rows(rows));
        return;
    }
    if let (Some(before), Some(after)) = (&old.telemetry, &new.telemetry)
        && before.time != after.time
    {
        let how = format!("{} was {}", after.time, before.time);
        let rows = "which reading is the state follows from it, for the past too";
        found.push(ModelChange::new("time", how, Weight::Meaning).about_rows(rows));
    }
}

/// The column that a property comes from, if it comes from one.
fn column<'a>(name: &'a str, property: &'a Property) -> Option<&'a str> {
    let stored = property.value.is_none() && property.sql.is_none();
    stored.then(|| property.column.as_deref().unwrap_or(name))
}

fn properties(old: &TwinModel, new: &TwinModel, found: &mut Vec<ModelChange>) {
    let table = new.table().map(ToString::to_string).unwrap_or_default();
    // A property that is gone and one that is new are one with another name where they read the same column alike.
    let mut renamed: BTreeSet<&str> = BTreeSet::new();
    let gone: Vec<(&String, &Property)> =
        old.properties.iter().filter(|(name, _)| !new.properties.contains_key(*name)).collect();
    for (name, property) in &new.properties {
        if old.properties.contains_key(name) {
            continue;
        }
        let before = gone.iter().find(|(before, other)| {
            let same = column(before, other).is_some() && column(before, other) == column(name, property);
            same && other.kind == property.kind
                && other.unit == property.unit
                && !renamed.contains(before.as_str())
        });
        if let Some((before, _)) = before {
            renamed.insert(before);
            let how = format!("is the new name of {before}");
            found.push(ModelChange::new(format!("property {name}"), how, Weight::Meaning));
            continue;
        }
        let unit = if property.unit.is_empty() { String::new() } else { format!(" [{}]", property.unit) };
        let change = ModelChange::new(
            format!("property {name}"),
            format!("is new: {}{unit}", property.kind.name()),
            Weight::Compatible,
        );
        found.push(match column(name, property) {
            Some(column) => change.about_rows(format!(
                "rows of {table} that were written before it had a column {column} show null until their pipeline has run again"
            )),
            None => change,
        });
    }
    for (name, _) in gone {
        if !renamed.contains(name.as_str()) {
            let change = ModelChange::new(format!("property {name}"), "is gone", Weight::Meaning);
            found.push(change.about_rows(format!("{table} keeps what it has of it")));
        }
    }
    for (name, after) in &new.properties {
        if let Some(before) = old.properties.get(name) {
            property(name, before, after, &table, found);
        }
    }
}

fn property(name: &str, before: &Property, after: &Property, table: &str, found: &mut Vec<ModelChange>) {
    let what = format!("property {name}");
    let was = |new: &str, old: &str| {
        let shown = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
        format!("{} was {}", shown(new), shown(old))
    };
    if before.kind != after.kind {
        let how = format!("type {}", was(after.kind.name(), before.kind.name()));
        let rows =
            format!("rows of {table} are cast when they are read; a value that does not fit is an error");
        found.push(ModelChange::new(&what, how, Weight::Meaning).about_rows(rows));
    }
    if before.unit != after.unit {
        let how = format!("unit {}", was(&after.unit, &before.unit));
        let change = ModelChange::new(&what, how, Weight::Meaning);
        found.push(match column(name, after) {
            Some(column) => change.about_rows(format!(
                "values of {column} that are in {table} stay as they are: change the pipeline and run it again, or compute the property in sql"
            )),
            None => change,
        });
    }
    if before.crs != after.crs {
        let how = format!("reference system {}", was(&after.crs, &before.crs));
        let rows = format!("geometries in {table} stay as they are");
        found.push(ModelChange::new(&what, how, Weight::Meaning).about_rows(rows));
    }
    let source = |property: &Property| match (&property.value, &property.sql, column(name, property)) {
        (Some(value), _, _) => format!("the value {value}"),
        (_, Some(sql), _) => format!("sql {}", sql.split_whitespace().collect::<Vec<_>>().join(" ")),
        (_, _, Some(column)) => format!("column {column}"),
        _ => String::new(),
    };
    let (own, other) = (source(after), source(before));
    if own != other {
        found.push(ModelChange::new(&what, format!("comes from {own}, was {other}"), Weight::Meaning));
    }
    if before.description != after.description || before.range != after.range {
        found.push(ModelChange::new(&what, "description or range", Weight::Compatible));
    }
}

fn named<T>(
    kind: &str,
    old: &indexmap::IndexMap<String, T>,
    new: &indexmap::IndexMap<String, T>,
    found: &mut Vec<ModelChange>,
    meaning: impl Fn(&T) -> serde_json::Value,
) {
    for (name, after) in new {
        let what = format!("{kind} {name}");
        match old.get(name) {
            None => found.push(ModelChange::new(what, "is new", Weight::Compatible)),
            Some(before) if meaning(before) != meaning(after) => {
                found.push(ModelChange::new(what, "is another one", Weight::Meaning));
            }
            Some(_) => {}
        }
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        found.push(ModelChange::new(format!("{kind} {name}"), "is gone", Weight::Meaning));
    }
}

/// Why a step from one definition to the other is refused, and the way out; `None` when it is not.
pub fn refusal(old: &TwinModel, new: &TwinModel) -> Option<(String, String)> {
    if new.version < old.version {
        let what =
            format!("twin model '{}' goes back from version {} to {}", new.name, old.version, new.version);
        return Some((what, format!("say version = {} or more", old.version)));
    }
    let changes = changes(old, new);
    let heavy: Vec<String> = changes
        .iter()
        .filter(|change| change.weight == Weight::Meaning)
        .map(|change| format!("{} {}", change.what, change.how))
        .collect();
    if heavy.is_empty() || new.version > old.version {
        return None;
    }
    let what = format!(
        "twin model '{}' means something else ({}) in the same version {}",
        new.name,
        heavy.join("; "),
        old.version
    );
    Some((what, format!("say version = {}, or take the change back", old.version + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VEHICLE: &str = include_str!("../../../schemas/twins/vehicle.toml");

    fn model(changes: &[(&str, &str)]) -> TwinModel {
        let text = changes.iter().fold(VEHICLE.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "the shipped model no longer holds '{from}'");
            text.replacen(from, to, 1)
        });
        TwinModel::parse("vehicle.toml", &text).unwrap()
    }

    fn told(edits: &[(&str, &str)]) -> Vec<String> {
        let found = changes(&model(&[]), &model(edits));
        found.iter().map(|change| format!("{} {} ({:?})", change.what, change.how, change.weight)).collect()
    }

    #[test]
    fn each_change_is_named_with_its_weight() {
        assert!(told(&[]).is_empty());
        let cases: [(&[(&str, &str)], &str); 10] = [
            (&[("unit = \"m/s\"", "unit = \"km/h\"")], "property speed_mps unit km/h was m/s (Meaning)"),
            (
                &[("[properties.speed_mps]\ntype = \"float64\"", "[properties.speed_mps]\ntype = \"int64\"")],
                "property speed_mps type int64 was float64 (Meaning)",
            ),
            (
                &[("[properties.speed_mps]", "[properties.pace_mps]\ncolumn = \"speed_mps\"")],
                "property pace_mps is the new name of speed_mps (Meaning)",
            ),
            (
                &[(
                    "[properties.speed_mps]",
                    "[properties.extra]\ntype = \"boolean\"\ndescription = \"d\"\n[properties.speed_mps]",
                )],
                "property extra is new: boolean (Compatible)",
            ),
            (
                &[("[properties.delay_s]", "[properties.late_s]")],
                "property late_s is new: float64 [s] (Compatible)",
            ),
            (&[("within_s = 10.0", "within_s = 20.0")], "freshness is promised otherwise (Compatible)"),
            (
                &[("table = \"traffic.vehicle_position\"", "table = \"traffic.position\"")],
                "table telemetry traffic.position was telemetry traffic.vehicle_position (Meaning)",
            ),
            (&[("time = \"ts\"", "time = \"measured_at\"")], "time measured_at was ts (Meaning)"),
            (
                &[("nearest_within_m = 30.0", "nearest_within_m = 50.0")],
                "relation on is another one (Meaning)",
            ),
            (
                &[("description = \"Direction of travel.\"", "description = \"Where it goes.\"")],
                "property heading_deg description or range (Compatible)",
            ),
        ];
        for (edits, expected) in cases {
            let found = told(edits);
            assert!(found.iter().any(|told| told == expected), "{expected} is missing in {found:?}");
        }
        assert_eq!(
            told(&[("[properties.delay_s]", "[properties.late_s]")])[1],
            "property delay_s is gone (Meaning)"
        );
        let renamed = changes(
            &model(&[]),
            &model(&[("[properties.speed_mps]", "[properties.pace_mps]\ncolumn = \"speed_mps\"")]),
        );
        assert_eq!(renamed.len(), 1, "a rename is one change: {renamed:?}");
    }

    #[test]
    fn a_change_of_meaning_needs_a_higher_version() {
        let old = model(&[]);
        let unit = ("unit = \"m/s\"", "unit = \"km/h\"");
        let (what, help) = refusal(&old, &model(&[unit])).unwrap();
        assert!(
            what.contains("property speed_mps unit km/h was m/s") && what.contains("version 1"),
            "{what}"
        );
        assert!(help.contains("version = 2"), "{help}");
        let version = ("key = \"vehicle_id\"", "version = 2\nkey = \"vehicle_id\"");
        assert_eq!(refusal(&old, &model(&[unit, version])), None);
        assert_eq!(refusal(&old, &model(&[("within_s = 10.0", "within_s = 20.0")])), None);
        let back = refusal(&model(&[version]), &old).unwrap();
        assert!(back.0.contains("goes back from version 2 to 1"), "{}", back.0);
    }

    #[test]
    fn a_definition_survives_being_stored() {
        let old = model(&[]);
        let stored = serde_json::to_string(&old).unwrap();
        let read: TwinModel = serde_json::from_str(&stored).unwrap();
        assert!(changes(&old, &read).is_empty());
    }
}
