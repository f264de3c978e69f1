//! Operator states: one object a log sequence, `_state/<pipeline>/<sequence>`.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStoreExt as _};
use twinlake_contracts::{Error, Result};

use crate::error;
use crate::storage::Storage;

const FOLDER: &str = "_state";

/// A pipeline's name becomes a folder: letters, digits, `_`, `-` and `.`, not starting with `.` or `_`.
pub(crate) fn check_pipeline_name(name: &str) -> Result<()> {
    let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let rest = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if starts && rest && name.len() <= 200 {
        return Ok(());
    }
    Err(Error::config(format!("'{name}' cannot name a pipeline"))
        .with_help("use letters, digits, '-', '_' and '.', starting with a letter or digit"))
}

fn folder(storage: &Storage, pipeline: &str) -> Path {
    storage.location(&[FOLDER, pipeline])
}

fn object(storage: &Storage, pipeline: &str, sequence: u64) -> Path {
    // Twenty digits: lists come in the order of the sequences.
    storage.location(&[FOLDER, pipeline, &format!("{sequence:020}")])
}

/// Stores a state in one atomic put, then deletes those of sequences below `keep_from`.
pub(crate) async fn put(
    storage: &Storage,
    pipeline: &str,
    sequence: u64,
    keep_from: u64,
    state: Vec<u8>,
) -> Result<()> {
    check_pipeline_name(pipeline)?;
    let system = format!("state of pipeline '{pipeline}' in {}", storage.url);
    let at = object(storage, pipeline, sequence);
    storage.root.put(&at, Bytes::from(state).into()).await.map_err(|e| error::store(&system, &e))?;
    let old: Vec<Path> = sequences(storage, pipeline)
        .await?
        .into_iter()
        .filter(|known| *known < keep_from && *known != sequence)
        .map(|known| object(storage, pipeline, known))
        .collect();
    let locations = futures::stream::iter(old.into_iter().map(Ok)).boxed();
    let deleted: Result<Vec<Path>, StoreError> = storage.root.delete_stream(locations).try_collect().await;
    match deleted {
        // What could not be deleted now is deleted with the next state: the state itself is safe.
        Err(error) => tracing::debug!(pipeline, %error, "old states stay for now"),
        Ok(deleted) => tracing::trace!(pipeline, count = deleted.len(), "deleted old states"),
    }
    Ok(())
}

/// The state stored for exactly that sequence.
pub(crate) async fn get(storage: &Storage, pipeline: &str, sequence: u64) -> Result<Option<Vec<u8>>> {
    check_pipeline_name(pipeline)?;
    let system = format!("state of pipeline '{pipeline}' in {}", storage.url);
    match storage.root.get(&object(storage, pipeline, sequence)).await {
        Ok(found) => {
            let bytes = found.bytes().await.map_err(|error| error::store(&system, &error))?;
            Ok(Some(bytes.to_vec()))
        }
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error::store(&system, &error)),
    }
}

/// The sequences that have a state, in order.
pub(crate) async fn sequences(storage: &Storage, pipeline: &str) -> Result<Vec<u64>> {
    let system = format!("state of pipeline '{pipeline}' in {}", storage.url);
    let listed: Result<Vec<_>, StoreError> =
        storage.root.list(Some(&folder(storage, pipeline))).try_collect().await;
    let mut sequences: Vec<u64> = match listed {
        Ok(objects) => objects
            .iter()
            .filter_map(|object| object.location.filename().and_then(|name| name.parse().ok()))
            .collect(),
        Err(StoreError::NotFound { .. }) => Vec::new(),
        Err(error) => return Err(error::store(&system, &error)),
    };
    sequences.sort_unstable();
    Ok(sequences)
}
