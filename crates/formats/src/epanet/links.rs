//! [PIPES], [PUMPS], [VALVES], [STATUS] and [VERTICES].

use arrow::array::RecordBatch;
use twinlake_contracts::Result;

use super::options::Headloss;
use super::{CurveKind, Network, batch, flags, floats, optional_floats, optional_texts, quality, texts};

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

impl Network<'_> {
    pub(super) fn pipes(&self) -> Result<RecordBatch> {
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
        let leaks = self.leaks(&pipes.length)?;
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
            ("leak_area_m2", floats(leaks.iter().map(|leak| leak[0]).collect())),
            ("leak_expansion_m", floats(leaks.iter().map(|leak| leak[1]).collect())),
        ])
    }

    /// [LEAKAGE]: area of the leaks of each pipe (m²), and by how much it grows with each metre of pressure (m²/m). The file has
    /// mm² for each 100 m (100 ft) of the pipe; what it says of pumps and valves is passed over, as EPANET does.
    fn leaks(&self, lengths_m: &[f64]) -> Result<Vec<[f64; 2]>> {
        let mut leaks = vec![[0.0; 2]; lengths_m.len()];
        for line in self.sections.lines("LEAKAGE") {
            let link = self.link(line, 0)?;
            for (index, what) in [(1, "the leak area"), (2, "the expansion of leaks")] {
                line.needed(index, what)?;
                let per_hundred = line.not_negative(index, what, 0.0)?;
                if let Some(leak) = leaks.get_mut(link) {
                    leak[index - 1] =
                        per_hundred * 1e-6 * lengths_m[link] / self.options.units.length / 100.0;
                }
            }
        }
        Ok(leaks)
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

    pub(super) fn pumps(&mut self) -> Result<RecordBatch> {
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
    pub(super) fn setting_unit(&self, link: usize) -> f64 {
        match self.link_kinds[link] {
            "prv" | "psv" | "pbv" => self.options.units.pressure,
            "fcv" => self.options.units.flow,
            _ => 1.0,
        }
    }

    pub(super) fn valves(&mut self) -> Result<RecordBatch> {
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

    pub(super) fn vertices(&self) -> Result<RecordBatch> {
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
}
