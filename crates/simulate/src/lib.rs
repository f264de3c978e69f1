//! Simulation operators: pure functions from a snapshot and a seed to future rows.
