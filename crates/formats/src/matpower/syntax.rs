//! The words of a MATLAB text, as far as case files use them.

use twinlake_contracts::{Error, Place, Result};

/// What a word is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind<'a> {
    Number(f64),
    /// An identifier, with its dots: `mpc.bus` is one name.
    Name(&'a str),
    Text(&'a str),
    /// An operator or bracket: one or two characters.
    Symbol(&'a str),
    NewLine,
}

/// A word and where it is: byte offsets, and whether white space stands on its left, which tells `[1 -2]` from
/// `[1 - 2]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word<'a> {
    pub(super) kind: Kind<'a>,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// A text and the name of its file, for errors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) text: &'a str,
    pub(super) file: &'a str,
}

impl Source<'_> {
    pub(super) fn error(&self, start: usize, end: usize, message: impl Into<String>) -> Error {
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line = self.text[line_start..].lines().next().unwrap_or_default();
        let end = end.min(line_start + line.len()).max(start);
        Error::config(message.into()).at(Place {
            file: Some(self.file.into()),
            line: self.line(start),
            column: self.text[line_start..start].chars().count() + 1,
            text: line.replace('\t', " "),
            length: self.text[start..end].chars().count().max(1),
        })
    }

    /// The line, from 1, of a byte offset.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.text[..offset].matches('\n').count() + 1
    }
}

/// All words; comments and continued lines (`...`) are taken out.
pub(super) fn words<'a>(source: Source<'a>) -> Result<Vec<Word<'a>>> {
    let text = source.text;
    let bytes = text.as_bytes();
    let mut words: Vec<Word<'a>> = Vec::with_capacity(text.len() / 4);
    let mut at = 0;
    let skip_line = |from: usize| text[from..].find('\n').map_or(text.len(), |length| from + length);
    while at < bytes.len() {
        let start = at;
        let rest = &text[at..];
        let kind = match bytes[at] {
            b' ' | b'\t' | b'\r' => {
                at += 1;
                continue;
            }
            b'\n' => {
                at += 1;
                Kind::NewLine
            }
            b'%' => {
                // `%{` alone in its line opens a comment that `%}` closes.
                at = skip_line(at);
                let alone = text[..start].rsplit('\n').next().is_some_and(|left| left.trim().is_empty());
                if alone && text[start..at].trim_end() == "%{" {
                    while at < text.len() && text[at..].lines().next().is_some_and(|line| line.trim() != "%}")
                    {
                        at = skip_line(at + 1);
                        let line_start = text[..at].rfind('\n').map_or(0, |before| before + 1);
                        if text[line_start..at].trim() == "%}" {
                            break;
                        }
                    }
                }
                continue;
            }
            b'.' if rest.starts_with("...") => {
                at = (skip_line(at) + 1).min(text.len());
                continue;
            }
            b'0'..=b'9' => number(source, &mut at)?,
            b'.' if bytes.get(at + 1).is_some_and(u8::is_ascii_digit) => number(source, &mut at)?,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                let length = rest
                    .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'))
                    .unwrap_or(rest.len());
                let name = rest[..length].trim_end_matches('.');
                at += name.len();
                match name {
                    "Inf" | "inf" => Kind::Number(f64::INFINITY),
                    "NaN" | "nan" => Kind::Number(f64::NAN),
                    _ => Kind::Name(name),
                }
            }
            b'\'' | b'"' => {
                let quote = char::from(bytes[at]);
                let line_end = skip_line(at);
                let Some(length) = text[at + 1..line_end].find(quote) else {
                    return Err(source.error(at, line_end, "this text is not closed by a quotation mark"));
                };
                at += length + 2;
                Kind::Text(&text[start + 1..at - 1])
            }
            b'.' if matches!(bytes.get(at + 1), Some(b'*' | b'/' | b'^')) => {
                at += 2;
                Kind::Symbol(&text[start..at])
            }
            _ => {
                at += rest.chars().next().map_or(1, char::len_utf8);
                Kind::Symbol(&text[start..at])
            }
        };
        words.push(Word { kind, start, end: at });
    }
    words.push(Word { kind: Kind::NewLine, start: text.len(), end: text.len() });
    Ok(words)
}

fn number<'a>(source: Source<'a>, at: &mut usize) -> Result<Kind<'a>> {
    let bytes = source.text.as_bytes();
    let start = *at;
    let digits = |mut at: usize| {
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    };
    let mut end = digits(start);
    // The point of `1./x` belongs to the operator.
    if bytes.get(end) == Some(&b'.') && !matches!(bytes.get(end + 1), Some(b'*' | b'/' | b'^')) {
        end = digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        if bytes.get(end + 1 + sign).is_some_and(u8::is_ascii_digit) {
            end = digits(end + 1 + sign);
        }
    }
    *at = end;
    let text = &source.text[start..end];
    text.parse().map(Kind::Number).map_err(|_| source.error(start, end, format!("'{text}' is not a number")))
}
