//! The loaded models and scenarios, and what they add to every SQL session.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, Weak};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, Session};
use datafusion::common::TableReference;
use datafusion::datasource::TableProvider;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{LogicalPlanBuilder, SortExpr};
use datafusion::physical_plan::collect;
use datafusion::prelude::SessionContext;
use tokio::sync::Mutex;
use twinlake_contracts::{Error, OperatorRegistry, Place, Result, TableName, TomlFile, format_us};
use twinlake_lake::Lake;
use twinlake_query::{CATALOG, Engine, Extension, SessionSettings, Tense};

use crate::between::TwinBetween;
use crate::binding;
use crate::columns;
use crate::diff::ScenarioDiff;
use crate::edges::EdgeTable;
use crate::events::Events;
use crate::functions::{Simulate, TwinAt};
use crate::hindcast;
use crate::live::{Live, PresentBegun};
use crate::meta::MetaTable;
use crate::model::{PropertyType, RELATIONS, TwinModel};
use crate::nearest::Targets;
use crate::point::Chain;
use crate::runs::{RunTable, Simulations};
use crate::scenario::{self, Known};
use crate::state::{StatePlanner, check_expressions, named};
use crate::table::TwinTable;
use crate::view::{View, back, through};
use crate::ways::{TwinPath, TwinReach};

/// The SQL schema of the twins.
pub(crate) const TWIN_SCHEMA: &str = "twin";

/// All twin models and scenarios, and the runs asked for. Share it with `Arc`.
pub struct Twins {
    /// Weak: the engine holds the twins as its extension.
    engine: Weak<Engine>,
    lake: Arc<Lake>,
    pub(crate) models: BTreeMap<String, Arc<TwinModel>>,
    /// The scenarios, and what was run of them.
    pub(crate) known: Known,
    operators: OperatorRegistry,
    runs: RunTable,
    /// For each model that others are matched to: its index, and the table version that it was made from.
    targets: Mutex<HashMap<String, (Stamp, Arc<Targets>)>>,
    /// The present of models that are kept in memory.
    present: RwLock<HashMap<String, Arc<Live>>>,
    /// How rows of the present become what is shown.
    pub(crate) chains: RwLock<HashMap<String, Arc<Chain>>>,
    /// The events, if rules are watched.
    pub(crate) events: RwLock<Option<Arc<Events>>>,
}

/// What a cached index was made from: version and bytes of fresh rows.
pub(crate) type Stamp = (u64, usize);

impl std::fmt::Debug for Twins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Twins").field("models", &self.models.keys()).finish_non_exhaustive()
    }
}

impl Twins {
    /// Loads models and scenarios (`(file name, TOML text)` each), checks them against each other, and adds them to
    /// every session that `engine` opens from now on.
    pub fn load(
        engine: &Arc<Engine>,
        models: Vec<(String, String)>,
        scenarios: Vec<(String, String)>,
    ) -> Result<Arc<Self>> {
        let mut parsed: BTreeMap<String, TwinModel> = BTreeMap::new();
        let mut files: BTreeMap<String, TomlFile> = BTreeMap::new();
        for (file, text) in &models {
            let model = TwinModel::parse(file, text)?;
            let source = TomlFile::new(file, text);
            if parsed.contains_key(&model.name) {
                let message = format!("there is another twin model '{}'", model.name);
                return Err(source.mistake(message, &model.name));
            }
            files.insert(model.name.clone(), source);
            parsed.insert(model.name.clone(), model);
        }
        connect(&mut parsed, &files)?;
        for (name, model) in &parsed {
            if let Some(taken) =
                model.views.keys().find(|view| parsed.contains_key(&format!("{name}_{view}")))
            {
                let error =
                    Error::config(format!("view '{taken}' of twin model '{name}' has the name of a model"));
                return Err(match files.get(name) {
                    Some(file) => file.placed(error, vec![format!("views.{taken}").as_str()]),
                    None => error,
                });
            }
        }
        let twins = Arc::new(Self {
            engine: Arc::downgrade(engine),
            lake: engine.lake().clone(),
            models: parsed.into_iter().map(|(name, model)| (name, Arc::new(model))).collect(),
            known: Known::default(),
            operators: twinlake_simulate::registry(),
            runs: RunTable::default(),
            targets: Mutex::default(),
            present: RwLock::default(),
            chains: RwLock::default(),
            events: RwLock::default(),
        });
        for (name, model) in &twins.models {
            let placed = |error: Error, texts: Vec<&str>| match files.get(name) {
                Some(file) => file.placed(error, texts),
                None => error,
            };
            if let Some(simulation) = &model.simulation {
                binding::check(&twins, model, simulation)
                    .map_err(|mistake| placed(mistake.error, vec![&mistake.at]))?;
            }
            binding::check_analyses(&twins, model).map_err(|mistake| match files.get(name) {
                Some(file) => mistake.error.at(place_below(file, "[[analyses]]", &mistake.at)),
                None => mistake.error,
            })?;
            twins.check(&View::default(), model).map_err(|error| {
                let derived = model.properties.values().filter_map(|property| property.sql.as_deref());
                let edges = model.relations.values();
                let edges = edges.flat_map(|relation| relation.condition.iter().chain(&relation.weight));
                let ended = model.lifecycle.iter().map(|lifecycle| lifecycle.ended_when.as_str());
                placed(error, derived.chain(edges.map(String::as_str)).chain(ended).collect())
            })?;
        }
        for (file, text) in &scenarios {
            twins.add_scenario(file, text)?;
        }
        engine.extend(Arc::new(TwinExtension(twins.clone())));
        Ok(twins)
    }

    /// Checks the SQL of a model, and of the scenario in view over it.
    pub(crate) fn check(&self, view: &View, model: &TwinModel) -> Result<()> {
        let session = self.engine()?.session(SessionSettings::default())?;
        let state = session.context().state();
        check_expressions(self, &state, view, model).map_err(back)
    }

    /// Keeps the present of every model with telemetry in memory from now on, as far as its table is there; called again, it
    /// takes up those whose table has come. For processes that serve: a query of the present then looks up what it asks
    /// for, and shows each reading as soon as it is in the table.
    pub fn keep_present(&self) -> Result<()> {
        let engine = self.engine()?;
        for (name, model) in self.models.iter().filter(|(_, model)| model.telemetry.is_some()) {
            let Some(table) = model.table().and_then(|table| self.lake.table(table)) else { continue };
            let mut present = self.present.write().unwrap_or_else(PoisonError::into_inner);
            if present.contains_key(name) {
                continue;
            }
            let live = Live::new(&engine, model.clone(), table, &self.lake.keep_directory().join("twins"));
            let kept = Arc::downgrade(&live);
            present.insert(name.clone(), live);
            let model = name.clone();
            tokio::spawn(async move {
                if let Err(error) = Live::keep(kept).await {
                    // The next question begins anew, and says what is wrong if it still is.
                    tracing::warn!(model, %error, "the present is not kept up to date in the background");
                }
            });
        }
        Ok(())
    }

    /// Keeps the present of all models on this machine, so that the next process folds only what came since then. For the clean end of
    /// a process, after the last commit; while it runs it is done from time to time.
    pub async fn keep_states(&self) {
        let all: Vec<Arc<Live>> =
            self.present.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for live in all {
            if let Err(error) = live.keep_state().await {
                tracing::warn!(model = live.begun().model, %error, "the state is not kept for the next start");
            }
        }
    }

    /// From what the present of each model was begun.
    pub fn present_begun(&self) -> Vec<PresentBegun> {
        let present = self.present.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<PresentBegun> = present.values().map(|live| live.begun()).collect();
        all.sort_by(|a, b| a.model.cmp(&b.model));
        all
    }

    /// The present of a model, if it is kept in memory.
    pub(crate) fn live(&self, model: &TwinModel) -> Option<Arc<Live>> {
        self.present.read().unwrap_or_else(PoisonError::into_inner).get(&model.name).cloned()
    }

    /// All models, by name.
    pub fn models(&self) -> Vec<Arc<TwinModel>> {
        self.models.values().cloned().collect()
    }

    /// A model by name; an unknown one is an error with a suggestion.
    pub fn model(&self, name: &str) -> Result<Arc<TwinModel>> {
        let known = || self.models.keys().map(String::as_str);
        self.models.get(name).cloned().ok_or_else(|| Error::not_found("twin model", name, known()))
    }

    /// Simulation runs.
    pub fn simulations(self: &Arc<Self>) -> Simulations {
        Simulations::new(self.clone())
    }

    /// The SQL of a model's state in a tense: all instances, or the one of that key (as text). Run it in any session:
    /// the session's own tense does not enter.
    pub fn state_sql(&self, model: &str, key: Option<&str>, tense: &Tense) -> Result<String> {
        let model = self.model(model)?;
        self.view(tense)?;
        let from = tense_call(&model.name, tense);
        let filter = match key {
            None => String::new(),
            Some(key) => format!(" WHERE {} = {}", model.key, key_literal(&model, key)?),
        };
        Ok(format!("SELECT * FROM {from}{filter} ORDER BY {}", model.key))
    }

    /// The SQL that compares a scenario with the city as it is, both at the scenario's fork: a row an instance of the
    /// model that `operator` is bound to, with its simulated columns in both (`base_…`, `scenario_…`), `change` of the
    /// first of them (scenario minus base; what has no value counts as 0), the greatest change first. Both must have
    /// been simulated.
    pub fn scenario_diff_sql(&self, operator: &str, scenario: &str, limit: usize) -> Result<String> {
        let (model, binding) = self.simulation(operator)?;
        let scenario = self.scenario(scenario)?;
        let base =
            Tense { as_of_us: scenario.fork_at_us, known_at_us: scenario.fork_known_at_us, scenario: None };
        let changed = Tense { scenario: Some(scenario.name.clone()), ..base.clone() };
        let key = &model.key;
        let mut columns = vec![format!("s.{key}")];
        if model.properties.contains_key("name") {
            columns.push("s.name".to_owned());
        }
        for column in binding.columns.keys() {
            columns.push(format!("b.{column} AS base_{column}"));
            columns.push(format!("s.{column} AS scenario_{column}"));
        }
        let first = binding
            .columns
            .keys()
            .next()
            .ok_or_else(|| Error::config(format!("the simulation of '{}' adds no column", model.name)))?;
        columns.push(format!("coalesce(s.{first}, 0) - coalesce(b.{first}, 0) AS change"));
        Ok(format!(
            "SELECT {} FROM {} AS s JOIN {} AS b ON s.{key} = b.{key} ORDER BY abs(change) DESC, s.{key} LIMIT {limit}",
            columns.join(", "),
            tense_call(&model.name, &changed),
            tense_call(&model.name, &base),
        ))
    }

    /// The engine, while it lives.
    pub(crate) fn engine(&self) -> Result<Arc<Engine>> {
        self.engine.upgrade().ok_or_else(|| Error::internal("the query engine is gone"))
    }

    pub(crate) fn lake(&self) -> &Arc<Lake> {
        &self.lake
    }

    pub(crate) fn operators(&self) -> &OperatorRegistry {
        &self.operators
    }

    pub(crate) fn runs(&self) -> &RunTable {
        &self.runs
    }

    /// `<model>` or `<model>_history` as a model and whether it is its history.
    pub(crate) fn table_model(&self, table: &str) -> Result<(Arc<TwinModel>, bool)> {
        match table.strip_suffix("_history") {
            Some(model) => Ok((self.model(model)?, true)),
            None => Ok((self.model(table)?, false)),
        }
    }

    /// What a reading in that tense sees; an unknown scenario is an error with a suggestion.
    pub(crate) fn view(&self, tense: &Tense) -> Result<View> {
        let name = tense.scenario.as_deref().filter(|name| !name.is_empty());
        let scenario = name.map(|name| self.scenario(name)).transpose()?;
        Ok(View::new(tense, scenario))
    }

    /// The newest snapshot of a lake table; `None` while there is none.
    pub(crate) async fn provider(&self, name: &TableName) -> Result<Option<Arc<dyn TableProvider>>> {
        match self.lake.table(name) {
            Some(table) => table.provider().await.map(Some),
            None => Ok(None),
        }
    }

    /// The index over a model that others are matched to; `None` while its table is not there.
    pub(crate) async fn targets(&self, model: &str) -> Result<Option<Arc<Targets>>, DataFusionError> {
        let model = self.model(model).map_err(through)?;
        let Some(name) = model.table() else { return Ok(None) };
        if self.provider(name).await.map_err(through)?.is_none() {
            return Ok(None);
        }
        let Some(table) = self.lake.table(name) else { return Ok(None) };
        // Held while the index is made: many queries at once make it once.
        let mut cache = self.targets.lock().await;
        let stamp = (table.version(), table.fresh_bytes());
        if let Some((made_from, targets)) = cache.get(&model.name)
            && *made_from == stamp
        {
            return Ok(Some(targets.clone()));
        }
        let geometry = geometry_of(&model).map_err(through)?;
        // Not the session that asks: it may be one that leaves the optimisation of its plan to a query around it.
        let session = self.engine().and_then(|engine| engine.session(SessionSettings::default()));
        let state = session.map_err(through)?.context().state();
        let session: &dyn Session = &state;
        let wanted = [model.key.clone(), geometry.to_owned()].into();
        let view = View::default();
        let planner = StatePlanner { twins: self, session, view: &view, stand_in: false };
        // Not the model's relations: they could lead back here.
        let plan = Box::pin(planner.plan(&model, false, &wanted)).await?;
        let plan = LogicalPlanBuilder::from(plan)
            .project([named(&model.key), named(geometry)])?
            .sort([SortExpr::new(named(&model.key), true, true)])?
            .build()?;
        let plan = session.create_physical_plan(&plan).await?;
        let schema = plan.schema();
        let batches: Vec<RecordBatch> = collect(plan, session.task_ctx()).await?;
        let rows = concat_batches(&schema, &batches)?;
        let key_type = model.key_property().map_err(through)?.kind.data_type();
        let made = tokio::task::spawn_blocking(move || {
            let geometries = columns::bytes(&rows, "the twin", rows.schema().field(1).name())?;
            let keys = columns::column(&rows, "the twin", rows.schema().field(0).name(), &key_type)?;
            Targets::new(&geometries, keys)
        });
        let made = made.await.map_err(|error| through(Error::internal(error)))?.map_err(through)?;
        let made = Arc::new(made);
        cache.insert(model.name.clone(), (stamp, made.clone()));
        Ok(Some(made))
    }
}

/// The place of a text below a header; of the header, if it is not there.
fn place_below(file: &TomlFile, header: &str, text: &str) -> Place {
    let Some(from) = file.text().find(header) else { return file.locate(text) };
    match file.text()[from..].find(text) {
        Some(at) => file.place_at(from + at..from + at + text.len()),
        None => file.locate(header),
    }
}

/// The geometry that a model is found by.
fn geometry_of(model: &TwinModel) -> Result<&str> {
    let mut geometries =
        model.properties.iter().filter(|(_, property)| property.kind == PropertyType::Geometry);
    geometries.next().map(|(name, _)| name.as_str()).ok_or_else(|| {
        Error::config(format!("twin model '{}' has no geometry, so nothing can be near it", model.name))
    })
}

/// Checks relations against the models they name, and gives them their keys' types.
fn connect(models: &mut BTreeMap<String, TwinModel>, files: &BTreeMap<String, TomlFile>) -> Result<()> {
    let others = models.clone();
    for (model_name, model) in models.iter_mut() {
        let own = model.clone();
        for (name, relation) in &mut model.relations {
            let mistake = |what: String| {
                let message = format!("relation '{name}' of twin model '{model_name}' {what}");
                match files.get(model_name) {
                    Some(file) => file.mistake(message, &format!("\"{}\"", relation.twin)),
                    None => Error::config(message),
                }
            };
            let Some(other) = others.get(&relation.twin) else {
                let missing =
                    Error::not_found("twin model", &relation.twin, others.keys().map(String::as_str));
                return Err(mistake(format!("leads nowhere: {missing}")));
            };
            if relation.nearest().is_some() && (other.map.is_none() || geometry_of(other).is_err()) {
                return Err(mistake(format!(
                    "needs a map with a geometry, which '{}' is not",
                    relation.twin
                )));
            }
            if let Err((what, help)) = relation.check_other(&own, other) {
                let failed = mistake(what);
                return Err(match help {
                    Some(help) => failed.with_help(help),
                    None => failed,
                });
            }
            relation.key_kind = other.key_property()?.kind;
        }
    }
    Ok(())
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// `twin_at(…)` in that tense.
pub(crate) fn tense_call(model: &str, tense: &Tense) -> String {
    let instant = |us: Option<i64>| us.map_or_else(|| "NULL".to_owned(), |us| quoted(&format_us(us)));
    let mut arguments = vec![quoted(model), instant(tense.as_of_us)];
    if tense.known_at_us.is_some() {
        arguments.push(format!("known_at => {}", instant(tense.known_at_us)));
    }
    if let Some(scenario) = tense.scenario.as_deref().filter(|name| !name.is_empty()) {
        arguments.push(format!("scenario => {}", quoted(scenario)));
    }
    format!("twin_at({})", arguments.join(", "))
}

fn key_literal(model: &TwinModel, key: &str) -> Result<String> {
    match model.key_property()?.kind {
        PropertyType::Int64 => key.parse::<i64>().map(|key| key.to_string()).map_err(|_| {
            Error::config(format!("'{key}' is not a {}", model.key)).with_help("the key is a whole number")
        }),
        _ => Ok(quoted(key)),
    }
}

/// The schema `twin`: two tables a model, and the relations between all of them.
struct TwinSchema(Arc<Twins>);

impl std::fmt::Debug for TwinSchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TwinSchema")
    }
}

#[async_trait]
impl SchemaProvider for TwinSchema {
    fn table_names(&self) -> Vec<String> {
        let models = self.0.models.keys().flat_map(|model| [model.clone(), format!("{model}_history")]);
        models.chain([RELATIONS.to_owned()]).chain(self.0.view_names()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        if name == RELATIONS {
            return Ok(Some(Arc::new(EdgeTable::new(&self.0, None))));
        }
        if let Some((_, view)) = self.0.view_of(name) {
            return self.0.view_table(name, &view).await.map(Some).map_err(through);
        }
        let (model, history) = self.0.table_model(name).map_err(through)?;
        Ok(Some(Arc::new(TwinTable::new(&self.0, &model, history, None))))
    }

    fn table_exist(&self, name: &str) -> bool {
        name == RELATIONS || self.0.view_of(name).is_some() || self.0.table_model(name).is_ok()
    }
}

/// What the twins add to every session.
struct TwinExtension(Arc<Twins>);

impl Extension for TwinExtension {
    fn register(&self, context: &SessionContext) -> Result<(), DataFusionError> {
        let twins = &self.0;
        let catalog: Arc<dyn CatalogProvider> = context
            .catalog(CATALOG)
            .ok_or_else(|| through(Error::internal(format!("a session without the catalog '{CATALOG}'"))))?;
        catalog.register_schema(TWIN_SCHEMA, Arc::new(TwinSchema(twins.clone())))?;
        context.register_udtf("twin_at", Arc::new(TwinAt(twins.clone())));
        context.register_udtf("twin_between", Arc::new(TwinBetween(twins.clone())));
        context.register_udtf("scenario_diff", Arc::new(ScenarioDiff(twins.clone())));
        context.register_udtf("twin_reach", Arc::new(TwinReach(twins.clone())));
        context.register_udtf("twin_path", Arc::new(TwinPath(twins.clone())));
        context.register_udtf("simulate", Arc::new(Simulate(twins.clone())));
        scenario::functions::register(twins, context);
        hindcast::register(twins, context);
        for (name, table) in MetaTable::all(twins)? {
            context.register_table(TableReference::full(CATALOG, "meta", name), Arc::new(table))?;
        }
        Ok(())
    }
}
