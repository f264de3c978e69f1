//! Sections, lines and words of an .inp file, with errors that show where they are.

use std::collections::BTreeMap;
use std::path::PathBuf;

use twinlake_contracts::{Error, Place, Result};

/// All sections: the letters by which a heading is known (the format asks for no more), and the name in messages.
const SECTIONS: [(&str, &str); 30] = [
    ("TITL", "TITLE"),
    ("JUNC", "JUNCTIONS"),
    ("RESE", "RESERVOIRS"),
    ("TANK", "TANKS"),
    ("PIPE", "PIPES"),
    ("PUMP", "PUMPS"),
    ("VALV", "VALVES"),
    ("CONT", "CONTROLS"),
    ("RULE", "RULES"),
    ("DEMA", "DEMANDS"),
    ("SOUR", "SOURCES"),
    ("EMIT", "EMITTERS"),
    ("LEAK", "LEAKAGE"),
    ("PATT", "PATTERNS"),
    ("CURV", "CURVES"),
    ("QUAL", "QUALITY"),
    ("STAT", "STATUS"),
    ("ROUG", "ROUGHNESS"),
    ("ENER", "ENERGY"),
    ("REAC", "REACTIONS"),
    ("MIXI", "MIXING"),
    ("REPO", "REPORT"),
    ("TIME", "TIMES"),
    ("OPTI", "OPTIONS"),
    ("COOR", "COORDINATES"),
    ("VERT", "VERTICES"),
    ("LABE", "LABELS"),
    ("BACK", "BACKDROP"),
    ("TAGS", "TAGS"),
    ("END", "END"),
];

/// One line of data: its words, without its comment.
#[derive(Debug, Clone)]
pub(super) struct Line<'a> {
    pub(super) file: &'a str,
    pub(super) section: &'static str,
    pub(super) number: usize,
    pub(super) text: &'a str,
    pub(super) words: Vec<&'a str>,
}

/// The lines of each section, in the file's order.
pub(super) struct Sections<'a>(BTreeMap<&'static str, Vec<Line<'a>>>);

impl<'a> Sections<'a> {
    pub(super) fn read(text: &'a str, file: &'a str) -> Result<Self> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut sections: BTreeMap<&'static str, Vec<Line<'a>>> = BTreeMap::new();
        let mut section = "";
        for (index, text) in text.lines().enumerate() {
            let words = words(text);
            let Some(&first) = words.first() else { continue };
            let line = Line { file, section, number: index + 1, text, words };
            if let Some(heading) = first.strip_prefix('[') {
                let Some((_, name)) = SECTIONS.iter().find(|(letters, _)| starts(heading, letters)) else {
                    return Err(line.error(0, format!("the section {first} is unknown")));
                };
                section = name;
                if section == "END" {
                    break;
                }
                sections.entry(section).or_default();
            } else if section.is_empty() {
                return Err(line.error(0, "data before the first section").with_help(
                    "an EPANET file is a row of sections, each begun by a heading such as [JUNCTIONS]",
                ));
            } else {
                sections.entry(section).or_default().push(line);
            }
        }
        Ok(Self(sections))
    }

    pub(super) fn lines(&self, section: &str) -> &[Line<'a>] {
        self.0.get(section).map_or(&[], Vec::as_slice)
    }
}

/// Words between blanks, up to a `;`; one that begins with a quotation mark goes on to the next.
fn words(text: &str) -> Vec<&str> {
    let mut rest = text.split(';').next().unwrap_or_default().trim_start();
    let mut words = Vec::new();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        words.push(word);
        rest = after.trim_start();
    }
    words
}

/// Whether a word begins with these letters, in any case: how the format compares keywords.
pub(super) fn starts(word: &str, letters: &str) -> bool {
    word.as_bytes().get(..letters.len()).is_some_and(|head| head.eq_ignore_ascii_case(letters.as_bytes()))
}

impl<'a> Line<'a> {
    pub(super) fn word(&self, index: usize) -> Option<&'a str> {
        self.words.get(index).copied()
    }

    /// Whether the word is there and begins with these letters.
    pub(super) fn is(&self, index: usize, letters: &str) -> bool {
        self.word(index).is_some_and(|word| starts(word, letters))
    }

    /// A word that must be there.
    pub(super) fn needed(&self, index: usize, what: &str) -> Result<&'a str> {
        self.word(index).ok_or_else(|| self.error(usize::MAX, format!("{what} is missing")))
    }

    pub(super) fn number(&self, index: usize, what: &str) -> Result<f64> {
        let word = self.needed(index, what)?;
        match word.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => Err(self.error(index, format!("{what} '{word}' is not a number"))),
        }
    }

    /// A number, or what stands for it in a line without.
    pub(super) fn number_or(&self, index: usize, what: &str, missing: f64) -> Result<f64> {
        if self.words.len() > index { self.number(index, what) } else { Ok(missing) }
    }

    pub(super) fn positive(&self, index: usize, what: &str, missing: f64) -> Result<f64> {
        let number = self.number_or(index, what, missing)?;
        if number > 0.0 {
            Ok(number)
        } else {
            Err(self.error(index, format!("{what} {number} must be above 0")))
        }
    }

    pub(super) fn not_negative(&self, index: usize, what: &str, missing: f64) -> Result<f64> {
        let number = self.number_or(index, what, missing)?;
        if number >= 0.0 {
            Ok(number)
        } else {
            Err(self.error(index, format!("{what} {number} must not be negative")))
        }
    }

    /// An error that shows a word, or the whole line for a word that is not there.
    pub(super) fn error(&self, index: usize, message: impl std::fmt::Display) -> Error {
        let part = self.word(index).unwrap_or_else(|| self.text.trim());
        let offset = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        let before = self.text.get(..offset).unwrap_or_default();
        let message = if self.section.is_empty() {
            message.to_string()
        } else {
            format!("section [{}]: {message}", self.section)
        };
        Error::config(message).at(Place {
            file: Some(PathBuf::from(self.file)),
            line: self.number,
            column: before.chars().count() + 1,
            text: self.text.replace('\t', " ").trim_end().to_owned(),
            length: part.chars().count().max(1),
        })
    }
}

/// Seconds of a time: a number of hours, `h:mm`, `h:mm:ss`, with a unit or AM or PM after it. None if it is none.
pub(super) fn seconds(time: &str, unit: Option<&str>) -> Option<f64> {
    let parts: Vec<f64> = time.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let hours = match parts.as_slice() {
        [hours] => match unit {
            Some(unit) if starts(unit, "SEC") => hours / 3600.0,
            Some(unit) if starts(unit, "MIN") => hours / 60.0,
            Some(unit) if starts(unit, "DAY") => hours * 24.0,
            _ => *hours,
        },
        [hours, minutes] => hours + minutes / 60.0,
        [hours, minutes, seconds] => hours + minutes / 60.0 + seconds / 3600.0,
        _ => return None,
    };
    let hours = match unit {
        Some(unit) if starts(unit, "AM") => {
            (hours < 13.0).then_some(if hours >= 12.0 { hours - 12.0 } else { hours })?
        }
        Some(unit) if starts(unit, "PM") => {
            (hours < 13.0).then_some(if hours >= 12.0 { hours } else { hours + 12.0 })?
        }
        Some(unit)
            if parts.len() > 1 || !["SEC", "MIN", "HOU", "DAY"].iter().any(|known| starts(unit, known)) =>
        {
            return None;
        }
        _ => hours,
    };
    (hours.is_finite() && hours >= 0.0).then_some(hours * 3600.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_every_notation() {
        assert_eq!(seconds("24", None), Some(86400.0));
        assert_eq!(seconds("24:00", None), Some(86400.0));
        assert_eq!(seconds("0:05", None), Some(300.0));
        assert_eq!(seconds("1:00:30", None), Some(3630.0));
        assert_eq!(seconds("12", Some("am")), Some(0.0));
        assert_eq!(seconds("12:30", Some("PM")), Some(45000.0));
        assert_eq!(seconds("8", Some("pm")), Some(72000.0));
        assert_eq!(seconds("5", Some("MIN")), Some(300.0));
        assert_eq!(seconds("2", Some("days")), Some(172_800.0));
        assert_eq!(seconds("14", Some("PM")), None);
        assert_eq!(seconds("1:00", Some("MIN")), None);
        assert_eq!(seconds("x", None), None);
    }

    #[test]
    fn words_end_at_blanks_quotes_and_comments() {
        assert_eq!(words(" a\tb ; c"), ["a", "b"]);
        assert_eq!(words("\"two words\" x;y"), ["two words", "x"]);
        assert!(words("; only").is_empty());
    }
}
