//! The lake: durable log, fresh rows, Delta tables on an object store, and the meta tables.
