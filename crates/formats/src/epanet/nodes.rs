//! [JUNCTIONS], [RESERVOIRS], [TANKS], [DEMANDS], [EMITTERS] and [COORDINATES].

use arrow::array::RecordBatch;
use twinlake_contracts::Result;

use super::lines::Line;
use super::{CurveKind, Network, batch, flags, floats, optional_floats, optional_texts, options, texts};

impl<'a> Network<'a> {
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

    pub(super) fn junctions(&self) -> Result<RecordBatch> {
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
    pub(super) fn reservoirs(&self) -> Result<RecordBatch> {
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

    pub(super) fn tanks(&mut self) -> Result<RecordBatch> {
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

    /// The demand of [JUNCTIONS], in the place of which come those of [DEMANDS].
    pub(super) fn demands(&self) -> Result<RecordBatch> {
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
