//! The definitions that hold for a lake, and what they add to every SQL session.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use arrow::array::{RecordBatch, StringArray, TimestampMicrosecondArray};
use datafusion::prelude::SessionContext;
use sha2::{Digest as _, Sha256};
use twinlake_contracts::{Error, Result, TableName, TomlFile, now_us};
use twinlake_lake::Lake;
use twinlake_query::{Engine, Extension, Session, SessionSettings, definitions_schema};

use crate::definition::TableDefinition;
use crate::rows::Rows;
use crate::views::MetaView;

/// What `meta.definitions` is, in a sentence.
const DESCRIPTION: &str = "What the owners of tables say of them, each time it changed.";

/// All table definitions. Share it with `Arc`.
pub struct Catalog {
    /// Weak: the engine holds the catalog as its extension.
    engine: Weak<Engine>,
    lake: Arc<Lake>,
    definitions: BTreeMap<TableName, Arc<TableDefinition>>,
    origin: Origin,
}

/// Whose definitions they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Origin {
    /// Those of the lake's owner: one that does not fit its table is a mistake to be told.
    #[default]
    Own,
    /// Those that come with the program: one that does not fit a table of the same name speaks of another table, and is
    /// passed over.
    Shipped,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("definitions", &self.definitions.keys()).finish_non_exhaustive()
    }
}

impl Catalog {
    /// Reads definitions (`(file name, TOML text)` each) and adds them to every session that `engine` opens from now on.
    pub fn load(engine: &Arc<Engine>, files: Vec<(String, String)>, origin: Origin) -> Result<Arc<Self>> {
        let mut definitions = BTreeMap::new();
        for (file, text) in &files {
            let own = TableDefinition::parse(file, text)?;
            if definitions.contains_key(&own.table) {
                let message = format!("there is another definition of table '{}'", own.table);
                return Err(TomlFile::new(file, text).mistake(message, &own.table.to_string()));
            }
            definitions.insert(own.table.clone(), Arc::new(own));
        }
        let lake = Arc::clone(engine.lake());
        let catalog = Arc::new(Self { engine: Arc::downgrade(engine), lake, definitions, origin });
        engine.extend(Arc::new(CatalogExtension(Arc::clone(&catalog))));
        Ok(catalog)
    }

    /// All definitions, by table.
    pub fn definitions(&self) -> impl Iterator<Item = &Arc<TableDefinition>> {
        self.definitions.values()
    }

    /// The definition of a table.
    pub fn definition(&self, table: &TableName) -> Option<&Arc<TableDefinition>> {
        self.definitions.get(table)
    }

    /// Whether a definition fits a table with these columns.
    pub(crate) fn fits(&self, definition: &TableDefinition, columns: &[&str]) -> Result<bool> {
        match (definition.check_columns(columns), self.origin) {
            (Ok(()), _) => Ok(true),
            (Err(error), Origin::Own) => Err(error),
            (Err(error), Origin::Shipped) => {
                tracing::debug!(table = %definition.table, %error, "a shipped definition is passed over");
                Ok(false)
            }
        }
    }

    /// The lake.
    pub fn lake(&self) -> &Arc<Lake> {
        &self.lake
    }

    /// The engine, while it lives.
    pub fn engine(&self) -> Result<Arc<Engine>> {
        self.engine.upgrade().ok_or_else(|| Error::internal("the query engine is gone"))
    }

    /// A session of its own.
    pub(crate) fn session(&self) -> Result<Session> {
        self.engine()?.session(SessionSettings { local_files: false })
    }

    /// Puts the definitions that changed since they were last recorded into `meta.definitions`.
    pub async fn record_definitions(&self) -> Result<()> {
        if self.definitions.is_empty() {
            return Ok(());
        }
        let session = self.session()?;
        let known = session
            .collect(
                "SELECT table_name, fingerprint FROM (SELECT *, row_number() OVER (PARTITION BY table_name \
                 ORDER BY recorded_at DESC) AS newest FROM meta.definitions) WHERE newest = 1",
            )
            .await?;
        let known: BTreeMap<String, String> = Rows::new(&known)?
            .map(|row| {
                (row.text("table_name").unwrap_or_default(), row.text("fingerprint").unwrap_or_default())
            })
            .collect();
        let mut changed = Vec::new();
        for definition in self.definitions.values() {
            let text = serde_json::to_string(definition).map_err(Error::internal)?;
            let fingerprint = hex(&Sha256::digest(text.as_bytes()));
            if known.get(&definition.table.to_string()) != Some(&fingerprint) {
                changed.push((definition, text, fingerprint));
            }
        }
        if changed.is_empty() {
            return Ok(());
        }
        let texts = |of: &dyn Fn(&Changed<'_>) -> String| {
            Arc::new(changed.iter().map(|one| Some(of(one))).collect::<StringArray>()) as _
        };
        let columns = vec![
            texts(&|(definition, _, _)| definition.table.to_string()),
            texts(&|(definition, _, _)| definition.owner.clone()),
            texts(&|(definition, _, _)| definition.description.clone()),
            texts(&|(_, text, _)| text.clone()),
            texts(&|(_, _, fingerprint)| fingerprint.clone()),
            Arc::new(TimestampMicrosecondArray::from(vec![now_us(); changed.len()]).with_timezone("UTC"))
                as _,
        ];
        let rows = RecordBatch::try_new(definitions_schema(), columns)?;
        self.lake.append_meta("meta.definitions", DESCRIPTION, rows).await
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(u32::from(half), 16);
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(digit).collect()
}

/// A definition that is not as it was recorded, its JSON and its fingerprint.
type Changed<'a> = (&'a Arc<TableDefinition>, String, String);

/// What every session gets.
struct CatalogExtension(Arc<Catalog>);

impl Extension for CatalogExtension {
    fn register(&self, context: &SessionContext) -> datafusion::common::Result<()> {
        for (name, view) in MetaView::all(&self.0) {
            context.register_table(format!("meta.{name}"), Arc::new(view))?;
        }
        Ok(())
    }
}
