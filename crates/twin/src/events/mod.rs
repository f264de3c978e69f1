//! Events: what rules say of twins, raised, acknowledged, cleared; stored in `meta.events` and told to whoever listens.
//!
//! Each step of an event is a row. Steps are queryable and told at once, and committed once a second. A process that begins
//! knows the events that were open from the table and judges the newest reading of each instance, so that what happened while
//! none watched is found where it still holds; rules that depend on more than one reading find it in the past (`past.rs`). An event's identifier follows from rule, instance and time. One process at a
//! time watches under one writer's name.

mod anomaly;
mod conditions;
mod past;
mod rule;
mod sequence;
mod turns;
mod watch;

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::Serialize;
use tokio::sync::{Mutex, broadcast};
use twinlake_contracts::{
    Error, Result, TableName, TableSpec, TableStore as _, TableWriter, WriteMode, format_us, now_us,
    timestamp_type,
};
use twinlake_lake::{LakeTable, TableChange};
use twinlake_query::SessionSettings;

pub use anomaly::{AnomalyMethod, AnomalyRule, Direction, Season};
pub use rule::{EventRule, SequenceStep, Severity};

use self::conditions::Conditions;
use self::turns::Turns;
use self::watch::{Change, Transition, Watch};
use crate::Twins;
use crate::live::{LOOK_EVERY, Shape};
use crate::model::TwinModel;

/// The table of all steps.
const TABLE: &str = "meta.events";
/// How often steps are committed and silence is looked for.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// How many steps may wait for a listener that is slow; then it misses the oldest.
const WAITING: usize = 1024;

/// A step of an event, as it is stored and told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventStep {
    /// Names the event: the same for all its steps.
    pub event_id: String,
    /// The rule.
    pub rule: String,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// The twin model.
    pub model: String,
    /// The instance's key, as text.
    pub id: String,
    /// `raised`, `acknowledged` or `cleared`.
    pub change: String,
    /// When it happened, RFC 3339: the time of the reading, or of the end of patience.
    pub at: String,
    /// When it was recorded here, RFC 3339.
    pub recorded_at: String,
    /// Who acknowledged it.
    pub who: Option<String>,
    /// What that one says.
    pub note: Option<String>,
}

/// The watched rules and their events.
pub struct Events {
    twins: Weak<Twins>,
    rules: BTreeMap<String, EventRule>,
    state: Mutex<State>,
    told: broadcast::Sender<EventStep>,
    /// For one listener that misses nothing.
    from_start: std::sync::Mutex<Option<broadcast::Receiver<EventStep>>>,
    table: Arc<dyn TableWriter>,
    writer: String,
    /// How often was committed, and whether there is something to commit.
    upto: AtomicU64,
    pending: AtomicU64,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("rules", &self.rules.keys()).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    watches: BTreeMap<String, Watch>,
    /// The last step of each event that is open.
    open: BTreeMap<String, EventStep>,
}

fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let instant = |name: &str| Field::new(name, timestamp_type(), true);
    Arc::new(Schema::new(vec![
        text("event_id"),
        text("rule"),
        text("severity"),
        text("model"),
        text("id"),
        text("change"),
        instant("at"),
        instant("recorded_at"),
        text("who"),
        text("note"),
    ]))
}

impl Twins {
    /// Watches rules (`(file name, TOML text)` each) from now on, as long as the twins live; steps are stored under the name of
    /// `writer`. A rule that cannot hold is an error with its place. Called once a process.
    pub async fn watch(self: &Arc<Self>, rules: Vec<(String, String)>, writer: &str) -> Result<Arc<Events>> {
        let mut parsed = BTreeMap::new();
        for (file, text) in &rules {
            let rule = EventRule::parse(file, text)?;
            let model = self.model(&rule.twin)?;
            if model.telemetry.is_none() {
                return Err(Error::config(format!(
                    "rule '{}' watches a map, which has no readings",
                    rule.name
                )));
            }
            let source = twinlake_contracts::TomlFile::new(file, text);
            self.conditions(&rule, &model).map_err(|error| {
                let steps = rule.steps.iter().map(|step| step.when.as_str());
                let property = rule.anomaly.iter().map(|anomaly| anomaly.property.as_str());
                let conditions = rule.raise_when.iter().chain(&rule.clear_when).map(String::as_str);
                source.placed(error, conditions.chain(steps).chain(property))
            })?;
            if let Some(other) = parsed.insert(rule.name.clone(), rule) {
                return Err(source.mistake(format!("there is another rule '{}'", other.name), &other.name));
            }
        }
        let spec = TableSpec {
            name: TableName::parse(TABLE)?,
            schema: schema(),
            description: "What rules said of twins: a row a step of an event.".to_owned(),
        };
        let table: Arc<dyn TableWriter> = self.lake().open_table(spec).await?;
        let writer = format!("events/{writer}");
        let upto = AtomicU64::new(table.committed(&writer).await?.unwrap_or_default());
        let watches = parsed.values().map(|rule: &EventRule| (rule.name.clone(), Watch::of(rule)));
        let state = State { watches: watches.collect(), open: BTreeMap::new() };
        let (told, from_start) = broadcast::channel(WAITING);
        let events = Arc::new(Events {
            twins: Arc::downgrade(self),
            rules: parsed,
            state: Mutex::new(state),
            told,
            from_start: std::sync::Mutex::new(Some(from_start)),
            table,
            writer,
            upto,
            pending: AtomicU64::new(0),
        });
        events.remember(self).await?;
        let models: HashSet<String> = events.rules.values().map(|rule| rule.twin.clone()).collect();
        for model in models {
            tokio::spawn(follow(Arc::downgrade(&events), self.model(&model)?));
        }
        tokio::spawn(tick(Arc::downgrade(&events)));
        *self.events.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&events));
        Ok(events)
    }

    /// The events, if rules are watched.
    pub fn events(&self) -> Option<Arc<Events>> {
        self.events.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn tick(events: Weak<Events>) {
    loop {
        tokio::time::sleep(COMMIT_EVERY).await;
        let Some(events) = events.upgrade() else { return };
        if let Err(error) = events.tick(now_us()).await {
            tracing::warn!(%error, "steps of events wait for their commit");
        }
    }
}

async fn follow(events: Weak<Events>, model: Arc<TwinModel>) {
    loop {
        let table = {
            let Some(events) = events.upgrade() else { return };
            let Some(twins) = events.twins.upgrade() else { return };
            model.table().and_then(|table| twins.lake().table(table))
        };
        if let Some(table) = table
            && let Err(error) = follow_table(&events, &model, &table).await
        {
            tracing::warn!(model = model.name, %error, "events are not watched, and begun anew");
        }
        tokio::time::sleep(COMMIT_EVERY).await;
    }
}

/// Judges what is there, and what comes, until the table must be followed anew.
async fn follow_table(events: &Weak<Events>, model: &Arc<TwinModel>, table: &Arc<LakeTable>) -> Result<()> {
    let following = table.follow().await?;
    let shape = Shape::new(model);
    {
        let (Some(events), Some(twins)) =
            (events.upgrade(), events.upgrade().and_then(|e| e.twins.upgrade()))
        else {
            return Ok(());
        };
        let conditions = events.conditions_of(&twins, model)?;
        events.remember_past(&twins, model, &conditions, &following.snapshot).await?;
        // What has been run through the past has been judged.
        let rest: Vec<Conditions> =
            conditions.into_iter().filter(|own| !events.remembers(&own.rule)).collect();
        let session = twins.engine()?.session(SessionSettings::default())?;
        let sql = format!("SELECT * FROM twin.\"{}\"", model.name);
        for rows in session.collect(&sql).await? {
            events.judge(&rest, &Turns::of_states(model, rows)?).await?;
        }
    }
    loop {
        while let Some(change) = following.next() {
            let (Some(events), Some(twins)) =
                (events.upgrade(), events.upgrade().and_then(|e| e.twins.upgrade()))
            else {
                return Ok(());
            };
            let batches = match change {
                TableChange::Rows(rows) => vec![rows],
                TableChange::Files(added) => table.read_added(&added).await?,
                TableChange::Anew => return Ok(()),
            };
            let conditions = events.conditions_of(&twins, model)?;
            for batch in batches {
                events.judge(&conditions, &Turns::of_rows(&twins, model, &shape, &batch).await?).await?;
            }
        }
        if events.upgrade().is_none() {
            return Ok(());
        }
        let _ = tokio::time::timeout(LOOK_EVERY, following.woken().notified()).await;
        table.look().await?;
    }
}

impl Events {
    /// The rules, by name.
    pub fn rules(&self) -> impl Iterator<Item = &EventRule> {
        self.rules.values()
    }

    /// Steps from now on, as they come.
    pub fn listen(&self) -> broadcast::Receiver<EventStep> {
        self.told.subscribe()
    }

    /// Steps from the beginning of the watch on, for the one listener that asks first; for others from now on.
    pub fn listen_from_start(&self) -> broadcast::Receiver<EventStep> {
        let kept = self.from_start.lock().unwrap_or_else(PoisonError::into_inner).take();
        kept.unwrap_or_else(|| self.listen())
    }

    /// The events that are open: the last step of each.
    pub async fn open(&self) -> Vec<EventStep> {
        self.state.lock().await.open.values().cloned().collect()
    }

    /// Notes that somebody knows of an open event. An event that is not open is an error.
    pub async fn acknowledge(
        &self,
        event_id: &str,
        who: Option<String>,
        note: Option<String>,
    ) -> Result<EventStep> {
        let mut state = self.state.lock().await;
        let last =
            state.open.get(event_id).cloned().ok_or_else(|| {
                Error::not_found("open event", event_id, state.open.keys().map(String::as_str))
            })?;
        let now = format_us(now_us());
        let change = "acknowledged".to_owned();
        let step = EventStep { change, at: now.clone(), recorded_at: now, who, note, ..last };
        self.store(&mut state, vec![step.clone()]).await?;
        Ok(step)
    }

    fn conditions_of(&self, twins: &Twins, model: &TwinModel) -> Result<Vec<Conditions>> {
        let own = self.rules.values().filter(|rule| rule.twin == model.name);
        own.map(|rule| twins.conditions(rule, model)).collect()
    }

    /// Finds the events that were open when the last process ended.
    async fn remember(&self, twins: &Twins) -> Result<()> {
        let session = twins.engine()?.session(SessionSettings::default())?;
        let rows = session
            .collect(
                "SELECT event_id, rule, severity, model, id, change, at, recorded_at, who, note FROM meta.events \
                 WHERE event_id NOT IN (SELECT event_id FROM meta.events WHERE change = 'cleared') ORDER BY recorded_at, change DESC",
            )
            .await?;
        let mut state = self.state.lock().await;
        for rows in &rows {
            let texts: Vec<ArrayRef> = rows
                .columns()
                .iter()
                .map(|column| cast(column, &DataType::Utf8))
                .collect::<std::result::Result<_, _>>()?;
            let text = |column: usize, row: usize| {
                let column = texts[column].as_string::<i32>();
                column.is_valid(row).then(|| column.value(row).to_owned())
            };
            for row in 0..rows.num_rows() {
                let needed = |column: usize| text(column, row).unwrap_or_default();
                let step = EventStep {
                    event_id: needed(0),
                    rule: needed(1),
                    severity: needed(2),
                    model: needed(3),
                    id: needed(4),
                    change: needed(5),
                    at: needed(6),
                    recorded_at: needed(7),
                    who: text(8, row),
                    note: text(9, row),
                };
                // What no rule watches any more stays as it is in the table.
                if let Some(watch) = state.watches.get_mut(&step.rule) {
                    watch.reopen(&step.id, &step.event_id, now_us());
                    state.open.insert(step.event_id.clone(), step);
                }
            }
        }
        Ok(())
    }

    /// Whether a rule depends on more than one reading.
    fn remembers(&self, rule: &str) -> bool {
        self.rules.get(rule).is_some_and(|rule| Watch::of(rule).remembers())
    }

    async fn judge(&self, conditions: &[Conditions], turns: &Turns) -> Result<()> {
        let now = now_us();
        let mut state = self.state.lock().await;
        let mut steps = Vec::new();
        for own in conditions {
            let Some(watch) = state.watches.get_mut(&own.rule) else { continue };
            steps.extend(turns.run(watch, own, now)?.into_iter().map(|step| self.step(&own.rule, step)));
        }
        self.store(&mut state, steps).await
    }

    /// Looks for silence and commits what is to be committed.
    async fn tick(&self, now: i64) -> Result<()> {
        let mut state = self.state.lock().await;
        let mut steps = Vec::new();
        for (rule, watch) in &mut state.watches {
            steps.extend(watch.tick(now).into_iter().map(|step| self.step(rule, step)));
        }
        self.store(&mut state, steps).await?;
        drop(state);
        if self.pending.swap(0, Ordering::AcqRel) > 0 {
            let next = self.upto.load(Ordering::Acquire) + 1;
            if let Err(error) = self.table.commit(&self.writer, next, WriteMode::Append).await {
                self.pending.fetch_add(1, Ordering::AcqRel);
                return Err(error);
            }
            self.upto.store(next, Ordering::Release);
        }
        Ok(())
    }

    fn step(&self, rule: &str, transition: Transition) -> EventStep {
        let known = self.rules.get(rule);
        EventStep {
            event_id: transition.event_id,
            rule: rule.to_owned(),
            severity: known.map_or("", |rule| rule.severity.name()).to_owned(),
            model: known.map(|rule| rule.twin.clone()).unwrap_or_default(),
            id: transition.id,
            change: match transition.change {
                Change::Raised => "raised",
                Change::Cleared => "cleared",
            }
            .to_owned(),
            at: format_us(transition.at_us),
            recorded_at: format_us(now_us()),
            who: None,
            note: None,
        }
    }

    async fn store(&self, state: &mut State, steps: Vec<EventStep>) -> Result<()> {
        if steps.is_empty() {
            return Ok(());
        }
        self.table.add_fresh(&self.writer, rows_of(&steps)?).await?;
        self.pending.fetch_add(1, Ordering::AcqRel);
        for step in steps {
            if step.change == "cleared" {
                state.open.remove(&step.event_id);
            } else {
                state.open.insert(step.event_id.clone(), step.clone());
            }
            // Nobody listens, or somebody does.
            let _ = self.told.send(step);
        }
        Ok(())
    }
}

fn rows_of(steps: &[EventStep]) -> Result<RecordBatch> {
    let texts = |text: fn(&EventStep) -> Option<&str>| {
        Arc::new(steps.iter().map(text).collect::<StringArray>()) as ArrayRef
    };
    let instants = |text: fn(&EventStep) -> &str| {
        let instants: TimestampMicrosecondArray =
            steps.iter().map(|step| twinlake_contracts::parse_us(text(step))).collect();
        Arc::new(instants.with_timezone("UTC")) as ArrayRef
    };
    let columns = vec![
        texts(|step| Some(&step.event_id)),
        texts(|step| Some(&step.rule)),
        texts(|step| Some(&step.severity)),
        texts(|step| Some(&step.model)),
        texts(|step| Some(&step.id)),
        texts(|step| Some(&step.change)),
        instants(|step| &step.at),
        instants(|step| &step.recorded_at),
        texts(|step| step.who.as_deref()),
        texts(|step| step.note.as_deref()),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}
