//! The settings struct builds its component, and an explicit list knows them all.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// A component's settings: the TOML table *is* this struct. Derive `Deserialize` with
/// `#[serde(deny_unknown_fields)]` and `JsonSchema`; the doc comments become the reference.
pub trait Component: DeserializeOwned + JsonSchema + Send + 'static {
    /// The value of `type` in TOML.
    const TYPE: &'static str;
    /// What it builds, for example `dyn Source`.
    type Product: ?Sized;
    /// Checks the settings and builds. Never connects, never opens a file.
    fn build(self) -> Result<Box<Self::Product>>;
}

/// What a registry knows about one component.
#[derive(Debug, Clone)]
pub struct ComponentDoc {
    /// The value of `type`.
    pub type_name: &'static str,
    /// The JSON Schema of the settings.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
}

type Builder<P> = Box<dyn Fn(serde_json::Value) -> Result<Box<P>> + Send + Sync>;

/// All components of one kind, by type name. Filled by an explicit list: one line a component.
pub struct Registry<P: ?Sized> {
    kind: &'static str,
    entries: BTreeMap<&'static str, (ComponentDoc, Builder<P>)>,
}

impl<P: ?Sized + 'static> Registry<P> {
    /// An empty registry; `kind` is the word for messages, for example `source`.
    pub fn new(kind: &'static str) -> Self {
        Self { kind, entries: BTreeMap::new() }
    }

    /// Adds one component.
    #[must_use]
    pub fn with<C: Component<Product = P>>(mut self) -> Self {
        let doc = ComponentDoc { type_name: C::TYPE, schema: C::json_schema };
        let build: Builder<P> = Box::new(|settings| {
            let parsed: C =
                serde_json::from_value(settings).map_err(|error| Error::config(error.to_string()))?;
            parsed.build()
        });
        self.entries.insert(C::TYPE, (doc, build));
        self
    }

    /// The word for messages.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Builds the component `type_name` from its settings (without `type`).
    pub fn build(&self, type_name: &str, settings: serde_json::Value) -> Result<Box<P>> {
        let (_, build) = self.entries.get(type_name).ok_or_else(|| {
            let known: Vec<&str> = self.entries.keys().copied().collect();
            let near = crate::suggest(type_name, known.iter().copied());
            let help = near
                .map_or_else(|| format!("known: {}", known.join(", ")), |n| format!("did you mean '{n}'?"));
            Error::config(format!("unknown {} type '{type_name}'", self.kind)).with_help(help)
        })?;
        build(settings)
    }

    /// What is registered, by name.
    pub fn docs(&self) -> impl Iterator<Item = &ComponentDoc> {
        self.entries.values().map(|(doc, _)| doc)
    }
}
