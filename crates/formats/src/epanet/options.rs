//! [OPTIONS] and [TIMES]: what holds for the whole network, and the units of everything else.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use twinlake_contracts::Result;

use super::lines::{Line, Sections, seconds, starts};

/// Litres in a cubic foot as the format's own program takes them; its rounded factors are part of what a file means.
pub(super) const M3_PER_FT3: f64 = 0.028_317;
pub(super) const M_PER_FT: f64 = 0.3048;
pub(super) const PSI_PER_FT: f64 = 0.4333;
const KPA_PER_PSI: f64 = 6.895;
const BAR_PER_PSI: f64 = 0.068_948;
const KW_PER_HP: f64 = 0.7457;
/// Kinematic viscosity of water and diffusivity of chlorine at 20 °C, ft²/s, to which multipliers refer.
const VISCOSITY_FT2S: f64 = 1.1e-5;
const DIFFUSIVITY_FT2S: f64 = 1.3e-8;

/// Flow units: name, how many are a cubic foot a second, whether lengths are metric.
const FLOW_UNITS: [(&str, f64, bool); 12] = [
    ("CFS", 1.0, false),
    ("GPM", 448.831, false),
    ("AFD", 1.9837, false),
    ("MGD", 0.64632, false),
    ("IMGD", 0.5382, false),
    ("LPS", 28.317, true),
    ("LPM", 1699.0, true),
    ("CMH", 101.94, true),
    ("CMD", 2446.6, true),
    ("MLD", 2.4466, true),
    ("CMS", 0.028_317, true),
    ("SI", 28.317, true),
];

/// What one unit of the file is in SI.
#[derive(Debug, Clone, Copy)]
pub(super) struct Units {
    pub(super) metric: bool,
    pub(super) flow: f64,
    pub(super) length: f64,
    pub(super) diameter: f64,
    /// Metres of water for a unit of pressure.
    pub(super) pressure: f64,
    pub(super) kilowatt: f64,
}

impl Units {
    pub(super) fn volume(&self) -> f64 {
        self.length.powi(3)
    }
}

/// Which formula gives the friction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Headloss {
    HazenWilliams,
    DarcyWeisbach,
    ChezyManning,
}

/// The options, those that other sections need by name, all others as rows of a table.
pub(super) struct Options {
    pub(super) units: Units,
    pub(super) headloss: Headloss,
    pub(super) emitter_exponent: f64,
    rows: Vec<(&'static str, Option<f64>, Option<String>)>,
}

impl Options {
    fn set(&mut self, name: &'static str, value: f64) {
        self.rows.retain(|row| row.0 != name);
        self.rows.push((name, Some(value), None));
    }

    fn set_text(&mut self, name: &'static str, text: impl Into<String>) {
        self.rows.retain(|row| row.0 != name);
        self.rows.push((name, None, Some(text.into())));
    }

    /// Adds an option found in another section.
    pub(super) fn add(&mut self, name: &'static str, value: f64) {
        self.set(name, value);
    }

    pub(super) fn read(sections: &Sections<'_>) -> Result<Self> {
        let lines = sections.lines("OPTIONS");
        let mut flow = ("GPM", 448.831, false);
        let mut pressure = None;
        let mut gravity = 1.0;
        for line in lines {
            if line.is(0, "UNIT") && line.words.len() > 1 {
                let word = line.needed(1, "the flow unit")?;
                flow = *FLOW_UNITS
                    .iter()
                    .find(|(name, ..)| starts(word, name))
                    .ok_or_else(|| line.error(1, format!("the flow unit '{word}' is unknown")))?;
            } else if line.is(0, "PRESSURE") && !line.is(1, "EXP") && line.words.len() > 1 {
                pressure = Some(line);
            } else if line.is(0, "SPEC") {
                gravity = line.positive(2, "the specific gravity", 1.0)?;
            }
        }
        let metric = flow.2;
        let length = if metric { 1.0 } else { M_PER_FT };
        let psi = M_PER_FT / (PSI_PER_FT * gravity);
        let pressure = match pressure {
            None if metric => 1.0,
            None => psi,
            Some(line) if line.is(1, "PSI") => psi,
            Some(line) if line.is(1, "KPA") => psi / KPA_PER_PSI,
            Some(line) if line.is(1, "BAR") => psi / BAR_PER_PSI,
            Some(line) if line.is(1, "METERS") => 1.0,
            Some(line) if line.is(1, "FEET") => M_PER_FT,
            Some(line) => return Err(line.error(1, "the pressure unit is unknown")),
        };
        let units = Units {
            metric,
            flow: M3_PER_FT3 / flow.1,
            length,
            diameter: if metric { 1e-3 } else { M_PER_FT / 12.0 },
            pressure,
            kilowatt: if metric { 1.0 } else { KW_PER_HP },
        };
        let mut options =
            Self { units, headloss: Headloss::HazenWilliams, emitter_exponent: 0.5, rows: Vec::new() };
        options.set_text("flow_units", flow.0);
        options.set("specific_gravity", gravity);
        options.set_text("default_pattern", "1");
        for line in lines {
            options.option(line)?;
        }
        for line in sections.lines("TIMES") {
            options.time(line)?;
        }
        options.check_pressures(lines)?;
        options.set_text(
            "headloss",
            match options.headloss {
                Headloss::HazenWilliams => "hazen_williams",
                Headloss::DarcyWeisbach => "darcy_weisbach",
                Headloss::ChezyManning => "chezy_manning",
            },
        );
        Ok(options)
    }

    pub(super) fn number(&self, name: &str) -> Option<f64> {
        self.rows.iter().find(|row| row.0 == name).and_then(|row| row.1)
    }

    /// Full demand needs at least a tenth of a unit of pressure more than none.
    fn check_pressures(&mut self, lines: &[Line<'_>]) -> Result<()> {
        let least = 0.1 * self.units.pressure;
        let minimum = self.number("minimum_pressure_m").unwrap_or(0.0);
        let required = self.number("required_pressure_m").unwrap_or(minimum + least);
        if required - minimum < least * (1.0 - 1e-9)
            && let Some(line) = lines.iter().find(|line| line.is(0, "REQ"))
        {
            return Err(
                line.error(2, "the required pressure must be at least 0.1 above the minimum pressure")
            );
        }
        self.set("required_pressure_m", required);
        Ok(())
    }

    fn option(&mut self, line: &Line<'_>) -> Result<()> {
        let units = self.units;
        let has = |count: usize| line.words.len() > count;
        if line.is(0, "UNIT")
            || line.is(0, "SPEC")
            || line.is(0, "MAP")
            || line.is(0, "VERI")
            || line.is(0, "SEGM")
        {
            return Ok(());
        }
        if line.is(0, "PRESSURE") && !line.is(1, "EXP") {
            return Ok(());
        }
        if line.is(0, "HEADL") {
            if has(1) {
                self.headloss = match () {
                    () if line.is(1, "H-W") => Headloss::HazenWilliams,
                    () if line.is(1, "D-W") => Headloss::DarcyWeisbach,
                    () if line.is(1, "C-M") => Headloss::ChezyManning,
                    () => return Err(line.error(1, "the headloss formula is none of H-W, D-W, C-M")),
                };
            }
        } else if line.is(0, "HYDR") {
            // Saved hydraulics of an earlier run: results come from the network alone.
        } else if line.is(0, "QUAL") {
            self.quality(line)?;
        } else if line.is(0, "UNBA") {
            if line.is(1, "CONT") {
                let extra =
                    if has(2) { line.not_negative(2, "the number of extra trials", 0.0)? } else { 0.0 };
                self.set("extra_trials", extra.trunc());
            } else if !line.is(1, "STOP") && has(1) {
                return Err(line.error(1, "neither STOP nor CONTINUE"));
            }
        } else if line.is(0, "PATT") {
            if let Some(pattern) = line.word(1) {
                self.set_text("default_pattern", pattern);
            }
        } else if line.is(0, "DEMAND") && line.is(1, "MODEL") {
            match () {
                () if line.is(2, "DDA") => self.set_text("demand_model", "demand_driven"),
                () if line.is(2, "PDA") => self.set_text("demand_model", "pressure_driven"),
                () => return Err(line.error(2, "the demand model is neither DDA nor PDA")),
            }
        } else if line.is(0, "BACK") {
            self.set("emitter_backflow", if line.is(2, "NO") { 0.0 } else { 1.0 });
        } else {
            self.option_number(line, units)?;
        }
        Ok(())
    }

    fn option_number(&mut self, line: &Line<'_>, units: Units) -> Result<()> {
        let two_words = ["EMIT", "DEMAND", "MINI", "REQ", "PRESSURE"].iter().any(|word| line.is(0, word));
        let at = if two_words { 2 } else { 1 };
        if line.words.len() <= at {
            return Ok(());
        }
        let value = line.number(at, "the value")?;
        let not_negative = || line.not_negative(at, "the value", 0.0);
        let positive = || line.positive(at, "the value", 1.0);
        // Small values are the thing itself, larger ones multiples of that of water.
        let ft2s = |limit: f64, unit: f64| {
            if value > limit {
                value * unit
            } else {
                value / if units.metric { M_PER_FT.powi(2) } else { 1.0 }
            }
        };
        match () {
            () if line.is(0, "TOLER") => self.set("quality_tolerance", not_negative()?),
            () if line.is(0, "DIFF") => {
                not_negative()?;
                self.set("diffusivity_m2s", ft2s(1e-4, DIFFUSIVITY_FT2S) * M_PER_FT.powi(2));
            }
            () if line.is(0, "VISC") => {
                positive()?;
                self.set("viscosity_m2s", ft2s(1e-3, VISCOSITY_FT2S) * M_PER_FT.powi(2));
            }
            () if line.is(0, "DAMPLIMIT") => self.set("damp_limit", value),
            () if line.is(0, "FLOWCHANGE") => self.set("flow_change_limit_m3s", not_negative()? * units.flow),
            () if line.is(0, "HEADERROR") => self.set("head_error_limit_m", not_negative()? * units.length),
            () if line.is(0, "MINI") => self.set("minimum_pressure_m", not_negative()? * units.pressure),
            () if line.is(0, "REQ") => self.set("required_pressure_m", not_negative()? * units.pressure),
            () if line.is(0, "PRESSURE") => self.set("pressure_exponent", not_negative()?),
            () if line.is(0, "TRIAL") => self.set("trials", positive()?.trunc()),
            () if line.is(0, "ACCU") => self.set("accuracy", positive()?.clamp(1e-5, 1e-1)),
            // These tolerances are in feet and cubic feet a second whatever the units of the file.
            () if line.is(0, "HTOL") => self.set("head_tolerance_m", positive()? * M_PER_FT),
            () if line.is(0, "QTOL") => self.set("flow_tolerance_m3s", positive()? * M3_PER_FT3),
            () if line.is(0, "RQTOL") => self.set("least_gradient_sm2", positive()? * M_PER_FT / M3_PER_FT3),
            () if line.is(0, "CHECKFREQ") => self.set("check_frequency", positive()?.trunc()),
            () if line.is(0, "MAXCHECK") => self.set("last_check", positive()?.trunc()),
            () if line.is(0, "EMIT") => {
                self.emitter_exponent = positive()?;
                self.set("emitter_exponent", value);
            }
            () if line.is(0, "DEMAND") => self.set("demand_multiplier", positive()?),
            () => return Err(line.error(0, "this option is unknown")),
        }
        Ok(())
    }

    fn quality(&mut self, line: &Line<'_>) -> Result<()> {
        match () {
            () if line.words.len() < 2 || line.is(1, "NONE") => self.set_text("quality", "none"),
            () if line.is(1, "AGE") => self.set_text("quality", "age"),
            () if line.is(1, "TRACE") => {
                self.set_text("quality", "trace");
                self.set_text("trace_node", line.needed(2, "the node to trace")?);
            }
            () => self.set_text("quality", "chemical"),
        }
        Ok(())
    }

    fn time(&mut self, line: &Line<'_>) -> Result<()> {
        if line.is(0, "STAT") || line.is(0, "MINI") {
            return Ok(());
        }
        let last = line.words.len() - 1;
        if last == 0 {
            return Err(line.error(0, "the time is missing"));
        }
        let (word, before) = (line.words[last], line.words[last - 1]);
        let seconds = seconds(word, None)
            .or_else(|| seconds(before, Some(word)))
            .ok_or_else(|| line.error(last, format!("'{word}' is not a time")))?;
        let seconds = (seconds + 0.5).trunc();
        let name = match () {
            () if line.is(0, "DURA") => "duration_s",
            () if line.is(0, "HYDR") => "hydraulic_step_s",
            () if line.is(0, "QUAL") => "quality_step_s",
            () if line.is(0, "RULE") => "rule_step_s",
            () if line.is(0, "PATT") && line.is(1, "TIME") => "pattern_step_s",
            () if line.is(0, "PATT") && line.is(1, "STAR") => "pattern_start_s",
            () if line.is(0, "REPO") && line.is(1, "TIME") => "report_step_s",
            () if line.is(0, "REPO") && line.is(1, "STAR") => "report_start_s",
            () if line.is(0, "STAR") => "clock_start_s",
            () => return Err(line.error(0, "this time is unknown")),
        };
        let seconds = if name == "clock_start_s" { seconds % 86400.0 } else { seconds };
        self.set(name, seconds);
        Ok(())
    }

    /// The table `options`: name, number, text.
    pub(super) fn table(&self) -> Result<RecordBatch> {
        let names = StringArray::from_iter_values(self.rows.iter().map(|row| row.0));
        let numbers: Float64Array = self.rows.iter().map(|row| row.1).collect();
        let texts: StringArray = self.rows.iter().map(|row| row.2.clone()).collect();
        Ok(RecordBatch::try_from_iter_with_nullable([
            ("name", Arc::new(names) as ArrayRef, false),
            ("number", Arc::new(numbers) as ArrayRef, true),
            ("text", Arc::new(texts) as ArrayRef, true),
        ])?)
    }
}
