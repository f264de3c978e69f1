//! The last few things that were made, for runs that come again and again on the same network.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// So many are kept.
const KEPT: usize = 4;

/// What was made last, the last used first. Which of them are kept changes how long a run takes, never what it gives.
pub(crate) struct Recent<T>(Mutex<Vec<Arc<T>>>);

impl<T> Recent<T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// One that `is_it`, if there is one.
    pub(crate) fn find(&self, is_it: impl Fn(&T) -> bool) -> Option<Arc<T>> {
        // Looked at without the lock: other threads look, too.
        let all = self.lock().clone();
        let found = all.into_iter().find(|one| is_it(one))?;
        let mut recent = self.lock();
        if let Some(at) = recent.iter().position(|one| Arc::ptr_eq(one, &found)) {
            recent[..=at].rotate_right(1);
        }
        Some(found)
    }

    /// Keeps what was made, instead of what was not used for longest.
    pub(crate) fn keep(&self, made: T) -> Arc<T> {
        let made = Arc::new(made);
        let mut recent = self.lock();
        recent.insert(0, Arc::clone(&made));
        recent.truncate(KEPT);
        made
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_used_are_kept() {
        let recent = Recent::new();
        let there = |wanted: usize| recent.find(|one| *one == wanted).is_some();
        for made in 0..KEPT {
            assert!(!there(made));
            recent.keep(made);
        }
        assert!(there(0));
        recent.keep(KEPT);
        assert!(there(0) && there(KEPT) && !there(1));
    }
}
