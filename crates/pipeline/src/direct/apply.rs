//! Bodies applied: fitted to their tables, added, answered.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::RecordBatch;
use twinlake_contracts::{Error, INGESTED_AT, RefusedPart, Result, Retry, SEQUENCE, TableName, TableRows};

use super::fit::{Fit, Misfit, fit};
use super::tables::first_name;
use super::window::{Entry, Outcome, Window, combine, row_text};
use super::worker::Worker;

/// A row that does not fit: the number of its batch in the body, its row there, its table.
type Refused = (usize, usize, TableName, Misfit);

impl Worker {
    /// Lands consecutive bodies and answers their callers.
    pub(super) async fn apply(&mut self, entries: Vec<Entry>) -> Result<()> {
        let Some(last) = entries.last().map(|entry| entry.sequence) else { return Ok(()) };
        let mut window = Window::default();
        for entry in entries {
            if entry.sequence > self.position {
                self.plan(entry, &mut window).await?;
            }
        }
        let names: Vec<TableName> = window.parts.keys().cloned().collect();
        for name in names {
            self.hold(&name, &mut window).await?;
            let target = self.tables.get(&name)?;
            let parts = window.parts.get(&name).map(Vec::as_slice).unwrap_or_default();
            let rows = combine(parts, &window.outcomes, &target.schema, target.committed)?;
            let Some(rows) = rows else { continue };
            match self.add(&name, rows).await {
                Ok(()) => {}
                // Somebody else changed the table: its rows are refused, the others land.
                Err(error @ (Error::Config(_) | Error::Data { .. })) => {
                    tracing::warn!(table = %name, %error, "a table refused its rows");
                    window.refuse_table(&name, "table_refused", &error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        let rejects = self.rejects.clone();
        if let Some(rows) = window.rejects(self.tables.get(&rejects)?.committed)? {
            self.add(&rejects, rows).await?;
        }
        self.position = last;
        self.count(&window);
        for outcome in window.outcomes {
            if let (Some(key), None) = (&outcome.envelope.key, &outcome.repeated) {
                self.keys.insert(key.clone(), outcome.known());
            }
            outcome.answer();
        }
        Ok(())
    }

    /// Refuses the rows that break a constraint of their table; the others of their body land.
    async fn hold(&self, name: &TableName, window: &mut Window) -> Result<()> {
        let Some(table) = self.tables.get(name)?.table.clone() else { return Ok(()) };
        for at in 0..window.parts.get(name).map_or(0, Vec::len) {
            let Some(part) = window.parts.get(name).and_then(|parts| parts.get(at)) else { continue };
            match table.violations(&part.rows).await {
                Ok(rejects) => window.refuse_rows(name, at, &rejects)?,
                // Told again, for all of them, where they are added.
                Err(Error::Config(_) | Error::Data { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn count(&self, window: &Window) {
        let stats = &self.patience.stats;
        stats.processed.fetch_add(window.outcomes.len() as u64, Ordering::Relaxed);
        for (name, parts) in &window.parts {
            stats.add_rows(&name.to_string(), parts.iter().map(|part| part.rows.num_rows()).sum());
        }
        for (part, _) in window.outcomes.iter().flat_map(|outcome| &outcome.refused) {
            stats.add_reject(&part.reason);
        }
    }

    /// Adds rows to a table. A table that has no room for more is committed first, up to the bodies before this window.
    async fn add(&mut self, name: &TableName, rows: RecordBatch) -> Result<()> {
        let bytes = rows.get_array_memory_size();
        if let Err(error) = self.tables.add(name, &rows).await {
            if error.retry() == Retry::Never {
                return Err(error);
            }
            self.patience.stats.failed(&error);
            tracing::warn!(table = %name, %error, "adding rows failed; committing, then trying again");
            let target = self.tables.get(name)?;
            if target.dirty && target.committed < self.position {
                self.store_state(self.position).await?;
                self.tables.commit_one(name, self.position).await?;
            }
            self.patience.retry("adding rows", || self.tables.add(name, &rows)).await?;
        }
        self.tables.added(name)?;
        self.uncommitted.push(self.budget.hold(bytes));
        self.uncommitted_bytes += bytes;
        Ok(())
    }

    /// Decides what becomes of a body.
    async fn plan(&mut self, entry: Entry, window: &mut Window) -> Result<()> {
        let (mut outcome, decoded) = Outcome::of(entry);
        let earlier = outcome.envelope.key.as_ref().and_then(|key| {
            let earlier = window.by_key(key).or_else(|| self.keys.get(key));
            earlier.filter(|earlier| earlier.sequence < outcome.sequence)
        });
        if let Some(earlier) = earlier {
            outcome.refused.clear();
            outcome.repeated = Some(earlier.answer(outcome.fingerprint));
            window.push(outcome);
            return Ok(());
        }
        window.push(outcome);
        let mut refused: Vec<Refused> = Vec::new();
        for (number, rows) in decoded.tables.iter().enumerate() {
            let all = |name: &TableName, reason, detail: &str| {
                let misfit = Misfit { reason, detail: detail.into() };
                let name = name.clone();
                (0..rows.places.len()).map(move |row| (number, row, name.clone(), misfit.clone()))
            };
            let name = match self.tables.resolve(&rows.table).await {
                Ok(Ok(name)) => name,
                Ok(Err(name)) => {
                    refused.extend(all(&name, "name_collision", "the table belongs to another measurement"));
                    continue;
                }
                Err(error @ (Error::Config(_) | Error::Data { .. })) => {
                    refused.extend(all(&first_name(&rows.table), "table_refused", &error.to_string()));
                    continue;
                }
                Err(error) => return Err(error),
            };
            match self.fit(&name, rows).await {
                Ok(mut fitted) => {
                    let misfits = std::mem::take(&mut fitted.misfits);
                    refused
                        .extend(misfits.into_iter().map(|(row, misfit)| (number, row, name.clone(), misfit)));
                    if fitted.count > 0 {
                        window.add(&name, fitted)?;
                    }
                }
                Err(error @ (Error::Config(_) | Error::Data { .. })) => {
                    refused.extend(all(&name, "table_refused", &error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        if !refused.is_empty() {
            self.refuse(&decoded.tables, refused, window);
        }
        Ok(())
    }

    /// Adds the rows that do not fit to the refused parts of the newest body, in the order of the body.
    fn refuse(&self, tables: &[TableRows], refused: Vec<Refused>, window: &mut Window) {
        let Some(outcome) = window.outcomes.last_mut() else { return };
        let place = |number: usize, row: usize| {
            tables.get(number).and_then(|rows| rows.places.get(row)).copied().unwrap_or_default()
        };
        let mut refused: Vec<(u32, Refused)> =
            refused.into_iter().map(|entry| (place(entry.0, entry.1), entry)).collect();
        refused.sort_by_key(|(place, _)| *place);
        let places: Vec<u32> = refused.iter().map(|(place, _)| *place).collect();
        let texts = self.decoder.texts(&outcome.envelope.format, &outcome.message.payload, &places);
        for (at, (place, (number, row, name, misfit))) in refused.into_iter().enumerate() {
            let text = texts.as_ref().and_then(|texts| texts.get(at)).cloned();
            let text = text.or_else(|| tables.get(number).map(|rows| row_text(&rows.rows, row)));
            let part = RefusedPart {
                place: place.into(),
                reason: misfit.reason.into(),
                detail: misfit.detail.to_string(),
                text: text.unwrap_or_default(),
            };
            outcome.refused.push((part, Some(name)));
        }
        outcome.refused.sort_by_key(|(part, _)| part.place);
    }

    /// Fits rows into their table, which is made or widened where they ask for it.
    async fn fit(&mut self, name: &TableName, rows: &TableRows) -> Result<Fit> {
        let mut again = true;
        loop {
            let schema = Arc::clone(&self.tables.get(name)?.schema);
            let fitted = fit(name, &schema, &rows.rows)?;
            let whole = [SEQUENCE, INGESTED_AT].iter().all(|own| schema.field_with_name(own).is_ok());
            if fitted.count == 0 || (fitted.new.is_empty() && whole) {
                return Ok(fitted);
            }
            match self.tables.grow(name, &fitted.new, &rows.table).await {
                Ok(()) => return Ok(fitted),
                // Another writer added a column at the same time: look again, once.
                Err(Error::Config(_)) if again => again = false,
                Err(error) => return Err(error),
            }
        }
    }
}
