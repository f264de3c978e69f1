//! The plan: a pipeline whose every step has a schema, found with the SQL engine before anything runs.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use indexmap::IndexMap;
use twinlake_contracts::{
    Error, INGESTED_AT, Place, RowGuard, SEQUENCE, SqlEngine, TableSpec, Transform, WriteMode, timestamp_type,
};

use crate::components::Components;
use crate::diagnostics::Diagnostics;
use crate::model::{Pipeline, SourceKind};
use crate::normalise::normal_schema;
use crate::transforms::TransformContext;

/// A pipeline that can run.
#[derive(Debug)]
pub struct Plan {
    /// The file.
    pub pipeline: Pipeline,
    /// The schema of every source and transform, by name; in normal types.
    pub schemas: IndexMap<String, SchemaRef>,
    /// The table of every sink, by the sink's name, with the columns `_sequence` and `_ingested_at`.
    pub tables: IndexMap<String, TableSpec>,
    guard: Guarding,
}

/// What holds rows to the rules of the tables that they are about to enter, if anything does.
#[derive(Clone, Default)]
struct Guarding(Option<Arc<dyn RowGuard>>);

impl fmt::Debug for Guarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guarding").field(&self.0.is_some()).finish()
    }
}

/// Reads a file's text and checks everything: the whole of `twinlake validate`. The plan is `None` when there are
/// errors.
pub async fn validate(
    text: &str,
    path: Option<&Path>,
    components: &Arc<Components>,
    engine: &Arc<dyn SqlEngine>,
) -> (Option<Plan>, Diagnostics) {
    let (pipeline, mut found) = Pipeline::parse(text, path, components);
    let Some(pipeline) = pipeline else { return (None, found) };
    let (plan, more) = Plan::check(pipeline, engine).await;
    found.extend(more);
    found.sort();
    (plan, found)
}

/// Reads and checks a pipeline file.
pub async fn load(
    path: &Path,
    components: &Arc<Components>,
    engine: &Arc<dyn SqlEngine>,
) -> Result<(Plan, Vec<Error>), Diagnostics> {
    let text = std::fs::read_to_string(path).map_err(|error| Diagnostics {
        errors: vec![
            Error::config(format!("cannot read the pipeline: {error}"))
                .at(Place { file: Some(path.to_owned()), ..Place::default() }),
        ],
        warnings: Vec::new(),
    })?;
    match validate(&text, Some(path), components, engine).await {
        (Some(plan), found) => Ok((plan, found.warnings)),
        (None, found) => Err(found),
    }
}

impl Plan {
    /// Finds the schema of every step. Steps below a step with an error are passed over: only true mistakes are told.
    pub async fn check(pipeline: Pipeline, engine: &Arc<dyn SqlEngine>) -> (Option<Self>, Diagnostics) {
        let mut found = Diagnostics::default();
        let mut schemas: IndexMap<String, SchemaRef> = IndexMap::new();
        for (name, source) in &pipeline.sources {
            let schema = match &source.kind {
                SourceKind::Messages { decoder, .. } => decoder.schema(),
                SourceKind::File { reader, .. } => reader.schema(),
            };
            match normal_schema(&schema) {
                Ok(schema) => drop(schemas.insert(name.clone(), schema)),
                Err(error) => found.errors.push(locate(&pipeline, "sources", name, error)),
            }
        }
        for name in pipeline.order() {
            let node = &pipeline.transforms[name];
            let inputs: Option<Vec<(String, SchemaRef)>> = node
                .inputs
                .iter()
                .map(|input| schemas.get(input).map(|schema| (input.clone(), Arc::clone(schema))))
                .collect();
            let Some(inputs) = inputs else { continue };
            let context = TransformContext {
                name,
                messages: pipeline.fed_by_messages(&node.inputs),
                inputs,
                engine: Arc::clone(engine),
                components: Arc::clone(&pipeline.components),
            };
            match node.builder.build(&context).await {
                Ok(transform) => drop(schemas.insert(name.to_owned(), transform.output_schema())),
                Err(error) => found.errors.push(locate(&pipeline, "transforms", name, error)),
            }
        }
        let mut tables = IndexMap::new();
        for (name, sink) in &pipeline.sinks {
            match table(&pipeline, &schemas, name) {
                Some(Ok(schema)) => {
                    let spec =
                        TableSpec { name: sink.table.clone(), schema, description: sink.description.clone() };
                    tables.insert(name.clone(), spec);
                }
                Some(Err(error)) => found.errors.push(locate(&pipeline, "sinks", name, error)),
                None => {}
            }
        }
        found.sort();
        let plan = found.is_ok().then_some(Self { pipeline, schemas, tables, guard: Guarding::default() });
        (plan, found)
    }

    /// Lets a guard judge the rows that are about to enter tables, wherever the plan is run.
    #[must_use]
    pub fn guarded(mut self, guard: Option<Arc<dyn RowGuard>>) -> Self {
        self.guard = Guarding(guard);
        self
    }

    /// Whether a guard judges its rows.
    pub fn is_guarded(&self) -> bool {
        self.guard.0.is_some()
    }

    pub(crate) fn guard(&self) -> Option<&Arc<dyn RowGuard>> {
        self.guard.0.as_ref()
    }

    /// Whether a sink's rows take the place of all rows of its table.
    pub fn replaces(&self, sink: &str) -> bool {
        self.mode(sink) == WriteMode::Replace
    }

    /// How a sink's rows meet those that are there: files replace, messages are added.
    pub(crate) fn mode(&self, sink: &str) -> WriteMode {
        let messages = self.pipeline.fed_by_messages(&self.pipeline.sinks[sink].inputs);
        if messages { WriteMode::Append } else { WriteMode::Replace }
    }

    /// The place of every transform, in an order in which inputs come first.
    pub(crate) fn contexts(&self, engine: &Arc<dyn SqlEngine>) -> Vec<(String, TransformContext<'_>)> {
        let context = |name| {
            let node = &self.pipeline.transforms[name];
            let schema = |input: &String| (input.clone(), Arc::clone(&self.schemas[input]));
            TransformContext {
                name,
                messages: self.pipeline.fed_by_messages(&node.inputs),
                inputs: node.inputs.iter().map(schema).collect(),
                engine: Arc::clone(engine),
                components: Arc::clone(&self.pipeline.components),
            }
        };
        self.pipeline.order().into_iter().map(|name| (name.to_owned(), context(name))).collect()
    }

    /// New instances of all transforms, in an order in which inputs come first.
    pub(crate) async fn instantiate(
        &self,
        engine: &Arc<dyn SqlEngine>,
    ) -> Result<IndexMap<String, Box<dyn Transform>>, Error> {
        let mut instances = IndexMap::new();
        for (name, context) in self.contexts(engine) {
            let instance = self.pipeline.transforms[&name].builder.build(&context).await?;
            instances.insert(name, instance);
        }
        Ok(instances)
    }
}

/// The table schema of a sink: its inputs' schema and the two columns that every fed table has.
fn table(
    pipeline: &Pipeline,
    schemas: &IndexMap<String, SchemaRef>,
    name: &str,
) -> Option<Result<SchemaRef, Error>> {
    let inputs = &pipeline.sinks[name].inputs;
    let mut inputs = inputs.iter().map(|input| schemas.get(input).map(|schema| (input, schema)));
    let (first_name, first) = inputs.next()??;
    for other in inputs {
        let (other_name, other) = other?;
        if let Some(difference) = difference(first, other) {
            let message =
                format!("'{other_name}' and '{first_name}' do not have the same columns: {difference}");
            return Some(Err(
                Error::config(message).with_help("bring them to the same columns with a sql transform")
            ));
        }
    }
    if let Some(field) = first.fields().iter().find(|f| [SEQUENCE, INGESTED_AT].contains(&f.name().as_str()))
    {
        let message = format!("the column name '{}' belongs to Twinlake", field.name());
        return Some(
            Err(Error::config(message).with_help("give the column another name in a sql transform")),
        );
    }
    let fields = first.fields().iter().map(|field| field.as_ref().clone()).chain(added_fields());
    Some(Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>()))))
}

/// The columns `_sequence` and `_ingested_at`.
pub(crate) fn added_fields() -> [Field; 2] {
    [
        Field::new(SEQUENCE, arrow::datatypes::DataType::Int64, true),
        Field::new(INGESTED_AT, timestamp_type(), true),
    ]
}

/// The first difference between two schemas, in words.
fn difference(left: &Schema, right: &Schema) -> Option<String> {
    let mut pairs = left.fields().iter().zip(right.fields());
    if let Some((l, r)) = pairs.find(|(l, r)| l.name() != r.name() || l.data_type() != r.data_type()) {
        return Some(format!("{} {} and {} {}", r.name(), r.data_type(), l.name(), l.data_type()));
    }
    (left.fields().len() != right.fields().len())
        .then(|| format!("{} and {} columns", right.fields().len(), left.fields().len()))
}

/// Puts an error of a step at its place in the file.
fn locate(pipeline: &Pipeline, section: &str, name: &str, error: Error) -> Error {
    let Some(entry) = pipeline.entry(section, name) else { return error };
    let is_sql =
        pipeline.transforms.get(name).is_some_and(|node| section == "transforms" && node.type_name == "sql");
    let query = entry.node.as_table().and_then(|table| table.get("query"));
    // The transform says `in_query` for what the engine said; its own mistakes (inputs) speak for themselves.
    match (query, is_sql, error) {
        (Some(query), true, Error::Config(config)) if !config.message.starts_with("'inputs'") => {
            pipeline.document.locate_sql(Error::Config(config), query)
        }
        (_, _, error @ Error::Config(_)) => pipeline.document.locate(error, entry),
        (_, _, error) => Error::config(error.to_string()).at(pipeline.document.place(&entry.key)),
    }
}
