//! The graph of relations in memory: what can be reached, and by which way.
//!
//! Both questions are one search, Dijkstra's (1959), by costs of two parts: the number of edges and the sum of their weights, in
//! the order asked for. What is equally good in both is decided by the nodes' names, so that equal graphs give equal ways.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};

use twinlake_contracts::{Error, Result};

/// An instance: model and key.
pub(crate) type Node = (String, String);

/// Which way edges are followed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From an edge's start to its end.
    #[default]
    Downstream,
    /// From an edge's end to its start.
    Upstream,
    /// Both ways.
    Both,
}

/// What makes a way good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Few edges; of equally many, a small sum of weights.
    #[default]
    Hops,
    /// A small sum of weights; of equal ones, few edges.
    Weight,
}

/// An edge as it is read.
#[derive(Debug, Clone)]
pub(crate) struct Edge {
    pub(crate) relation: String,
    pub(crate) from: Node,
    pub(crate) to: Node,
    pub(crate) weight: Option<f64>,
    /// Whether it has no direction.
    pub(crate) both_ways: bool,
}

/// How far a search goes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bounds {
    pub(crate) hops: Option<u64>,
    pub(crate) weight: Option<f64>,
}

/// A node that was reached, and from where.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reached {
    pub(crate) node: Node,
    pub(crate) hops: u64,
    /// The sum of the weights on the way; `None` when one of them has none.
    pub(crate) weight: Option<f64>,
    /// The node before it, and the relation that leads here; `None` at the start.
    pub(crate) before: Option<(Node, String)>,
}

#[derive(Debug)]
struct Step {
    to: usize,
    relation: usize,
    weight: Option<f64>,
}

/// Edges in one direction, ready to be followed.
#[derive(Debug)]
pub(crate) struct Graph {
    /// In the order of their names.
    nodes: Vec<Node>,
    places: HashMap<Node, usize>,
    relations: Vec<String>,
    steps: Vec<Vec<Step>>,
}

/// What it costs to be somewhere, in the order asked for. Weights are not negative, so their bits are ordered as they are.
type Cost = (u64, u64);

impl Graph {
    /// A graph whose edges are followed in `direction`.
    pub(crate) fn new(edges: &[Edge], direction: Direction) -> Self {
        let names: BTreeSet<&Node> = edges.iter().flat_map(|edge| [&edge.from, &edge.to]).collect();
        let nodes: Vec<Node> = names.into_iter().cloned().collect();
        let places: HashMap<Node, usize> = nodes.iter().cloned().zip(0..).collect();
        let names: BTreeSet<&String> = edges.iter().map(|edge| &edge.relation).collect();
        let relations: Vec<String> = names.into_iter().cloned().collect();
        let of_relation: BTreeMap<&String, usize> = relations.iter().zip(0..).collect();
        let mut steps: Vec<Vec<Step>> = (0..nodes.len()).map(|_| Vec::new()).collect();
        for edge in edges {
            let (from, to, relation) = (places[&edge.from], places[&edge.to], of_relation[&edge.relation]);
            if direction != Direction::Upstream || edge.both_ways {
                steps[from].push(Step { to, relation, weight: edge.weight });
            }
            if direction != Direction::Downstream || edge.both_ways {
                steps[to].push(Step { to: from, relation, weight: edge.weight });
            }
        }
        for from in &mut steps {
            from.sort_by_key(|step| (step.to, step.relation));
        }
        Self { nodes, places, relations, steps }
    }

    /// All nodes that can be reached from `start`, which comes first, the best first. With `goal`, the search ends there.
    ///
    /// A weight that is negative or no number is an error, and by weight also one that is missing.
    pub(crate) fn search(
        &self,
        start: &Node,
        goal: Option<&Node>,
        measure: Measure,
        bounds: Bounds,
    ) -> Result<Vec<Reached>> {
        let mut reached = Vec::new();
        let Some(start) = self.places.get(start).copied() else {
            // What has no edge reaches itself alone.
            let alone = Reached { node: start.clone(), hops: 0, weight: Some(0.0), before: None };
            return Ok(vec![alone]);
        };
        let goal = goal.map(|goal| self.places.get(goal).copied());
        let cost = |hops: u64, weight: f64| match measure {
            Measure::Hops => (hops, weight.to_bits()),
            Measure::Weight => (weight.to_bits(), hops),
        };
        let mut best: Vec<Option<Cost>> = vec![None; self.nodes.len()];
        let mut before: Vec<Option<(usize, usize)>> = vec![None; self.nodes.len()];
        let mut whole = vec![true; self.nodes.len()];
        let mut done = vec![false; self.nodes.len()];
        let mut queue = BinaryHeap::new();
        best[start] = Some(cost(0, 0.0));
        queue.push(Reverse((cost(0, 0.0), start)));
        while let Some(Reverse((found, node))) = queue.pop() {
            if std::mem::replace(&mut done[node], true) {
                continue;
            }
            let (hops, weight) = match measure {
                Measure::Hops => (found.0, f64::from_bits(found.1)),
                Measure::Weight => (found.1, f64::from_bits(found.0)),
            };
            reached.push(Reached {
                node: self.nodes[node].clone(),
                hops,
                weight: whole[node].then_some(weight),
                before: before[node]
                    .map(|(from, relation)| (self.nodes[from].clone(), self.relations[relation].clone())),
            });
            if goal == Some(Some(node)) {
                break;
            }
            if bounds.hops.is_some_and(|most| hops >= most) {
                continue;
            }
            for step in &self.steps[node] {
                let own = self.weight(node, step, measure)?;
                let sum = weight + own.unwrap_or_default();
                if done[step.to] || bounds.weight.is_some_and(|most| sum > most) {
                    continue;
                }
                let offer = cost(hops + 1, sum);
                if best[step.to].is_none_or(|known| offer < known) {
                    best[step.to] = Some(offer);
                    before[step.to] = Some((node, step.relation));
                    whole[step.to] = whole[node] && own.is_some();
                    queue.push(Reverse((offer, step.to)));
                }
            }
        }
        Ok(reached)
    }

    /// The way from `start` to `goal`, both included; empty when there is none.
    pub(crate) fn way(
        &self,
        start: &Node,
        goal: &Node,
        measure: Measure,
        bounds: Bounds,
    ) -> Result<Vec<Reached>> {
        let reached = self.search(start, Some(goal), measure, bounds)?;
        let by_node: HashMap<&Node, &Reached> = reached.iter().map(|one| (&one.node, one)).collect();
        let mut way = Vec::new();
        let mut next = Some(goal);
        while let Some(found) = next.and_then(|node| by_node.get(node)) {
            way.push((*found).clone());
            next = found.before.as_ref().map(|(node, _)| node);
        }
        way.reverse();
        Ok(way)
    }

    fn weight(&self, from: usize, step: &Step, measure: Measure) -> Result<Option<f64>> {
        let ((from_model, from_id), (to_model, to_id)) = (&self.nodes[from], &self.nodes[step.to]);
        let edge = || {
            let relation = &self.relations[step.relation];
            format!("the edge '{relation}' between {from_model}/{from_id} and {to_model}/{to_id}")
        };
        match step.weight {
            Some(weight) if weight >= 0.0 && weight.is_finite() => Ok(Some(weight + 0.0)),
            Some(weight) => Err(Error::config(format!("{} has the weight {weight}", edge())).with_help(
                "weights are finite and not negative: see the weight of the relation in the twin model",
            )),
            None if measure == Measure::Weight => Err(Error::config(format!("{} has no weight", edge()))
                .with_help("give the relation a weight in the twin model, or ask by => 'hops'")),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(name: &str) -> Node {
        ("pipe".to_owned(), name.to_owned())
    }

    fn edge(from: &str, to: &str, weight: Option<f64>) -> Edge {
        Edge { relation: "feeds".into(), from: node(from), to: node(to), weight, both_ways: false }
    }

    fn names(reached: &[Reached]) -> Vec<&str> {
        reached.iter().map(|one| one.node.1.as_str()).collect()
    }

    #[test]
    fn directions_bounds_and_measures() {
        let edges = [
            edge("a", "b", Some(1.0)),
            edge("b", "c", Some(1.0)),
            edge("a", "c", Some(5.0)),
            edge("c", "d", Some(0.0)),
            edge("d", "a", Some(1.0)),
        ];
        let down = Graph::new(&edges, Direction::Downstream);
        let by = |measure, bounds| names(&down.search(&node("a"), None, measure, bounds).unwrap()).join(" ");
        assert_eq!(by(Measure::Hops, Bounds::default()), "a b c d");
        assert_eq!(by(Measure::Hops, Bounds { hops: Some(1), weight: None }), "a b c");
        assert_eq!(by(Measure::Weight, Bounds { hops: None, weight: Some(1.5) }), "a b");
        let way = down.way(&node("a"), &node("d"), Measure::Weight, Bounds::default()).unwrap();
        assert_eq!(names(&way), ["a", "b", "c", "d"]);
        assert_eq!((way[3].hops, way[3].weight), (3, Some(2.0)));
        let way = down.way(&node("a"), &node("d"), Measure::Hops, Bounds::default()).unwrap();
        assert_eq!((names(&way), way[2].weight), (vec!["a", "c", "d"], Some(5.0)));
        let up = Graph::new(&edges, Direction::Upstream);
        let found = up.search(&node("a"), None, Measure::Hops, Bounds::default()).unwrap();
        assert_eq!(names(&found), ["a", "d", "c", "b"]);
        assert_eq!(found[1].before, Some((node("a"), "feeds".into())));
        let none = down.way(&node("a"), &node("z"), Measure::Hops, Bounds::default()).unwrap();
        assert!(none.is_empty());
        let itself = down.way(&node("z"), &node("z"), Measure::Hops, Bounds::default()).unwrap();
        assert_eq!(names(&itself), ["z"]);
    }

    #[test]
    fn what_has_no_direction_is_followed_both_ways() {
        let joined = Edge { both_ways: true, ..edge("a", "b", None) };
        let down = Graph::new(&[joined, edge("c", "b", None)], Direction::Downstream);
        let found = down.search(&node("b"), None, Measure::Hops, Bounds::default()).unwrap();
        assert_eq!(names(&found), ["b", "a"]);
        assert_eq!(found[1].weight, None, "what has no weight has no sum");
    }

    #[test]
    fn weights_that_make_no_sense_are_named() {
        for (weight, shown) in [(Some(-1.0), "weight -1"), (Some(f64::NAN), "NaN"), (None, "has no weight")] {
            let graph = Graph::new(&[edge("a", "b", weight)], Direction::Downstream);
            let error = graph.search(&node("a"), None, Measure::Weight, Bounds::default()).unwrap_err();
            assert!(error.to_string().contains(shown) && error.to_string().contains("pipe/a"), "{error}");
        }
    }

    proptest! {
        /// Dijkstra against relaxing all edges until nothing changes (Bellman 1958, Ford 1956).
        #[test]
        fn the_best_is_what_relaxing_all_edges_gives(
            edges in proptest::collection::vec((0..8_u8, 0..8_u8, 0..5_u8), 0..30),
            start in 0..8_u8,
        ) {
            let named: Vec<Edge> =
                edges.iter().map(|(a, b, w)| edge(&a.to_string(), &b.to_string(), Some(f64::from(*w)))).collect();
            let graph = Graph::new(&named, Direction::Downstream);
            for measure in [Measure::Hops, Measure::Weight] {
                let price = |weight: u8| match measure {
                    Measure::Hops => (1_u64, u64::from(weight)),
                    Measure::Weight => (u64::from(weight), 1),
                };
                let mut best: BTreeMap<u8, (u64, u64)> = BTreeMap::from([(start, (0, 0))]);
                for _ in 0..8 {
                    for (a, b, weight) in &edges {
                        let Some(at) = best.get(a).copied() else { continue };
                        let step = price(*weight);
                        let offer = (at.0 + step.0, at.1 + step.1);
                        let known = best.entry(*b).or_insert(offer);
                        *known = offer.min(*known);
                    }
                }
                let found = graph.search(&node(&start.to_string()), None, measure, Bounds::default()).unwrap();
                let found: BTreeMap<u8, (u64, u64)> = found
                    .iter()
                    .map(|one| {
                        let weight = one.weight.unwrap() as u64;
                        let cost = if measure == Measure::Hops { (one.hops, weight) } else { (weight, one.hops) };
                        (one.node.1.parse().unwrap(), cost)
                    })
                    .collect();
                prop_assert_eq!(found, best);
            }
        }
    }
}
