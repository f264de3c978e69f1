//! EPANET input files (.inp): water distribution networks, as versions 2.0 to 2.3 of the format's own program read them.
//!
//! Sections and their columns: the appendix of the EPANET 2.2 User Manual (Rossman et al. 2020). All values come out in
//! SI units, with the factors that EPANET itself uses (a cubic foot is 0.028317 m³, a psi 1 / 0.4333 ft of water), so
//! that a network means here what it means there to the last digit. Sections that no computation of heads, flows and
//! quality needs (TITLE, ENERGY, REPORT, TAGS, LABELS, BACKDROP) are not read; LEAKAGE, which would change heads, is
//! refused.

mod lines;
mod logic;
mod options;
mod quality;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray};
use twinlake_contracts::Result;

use lines::{Line, Sections};
use options::{Headloss, Options};

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
///   Darcy-Weisbach), minor_loss, check_valve, status (`open`, `closed`), bulk_coefficient, wall_coefficient
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
    if let Some(line) = sections.lines("LEAKAGE").first() {
        return Err(line
            .error(0, "leakage along pipes is not computed")
            .with_help("take the lines out of [LEAKAGE], or model leaks by [EMITTERS]"));
    }
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

/// Rows that grow in step.
#[derive(Default)]
struct Pipes<'a> {
    ids: Vec<&'a str>,
    from: Vec<&'a str>,
    to: Vec<&'a str>,
    length: Vec<f64>,
    diameter: Vec<f64>,
    roughness: Vec<f64>,
    minor_loss: Vec<f64>,
    check_valve: Vec<bool>,
    status: Vec<&'static str>,
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

    /// x and y of nodes.
    fn coordinates(&self, of: std::ops::Range<usize>) -> Result<[Vec<Option<f64>>; 2]> {
        let (mut x, mut y) = (vec![None; self.node_ids.len()], vec![None; self.node_ids.len()]);
        for line in self.sections.lines("COORDINATES") {
            // A map may hold more than the network.
            if let Some(&node) = self.nodes.get(line.words[0]) {
                x[node] = Some(line.number(1, "the x coordinate")?);
                y[node] = Some(line.number(2, "the y coordinate")?);
            }
        }
        Ok([x[of.clone()].to_vec(), y[of].to_vec()])
    }

    fn vertices(&self) -> Result<RecordBatch> {
        let (mut ids, mut x, mut y) = (Vec::new(), Vec::new(), Vec::new());
        for line in self.sections.lines("VERTICES") {
            if self.links.contains_key(line.words[0]) {
                ids.push(line.words[0]);
                x.push(line.number(1, "the x coordinate")?);
                y.push(line.number(2, "the y coordinate")?);
            }
        }
        batch(vec![("link_id", texts(ids)), ("x", floats(x)), ("y", floats(y))])
    }

    fn junctions(&self) -> Result<RecordBatch> {
        let units = self.options.units;
        let elevation: Vec<f64> = self
            .sections
            .lines("JUNCTIONS")
            .iter()
            .map(|line| Ok(line.number_or(1, "the elevation", 0.0)? * units.length))
            .collect::<Result<_>>()?;
        // Flow is C p^γ, in the file's units of flow, and of psi or metres whatever unit pressures are reported in.
        let pressure = if units.metric { 1.0 } else { self.psi() };
        let mut emitter = vec![0.0; self.junctions];
        for line in self.sections.lines("EMITTERS") {
            let node = self.node(line, 0)?;
            let coefficient = line.not_negative(1, "the coefficient", 0.0)?;
            if node < self.junctions {
                emitter[node] = coefficient * units.flow / pressure.powf(self.options.emitter_exponent);
            }
        }
        let [x, y] = self.coordinates(0..self.junctions)?;
        batch(vec![
            ("node_id", texts(self.node_ids[..self.junctions].iter().copied())),
            ("elevation_m", floats(elevation)),
            ("emitter_m3s", floats(emitter)),
            ("x", optional_floats(x)),
            ("y", optional_floats(y)),
        ])
    }

    /// Metres of water for a psi.
    fn psi(&self) -> f64 {
        let gravity = self.options.number("specific_gravity").unwrap_or(1.0);
        options::M_PER_FT / (options::PSI_PER_FT * gravity)
    }

    /// [RESERVOIRS], and lines of [TANKS] with no more than a head and a pattern.
    fn reservoirs(&self) -> Result<RecordBatch> {
        let (mut ids, mut head, mut pattern, mut places) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for line in self.sections.lines("RESERVOIRS").iter().chain(self.tank_lines(true)) {
            ids.push(line.words[0]);
            head.push(line.number(1, "the head")? * self.options.units.length);
            pattern.push(self.pattern(line, 2)?);
            places.push(self.nodes[line.words[0]]);
        }
        let [x, y] = self.coordinates(0..self.node_ids.len())?;
        batch(vec![
            ("node_id", texts(ids)),
            ("head_m", floats(head)),
            ("pattern_id", optional_texts(pattern)),
            ("x", optional_floats(places.iter().map(|&place| x[place]).collect())),
            ("y", optional_floats(places.iter().map(|&place| y[place]).collect())),
        ])
    }

    fn tank_lines(&self, reservoirs: bool) -> impl Iterator<Item = &Line<'a>> {
        self.sections.lines("TANKS").iter().filter(move |line| (line.words.len() <= 3) == reservoirs)
    }

    fn tanks(&mut self) -> Result<RecordBatch> {
        let units = self.options.units;
        let lines: Vec<Line<'a>> = self.tank_lines(false).cloned().collect();
        let mut columns: [Vec<f64>; 6] = Default::default();
        let (mut curve, mut overflow) = (Vec::new(), Vec::new());
        for line in &lines {
            columns[0].push(line.number(1, "the elevation")? * units.length);
            for (column, (index, what)) in [
                (2, "the initial level"),
                (3, "the lowest level"),
                (4, "the highest level"),
                (5, "the diameter"),
            ]
            .into_iter()
            .enumerate()
            {
                line.needed(index, what)?;
                columns[column + 1].push(line.not_negative(index, what, 0.0)? * units.length);
            }
            let (initial, least, most) = (columns[1].last(), columns[2].last(), columns[3].last());
            if initial < least || initial > most {
                return Err(line.error(2, "the initial level is not between the lowest and the highest"));
            }
            columns[5].push(line.not_negative(6, "the least volume", 0.0)? * units.volume());
            curve.push(match line.word(7) {
                None | Some("" | "*") => None,
                Some(_) => Some(self.curve(line, 7, CurveKind::Volume)?),
            });
            overflow.push(match line.word(8) {
                None => false,
                Some(_) if line.is(8, "YES") => true,
                Some(_) if line.is(8, "NO") => false,
                Some(_) => return Err(line.error(8, "whether the tank overflows is neither YES nor NO")),
            });
        }
        let places: Vec<usize> = lines.iter().map(|line| self.nodes[line.words[0]]).collect();
        let [x, y] = self.coordinates(0..self.node_ids.len())?;
        let [elevation, initial, least, most, diameter, volume] = columns;
        batch(vec![
            ("node_id", texts(lines.iter().map(|line| line.words[0]))),
            ("elevation_m", floats(elevation)),
            ("initial_level_m", floats(initial)),
            ("min_level_m", floats(least)),
            ("max_level_m", floats(most)),
            ("diameter_m", floats(diameter)),
            ("min_volume_m3", floats(volume)),
            ("volume_curve_id", optional_texts(curve)),
            ("can_overflow", flags(overflow)),
            ("x", optional_floats(places.iter().map(|&place| x[place]).collect())),
            ("y", optional_floats(places.iter().map(|&place| y[place]).collect())),
        ])
    }

    fn pipes(&self) -> Result<RecordBatch> {
        let units = self.options.units;
        let (length, diameter) = if units.metric { (100.0, 254.0) } else { (330.0, 10.0) };
        // Darcy-Weisbach roughness is in mm or thousandths of a foot.
        let (roughness, unit) = match self.options.headloss {
            Headloss::HazenWilliams => (130.0, 1.0),
            Headloss::DarcyWeisbach => (0.0005, units.length / 1000.0),
            Headloss::ChezyManning => (0.01, 1.0),
        };
        let mut pipes = Pipes::default();
        for line in self.sections.lines("PIPES") {
            let (from, to) = self.ends(line)?;
            pipes.ids.push(line.words[0]);
            pipes.from.push(from);
            pipes.to.push(to);
            pipes.length.push(line.positive(3, "the length", length)? * units.length);
            pipes.diameter.push(line.positive(4, "the diameter", diameter)? * units.diameter);
            pipes.roughness.push(line.positive(5, "the roughness", roughness)? * unit);
            // A minor loss, a status, or both in this order.
            let status_of = |index: usize| match () {
                () if line.is(index, "CV") => Some((true, "open")),
                () if line.is(index, "CLOSED") => Some((false, "closed")),
                () if line.is(index, "OPEN") => Some((false, "open")),
                () => None,
            };
            let (minor, (check, status)) = match (status_of(6), line.words.len()) {
                (Some(status), 7) => (0.0, status),
                (_, ..=7) => (line.not_negative(6, "the minor loss", 0.0)?, (false, "open")),
                _ => (
                    line.not_negative(6, "the minor loss", 0.0)?,
                    status_of(7).ok_or_else(|| line.error(7, "the status is none of OPEN, CLOSED, CV"))?,
                ),
            };
            pipes.minor_loss.push(minor);
            pipes.check_valve.push(check);
            pipes.status.push(status);
        }
        for (link, status, _) in self.statuses()? {
            if self.link_kinds[link] == "pipe"
                && let Some(status) = status
            {
                pipes.status[link] = status;
            }
        }
        batch(vec![
            ("link_id", texts(pipes.ids)),
            ("from_node", texts(pipes.from)),
            ("to_node", texts(pipes.to)),
            ("length_m", floats(pipes.length)),
            ("diameter_m", floats(pipes.diameter)),
            ("roughness", floats(pipes.roughness)),
            ("minor_loss", floats(pipes.minor_loss)),
            ("check_valve", flags(pipes.check_valve)),
            ("status", texts(pipes.status)),
        ])
    }

    /// [STATUS]: each link with its status or setting. A line names a link, or the first and last of a range of ids.
    fn statuses(&self) -> Result<Vec<(usize, Option<&'static str>, f64)>> {
        let mut statuses = Vec::new();
        for line in self.sections.lines("STATUS") {
            let last = line.words.len() - 1;
            if last == 0 {
                return Err(line.error(0, "the status is missing"));
            }
            let (status, setting) = match () {
                () if line.is(last, "OPEN") => (Some("open"), 0.0),
                () if line.is(last, "CLOSED") => (Some("closed"), 0.0),
                () => (None, line.not_negative(last, "the setting", 0.0)?),
            };
            if last == 1 {
                let link = self.link(line, 0)?;
                if self.link_kinds[link] == "check_valve" {
                    return Err(line.error(0, "the status of a check valve cannot be set"));
                }
                if self.link_kinds[link] == "gpv" && status.is_none() {
                    return Err(line.error(1, "a GPV has a curve, not a setting"));
                }
                statuses.push((link, status, setting));
            } else {
                let range = quality::in_range(line.words[0], line.words[1], &self.link_ids);
                statuses.extend(range.into_iter().map(|link| (link, status, setting)));
            }
        }
        Ok(statuses)
    }

    fn pumps(&mut self) -> Result<RecordBatch> {
        let units = self.options.units;
        let lines = self.lines("PUMPS");
        let rows = lines.len();
        let (mut from, mut to) = (Vec::new(), Vec::new());
        let (mut curve, mut power, mut pattern) = (vec![None; rows], vec![None; rows], vec![None; rows]);
        let (mut speed, mut status) = (vec![1.0; rows], vec!["open"; rows]);
        for (row, line) in lines.iter().enumerate() {
            let ends = self.ends(line)?;
            from.push(ends.0);
            to.push(ends.1);
            for key in (3..line.words.len()).step_by(2) {
                match () {
                    () if line.is(key, "POWER") => {
                        line.needed(key + 1, "the power")?;
                        power[row] = Some(line.positive(key + 1, "the power", 0.0)? * units.kilowatt);
                    }
                    () if line.is(key, "HEAD") => {
                        curve[row] = Some(self.curve(line, key + 1, CurveKind::PumpHead)?);
                    }
                    () if line.is(key, "SPEE") => {
                        line.needed(key + 1, "the speed")?;
                        speed[row] = line.not_negative(key + 1, "the speed", 1.0)?;
                    }
                    () if line.is(key, "PATT") => {
                        line.needed(key + 1, "the pattern")?;
                        pattern[row] = self.pattern(line, key + 1)?;
                    }
                    () => return Err(line.error(key, "none of HEAD, POWER, SPEED, PATTERN")),
                }
            }
            if curve[row].is_none() && power[row].is_none() {
                return Err(line.error(0, "the pump has neither a curve (HEAD) nor a POWER"));
            }
        }
        let first = self.sections.lines("PIPES").len();
        for (link, set, setting) in self.statuses()? {
            if self.link_kinds[link] == "pump" {
                let row = link - first;
                speed[row] = match set {
                    Some("open") => 1.0,
                    Some(_) => 0.0,
                    None => setting,
                };
                status[row] = if speed[row] == 0.0 { "closed" } else { "open" };
            }
        }
        batch(vec![
            ("link_id", texts(lines.iter().map(|line| line.words[0]))),
            ("from_node", texts(from)),
            ("to_node", texts(to)),
            ("curve_id", optional_texts(curve)),
            ("power_kw", optional_floats(power)),
            ("speed", floats(speed)),
            ("pattern_id", optional_texts(pattern)),
            ("status", texts(status)),
        ])
    }

    /// The factor from the file's unit of a setting to SI, by the kind of link.
    fn setting_unit(&self, link: usize) -> f64 {
        match self.link_kinds[link] {
            "prv" | "psv" | "pbv" => self.options.units.pressure,
            "fcv" => self.options.units.flow,
            _ => 1.0,
        }
    }

    fn valves(&mut self) -> Result<RecordBatch> {
        let lines = self.lines("VALVES");
        let first = self.link_ids.len() - lines.len();
        let (mut from, mut to) = (Vec::new(), Vec::new());
        let (mut diameter, mut kinds, mut setting) = (Vec::new(), Vec::new(), Vec::new());
        let (mut curve, mut minor, mut status) = (Vec::new(), Vec::new(), Vec::new());
        for (row, line) in lines.iter().enumerate() {
            let ends = self.ends(line)?;
            let kind = self.link_kinds[first + row];
            if matches!(kind, "prv" | "psv" | "fcv") {
                for (index, end) in [(1, ends.0), (2, ends.1)] {
                    if self.nodes[end] >= self.junctions {
                        return Err(line
                            .error(
                                index,
                                format!("a {} cannot be joined to a tank or reservoir", kind.to_uppercase()),
                            )
                            .with_help("put a junction and a short pipe between them"));
                    }
                }
            }
            from.push(ends.0);
            to.push(ends.1);
            line.needed(3, "the diameter")?;
            diameter.push(line.positive(3, "the diameter", 0.0)? * self.options.units.diameter);
            kinds.push(kind);
            curve.push(match kind {
                "gpv" => Some(self.curve(line, 5, CurveKind::Headloss)?),
                "pcv" if line.words.len() > 7 => Some(self.curve(line, 7, CurveKind::Valve)?),
                _ => None,
            });
            let number = if kind == "gpv" { 0.0 } else { line.number_or(5, "the setting", 0.0)? };
            setting.push(number * self.setting_unit(first + row));
            minor.push(line.not_negative(6, "the minor loss", 0.0)?);
            status.push(if kind == "gpv" { "open" } else { "active" });
        }
        for (link, set, value) in self.statuses()? {
            let Some(row) = link.checked_sub(first) else { continue };
            match (set, kinds[row]) {
                (Some(set), _) => status[row] = set,
                (None, "gpv") => {}
                (None, _) => {
                    status[row] = "active";
                    setting[row] = value * self.setting_unit(link);
                }
            }
        }
        batch(vec![
            ("link_id", texts(lines.iter().map(|line| line.words[0]))),
            ("from_node", texts(from)),
            ("to_node", texts(to)),
            ("diameter_m", floats(diameter)),
            ("kind", texts(kinds)),
            ("setting", floats(setting)),
            ("curve_id", optional_texts(curve)),
            ("minor_loss", floats(minor)),
            ("status", texts(status)),
        ])
    }

    /// The demand of [JUNCTIONS], in the place of which come those of [DEMANDS].
    fn demands(&self) -> Result<RecordBatch> {
        let mut demands: Vec<Vec<(f64, Option<&str>)>> = Vec::with_capacity(self.junctions);
        for line in self.sections.lines("JUNCTIONS") {
            demands.push(vec![(line.number_or(2, "the demand", 0.0)?, self.pattern(line, 3)?)]);
        }
        let mut replaced = vec![false; self.junctions];
        for line in self.sections.lines("DEMANDS") {
            let node = self.node(line, 0)?;
            if node >= self.junctions {
                continue;
            }
            if !replaced[node] {
                demands[node].clear();
                replaced[node] = true;
            }
            demands[node].push((line.number(1, "the demand")?, self.pattern(line, 2)?));
        }
        let rows = || {
            demands.iter().enumerate().flat_map(|(node, demands)| {
                demands
                    .iter()
                    .filter(|demand| demand.0 != 0.0)
                    .map(move |demand| (self.node_ids[node], demand))
            })
        };
        batch(vec![
            ("node_id", texts(rows().map(|row| row.0))),
            ("demand_m3s", floats(rows().map(|row| row.1.0 * self.options.units.flow).collect())),
            ("pattern_id", optional_texts(rows().map(|row| row.1.1))),
        ])
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
