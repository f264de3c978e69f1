//! Geometry as text, so that tests can be read: WKB ↔ WKT for two-dimensional simple features (OGC 06-103r4).

use std::fmt::Write as _;

const NAMES: [&str; 7] =
    ["POINT", "LINESTRING", "POLYGON", "MULTIPOINT", "MULTILINESTRING", "MULTIPOLYGON", "GEOMETRYCOLLECTION"];

/// The text of a WKB geometry; `None` when it is not two-dimensional WKB.
pub(crate) fn to_text(wkb: &[u8]) -> Option<String> {
    let mut input = Input { bytes: wkb, little: true };
    let mut out = String::new();
    geometry(&mut input, &mut out, true)?;
    input.bytes.is_empty().then_some(out)
}

struct Input<'a> {
    bytes: &'a [u8],
    little: bool,
}

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.bytes.split_first_chunk::<N>()?;
        self.bytes = rest;
        Some(*head)
    }

    fn count(&mut self) -> Option<u32> {
        let bytes = self.take::<4>()?;
        Some(if self.little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    fn number(&mut self) -> Option<f64> {
        let bytes = self.take::<8>()?;
        Some(if self.little { f64::from_le_bytes(bytes) } else { f64::from_be_bytes(bytes) })
    }
}

/// Writes a list in parentheses.
fn list(
    input: &mut Input<'_>,
    out: &mut String,
    part: fn(&mut Input<'_>, &mut String) -> Option<()>,
) -> Option<()> {
    let count = input.count()?;
    if count == 0 {
        out.push_str("EMPTY");
        return Some(());
    }
    out.push('(');
    for index in 0..count {
        if index > 0 {
            out.push_str(", ");
        }
        part(input, out)?;
    }
    out.push(')');
    Some(())
}

fn position(input: &mut Input<'_>, out: &mut String) -> Option<()> {
    let (x, y) = (input.number()?, input.number()?);
    write!(out, "{x} {y}").ok()
}

fn positions(input: &mut Input<'_>, out: &mut String) -> Option<()> {
    list(input, out, position)
}

fn member(input: &mut Input<'_>, out: &mut String) -> Option<()> {
    geometry(input, out, false)
}

fn whole(input: &mut Input<'_>, out: &mut String) -> Option<()> {
    geometry(input, out, true)
}

fn geometry(input: &mut Input<'_>, out: &mut String, named: bool) -> Option<()> {
    input.little = match input.take::<1>()? {
        [0] => false,
        [1] => true,
        _ => return None,
    };
    let kind = input.count()?;
    let name = NAMES.get(usize::try_from(kind.checked_sub(1)?).ok()?)?;
    if named {
        out.push_str(name);
        out.push(' ');
    }
    match kind {
        1 => {
            let (x, y) = (input.number()?, input.number()?);
            if x.is_nan() {
                out.push_str("EMPTY");
                Some(())
            } else {
                write!(out, "({x} {y})").ok()
            }
        }
        2 => positions(input, out),
        3 => list(input, out, positions),
        4..=6 => list(input, out, member),
        _ => list(input, out, whole),
    }
}

/// The WKB of a text (`POINT (24.9 60.2)`); `None` when it is not one.
pub(crate) fn from_text(text: &str) -> Option<Vec<u8>> {
    let mut rest = text.trim();
    let mut out = Vec::new();
    parse(&mut rest, &mut out)?;
    rest.trim().is_empty().then_some(out)
}

fn parse(rest: &mut &str, out: &mut Vec<u8>) -> Option<()> {
    let trimmed = rest.trim_start();
    let length = trimmed.find(|c: char| !c.is_ascii_alphabetic())?;
    let name = trimmed[..length].to_ascii_uppercase();
    let kind = NAMES.iter().position(|known| *known == name)? as u32 + 1;
    *rest = &trimmed[length..];
    body(kind, rest, out)
}

fn header(kind: u32, out: &mut Vec<u8>) {
    out.push(1);
    out.extend(kind.to_le_bytes());
}

fn body(kind: u32, rest: &mut &str, out: &mut Vec<u8>) -> Option<()> {
    header(kind, out);
    match kind {
        1 => {
            eat(rest, '(')?;
            coordinates(rest, out)?;
            eat(rest, ')')
        }
        2 => items(rest, out, &mut coordinates),
        3 => items(rest, out, &mut |rest, out| items(rest, out, &mut coordinates)),
        4..=6 => items(rest, out, &mut |rest, out| body(kind - 3, rest, out)),
        _ => items(rest, out, &mut parse),
    }
}

type Part<'a> = &'a mut dyn FnMut(&mut &str, &mut Vec<u8>) -> Option<()>;

fn items(rest: &mut &str, out: &mut Vec<u8>, part: Part<'_>) -> Option<()> {
    let at = out.len();
    out.extend(0u32.to_le_bytes());
    if let Some(after) = rest.trim_start().strip_prefix("EMPTY") {
        *rest = after;
        return Some(());
    }
    eat(rest, '(')?;
    let mut count = 0u32;
    loop {
        part(rest, out)?;
        count += 1;
        if eat(rest, ',').is_none() {
            break;
        }
    }
    out[at..at + 4].copy_from_slice(&count.to_le_bytes());
    eat(rest, ')')
}

fn coordinates(rest: &mut &str, out: &mut Vec<u8>) -> Option<()> {
    for _ in 0..2 {
        let trimmed = rest.trim_start();
        let length = trimmed.find(|c: char| c.is_whitespace() || c == ',' || c == ')')?;
        let number: f64 = trimmed[..length].parse().ok()?;
        out.extend(number.to_le_bytes());
        *rest = &trimmed[length..];
    }
    Some(())
}

fn eat(rest: &mut &str, expected: char) -> Option<()> {
    *rest = rest.trim_start().strip_prefix(expected)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_are_the_same_geometry() {
        for text in [
            "POINT (24.941684 60.17169)",
            "LINESTRING (24 60, 25 61.5)",
            "POLYGON ((0 0, 1 0, 1 1, 0 0), (0.1 0.1, 0.2 0.1, 0.2 0.2, 0.1 0.1))",
            "MULTIPOLYGON (((0 0, 1 0, 1 1, 0 0)), ((2 2, 3 2, 3 3, 2 2)))",
            "GEOMETRYCOLLECTION (POINT (1 2), LINESTRING (0 0, 1 1))",
        ] {
            assert_eq!(to_text(&from_text(text).unwrap()).unwrap(), text);
        }
        assert_eq!(from_text("POINT (1)"), None);
        assert_eq!(to_text(&[1, 2, 3]), None);
    }
}
