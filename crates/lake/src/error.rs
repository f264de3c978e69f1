//! Foreign errors become the project's error, sorted by who must act.

use datafusion::error::DataFusionError;
use deltalake_core::DeltaTableError;
use object_store::Error as StoreError;
use twinlake_contracts::Error;

/// An object store's error. What another attempt cannot mend is permanent, the rest (a full disk, a network) may pass.
pub(crate) fn store(system: &str, error: &StoreError) -> Error {
    match error {
        StoreError::NotFound { .. }
        | StoreError::InvalidPath { .. }
        | StoreError::NotSupported { .. }
        | StoreError::NotImplemented { .. }
        | StoreError::PermissionDenied { .. }
        | StoreError::Unauthenticated { .. }
        | StoreError::UnknownConfigurationKey { .. } => Error::permanent(system, error),
        _ => Error::transient(system, error),
    }
}

/// A Delta table's error; `system` names the table with its location.
pub(crate) fn delta(system: &str, error: &DeltaTableError) -> Error {
    match error {
        DeltaTableError::ObjectStore { source } => store(system, source),
        DeltaTableError::SchemaMismatch { .. } => Error::config(format!("{system}: {error}")),
        // The Delta kernel wraps the object store's errors beyond recognition; another attempt does no harm.
        DeltaTableError::Transaction { .. }
        | DeltaTableError::VersionAlreadyExists(_)
        | DeltaTableError::Io { .. }
        | DeltaTableError::KernelError(_)
        // Data files are written and read over the store; a file that is damaged fails again.
        | DeltaTableError::Parquet { .. }
        | DeltaTableError::GenericError { .. } => Error::transient(system, error),
        _ => Error::permanent(system, error),
    }
}

/// DataFusion's error while a table is prepared for reading.
pub(crate) fn datafusion(system: &str, error: &DataFusionError) -> Error {
    match error.find_root() {
        DataFusionError::ObjectStore(_)
        | DataFusionError::IoError(_)
        | DataFusionError::ParquetError(_)
        | DataFusionError::External(_) => Error::transient(system, error),
        _ => Error::permanent(system, error),
    }
}
