//! The tables of roads as a graph with whole-numbered weights.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use twinlake_contracts::{Error, Result, Snapshot};

use super::hierarchy::{Hierarchy, INFINITE, Topology, Weighted};
use crate::adjacency::first_out;
use crate::columns::Table;

/// Weights are whole thousandths of the unit, so that sums are exact and equal on every machine.
const PARTS: f64 = 1000.0;

/// The road graph. A node that may not be passed through is split: ways begin at one half and end at the other.
pub(crate) struct Roads {
    node_ids: Vec<i64>,
    /// Where ways from a node begin.
    start: Vec<u32>,
    topology: Topology,
    /// The row of `links` that each arc is.
    row: Vec<u32>,
    link_id: Vec<i64>,
    from_node: Vec<i64>,
    to_node: Vec<i64>,
    length_m: Option<Vec<f64>>,
    /// By row.
    weight: Vec<u32>,
    closed: Vec<bool>,
    /// By hour, then by row: weights that differ in that hour.
    hourly: BTreeMap<i64, BTreeMap<u32, u32>>,
}

/// A weight in thousandths; the message names the row.
fn thousandths(value: Option<f64>, whose: impl Fn() -> String) -> Result<u32> {
    match value {
        Some(value) if value >= 0.0 && (value * PARTS).round() < f64::from(INFINITE) => {
            Ok((value * PARTS).round() as u32)
        }
        Some(value) => Err(Error::config(format!("{} is {value}, it must be from 0 to 2147483", whose()))),
        None => Err(Error::config(format!("{} is missing", whose()))),
    }
}

/// From thousandths back to the unit; `None` when there is no way.
pub(crate) fn in_units(weight: u32) -> Option<f64> {
    (weight < INFINITE).then(|| f64::from(weight) / PARTS)
}

impl Roads {
    /// Reads `links`, `nodes` and `link_times`. `weight`: the column of `links` that a way should have least of.
    pub(crate) fn read(city: &Snapshot, weight: &str) -> Result<Self> {
        let links = city.table("links")?;
        let table = Table::new("links", links);
        if links.num_rows() == 0 {
            return Err(Error::config("the network is empty: the table 'links' has no row"));
        }
        let (link_id, from_node, to_node) =
            (table.integers("link_id")?, table.integers("from_node")?, table.integers("to_node")?);
        let closed: Vec<bool> = if table.has("closed") {
            table.flags("closed")?.into_iter().map(|flag| flag.unwrap_or(false)).collect()
        } else {
            vec![false; links.num_rows()]
        };
        let weights = table.numbers(weight)?.into_iter().enumerate();
        let weights: Vec<u32> = weights
            .map(|(row, value)| {
                if closed[row] {
                    return Ok(INFINITE);
                }
                thousandths(value, || {
                    format!("{weight} of link {} (row {} of 'links')", link_id[row], row + 1)
                })
            })
            .collect::<Result<_>>()?;
        let length_m = if table.has("length_m") {
            Some(table.numbers("length_m")?.into_iter().map(|length| length.unwrap_or(f64::NAN)).collect())
        } else {
            None
        };
        let nodes = Nodes::read(city, &from_node, &to_node)?;
        let hourly = match city.tables.get("link_times") {
            Some(batch) => read_hours(batch, &link_id, &closed)?,
            None => BTreeMap::new(),
        };
        let mut arcs: Vec<(u32, u32, u32)> = Vec::with_capacity(link_id.len());
        for row in 0..link_id.len() {
            let index = |node: i64| {
                nodes.index_of(node).ok_or_else(|| {
                    Error::config(format!(
                        "link {} (row {} of 'links') names node {node}, which 'nodes' does not have",
                        link_id[row],
                        row + 1
                    ))
                })
            };
            let (from, to) = (index(from_node[row])?, index(to_node[row])?);
            // A link from a node to itself is on no shortest way.
            if from != to {
                arcs.push((nodes.start[from as usize], row as u32, to));
            }
        }
        arcs.sort_unstable();
        let first_out = first_out(nodes.count(), arcs.iter().map(|arc| arc.0));
        let topology =
            Topology { first_out, head: arcs.iter().map(|arc| arc.2).collect(), places: nodes.places };
        Ok(Self {
            node_ids: nodes.ids,
            start: nodes.start,
            topology,
            row: arcs.iter().map(|arc| arc.1).collect(),
            link_id,
            from_node,
            to_node,
            length_m,
            weight: weights,
            closed,
            hourly,
        })
    }

    /// The hierarchy of the graph, kept from run to run.
    pub(crate) fn hierarchy(&self) -> Arc<Hierarchy> {
        Hierarchy::of(self.topology.clone())
    }

    /// The weights by arc in that hour; without an hour, those of `links`.
    pub(crate) fn arc_weights(&self, hour: Option<i64>) -> Vec<u32> {
        let changed = hour.and_then(|hour| self.hourly.get(&hour));
        self.row
            .iter()
            .map(|row| {
                changed.and_then(|changed| changed.get(row)).copied().unwrap_or(self.weight[*row as usize])
            })
            .collect()
    }

    pub(crate) fn weighted(&self, hour: Option<i64>) -> Weighted {
        self.hierarchy().customize(&self.arc_weights(hour))
    }

    pub(crate) fn nodes(&self) -> &[i64] {
        &self.node_ids
    }

    /// The number of the node where ways to it end; its ways begin at [`Roads::start`].
    pub(crate) fn index_of(&self, node_id: i64) -> Option<u32> {
        self.node_ids.binary_search(&node_id).ok().map(|index| index as u32)
    }

    pub(crate) fn start(&self, node: u32) -> u32 {
        self.start[node as usize]
    }

    /// The identifier of a node; either half of a split one has the same.
    pub(crate) fn node_id(&self, node: u32) -> i64 {
        let known = self.node_ids.get(node as usize).copied();
        known.unwrap_or_else(|| {
            let whole = self.start.iter().position(|start| *start == node).unwrap_or(0);
            self.node_ids[whole]
        })
    }

    /// The links along these nodes, as row and weight: of parallel ones the lightest, then the first.
    pub(crate) fn arcs_along(&self, nodes: &[u32], weights: &[u32]) -> Vec<(u32, u32)> {
        let pairs = nodes.windows(2);
        pairs
            .filter_map(|pair| {
                let (from, to) = (pair[0] as usize, pair[1]);
                let arcs = self.topology.first_out[from] as usize..self.topology.first_out[from + 1] as usize;
                arcs.filter(|arc| self.topology.head[*arc] == to)
                    .map(|arc| (weights[arc], self.row[arc]))
                    .min()
                    .map(|(weight, row)| (row, weight))
            })
            .collect()
    }

    /// Arcs as tail, head and row.
    pub(crate) fn arcs(&self) -> impl Iterator<Item = (u32, u32, u32)> + '_ {
        (0..self.topology.first_out.len() - 1).flat_map(move |tail| {
            let arcs = self.topology.first_out[tail] as usize..self.topology.first_out[tail + 1] as usize;
            arcs.map(move |arc| (tail as u32, self.topology.head[arc], self.row[arc]))
        })
    }

    pub(crate) fn link_id(&self, row: u32) -> i64 {
        self.link_id[row as usize]
    }

    pub(crate) fn ends(&self, row: u32) -> (i64, i64) {
        (self.from_node[row as usize], self.to_node[row as usize])
    }

    /// Metres; NaN when the table does not say.
    pub(crate) fn length_m(&self, row: u32) -> f64 {
        self.length_m.as_ref().map_or(f64::NAN, |lengths| lengths[row as usize])
    }

    pub(crate) fn closed_links(&self) -> usize {
        self.closed.iter().filter(|closed| **closed).count()
    }

    #[cfg(test)]
    pub(crate) fn topology(&self) -> &Topology {
        &self.topology
    }
}

/// The nodes by ascending identifier, then the halves of those that may not be passed through.
struct Nodes {
    ids: Vec<i64>,
    start: Vec<u32>,
    places: Option<(Vec<f32>, Vec<f32>)>,
}

impl Nodes {
    fn read(city: &Snapshot, from: &[i64], to: &[i64]) -> Result<Self> {
        let Some(batch) = city.tables.get("nodes").filter(|batch| batch.num_rows() > 0) else {
            let mut ids: Vec<i64> = from.iter().chain(to).copied().collect();
            ids.sort_unstable();
            ids.dedup();
            let start = (0..ids.len() as u32).collect();
            return Ok(Self { ids, start, places: None });
        };
        let table = Table::new("nodes", batch);
        let ids = table.integers("node_id")?;
        let mut rows: Vec<usize> = (0..ids.len()).collect();
        rows.sort_by_key(|row| ids[*row]);
        if let Some(pair) = rows.windows(2).find(|pair| ids[pair[0]] == ids[pair[1]]) {
            return Err(Error::config(format!("node {} is there twice in 'nodes'", ids[pair[0]])));
        }
        let through = if table.has("through") { table.flags("through")? } else { vec![None; ids.len()] };
        let mut places = None;
        if table.has("longitude") && table.has("latitude") {
            let (longitude, latitude) = (table.numbers("longitude")?, table.numbers("latitude")?);
            let finite = |values: &[Option<f64>]| -> Option<Vec<f32>> {
                rows.iter().map(|row| values[*row].filter(|it| it.is_finite()).map(|it| it as f32)).collect()
            };
            // An order by place needs every place; a gap is no mistake, only slower.
            places = finite(&longitude).zip(finite(&latitude));
        }
        let mut start: Vec<u32> = (0..ids.len() as u32).collect();
        let mut next = ids.len() as u32;
        for (node, row) in rows.iter().enumerate() {
            if through[*row] == Some(false) {
                start[node] = next;
                next += 1;
                if let Some((longitude, latitude)) = &mut places {
                    longitude.push(longitude[node]);
                    latitude.push(latitude[node]);
                }
            }
        }
        Ok(Self { ids: rows.into_iter().map(|row| ids[row]).collect(), start, places })
    }

    fn index_of(&self, id: i64) -> Option<u32> {
        self.ids.binary_search(&id).ok().map(|index| index as u32)
    }

    /// Halves included.
    fn count(&self) -> usize {
        self.start.iter().max().map_or(0, |most| *most as usize + 1).max(self.ids.len())
    }
}

/// The table `link_times`.
fn read_hours(
    batch: &RecordBatch,
    link_id: &[i64],
    closed: &[bool],
) -> Result<BTreeMap<i64, BTreeMap<u32, u32>>> {
    let table = Table::new("link_times", batch);
    let (links, hours, times) =
        (table.integers("link_id")?, table.integers("hour")?, table.numbers("travel_time_s")?);
    let rows: BTreeMap<i64, u32> =
        link_id.iter().enumerate().map(|(row, link)| (*link, row as u32)).collect();
    let mut hourly: BTreeMap<i64, BTreeMap<u32, u32>> = BTreeMap::new();
    for (at, link) in links.iter().enumerate() {
        let Some(row) = rows.get(link) else {
            return Err(Error::config(format!(
                "row {} of 'link_times' names link {link}, which 'links' does not have",
                at + 1
            )));
        };
        let whose =
            || format!("travel_time_s of link {link} at hour {} (row {} of 'link_times')", hours[at], at + 1);
        let time = if closed[*row as usize] { INFINITE } else { thousandths(times[at], whose)? };
        if hourly.entry(hours[at]).or_default().insert(*row, time).is_some() {
            return Err(Error::config(format!(
                "link {link} has two times at hour {} in 'link_times'",
                hours[at]
            )));
        }
    }
    Ok(hourly)
}
