//! Whether the process is ready for work, told by those who know.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

/// A shared list of conditions, each met or not. Ready means that every condition is met; with none required, ready.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    conditions: Arc<RwLock<BTreeMap<String, bool>>>,
}

impl Readiness {
    /// A list without conditions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a condition, for example `lake` or `pipelines`; the first call makes it required.
    pub fn set(&self, condition: &str, met: bool) {
        let mut conditions = self.conditions.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        conditions.insert(condition.to_owned(), met);
    }

    /// Whether every condition is met.
    pub fn is_ready(&self) -> bool {
        self.conditions().values().all(|met| *met)
    }

    /// All conditions, by name.
    pub fn conditions(&self) -> BTreeMap<String, bool> {
        self.conditions.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_condition_is_met() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        readiness.set("lake", true);
        readiness.set("pipelines", false);
        assert!(!readiness.is_ready());
        readiness.clone().set("pipelines", true);
        assert!(readiness.is_ready());
    }
}
