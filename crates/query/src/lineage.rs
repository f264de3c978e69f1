//! Lineage of columns, read from a logical plan: each output column with the columns of tables that it is made of.
//!
//! The walk goes over the plan before optimisation and keeps, for every node, its output columns by *position*, so that
//! aliases, common table expressions and self-joins cannot be mixed up; a column reference is looked up in the schema of
//! the node that it refers to, as the engine itself does. What decides over rows and not over values (`WHERE`, `ON`,
//! `GROUP BY`, a limit's order) is kept beside the columns, for all of them. A node of an unknown kind hands on columns of
//! the same name and lets every other column depend on all that comes in: too much rather than too little.

use std::collections::BTreeMap;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType, Result, TableReference};
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, Subquery, TableScan};
use twinlake_contracts::{ColumnEdge, Dependency};

/// A column of a table.
type Source = (String, String);
/// The sources of a column, each with the closest dependency and what is computed.
type Sources = BTreeMap<Source, (Dependency, Option<String>)>;

/// The longest text of an expression that is kept.
const EXPRESSION_CHARACTERS: usize = 300;

/// What a node of the plan gives.
#[derive(Debug, Clone, Default)]
struct Given {
    /// The sources of each output column, by position.
    columns: Vec<Sources>,
    /// What decides over rows.
    rows: BTreeMap<Source, Dependency>,
}

/// The arrows that lead to the columns of a plan's result.
pub fn column_lineage(plan: &LogicalPlan) -> Result<Vec<ColumnEdge>> {
    let given = walk(plan)?;
    let mut edges = Vec::new();
    for (field, sources) in plan.schema().fields().iter().zip(&given.columns) {
        for ((table, column), (dependency, expression)) in sources {
            edges.push(ColumnEdge::new(Some(field.name()), table, column, *dependency, expression.clone()));
        }
    }
    for ((table, column), dependency) in &given.rows {
        edges.push(ColumnEdge::new(None, table, column, *dependency, None));
    }
    Ok(edges)
}

/// A table's name without the catalog.
fn name(table: &TableReference) -> String {
    match table.schema() {
        Some(schema) => format!("{schema}.{}", table.table()),
        None => table.table().to_owned(),
    }
}

fn walk(plan: &LogicalPlan) -> Result<Given> {
    walk_under(plan, false)
}

/// `limited`: only the first rows are taken, so that the order decides which.
fn walk_under(plan: &LogicalPlan, limited: bool) -> Result<Given> {
    match plan {
        LogicalPlan::TableScan(scan) => scanned(scan),
        LogicalPlan::Projection(projection) => {
            let mut given = walk_under(&projection.input, limited)?;
            given.columns = expressions(&projection.expr, &mut given, projection.input.schema())?;
            Ok(given)
        }
        LogicalPlan::Filter(filter) => {
            let mut given = walk(&filter.input)?;
            decide(&mut given, &[&filter.predicate], filter.input.schema(), Dependency::Filter)?;
            Ok(given)
        }
        LogicalPlan::Window(window) => {
            let mut given = walk(&window.input)?;
            let added = expressions(&window.window_expr, &mut given, window.input.schema())?;
            given.columns.extend(added);
            Ok(given)
        }
        LogicalPlan::Aggregate(aggregate) => {
            let mut given = walk(&aggregate.input)?;
            let schema = aggregate.input.schema();
            let groups: Vec<Expr> = aggregate
                .group_expr
                .iter()
                .flat_map(|group| match group {
                    Expr::GroupingSet(set) => set.distinct_expr().into_iter().cloned().collect(),
                    other => vec![other.clone()],
                })
                .collect();
            let mut columns = expressions(&groups, &mut given, schema)?;
            let aggregates = expressions(&aggregate.aggr_expr, &mut given, schema)?;
            // A grouping set adds a column of its own between the two.
            let width = plan.schema().fields().len();
            columns.resize(width.saturating_sub(aggregates.len()), Sources::new());
            columns.extend(aggregates);
            decide(&mut given, &groups.iter().collect::<Vec<_>>(), schema, Dependency::Aggregate)?;
            given.columns = columns;
            Ok(given)
        }
        LogicalPlan::Join(join) => {
            let (mut left, mut right) = (walk(&join.left)?, walk(&join.right)?);
            let on = join.on.iter();
            let (ours, theirs): (Vec<&Expr>, Vec<&Expr>) = on.map(|(left, right)| (left, right)).unzip();
            decide(&mut left, &ours, join.left.schema(), Dependency::Join)?;
            decide(&mut right, &theirs, join.right.schema(), Dependency::Join)?;
            let both = join.left.schema().join(join.right.schema());
            let width = (left.columns.len(), right.columns.len());
            let mut given = beside(left, right);
            if let (Some(filter), Ok(schema)) = (&join.filter, &both) {
                decide(&mut given, &[filter], schema, Dependency::Join)?;
            }
            match join.join_type {
                JoinType::LeftSemi | JoinType::LeftAnti => given.columns.truncate(width.0),
                JoinType::RightSemi | JoinType::RightAnti => drop(given.columns.drain(..width.0)),
                JoinType::LeftMark => {
                    given.columns.truncate(width.0);
                    given.columns.push(marked(&given.rows));
                }
                JoinType::RightMark => {
                    given.columns.drain(..width.0);
                    given.columns.push(marked(&given.rows));
                }
                _ => {}
            }
            Ok(given)
        }
        LogicalPlan::Union(union) => {
            let mut all = Given::default();
            for (at, input) in union.inputs.iter().enumerate() {
                let given = walk(input)?;
                merge_rows(&mut all.rows, given.rows);
                if at == 0 {
                    all.columns = given.columns;
                } else {
                    for (known, added) in all.columns.iter_mut().zip(given.columns) {
                        merge(known, added);
                    }
                }
            }
            Ok(all)
        }
        LogicalPlan::Sort(sort) => {
            let mut given = walk(&sort.input)?;
            if limited || sort.fetch.is_some() {
                let by: Vec<&Expr> = sort.expr.iter().map(|sort| &sort.expr).collect();
                decide(&mut given, &by, sort.input.schema(), Dependency::Filter)?;
            }
            Ok(given)
        }
        LogicalPlan::Limit(limit) => walk_under(&limit.input, true),
        LogicalPlan::Distinct(Distinct::On(on)) => {
            let mut given = walk(&on.input)?;
            let columns = expressions(&on.select_expr, &mut given, on.input.schema())?;
            decide(
                &mut given,
                &on.on_expr.iter().collect::<Vec<_>>(),
                on.input.schema(),
                Dependency::Filter,
            )?;
            given.columns = columns;
            Ok(given)
        }
        LogicalPlan::Distinct(Distinct::All(input)) => walk(input),
        LogicalPlan::SubqueryAlias(alias) => walk_under(&alias.input, limited),
        LogicalPlan::Subquery(subquery) => walk(&subquery.subquery),
        LogicalPlan::Repartition(repartition) => walk_under(&repartition.input, limited),
        LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => {
            Ok(Given { columns: vec![Sources::new(); plan.schema().fields().len()], rows: BTreeMap::new() })
        }
        other => by_name(other),
    }
}

/// A table, or the plan of a view.
fn scanned(scan: &TableScan) -> Result<Given> {
    if let Some(plan) = scan.source.get_logical_plan() {
        let mut given = walk(&plan)?;
        if let Some(projection) = &scan.projection {
            given.columns = projection.iter().filter_map(|at| given.columns.get(*at).cloned()).collect();
        }
        return Ok(given);
    }
    let table = name(&scan.table_name);
    let column = |column: &str| {
        let source = (table.clone(), column.to_owned());
        Sources::from([(source, (Dependency::Direct, None))])
    };
    let columns = scan.projected_schema.fields().iter().map(|field| column(field.name())).collect();
    let mut given = Given { columns, rows: BTreeMap::new() };
    for filter in &scan.filters {
        for reference in filter.column_refs() {
            note(&mut given.rows, (table.clone(), reference.name.clone()), Dependency::Filter);
        }
    }
    Ok(given)
}

/// The sources of expressions over what a node gives.
fn expressions(expressions: &[Expr], given: &mut Given, schema: &DFSchema) -> Result<Vec<Sources>> {
    let columns = std::mem::take(&mut given.columns);
    let mut all = Vec::with_capacity(expressions.len());
    for expression in expressions {
        all.push(sources(expression, &columns, schema, &mut given.rows)?);
    }
    given.columns = columns;
    Ok(all)
}

fn sources(
    expression: &Expr,
    columns: &[Sources],
    schema: &DFSchema,
    rows: &mut BTreeMap<Source, Dependency>,
) -> Result<Sources> {
    match expression {
        Expr::Alias(alias) => sources(&alias.expr, columns, schema, rows),
        Expr::Column(column) => {
            Ok(position(schema, column).and_then(|at| columns.get(at)).cloned().unwrap_or_default())
        }
        computed => {
            let mut kind = Dependency::Computed;
            let mut found = Sources::new();
            let text = shown(computed);
            let mut failure = Ok(());
            computed.apply(|part| {
                match part {
                    Expr::AggregateFunction(_) | Expr::WindowFunction(_) => kind = Dependency::Aggregate,
                    Expr::Column(column) => {
                        let own = position(schema, column).and_then(|at| columns.get(at));
                        for (source, (dependency, first)) in own.into_iter().flatten() {
                            let first = first.clone().or_else(|| Some(text.clone()));
                            closest(&mut found, source.clone(), (*dependency).max(kind), first);
                        }
                    }
                    Expr::ScalarSubquery(subquery) => {
                        failure = asked(subquery, Dependency::Aggregate, &text, &mut found, rows);
                    }
                    Expr::InSubquery(inner) => {
                        failure = asked(&inner.subquery, Dependency::Computed, &text, &mut found, rows);
                    }
                    Expr::Exists(inner) => {
                        failure = asked(&inner.subquery, Dependency::Computed, &text, &mut found, rows);
                    }
                    _ => {}
                }
                Ok(if failure.is_ok() { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
            })?;
            failure?;
            // What was seen before the function around it was known.
            for (dependency, _) in found.values_mut() {
                *dependency = (*dependency).max(kind);
            }
            Ok(found)
        }
    }
}

/// What a query inside an expression is made of.
fn asked(
    subquery: &Subquery,
    kind: Dependency,
    text: &str,
    found: &mut Sources,
    rows: &mut BTreeMap<Source, Dependency>,
) -> Result<()> {
    let given = walk(&subquery.subquery)?;
    for (source, (dependency, first)) in given.columns.into_iter().flatten() {
        closest(found, source, dependency.max(kind), first.or_else(|| Some(text.to_owned())));
    }
    merge_rows(rows, given.rows);
    Ok(())
}

/// Notes that expressions decide over the rows.
fn decide(given: &mut Given, by: &[&Expr], schema: &DFSchema, kind: Dependency) -> Result<()> {
    let mut rows = std::mem::take(&mut given.rows);
    for expression in by {
        for source in sources(expression, &given.columns, schema, &mut rows)?.into_keys() {
            note(&mut rows, source, kind);
        }
    }
    given.rows = rows;
    Ok(())
}

/// A node of an unknown kind: columns of the same name are handed on, others depend on everything.
fn by_name(plan: &LogicalPlan) -> Result<Given> {
    let mut known: Vec<(Option<TableReference>, String, Sources)> = Vec::new();
    let mut given = Given::default();
    for input in plan.inputs() {
        let own = walk(input)?;
        merge_rows(&mut given.rows, own.rows);
        for ((qualifier, field), sources) in input.schema().iter().zip(own.columns) {
            known.push((qualifier.cloned(), field.name().clone(), sources));
        }
    }
    let everything = || {
        let mut all = Sources::new();
        for (source, (dependency, expression)) in known.iter().flat_map(|(_, _, sources)| sources) {
            let expression = expression.clone().or_else(|| Some(plan.display().to_string()));
            closest(&mut all, source.clone(), (*dependency).max(Dependency::Computed), expression);
        }
        all
    };
    for (qualifier, field) in plan.schema().iter() {
        let exact = known.iter().find(|(q, n, _)| q.as_ref() == qualifier && n == field.name());
        let same = exact.or_else(|| known.iter().find(|(_, n, _)| n == field.name()));
        given.columns.push(same.map_or_else(everything, |(_, _, sources)| sources.clone()));
    }
    let mut keys = Vec::new();
    plan.apply_expressions(|expression| {
        keys.extend(expression.column_refs().into_iter().cloned());
        Ok(TreeNodeRecursion::Continue)
    })?;
    let kind = if plan.inputs().len() > 1 { Dependency::Join } else { Dependency::Filter };
    for column in keys {
        let own = known
            .iter()
            .find(|(q, n, _)| *n == column.name && (column.relation.is_none() || q == &column.relation));
        for source in own.into_iter().flat_map(|(_, _, sources)| sources.keys()) {
            note(&mut given.rows, source.clone(), kind);
        }
    }
    Ok(given)
}

fn position(schema: &DFSchema, column: &Column) -> Option<usize> {
    schema.maybe_index_of_column(column)
}

fn shown(expression: &Expr) -> String {
    let text = expression.to_string();
    match text.char_indices().nth(EXPRESSION_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn marked(rows: &BTreeMap<Source, Dependency>) -> Sources {
    rows.keys().map(|source| (source.clone(), (Dependency::Computed, None))).collect()
}

fn beside(mut left: Given, right: Given) -> Given {
    left.columns.extend(right.columns);
    merge_rows(&mut left.rows, right.rows);
    left
}

fn closest(into: &mut Sources, source: Source, dependency: Dependency, expression: Option<String>) {
    into.entry(source)
        .and_modify(|known| {
            if dependency < known.0 {
                *known = (dependency, expression.clone());
            }
        })
        .or_insert((dependency, expression));
}

fn merge(into: &mut Sources, other: Sources) {
    for (source, (dependency, expression)) in other {
        closest(into, source, dependency, expression);
    }
}

fn note(rows: &mut BTreeMap<Source, Dependency>, source: Source, kind: Dependency) {
    // A key that joins rows says more than a filter on it.
    rows.entry(source).and_modify(|known| *known = (*known).max(kind)).or_insert(kind);
}

fn merge_rows(into: &mut BTreeMap<Source, Dependency>, other: BTreeMap<Source, Dependency>) {
    for (source, kind) in other {
        note(into, source, kind);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
    use twinlake_contracts::SqlEngine as _;

    use crate::MicroBatches;

    fn table(columns: &[&str]) -> SchemaRef {
        let field = |name: &&str| Field::new(*name, DataType::Float64, true);
        Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
    }

    async fn lineage(sql: &str) -> String {
        let inputs = [("a".to_owned(), table(&["x", "y", "k"])), ("b".to_owned(), table(&["x", "z", "k"]))];
        let edges = MicroBatches::default().column_lineage(sql, &inputs).await.unwrap().unwrap();
        let mut lines: Vec<String> = edges
            .iter()
            .map(|e| {
                format!("{}<{}.{}:{}", e.output.as_deref().unwrap_or("*"), e.table, e.column, e.dependency)
            })
            .collect();
        lines.sort();
        lines.join(" ")
    }

    #[tokio::test]
    async fn columns_come_from_where_the_plan_says() {
        for (sql, expected) in [
            (
                "SELECT x AS u, x + y AS v FROM a WHERE k > 1",
                "*<a.k:filter u<a.x:direct v<a.x:computed v<a.y:computed",
            ),
            // Not by name: b.x is another column than a.x.
            (
                "SELECT b.x, a.x AS ax FROM a JOIN b ON a.k = b.k",
                "*<a.k:join *<b.k:join ax<a.x:direct x<b.x:direct",
            ),
            (
                "WITH c AS (SELECT k, y AS x FROM a) SELECT k, sum(x) AS s, count(*) AS n FROM c GROUP BY k",
                "*<a.k:aggregate k<a.k:direct s<a.y:aggregate",
            ),
            ("SELECT x FROM a UNION ALL SELECT z FROM b", "x<a.x:direct x<b.z:direct"),
            (
                "SELECT l.x, r.y FROM a l JOIN a r ON l.k = r.x",
                "*<a.k:join *<a.x:join x<a.x:direct y<a.y:direct",
            ),
            (
                "SELECT x, row_number() OVER (PARTITION BY k ORDER BY y) AS n FROM a",
                "n<a.k:aggregate n<a.y:aggregate x<a.x:direct",
            ),
            ("SELECT y FROM a ORDER BY x LIMIT 1", "*<a.x:filter y<a.y:direct"),
            ("SELECT (SELECT max(z) FROM b) AS m FROM a", "m<b.z:aggregate"),
            ("SELECT x FROM a WHERE k IN (SELECT k FROM b)", "*<a.k:filter *<b.k:filter x<a.x:direct"),
            ("SELECT 1 AS one FROM a", ""),
            ("SELECT DISTINCT CASE WHEN x > 0 THEN y END AS c FROM a", "c<a.x:computed c<a.y:computed"),
        ] {
            assert_eq!(lineage(sql).await, expected, "{sql}");
        }
    }
}
