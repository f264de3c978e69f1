//! Lines out of bytes.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use super::scan::{self, in_key, in_measurement, in_text, is, unescape};
use crate::values::shown;

/// A line, in the client's own words.
#[derive(Debug, Default)]
pub(super) struct Line<'a> {
    /// Its number in the body, from 1: of a line that goes on in a quoted text, the first.
    pub number: u32,
    /// Its bytes in the body.
    pub text: Range<usize>,
    pub measurement: Cow<'a, str>,
    pub tags: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    pub fields: Vec<(Cow<'a, str>, Value<'a>)>,
    /// In units of the body's precision.
    pub time: Option<i64>,
}

/// The value of a field.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    Float(f64),
    Integer(i64),
    Unsigned(u64),
    Boolean(bool),
    Text(Cow<'a, str>),
}

/// Why a line was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub number: u32,
    pub reason: &'static str,
    pub detail: String,
    /// The bytes of the line.
    pub text: Range<usize>,
}

/// Above this many tags, a set finds the one that is there twice.
const FEW_TAGS: usize = 16;

impl Line<'_> {
    fn tag_twice(&self) -> Option<&str> {
        let mut keys = self.tags.iter().map(|(key, _)| key.as_ref()).enumerate();
        if self.tags.len() <= FEW_TAGS {
            return keys
                .find(|(at, key)| self.tags[..*at].iter().any(|(known, _)| known == key))
                .map(|(_, key)| key);
        }
        let mut seen = HashSet::with_capacity(self.tags.len());
        keys.map(|(_, key)| key).find(|key| !seen.insert(*key))
    }
}

/// What went wrong in the middle of a line.
struct Wrong {
    reason: &'static str,
    detail: String,
    /// Reading goes on after the next end of a line from here.
    resume: usize,
}

type Read<T> = Result<T, Wrong>;

/// Reads a body line by line.
pub(super) struct Parser<'a> {
    bytes: &'a [u8],
    /// The body, when all of it is UTF-8: then no token needs a check of its own.
    text: Option<&'a str>,
    at: usize,
    number: u32,
}

impl<'a> Parser<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, text: std::str::from_utf8(bytes).ok(), at: 0, number: 1 }
    }

    /// Reads the next line into `line`; `None` at the end.
    pub fn next(&mut self, line: &mut Line<'a>) -> Option<Result<(), Fault>> {
        line.tags.clear();
        line.fields.clear();
        line.time = None;
        let start = match self.skip_empty() {
            Ok(Some(start)) => start,
            Ok(None) => return None,
            Err((start, wrong)) => return Some(Err(self.recover(start, self.number, wrong))),
        };
        line.number = self.number;
        Some(match self.line(line) {
            Ok(end) => {
                line.text = start..end;
                Ok(())
            }
            Err(wrong) => Err(self.recover(start, line.number, wrong)),
        })
    }

    /// Goes to the start of the next line.
    fn recover(&mut self, start: usize, number: u32, wrong: Wrong) -> Fault {
        let rest = self.bytes.get(wrong.resume..).unwrap_or_default();
        let newline = rest.iter().position(|byte| *byte == b'\n').map(|length| wrong.resume + length);
        let end = newline.unwrap_or(self.bytes.len());
        self.at = newline.map_or(end, |at| at + 1);
        let inside = self.bytes[start..end].split(|byte| *byte == b'\n').count() - 1;
        self.number = number + inside as u32 + u32::from(newline.is_some());
        let end = if self.bytes[start..end].ends_with(b"\r") { end - 1 } else { end };
        Fault { number, reason: wrong.reason, detail: wrong.detail, text: start..end }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_spaces(&mut self) {
        while self.peek() == Some(b' ') {
            self.at += 1;
        }
    }

    /// Takes the end of a line, if it is here. A carriage return alone is one at the very end only.
    fn end_of_line(&mut self) -> bool {
        let length = match (self.peek(), self.bytes.get(self.at + 1)) {
            (None, _) => 0,
            (Some(b'\n'), _) | (Some(b'\r'), None) => 1,
            (Some(b'\r'), Some(b'\n')) => 2,
            _ => return false,
        };
        self.at += length;
        self.number += u32::from(length > 0 && self.bytes[self.at - 1] == b'\n');
        true
    }

    /// Skips empty lines and comments; gives the place of the next line.
    fn skip_empty(&mut self) -> Result<Option<usize>, (usize, Wrong)> {
        loop {
            self.skip_spaces();
            match self.peek() {
                None => return Ok(None),
                Some(b'#') => {
                    let start = self.at;
                    while self.peek().is_some_and(|byte| !is(byte, scan::COMMENT)) {
                        self.at += 1;
                    }
                    if !self.end_of_line() {
                        return Err((start, self.wrong("a comment holds a control character".to_owned())));
                    }
                }
                Some(b'\n' | b'\r') => {
                    if !self.end_of_line() {
                        return Ok(Some(self.at)); // a carriage return alone: the line says so
                    }
                }
                Some(_) => return Ok(Some(self.at)),
            }
        }
    }

    fn wrong(&self, detail: String) -> Wrong {
        Wrong { reason: "invalid_line", detail, resume: self.at }
    }

    /// What stands here, in words.
    fn here(&self) -> String {
        match self.peek() {
            None => "the body ends".to_owned(),
            Some(b'\n' | b'\r') => "the line ends".to_owned(),
            Some(byte) => format!("there is '{}'", byte.escape_ascii()),
        }
    }

    /// Reads a line from its first byte; gives where its text ends.
    fn line(&mut self, line: &mut Line<'a>) -> Read<usize> {
        line.measurement = self.token(scan::MEASUREMENT, in_measurement)?;
        if line.measurement.is_empty() {
            return Err(self.wrong(format!("a measurement is expected, but {}", self.here())));
        }
        while self.peek() != Some(b' ') {
            self.tag(line)?;
        }
        if let Some(key) = line.tag_twice() {
            return Err(self.wrong(format!("the tag '{}' is there twice", shown(key))));
        }
        self.skip_spaces();
        loop {
            let key = self.token(scan::KEY, in_key)?;
            if key.is_empty() {
                return Err(self.wrong(format!("a field is expected, but {}", self.here())));
            }
            if self.peek() != Some(b'=') {
                return Err(self.wrong(format!(
                    "'=' is expected after the field '{}', but {}",
                    shown(&key),
                    self.here()
                )));
            }
            self.at += 1;
            let value = self.value(&key)?;
            line.fields.push((key, value));
            match self.peek() {
                Some(b',') => self.at += 1,
                None => return Ok(self.at),
                Some(byte) if is(byte, scan::WHITE) => break,
                Some(_) => {
                    return Err(self.wrong(format!("a field has ended, but {}", self.here())));
                }
            }
        }
        self.skip_spaces();
        let end = self.at;
        if self.end_of_line() {
            return Ok(end);
        }
        self.time(line)
    }

    /// Reads `,key=value`.
    fn tag(&mut self, line: &mut Line<'a>) -> Read<()> {
        if self.peek() != Some(b',') {
            return Err(self.wrong(format!("a tag or a field is expected, but {}", self.here())));
        }
        self.at += 1;
        let key = self.token(scan::KEY, in_key)?;
        if key.is_empty() {
            return Err(self.wrong(format!("a tag is expected after the comma, but {}", self.here())));
        }
        if self.peek() != Some(b'=') {
            return Err(self.wrong(format!(
                "'=' is expected after the tag '{}', but {}",
                shown(&key),
                self.here()
            )));
        }
        self.at += 1;
        let value = self.token(scan::KEY, in_key)?;
        if value.is_empty() {
            return Err(self.wrong(format!("the tag '{}' has no value", shown(&key))));
        }
        line.tags.push((key, value));
        Ok(())
    }

    fn time(&mut self, line: &mut Line<'a>) -> Read<usize> {
        let start = self.at;
        while self.peek().is_some_and(|byte| is(byte, scan::TIME)) {
            self.at += 1;
        }
        let end = self.at;
        if self.peek().is_some_and(|byte| !is(byte, scan::WHITE)) {
            return Err(self.wrong(format!("a time is expected, but {}", self.here())));
        }
        if end > start {
            let digits = &self.bytes[start..end];
            let text = std::str::from_utf8(digits).unwrap_or_default();
            match text.parse() {
                Ok(time) => line.time = Some(time),
                Err(_) => return Err(self.wrong(format!("'{}' is not a time", shown(text)))),
            }
        }
        self.skip_spaces();
        if self.end_of_line() {
            Ok(end)
        } else {
            Err(self.wrong(format!("the line should end after its time, but {}", self.here())))
        }
    }

    /// Reads up to a byte of the class.
    fn token(&mut self, class: u8, escape: fn(u8) -> Option<u8>) -> Read<Cow<'a, str>> {
        let start = self.at;
        let mut escaped = false;
        while let Some(byte) = self.peek() {
            if byte == b'\\' {
                escaped = true;
                // Of a backslash that escapes nothing, the next byte is looked at on its own.
                let next = self.bytes.get(self.at + 1).copied();
                self.at += if next.and_then(escape).is_some() { 2 } else { 1 };
            } else if is(byte, class) {
                break;
            } else {
                self.at += 1;
            }
        }
        let token = self.slice(start, self.at)?;
        Ok(if escaped { unescape(token, escape) } else { Cow::Borrowed(token) })
    }

    /// Text that must be UTF-8. Tokens end at ASCII bytes, so a part of valid text is valid.
    fn slice(&self, start: usize, end: usize) -> Read<&'a str> {
        let checked = match self.text {
            Some(text) => text.get(start..end),
            None => std::str::from_utf8(&self.bytes[start..end]).ok(),
        };
        checked.ok_or_else(|| Wrong {
            reason: "invalid_utf8",
            detail: format!("not UTF-8: '{}'", shown(&String::from_utf8_lossy(&self.bytes[start..end]))),
            resume: end,
        })
    }

    fn value(&mut self, key: &str) -> Read<Value<'a>> {
        let first = self.peek();
        if first == Some(b'"') {
            return self.quoted(key);
        }
        let start = self.at;
        while self.peek().is_some_and(|byte| !is(byte, scan::VALUE)) {
            self.at += 1;
        }
        let bytes = &self.bytes[start..self.at];
        let value = match first {
            Some(b'0'..=b'9' | b'-' | b'.') => number(bytes),
            _ => match bytes {
                b"t" | b"T" | b"true" | b"True" | b"TRUE" => Ok(Value::Boolean(true)),
                b"f" | b"F" | b"false" | b"False" | b"FALSE" => Ok(Value::Boolean(false)),
                b"" => return Err(self.wrong(format!("the field '{}' has no value", shown(key)))),
                _ => Err(("invalid_line", "is neither a number, nor a boolean, nor in quotes")),
            },
        };
        value.map_err(|(reason, what)| {
            let text = String::from_utf8_lossy(bytes);
            let detail = format!("the value '{}' of the field '{}' {what}", shown(&text), shown(key));
            Wrong { reason, detail, resume: self.at }
        })
    }

    fn quoted(&mut self, key: &str) -> Read<Value<'a>> {
        self.at += 1;
        let start = self.at;
        let (mut escaped, mut newlines) = (false, 0);
        loop {
            match self.peek() {
                None => {
                    let detail = format!("the text of the field '{}' has no closing quote", shown(key));
                    return Err(Wrong { reason: "invalid_line", detail, resume: start });
                }
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    let next = self.bytes.get(self.at + 1).copied();
                    self.at += if next.and_then(in_text).is_some() { 2 } else { 1 };
                }
                Some(byte) => {
                    newlines += u32::from(byte == b'\n');
                    self.at += 1;
                }
            }
        }
        let text = self.slice(start, self.at)?;
        self.at += 1;
        self.number += newlines;
        Ok(Value::Text(if escaped { unescape(text, in_text) } else { Cow::Borrowed(text) }))
    }
}

fn number(bytes: &[u8]) -> Result<Value<'static>, (&'static str, &'static str)> {
    let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
    let whole = |error: std::num::ParseIntError| match error.kind() {
        std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => {
            ("out_of_range", "does not fit into 64 bits")
        }
        _ => ("invalid_line", "is not a whole number"),
    };
    match bytes.split_last() {
        Some((b'i', digits)) => text(digits).parse().map(Value::Integer).map_err(whole),
        Some((b'u', digits)) => text(digits).parse().map(Value::Unsigned).map_err(whole),
        _ => match text(bytes).parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Value::Float(number)),
            Ok(_) => Err(("out_of_range", "is no finite number of 64 bits")),
            Err(_) => Err(("invalid_line", "is not a number")),
        },
    }
}
