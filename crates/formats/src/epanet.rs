//! EPANET input files (.inp): water distribution networks, as versions 2.0 to 2.3 of the format's own program read them.
//!
//! Sections and their columns: the appendix of the EPANET 2.2 User Manual (Rossman et al. 2020). All values come out in
//! SI units, with the factors that EPANET itself uses (a cubic foot is 0.028317 m³, a psi 1 / 0.4333 ft of water), so
//! that a network means here what it means there to the last digit. Sections that no computation of heads, flows and
//! quality needs (TITLE, ENERGY, REPORT, TAGS, LABELS, BACKDROP) are not read.

mod lines;
mod links;
mod logic;
mod nodes;
mod options;
mod quality;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray};
use twinlake_contracts::Result;

use lines::{Line, Sections};
use options::Options;

/// What a curve is for, which tells its units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CurveKind {
    /// m³/s and m of head gained.
    PumpHead,
    /// m of level and m³.
    Volume,
    /// m³/s and m of head lost.
    Headloss,
    /// Percent open and percent of the flow coefficient.
    Valve,
}

/// A point, by curve.
type Curves<'a> = BTreeMap<&'a str, Vec<(f64, f64)>>;

/// What all sections refer to.
struct Network<'a> {
    sections: Sections<'a>,
    options: Options,
    /// Index among junctions, then reservoirs and tanks, and among pipes, pumps, valves.
    nodes: HashMap<&'a str, usize>,
    node_ids: Vec<&'a str>,
    junctions: usize,
    links: HashMap<&'a str, usize>,
    link_ids: Vec<&'a str>,
    link_kinds: Vec<&'static str>,
    patterns: Vec<(&'a str, Vec<f64>)>,
    curves: Curves<'a>,
    curve_kinds: BTreeMap<&'a str, CurveKind>,
}

/// Reads a network: a table a role, all in SI units.
///
/// - `junctions`: node_id, elevation_m, emitter_m3s (flow at 1 m of pressure), initial_quality, x, y
/// - `reservoirs`: node_id, head_m, pattern_id, initial_quality, x, y
/// - `tanks`: node_id, elevation_m (of the bottom), initial_level_m, min_level_m, max_level_m, diameter_m, min_volume_m3,
///   volume_curve_id, can_overflow, mixing (`mixed`, `two_compartments`, `fifo`, `lifo`), mixing_fraction,
///   bulk_coefficient, initial_quality, x, y
/// - `pipes`: link_id, from_node, to_node, length_m, diameter_m, roughness (C or n without unit, or metres for
///   Darcy-Weisbach), minor_loss, check_valve, status (`open`, `closed`), leak_area_m2, leak_expansion_m (m² for each metre
///   of pressure), bulk_coefficient, wall_coefficient
/// - `pumps`: link_id, from_node, to_node, curve_id, power_kw, speed, pattern_id, status
/// - `valves`: link_id, from_node, to_node, diameter_m, kind (`prv`, `psv`, `pbv`, `fcv`, `tcv`, `gpv`, `pcv`), setting
///   (m of pressure, m³/s, a loss coefficient or percent open, by kind), curve_id, minor_loss, status (`active`, `open`,
///   `closed`)
/// - `demands`: node_id, demand_m3s, pattern_id; `patterns`: pattern_id, factor; `curves`: curve_id, kind, x, y
/// - `controls`: link_id, status, setting, kind (`below`, `above`, `time`, `clock_time`), node_id, level_m, time_s,
///   enabled; `rules`: rule_id, priority, enabled; `rule_premises`: rule_id, conjunction, object, object_id, variable,
///   relation, value, status, tolerance; `rule_actions`: rule_id, branch, link_id, status, setting
/// - `sources`: node_id, kind, strength, pattern_id
/// - `options`: name, number, text; times are there too
/// - `vertices`: link_id, x, y
///
/// Concentrations are mg/L; reaction coefficients are per day (bulk), and m/day or mg/m²/day (wall). `file` names the
/// text in errors, which name line and section.
pub fn read_network(text: &str, file: &str) -> Result<BTreeMap<String, RecordBatch>> {
    let sections = Sections::read(text, file)?;
    let options = Options::read(&sections)?;
    let mut network = Network {
        sections,
        options,
        nodes: HashMap::new(),
        node_ids: Vec::new(),
        junctions: 0,
        links: HashMap::new(),
        link_ids: Vec::new(),
        link_kinds: Vec::new(),
        patterns: Vec::new(),
        curves: Curves::new(),
        curve_kinds: BTreeMap::new(),
    };
    network.read_series()?;
    network.index()?;
    let mut tables = network.hydraulics()?;
    tables.extend(logic::tables(&network)?);
    tables.extend(quality::tables(&mut network, &tables)?);
    tables.insert("options".to_owned(), network.options.table()?);
    Ok(tables)
}

fn floats(values: Vec<f64>) -> ArrayRef {
    Arc::new(Float64Array::from(values))
}

fn optional_floats(values: Vec<Option<f64>>) -> ArrayRef {
    Arc::new(Float64Array::from(values))
}

fn texts<'t>(values: impl IntoIterator<Item = &'t str>) -> ArrayRef {
    Arc::new(StringArray::from(values.into_iter().collect::<Vec<_>>()))
}

fn optional_texts<T: AsRef<str>>(values: impl IntoIterator<Item = Option<T>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<StringArray>())
}

fn flags(values: Vec<bool>) -> ArrayRef {
    Arc::new(BooleanArray::from(values))
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    Ok(RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, column)| (name, column, true)),
    )?)
}

impl<'a> Network<'a> {
    fn lines(&self, section: &str) -> Vec<Line<'a>> {
        self.sections.lines(section).to_vec()
    }

    /// Patterns and curves.
    fn read_series(&mut self) -> Result<()> {
        let mut places: HashMap<&str, usize> = HashMap::new();
        for line in self.lines("PATTERNS") {
            if line.words.len() < 2 {
                return Err(line.error(0, "a pattern line has no factor"));
            }
            let id = line.words[0];
            let place = *places.entry(id).or_insert_with(|| {
                self.patterns.push((id, Vec::new()));
                self.patterns.len() - 1
            });
            for index in 1..line.words.len() {
                self.patterns[place].1.push(line.number(index, "the factor")?);
            }
        }
        for line in self.lines("CURVES") {
            let point = (line.number(1, "the x of a point")?, line.number(2, "the y of a point")?);
            let points = self.curves.entry(line.words[0]).or_default();
            if points.last().is_some_and(|last| last.0 >= point.0) {
                return Err(line.error(1, "the x of a curve must rise from point to point"));
            }
            points.push(point);
        }
        Ok(())
    }

    /// Which nodes and links there are.
    fn index(&mut self) -> Result<()> {
        for section in ["JUNCTIONS", "RESERVOIRS", "TANKS"] {
            for line in self.lines(section) {
                let id = line.words[0];
                if self.nodes.insert(id, self.node_ids.len()).is_some() {
                    return Err(line.error(0, format!("the node '{id}' is there twice")));
                }
                self.node_ids.push(id);
            }
            if section == "JUNCTIONS" {
                self.junctions = self.node_ids.len();
            }
        }
        for (section, kind) in [("PIPES", "pipe"), ("PUMPS", "pump"), ("VALVES", "valve")] {
            for line in self.lines(section) {
                let id = line.words[0];
                if self.links.insert(id, self.link_ids.len()).is_some() {
                    return Err(line.error(0, format!("the link '{id}' is there twice")));
                }
                self.link_ids.push(id);
                let kind = match kind {
                    "pipe" if line.is(6, "CV") || line.is(7, "CV") => "check_valve",
                    "valve" => valve_kind(&line)?,
                    kind => kind,
                };
                self.link_kinds.push(kind);
            }
        }
        Ok(())
    }

    fn node(&self, line: &Line<'a>, index: usize) -> Result<usize> {
        let word = line.needed(index, "the node")?;
        self.nodes.get(word).copied().ok_or_else(|| {
            let error = line.error(index, format!("the node '{word}' is not defined"));
            near(error, word, self.nodes.keys().copied())
        })
    }

    fn link(&self, line: &Line<'a>, index: usize) -> Result<usize> {
        let word = line.needed(index, "the link")?;
        self.links.get(word).copied().ok_or_else(|| {
            let error = line.error(index, format!("the link '{word}' is not defined"));
            near(error, word, self.links.keys().copied())
        })
    }

    /// A pattern that is there, None for a word that is not.
    fn pattern(&self, line: &Line<'a>, index: usize) -> Result<Option<&'a str>> {
        let Some(word) = line.word(index).filter(|word| !word.is_empty() && *word != "*") else {
            return Ok(None);
        };
        if self.patterns.iter().any(|(id, _)| *id == word) {
            Ok(Some(word))
        } else {
            Err(line.error(index, format!("the pattern '{word}' is not defined")))
        }
    }

    /// A curve that is there, taken for this use.
    fn curve(&mut self, line: &Line<'a>, index: usize, kind: CurveKind) -> Result<&'a str> {
        let word = line.needed(index, "the curve")?;
        if !self.curves.contains_key(word) {
            return Err(line.error(index, format!("the curve '{word}' is not defined")));
        }
        match self.curve_kinds.insert(word, kind) {
            Some(other) if other != kind => {
                Err(line.error(index, format!("the curve '{word}' is used for two different things")))
            }
            _ => Ok(word),
        }
    }

    /// Both ends of a link.
    fn ends(&self, line: &Line<'a>) -> Result<(&'a str, &'a str)> {
        let (from, to) = (self.node(line, 1)?, self.node(line, 2)?);
        if from == to {
            return Err(line.error(2, "a link must join two different nodes"));
        }
        Ok((self.node_ids[from], self.node_ids[to]))
    }

    fn hydraulics(&mut self) -> Result<BTreeMap<String, RecordBatch>> {
        let pipes = self.pipes()?;
        let (pumps, valves) = (self.pumps()?, self.valves()?);
        let (reservoirs, tanks) = (self.reservoirs()?, self.tanks()?);
        let mut tables = BTreeMap::new();
        let mut insert = |role: &str, table| tables.insert(role.to_owned(), table);
        insert("pipes", pipes);
        insert("pumps", pumps);
        insert("valves", valves);
        insert("junctions", self.junctions()?);
        insert("reservoirs", reservoirs);
        insert("tanks", tanks);
        insert("demands", self.demands()?);
        insert("patterns", self.pattern_table()?);
        insert("curves", self.curve_table()?);
        insert("vertices", self.vertices()?);
        Ok(tables)
    }

    fn pattern_table(&self) -> Result<RecordBatch> {
        let rows = || {
            self.patterns.iter().flat_map(|(id, factors)| factors.iter().map(move |factor| (*id, *factor)))
        };
        batch(vec![
            ("pattern_id", texts(rows().map(|row| row.0))),
            ("factor", floats(rows().map(|row| row.1).collect())),
        ])
    }

    fn curve_table(&self) -> Result<RecordBatch> {
        let units = self.options.units;
        let (mut ids, mut kinds, mut x, mut y) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (id, kind) in &self.curve_kinds {
            let (name, of_x, of_y) = match kind {
                CurveKind::PumpHead => ("pump_head", units.flow, units.length),
                CurveKind::Headloss => ("headloss", units.flow, units.length),
                CurveKind::Volume => ("volume", units.length, units.volume()),
                CurveKind::Valve => ("valve", 1.0, 1.0),
            };
            for point in &self.curves[id] {
                ids.push(*id);
                kinds.push(name);
                x.push(point.0 * of_x);
                y.push(point.1 * of_y);
            }
        }
        batch(vec![("curve_id", texts(ids)), ("kind", texts(kinds)), ("x", floats(x)), ("y", floats(y))])
    }
}

fn valve_kind(line: &Line<'_>) -> Result<&'static str> {
    let word = line.needed(4, "the type of the valve")?;
    ["prv", "psv", "pbv", "fcv", "tcv", "gpv", "pcv"]
        .into_iter()
        .find(|kind| lines::starts(word, kind))
        .ok_or_else(|| line.error(4, format!("the valve type '{word}' is unknown")))
}

fn near<'k>(
    error: twinlake_contracts::Error,
    word: &str,
    known: impl Iterator<Item = &'k str>,
) -> twinlake_contracts::Error {
    match twinlake_contracts::suggest(word, known) {
        Some(near) => error.with_help(format!("did you mean '{near}'?")),
        None => error,
    }
}

#[cfg(test)]
mod tests;
