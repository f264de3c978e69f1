//! How the names that clients give become names of tables and columns.
//!
//! A *word*: ASCII letters in lower case, digits and `_` stay; everything else between them becomes one `_`, at the ends
//! it goes; a digit at the start gets `_` before it. `CPU Load %` is `cpu_load`, `temp.out-1` is `temp_out_1`.
//!
//! The first name that claims a word keeps it; the table (at its column `ts`) and each column remember the name that
//! claimed them. Another name with the same word, a reserved word, a word above 100 letters, and a name without any
//! letter or digit get a mark that depends on the name alone: `temp_5f1d20c3`. So two names never share a column or a
//! table, and a name finds its own again.

use twinlake_contracts::{INGESTED_AT, SEQUENCE, TableName};

/// The column of the time of a row.
pub(super) const TIME: &str = "ts";
/// Columns that are not a client's to name.
const RESERVED_COLUMNS: [&str; 4] = [TIME, SEQUENCE, INGESTED_AT, "_h3"];
/// Schemas whose tables are made by Twinlake itself.
const RESERVED_SCHEMAS: [&str; 7] =
    ["meta", "raw", "twin", "scenario", "information_schema", "pg_catalog", "public"];
const LONGEST: usize = 100;

/// The word of a name; `None` when the name has none of its own.
fn word(name: &str) -> Option<String> {
    let mut word = String::new();
    let mut gap = false;
    for letter in name.chars() {
        if letter.is_ascii_alphanumeric() || letter == '_' {
            if std::mem::take(&mut gap) && !word.is_empty() {
                word.push('_');
            }
            if word.is_empty() && letter.is_ascii_digit() {
                word.push('_');
            }
            word.push(letter.to_ascii_lowercase());
        } else {
            gap = true;
        }
    }
    (!word.is_empty() && word.len() <= LONGEST).then_some(word)
}

/// Eight hexadecimal digits of names (FNV-1a, 32 bits, with a byte between them that no text has).
fn mark(names: &[&str]) -> String {
    let mut hash: u32 = 0x811c_9dc5;
    for byte in names.iter().flat_map(|name| name.bytes().chain([0xff])) {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    format!("{hash:08x}")
}

fn marked(name: &str, names: &[&str]) -> String {
    let word = word(&name.chars().take(LONGEST).collect::<String>()).unwrap_or_default();
    format!("{word}_{}", mark(names))
}

/// Whether the tables of a schema are made by Twinlake itself.
pub(super) fn is_reserved_schema(schema: &str) -> bool {
    schema.starts_with('_') || RESERVED_SCHEMAS.contains(&schema)
}

/// The names that a measurement's table may have: the first, unless another measurement has it; then the second.
pub(super) fn tables(database: &str, measurement: &str) -> [TableName; 2] {
    let plain = word(database).map(|word| {
        let bare = word.trim_start_matches('_');
        if bare.is_empty() || bare.starts_with(|c: char| c.is_ascii_digit()) {
            format!("db_{bare}")
        } else {
            bare.to_owned()
        }
    });
    let schema = match plain {
        Some(schema) if schema != "db_" && !is_reserved_schema(&schema) => schema,
        _ => {
            let marked = marked(database, &[database]);
            let bare = marked.trim_start_matches('_');
            if bare.starts_with(|c: char| c.is_ascii_digit()) {
                format!("db_{bare}")
            } else {
                bare.to_owned()
            }
        }
    };
    let second = marked(measurement, &[database, measurement]);
    let first = word(measurement).unwrap_or_else(|| second.clone());
    [TableName { schema: schema.clone(), table: first }, TableName { schema, table: second }]
}

/// The name of a new column for a client's name in a role (tag, field, or none): one that is not taken.
pub(super) fn column(name: &str, role: Option<&str>, taken: impl Fn(&str) -> bool) -> Option<String> {
    let free = |candidate: &String| !taken(candidate);
    let plain = word(name)
        .filter(|word| !RESERVED_COLUMNS.contains(&word.as_str()) || role.is_none() && name == TIME);
    plain
        .filter(free)
        .or_else(|| Some(marked(name, &[role.unwrap_or_default(), name])).filter(|name| free(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_words() {
        for (name, expected) in [
            ("usage_idle", Some("usage_idle")),
            ("_field", Some("_field")),
            ("CPU Load %", Some("cpu_load")),
            ("temp.out-1", Some("temp_out_1")),
            ("a__b", Some("a__b")),
            ("5min", Some("_5min")),
            ("%", None),
            ("温度", None),
            ("température", Some("temp_rature")),
        ] {
            assert_eq!(word(name).as_deref(), expected, "{name}");
        }
        assert_eq!(word(&"x".repeat(101)), None);
    }

    #[test]
    fn every_table_name_is_one_that_a_lake_takes() {
        for database in ["telegraf", "My DB/autogen", "meta", "_internal", "2024", "温度", "_", "", "twin"]
        {
            for measurement in ["cpu", "http.request", "温度", "1", ""] {
                let [first, second] = tables(database, measurement);
                for name in [&first, &second] {
                    assert_eq!(TableName::parse(&name.to_string()).unwrap(), *name);
                    assert!(!is_reserved_schema(&name.schema), "{name}");
                }
            }
        }
        assert_eq!(tables("My DB/autogen", "http.request")[0].to_string(), "my_db_autogen.http_request");
        assert_eq!(tables("2024", "x")[0].schema, "db_2024");
        assert_eq!(tables("_internal", "x")[0].schema, "internal");
        assert!(tables("meta", "x")[0].schema.starts_with("meta_"));
        assert_ne!(tables("a", "X y")[1], tables("a", "x Y")[1]);
    }

    #[test]
    fn a_taken_or_reserved_column_gets_a_mark() {
        let free = |_: &str| false;
        assert_eq!(column("Temp", Some("field"), free).unwrap(), "temp");
        let second = column("Temp", Some("field"), |name| name == "temp").unwrap();
        assert!(second.starts_with("temp_") && second.len() == 13, "{second}");
        assert_eq!(column("ts", None, free).unwrap(), "ts");
        assert!(column("ts", Some("field"), free).unwrap().starts_with("ts_"));
        assert!(column("_sequence", None, free).unwrap().starts_with("_sequence_"));
        assert_ne!(column("ts", Some("tag"), free), column("ts", Some("field"), free));
        assert_eq!(column("x", None, |_| true), None);
    }
}
