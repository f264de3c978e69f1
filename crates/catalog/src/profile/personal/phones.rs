//! Telephone numbers.

/// Country codes of ITU-T E.164 that have one or two digits; all others have three.
const SHORT_CODES: [&str; 48] = [
    "1", "7", "20", "27", "30", "31", "32", "33", "34", "36", "39", "40", "41", "43", "44", "45", "46", "47",
    "48", "49", "51", "52", "53", "54", "55", "56", "57", "58", "60", "61", "62", "63", "64", "65", "66",
    "81", "82", "84", "86", "90", "91", "92", "93", "94", "95", "98", "211", "212",
];

/// A number in international form (`+358 40 123 4567`, 8 to 15 digits, ITU-T E.164), a Chinese mobile number of eleven digits
/// (`1` and a prefix that operators have), or a Finnish mobile number in its national form.
pub(super) fn is_phone(value: &str) -> bool {
    if value.len() > 24 {
        return false;
    }
    let between = |c: char| matches!(c, ' ' | '-' | '(' | ')' | '.' | '/');
    if !value.chars().all(|c| c.is_ascii_digit() || between(c) || c == '+') {
        return false;
    }
    let packed: String = value.chars().filter(|c| !between(*c)).collect();
    if let Some(number) = packed.strip_prefix('+') {
        let all_digits = number.bytes().all(|byte| byte.is_ascii_digit());
        // A number with a fraction or a coordinate has a point and few groups.
        let groups = value.split(between).filter(|group| !group.is_empty()).count();
        let decimal = value.contains('.') && groups < 3;
        let known = SHORT_CODES.iter().any(|code| number.starts_with(code))
            || matches!(number.as_bytes().first(), Some(b'2' | b'3' | b'4' | b'5' | b'6' | b'8' | b'9'));
        return all_digits && known && !decimal && (8..=15).contains(&number.len());
    }
    is_chinese_mobile(&packed) || is_finnish_mobile(&packed, value)
}

/// Eleven digits that begin with 13, 14, 15, 16, 17, 18 or 19, without those that nobody has.
fn is_chinese_mobile(packed: &str) -> bool {
    let bytes = packed.as_bytes();
    if bytes.len() != 11 || !bytes.iter().all(u8::is_ascii_digit) || bytes[0] != b'1' {
        return false;
    }
    let third = bytes[2];
    match bytes[1] {
        b'3' | b'8' => true,
        b'4' => third == b'0' || third >= b'4',
        b'5' | b'9' => third != b'4',
        b'6' => matches!(third, b'2' | b'5' | b'6' | b'7'),
        b'7' => third != b'9',
        _ => false,
    }
}

/// `040 123 4567`, `050-1234567`: written in groups, since ten digits alone are many things.
fn is_finnish_mobile(packed: &str, value: &str) -> bool {
    let grouped = value.contains([' ', '-']);
    let mobile = ["040", "041", "042", "043", "044", "045", "046", "049", "050"];
    let begins = mobile.iter().any(|prefix| packed.starts_with(prefix));
    let groups = value.split([' ', '-']).next().is_some_and(|first| (3..=4).contains(&first.len()));
    grouped && begins && groups && (9..=11).contains(&packed.len())
}
