//! Extended period: from moment to moment, with tanks filling between them.
//!
//! The next moment is the earliest of: the hydraulic step, the next demand period, the next report, a tank full or empty,
//! a control reached, and, in steps of their own, a rule that acts. Each moment is balanced anew.

use std::sync::Arc;

use twinlake_contracts::{Error, Progress, Result};

use super::model::{LinkKind, Model, NO_FLOW, Status};
use super::quality::Transport;
use super::rules::{self, Look, When};
use super::solver::{Balance, Solver, Undetermined};
use super::state::State;
use super::warnings::{Warnings, Ways};

/// What is reported of a moment.
pub(super) struct Record {
    pub(super) time: i64,
    pub(super) head: Vec<f64>,
    pub(super) demand: Vec<f64>,
    /// By link, nothing in closed ones.
    pub(super) flow: Vec<f64>,
    /// By link, shared by moments in which nothing was switched.
    pub(super) status: Arc<Vec<Status>>,
    pub(super) setting: Arc<Vec<Option<f64>>>,
    /// By node, then by link; empty without quality.
    pub(super) node_quality: Vec<f64>,
    pub(super) link_quality: Vec<f64>,
    /// By junction: whether a way of open links joins it to a tank or reservoir.
    pub(super) joined: Arc<Vec<bool>>,
}

/// What a run gave.
pub(super) struct Course {
    pub(super) records: Vec<Record>,
    pub(super) warnings: Warnings,
    pub(super) steps: u64,
    pub(super) iterations: u64,
    pub(super) worst_error: f64,
    pub(super) converged: bool,
    /// Where a run that may not go on unbalanced stopped.
    pub(super) stopped_at: Option<i64>,
    /// What came in and was there, over what left and is there; 1 is perfect.
    pub(super) mass_balance: Option<f64>,
}

/// Runs the whole period.
pub(super) fn run(model: &Model, progress: Progress<'_>) -> Result<Course> {
    let times = model.options.times;
    let mut solver = Solver::new(model);
    let mut state = State::new(model);
    let mut transport = Transport::new(model);
    let mut course = Course {
        records: Vec::new(),
        warnings: Warnings::default(),
        steps: 0,
        iterations: 0,
        worst_error: 0.0,
        converged: true,
        stopped_at: None,
        mass_balance: None,
    };
    let mut ways = Ways::default();
    let (mut now, mut next_report_step, mut next_report) = (0, times.report_step, times.report_start);
    loop {
        let share = if times.duration > 0 { now as f64 / times.duration as f64 } else { 0.0 };
        if course.steps.is_multiple_of(16) && !progress(share.min(1.0), "balancing") {
            return Err(Error::permanent("water_network", format!("stopped on request at {now} s")));
        }
        set_demands(model, &mut state, now);
        act_on_controls(model, &mut state, now);
        let balance = solver.solve(model, &mut state).map_err(|at| undetermined(model, at, now))?;
        course.count(&balance);
        let joined = ways.joined(model, &state);
        course.warnings.look(model, &state, &joined, &balance, now);
        let stops = !balance.converged && model.options.extra_trials.is_none();
        if now >= next_report {
            next_report += times.report_step;
            let record = record(model, &state, transport.as_ref(), joined, now, course.records.last());
            course.records.push(record);
        }
        if stops {
            course.stopped_at = Some(now);
            break;
        }
        if now >= times.duration {
            break;
        }
        // Quality moves with the flows and demands of this moment, before tanks change.
        let at_start = transport.is_some().then(|| state.clone());
        let step = next_step(model, &mut state, now, next_report_step);
        if let (Some(transport), Some(at_start)) = (&mut transport, &at_start) {
            transport.advance(model, at_start, now, step);
        }
        now += step;
        if now >= next_report_step {
            next_report_step += times.report_step;
        }
    }
    course.mass_balance = transport.map(|transport| transport.mass_balance());
    Ok(course)
}

impl Course {
    fn count(&mut self, balance: &Balance) {
        self.steps += 1;
        self.iterations += u64::from(balance.iterations);
        self.worst_error = self.worst_error.max(balance.error);
        self.converged &= balance.converged;
    }
}

fn record(
    model: &Model,
    state: &State,
    transport: Option<&Transport>,
    joined: Arc<Vec<bool>>,
    time: i64,
    before: Option<&Record>,
) -> Record {
    let (node_quality, link_quality) = transport.map_or((Vec::new(), Vec::new()), |transport| {
        (transport.node_quality.clone(), transport.link_qualities(model))
    });
    let status = before.map(|before| &before.status).filter(|status| ***status == state.status);
    let setting = before.map(|before| &before.setting).filter(|setting| ***setting == state.setting);
    Record {
        time,
        head: state.head.clone(),
        demand: state.demand.clone(),
        flow: (0..state.flow.len()).map(|link| state.real_flow(link)).collect(),
        status: status.map_or_else(|| Arc::new(state.status.clone()), Arc::clone),
        setting: setting.map_or_else(|| Arc::new(state.setting.clone()), Arc::clone),
        node_quality,
        link_quality,
        joined,
    }
}

fn undetermined(model: &Model, Undetermined(node): Undetermined, now: i64) -> Error {
    let id = model.nodes.get(node).map_or("?", |node| node.id.as_str());
    Error::config(format!(
        "the equations are singular at node '{id}' after {now} s: nothing determines its head"
    ))
    .with_help(
        "look at the valves and closed links around it, and whether an open way leads to a tank or reservoir",
    )
}

/// Demands, reservoir heads and pump speeds of the present period of the patterns.
fn set_demands(model: &Model, state: &mut State, now: i64) {
    let times = model.options.times;
    let period = (now + times.pattern_start) / times.pattern_step;
    state.system_demand = 0.0;
    for (index, node) in model.nodes[..model.junctions].iter().enumerate() {
        let mut sum = 0.0;
        for &(base, pattern) in &node.demands {
            let demand = base * model.factor(pattern, period) * model.options.demand_multiplier;
            if demand > 0.0 {
                state.system_demand += demand;
            }
            sum += demand;
        }
        state.wanted[index] = sum;
        state.delivered[index] = sum;
    }
    for (tank, index) in model.tanks.iter().zip(model.junctions..) {
        if tank.is_reservoir() && tank.pattern.is_some() {
            state.head[index] = model.nodes[index].elevation * model.factor(tank.pattern, period);
        }
    }
    for (index, link) in model.links.iter().enumerate() {
        if let Some(pattern) = link.pump.as_ref().and_then(|pump| pump.pattern) {
            state.set(model, index, model.factor(Some(pattern), period));
        }
    }
}

/// Controls by time and by the level of a tank; those by the pressure of a junction act while balancing.
fn act_on_controls(model: &Model, state: &mut State, now: i64) {
    let clock = (now + model.options.times.clock_start).rem_euclid(86400);
    for control in &model.controls {
        let acts = match control.when {
            When::Time(time) => time == now,
            When::ClockTime(time) => time == clock,
            // A second's flow before the level is reached counts as reached.
            When::Below { node, head } | When::Above { node, head } if node >= model.junctions => {
                let tank = node - model.junctions;
                let (at, limit) = (model.volume_at(tank, state.head[node]), model.volume_at(tank, head));
                let second = state.demand[node].abs();
                if matches!(control.when, When::Below { .. }) {
                    at <= limit + second
                } else {
                    at >= limit - second
                }
            }
            When::Below { .. } | When::Above { .. } => false,
        };
        if !acts {
            continue;
        }
        let link = control.link;
        let kind = model.links[link].kind;
        let was = if state.status[link].is_closed() { Status::Closed } else { Status::Open };
        let setting = if kind.is_pipe() { state.setting[link] } else { control.setting };
        if kind == LinkKind::Pump && was == Status::Closed && control.status == Status::Open {
            state.restart(model, link);
        }
        if was != control.status || state.setting[link] != setting {
            state.status[link] = control.status;
            state.setting[link] = setting;
        }
    }
}

/// Rounded half away from zero.
fn round(value: f64) -> i64 {
    (value + 0.5_f64.copysign(value)).trunc() as i64
}

/// The time to the next moment; tanks are filled up to it.
fn next_step(model: &Model, state: &mut State, now: i64, next_report: i64) -> i64 {
    let times = model.options.times;
    let mut step = times.hydraulic_step;
    let mut no_later = |time: i64| {
        if time > 0 && time < step {
            step = time;
        }
    };
    let period = (now + times.pattern_start) / times.pattern_step + 1;
    no_later(period * times.pattern_step - now);
    no_later(next_report - now);
    step = tank_step(model, state, step);
    step = control_step(model, state, now, step);
    if model.rules.is_empty() {
        fill_tanks(model, state, step);
        step
    } else {
        rule_step(model, state, now, step)
    }
}

/// The time until a tank is full or empty.
fn tank_step(model: &Model, state: &State, mut step: i64) -> i64 {
    for (tank, node) in model.tanks.iter().zip(model.junctions..) {
        let (head, inflow) = (state.head[node], state.demand[node]);
        if tank.is_reservoir() || inflow.abs() <= NO_FLOW {
            continue;
        }
        let volume = state.volume[node - model.junctions];
        let missing = if inflow > 0.0 && head < tank.most_head {
            tank.most_volume - volume
        } else if inflow < 0.0 && head > tank.least_head {
            tank.least_volume - volume
        } else {
            continue;
        };
        let time = missing / inflow;
        if time.abs() > step as f64 + 1.0 {
            continue;
        }
        let time = round(time);
        if time > 0 && time < step {
            step = time;
        }
    }
    step
}

/// The time until a control that changes something acts.
fn control_step(model: &Model, state: &State, now: i64, mut step: i64) -> i64 {
    let clock = (now + model.options.times.clock_start).rem_euclid(86400);
    for control in &model.controls {
        let time = match control.when {
            When::Below { node, head } | When::Above { node, head } => {
                if node < model.junctions {
                    continue;
                }
                let (at, inflow) = (state.head[node], state.demand[node]);
                let rising = matches!(control.when, When::Above { .. }) && at < head && inflow > 0.0;
                let falling = matches!(control.when, When::Below { .. }) && at > head && inflow < 0.0;
                if inflow.abs() <= NO_FLOW || !(rising || falling) {
                    continue;
                }
                let tank = node - model.junctions;
                // Farther than any step: no need of a number that an integer may not hold.
                let time = (model.volume_at(tank, head) - state.volume[tank]) / inflow;
                if time > step as f64 + 1.0 {
                    continue;
                }
                round(time)
            }
            When::Time(time) => time - now,
            When::ClockTime(time) if time >= clock => time - clock,
            When::ClockTime(time) => 86400 - clock + time,
        };
        let link = control.link;
        let changes = (!model.links[link].kind.is_pipe() && state.setting[link] != control.setting)
            || state.status[link] != control.status;
        if time > 0 && time < step && changes {
            step = time;
        }
    }
    step
}

/// Looks at the rules every rule step, until one changes something or the step is over.
fn rule_step(model: &Model, state: &mut State, now: i64, step: i64) -> i64 {
    let every = model.options.times.rule_step;
    let end = now + step;
    let mut time = now;
    // The first look is at a multiple of the rule step.
    let mut ahead = (every - now % every).min(step);
    let mut usual = every.min(step);
    loop {
        time += ahead;
        fill_tanks(model, state, ahead);
        if rules::act(model, state, Look { from: time - ahead + 1, now: time }) > 0 {
            break;
        }
        usual = usual.min(end - time);
        ahead = usual;
        if usual <= 0 {
            break;
        }
    }
    time - now
}

/// Tank volumes and heads after so many seconds at the present inflow.
fn fill_tanks(model: &Model, state: &mut State, seconds: i64) {
    for (index, tank) in model.tanks.iter().enumerate() {
        let node = model.junctions + index;
        let inflow = state.demand[node];
        if tank.is_reservoir() || inflow.abs() <= NO_FLOW {
            continue;
        }
        let mut volume = state.volume[index] + inflow * seconds as f64;
        // A tank that would be full or empty within a second is.
        if volume + inflow >= tank.most_volume {
            volume = tank.most_volume;
        } else if volume - inflow <= tank.least_volume {
            volume = tank.least_volume;
        }
        state.volume[index] = volume;
        state.head[node] = model.head_at(index, volume);
    }
}
