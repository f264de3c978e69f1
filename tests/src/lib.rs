//! End-to-end tests of the built binary; see `tests/end_to_end`.
