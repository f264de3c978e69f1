//! Past messages run through a pipeline again: the rows that they made are exchanged for those that they make now.
//!
//! Which rows: those of the messages that became known in an interval, and satisfy a condition, among all that are
//! completely committed when it starts (the *cut*). A row belongs to the message that it names in `_sequence`; rows of all
//! other messages stay, also those that a running stream commits meanwhile. Each table changes in one commit.
//!
//! Why the rows equal the stream's: messages are read from `raw.<source>` in the order of the log, with the sequences and
//! receipt times that they had, and go through the same code as in a run. Where a step remembers earlier rows
//! ([`Transform::remembers`](twinlake_contracts::Transform::remembers)), the pass begins with the first message that is kept, so that the
//! step remembers what it remembered then, and it goes on behind the interval until no row of it is held back any more. The end of an input, a
//! message of the log alone, is where the raw messages have a gap of one.
//!
//! Why it survives a crash: rows are staged as files beside their tables, and after each piece the place, the files and
//! the steps' state are stored under a name made of the pipeline, the interval and the condition. The same call goes on from there, with the same
//! cut. The commits carry a key of the run, so that none happens twice.

mod cut;
mod messages;
mod pass;
mod piece;
mod record;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use tokio::sync::watch;
use twinlake_contracts::{
    Error, Result, Revised, Revision, Sequences, SqlEngine, StagedFile, TableSpec, TableStore, now_us,
};

use self::messages::{Messages, Selection};
use self::pass::{Pass, Piece};
pub use self::piece::{PieceDone, PieceOrder, PieceWorkers, run_piece};
use self::piece::{stage, targets};
use self::record::{Progress, Record};
use crate::flow::Flow;
use crate::plan::Plan;

/// How many messages a trial takes to tell how long the whole will take.
const TRIAL_MESSAGES: u64 = 20_000;

/// Which messages are run again, and how.
#[derive(Debug, Clone)]
pub struct ReprocessOptions {
    /// Messages that became known at this instant or later: microseconds since the epoch, UTC.
    pub from_us: Option<i64>,
    /// Messages that became known before this instant.
    pub to_us: Option<i64>,
    /// A condition in SQL over the columns of `raw.<source>`.
    pub condition: Option<String>,
    /// How much earlier than its first message a piece begins, when steps remember earlier rows: exact if they remember
    /// nothing older. Without it the pass begins with the first message that is kept, which is always exact.
    pub warm_up_us: Option<i64>,
    /// Takes in what came too late: the steps allow as much more lateness as the refused rows had. The whole past is run in one
    /// pass; with nothing refused as late nothing is done.
    pub stale: bool,
    /// How many pieces run at a time, where pieces can be made.
    pub parallel: NonZeroUsize,
    /// How many messages a piece has: what is done again after a crash.
    pub piece_messages: u64,
}

impl Default for ReprocessOptions {
    fn default() -> Self {
        Self {
            from_us: None,
            to_us: None,
            condition: None,
            warm_up_us: None,
            stale: false,
            parallel: NonZeroUsize::MIN,
            piece_messages: 250_000,
        }
    }
}

/// What a reprocessing would do.
#[derive(Debug, Clone, Serialize)]
pub struct Estimate {
    /// The pipeline's name.
    pub pipeline: String,
    /// The last message that is completely committed.
    pub cut: u64,
    /// How many messages' rows are exchanged.
    pub messages: u64,
    /// How many messages are run, with those before and after that are needed.
    pub replayed: u64,
    /// Whether steps remember earlier rows.
    pub remembers: bool,
    /// Tables with the rows that go, at most, by the statistics of their files.
    pub tables: BTreeMap<String, Revised>,
    /// How long it may take, from a trial with the first messages.
    pub seconds: f64,
    /// What the reader should know.
    pub notes: Vec<String>,
}

/// What a reprocessing did.
#[derive(Debug, Clone, Serialize)]
pub struct ReprocessReport {
    /// The pipeline's name.
    pub pipeline: String,
    /// Names the run; commits carry it.
    pub run_id: String,
    /// The last message that was completely committed when it began.
    pub cut: u64,
    /// How many messages' rows were exchanged.
    pub messages: u64,
    /// How many messages were run.
    pub replayed: u64,
    /// Whether an earlier call had begun it.
    pub resumed: bool,
    /// What became of each table.
    pub tables: BTreeMap<String, Revised>,
    /// When it began: microseconds since the epoch, UTC.
    pub started_us: i64,
    /// When it ended.
    pub finished_us: i64,
    /// What the reader should know.
    pub notes: Vec<String>,
}

/// How far a reprocessing is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Advance {
    /// Messages run so far.
    pub done: u64,
    /// Messages to be run in all, about.
    pub all: u64,
}

/// Runs past messages of a pipeline again.
pub struct Reprocess {
    plan: Arc<Plan>,
    store: Arc<dyn TableStore>,
    engine: Arc<dyn SqlEngine>,
    options: ReprocessOptions,
    workers: Option<Arc<dyn PieceWorkers>>,
    advance: watch::Sender<Advance>,
}

/// What is to be done.
struct Work {
    messages: Messages,
    selected: Sequences,
    remembers: bool,
    /// How much more lateness the steps are to allow than their settings say.
    tolerate_us: Option<i64>,
    notes: Vec<String>,
}

impl Reprocess {
    /// Prepares; nothing is read yet.
    pub fn new(
        plan: Plan,
        store: Arc<dyn TableStore>,
        engine: Arc<dyn SqlEngine>,
        options: ReprocessOptions,
    ) -> Self {
        let advance = watch::Sender::default();
        Self { plan: Arc::new(plan), store, engine, options, workers: None, advance }
    }

    /// Gives pieces that know nothing of each other to others; what cannot be cut into such pieces is run here.
    #[must_use]
    pub fn with_workers(mut self, workers: Arc<dyn PieceWorkers>) -> Self {
        self.workers = Some(workers);
        self
    }

    /// Tells how far it is.
    pub fn advance(&self) -> watch::Receiver<Advance> {
        self.advance.subscribe()
    }

    /// The targets whose rows are exchanged: key, writer, table.
    fn targets(&self) -> Vec<(String, String, TableSpec)> {
        targets(&self.plan)
    }

    async fn work(&self, cut: u64) -> Result<Work> {
        let name = &self.plan.pipeline.name;
        let messages = Messages::open(name, &self.engine, cut).await?;
        let selection = Selection {
            from_us: self.options.from_us,
            to_us: self.options.to_us,
            condition: self.options.condition.as_deref(),
        };
        let mut selected = messages.select(&selection).await?;
        let mut tolerate_us = None;
        if self.options.stale {
            let late = messages.late().await?;
            tolerate_us = late.most_us;
            if late.rows == 0 {
                selected = Sequences::default();
            }
        }
        let flow = Flow::new(&self.plan, &self.engine).await?;
        let mut notes = Vec::new();
        let remembers = flow.remembers();
        match messages.first {
            Some(first) if first > 1 && remembers && self.options.warm_up_us.is_none() => notes.push(format!(
                "messages before number {first} are not kept any more: steps that remember earlier rows begin with \
                 nothing there"
            )),
            _ => {}
        }
        if remembers && self.options.warm_up_us.is_none() && self.options.parallel.get() > 1 {
            notes.push(
                "steps remember earlier rows: the messages are run in one pass, not in parallel".to_owned(),
            );
        }
        Ok(Work { messages, selected, remembers, tolerate_us, notes })
    }

    /// Where the single pass over `selected` begins.
    fn start(&self, work: &Work, selected: &Sequences) -> impl Future<Output = Result<u64>> {
        let first = selected.first().unwrap_or(1);
        let (remembers, warm_up_us) = (work.remembers, self.options.warm_up_us);
        let messages = work.messages.clone();
        async move {
            match warm_up_us {
                _ if !remembers => Ok(first),
                Some(warm_up_us) => messages.warm(first, warm_up_us).await,
                None => Ok(messages.first.unwrap_or(first)),
            }
        }
    }

    /// Whether the messages can be cut into pieces that know nothing of each other.
    fn divisible(&self, work: &Work) -> bool {
        (!work.remembers || self.options.warm_up_us.is_some()) && work.tolerate_us.is_none()
    }

    /// What would be done. Changes nothing; runs a few messages to see how long they take.
    pub async fn estimate(&self) -> Result<Estimate> {
        let cut = cut::cut(&self.plan, &self.store).await?;
        let mut work = self.work(cut).await?;
        let mut tables = BTreeMap::new();
        for (_, writer, spec) in self.targets() {
            if self.store.describe_table(&spec.name).await?.is_none() {
                work.notes.push(format!("the table {} would be made", spec.name));
                continue;
            }
            let table = self.store.open_table(spec.clone()).await?;
            let affected: &mut Revised = tables.entry(spec.name.to_string()).or_default();
            let more = table.affected(&writer, &work.selected).await?;
            affected.version = more.version;
            affected.files += more.files;
            affected.rows_gone += more.rows_gone;
        }
        let start = self.start(&work, &work.selected).await?;
        let end = work.selected.last().unwrap_or(0);
        let replayed = if work.selected.is_empty() { 0 } else { (end + 1).saturating_sub(start) };
        let seconds = if replayed == 0 {
            0.0
        } else {
            let trial = start.saturating_add(TRIAL_MESSAGES).min(end + 1);
            let begin = Instant::now();
            let mut pass = Pass::new(&self.plan, &self.engine, start).await?;
            pass.run(&work.messages, &work.selected, trial - 1, None, |_| {}).await?;
            begin.elapsed().as_secs_f64() * replayed as f64 / (trial - start) as f64
        };
        Ok(Estimate {
            pipeline: self.plan.pipeline.name.clone(),
            cut,
            messages: work.selected.count(),
            replayed,
            remembers: work.remembers,
            tables,
            seconds,
            notes: work.notes,
        })
    }

    /// Does it, or goes on with what an earlier call with the same file and the same choice began. Until the end no table
    /// changes; then each changes in one commit. When `stop` becomes true it ends early, and can be gone on with.
    pub async fn run(&self, stop: watch::Receiver<bool>) -> Result<ReprocessReport> {
        let record = Record::new(&self.plan, &self.store, &self.options);
        let before = record.read().await?;
        let resumed = before.is_some();
        let mut progress = if let Some(progress) = before {
            progress
        } else {
            let started_us = now_us();
            let cut = cut::cut(&self.plan, &self.store).await?;
            Progress::new(format!("{}-reprocess-{started_us}", self.plan.pipeline.name), cut, started_us)
        };
        let work = self.work(progress.cut).await?;
        if work.selected.is_empty() {
            return Ok(self.report(&progress, &work, resumed, BTreeMap::new()));
        }
        if !progress.staged_all {
            if self.divisible(&work) {
                self.in_pieces(&work, &record, &mut progress, &stop).await?;
            } else {
                self.in_one_pass(&work, &record, &mut progress, &stop).await?;
            }
            progress.staged_all = true;
            record.write(&mut progress).await?;
        }
        let mut tables: BTreeMap<String, Revised> = BTreeMap::new();
        for (key, writer, spec) in self.targets() {
            let table = self.store.open_table(spec.clone()).await?;
            let come: &[StagedFile] = progress.staged.get(&key).map_or(&[], Vec::as_slice);
            let key = format!("{}/{key}", progress.run_id);
            let revision = Revision { writer: &writer, gone: &work.selected, come, key: &key };
            let revised = table.revise(revision).await?;
            let sum = tables.entry(spec.name.to_string()).or_default();
            sum.version = revised.version;
            sum.files += revised.files;
            sum.rows_gone += revised.rows_gone;
            sum.rows_come += revised.rows_come;
        }
        record.finish(&mut progress).await?;
        Ok(self.report(&progress, &work, resumed, tables))
    }

    fn report(
        &self,
        progress: &Progress,
        work: &Work,
        resumed: bool,
        tables: BTreeMap<String, Revised>,
    ) -> ReprocessReport {
        ReprocessReport {
            pipeline: self.plan.pipeline.name.clone(),
            run_id: progress.run_id.clone(),
            cut: progress.cut,
            messages: work.selected.count(),
            replayed: progress.replayed,
            resumed,
            tables,
            started_us: progress.started_us,
            finished_us: now_us(),
            notes: work.notes.clone(),
        }
    }

    async fn in_one_pass(
        &self,
        work: &Work,
        record: &Record,
        progress: &mut Progress,
        stop: &watch::Receiver<bool>,
    ) -> Result<()> {
        let begin = self.start(work, &work.selected).await?;
        let mut pass =
            Pass::new(&self.plan, &self.engine, progress.position.map_or(begin, |done| done + 1)).await?;
        if let Some(more_us) = work.tolerate_us {
            pass.tolerate(more_us);
        }
        if progress.position.is_some() {
            pass.restore(&progress.state)?;
        }
        let end = work.selected.last().unwrap_or(begin);
        let all = (end + 1).saturating_sub(begin);
        loop {
            let upto =
                pass.position().saturating_add(self.options.piece_messages).min(end.max(pass.position()));
            let before = progress.replayed;
            let tell = |done: u64| {
                self.advance.send_replace(Advance { done: before + done, all });
            };
            // Behind the interval: until nothing of it is held back any more.
            let tail = (upto >= end).then_some(&work.selected);
            let tail = tail.filter(|_| work.tolerate_us.is_none());
            let mut piece = pass.run(&work.messages, &work.selected, upto, tail, tell).await?;
            if upto >= end && work.tolerate_us.is_some() {
                pass.catch_up(&work.messages, &work.selected, &mut piece).await?;
            }
            progress.replayed += piece.messages;
            self.stage(progress, piece).await?;
            let finished = pass.position() >= end;
            progress.position = Some(pass.position());
            if finished {
                return Ok(());
            }
            progress.state = pass.state()?;
            record.write(progress).await?;
            self.check(stop)?;
        }
    }

    async fn in_pieces(
        &self,
        work: &Work,
        record: &Record,
        progress: &mut Progress,
        stop: &watch::Receiver<bool>,
    ) -> Result<()> {
        let (first, end) = (work.selected.first().unwrap_or(1), work.selected.last().unwrap_or(0));
        let step = self.options.piece_messages.max(1);
        let pieces: Vec<(u64, u64)> = (first..=end)
            .step_by(usize::try_from(step).unwrap_or(usize::MAX))
            .map(|start| (start, start.saturating_add(step - 1).min(end)))
            .filter(|(start, upto)| work.selected.meets(*start, *upto))
            .collect();
        let todo = pieces.iter().filter(|(start, _)| !progress.pieces.contains(start)).copied();
        let mut todo: Vec<(u64, u64)> = todo.collect();
        let all = work.selected.count();
        if let Some(workers) = &self.workers {
            todo = self.by_workers(workers.as_ref(), work, record, progress, stop, todo).await?;
        }
        let mut todo = todo.into_iter();
        let mut running = tokio::task::JoinSet::new();
        loop {
            while running.len() < self.options.parallel.get()
                && let Some((start, upto)) = todo.next()
            {
                let own: Sequences = work.selected.within(start, upto);
                let begin = self.start(work, &own).await?;
                let (plan, engine) = (Arc::clone(&self.plan), Arc::clone(&self.engine));
                let (messages, remembers) = (work.messages.clone(), work.remembers);
                running.spawn(async move {
                    let mut pass = Pass::new(&plan, &engine, begin).await?;
                    let end = own.last().unwrap_or(upto);
                    let piece = pass.run(&messages, &own, end, remembers.then_some(&own), |_| {}).await?;
                    Ok::<_, Error>((start, piece))
                });
            }
            let Some(ended) = running.join_next().await else { return Ok(()) };
            let (start, piece) =
                ended.map_err(|error| Error::internal(format!("a piece was broken off: {error}")))??;
            progress.replayed += piece.messages;
            self.advance.send_replace(Advance { done: progress.replayed.min(all), all });
            self.stage(progress, piece).await?;
            progress.pieces.insert(start);
            record.write(progress).await?;
            self.check(stop)?;
        }
    }

    /// Lets others run pieces, some at a time; gives those that are left when they cannot go on.
    async fn by_workers(
        &self,
        workers: &dyn PieceWorkers,
        work: &Work,
        record: &Record,
        progress: &mut Progress,
        stop: &watch::Receiver<bool>,
        todo: Vec<(u64, u64)>,
    ) -> Result<Vec<(u64, u64)>> {
        let all = work.selected.count();
        let at_once = workers.at_once().get();
        for (number, wave) in todo.chunks(at_once).enumerate() {
            let mut orders = Vec::with_capacity(wave.len());
            for (start, upto) in wave {
                let own = work.selected.within(*start, *upto);
                let begin = self.start(work, &own).await?;
                let (cut, remembers) = (progress.cut, work.remembers);
                orders.push(PieceOrder { start: *start, begin, own, cut, remembers });
            }
            let done = match workers.run(orders).await {
                Ok(done) => done,
                Err(error) => {
                    tracing::warn!(
                        "the other processes do not go on, the pieces that are left run here: {error}"
                    );
                    return Ok(todo[number * at_once..].to_vec());
                }
            };
            if done.len() != wave.len()
                || wave.iter().any(|(start, _)| done.iter().all(|one| one.start != *start))
            {
                return Err(Error::internal(
                    "what became of the pieces is not about those that were ordered",
                ));
            }
            for piece in done {
                progress.replayed += piece.messages;
                for (key, files) in piece.staged {
                    progress.staged.entry(key).or_default().extend(files);
                }
                progress.pieces.insert(piece.start);
            }
            self.advance.send_replace(Advance { done: progress.replayed.min(all), all });
            record.write(progress).await?;
            self.check(stop)?;
        }
        Ok(Vec::new())
    }

    fn check(&self, stop: &watch::Receiver<bool>) -> Result<()> {
        if !*stop.borrow() {
            return Ok(());
        }
        Err(Error::config(format!("the reprocessing of '{}' was told to stop", self.plan.pipeline.name))
            .with_help("no table has changed; the same command goes on where it stopped"))
    }

    /// Stores a piece's rows beside their tables.
    async fn stage(&self, progress: &mut Progress, piece: Piece) -> Result<()> {
        for (key, files) in stage(&self.plan, &self.store, piece).await? {
            progress.staged.entry(key).or_default().extend(files);
        }
        Ok(())
    }
}
