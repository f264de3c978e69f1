//! The snapshot's tables, checked: every number that enters the computation is finite and has its sign.

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::array::RecordBatch;
use twinlake_contracts::{Error, Result, suggest};

use super::classes::UserClass;
use super::network::Network;
use crate::columns::Table;

/// The table `links`, one entry a row. Values of closed links are not checked: they enter nothing.
pub(crate) struct Links {
    pub(crate) link_id: Vec<i64>,
    pub(crate) from_node: Vec<i64>,
    pub(crate) to_node: Vec<i64>,
    pub(crate) capacity: Vec<f64>,
    pub(crate) length: Vec<f64>,
    pub(crate) free_flow_time: Vec<f64>,
    pub(crate) b: Vec<f64>,
    pub(crate) power: Vec<f64>,
    pub(crate) toll: Vec<f64>,
    pub(crate) closed: Vec<bool>,
}

/// What stands for the columns `b` and `power` in a table that has none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BprDefaults {
    pub(crate) b: f64,
    pub(crate) power: f64,
}

impl Links {
    pub(crate) fn read(batch: &RecordBatch, defaults: BprDefaults) -> Result<Self> {
        let table = Table::new("links", batch);
        let rows = batch.num_rows();
        if rows == 0 {
            return Err(Error::config("the network is empty: the table 'links' has no row"));
        }
        let link_id = table.integers("link_id")?;
        let mut sorted = link_id.clone();
        sorted.sort_unstable();
        if let Some([twice, ..]) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::config(format!("link {twice} is there twice in 'links'"))
                .with_help("link_id names one directed link; parallel links have ids of their own"));
        }
        let closed = if table.has("closed") {
            table.flags("closed")?.into_iter().map(|flag| flag.unwrap_or(false)).collect()
        } else {
            vec![false; rows]
        };
        let column = |name: &str, missing: Option<f64>| -> Result<Vec<f64>> {
            let given = match missing {
                Some(value) if !table.has(name) => vec![Some(value); rows],
                _ => table.numbers(name)?,
            };
            let check = |(row, value): (usize, Option<f64>)| {
                if closed[row] {
                    return Ok(0.0);
                }
                // The toll alone may be left out row by row: no toll is what a null says.
                let value = if name == "toll" { value.or(Some(0.0)) } else { value };
                match value {
                    Some(number) if number.is_finite() && (number >= 0.0 || name == "toll") => Ok(number),
                    other => Err(bad_value(link_id[row], row, name, other)),
                }
            };
            given.into_iter().enumerate().map(check).collect()
        };
        let links = Self {
            from_node: table.integers("from_node")?,
            to_node: table.integers("to_node")?,
            capacity: column("capacity_vph", None)?,
            length: column("length_m", None)?,
            free_flow_time: column("free_flow_time_s", None)?,
            b: column("b", Some(defaults.b))?,
            power: column("power", Some(defaults.power))?,
            toll: column("toll", Some(0.0))?,
            link_id: link_id.clone(),
            closed: closed.clone(),
        };
        for row in 0..rows {
            if !links.closed[row] && links.capacity[row] == 0.0 && links.congestion(row) > 0.0 {
                return Err(Error::config(format!("{} has capacity_vph 0", links.name(row)))
                    .with_help("to close a link set closed = true"));
            }
        }
        Ok(links)
    }

    pub(crate) fn rows(&self) -> usize {
        self.link_id.len()
    }

    /// `t0 · b` of the link in that row.
    pub(crate) fn congestion(&self, row: usize) -> f64 {
        self.free_flow_time[row] * self.b[row]
    }

    /// How messages call the link in that row.
    pub(crate) fn name(&self, row: usize) -> String {
        format!("link {} (row {} of 'links')", self.link_id[row], row + 1)
    }
}

fn bad_value(link_id: i64, row: usize, name: &str, value: Option<f64>) -> Error {
    let link = format!("link {link_id} (row {} of 'links')", row + 1);
    match value {
        None => Error::config(format!("{link} has no {name}")),
        Some(number) if number.is_finite() => {
            Error::config(format!("{link} has {name} {number}, which must not be negative"))
        }
        Some(number) => Error::config(format!("{link} has {name} {number}, which is not a finite number")),
    }
}

/// The table `nodes`: which nodes there are, and whether traffic may pass through each.
pub(crate) fn read_nodes(batch: &RecordBatch) -> Result<BTreeMap<i64, bool>> {
    let table = Table::new("nodes", batch);
    let ids = table.integers("node_id")?;
    let through = if table.has("through") { table.flags("through")? } else { vec![None; batch.num_rows()] };
    let mut nodes = BTreeMap::new();
    for (row, (id, through)) in ids.into_iter().zip(through).enumerate() {
        if nodes.insert(id, through.unwrap_or(true)).is_some() {
            return Err(Error::config(format!("node {id} is there twice in 'nodes' (row {})", row + 1)));
        }
    }
    Ok(nodes)
}

/// Where the trips of one class from one origin go: node indices ascending, flows positive, in passenger-car equivalents.
#[derive(Debug, Clone)]
pub(crate) struct OriginDemand {
    pub(crate) origin: u32,
    /// A place in the list of user classes.
    pub(crate) class: usize,
    pub(crate) destinations: Vec<(u32, f64)>,
}

/// The table `demand`, by class and origin; rows of the same pair are added up.
pub(crate) struct Demand {
    pub(crate) origins: Vec<OriginDemand>,
    /// The cost at which there are as many trips as the table says, where it says so: class, origin, destination.
    pub(crate) references: BTreeMap<(usize, u32, u32), f64>,
    /// Vehicles that begin and end at the same node: they use no link.
    pub(crate) intrazonal: f64,
}

impl Demand {
    pub(crate) fn read(batch: &RecordBatch, network: &Network, classes: &[UserClass]) -> Result<Self> {
        let table = Table::new("demand", batch);
        let origins = table.integers("origin")?;
        let destinations = table.integers("destination")?;
        let flows = table.numbers("flow_vph")?;
        let whose = if table.has("class") && classes.iter().any(|class| class.name.is_some()) {
            Some(table.texts("class")?)
        } else {
            None
        };
        let costs =
            if table.has("reference_cost_s") { Some(table.numbers("reference_cost_s")?) } else { None };
        let mut pairs: BTreeMap<(usize, u32, u32), f64> = BTreeMap::new();
        let mut references = BTreeMap::new();
        let mut intrazonal = 0.0;
        for (row, flow) in flows.into_iter().enumerate() {
            let (origin, destination) = (origins[row], destinations[row]);
            let row_name = || format!("row {} of 'demand' (from {origin} to {destination})", row + 1);
            let flow = match flow {
                Some(flow) if flow.is_finite() && flow >= 0.0 => flow,
                Some(flow) => {
                    return Err(Error::config(format!(
                        "{} has flow_vph {flow}, which must be a finite number and not negative",
                        row_name()
                    )));
                }
                None => return Err(Error::config(format!("{} has no flow_vph", row_name()))),
            };
            let of_classes = match &whose {
                Some(names) => {
                    let name = names[row].as_deref();
                    let found =
                        classes.iter().position(|class| class.name.as_deref() == name && name.is_some());
                    let at = found.ok_or_else(|| {
                        let error = Error::config(format!(
                            "{} is of class '{}', which 'classes' does not have",
                            row_name(),
                            name.unwrap_or_default()
                        ));
                        match suggest(
                            name.unwrap_or_default(),
                            classes.iter().filter_map(|class| class.name.as_deref()),
                        ) {
                            Some(near) => error.with_help(format!("did you mean '{near}'?")),
                            None => error,
                        }
                    })?;
                    Range { start: at, end: at + 1 }
                }
                None => 0..classes.len(),
            };
            if flow == 0.0 {
                continue;
            }
            let index = |node: i64| {
                network.index_of(node).ok_or_else(|| {
                    Error::config(format!(
                        "{} names node {node}, which the network does not have",
                        row_name()
                    ))
                })
            };
            let (from, to) = (index(origin)?, index(destination)?);
            let reference = costs.as_ref().and_then(|costs| costs[row]);
            if reference.is_some_and(|cost| !cost.is_finite() || cost <= 0.0) {
                return Err(Error::config(format!("{} has reference_cost_s {reference:?}", row_name()))
                    .with_help("it must be a number above 0, or null for the cost at free flow"));
            }
            for at in of_classes {
                let vehicles = if whose.is_some() { flow } else { flow * classes[at].share };
                if vehicles == 0.0 {
                    continue;
                }
                if from == to {
                    intrazonal += vehicles;
                    continue;
                }
                *pairs.entry((at, from, to)).or_insert(0.0) += vehicles * classes[at].pce;
                if let Some(cost) = reference
                    && references.insert((at, from, to), cost).is_some_and(|other| other != cost)
                {
                    return Err(Error::config(format!(
                        "{} has another reference_cost_s than an earlier row of the same pair",
                        row_name()
                    )));
                }
            }
        }
        let mut origins: Vec<OriginDemand> = Vec::new();
        for ((class, origin, destination), flow) in pairs {
            match origins.last_mut() {
                Some(last) if (last.class, last.origin) == (class, origin) => {
                    last.destinations.push((destination, flow));
                }
                _ => origins.push(OriginDemand { origin, class, destinations: vec![(destination, flow)] }),
            }
        }
        Ok(Self { origins, references, intrazonal })
    }

    /// All trips between different nodes, in passenger-car equivalents.
    pub(crate) fn total(&self) -> f64 {
        self.origins.iter().flat_map(|origin| &origin.destinations).fold(0.0, |sum, (_, flow)| sum + flow)
    }
}
