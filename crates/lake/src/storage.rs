//! Where a lake lies: a folder or an object store, and the local folder of its logs.

use std::path::PathBuf;
use std::sync::Arc;

use deltalake_core::logstore::{LogStoreRef, StorageConfig, default_logstore};
use object_store::ObjectStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use twinlake_contracts::{Error, Result, TableName};
use url::Url;

use crate::cache::{BlockCache, CacheOptions, CachedStore};
use crate::durable::{DurableLocal, create_directory};
use crate::error;
use crate::log::LogOptions;

/// How the names of environment variables begin that set up an object store.
const STORE_VARIABLES: [&str; 4] = ["AWS_", "AZURE_", "GOOGLE_", "OBJECT_STORE_"];

/// The settings of object stores that this process's environment holds.
pub(crate) fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars().filter(|(key, _)| STORE_VARIABLES.iter().any(|prefix| key.starts_with(prefix)))
}

/// How a lake is opened. The default suits a development machine and a single server.
#[derive(Debug, Clone)]
pub struct LakeOptions {
    /// Where the durable logs of a lake on an object store lie; a local lake keeps them within itself.
    pub local_dir: PathBuf,
    /// The durable logs.
    pub log: LogOptions,
    /// How many bytes of rows of one table may wait for their commit. A batch beyond that is refused with a
    /// transient error until a commit made room; a single batch is always taken by an empty table.
    pub fresh_limit_bytes: usize,
    /// After how many commits a table gets a Delta checkpoint, so that opening it reads few files.
    pub checkpoint_interval: u64,
    /// Settings for the object store (`aws_region`, `aws_endpoint`, …), before those of the environment.
    pub storage: Vec<(String, String)>,
    /// What is kept of the data files of a lake on an object store; a local lake needs none.
    pub cache: CacheOptions,
}

impl Default for LakeOptions {
    fn default() -> Self {
        Self {
            local_dir: PathBuf::from("./twinlake-data"),
            log: LogOptions::default(),
            fresh_limit_bytes: 1 << 30,
            checkpoint_interval: 50,
            storage: Vec::new(),
            cache: CacheOptions::default(),
        }
    }
}

/// An opened place for tables, states and logs.
#[derive(Debug)]
pub(crate) struct Storage {
    /// The store from its root on; locations start with `prefix`.
    pub root: Arc<dyn ObjectStore>,
    /// The lake's location in `root`.
    pub prefix: Path,
    /// The lake's address, ending in `/`.
    pub url: Url,
    /// The folder of the durable logs.
    pub logs: PathBuf,
}

impl Storage {
    /// Opens `text`: a path, `file://…`, or an object store's URL. A local folder is created if it is not there.
    pub(crate) fn open(text: &str, options: &LakeOptions) -> Result<Self> {
        match Url::parse(text) {
            Ok(url) if url.scheme() == "file" => {
                let path = url
                    .to_file_path()
                    .map_err(|()| Error::config(format!("'{text}' is not a path on this machine")))?;
                Self::local(path)
            }
            // A single letter is a drive, not a scheme.
            Ok(url) if url.scheme().len() > 1 => Self::remote(url, options),
            _ => Self::local(PathBuf::from(text)),
        }
    }

    /// Reads data files through a cache, if the lake lies on an object store.
    pub(crate) async fn cached(&mut self, options: &CacheOptions) -> Option<Arc<BlockCache>> {
        if self.url.scheme() == "file" {
            return None;
        }
        let cache = BlockCache::open(options).await?;
        self.root = Arc::new(CachedStore::new(Arc::clone(&self.root), Arc::clone(&cache)));
        Some(cache)
    }

    fn local(path: PathBuf) -> Result<Self> {
        let system = || format!("lake {}", path.display());
        create_directory(&path).map_err(|error| Error::permanent(system(), error))?;
        let path = path.canonicalize().map_err(|error| Error::permanent(system(), error))?;
        let url = Url::from_directory_path(&path)
            .map_err(|()| Error::config(format!("'{}' is not an absolute path", path.display())))?;
        let prefix = Path::from_absolute_path(&path).map_err(|error| Error::config(error.to_string()))?;
        Ok(Self { root: Arc::new(DurableLocal::new()), prefix, url, logs: path.join("_log") })
    }

    fn remote(mut url: Url, options: &LakeOptions) -> Result<Self> {
        if !url.path().ends_with('/') {
            let path = format!("{}/", url.path());
            url.set_path(&path);
        }
        // Later settings win: what the caller says stands above the environment.
        let settings = environment().chain(options.storage.iter().cloned());
        let (root, prefix) = object_store::parse_url_opts(&url, settings).map_err(|error| {
            Error::config(format!("cannot open the lake at {url}: {error}")).with_help(
                "a lake is a folder, file:///…, s3://bucket/path, gs://bucket/path or az://container/path",
            )
        })?;
        let name: String =
            url.as_str().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let logs = options.local_dir.join("_log").join(name.trim_matches('-'));
        Ok(Self { root: Arc::from(root), prefix, url, logs })
    }

    /// The address of a table, ending in `/`.
    pub(crate) fn table_url(&self, name: &TableName) -> Result<Url> {
        self.url.join(&format!("{}/{}/", name.schema, name.table)).map_err(Error::internal)
    }

    /// The Delta log store of a table.
    pub(crate) fn log_store(&self, name: &TableName) -> Result<LogStoreRef> {
        let location = self
            .prefix
            .parts()
            .chain([name.schema.as_str().into(), name.table.as_str().into()])
            .collect::<Path>();
        let prefixed: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(Arc::clone(&self.root), location));
        let url = self.table_url(name)?;
        Ok(default_logstore(prefixed, Arc::clone(&self.root), &url, &StorageConfig::default()))
    }

    /// A location within the lake.
    pub(crate) fn location(&self, parts: &[&str]) -> Path {
        self.prefix.parts().chain(parts.iter().map(|part| (*part).into())).collect()
    }

    /// The names of the tables' folders: every `<schema>/<table>/` whose names are words and do not start with `_`.
    pub(crate) async fn table_names(&self) -> Result<Vec<TableName>> {
        let system = format!("lake {}", self.url);
        let mut names = Vec::new();
        let schemas = self.root.list_with_delimiter(Some(&self.prefix)).await;
        for schema in schemas.map_err(|error| error::store(&system, &error))?.common_prefixes {
            let Some(word) = schema.filename().filter(|word| !word.starts_with('_')) else { continue };
            let tables = self.root.list_with_delimiter(Some(&schema)).await;
            for table in tables.map_err(|error| error::store(&system, &error))?.common_prefixes {
                let name =
                    table.filename().and_then(|table| TableName::parse(&format!("{word}.{table}")).ok());
                names.extend(name);
            }
        }
        names.sort();
        Ok(names)
    }
}
