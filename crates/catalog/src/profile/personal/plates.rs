//! Registration plates of vehicles.

/// The characters that stand for China's provinces on plates (GA 36-2018).
const PROVINCES: &str = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼";

/// A plate of China, Finland, or with a shape that another European country has alone.
pub(super) fn is_plate(value: &str) -> bool {
    is_chinese(value) || is_finnish(value) || is_european(value)
}

/// A province, a letter, and five characters (six for new-energy vehicles) without `I` and `O`; a point may stand between.
fn is_chinese(value: &str) -> bool {
    let packed: Vec<char> = value.chars().filter(|c| !matches!(c, '·' | '•' | ' ' | '-')).collect();
    let [province, city, rest @ ..] = packed.as_slice() else { return false };
    if !PROVINCES.contains(*province) || !city.is_ascii_uppercase() || matches!(city, 'I') {
        return false;
    }
    let last = |c: &char| "学警港澳挂领试超".contains(*c);
    let letter = |c: &char| (c.is_ascii_uppercase() && !matches!(c, 'I' | 'O')) || c.is_ascii_digit();
    match rest.len() {
        5 => rest[..4].iter().all(letter) && (letter(&rest[4]) || last(&rest[4])),
        6 => rest.iter().all(letter) && rest.iter().filter(|c| c.is_ascii_digit()).count() >= 4,
        _ => false,
    }
}

/// Two or three letters, a dash, one to three digits: `ABC-123`.
fn is_finnish(value: &str) -> bool {
    let Some((letters, digits)) = value.split_once('-') else { return false };
    let letter = |c: char| c.is_ascii_uppercase() || matches!(c, 'Å' | 'Ä' | 'Ö');
    (2..=3).contains(&letters.chars().count())
        && letters.chars().all(letter)
        && (1..=3).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && !digits.starts_with('0')
}

/// `AB-123-CD` (France, Italy with spaces), `B-MW 1234` (Germany), `AB12 CDE` (Great Britain).
fn is_european(value: &str) -> bool {
    let upper = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_uppercase() || matches!(c, 'Ä' | 'Ö' | 'Ü'))
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = value.split(['-', ' ']).collect();
    match parts.as_slice() {
        [first, middle, last] if upper(first) && digits(middle) && upper(last) => {
            first.len() == 2 && middle.len() == 3 && last.len() == 2
        }
        [district, letters, number] if upper(district) && upper(letters) && digits(number) => {
            value.contains('-')
                && district.chars().count() <= 3
                && letters.chars().count() <= 2
                && number.len() <= 4
                && !number.starts_with('0')
        }
        [first, last] => {
            first.len() == 4
                && upper(&first[..first.len().min(2)])
                && first.is_char_boundary(2)
                && digits(&first[2..])
                && last.len() == 3
                && upper(last)
                && value.contains(' ')
        }
        _ => false,
    }
}
