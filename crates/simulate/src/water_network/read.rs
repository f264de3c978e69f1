//! From the tables to the model.

use std::f64::consts::PI;

use arrow::array::{Array, RecordBatch, StringArray};
use twinlake_contracts::{Error, Result, Snapshot, suggest};

use super::layout::Layout;
use super::leakage;
use super::model::{
    L_PER_FT3, M_PER_FT, M3_PER_FT3, Mixing, Names, Network, Node, Source, SourceKind, Tank, interpolate,
};
use super::options::{Quality, Reading};
use super::read_links::read_links;
use super::report::Columns;
use super::rules;
use crate::columns::Table;

pub(super) const SECONDS_PER_DAY: f64 = 86400.0;

/// Names to indices, with errors that suggest.
pub(super) struct Index<'a> {
    pub(super) what: &'static str,
    pub(super) of: &'a Names,
}

impl Index<'_> {
    pub(super) fn find(&self, id: Option<&str>, named_by: &dyn Fn() -> String) -> Result<usize> {
        let Some(id) = id else {
            return Err(Error::config(format!("{} names no {}", named_by(), self.what)));
        };
        self.of.get(id).copied().ok_or_else(|| {
            let error =
                Error::config(format!("{} names the {} '{id}', which is not there", named_by(), self.what));
            match suggest(id, self.of.keys().map(String::as_str)) {
                Some(near) => error.with_help(format!("did you mean '{near}'?")),
                None => error,
            }
        })
    }
}

/// A column of texts, which may be missing.
pub(super) struct Texts(Option<StringArray>);

impl Texts {
    pub(super) fn get(&self, row: usize) -> Option<&str> {
        self.0.as_ref().filter(|texts| texts.is_valid(row)).map(|texts| texts.value(row))
    }
}

/// Columns of a table with words for what is missing.
pub(super) struct Rows<'a> {
    table: Table<'a>,
    role: &'static str,
    ids: StringArray,
    pub(super) count: usize,
}

impl<'a> Rows<'a> {
    pub(super) fn new(role: &'static str, batch: &'a RecordBatch, id: &str) -> Result<Self> {
        let table = Table::new(role, batch);
        let ids = table.strings(id)?;
        if let Some(row) = (0..ids.len()).find(|row| ids.is_null(*row)) {
            return Err(Error::config(format!("row {} of '{role}' has no id", row + 1)));
        }
        Ok(Self { table, role, ids, count: batch.num_rows() })
    }

    pub(super) fn id(&self, row: usize) -> &str {
        self.ids.value(row)
    }

    pub(super) fn name(&self, row: usize) -> String {
        format!("'{}' (row {} of '{}')", self.ids.value(row), row + 1, self.role)
    }

    pub(super) fn texts(&self, name: &str) -> Result<Texts> {
        Ok(Texts(if self.table.has(name) { Some(self.table.strings(name)?) } else { None }))
    }

    pub(super) fn flags(&self, name: &str) -> Result<Vec<bool>> {
        if !self.table.has(name) {
            return Ok(vec![false; self.count]);
        }
        Ok(self.table.flags(name)?.into_iter().map(|flag| flag.unwrap_or(false)).collect())
    }

    /// A column that may be missing, or null in places, which both mean `missing`.
    pub(super) fn or(&self, name: &str, missing: f64) -> Result<Vec<f64>> {
        if !self.table.has(name) {
            return Ok(vec![missing; self.count]);
        }
        let check = |(row, value): (usize, Option<f64>)| match value {
            None => Ok(missing),
            Some(value) if value.is_finite() => Ok(value),
            Some(value) => {
                Err(Error::config(format!("{} has {name} {value}, not a finite number", self.name(row))))
            }
        };
        self.table.numbers(name)?.into_iter().enumerate().map(check).collect()
    }

    pub(super) fn numbers(&self, name: &str) -> Result<Vec<f64>> {
        let check = |(row, value): (usize, Option<f64>)| match value {
            Some(value) if value.is_finite() => Ok(value),
            _ => Err(Error::config(format!("{} has no {name}", self.name(row)))),
        };
        self.table.numbers(name)?.into_iter().enumerate().map(check).collect()
    }

    /// A column that may be missing, or null in places: 0.
    pub(super) fn not_negative(&self, name: &str) -> Result<Vec<f64>> {
        let values = self.or(name, 0.0)?;
        match values.iter().position(|value| *value < 0.0) {
            Some(row) => Err(Error::config(format!(
                "{} has {name} {}, which must not be negative",
                self.name(row),
                values[row]
            ))),
            None => Ok(values),
        }
    }

    pub(super) fn positive(&self, name: &str) -> Result<Vec<f64>> {
        let values = self.numbers(name)?;
        match values.iter().position(|value| *value <= 0.0) {
            Some(row) => Err(Error::config(format!(
                "{} has {name} {}, which must be above 0",
                self.name(row),
                values[row]
            ))),
            None => Ok(values),
        }
    }
}

/// Patterns and curves by name.
pub(super) struct Series {
    patterns: Names,
    factors: Vec<Vec<f64>>,
    curves: Names,
    pub(super) points: Vec<Vec<(f64, f64)>>,
}

/// The place of a series; a new one has a place at the end.
fn place_of<T>(names: &mut Names, id: &str, all: &mut Vec<Vec<T>>) -> usize {
    if let Some(place) = names.get(id) {
        return *place;
    }
    names.insert(id.to_owned(), all.len());
    all.push(Vec::new());
    all.len() - 1
}

impl Series {
    fn read(city: &Snapshot) -> Result<Self> {
        let mut series = Self {
            patterns: Names::default(),
            factors: Vec::new(),
            curves: Names::default(),
            points: Vec::new(),
        };
        if let Some(batch) = city.tables.get("patterns") {
            let rows = Rows::new("patterns", batch, "pattern_id")?;
            for (row, factor) in rows.numbers("factor")?.into_iter().enumerate() {
                let place = place_of(&mut series.patterns, rows.id(row), &mut series.factors);
                series.factors[place].push(factor);
            }
        }
        if let Some(batch) = city.tables.get("curves") {
            let rows = Rows::new("curves", batch, "curve_id")?;
            let kinds = rows.texts("kind")?;
            let (x, y) = (rows.numbers("x")?, rows.numbers("y")?);
            for row in 0..rows.count {
                let (of_x, of_y) = match kinds.get(row) {
                    Some("pump_head" | "headloss") => (1.0 / M3_PER_FT3, 1.0 / M_PER_FT),
                    Some("volume") => (1.0 / M_PER_FT, M_PER_FT.powi(-3)),
                    Some("valve") => (1.0, 1.0),
                    other => {
                        let other = other.unwrap_or("none");
                        return Err(Error::config(format!(
                            "the curve {} is of kind '{other}'",
                            rows.name(row)
                        ))
                        .with_help("a kind is one of 'pump_head', 'headloss', 'volume', 'valve'"));
                    }
                };
                let place = place_of(&mut series.curves, rows.id(row), &mut series.points);
                let point = (x[row] * of_x, y[row] * of_y);
                if series.points[place].last().is_some_and(|last| last.0 >= point.0) {
                    return Err(Error::config(format!(
                        "the x of the curve {} does not rise",
                        rows.name(row)
                    )));
                }
                series.points[place].push(point);
            }
        }
        Ok(series)
    }

    pub(super) fn pattern(&self, id: Option<&str>, named_by: &dyn Fn() -> String) -> Result<Option<usize>> {
        id.map(|id| Index { what: "pattern", of: &self.patterns }.find(Some(id), named_by)).transpose()
    }

    pub(super) fn curve(&self, id: Option<&str>, named_by: &dyn Fn() -> String) -> Result<Option<usize>> {
        id.map(|id| Index { what: "curve", of: &self.curves }.find(Some(id), named_by)).transpose()
    }
}

/// Adds a node; twice the same name is an error.
fn add_node(nodes: &mut Vec<Node>, index: &mut Names, node: Node) -> Result<()> {
    if index.insert(node.id.clone(), nodes.len()).is_some() {
        return Err(Error::config(format!("the node '{}' is there twice", node.id)));
    }
    nodes.push(node);
    Ok(())
}

fn node(id: &str, elevation: f64, quality: f64) -> Node {
    Node { id: id.to_owned(), elevation, demands: Vec::new(), emitter: 0.0, quality, source: None }
}

impl Network {
    pub(super) fn read(city: &Snapshot, reading: &Reading) -> Result<Self> {
        let series = Series::read(city)?;
        let concentration = if reading.quality == Quality::Chemical { L_PER_FT3 } else { 1.0 };
        let (mut nodes, mut index) = (Vec::new(), Names::default());
        let batch = city.table("junctions")?;
        let rows = Rows::new("junctions", batch, "node_id")?;
        let (elevation, emitter) = (rows.or("elevation_m", 0.0)?, rows.or("emitter_m3s", 0.0)?);
        let quality = rows.or("initial_quality", 0.0)?;
        for row in 0..rows.count {
            let mut node = node(rows.id(row), elevation[row] / M_PER_FT, quality[row] * concentration);
            if emitter[row] > 0.0 {
                let coefficient = emitter[row] / M3_PER_FT3 * M_PER_FT.powf(1.0 / reading.emitter_power);
                node.emitter = coefficient.powf(-reading.emitter_power);
            }
            add_node(&mut nodes, &mut index, node)?;
        }
        let junctions = nodes.len();
        if junctions == 0 {
            return Err(Error::config("the network has no junction"));
        }
        let mut tanks = Vec::new();
        if let Some(batch) = city.tables.get("reservoirs") {
            reservoirs(batch, &series, concentration, &mut nodes, &mut index, &mut tanks)?;
        }
        if let Some(batch) = city.tables.get("tanks") {
            read_tanks(batch, &series, concentration, &mut nodes, &mut index, &mut tanks)?;
        }
        if tanks.is_empty() {
            return Err(Error::config("the network has neither a tank nor a reservoir, so no head is known")
                .with_help("add a row to 'reservoirs' where water comes from"));
        }
        if let Some(batch) = city.tables.get("demands") {
            let rows = Rows::new("demands", batch, "node_id")?;
            let (demand, pattern) = (rows.numbers("demand_m3s")?, rows.texts("pattern_id")?);
            let default = series.patterns.get(&reading.default_pattern).copied();
            for (row, demand) in demand.into_iter().enumerate() {
                let named_by = || format!("the demand {}", rows.name(row));
                let node = Index { what: "node", of: &index }.find(Some(rows.id(row)), &named_by)?;
                let pattern = series.pattern(pattern.get(row), &named_by)?.or(default);
                if node < junctions {
                    nodes[node].demands.push((demand / M3_PER_FT3, pattern));
                }
            }
        }
        if let Some(batch) = city.tables.get("sources") {
            sources(batch, &series, &index, &mut nodes)?;
        }
        let links = read_links(city, &series, &index, reading, junctions)?;
        let joined: Vec<bool> = links.iter().fold(vec![false; nodes.len()], |mut joined, link| {
            (joined[link.from], joined[link.to]) = (true, true);
            joined
        });
        if let Some(alone) = (0..junctions).find(|&node| !joined[node]) {
            return Err(Error::config(format!("the junction '{}' is joined to no link", nodes[alone].id)));
        }
        if let Quality::Trace(node) = &reading.quality {
            Index { what: "node", of: &index }.find(Some(node), &|| "trace_node".to_owned())?;
        }
        let link_index: Names =
            links.iter().enumerate().map(|(place, link)| (link.id.clone(), place)).collect();
        let mut network = Self {
            layout: Layout::new(&nodes, &links, junctions)?,
            columns: Columns::new(&nodes, junctions, &tanks, &links),
            nodes,
            junctions,
            tanks,
            leaks: leakage::of_links(&links, junctions),
            links,
            patterns: series.factors,
            curves: series.points,
            controls: Vec::new(),
            rules: Vec::new(),
            node_index: index,
        };
        network.controls = rules::read_controls(city, &network, &link_index)?;
        network.rules = rules::read_rules(city, &network, &link_index)?;
        Ok(network)
    }
}

fn reservoirs(
    batch: &RecordBatch,
    series: &Series,
    concentration: f64,
    nodes: &mut Vec<Node>,
    index: &mut Names,
    tanks: &mut Vec<Tank>,
) -> Result<()> {
    let rows = Rows::new("reservoirs", batch, "node_id")?;
    let (head, pattern) = (rows.numbers("head_m")?, rows.texts("pattern_id")?);
    let quality = rows.or("initial_quality", 0.0)?;
    for row in 0..rows.count {
        let head = head[row] / M_PER_FT;
        add_node(nodes, index, node(rows.id(row), head, quality[row] * concentration))?;
        tanks.push(Tank {
            area: 0.0,
            initial_head: head,
            least_head: head,
            most_head: head,
            initial_volume: 0.0,
            least_volume: 0.0,
            most_volume: 0.0,
            curve: None,
            can_overflow: false,
            pattern: series.pattern(pattern.get(row), &|| format!("the reservoir {}", rows.name(row)))?,
            mixing: Mixing::Complete,
            mixing_fraction: 1.0,
            bulk: 0.0,
        });
    }
    Ok(())
}

fn read_tanks(
    batch: &RecordBatch,
    series: &Series,
    concentration: f64,
    nodes: &mut Vec<Node>,
    index: &mut Names,
    tanks: &mut Vec<Tank>,
) -> Result<()> {
    let rows = Rows::new("tanks", batch, "node_id")?;
    let elevation = rows.numbers("elevation_m")?;
    let (initial, least, most) =
        (rows.numbers("initial_level_m")?, rows.or("min_level_m", 0.0)?, rows.numbers("max_level_m")?);
    let (diameter, least_volume) = (rows.positive("diameter_m")?, rows.or("min_volume_m3", 0.0)?);
    let (curves, overflow) = (rows.texts("volume_curve_id")?, rows.flags("can_overflow")?);
    let (mixing, fraction) = (rows.texts("mixing")?, rows.or("mixing_fraction", 1.0)?);
    let (bulk, quality) = (rows.or("bulk_coefficient", 0.0)?, rows.or("initial_quality", 0.0)?);
    for row in 0..rows.count {
        let named = || format!("the tank {}", rows.name(row));
        if initial[row] < least[row] || initial[row] > most[row] {
            return Err(Error::config(format!(
                "{} has initial_level_m {}, which is not between min_level_m {} and max_level_m {}",
                named(),
                initial[row],
                least[row],
                most[row]
            )));
        }
        let curve = series.curve(curves.get(row), &named)?;
        let feet = |level: f64| level / M_PER_FT;
        let area = PI * feet(diameter[row]).powi(2) / 4.0;
        let volumes = if let Some(curve) = curve {
            let points = &series.points[curve];
            let (first, last) = (points.first().map_or(0.0, |p| p.0), points.last().map_or(0.0, |p| p.0));
            if feet(least[row]) < first - 1e-3 || feet(most[row]) > last + 1e-3 {
                return Err(Error::config(format!("{} has levels beyond its volume curve", named())));
            }
            [initial[row], least[row], most[row]]
                .map(|level| interpolate(points.iter().copied(), feet(level)))
        } else {
            let given = least_volume[row] / M_PER_FT.powi(3);
            let bottom = if given > 0.0 { given } else { area * feet(least[row]) };
            let above = |level: f64| bottom + area * feet(level - least[row]);
            [above(initial[row]), bottom, above(most[row])]
        };
        let base = elevation[row] / M_PER_FT;
        add_node(nodes, index, node(rows.id(row), base, quality[row] * concentration))?;
        tanks.push(Tank {
            area,
            initial_head: base + feet(initial[row]),
            least_head: base + feet(least[row]),
            most_head: base + feet(most[row]),
            initial_volume: volumes[0],
            least_volume: volumes[1],
            most_volume: volumes[2],
            curve,
            can_overflow: overflow[row],
            pattern: None,
            mixing: match mixing.get(row) {
                None | Some("mixed") => Mixing::Complete,
                Some("two_compartments") => Mixing::TwoCompartments,
                Some("fifo") => Mixing::FirstInFirstOut,
                Some("lifo") => Mixing::LastInFirstOut,
                Some(other) => {
                    return Err(Error::config(format!("{} has the mixing model '{other}'", named()))
                        .with_help("write one of: mixed, two_compartments, fifo, lifo"));
                }
            },
            mixing_fraction: fraction[row],
            bulk: bulk[row] / SECONDS_PER_DAY,
        });
    }
    Ok(())
}

fn sources(batch: &RecordBatch, series: &Series, index: &Names, nodes: &mut [Node]) -> Result<()> {
    let rows = Rows::new("sources", batch, "node_id")?;
    let (kinds, strength, patterns) =
        (rows.texts("kind")?, rows.numbers("strength")?, rows.texts("pattern_id")?);
    for (row, strength) in strength.into_iter().enumerate() {
        let named_by = || format!("the source {}", rows.name(row));
        let node = Index { what: "node", of: index }.find(Some(rows.id(row)), &named_by)?;
        let kind = match kinds.get(row) {
            None | Some("concentration") => SourceKind::Concentration,
            Some("mass") => SourceKind::Mass,
            Some("set_point") => SourceKind::SetPoint,
            Some("flow_paced") => SourceKind::FlowPaced,
            Some(other) => {
                return Err(Error::config(format!("{} is of kind '{other}'", named_by()))
                    .with_help("write one of: concentration, mass, set_point, flow_paced"));
            }
        };
        let pattern = series.pattern(patterns.get(row), &named_by)?;
        nodes[node].source = Some(Source { kind, strength, pattern });
    }
    Ok(())
}
