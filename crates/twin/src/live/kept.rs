//! The state of a version of a table, kept on this machine, so that a process that begins folds what came since then and not
//! the whole table.
//!
//! Two files a model: the state, an Arrow IPC file of its rows with the log sequence that breaks ties, and a manifest in JSON
//! that names it with the table's version, a checksum (SHA-256), and what the state was made for: the model, the table and its
//! columns. The state is written and synced first, then the manifest takes the place of the one before in one rename; so whatever
//! dies when, the manifest that is there names a whole state, of the last time or of this one. What does not fit, is torn or
//! cannot be read is left aside with a line in the log: the table has everything.
//!
//! What is kept is the fold of *committed* rows. Fresh rows come again from the durable log, and may then be others (of another
//! pipeline text); a state that had them in it could not forget them.

use std::fmt::Write as _;
use std::fs;
use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use twinlake_contracts::{Error, Result};
use twinlake_lake::LakeTable;

use super::readings::Shape;
use super::state::Readings;
use crate::model::TwinModel;

/// Raised when the files mean something else.
const FORMAT: u32 = 1;
/// The column, in the file, with the place of a row's message in its log.
const SEQUENCE: &str = "__sequence";

/// Where the state of a model is kept, and for what.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    folder: PathBuf,
    model: String,
    /// What the state depends on, beside the rows.
    made_for: String,
}

/// What the manifest says.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    /// The file with the state, beside the manifest.
    state: String,
    sha256: String,
    made_for: String,
    version: u64,
    instances: u64,
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Kept {
    /// For a model over its table, in a folder that need not be there.
    pub(super) fn new(folder: &Path, model: &TwinModel, table: &LakeTable) -> Self {
        // Names and types: the order of a field's metadata is not the same in every process.
        let columns = table.schema();
        let columns = columns.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type()));
        let said = serde_json::json!({
            "version": model.version, "key": model.key, "telemetry": model.telemetry, "properties": model.properties,
            "table": table.location(), "id": table.id(), "columns": columns.collect::<Vec<_>>(),
        });
        Self { folder: folder.to_owned(), model: model.name.clone(), made_for: hex(said.to_string()) }
    }

    fn manifest(&self) -> PathBuf {
        self.folder.join(format!("{}.json", self.model))
    }

    /// The kept state and the version that it is of; `None` when there is none that fits. Blocking.
    pub(super) fn read(&self, shape: &Shape) -> Option<(u64, Vec<Readings>)> {
        match self.try_read(shape) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(model = self.model, %error, "the kept state is left aside, and the table folded");
                None
            }
        }
    }

    fn try_read(&self, shape: &Shape) -> Result<Option<(u64, Vec<Readings>)>> {
        let text = match fs::read(self.manifest()) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("read", &error)),
        };
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|error| self.failed("understood", &error))?;
        if manifest.format != FORMAT || manifest.made_for != self.made_for {
            tracing::info!(
                model = self.model,
                "the kept state is of another model, table or program; the table is folded"
            );
            return Ok(None);
        }
        // A manifest that leads elsewhere is none of ours.
        let name = Path::new(&manifest.state)
            .file_name()
            .ok_or_else(|| self.failed("found", &"no file is named"))?;
        let bytes = fs::read(self.folder.join(name)).map_err(|error| self.failed("read", &error))?;
        if hex(&bytes) != manifest.sha256 {
            return Err(self.failed("trusted", &"its checksum is another one"));
        }
        let reader = FileReader::try_new(Cursor::new(bytes), None)?;
        if *reader.schema() != *stored_schema(shape) {
            return Err(self.failed("understood", &"its columns are others"));
        }
        let mut readings = Vec::new();
        for batch in reader {
            readings.push(of_stored(shape, &batch?)?);
        }
        Ok(Some((manifest.version, readings)))
    }

    /// Keeps the state of a version in place of the one before. Blocking.
    pub(super) fn write(
        &self,
        shape: &Shape,
        version: u64,
        rows: &[(RecordBatch, Int64Array)],
    ) -> Result<()> {
        let failed = |error: std::io::Error| self.failed("written", &error);
        fs::create_dir_all(&self.folder).map_err(failed)?;
        let schema = stored_schema(shape);
        let mut writer = FileWriter::try_new(Vec::new(), &schema)?;
        let mut instances = 0;
        for (rows, sequence) in rows {
            let columns = rows.columns().iter().cloned().chain([Arc::new(sequence.clone()) as ArrayRef]);
            writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns.collect())?)?;
            instances += rows.num_rows() as u64;
        }
        let bytes = writer.into_inner()?;
        let sha256 = hex(&bytes);
        let state = format!("{}-{version}-{}.arrow", self.model, &sha256[..8]);
        write_durably(&self.folder.join(&state), &bytes).map_err(failed)?;
        let manifest = Manifest {
            format: FORMAT,
            state: state.clone(),
            sha256,
            made_for: self.made_for.clone(),
            version,
            instances,
        };
        let text = serde_json::to_vec(&manifest).map_err(|error| self.failed("written", &error))?;
        write_durably(&self.manifest(), &text).map_err(failed)?;
        self.forget_others(&state);
        Ok(())
    }

    /// Deletes states that the manifest no longer names.
    fn forget_others(&self, kept: &str) {
        let own = format!("{}-", self.model);
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let rest = name.strip_prefix(&own).and_then(|rest| rest.strip_suffix(".arrow"));
            // `<version>-<checksum>`: not the state of a model whose name begins alike.
            let is_ours = rest.is_some_and(|rest| {
                rest.split_once('-').is_some_and(|(version, _)| version.bytes().all(|b| b.is_ascii_digit()))
            });
            if is_ours
                && name != kept
                && let Err(error) = fs::remove_file(entry.path())
            {
                tracing::debug!(%error, "an old state stays");
            }
        }
    }

    fn failed(&self, what: &str, error: &dyn std::fmt::Display) -> Error {
        let place = self.manifest();
        Error::permanent(format!("kept state {}", place.display()), format!("it cannot be {what}: {error}"))
    }
}

/// Puts bytes in the place of a file in one step that a loss of power does not undo by half.
fn write_durably(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let part = path.with_extension(format!("part-{}", std::process::id()));
    let mut file = fs::File::create(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&part, path)?;
    match path.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// The columns of the state and the log sequence.
fn stored_schema(shape: &Shape) -> SchemaRef {
    let fields = shape.schema.fields().iter().map(|field| field.as_ref().clone());
    Arc::new(Schema::new(fields.chain([Field::new(SEQUENCE, DataType::Int64, true)]).collect::<Vec<_>>()))
}

/// Rows of the file as readings.
fn of_stored(shape: &Shape, stored: &RecordBatch) -> Result<Readings> {
    let count = shape.schema.fields().len();
    let rows = stored.project(&(0..count).collect::<Vec<_>>())?.with_schema(Arc::clone(&shape.schema))?;
    let time = |place: usize| {
        let times = rows.column(place).as_primitive_opt::<TimestampMicrosecondType>().cloned();
        times.ok_or_else(|| Error::internal("a kept state without times"))
    };
    let (valid, known) = (time(count - 2)?, time(count - 1)?);
    let sequence = stored.column(count).as_primitive_opt::<Int64Type>().cloned();
    let keys = Arc::clone(rows.column(shape.key));
    if keys.null_count() > 0 || valid.null_count() > 0 {
        return Err(Error::internal("a kept state without keys or times"));
    }
    let places = shape.geometry.as_ref().map(|(place, _)| rows.column(*place).as_binary::<i32>().clone());
    Ok(Readings {
        keys,
        valid,
        known,
        sequence: sequence.ok_or_else(|| Error::internal("a kept state without sequences"))?,
        places,
        rows,
    })
}
