//! Options of a run: the table `options`, over which parameters go.

use ahash::AHashMap;
use arrow::array::{Array, RecordBatch};
use serde_json::Value;
use twinlake_contracts::{Error, Parameters, Result};

use super::model::{M_PER_FT, M3_PER_FT3};
use crate::columns::Table;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Headloss {
    HazenWilliams,
    DarcyWeisbach,
    ChezyManning,
}

/// What is carried with the water.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Quality {
    None,
    Age,
    Chemical,
    /// Percent of water from this node.
    Trace(String),
}

/// Times in whole seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) duration: i64,
    pub(super) hydraulic_step: i64,
    pub(super) quality_step: i64,
    pub(super) rule_step: i64,
    pub(super) pattern_step: i64,
    pub(super) pattern_start: i64,
    pub(super) report_step: i64,
    pub(super) report_start: i64,
    pub(super) clock_start: i64,
}

/// All options, lengths in feet.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) headloss: Headloss,
    pub(super) times: Times,
    pub(super) demand_multiplier: f64,
    pub(super) default_pattern: String,
    pub(super) pressure_driven: bool,
    pub(super) minimum_pressure: f64,
    pub(super) required_pressure: f64,
    pub(super) pressure_exponent: f64,
    /// `h = k q^n` of emitters: the inverse of the exponent of pressure.
    pub(super) emitter_power: f64,
    pub(super) emitter_backflow: bool,
    /// ft²/s.
    pub(super) viscosity: f64,
    pub(super) diffusivity: f64,
    pub(super) accuracy: f64,
    pub(super) trials: u32,
    /// None: stop where a step does not converge.
    pub(super) extra_trials: Option<u32>,
    pub(super) check_frequency: u32,
    pub(super) last_check: u32,
    pub(super) damp_limit: f64,
    pub(super) head_tolerance: f64,
    pub(super) flow_tolerance: f64,
    pub(super) least_gradient: f64,
    pub(super) head_error_limit: f64,
    pub(super) flow_change_limit: f64,
    pub(super) quality: Quality,
    pub(super) quality_tolerance: f64,
    pub(super) bulk_order: f64,
    pub(super) tank_order: f64,
    pub(super) wall_order: f64,
    /// mg/L.
    pub(super) limiting_concentration: f64,
}

/// The options that a network is read with: with others it is another one.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reading {
    pub(super) headloss: Headloss,
    pub(super) default_pattern: String,
    pub(super) emitter_power: f64,
    pub(super) quality: Quality,
    pub(super) wall_order: f64,
}

/// What the table and the parameters say, by name.
struct Given<'a> {
    /// Number and text by name; of several the last counts.
    rows: AHashMap<&'a str, (Option<f64>, Option<&'a str>)>,
    parameters: &'a Parameters,
}

impl Given<'_> {
    /// What the table says.
    fn told(&self, name: &str) -> Option<f64> {
        self.rows.get(name)?.0
    }

    fn number(&self, name: &str, missing: f64) -> Result<f64> {
        let table = self.told(name).unwrap_or(missing);
        let value = match self.parameters.get(name) {
            None | Some(Value::Null) => table,
            Some(Value::Number(number)) => number.as_f64().unwrap_or(f64::NAN),
            Some(Value::String(text)) => text.trim().parse().unwrap_or(f64::NAN),
            Some(_) => f64::NAN,
        };
        if value.is_finite() && value >= 0.0 {
            Ok(value)
        } else {
            let shown = self.parameters.get(name).map_or_else(|| table.to_string(), Value::to_string);
            Err(Error::config(format!("{name} = {shown} must be a number, not negative")))
        }
    }

    fn positive(&self, name: &str, missing: f64) -> Result<f64> {
        let value = self.number(name, missing)?;
        if value > 0.0 { Ok(value) } else { Err(Error::config(format!("{name} = {value} must be above 0"))) }
    }

    fn count(&self, name: &str, missing: u32) -> Result<u32> {
        let value = self.number(name, f64::from(missing))?;
        if value.fract() == 0.0 && value <= 1e6 {
            Ok(value as u32)
        } else {
            Err(Error::config(format!("{name} = {value} must be a whole number")))
        }
    }

    /// Whole seconds.
    fn seconds(&self, name: &str, missing: i64) -> Result<i64> {
        let value = self.number(name, missing as f64)?;
        if value.fract() == 0.0 && value <= 1e12 {
            Ok(value as i64)
        } else {
            Err(Error::config(format!("{name} = {value} must be a whole number of seconds")))
        }
    }

    fn text(&self, name: &str, missing: &str) -> String {
        match self.parameters.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => {
                self.rows.get(name).and_then(|row| row.1).unwrap_or(missing).to_owned()
            }
            Some(value) => value.to_string(),
        }
    }
}

impl Options {
    pub(super) fn reading(&self) -> Reading {
        Reading {
            headloss: self.headloss,
            default_pattern: self.default_pattern.clone(),
            emitter_power: self.emitter_power,
            quality: self.quality.clone(),
            wall_order: self.wall_order,
        }
    }

    pub(super) fn read(batch: Option<&RecordBatch>, parameters: &Parameters) -> Result<Self> {
        let table = batch.map(|batch| Table::new("options", batch));
        let columns = match &table {
            Some(table) => Some((table.strings("name")?, table.numbers("number")?, table.strings("text")?)),
            None => None,
        };
        let mut given = Given { rows: AHashMap::new(), parameters };
        if let Some((names, numbers, texts)) = &columns {
            for (row, number) in numbers.iter().enumerate().filter(|(row, _)| names.is_valid(*row)) {
                let text = texts.is_valid(row).then(|| texts.value(row));
                let known = given.rows.entry(names.value(row)).or_default();
                *known = (number.or(known.0), text.or(known.1));
            }
        }
        let unknown = |name: &str, value: &str, known: &str| {
            Error::config(format!("{name} = '{value}' is unknown"))
                .with_help(format!("write one of: {known}"))
        };
        let headloss = match given.text("headloss", "hazen_williams").as_str() {
            "hazen_williams" => Headloss::HazenWilliams,
            "darcy_weisbach" => Headloss::DarcyWeisbach,
            "chezy_manning" => Headloss::ChezyManning,
            other => return Err(unknown("headloss", other, "hazen_williams, darcy_weisbach, chezy_manning")),
        };
        let pressure_driven = match given.text("demand_model", "demand_driven").as_str() {
            "demand_driven" => false,
            "pressure_driven" => true,
            other => return Err(unknown("demand_model", other, "demand_driven, pressure_driven")),
        };
        let quality = match given.text("quality", "none").as_str() {
            "none" => Quality::None,
            "age" => Quality::Age,
            "chemical" => Quality::Chemical,
            "trace" => Quality::Trace(given.text("trace_node", "")),
            other => return Err(unknown("quality", other, "none, age, chemical, trace")),
        };
        let minimum_pressure = given.number("minimum_pressure_m", 0.0)? / M_PER_FT;
        let required_pressure = given.number("required_pressure_m", 0.1)? / M_PER_FT;
        if required_pressure <= minimum_pressure {
            return Err(Error::config("required_pressure_m must be above minimum_pressure_m"));
        }
        Ok(Self {
            headloss,
            times: times(&given)?,
            demand_multiplier: given.number("demand_multiplier", 1.0)?,
            default_pattern: given.text("default_pattern", "1"),
            pressure_driven,
            minimum_pressure,
            required_pressure,
            pressure_exponent: given.positive("pressure_exponent", 0.5)?,
            emitter_power: 1.0 / given.positive("emitter_exponent", 0.5)?,
            emitter_backflow: given.number("emitter_backflow", 1.0)? != 0.0,
            viscosity: given.positive("viscosity_m2s", 1.1e-5 * M_PER_FT.powi(2))? / M_PER_FT.powi(2),
            diffusivity: given.number("diffusivity_m2s", 1.3e-8 * M_PER_FT.powi(2))? / M_PER_FT.powi(2),
            accuracy: given.positive("accuracy", 1e-3)?,
            trials: given.count("trials", 200)?,
            extra_trials: if given.told("extra_trials").is_some() {
                Some(given.count("extra_trials", 0)?)
            } else {
                None
            },
            check_frequency: given.count("check_frequency", 2)?,
            last_check: given.count("last_check", 10)?,
            damp_limit: given.number("damp_limit", 0.0)?,
            head_tolerance: given.number("head_tolerance_m", 5e-4 * M_PER_FT)? / M_PER_FT,
            flow_tolerance: given.number("flow_tolerance_m3s", 1e-4 * M3_PER_FT3)? / M3_PER_FT3,
            least_gradient: given.positive("least_gradient_sm2", 1e-7 * M_PER_FT / M3_PER_FT3)? * M3_PER_FT3
                / M_PER_FT,
            head_error_limit: given.number("head_error_limit_m", 0.0)? / M_PER_FT,
            flow_change_limit: given.number("flow_change_limit_m3s", 0.0)? / M3_PER_FT3,
            quality,
            quality_tolerance: given.number("quality_tolerance", 0.01)?,
            bulk_order: given.told("bulk_order").unwrap_or(1.0),
            tank_order: given.told("tank_order").unwrap_or(1.0),
            wall_order: given.number("wall_order", 1.0)?,
            limiting_concentration: given.number("limiting_concentration", 0.0)?,
        })
    }
}

/// Times with their defaults, which depend on one another as in EPANET.
fn times(given: &Given<'_>) -> Result<Times> {
    let or = |value: i64, other: i64| if value == 0 { other } else { value };
    let duration = given.seconds("duration_s", 0)?;
    let pattern_step = or(given.seconds("pattern_step_s", 3600)?, 3600);
    let report_step = or(given.seconds("report_step_s", 3600)?, pattern_step);
    let hydraulic_step =
        or(given.seconds("hydraulic_step_s", 3600)?, 3600).min(pattern_step).min(report_step);
    let report_start = given.seconds("report_start_s", 0)?;
    let tenth = (hydraulic_step / 10).max(1);
    Ok(Times {
        duration,
        hydraulic_step,
        quality_step: or(given.seconds("quality_step_s", 0)?, tenth).min(hydraulic_step),
        rule_step: or(given.seconds("rule_step_s", 0)?, tenth).min(hydraulic_step),
        pattern_step,
        pattern_start: given.seconds("pattern_start_s", 0)?,
        report_step,
        report_start: if report_start > duration { 0 } else { report_start },
        clock_start: given.seconds("clock_start_s", 0)?,
    })
}
