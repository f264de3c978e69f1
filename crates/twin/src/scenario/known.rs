//! The scenarios that there are: those of files, and those that were created and are kept in the lake.
//!
//! `meta.scenario_definitions` has a row for each change: a scenario created or dropped, and the instant at which one that forks
//! `now` was first known. The newest row of a name says what holds; so created scenarios outlive the process, and other processes
//! on the lake see them when they look again. A file's name is the file's: what is created under it is refused.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use twinlake_contracts::{Error, Result, TableName, TomlFile, now_us, timestamp_type};
use twinlake_query::Tense;

use super::execution::Executions;
use super::{Scenario, hex};
use crate::Twins;
use crate::snapshot::session_in;
use crate::view::View;

/// The table of what was created, dropped and forked.
const DEFINITIONS: &str = "meta.scenario_definitions";
const DESCRIPTION: &str =
    "What was created, replaced and dropped of scenarios, and when those that fork now did: a row a change.";
/// What `source` says of a scenario that was created.
pub(crate) const CREATED: &str = "created";

/// What became of a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScenarioChange {
    /// There was none of that name.
    Created,
    /// Another one of that name is gone.
    Replaced,
    /// The same text was there; its fork stays where it is.
    Unchanged,
}

impl ScenarioChange {
    /// The word for it in SQL and HTTP.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Replaced => "replaced",
            Self::Unchanged => "unchanged",
        }
    }
}

/// All scenarios, and what was run of them.
#[derive(Default)]
pub(crate) struct Known {
    scenarios: RwLock<BTreeMap<String, Arc<Scenario>>>,
    pub(crate) executions: Executions,
    /// Held while something is created or dropped, so that the order of the rows is the order of the effects.
    changing: Mutex<()>,
    /// Versions and fresh bytes of the two tables when they were last read.
    seen: RwLock<Vec<Option<(u64, usize)>>>,
}

/// A change as its table has it.
struct Row {
    name: String,
    change: String,
    definition: Option<String>,
    fork_at_us: Option<i64>,
    fork_known_at_us: Option<i64>,
}

impl Row {
    fn put(scenario: &Scenario, change: &str, definition: Option<&str>) -> Self {
        Self {
            name: scenario.name.clone(),
            change: change.to_owned(),
            definition: definition.map(str::to_owned),
            fork_at_us: scenario.fork_at_us,
            fork_known_at_us: scenario.fork_known_at_us,
        }
    }

    fn batch(&self) -> Result<RecordBatch> {
        let text = |text: Option<&str>| Arc::new(StringArray::from(vec![text])) as ArrayRef;
        let instant = |us: Option<i64>| {
            Arc::new(TimestampMicrosecondArray::from(vec![us]).with_timezone("UTC")) as ArrayRef
        };
        let who = twinlake_lake::who();
        Ok(RecordBatch::try_from_iter_with_nullable([
            ("name", text(Some(&self.name)), true),
            ("change", text(Some(&self.change)), true),
            ("definition", text(self.definition.as_deref()), true),
            ("fork_at", instant(self.fork_at_us), true),
            ("fork_known_at", instant(self.fork_known_at_us), true),
            ("recorded_at", instant(Some(now_us())), true),
            ("who", text(Some(&who)), true),
        ])?)
    }
}

impl Scenario {
    /// What tells one definition from another, its fork included.
    pub(crate) fn identity(&self) -> String {
        digest(&format!("{} {:?} {:?}", self.digest, self.fork_at_us, self.fork_known_at_us))
    }

    fn fork_again(&mut self, row: &Row) {
        if self.forks_now {
            self.fork_at_us = row.fork_at_us;
            self.fork_known_at_us = row.fork_known_at_us;
        }
    }
}

impl Twins {
    /// Adds a scenario, or replaces the one of the same name; queries see it from now on. It is kept as long as this process.
    pub fn add_scenario(&self, file: &str, text: &str) -> Result<Arc<Scenario>> {
        let mut scenario = self.read_scenario(None, file, text)?;
        file.clone_into(&mut scenario.source);
        Ok(self.put(scenario))
    }

    /// Adds a scenario that was not written as a file, or replaces the one of the same name; queries see it from now on. Its
    /// name is not checked, its SQL is.
    pub fn put_scenario(&self, scenario: Scenario) -> Result<Arc<Scenario>> {
        let shared = Arc::new(scenario.clone());
        for change in &scenario.overrides {
            self.model(&change.twin)?;
        }
        let view = View::new(&Tense::default(), Some(shared));
        for model in self.models() {
            self.check(&view, &model)?;
        }
        Ok(self.put(scenario))
    }

    /// Reads and checks a scenario without adding it.
    pub(crate) fn read_scenario(&self, name: Option<&str>, file: &str, text: &str) -> Result<Scenario> {
        let models =
            self.models().into_iter().map(|model| (model.name.clone(), model.as_ref().clone())).collect();
        let scenario = Scenario::parse_as(name, file, text, &models)?;
        let source = TomlFile::new(file, text);
        let view = View::new(&Tense::default(), Some(Arc::new(scenario.clone())));
        for model in self.models() {
            self.check(&view, &model).map_err(|error| {
                let overrides = scenario.overrides.iter();
                let texts = overrides.flat_map(|one| one.condition.iter().chain(one.compute.values()));
                source.placed(error, texts.map(String::as_str))
            })?;
        }
        scenario.check_runs(&source, self)?;
        Ok(scenario)
    }

    fn put(&self, scenario: Scenario) -> Arc<Scenario> {
        let scenario = Arc::new(scenario);
        let mut all = self.known.scenarios.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(scenario.name.clone(), scenario.clone());
        scenario
    }

    /// All scenarios, by name.
    pub fn scenarios(&self) -> Vec<Arc<Scenario>> {
        self.known.scenarios.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// A scenario by name, or with `<name>/<number>` a member of its ensemble; an unknown one is an error with a suggestion.
    pub fn scenario(&self, name: &str) -> Result<Arc<Scenario>> {
        let (base, member) = name.split_once('/').map_or((name, None), |(base, member)| (base, Some(member)));
        let found = {
            let all = self.known.scenarios.read().unwrap_or_else(PoisonError::into_inner);
            all.get(base)
                .cloned()
                .ok_or_else(|| Error::not_found("scenario", base, all.keys().map(String::as_str)))?
        };
        let Some(member) = member else { return Ok(found) };
        let number = member.parse().ok().and_then(|number: u32| found.member(number, self));
        number.map(Arc::new).ok_or_else(|| {
            let last = found.ensemble.as_ref().map_or(0, |ensemble| ensemble.members);
            Error::config(format!("scenario '{base}' has no member '{member}'"))
                .with_help(format!("its members are 0 to {last}; 0 is the scenario as it is written"))
        })
    }

    /// Creates a scenario, or replaces a created one of the same name, from TOML or JSON; it is durable when this returns. `name`
    /// need not be in the text. The same text again changes nothing, and a fork at `now` stays where it is.
    pub async fn create_scenario(
        &self,
        name: Option<&str>,
        text: &str,
    ) -> Result<(Arc<Scenario>, ScenarioChange)> {
        self.create_scenario_of("scenario", name, text).await
    }

    /// As [`Twins::create_scenario`]; mistakes are shown in `file`.
    pub async fn create_scenario_of(
        &self,
        file: &str,
        name: Option<&str>,
        text: &str,
    ) -> Result<(Arc<Scenario>, ScenarioChange)> {
        let _changing = self.known.changing.lock().await;
        self.look_for_scenarios().await?;
        let mut scenario = self.read_scenario(name, file, text)?;
        CREATED.clone_into(&mut scenario.source);
        let there = self.scenario(&scenario.name).ok();
        if let Some(there) = &there {
            if there.source != CREATED {
                return Err(Error::config(format!(
                    "the scenario '{}' is the one of the file {}",
                    there.name, there.source
                ))
                .with_help("change the file, or take another name"));
            }
            if there.digest == scenario.digest {
                return Ok((there.clone(), ScenarioChange::Unchanged));
            }
        }
        self.append(&Row::put(&scenario, CREATED, Some(text))).await?;
        let change = if there.is_some() { ScenarioChange::Replaced } else { ScenarioChange::Created };
        Ok((self.put(scenario), change))
    }

    /// Drops a created scenario; its runs stay in their tables. One of a file is refused.
    pub async fn drop_scenario(&self, name: &str) -> Result<()> {
        let _changing = self.known.changing.lock().await;
        self.look_for_scenarios().await?;
        let scenario = self.scenario(name)?;
        if scenario.member > 0 || scenario.source != CREATED {
            let failed =
                Error::config(format!("the scenario '{name}' was not created, so it cannot be dropped"));
            return Err(failed.with_help(format!("it comes from {}", scenario.source)));
        }
        self.append(&Row::put(&scenario, "dropped", None)).await?;
        let mut all = self.known.scenarios.write().unwrap_or_else(PoisonError::into_inner);
        all.remove(name);
        Ok(())
    }

    /// Takes up what the lake keeps of scenarios: those that were created, where those that fork `now` did, and what was run.
    /// Called again, it looks for what other processes did.
    pub async fn open_scenarios(&self) -> Result<()> {
        let _changing = self.known.changing.lock().await;
        self.look_for_scenarios().await
    }

    async fn look_for_scenarios(&self) -> Result<()> {
        let mut stamps = Vec::new();
        for name in [DEFINITIONS, super::execution::TABLE] {
            let name = TableName::parse(name)?;
            // Looks for a newer version.
            self.provider(&name).await?;
            stamps.push(self.lake().table(&name).map(|table| (table.version(), table.fresh_bytes())));
        }
        let news = *self.known.seen.read().unwrap_or_else(PoisonError::into_inner) != stamps;
        if news {
            let rows = self.rows_kept(stamps[0].is_some()).await?;
            self.take_up(&rows);
            if stamps[1].is_some() {
                self.known.executions.read(self).await?;
            }
            *self.known.seen.write().unwrap_or_else(PoisonError::into_inner) = stamps;
        }
        self.keep_forks().await
    }

    /// Makes durable when the scenarios of files that fork `now` did. Who is first decides.
    async fn keep_forks(&self) -> Result<()> {
        let unkept =
            |scenario: &Arc<Scenario>| scenario.forks_now && scenario.source != CREATED && !scenario.kept;
        let new: Vec<Arc<Scenario>> = self.scenarios().into_iter().filter(unkept).collect();
        if new.is_empty() {
            return Ok(());
        }
        let kept = |rows: &[Row]| -> Vec<String> {
            rows.iter().filter(|row| row.change == "forked").map(|row| row.name.clone()).collect()
        };
        let there = self.provider(&TableName::parse(DEFINITIONS)?).await?.is_some();
        let known = kept(&self.rows_kept(there).await?);
        for scenario in new.iter().filter(|scenario| !known.contains(&scenario.name)) {
            self.append(&Row::put(scenario, "forked", None)).await?;
        }
        let rows = self.rows_kept(true).await?;
        self.take_up(&rows);
        Ok(())
    }

    async fn append(&self, row: &Row) -> Result<()> {
        self.lake().append_meta(DEFINITIONS, DESCRIPTION, row.batch()?).await
    }

    /// The rows of the table, the oldest first.
    async fn rows_kept(&self, there: bool) -> Result<Vec<Row>> {
        if !there {
            return Ok(Vec::new());
        }
        let session = session_in(self, &Tense::default()).await?;
        let sql = format!(
            "SELECT name, change, definition, fork_at, fork_known_at FROM {DEFINITIONS} ORDER BY recorded_at"
        );
        let mut rows = Vec::new();
        for batch in session.collect(&sql).await? {
            let texts: Vec<ArrayRef> =
                (0..3).map(|column| cast(batch.column(column), &DataType::Utf8)).collect::<Result<_, _>>()?;
            let instants: Vec<ArrayRef> = (3..5)
                .map(|column| cast(batch.column(column), &timestamp_type()))
                .collect::<Result<_, _>>()?;
            for row in 0..batch.num_rows() {
                let text = |column: usize| {
                    let column = texts[column].as_string::<i32>();
                    column.is_valid(row).then(|| column.value(row).to_owned())
                };
                let instant = |column: usize| {
                    let column = instants[column].as_primitive::<TimestampMicrosecondType>();
                    column.is_valid(row).then(|| column.value(row))
                };
                rows.push(Row {
                    name: text(0).unwrap_or_default(),
                    change: text(1).unwrap_or_default(),
                    definition: text(2),
                    fork_at_us: instant(0),
                    fork_known_at_us: instant(1),
                });
            }
        }
        Ok(rows)
    }

    /// Makes the created scenarios those of these rows, and lets forks be where they first were.
    fn take_up(&self, rows: &[Row]) {
        let mut newest: BTreeMap<&str, &Row> = BTreeMap::new();
        let mut forks: BTreeMap<&str, &Row> = BTreeMap::new();
        for row in rows {
            match row.change.as_str() {
                "forked" => {
                    forks.entry(&row.name).or_insert(row);
                }
                _ => {
                    newest.insert(&row.name, row);
                }
            }
        }
        for scenario in self.scenarios() {
            let row = newest.get(scenario.name.as_str());
            if scenario.source == CREATED && row.is_none_or(|row| row.definition.is_none()) {
                let mut all = self.known.scenarios.write().unwrap_or_else(PoisonError::into_inner);
                all.remove(&scenario.name);
            }
            if scenario.source != CREATED
                && scenario.forks_now
                && !scenario.kept
                && let Some(row) = forks.get(scenario.name.as_str())
            {
                let mut forked = scenario.as_ref().clone();
                forked.fork_again(row);
                forked.kept = true;
                self.put(forked);
            }
        }
        for row in newest.values() {
            let Some(text) = &row.definition else { continue };
            let there = self.scenario(&row.name).ok();
            if let Some(there) = there {
                let same = there.source == CREATED && there.digest == digest(text);
                if there.source != CREATED || (same && there.fork_at_us == row.fork_at_us) {
                    continue;
                }
            }
            match self.read_scenario(Some(&row.name), &format!("scenario {}", row.name), text) {
                Ok(mut scenario) => {
                    scenario.fork_again(row);
                    CREATED.clone_into(&mut scenario.source);
                    self.put(scenario);
                }
                // A twin model has changed since; the others hold all the same.
                Err(error) => {
                    tracing::warn!(scenario = row.name, %error, "a created scenario no longer holds");
                }
            }
        }
    }
}

/// What tells one text from another.
pub(crate) fn digest(text: &str) -> String {
    hex(&Sha256::digest(text))
}
