//! The embedded broker and the `mqtt` source with clients and a broker that this project did not write: Mosquitto,
//! Eclipse Paho (Python) and npm `mqtt`.
//!
//! They are installed by `cargo xtask test`, which never skips a test; without it, a test whose client is missing says
//! so and is skipped.
#![allow(clippy::print_stdout, reason = "a test says when it is skipped")]

mod mosquitto;
mod outside;
mod restart;
mod scripts;
mod security;
mod support;
