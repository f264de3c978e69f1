//! What is recorded and judged around a run: definitions, lineage, quality.

use std::sync::Arc;

use anyhow::{Result, bail};
use twinlake_catalog::{Guard, Judged, LineageEdge, QualityResult};
use twinlake_contracts::{RowGuard, SqlEngine, TableName, now_us};
use twinlake_pipeline::{Edge, Plan, column_lineage};

use crate::town::Town;

/// Before a run: records definitions and lineage where they have changed, refuses to start on a table whose `stop` rules
/// do not hold, and gives the guard for its rows and the pipeline's lineage.
pub async fn before(town: &Town, plan: &Plan) -> Result<(Option<Arc<Guard>>, Vec<LineageEdge>)> {
    let engine: Arc<dyn SqlEngine> = Arc::clone(&town.engine) as _;
    for spec in plan.tables.values() {
        constrain(town, &spec.name).await?;
    }
    let guard = Guard::new(&town.catalog, Arc::clone(&engine), plan.tables.values()).await?;
    let edges = describe(town, plan).await?;
    for (sink, spec) in &plan.tables {
        // What a file replaces is judged before it is committed.
        if plan.replaces(sink) {
            continue;
        }
        let results = town.catalog.check_before(&spec.name).await?;
        if let Some(wrong) = results.iter().find(|result| result.stops()) {
            let run_id = format!("{}-{}", plan.pipeline.name, now_us());
            record(town, &plan.pipeline.name, &run_id, &results).await;
            bail!(
                "the quality rule '{}' of table {} stops the pipeline {}: {}\n  help: mend the table, or change the rule or \
                 its severity in the table's definition",
                wrong.rule,
                wrong.table,
                plan.pipeline.name,
                wrong.detail
            );
        }
    }
    Ok((guard, edges))
}

/// Gives a table that is there the constraints of its definition.
pub async fn constrain(town: &Town, name: &TableName) -> Result<()> {
    let Some(definition) = town.catalog.definition(name) else { return Ok(()) };
    let Some(table) = town.lake.table(name) else { return Ok(()) };
    for (constraint, expression) in &definition.constraints {
        if table.has_constraint(constraint, expression) {
            continue;
        }
        if table.constraints().contains_key(constraint) {
            table.drop_constraint(constraint).await?;
        }
        table.add_constraint(constraint, expression).await?;
    }
    Ok(())
}

/// Records definitions, and the lineage of a pipeline and of the twins, where they have changed; gives that of the pipeline.
pub async fn describe(town: &Town, plan: &Plan) -> Result<Vec<LineageEdge>> {
    let engine: Arc<dyn SqlEngine> = Arc::clone(&town.engine) as _;
    town.catalog.record_definitions().await?;
    let edges = column_lineage(plan, &engine).await?;
    let edges: Vec<LineageEdge> = edges.into_iter().map(recorded).collect();
    let twins = twin_lineage(town).await?;
    town.catalog.record_lineage(&edges.iter().cloned().chain(twins).collect::<Vec<_>>()).await?;
    Ok(edges)
}

/// The plan with the guard of its tables.
pub async fn guarded(town: &Town, plan: Plan) -> Result<Plan> {
    let engine: Arc<dyn SqlEngine> = Arc::clone(&town.engine) as _;
    let guard = Guard::new(&town.catalog, engine, plan.tables.values()).await?;
    Ok(plan.guarded(guard.map(|guard| guard as Arc<dyn RowGuard>)))
}

/// After a run: records what its rules found.
pub async fn after(town: &Town, pipeline: &str, run_id: &str, guard: &Guard) {
    record(town, pipeline, run_id, &guard.results()).await;
}

async fn record(town: &Town, pipeline: &str, run_id: &str, results: &[QualityResult]) {
    let judged = Judged { run_id, at_us: now_us(), by: "pipeline", pipeline: Some(pipeline) };
    for result in results.iter().filter(|result| !result.passed) {
        tracing::warn!(table = %result.table, rule = result.rule, "a quality rule does not hold: {}", result.detail);
    }
    if let Err(error) = town.catalog.record_quality(results, &judged).await {
        // The rows are in; only the note about them is not.
        tracing::warn!("the results of quality rules are not recorded in meta.quality: {error}");
    }
}

fn recorded(edge: Edge) -> LineageEdge {
    LineageEdge {
        pipeline: edge.pipeline,
        step: edge.step,
        kind: edge.kind,
        input: edge.input,
        output: edge.output,
        input_column: edge.input_column,
        output_column: edge.output_column,
        dependency: edge.dependency.map(|dependency| dependency.name().to_owned()),
        expression: edge.expression,
    }
}

/// The arrows of the twins: between tables, then between columns. The pipeline is `twin/<model>`.
pub async fn twin_lineage(town: &Town) -> Result<Vec<LineageEdge>> {
    let mut all = Vec::new();
    for (model, edges) in town.twins.lineage().await? {
        let output = format!("twin.{model}");
        let edge = |input: &str| LineageEdge {
            pipeline: format!("twin/{model}"),
            step: model.clone(),
            kind: "twin".to_owned(),
            input: input.to_owned(),
            output: output.clone(),
            input_column: None,
            output_column: None,
            dependency: None,
            expression: None,
        };
        for column in edges {
            let table = edge(&column.table);
            if !all.contains(&table) {
                all.push(table.clone());
            }
            all.push(LineageEdge {
                input_column: Some(column.column),
                output_column: column.output,
                dependency: Some(column.dependency.name().to_owned()),
                expression: column.expression,
                ..table
            });
        }
    }
    Ok(all)
}

/// The tables that are named on a command line.
pub fn table_names(names: &[String]) -> Result<Vec<TableName>> {
    Ok(names.iter().map(|name| TableName::parse(name)).collect::<twinlake_contracts::Result<_>>()?)
}
