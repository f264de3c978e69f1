//! A TOML file with the place of every key and value, so that each mistake can be shown where it was made.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde_json::Value as Json;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use twinlake_contracts::{Error, Place, suggest};

/// A parsed file.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub path: Option<PathBuf>,
    pub text: String,
    pub root: Table,
}

/// A value with the bytes it stands in.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub span: Range<usize>,
    pub value: Value,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Array(Vec<Node>),
    Table(Table),
}

/// A table; entries in the order of the file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table(pub IndexMap<String, Entry>);

/// A key with its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub key: Range<usize>,
    pub node: Node,
}

impl Document {
    /// Parses TOML and puts environment variables in place of `${NAME}` and `${NAME:-default}` in every string
    /// outside `[[tests]]` (`$${` stands for itself). All mistakes go to `errors`.
    pub fn parse(
        text: &str,
        path: Option<&Path>,
        variables: &dyn Fn(&str) -> Option<String>,
        errors: &mut Vec<Error>,
    ) -> Option<Self> {
        let mut document =
            Self { path: path.map(Path::to_owned), text: text.to_owned(), root: Table::default() };
        let (parsed, mistakes) = DeTable::parse_recoverable(text);
        for mistake in &mistakes {
            let span = mistake.span().unwrap_or(0..0);
            errors.push(Error::config(mistake.message().trim_end()).at(document.place(&span)));
        }
        if !mistakes.is_empty() {
            return None;
        }
        let mut problems = Vec::new();
        document.root = table(parsed.get_ref(), true, variables, &mut problems);
        for (span, error) in problems {
            errors.push(error.at(document.place(&span)));
        }
        Some(document)
    }

    /// The line, the column and the text of a span.
    pub fn place(&self, span: &Range<usize>) -> Place {
        let start = span.start.min(self.text.len());
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |at| start + at);
        let end = span.end.clamp(start, line_end);
        Place {
            file: self.path.clone(),
            line: before.matches('\n').count() + 1,
            column: self.text[line_start..start].chars().count() + 1,
            text: self.text[line_start..line_end].trim_end().to_owned(),
            length: self.text[start..end].trim_end().chars().count().max(1),
        }
    }

    /// Puts a component's error where it belongs: at the key or value that the message quotes, else at `entry`.
    /// An unknown key gets the nearest known one as a suggestion.
    pub fn locate(&self, error: Error, entry: &Entry) -> Error {
        let Error::Config(config) = &error else { return error };
        if config.place.is_some() {
            return error;
        }
        // A value's own error that serde passed on as text has its help inside.
        if let Some((message, help)) = config.message.split_once("\n  help: ") {
            return self.locate(Error::config(message).with_help(help), entry);
        }
        let message = config.message.clone();
        let has_help = config.help.is_some();
        if let Some((unknown, known)) = unknown_field(&message) {
            let span = entry.node.find_key(&unknown).unwrap_or_else(|| entry.key.clone());
            let located = Error::config(format!("unknown key '{unknown}'")).at(self.place(&span));
            return located.with_help(unknown_key_help(&unknown, known.iter().map(String::as_str)));
        }
        if let Some(missing) = message.strip_prefix("missing field `").and_then(|rest| rest.split('`').next())
        {
            return Error::config(format!("the key '{missing}' is missing")).at(self.place(&entry.key));
        }
        let span = quoted(&message)
            .iter()
            .find_map(|word| entry.node.find_key(word).or_else(|| entry.node.find_value(word)))
            .unwrap_or_else(|| entry.key.clone());
        let error = error.at(self.place(&span));
        match message.split_once(", expected ") {
            Some((wrong, expected)) if !has_help => match error {
                Error::Config(mut config) => {
                    wrong.clone_into(&mut config.message);
                    config.help = Some(format!("expected {}", plain(expected)));
                    Error::Config(config)
                }
                other => other,
            },
            _ => error,
        }
    }

    /// Puts an error of the SQL engine at the line of the query that it speaks of. `query` is the value of the
    /// key `query`; lines and columns in the error count from the query's first character.
    pub fn locate_sql(&self, error: Error, query: &Entry) -> Error {
        let Error::Config(config) = &error else { return error };
        let help = config.help.clone();
        let raw = &self.text[query.node.span.clone()];
        let quotes = if raw.starts_with("\"\"\"") || raw.starts_with("'''") { 3 } else { 1 };
        let newline = if quotes == 3 && raw[quotes..].starts_with('\n') {
            1
        } else {
            usize::from(quotes == 3 && raw[quotes..].starts_with("\r\n")) * 2
        };
        let body_start = query.node.span.start + quotes + newline;
        let body_end = query.node.span.end.saturating_sub(quotes).max(body_start);
        let body = &self.text[body_start..body_end];
        let stated = match &config.place {
            Some(place) if place.line > 0 => Some((place.line, place.column.max(1), place.length.max(1))),
            _ => line_and_column(&config.message).map(|(line, column)| (line, column, 1)),
        };
        let span = stated
            .and_then(|(line, column, length)| {
                let offset: usize = body.split_inclusive('\n').take(line - 1).map(str::len).sum();
                let text = body.get(offset..)?.lines().next()?;
                let at = text.char_indices().nth(column - 1).map_or(text.len(), |(at, _)| at);
                let start = body_start + offset + at;
                let word =
                    text[at..].find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len() - at);
                Some(start..start + word.max(length))
            })
            .or_else(|| {
                quoted(&config.message).iter().find_map(|word| {
                    let bare = word.rsplit('.').next().unwrap_or(word).trim_matches('"');
                    let at = find_word(body, bare)?;
                    Some(body_start + at..body_start + at + bare.len())
                })
            })
            .unwrap_or_else(|| {
                let first = body.len() - body.trim_start().len();
                let line = body[first..].lines().next().map_or(0, str::len);
                body_start + first..body_start + first + line
            });
        let located = Error::config(config.message.clone()).at(self.place(&span));
        match help {
            Some(help) => located.with_help(help),
            None => located,
        }
    }
}

/// The way out of an unknown key.
pub(crate) fn unknown_key_help<'a>(unknown: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    suggest(unknown, known.clone()).map_or_else(
        || format!("known: {}", known.collect::<Vec<_>>().join(", ")),
        |near| format!("did you mean '{near}'?"),
    )
}

impl Node {
    /// The value as JSON, as components take their settings. Infinite bounds become null.
    pub fn to_json(&self) -> Json {
        match &self.value {
            Value::String(text) => Json::from(text.as_str()),
            Value::Integer(number) => Json::from(*number),
            Value::Float(number) => Json::from(*number),
            Value::Boolean(flag) => Json::from(*flag),
            Value::Array(items) => items.iter().map(Self::to_json).collect(),
            Value::Table(table) => table.to_json(&[]),
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// What kind of value it is, for messages.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::String(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a number",
            Value::Boolean(_) => "a boolean",
            Value::Array(_) => "an array",
            Value::Table(_) => "a table",
        }
    }

    fn find_key(&self, name: &str) -> Option<Range<usize>> {
        match &self.value {
            Value::Table(table) => {
                if let Some(entry) = table.0.get(name) {
                    return Some(entry.key.clone());
                }
                table.0.values().find_map(|entry| entry.node.find_key(name))
            }
            Value::Array(items) => items.iter().find_map(|item| item.find_key(name)),
            _ => None,
        }
    }

    fn find_value(&self, text: &str) -> Option<Range<usize>> {
        let equal = match &self.value {
            Value::String(own) => own == text,
            Value::Integer(own) => own.to_string() == text,
            Value::Float(own) => own.to_string() == text || format!("{own:?}") == text,
            Value::Boolean(own) => own.to_string() == text,
            Value::Array(items) => return items.iter().find_map(|item| item.find_value(text)),
            Value::Table(table) => return table.0.values().find_map(|entry| entry.node.find_value(text)),
        };
        equal.then(|| self.span.clone())
    }
}

impl Table {
    /// The table as JSON without the keys named in `without`.
    pub fn to_json(&self, without: &[&str]) -> Json {
        let entries = self.0.iter().filter(|(key, _)| !without.contains(&key.as_str()));
        Json::Object(entries.map(|(key, entry)| (key.clone(), entry.node.to_json())).collect())
    }

    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.0.get(key)
    }
}

type Problems = Vec<(Range<usize>, Error)>;

fn table(
    parsed: &DeTable<'_>,
    root: bool,
    variables: &dyn Fn(&str) -> Option<String>,
    problems: &mut Problems,
) -> Table {
    let literal = |_: &str| None;
    let entries = parsed.iter().map(|(key, value)| {
        let name = key.get_ref().to_string();
        let node = if root && name == "tests" {
            node(value, &literal, &mut Vec::new())
        } else {
            node(value, variables, problems)
        };
        (name, Entry { key: key.span(), node })
    });
    Table(entries.collect())
}

fn node(
    parsed: &Spanned<DeValue<'_>>,
    variables: &dyn Fn(&str) -> Option<String>,
    problems: &mut Problems,
) -> Node {
    let span = parsed.span();
    let value = match parsed.get_ref() {
        DeValue::String(text) => match substitute(text, variables) {
            Ok(text) => Value::String(text),
            Err(error) => {
                problems.push((span.clone(), error));
                Value::String(text.to_string())
            }
        },
        DeValue::Integer(number) => {
            let number = i64::from_str_radix(number.as_str(), number.radix());
            if number.is_err() {
                problems.push((span.clone(), Error::config("the number does not fit into 64 bits")));
            }
            Value::Integer(number.unwrap_or_default())
        }
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(flag) => Value::Boolean(*flag),
        DeValue::Datetime(instant) => Value::String(instant.to_string()),
        DeValue::Array(items) => {
            Value::Array(items.iter().map(|item| node(item, variables, problems)).collect())
        }
        DeValue::Table(inner) => Value::Table(table(inner, false, variables, problems)),
    };
    Node { span, value }
}

/// Puts variables into a string.
fn substitute(text: &str, variables: &dyn Fn(&str) -> Option<String>) -> Result<String, Error> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if let Some(escaped) = rest[..at].strip_suffix('$') {
            out.push_str(escaped);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let Some(length) = rest[at + 2..].find('}') else {
            return Err(
                Error::config("'${' without '}'").with_help("write $${ for the two characters themselves")
            );
        };
        let inside = &rest[at + 2..at + 2 + length];
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let set = variables(name).filter(|value| !value.is_empty() || default.is_none());
        match (set, default) {
            (Some(value), _) => out.push_str(&value),
            (None, Some(default)) => out.push_str(default),
            (None, None) => {
                return Err(Error::config(format!("the environment variable '{name}' is not set"))
                    .with_help(format!("set it, or give a default: ${{{name}:-…}}")));
            }
        }
        rest = &rest[at + 2 + length + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// A Rust type's name in words.
fn plain(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0 up",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a sequence" => "a list: […]",
        "a map" => "a table: { … }",
        other => other,
    }
}

/// The unknown field and the known ones of a serde message.
fn unknown_field(message: &str) -> Option<(String, Vec<String>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let (unknown, rest) = rest.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Some((unknown.to_owned(), known))
}

/// The quoted words of a message, in order.
fn quoted(message: &str) -> Vec<String> {
    let mut words = BTreeMap::new();
    for quote in ['`', '\'', '"'] {
        let mut from = 0;
        while let Some(open) = message[from..].find(quote).map(|at| from + at) {
            let Some(length) = message[open + 1..].find(quote) else { break };
            if length > 0 {
                words.insert(open, message[open + 1..open + 1 + length].to_owned());
            }
            from = open + length + 2;
        }
    }
    words.into_values().collect()
}

/// `Line: 2, Column: 5` in a message of the SQL parser.
fn line_and_column(message: &str) -> Option<(usize, usize)> {
    let number = |after: &str| -> Option<usize> {
        let at = message.find(after)? + after.len();
        let digits: String = message[at..].trim_start().chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok().filter(|number| *number > 0)
    };
    Some((number("Line:")?, number("Column:").unwrap_or(1)))
}

/// The first place of `word` in `text` that is not a part of a longer word.
fn find_word(text: &str, word: &str) -> Option<usize> {
    if word.is_empty() {
        return None;
    }
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let (text_lower, word_lower) = (text.to_ascii_lowercase(), word.to_ascii_lowercase());
    text_lower
        .match_indices(&word_lower)
        .map(|(at, _)| at)
        .find(|at| !text[..*at].ends_with(part) && !text[at + word.len()..].starts_with(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(name: &str) -> Option<String> {
        (name == "HOST").then(|| "broker".to_owned())
    }

    #[test]
    fn variables_take_the_place_of_their_names() {
        let substitute = |text: &str| substitute(text, &variables);
        assert_eq!(substitute("mqtt://${HOST}:1883").unwrap(), "mqtt://broker:1883");
        assert_eq!(substitute("${PORT:-1883}/${HOST:-x}").unwrap(), "1883/broker");
        assert_eq!(substitute("$${HOST}").unwrap(), "${HOST}");
        assert!(substitute("${PORT}").unwrap_err().to_string().contains("'PORT' is not set"));
        assert!(substitute("${PORT").is_err());
    }

    #[test]
    fn a_mistake_in_toml_is_shown_with_its_line() {
        let mut errors = Vec::new();
        let document = Document::parse("name = \"a\"\n[sources\n", None, &variables, &mut errors);
        assert!(document.is_none());
        assert!(errors[0].to_string().contains("<input>:2"), "{}", errors[0]);
    }

    #[test]
    fn places_count_characters_not_bytes() {
        let mut errors = Vec::new();
        let text = "name = \"Mellunmäki\"\n[a]\nb = { \"ä\" = \"x\", wrong = 5 }\n";
        let document = Document::parse(text, None, &variables, &mut errors).unwrap();
        let entry = document.root.get("a").unwrap();
        let shown = document.locate(Error::config("invalid type: integer `5`, expected a string"), entry);
        assert_eq!(
            shown.to_string(),
            "invalid type: integer `5`\n --> <input>:3:26\n  |\n3 | b = { \"ä\" = \"x\", wrong = 5 }\n  |                          ^\n  help: expected a string"
        );
    }
}
