//! No code: see `Cargo.toml`. One feature set of third-party crates for every selection of ours.
