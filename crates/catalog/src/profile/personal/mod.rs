//! Personal data in the values of a column: one file a kind.
//!
//! Precision comes first. A kind with check digits (identity numbers, cards, IBAN, IMEI) is believed because they hold;
//! one without (phones, plates, names) needs a shape that little else has, most of the values, and where the shape is
//! common a column name that says so. A column is labelled when enough of its distinct values fit: see [`Finding`].

mod identity;
mod names;
mod network;
mod phones;
mod plates;

use std::collections::HashSet;

use serde::Serialize;

/// A kind of personal data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PersonalKind {
    /// A person's name.
    PersonName,
    /// A telephone number: E.164, or a Chinese mobile number.
    Phone,
    /// A vehicle's registration plate: Chinese, Finnish, or of another European country.
    Plate,
    /// The number of a Chinese resident identity card (GB 11643-1999).
    ChineseResidentId,
    /// A Finnish personal identity code (henkilötunnus).
    FinnishPersonalId,
    /// A United States social security number.
    SocialSecurityNumber,
    /// An International Bank Account Number (ISO 13616).
    Iban,
    /// A payment card's number (ISO/IEC 7812).
    PaymentCard,
    /// An e-mail address.
    Email,
    /// An Internet address, version 4 or 6.
    IpAddress,
    /// A network card's address (MAC, EUI-48).
    MacAddress,
    /// A mobile device's number (IMEI).
    Imei,
    /// Where a person or a device is at night, again and again.
    HomeLocation,
}

impl PersonalKind {
    /// All kinds that single values tell, the most telling first.
    pub(crate) const OF_VALUES: [Self; 12] = [
        Self::ChineseResidentId,
        Self::FinnishPersonalId,
        Self::Iban,
        Self::Email,
        Self::MacAddress,
        Self::IpAddress,
        Self::PaymentCard,
        Self::Imei,
        Self::SocialSecurityNumber,
        Self::Phone,
        Self::Plate,
        Self::PersonName,
    ];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::PersonName => "person_name",
            Self::Phone => "phone",
            Self::Plate => "plate",
            Self::ChineseResidentId => "chinese_resident_id",
            Self::FinnishPersonalId => "finnish_personal_id",
            Self::SocialSecurityNumber => "social_security_number",
            Self::Iban => "iban",
            Self::PaymentCard => "payment_card",
            Self::Email => "email",
            Self::IpAddress => "ip_address",
            Self::MacAddress => "mac_address",
            Self::Imei => "imei",
            Self::HomeLocation => "home_location",
        }
    }

    /// Whether a value has the shape and the check digits of the kind.
    pub(crate) fn fits(self, value: &str) -> bool {
        match self {
            Self::PersonName => names::is_name(value),
            Self::Phone => phones::is_phone(value),
            Self::Plate => plates::is_plate(value),
            Self::ChineseResidentId => identity::is_chinese_resident_id(value),
            Self::FinnishPersonalId => identity::is_finnish_personal_id(value),
            Self::SocialSecurityNumber => identity::is_social_security_number(value),
            Self::Iban => identity::is_iban(value),
            Self::PaymentCard => identity::is_payment_card(value),
            Self::Email => network::is_email(value),
            Self::IpAddress => network::is_ip_address(value),
            Self::MacAddress => network::is_mac_address(value),
            Self::Imei => identity::is_imei(value),
            Self::HomeLocation => false,
        }
    }

    /// Words in a column's name that speak for the kind; the kinds whose shape is common need one of them, or
    /// another shape that is not common.
    fn words(self) -> &'static [&'static str] {
        match self {
            Self::PersonName => &[
                "person",
                "owner",
                "driver",
                "passenger",
                "customer",
                "contact",
                "first_name",
                "last_name",
                "surname",
                "firstname",
                "lastname",
                "given_name",
                "family_name",
                "full_name",
                "fullname",
                "employee",
                "author",
                "resident",
                "holder",
                "user_name",
                "username",
                "patient",
                "姓名",
                "名字",
                "联系人",
                "司机",
                "车主",
                "etunimi",
                "sukunimi",
                "nimi",
            ],
            Self::Phone => {
                &["phone", "mobile", "tel", "telephone", "msisdn", "cell", "fax", "手机", "电话", "puhelin"]
            }
            Self::Plate => &["plate", "licence", "license", "registration", "reg_no", "车牌", "rekisteri"],
            Self::SocialSecurityNumber => &["ssn", "social_security", "social"],
            Self::PaymentCard => &["card", "pan", "卡号", "kortti"],
            Self::Imei => &["imei", "device", "tac"],
            Self::IpAddress => &["ip", "address", "host", "client", "remote", "peer"],
            _ => &[],
        }
    }

    /// Whether a value of the kind may be told by its digits alone, so that the name of the column must speak for it.
    fn needs_a_word(self) -> bool {
        matches!(self, Self::PaymentCard | Self::Imei)
    }

    /// Whether a column's name speaks for the kind.
    fn is_named(self, column: &str) -> bool {
        let lower = column.to_lowercase();
        let parts: Vec<&str> =
            lower.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty()).collect();
        self.words().iter().any(|word| {
            if word.is_ascii() && !word.contains('_') { parts.contains(word) } else { lower.contains(word) }
        })
    }
}

/// A kind of personal data found in a column.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// Which kind.
    pub kind: PersonalKind,
    /// Which part of the distinct values looked at is of the kind, 0 to 1.
    pub part: f64,
    /// How sure it is, 0 to 1: the part of the values, with what the column's name adds or takes.
    pub confidence: f64,
}

/// The least number of distinct values from which a column without a telling name is judged.
const ENOUGH_VALUES: usize = 3;
/// The part of values of kinds with a strict shape that labels a column.
const STRICT_PART: f64 = 0.3;
/// The part of values of kinds with a common shape that labels a column.
const COMMON_PART: f64 = 0.7;

/// Counts how many distinct values of a column are of each kind.
#[derive(Debug, Clone, Default)]
pub(crate) struct Personal {
    values: usize,
    fitting: [usize; PersonalKind::OF_VALUES.len()],
    /// Names with a part that many people have.
    known_names: usize,
    /// Plates in a writing system that nothing else of this shape uses.
    plates_in_chinese: usize,
    /// The letters in front of plates: codes of things have few of them, plates many.
    plate_letters: HashSet<String>,
    /// Numbers that follow the one before closely.
    numbers_that_run: usize,
    previous: Option<u64>,
}

impl Personal {
    /// Takes a distinct value.
    pub(crate) fn add(&mut self, value: &str) {
        let value = value.trim();
        if value.is_empty() {
            return;
        }
        self.values += 1;
        for (at, kind) in PersonalKind::OF_VALUES.iter().enumerate() {
            self.fitting[at] += usize::from(kind.fits(value));
        }
        self.known_names += usize::from(names::has_known_part(value));
        if PersonalKind::Plate.fits(value) {
            self.plates_in_chinese += usize::from(!value.is_ascii());
            self.plate_letters.insert(value.chars().take_while(|c| c.is_alphabetic()).collect());
        }
        // Numbers that are counted up are identifiers of rows, whatever their check digits say.
        let number = value.parse::<u64>().ok();
        if let (Some(previous), Some(number)) = (self.previous, number) {
            self.numbers_that_run += usize::from(number.abs_diff(previous) <= 10);
        }
        self.previous = number;
    }

    /// What the column holds, the most certain first.
    pub(crate) fn findings(&self, column: &str) -> Vec<Finding> {
        let mut found = Vec::new();
        if self.values == 0 {
            return found;
        }
        let runs = self.numbers_that_run * 2 > self.values;
        for (at, kind) in PersonalKind::OF_VALUES.iter().enumerate() {
            let part = self.fitting[at] as f64 / self.values as f64;
            if part == 0.0 || runs {
                continue;
            }
            let named = kind.is_named(column);
            let is_strict = matches!(
                kind,
                PersonalKind::ChineseResidentId
                    | PersonalKind::FinnishPersonalId
                    | PersonalKind::Iban
                    | PersonalKind::Email
                    | PersonalKind::MacAddress
            );
            let enough = self.values >= ENOUGH_VALUES || named || is_strict;
            let needed = if is_strict || named { STRICT_PART } else { COMMON_PART };
            let mut believed = enough && part >= needed && (named || !kind.needs_a_word());
            let mut confidence = if named { 0.5 + part / 2.0 } else { part };
            if *kind == PersonalKind::PersonName {
                // Places and things have two capitalised words too: without a telling column name the parts themselves
                // must be names that people have.
                let known = self.known_names as f64 / self.values as f64;
                believed = enough && part >= COMMON_PART && (known >= 0.5 || (named && known >= 0.15));
                confidence = if named { 0.5 + part * known / 2.0 } else { part * known };
            }
            if *kind == PersonalKind::Plate && !named {
                let fitting = self.fitting[at];
                let many_letters = fitting >= 10 && self.plate_letters.len() * 2 > fitting;
                believed &= self.plates_in_chinese * 2 > fitting || many_letters;
            }
            if *kind == PersonalKind::IpAddress && !named {
                // Versions have four numbers with dots between them, too.
                let lower = column.to_lowercase();
                believed &=
                    !["version", "release", "build", "firmware"].iter().any(|word| lower.contains(word));
            }
            if believed {
                found.push(Finding { kind: *kind, part, confidence: confidence.min(1.0) });
            }
        }
        // Digits of one kind can pass for another: the kind with check digits wins.
        let strict = found.iter().any(|finding| {
            matches!(
                finding.kind,
                PersonalKind::ChineseResidentId | PersonalKind::FinnishPersonalId | PersonalKind::Iban
            )
        });
        if strict {
            found.retain(|finding| {
                !matches!(
                    finding.kind,
                    PersonalKind::PaymentCard
                        | PersonalKind::Phone
                        | PersonalKind::Imei
                        | PersonalKind::Plate
                )
            });
        }
        found.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
        found
    }
}

#[cfg(test)]
mod tests;
