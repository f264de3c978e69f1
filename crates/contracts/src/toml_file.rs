//! TOML text into typed settings, with the place of every mistake.

use std::ops::Range;

use crate::{Error, Place, Result, suggest};
use serde::de::DeserializeOwned;

/// A TOML file's name and text: what an error needs to show its place.
#[derive(Debug, Clone)]
pub struct TomlFile {
    name: String,
    text: String,
}

impl TomlFile {
    /// A file of that name with that text; nothing is read.
    pub fn new(name: &str, text: &str) -> Self {
        Self { name: name.to_owned(), text: text.to_owned() }
    }

    /// Reads the text; an error shows file, line, the offending text and, for an unknown key, the nearest known one.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        toml::from_str(&self.text).map_err(|error| {
            let message = error.message().to_owned();
            let help = unknown_key_help(&message);
            let failed = Error::config(message).at(self.place(error.span()));
            match help {
                Some(help) => failed.with_help(help),
                None => failed,
            }
        })
    }

    /// A mistake in meaning: its place is the first line that holds `needle`.
    pub fn mistake(&self, message: impl Into<String>, needle: &str) -> Error {
        Error::config(message).at(self.locate(needle))
    }

    /// The place of the first occurrence of `needle` outside comments; the file alone when there is none.
    pub fn locate(&self, needle: &str) -> Place {
        let mut offset = 0;
        for line in self.text.split_inclusive('\n') {
            if !line.trim_start().starts_with('#')
                && !needle.is_empty()
                && let Some(at) = line.find(needle)
            {
                return self.place(Some(offset + at..offset + at + needle.len()));
            }
            offset += line.len();
        }
        self.place(None)
    }

    /// Adds the place of the first of `texts` that the error quotes; an error that quotes none gets the file alone.
    pub fn placed<'a>(&self, error: Error, texts: impl IntoIterator<Item = &'a str>) -> Error {
        let shown = error.to_string();
        let quoted = texts.into_iter().find(|text| shown.contains(&format!("'{text}'")));
        error.at(self.locate(quoted.unwrap_or_default()))
    }

    /// The place of these bytes of the text.
    pub fn place_at(&self, span: Range<usize>) -> Place {
        self.place(Some(span))
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn place(&self, span: Option<Range<usize>>) -> Place {
        let file = Some(self.name.clone().into());
        let Some(span) = span.filter(|span| span.start <= self.text.len()) else {
            return Place { file, ..Place::default() };
        };
        let before = &self.text[..span.start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let text = self.text[line_start..].lines().next().unwrap_or_default();
        let column = before[line_start..].chars().count() + 1;
        let room = text.chars().count().saturating_sub(column - 1).max(1);
        let length = self.text.get(span).map_or(1, |at_fault| at_fault.chars().count()).clamp(1, room);
        Place { file, line: before.matches('\n').count() + 1, column, text: text.to_owned(), length }
    }
}

/// From serde's "unknown field `a`, expected one of `b`, `c`" to a suggestion.
fn unknown_key_help(message: &str) -> Option<String> {
    let mut words = message.strip_prefix("unknown ")?.split('`').skip(1).step_by(2);
    let given = words.next()?;
    let known: Vec<&str> = words.collect();
    suggest(given, known.iter().copied()).map(|near| format!("did you mean '{near}'?"))
}

/// Whether `name` is a word that SQL takes without quotes: lower-case letters, digits and `_`.
pub fn is_word(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[serde(rename = "description")]
        _description: String,
    }

    #[test]
    fn an_unknown_key_shows_its_line_and_the_nearest_known_key() {
        let file = TomlFile::new("a.toml", "# a comment\ndescripton = 'x'\n");
        let shown = file.parse::<Sample>().unwrap_err().to_string();
        assert!(shown.contains("a.toml:2:1"), "{shown}");
        assert!(shown.contains("2 | descripton = 'x'"), "{shown}");
        assert!(shown.contains("did you mean 'description'?"), "{shown}");
    }

    #[test]
    fn a_mistake_in_meaning_points_at_its_text_not_at_a_comment() {
        let file = TomlFile::new("a.toml", "# key = \"id\"\nname = \"a\"\nkey = \"id\"");
        let place = file.locate("\"id\"");
        assert_eq!((place.line, place.column, place.length), (3, 7, 4));
        assert_eq!(file.locate("absent").line, 0);
    }
}
