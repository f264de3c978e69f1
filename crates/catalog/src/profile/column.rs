//! One column, profiled in one pass.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde::Serialize;
use twinlake_contracts::{Result, is_geometry};

use super::distinct::Distinct;
use super::personal::{Finding, Personal};
use super::text_types::TextTypes;
use super::units::{self, Range, UnitProposal};
use super::{hash_of, mixed};

/// How many values are kept for quantiles; up to here they are exact.
const KEPT: usize = 20_000;
/// How many different values are counted; when there are more, rare ones are forgotten.
const COUNTED: usize = 4_096;
/// How many frequent values are told.
const TOP: usize = 5;
/// How many distinct texts are looked at for types and personal data.
const LOOKED_AT: u64 = 5_000;
/// The longest text that is looked at, in bytes.
const LONGEST_TEXT: usize = 400;
/// How many groups of nearly equal texts are told.
const NEAR_GROUPS: usize = 5;

/// What a column holds.
#[derive(Debug, Clone, Serialize)]
pub struct ColumnProfile {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub data_type: String,
    /// Rows without a value.
    pub nulls: u64,
    /// Different values.
    pub distinct: u64,
    /// Whether that is counted and not estimated (HyperLogLog, about 1 %).
    pub distinct_is_exact: bool,
    /// The least value.
    pub min: Option<String>,
    /// The greatest value.
    pub max: Option<String>,
    /// The mean of numbers.
    pub mean: Option<f64>,
    /// The standard deviation of numbers, of a sample.
    pub standard_deviation: Option<f64>,
    /// Numbers at 5, 25, 50, 75 and 95 %; of up to 20,000 values chosen by chance.
    pub quantiles: Option<[f64; 5]>,
    /// The most frequent values with their counts.
    pub top: Vec<(String, u64)>,
    /// The type that the texts seem to have.
    pub proposed_type: Option<String>,
    /// How many of the texts looked at do not have it.
    pub not_of_that_type: u64,
    /// The unit that the numbers seem to have.
    pub proposed_unit: Option<UnitProposal>,
    /// Personal data that it seems to hold.
    pub personal: Vec<Finding>,
    /// Texts that differ in case, spaces or signs alone.
    pub near_duplicates: Vec<Vec<String>>,
}

/// The accumulator of a column.
pub(crate) struct Column {
    field: Field,
    nulls: u64,
    values: u64,
    distinct: Distinct,
    numbers: Numbers,
    counts: HashMap<String, u64>,
    forgot: bool,
    types: TextTypes,
    personal: Personal,
    looked_at: u64,
    least: Option<String>,
    greatest: Option<String>,
    near: HashMap<String, Vec<String>>,
}

/// Figures of numbers (Welford 1962 for the variance, reservoir of Vitter 1985 for quantiles).
#[derive(Default)]
struct Numbers {
    count: u64,
    mean: f64,
    squares: f64,
    min: f64,
    max: f64,
    kept: Vec<f64>,
}

impl Numbers {
    fn add(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        self.count += 1;
        if self.count == 1 {
            (self.min, self.max) = (value, value);
        }
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        let away = value - self.mean;
        self.mean += away / self.count as f64;
        self.squares += away * (value - self.mean);
        if self.kept.len() < KEPT {
            self.kept.push(value);
        } else {
            // The same rows give the same choice.
            let at = (mixed(self.count) % self.count) as usize;
            if at < KEPT {
                self.kept[at] = value;
            }
        }
    }

    fn quantiles(&self) -> Option<[f64; 5]> {
        let mut sorted = self.kept.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        Some([0.05, 0.25, 0.5, 0.75, 0.95].map(|part| sorted[(part * last as f64).round() as usize]))
    }
}

/// The form in which nearly equal texts are equal: lower case, letters and digits alone.
fn plain(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

impl Column {
    pub(crate) fn new(field: &Field) -> Self {
        Self {
            field: field.clone(),
            nulls: 0,
            values: 0,
            distinct: Distinct::default(),
            numbers: Numbers::default(),
            counts: HashMap::new(),
            forgot: false,
            types: TextTypes::default(),
            personal: Personal::default(),
            looked_at: 0,
            least: None,
            greatest: None,
            near: HashMap::new(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.field.name()
    }

    /// Whether its values are numbers.
    pub(crate) fn is_numeric(&self) -> bool {
        self.field.data_type().is_numeric()
    }

    fn is_text(&self) -> bool {
        matches!(self.field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
            || matches!(self.field.data_type(), DataType::Dictionary(_, values) if values.as_ref() == &DataType::Utf8)
    }

    /// Takes a batch's values; gives the hash of each, 0 for a null.
    pub(crate) fn add(&mut self, array: &ArrayRef) -> Result<Vec<u64>> {
        let mut hashes = vec![0; array.len()];
        self.nulls += array.null_count() as u64;
        self.values += (array.len() - array.null_count()) as u64;
        if self.is_text() {
            let texts = cast(array, &DataType::Utf8)?;
            for (row, text) in texts.as_string::<i32>().iter().enumerate() {
                if let Some(text) = text {
                    hashes[row] = hash_of(&text);
                    self.text(text, hashes[row]);
                }
            }
            return Ok(hashes);
        }
        if self.is_numeric() {
            let numbers = cast(array, &DataType::Float64)?;
            for number in numbers.as_primitive::<Float64Type>().iter().flatten() {
                self.numbers.add(number);
            }
        }
        let is_bytes =
            matches!(self.field.data_type(), DataType::Binary | DataType::LargeBinary | DataType::BinaryView);
        if is_bytes {
            let bytes = cast(array, &DataType::Binary)?;
            for (row, value) in bytes.as_binary::<i32>().iter().enumerate() {
                if let Some(value) = value {
                    hashes[row] = hash_of(&value);
                    self.distinct.add(hashes[row]);
                }
            }
            return Ok(hashes);
        }
        let options = FormatOptions::default();
        let shown = ArrayFormatter::try_new(array, &options)?;
        for row in (0..array.len()).filter(|row| array.is_valid(*row)) {
            let text = shown.value(row).to_string();
            hashes[row] = hash_of(&text);
            let new = self.distinct.add(hashes[row]);
            let whole = self.field.data_type().is_integer();
            if whole && new && self.looked_at < LOOKED_AT {
                // Numbers of persons, cards and devices are kept as numbers, too.
                self.looked_at += 1;
                self.personal.add(&text);
            }
            if !self.is_numeric() {
                self.bound(&text);
            }
            self.count(text);
        }
        Ok(hashes)
    }

    fn text(&mut self, text: &str, hash: u64) {
        let new = self.distinct.add(hash);
        self.bound(text);
        if new && self.looked_at < LOOKED_AT && text.len() <= LONGEST_TEXT {
            self.looked_at += 1;
            self.types.add(text);
            self.personal.add(text);
            let same = self.near.entry(plain(text)).or_default();
            if !same.iter().any(|known| known == text) {
                same.push(text.to_owned());
            }
        }
        if text.len() <= LONGEST_TEXT {
            self.count(text.to_owned());
        }
    }

    fn bound(&mut self, text: &str) {
        let short = || text.chars().take(80).collect::<String>();
        if self.least.as_deref().is_none_or(|least| text < least) {
            self.least = Some(short());
        }
        if self.greatest.as_deref().is_none_or(|greatest| text > greatest) {
            self.greatest = Some(short());
        }
    }

    fn count(&mut self, text: String) {
        if let Some(count) = self.counts.get_mut(&text) {
            *count += 1;
            return;
        }
        if self.counts.len() >= COUNTED {
            // The rare ones make room; what comes often comes back.
            self.forgot = true;
            self.counts.retain(|_, count| {
                *count -= 1;
                *count > 0
            });
        }
        if self.counts.len() < COUNTED {
            self.counts.insert(text, 1);
        }
    }

    /// The bounds of its numbers.
    pub(crate) fn bounds(&self) -> Option<(f64, f64)> {
        (self.numbers.count > 0).then_some((self.numbers.min, self.numbers.max))
    }

    pub(crate) fn distinct(&self) -> &Distinct {
        &self.distinct
    }

    pub(crate) fn nulls(&self) -> u64 {
        self.nulls
    }

    pub(crate) fn profile(&self) -> ColumnProfile {
        let numbers = &self.numbers;
        let of_numbers = (self.is_numeric() && numbers.count > 0).then_some(numbers);
        let quantiles = of_numbers.and_then(Numbers::quantiles);
        let mut top: Vec<(String, u64)> = self
            .counts
            .iter()
            .map(|(value, count)| (value.clone(), *count))
            .filter(|(_, count)| *count > 1)
            .collect();
        top.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        top.truncate(TOP);
        let proposal = if self.is_text() { self.types.proposal() } else { None };
        let unit = of_numbers.zip(quantiles).and_then(|(numbers, quantiles)| {
            units::propose(self.name(), Range { min: numbers.min, max: numbers.max, median: quantiles[2] })
        });
        let personal = if proposal.is_some_and(|(kind, _)| !["int64", "float64"].contains(&kind.name())) {
            Vec::new()
        } else {
            self.personal.findings(self.name())
        };
        let mut near: Vec<Vec<String>> = self
            .near
            .iter()
            .filter(|(plain, same)| same.len() > 1 && plain.chars().any(char::is_alphabetic))
            .map(|(_, same)| same.clone())
            .collect();
        near.sort();
        near.truncate(NEAR_GROUPS);
        let shown = |number: Option<f64>, text: &Option<String>| match number {
            Some(number) => Some(number.to_string()),
            None => text.clone(),
        };
        ColumnProfile {
            name: self.name().to_owned(),
            data_type: if is_geometry(&self.field) {
                "geometry".to_owned()
            } else {
                self.field.data_type().to_string()
            },
            nulls: self.nulls,
            distinct: self.distinct.count(),
            distinct_is_exact: self.distinct.is_exact(),
            min: shown(of_numbers.map(|numbers| numbers.min), &self.least),
            max: shown(of_numbers.map(|numbers| numbers.max), &self.greatest),
            mean: of_numbers.map(|numbers| numbers.mean),
            standard_deviation: of_numbers
                .filter(|numbers| numbers.count > 1)
                .map(|numbers| (numbers.squares / (numbers.count - 1) as f64).sqrt()),
            quantiles,
            top,
            proposed_type: proposal.map(|(kind, _)| kind.name().to_owned()),
            not_of_that_type: proposal.map_or(0, |(_, others)| others),
            proposed_unit: unit,
            personal,
            near_duplicates: near,
        }
    }
}
