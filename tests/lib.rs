//! End-to-end tests of the built binary with real clients: see the folder `end_to_end`.
