//! Which bytes end a token, and tokens with their escapes undone.

use std::borrow::Cow;

/// Ends a measurement's name.
pub(super) const MEASUREMENT: u8 = 1;
/// Ends a tag's key or value, or a field's key.
pub(super) const KEY: u8 = 2;
/// Ends a value that is not quoted.
pub(super) const VALUE: u8 = 4;
/// Has no place in a comment.
pub(super) const COMMENT: u8 = 8;
/// May stand in a time stamp.
pub(super) const TIME: u8 = 16;
/// Space or the end of a line.
pub(super) const WHITE: u8 = 32;

const CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 32 {
        classes[byte] = MEASUREMENT | KEY | COMMENT;
        byte += 1;
    }
    classes[127] = MEASUREMENT | KEY | COMMENT;
    classes[b' ' as usize] = MEASUREMENT | KEY | VALUE | WHITE;
    classes[b'\n' as usize] |= VALUE | WHITE;
    classes[b'\r' as usize] |= VALUE | WHITE;
    classes[b',' as usize] = MEASUREMENT | KEY | VALUE;
    classes[b'=' as usize] = KEY;
    classes[b'-' as usize] = TIME;
    let mut digit = b'0';
    while digit <= b'9' {
        classes[digit as usize] = TIME;
        digit += 1;
    }
    classes
}

/// Whether a byte is of a class.
pub(super) fn is(byte: u8, class: u8) -> bool {
    CLASSES[byte as usize] & class != 0
}

/// What a backslash before this byte means in a name; `None` when it stands for itself.
pub(super) fn in_measurement(byte: u8) -> Option<u8> {
    matches!(byte, b',' | b' ').then_some(byte)
}

/// The same in tags and field keys.
pub(super) fn in_key(byte: u8) -> Option<u8> {
    matches!(byte, b',' | b' ' | b'=').then_some(byte)
}

/// The same in a quoted text.
pub(super) fn in_text(byte: u8) -> Option<u8> {
    match byte {
        b'"' | b'\\' => Some(byte),
        b'n' => Some(b'\n'),
        b'r' => Some(b'\r'),
        b't' => Some(b'\t'),
        _ => None,
    }
}

/// Undoes the escapes of a token. They replace ASCII by ASCII, so what was UTF-8 stays UTF-8.
pub(super) fn unescape(token: &str, escape: fn(u8) -> Option<u8>) -> Cow<'_, str> {
    let mut plain = String::with_capacity(token.len());
    let mut rest = token;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        if let Some(byte) = rest.as_bytes().get(at + 1).copied().and_then(escape) {
            plain.push(byte as char);
            rest = &rest[at + 2..];
        } else {
            plain.push('\\');
            rest = &rest[at + 1..];
        }
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}
