//! The bound of memory: bytes of bodies on their way and of rows that wait for their commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that may be held at a time.
#[derive(Debug, Clone)]
pub(super) struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    held: AtomicUsize,
}

/// Bytes that are held; dropping it gives them back.
#[derive(Debug)]
pub(super) struct Held {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Inner { limit, held: AtomicUsize::new(0) }))
    }

    /// Holds bytes, if there is room for them.
    pub fn try_hold(&self, bytes: usize) -> Option<Held> {
        let room = |held: usize| held.checked_add(bytes).filter(|held| *held <= self.0.limit);
        self.0.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).ok()?;
        Some(Held { budget: self.clone(), bytes })
    }

    /// Holds bytes that are there already, room or not.
    pub fn hold(&self, bytes: usize) -> Held {
        self.0.held.fetch_add(bytes, Ordering::AcqRel);
        Held { budget: self.clone(), bytes }
    }

    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::Acquire)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.0.held.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_not_held_and_what_is_dropped_is_free() {
        let budget = Budget::new(10);
        let first = budget.try_hold(6).unwrap();
        assert!(budget.try_hold(5).is_none());
        assert!(budget.try_hold(usize::MAX).is_none());
        let rows = budget.hold(100);
        assert_eq!(budget.held(), 106);
        drop((first, rows));
        assert!(budget.try_hold(10).is_some());
    }
}
