//! The built binary, driven as its users drive it: by command line, MQTT, HTTP, psql and a notebook.
//!
//! Programs that a fresh machine lacks (mosquitto, psql, a Python environment) are installed by `cargo xtask test`;
//! here a missing one is a failure, never a silent skip.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod alter;
mod apply;
mod catalog;
mod cluster;
mod command_line;
mod demo;
mod files;
mod ingest;
mod kill;
mod messages;
mod mosquitto;
mod notebook;
mod object_store;
mod other_engines;
mod postgis;
mod reprocess;
mod service;
mod support;
