//! What could not become a row, and why.

use std::sync::Arc;

/// One rejected message or row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// Index of the message in its window ([`crate::Decoder`]), or of the row in its batch ([`crate::Transform`]).
    pub index: u32,
    /// A short, stable code in snake case: `invalid_json`, `wrong_type`, `missing_value`, `out_of_range`, `duplicate`.
    pub reason: Arc<str>,
    /// What is wrong, for a person: the field, the value, the bound.
    pub detail: String,
}

/// The rejects of one window or batch, in the order in which they were found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rejects(pub Vec<Reject>);

impl Rejects {
    /// Adds one.
    pub fn push(&mut self, index: usize, reason: &str, detail: impl Into<String>) {
        self.0.push(Reject {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            reason: reason.into(),
            detail: detail.into(),
        });
    }
}
