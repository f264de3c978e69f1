//! Pipelines: TOML to a checked plan to a running dataflow, with tests in the pipeline's own language.
