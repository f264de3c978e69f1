//! Labelled columns, true and false. Numbers with check digits are generated, so that no real person's number stands here;
//! single known ones are those that authorities and standards publish as examples.

use super::{Personal, PersonalKind};

/// Numbers by chance, the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        crate::profile::mixed(self.0) % bound
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }

    fn digits(&mut self, count: usize) -> String {
        (0..count).map(|_| char::from(b'0' + self.below(10) as u8)).collect()
    }
}

fn luhn(body: &str) -> String {
    let sum: u64 = body
        .bytes()
        .rev()
        .enumerate()
        .map(|(at, byte)| {
            let digit = u64::from(byte - b'0');
            let double = digit * 2;
            if at % 2 == 0 { if double > 9 { double - 9 } else { double } } else { digit }
        })
        .sum();
    format!("{body}{}", (10 - sum % 10) % 10)
}

fn chinese_id(chance: &mut Chance) -> String {
    let (year, month, day) = (1950 + chance.below(60), 1 + chance.below(12), 1 + chance.below(28));
    let body = format!(
        "{}{year:04}{month:02}{day:02}{:03}",
        chance.pick(&["110101", "310104", "440305", "510107"]),
        chance.below(1000)
    );
    let weights = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    let sum: usize = body.bytes().zip(weights).map(|(byte, weight)| usize::from(byte - b'0') * weight).sum();
    format!("{body}{}", char::from(b"10X98765432"[sum % 11]))
}

fn finnish_id(chance: &mut Chance) -> String {
    let date = format!("{:02}{:02}{:02}", 1 + chance.below(28), 1 + chance.below(12), chance.below(100));
    let individual = format!("{:03}", 2 + chance.below(898));
    let number: usize = format!("{date}{individual}").parse().unwrap();
    let check = char::from(b"0123456789ABCDEFHJKLMNPRSTUVWXY"[number % 31]);
    format!("{date}{}{individual}{check}", chance.pick(&["-", "A"]))
}

fn iban(chance: &mut Chance) -> String {
    let account = chance.digits(14);
    // FI is 1518, with two zeros where the check digits will be.
    let rest =
        format!("{account}151800").bytes().fold(0u64, |rest, byte| (rest * 10 + u64::from(byte - b'0')) % 97);
    format!("FI{:02}{account}", 98 - rest)
}

fn findings(column: &str, values: &[String]) -> Vec<PersonalKind> {
    let mut personal = Personal::default();
    for value in values {
        personal.add(value);
    }
    personal.findings(column).into_iter().map(|finding| finding.kind).collect()
}

const HAN_FAMILY: [&str; 12] = ["王", "李", "张", "刘", "陈", "杨", "赵", "欧阳", "周", "吴", "徐", "孙"];
const HAN_GIVEN: [&str; 12] =
    ["伟", "芳", "娜", "秀英", "敏", "静", "丽华", "强", "磊", "洋", "艳玲", "志明"];
const FINNISH_GIVEN: [&str; 8] = ["Matti", "Liisa", "Pekka", "Aino", "Ville", "Sanna", "Mikko", "Tiina"];
const FINNISH_FAMILY: [&str; 8] =
    ["Virtanen", "Korhonen", "Nieminen", "Mäkinen", "Laine", "Heikkinen", "Uusi-Oukari", "Salonen"];

#[test]
fn what_is_personal_is_found() {
    use PersonalKind::*;
    let mut chance = Chance(1);
    let mut many = |make: &mut dyn FnMut(&mut Chance) -> String| -> Vec<String> {
        (0..200).map(|_| make(&mut chance)).collect()
    };
    let labelled: Vec<(&str, Vec<String>, PersonalKind)> = vec![
        ("身份证号", many(&mut chinese_id), ChineseResidentId),
        ("c7", many(&mut chinese_id), ChineseResidentId),
        ("hetu", many(&mut finnish_id), FinnishPersonalId),
        ("code", many(&mut finnish_id), FinnishPersonalId),
        ("account", many(&mut iban), Iban),
        ("card_number", many(&mut |c| luhn(&format!("4{}", c.digits(14)))), PaymentCard),
        ("imei", many(&mut |c| luhn(&format!("35{}", c.digits(12)))), Imei),
        (
            "ssn",
            many(&mut |c| format!("{:03}-{:02}-{:04}", 1 + c.below(665), 1 + c.below(99), 1 + c.below(9999))),
            SocialSecurityNumber,
        ),
        (
            "手机号",
            many(&mut |c| format!("1{}{}", c.pick(&["38", "39", "50", "86", "99"]), c.digits(8))),
            Phone,
        ),
        ("contact", many(&mut |c| format!("+358 40 {} {}", c.digits(3), c.digits(4))), Phone),
        ("value", many(&mut |c| format!("+86{}{}", c.pick(&["138", "150"]), c.digits(8))), Phone),
        ("puhelin", many(&mut |c| format!("040 {} {}", c.digits(3), c.digits(4))), Phone),
        (
            "车牌",
            many(&mut |c| {
                format!(
                    "{}{}·{}{}",
                    c.pick(&["京", "沪", "粤", "川"]),
                    c.pick(&["A", "B", "C"]),
                    c.pick(&["1", "K", "8"]),
                    c.digits(4)
                )
            }),
            Plate,
        ),
        ("x", many(&mut |c| format!("粤B{}{}", c.pick(&["D", "F"]), c.digits(5))), Plate),
        (
            "plate",
            many(&mut |c| {
                format!(
                    "{}{}{}-{}",
                    c.pick(&["A", "B", "C", "Z"]),
                    c.pick(&["I", "L", "K"]),
                    c.pick(&["A", "M", "X"]),
                    1 + c.below(999)
                )
            }),
            Plate,
        ),
        ("email", many(&mut |c| format!("user{}@example.org", c.digits(5))), Email),
        ("note", many(&mut |c| format!("first.last{}@mail.example.fi", c.digits(3))), Email),
        (
            "client",
            many(&mut |c| {
                format!("{}.{}.{}.{}", 1 + c.below(222), c.below(256), c.below(256), 1 + c.below(254))
            }),
            IpAddress,
        ),
        ("peer", many(&mut |c| format!("2001:db8:{:x}::{:x}", c.below(65_536), c.below(65_536))), IpAddress),
        (
            "station",
            many(&mut |c| {
                format!(
                    "00:1a:{:02x}:{:02x}:{:02x}:{:02x}",
                    c.below(256),
                    c.below(256),
                    c.below(256),
                    c.below(256)
                )
            }),
            MacAddress,
        ),
        ("姓名", many(&mut |c| format!("{}{}", c.pick(&HAN_FAMILY), c.pick(&HAN_GIVEN))), PersonName),
        ("列3", many(&mut |c| format!("{}{}", c.pick(&HAN_FAMILY), c.pick(&HAN_GIVEN))), PersonName),
        (
            "driver",
            many(&mut |c| format!("{} {}", c.pick(&FINNISH_GIVEN), c.pick(&FINNISH_FAMILY))),
            PersonName,
        ),
        (
            "field_2",
            many(&mut |c| format!("{}, {}", c.pick(&FINNISH_FAMILY), c.pick(&FINNISH_GIVEN))),
            PersonName,
        ),
    ];
    for (column, values, expected) in labelled {
        let found = findings(column, &values);
        assert_eq!(found.first(), Some(&expected), "{column}: {found:?}, for example {}", values[0]);
    }
}

#[test]
fn what_is_not_personal_raises_no_alarm() {
    let mut chance = Chance(7);
    let mut many = |make: &mut dyn FnMut(&mut Chance) -> String| -> Vec<String> {
        (0..300).map(|_| make(&mut chance)).collect()
    };
    let list = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
    let labelled: Vec<(&str, Vec<String>)> = vec![
        ("link_id", many(&mut |c| c.digits(12))),
        ("id", (0..300).map(|n| (13_800_000_000u64 + n).to_string()).collect()),
        ("order_number", many(&mut |c| c.digits(16))),
        ("ts", many(&mut |c| (1_539_059_572_000 + c.below(10_000_000)).to_string())),
        ("vehicle_id", many(&mut |c| format!("{}/{}", c.below(90), c.below(1500)))),
        ("code", many(&mut |c| format!("BUS-{}", 1 + c.below(999)))),
        ("sensor", many(&mut |c| format!("{}-{}", c.pick(&["TMP", "HUM", "PRS"]), 1 + c.below(500)))),
        ("version", many(&mut |c| format!("{}.{}.{}.{}", c.below(9), c.below(20), c.below(20), c.below(99)))),
        ("temperature", many(&mut |c| format!("-{}.{}", c.below(30), c.below(10)))),
        ("position", many(&mut |c| format!("+60.{} +24.{}", c.digits(5), c.digits(5)))),
        ("offset", many(&mut |c| format!("+{}", c.digits(4)))),
        ("uuid", many(&mut |c| format!("{}-1f2a-4c55-8f0e-{}", c.digits(8), c.digits(12)))),
        ("time", many(&mut |c| format!("{:02}:{:02}:{:02}", c.below(24), c.below(60), c.below(60)))),
        ("date", many(&mut |c| format!("2018-{:02}-{:02}", 1 + c.below(12), 1 + c.below(28)))),
        ("line", list(&["562", "90", "57", "1090", "R", "Z", "I", "550", "2164V", "K"])),
        (
            "street",
            list(&[
                "Mannerheimintie",
                "Pohjoisesplanadi",
                "Aleksanterinkatu",
                "Kaivokatu",
                "Unioninkatu",
                "Snellmaninkatu",
            ]),
        ),
        (
            "name",
            list(&[
                "Mikonkatu",
                "Vilhonkatu",
                "Yrjönkatu",
                "Annankatu",
                "Fredrikinkatu",
                "Itämerenkatu",
                "Runeberginkatu",
                "Eteläinen Hesperiankatu",
                "Pohjoinen Rautatiekatu",
                "Kansakoulukatu",
            ]),
        ),
        (
            "stop",
            list(&[
                "Central Station",
                "Kamppi Terminal",
                "Hakaniemi Market",
                "North Harbour",
                "Pasila Station",
                "South Park",
                "Senate Square",
            ]),
        ),
        (
            "city",
            list(&[
                "New York",
                "Los Angeles",
                "San Francisco",
                "Las Vegas",
                "Buenos Aires",
                "Cape Town",
                "Hong Kong",
                "Kuala Lumpur",
            ]),
        ),
        (
            "道路",
            list(&[
                "长安街",
                "中山路",
                "人民广场",
                "南京东路",
                "高新大道",
                "王府井大街",
                "张江高科站",
                "陈家镇",
            ]),
        ),
        ("天气", list(&["晴", "多云", "阴", "小雨", "雷阵雨", "高温", "白色", "黄色预警"])),
        ("区", list(&["海淀区", "朝阳区", "徐汇区", "黄浦区", "江干区", "武侯区", "金牛区"])),
        ("mode", list(&["bus", "tram", "train", "metro", "ferry"])),
        ("event", list(&["journey/ongoing", "deadrun/upcoming", "deadrun/ongoing", "journey/upcoming"])),
        (
            "kind",
            list(&[
                "Museum",
                "Public Building",
                "Retail",
                "Train Station",
                "Office Block",
                "Apartment House",
            ]),
        ),
        (
            "product",
            many(&mut |c| {
                format!(
                    "{} {}",
                    c.pick(&["Red", "Blue", "Smart", "Ultra"]),
                    c.pick(&["Sensor", "Valve", "Pump", "Meter"])
                )
            }),
        ),
    ];
    for (column, values) in labelled {
        let found = findings(column, &values);
        assert!(found.is_empty(), "{column}: {found:?}, for example {}", values[0]);
    }
}

#[test]
fn published_examples_hold_and_one_digit_more_does_not() {
    for (kind, good, bad) in [
        // GB 11643-1999, its own example.
        (PersonalKind::ChineseResidentId, "11010519491231002X", "110105194912310021"),
        // Digital and Population Data Services Agency, its own example.
        (PersonalKind::FinnishPersonalId, "131052-308T", "131052-308U"),
        // The registry of IBANs, its examples.
        (PersonalKind::Iban, "FI21 1234 5600 0007 85", "FI22 1234 5600 0007 85"),
        (PersonalKind::Iban, "DE89370400440532013000", "DE89370400440532013001"),
        (PersonalKind::Iban, "GB29NWBK60161331926819", "GB29NWBK60161331926818"),
        // Numbers for tests, published by card companies.
        (PersonalKind::PaymentCard, "4111 1111 1111 1111", "4111 1111 1111 1112"),
        (PersonalKind::PaymentCard, "378282246310005", "378282246310006"),
        // 3GPP TS 23.003 style, as published for the check digit.
        (PersonalKind::Imei, "490154203237518", "490154203237517"),
        (PersonalKind::SocialSecurityNumber, "078-05-1120", "666-05-1120"),
        (PersonalKind::Phone, "+358 9 4250 1000", "+358"),
        (PersonalKind::Phone, "13800138000", "12800138000"),
        (PersonalKind::Plate, "京A·12345", "京I·12345"),
        (PersonalKind::Plate, "粤BD12345", "粤BDABCDE"),
        (PersonalKind::Plate, "ABC-123", "ABC-012"),
        (PersonalKind::Email, "a.b@example.fi", "a.b@example"),
        (PersonalKind::IpAddress, "192.0.2.7", "192.0.2.256"),
        (PersonalKind::IpAddress, "2001:db8::1:0:7", "12:30:45"),
        (PersonalKind::MacAddress, "00:1A:2b:3c:4d:5e", "00:00:00:00:00:00"),
        (PersonalKind::PersonName, "欧阳志明", "长安街"),
        (PersonalKind::PersonName, "Aino Mäkelä", "Senate Square"),
    ] {
        assert!(kind.fits(good), "{kind:?} {good}");
        assert!(!kind.fits(bad), "{kind:?} {bad}");
    }
}
