//! What rules remember, found again from the table when a process begins.
//!
//! A sequence that has begun, what is usual of an instance, since when a condition has held: none of it is stored. It follows from
//! the readings, so a process that begins runs the past ones through the same rules, in the order in which they became known (so
//! that what was late then is late now), and goes on where that ends. Steps of the past are not told again: only where the past
//! ends with another event than is known to be open, the step is made up for.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _};
use arrow::datatypes::TimestampMicrosecondType;
use datafusion::datasource::TableProvider;
use datafusion::functions_aggregate::expr_fn::max;
use datafusion::logical_expr::{SortExpr, cast};
use datafusion::prelude::DataFrame;
use futures::StreamExt as _;
use twinlake_contracts::{INGESTED_AT, Result, SEQUENCE, now_us, timestamp_type};
use twinlake_query::SessionSettings;

use super::Events;
use super::conditions::Conditions;
use super::turns::Turns;
use super::watch::Watch;
use crate::Twins;
use crate::live::Shape;
use crate::model::TwinModel;
use crate::state::{instant, named};
use crate::view::back;

impl Events {
    /// Runs the past readings of a model, those of the snapshot of its table, through the rules that depend on them.
    pub(super) async fn remember_past(
        &self,
        twins: &Twins,
        model: &Arc<TwinModel>,
        conditions: &[Conditions],
        snapshot: &Arc<dyn TableProvider>,
    ) -> Result<()> {
        let mut past: BTreeMap<&str, Watch> = BTreeMap::new();
        let mut past_s: f64 = 0.0;
        for own in conditions {
            let Some(rule) = self.rules.get(&own.rule) else { continue };
            let watch = Watch::of(rule);
            if watch.remembers() {
                past_s = past_s.max(rule.past_s);
                past.insert(&own.rule, watch);
            }
        }
        if past.is_empty() {
            return Ok(());
        }
        let begun = std::time::Instant::now();
        let session = twins.engine()?.session(SessionSettings::default())?;
        let table = session.context().read_table(Arc::clone(snapshot)).map_err(back)?;
        let Some(rows) = in_order(table, model, past_s).await? else { return Ok(()) };
        let shape = Shape::new(model);
        let mut count = 0;
        let mut rows = rows.execute_stream().await.map_err(back)?;
        while let Some(batch) = rows.next().await {
            let turns = Turns::of_rows(twins, model, &shape, &batch.map_err(back)?).await?;
            count += turns.len();
            for own in conditions {
                if let Some(watch) = past.get_mut(own.rule.as_str()) {
                    turns.run(watch, own, now_us())?;
                }
            }
        }
        tracing::debug!(
            model = model.name,
            readings = count,
            seconds = begun.elapsed().as_secs_f64(),
            "rules know the past"
        );
        let mut state = self.state.lock().await;
        let mut steps = Vec::new();
        for (rule, past) in past {
            if let Some(watch) = state.watches.get_mut(rule) {
                steps.extend(watch.settle(past).into_iter().map(|step| self.step(rule, step)));
            }
        }
        self.store(&mut state, steps).await
    }
}

/// The rows of a table from `past_s` before its newest time on, in the order in which they became known; `None` when there is none.
async fn in_order(table: DataFrame, model: &TwinModel, past_s: f64) -> Result<Option<DataFrame>> {
    let time = model.telemetry.as_ref().map_or("ts", |telemetry| telemetry.time.as_str());
    let time = cast(named(time), timestamp_type());
    let newest =
        table.clone().aggregate(Vec::new(), vec![max(time.clone()).alias("newest")]).map_err(back)?;
    let newest = newest.collect().await.map_err(back)?;
    let newest = newest.iter().find(|batch| batch.num_rows() > 0);
    let newest = newest.and_then(|batch| {
        let column = batch.column(0);
        let times = column.as_primitive_opt::<TimestampMicrosecondType>()?;
        times.is_valid(0).then(|| times.value(0))
    });
    let Some(newest) = newest else { return Ok(None) };
    let from = newest.saturating_sub((past_s * 1e6) as i64);
    let known = |name: &str| table.schema().has_column_with_unqualified_name(name);
    let order =
        [INGESTED_AT, SEQUENCE].into_iter().filter(|name| known(name)).map(named).chain([time.clone()]);
    let order: Vec<SortExpr> = order.map(|column| SortExpr::new(column, true, true)).collect();
    let rows = table.filter(time.gt_eq(instant(Some(from)))).and_then(|rows| rows.sort(order));
    rows.map(Some).map_err(back)
}
