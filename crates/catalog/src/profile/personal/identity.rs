//! Numbers of persons, accounts, cards and devices, with their check digits.

use std::borrow::Cow;

/// A text without the spaces and dashes between its groups.
fn packed(value: &str) -> Cow<'_, str> {
    if value.contains([' ', '-']) {
        Cow::Owned(value.chars().filter(|c| !matches!(c, ' ' | '-')).collect())
    } else {
        Cow::Borrowed(value)
    }
}

fn digits(text: &str) -> Option<Vec<u32>> {
    text.chars().map(|c| c.to_digit(10)).collect()
}

/// Whether year, month and day are a day of the calendar.
fn is_day(year: u32, month: u32, day: u32) -> bool {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let last = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return false,
    };
    (1..=last).contains(&day)
}

/// The first two digits of the codes of China's provinces, GB/T 2260.
const PROVINCES: [u32; 34] = [
    11, 12, 13, 14, 15, 21, 22, 23, 31, 32, 33, 34, 35, 36, 37, 41, 42, 43, 44, 45, 46, 50, 51, 52, 53, 54,
    61, 62, 63, 64, 65, 71, 81, 82,
];

/// The number of a Chinese resident identity card: six digits of a place, eight of the birthday, three of an order, and a
/// check character (GB 11643-1999, ISO 7064 MOD 11-2).
pub(super) fn is_chinese_resident_id(value: &str) -> bool {
    const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    const CHECKS: [char; 11] = ['1', '0', 'X', '9', '8', '7', '6', '5', '4', '3', '2'];
    if value.len() != 18 || !value.is_ascii() {
        return false;
    }
    let Some(numbers) = digits(&value[..17]) else { return false };
    let number = |from: usize, to: usize| numbers[from..to].iter().fold(0, |sum, digit| sum * 10 + digit);
    let sum: u32 = numbers.iter().zip(WEIGHTS).map(|(digit, weight)| digit * weight).sum();
    let check = value[17..].chars().next().map(|c| c.to_ascii_uppercase());
    PROVINCES.contains(&number(0, 2))
        && (1880..=2100).contains(&number(6, 10))
        && is_day(number(6, 10), number(10, 12), number(12, 14))
        && check == Some(CHECKS[(sum % 11) as usize])
}

/// A Finnish personal identity code: day, month, year, a sign for the century, three digits and a check character (the
/// nine digits modulo 31; Act 661/2009; the signs of 2023 included).
pub(super) fn is_finnish_personal_id(value: &str) -> bool {
    const CHECKS: &[u8; 31] = b"0123456789ABCDEFHJKLMNPRSTUVWXY";
    if value.len() != 11 || !value.is_ascii() {
        return false;
    }
    let century = match value.as_bytes()[6] {
        b'+' => 1800,
        b'-' | b'U' | b'V' | b'W' | b'X' | b'Y' => 1900,
        b'A' | b'B' | b'C' | b'D' | b'E' | b'F' => 2000,
        _ => return false,
    };
    let nine = format!("{}{}", &value[..6], &value[7..10]);
    let (Some(all), Ok(number)) = (digits(&nine), nine.parse::<usize>()) else { return false };
    let pair = |at: usize| all[at] * 10 + all[at + 1];
    let individual = all[6] * 100 + all[7] * 10 + all[8];
    is_day(century + pair(4), pair(2), pair(0))
        && individual >= 2
        && value.as_bytes()[10] == CHECKS[number % 31]
}

/// A social security number with its dashes; the groups that are never given out are refused (SSA, since 2011).
pub(super) fn is_social_security_number(value: &str) -> bool {
    let mut parts = value.split('-');
    let (Some(area), Some(group), Some(serial), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let sized = area.len() == 3 && group.len() == 2 && serial.len() == 4;
    let numbers = [area, group, serial].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    sized
        && numbers
        && area != "000"
        && area != "666"
        && !area.starts_with('9')
        && group != "00"
        && serial != "0000"
}

/// Lengths of account numbers by country, from the registry of ISO 13616.
const IBAN_LENGTHS: [(&str, usize); 40] = [
    ("AD", 24),
    ("AE", 23),
    ("AT", 20),
    ("BE", 16),
    ("BG", 22),
    ("CH", 21),
    ("CY", 28),
    ("CZ", 24),
    ("DE", 22),
    ("DK", 18),
    ("EE", 20),
    ("ES", 24),
    ("FI", 18),
    ("FR", 27),
    ("GB", 22),
    ("GR", 27),
    ("HR", 21),
    ("HU", 28),
    ("IE", 22),
    ("IL", 23),
    ("IS", 26),
    ("IT", 27),
    ("LI", 21),
    ("LT", 20),
    ("LU", 20),
    ("LV", 21),
    ("MC", 27),
    ("MT", 31),
    ("NL", 18),
    ("NO", 15),
    ("PL", 28),
    ("PT", 25),
    ("RO", 24),
    ("RS", 22),
    ("SA", 24),
    ("SE", 24),
    ("SI", 19),
    ("SK", 24),
    ("SM", 27),
    ("TR", 26),
];

/// An International Bank Account Number: the country's length, and 1 modulo 97 (ISO 13616, ISO 7064 MOD 97-10).
pub(super) fn is_iban(value: &str) -> bool {
    let packed = packed(value);
    if !packed.is_ascii() || packed.len() < 15 {
        return false;
    }
    let length =
        IBAN_LENGTHS.iter().find(|(country, _)| packed.starts_with(country)).map(|(_, length)| *length);
    if length != Some(packed.len()) {
        return false;
    }
    let turned = packed[4..].chars().chain(packed[..4].chars());
    let mut rest = 0;
    for c in turned {
        let Some(number) = c.to_digit(36).filter(|_| !c.is_ascii_lowercase()) else { return false };
        rest = if number < 10 { rest * 10 + number } else { rest * 100 + number } % 97;
    }
    rest == 1
}

/// Whether the last digit makes the weighted sum a multiple of ten (Luhn; ISO/IEC 7812-1, annex B).
fn is_luhn(numbers: &[u32]) -> bool {
    let sum: u32 = numbers
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| match (at % 2, digit * 2) {
            (0, _) => *digit,
            (_, double) if double > 9 => double - 9,
            (_, double) => double,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// A payment card's number: a known beginning and length, and the check digit.
pub(super) fn is_payment_card(value: &str) -> bool {
    let packed = packed(value);
    let Some(numbers) = digits(&packed) else { return false };
    let begins = |length: usize| numbers.iter().take(length).fold(0, |sum, digit| sum * 10 + digit);
    if numbers.len() < 13 {
        return false;
    }
    let known = match numbers.len() {
        13 | 19 => numbers[0] == 4,
        14 => matches!(begins(2), 36 | 38 | 39) || (300..=305).contains(&begins(3)),
        15 => matches!(begins(2), 34 | 37),
        16 => {
            numbers[0] == 4
                || (51..=55).contains(&begins(2))
                || (2221..=2720).contains(&begins(4))
                || begins(4) == 6011
                || begins(2) == 65
                || begins(2) == 62
                || (3528..=3589).contains(&begins(4))
        }
        17 | 18 => begins(2) == 62,
        _ => false,
    };
    known && is_luhn(&numbers) && numbers.iter().any(|digit| *digit != numbers[0])
}

/// A mobile device's number: fifteen digits, the last one the check digit (3GPP TS 23.003), from a body that gives out
/// type codes.
pub(super) fn is_imei(value: &str) -> bool {
    let packed = packed(value);
    let Some(numbers) = digits(&packed) else { return false };
    if numbers.len() != 15 || !is_luhn(&numbers) {
        return false;
    }
    let body = numbers[0] * 10 + numbers[1];
    matches!(body, 1 | 10 | 30 | 33 | 35 | 44 | 45 | 49..=54 | 86 | 91 | 98 | 99)
}
