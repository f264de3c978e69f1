//! Table functions over the relations: `twin_reach`, what can be reached from an instance, and `twin_path`, the way to another.
//!
//! `relation` is the name of a relation or a type (`part_of`, `located_in`, `feeds`, `connects`, `relates_to`), so that one
//! word goes up a hierarchy of several models. As with every function of twins, the session's `twin.…` settings do not enter.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, StringBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl};
use datafusion::common::{ScalarValue, plan_err};
use datafusion::datasource::TableProvider;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use twinlake_contracts::Error;
use twinlake_query::{Arguments, Tense};

use crate::Twins;
use crate::edges::relation_names;
use crate::graph::{Bounds, Direction, Edge, Graph, Measure, Node, Reached};
use crate::relation::RelationType;
use crate::snapshot::session_in;
use crate::view::through;

/// `twin_reach(model, id, relation [, direction] [, max_hops] [, max_weight] [, by] [, at] [, known_at] [, scenario])`: the
/// instances that can be reached, without the one that is asked about: `hops`, `model`, `id`, `relation` by which, `from_model`
/// and `from_id` from which, and `weight`, the sum on the way.
pub(crate) struct TwinReach(pub(crate) Arc<Twins>);

/// `twin_path(from, to [, relation] [, direction] [, by] [, max_hops] [, max_weight] [, at] [, known_at] [, scenario])`: the
/// best way between two instances, written `model/key`: a row a step from 0 on; no row when there is no way.
pub(crate) struct TwinPath(pub(crate) Arc<Twins>);

impl std::fmt::Debug for TwinReach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TwinReach")
    }
}

impl std::fmt::Debug for TwinPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TwinPath")
    }
}

impl TableFunctionImpl for TwinReach {
    fn call_with_args(&self, arguments: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let mut given = Arguments::parse("twin_reach", arguments.exprs())?;
        given.name_positional(&["model", "id", "relation", "direction", "max_hops"])?;
        let mut known = vec!["model", "id"];
        known.extend(SHARED);
        given.only(&known)?;
        let (Some(model), Some(id)) = (given.text("model")?, word(&given, "id")?) else {
            return plan_err!(
                "twin_reach needs a model and a key, for example twin_reach('pipe', 'p1', 'feeds')"
            );
        };
        let model = self.0.model(&model).map_err(through)?;
        let search = Search::parse("twin_reach", &self.0, &given, (model.name.clone(), id), None)?;
        search.table()
    }
}

impl TableFunctionImpl for TwinPath {
    fn call_with_args(&self, arguments: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let mut given = Arguments::parse("twin_path", arguments.exprs())?;
        // What stands for 'to' must not be a word of SQL to be written by name.
        given.name_positional(&["from", "to", "relation", "direction", "by"])?;
        let mut known = vec!["from", "to"];
        known.extend(SHARED);
        given.only(&known)?;
        let (Some(from), Some(to)) = (given.text("from")?, given.text("to")?) else {
            return plan_err!(
                "twin_path needs two instances, for example twin_path('pipe/p1', 'pipe/p9', 'feeds')"
            );
        };
        let (from, to) = (instance(&self.0, &from)?, instance(&self.0, &to)?);
        let search = Search::parse("twin_path", &self.0, &given, from, Some(to))?;
        search.table()
    }
}

/// The arguments of both functions.
const SHARED: [&str; 8] =
    ["relation", "direction", "max_hops", "max_weight", "by", "at", "known_at", "scenario"];

/// A text, or a whole number as one.
fn word(given: &Arguments, name: &str) -> Result<Option<String>> {
    match given.get(name) {
        Some(value) if value.data_type().is_integer() => match value.cast_to(&DataType::Utf8)? {
            ScalarValue::Utf8(text) => Ok(text),
            _ => Ok(None),
        },
        _ => given.text(name),
    }
}

/// `model/key` as a node; the key may hold slashes.
fn instance(twins: &Twins, text: &str) -> Result<Node> {
    match text.split_once('/') {
        Some((model, key)) if !key.is_empty() => {
            Ok((twins.model(model).map_err(through)?.name.clone(), key.to_owned()))
        }
        _ => plan_err!("twin_path: '{text}' is not an instance, write model/key, for example 'pipe/p1'"),
    }
}

/// What is searched, from where, in which tense.
#[derive(Clone)]
struct Search {
    twins: Arc<Twins>,
    start: Node,
    goal: Option<Node>,
    relation: Option<String>,
    direction: Direction,
    measure: Measure,
    bounds: Bounds,
    tense: Tense,
    schema: SchemaRef,
}

impl Search {
    fn parse(
        function: &str,
        twins: &Arc<Twins>,
        given: &Arguments,
        start: Node,
        goal: Option<Node>,
    ) -> Result<Self> {
        let relation = given.text("relation")?.filter(|name| !name.is_empty());
        if let Some(relation) = &relation {
            let known = relation_names(twins);
            if !known.contains(relation) {
                let missing = Error::not_found("relation", relation, known.iter().map(String::as_str));
                return Err(through(missing));
            }
        }
        let direction = match given.text("direction")?.as_deref() {
            None | Some("" | "downstream") => Direction::Downstream,
            Some("upstream") => Direction::Upstream,
            Some("both") => Direction::Both,
            Some(other) => {
                return plan_err!(
                    "{function}: '{other}' is no direction, write 'downstream', 'upstream' or 'both'"
                );
            }
        };
        let measure = match given.text("by")?.as_deref() {
            None | Some("" | "hops") => Measure::Hops,
            Some("weight") => Measure::Weight,
            Some(other) => return plan_err!("{function}: by '{other}' is unknown, write 'hops' or 'weight'"),
        };
        let hops = given.integer("max_hops")?.map(u64::try_from).transpose();
        let Ok(hops) = hops else { return plan_err!("{function}: 'max_hops' must not be negative") };
        let weight = given.number("max_weight")?;
        if weight.is_some_and(|weight| weight.is_nan() || weight < 0.0) {
            return plan_err!("{function}: 'max_weight' must not be negative");
        }
        let tense = Tense {
            as_of_us: given.instant_us("at")?,
            known_at_us: given.instant_us("known_at")?,
            scenario: given.text("scenario")?.filter(|name| !name.is_empty()),
        };
        // An unknown scenario fails here, before anything is read.
        twins.view(&tense).map_err(through)?;
        let (text, schema) = (|name: &str| Field::new(name, DataType::Utf8, true), Schema::new);
        let hop = Field::new(if goal.is_some() { "step" } else { "hops" }, DataType::Int64, true);
        let schema = schema(vec![
            hop,
            text("model"),
            text("id"),
            text("relation"),
            text("from_model"),
            text("from_id"),
            Field::new("weight", DataType::Float64, true),
        ]);
        let (twins, schema, bounds) = (twins.clone(), Arc::new(schema), Bounds { hops, weight });
        Ok(Self { twins, start, goal, relation, direction, measure, bounds, tense, schema })
    }

    fn table(self) -> Result<Arc<dyn TableProvider>> {
        Ok(Arc::new(StreamingTable::try_new(self.schema.clone(), vec![Arc::new(self)])?))
    }

    /// The edges that may be followed.
    async fn edges(&self) -> twinlake_contracts::Result<Vec<Edge>> {
        let session = session_in(&self.twins, &self.tense).await?;
        let quoted = self.relation.as_ref().map(|name| format!("'{}'", name.replace('\'', "''")));
        let filter =
            quoted.map_or(String::new(), |name| format!(" WHERE relation = {name} OR type = {name}"));
        let sql = format!(
            "SELECT relation, type, from_model, from_id, to_model, to_id, weight FROM twin.relations{filter}"
        );
        let mut edges = Vec::new();
        for batch in session.collect(&sql).await? {
            let texts: Vec<ArrayRef> = (0..6)
                .map(|at| cast(batch.column(at), &DataType::Utf8))
                .collect::<std::result::Result<_, _>>()?;
            let texts: Vec<&StringArray> = texts.iter().map(AsArray::as_string::<i32>).collect();
            let weights = cast(batch.column(6), &DataType::Float64)?;
            let weights = weights.as_primitive::<Float64Type>();
            for row in 0..batch.num_rows() {
                let text = |at: usize| texts[at].value(row).to_owned();
                edges.push(Edge {
                    relation: text(0),
                    from: (text(2), text(3)),
                    to: (text(4), text(5)),
                    weight: weights.is_valid(row).then(|| weights.value(row)),
                    both_ways: texts[1].value(row) == RelationType::Connects.name(),
                });
            }
        }
        Ok(edges)
    }

    async fn run(self) -> twinlake_contracts::Result<RecordBatch> {
        let edges = self.edges().await?;
        // A large graph takes a while: not on the runtime's threads.
        let work = move || {
            let graph = Graph::new(&edges, self.direction);
            let reached = if let Some(goal) = &self.goal {
                graph.way(&self.start, goal, self.measure, self.bounds)?
            } else {
                let mut all = graph.search(&self.start, None, self.measure, self.bounds)?;
                all.remove(0);
                all
            };
            rows(&self.schema, &reached)
        };
        tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
    }
}

fn rows(schema: &SchemaRef, reached: &[Reached]) -> twinlake_contracts::Result<RecordBatch> {
    let texts = |text: &dyn Fn(&Reached) -> Option<String>| {
        let mut column = StringBuilder::new();
        for one in reached {
            column.append_option(text(one));
        }
        Arc::new(column.finish()) as ArrayRef
    };
    Ok(RecordBatch::try_new(
        schema.clone(),
        vec![
            Arc::new(reached.iter().map(|one| one.hops as i64).collect::<Int64Array>()),
            texts(&|one| Some(one.node.0.clone())),
            texts(&|one| Some(one.node.1.clone())),
            texts(&|one| one.before.as_ref().map(|before| before.1.clone())),
            texts(&|one| one.before.as_ref().map(|before| before.0.0.clone())),
            texts(&|one| one.before.as_ref().map(|before| before.0.1.clone())),
            Arc::new(reached.iter().map(|one| one.weight).collect::<Float64Array>()),
        ],
    )?)
}

impl std::fmt::Debug for Search {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Search").field("start", &self.start).field("goal", &self.goal).finish_non_exhaustive()
    }
}

impl PartitionStream for Search {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let search = self.clone();
        let rows = async move { search.run().await.map_err(through) };
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), futures::stream::once(rows)))
    }
}
