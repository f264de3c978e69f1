//! Heads and flows at one moment by the global gradient algorithm (Todini and Pilati 1988).
//!
//! Each iteration solves `A H = F` for the heads, where `A` has `−p` for each link between two junctions and the sum of
//! its links' `p` on the diagonal, and `F` balances flows, then corrects each flow by `y − p ΔH`. When and in which order
//! statuses are looked at decides which of several balanced states is found, and follows the program whose results the
//! field compares with: EPANET 2.3 (Rossman et al. 2020, chapter 12).

use std::sync::Arc;

use super::headloss::{Coefficients, coefficients, demand, emitter, sign, valve};
use super::leakage;
use super::model::{LARGE, LinkKind, Model, PumpCurve, Status};
use super::rules::When;
use super::state::State;
use super::status::{link_statuses, valve_statuses};
use crate::cholesky::Symmetric;

/// What may be the rounding of a flow that is 0.
const ROUNDING: f64 = 1e-9;

/// How a step ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Balance {
    pub(super) iterations: u32,
    /// Sum of flow changes of the last iteration over the sum of flows.
    pub(super) error: f64,
    pub(super) converged: bool,
}

/// The equations, and what is kept from step to step.
pub(super) struct Solver {
    matrix: Symmetric,
    p: Vec<f64>,
    y: Vec<f64>,
    rhs: Vec<f64>,
    /// What flows in minus what flows out, by node.
    excess: Vec<f64>,
    relaxation: f64,
    largest_flow_change: f64,
}

/// A junction whose head nothing determines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Undetermined(pub(super) usize);

impl Solver {
    pub(super) fn new(model: &Model) -> Self {
        Self {
            matrix: Symmetric::new(Arc::clone(&model.layout.plan)),
            p: vec![0.0; model.links.len()],
            y: vec![0.0; model.links.len()],
            rhs: vec![0.0; model.junctions],
            excess: vec![0.0; model.nodes.len()],
            relaxation: 1.0,
            largest_flow_change: 0.0,
        }
    }

    /// Balances the network at the present demands, tank heads, statuses and settings.
    pub(super) fn solve(&mut self, model: &Model, state: &mut State) -> Result<Balance, Undetermined> {
        let options = &model.options;
        let mut next_check = options.check_frequency;
        self.relaxation = 1.0;
        let most = options.trials + options.extra_trials.unwrap_or(0);
        let mut balance = Balance { iterations: 1, error: f64::INFINITY, converged: false };
        while balance.iterations <= most {
            self.link_coefficients(model, state);
            self.matrix_coefficients(model, state);
            if let Err(node) = self.matrix.factor() {
                if Self::release_valve(model, state, node) {
                    continue;
                }
                return Err(Undetermined(node));
            }
            self.matrix.solve(&mut self.rhs);
            state.head[..model.junctions].copy_from_slice(&self.rhs);
            balance.error = self.update_flows(model, state);
            if balance.error.is_nan() {
                return Err(Undetermined(state.head.iter().position(|head| head.is_nan()).unwrap_or(0)));
            }
            self.relaxation = 1.0;
            let mut valve_changed = false;
            if options.damp_limit <= 0.0 {
                valve_changed = valve_statuses(model, state, &model.layout.valves);
            } else if balance.error <= options.damp_limit {
                self.relaxation = 0.6;
                valve_changed = valve_statuses(model, state, &model.layout.valves);
            }
            if self.has_converged(model, state, balance.error) {
                balance.converged = true;
                if balance.iterations > options.trials {
                    break;
                }
                let link_changed = link_statuses(model, state);
                let switched = switch_by_pressure(model, state);
                if !(valve_changed || link_changed || switched) {
                    break;
                }
                balance.converged = false;
                next_check = balance.iterations + options.check_frequency;
            } else if balance.iterations <= options.last_check && balance.iterations == next_check {
                link_statuses(model, state);
                next_check += options.check_frequency;
            }
            balance.iterations += 1;
        }
        balance.iterations = balance.iterations.min(most);
        for node in 0..model.junctions {
            state.demand[node] = state.delivered[node] + state.emitted[node];
        }
        for (leak, [fixed, variable]) in model.leaks.iter().zip(&state.leaked) {
            state.demand[leak.node] += fixed + variable;
        }
        Ok(balance)
    }

    fn link_coefficients(&mut self, model: &Model, state: &State) {
        for link in 0..model.links.len() {
            let Coefficients { p, y } =
                coefficients(model, state, link).unwrap_or(Coefficients { p: 0.0, y: self.y[link] });
            self.p[link] = p;
            self.y[link] = y;
        }
    }

    fn matrix_coefficients(&mut self, model: &Model, state: &State) {
        let (junctions, layout) = (model.junctions, &model.layout);
        self.matrix.clear();
        self.rhs.fill(0.0);
        self.excess.fill(0.0);
        for (index, link) in model.links.iter().enumerate() {
            let (p, y) = (self.p[index], self.y[index]);
            if p == 0.0 {
                continue;
            }
            self.excess[link.from] -= state.flow[index];
            self.excess[link.to] += state.flow[index];
            if let Some(place) = layout.between[index] {
                self.matrix.add(place, -p);
            }
            if link.from < junctions {
                self.matrix.add(layout.diagonal[link.from], p);
                self.rhs[link.from] += y;
            } else if link.to < junctions {
                self.rhs[link.to] += p * state.head[link.from];
            }
            if link.to < junctions {
                self.matrix.add(layout.diagonal[link.to], p);
                self.rhs[link.to] -= y;
            } else if link.from < junctions {
                self.rhs[link.from] += p * state.head[link.to];
            }
        }
        for &node in &layout.emitters {
            let (loss, slope) = emitter(model, state, node);
            self.matrix.add(layout.diagonal[node], 1.0 / slope);
            self.rhs[node] += (loss + model.nodes[node].elevation) / slope;
            self.excess[node] -= state.emitted[node];
        }
        if model.options.pressure_driven {
            for node in 0..junctions {
                if state.wanted[node] <= 0.0 {
                    continue;
                }
                let (loss, slope) = demand(model, state, node);
                if slope > 0.0 {
                    self.matrix.add(layout.diagonal[node], 1.0 / slope);
                    let base = model.nodes[node].elevation + model.options.minimum_pressure;
                    self.rhs[node] += (loss + base) / slope;
                }
            }
        }
        for (leak, &flows) in model.leaks.iter().zip(&state.leaked) {
            for (loss, slope) in leak.losses(flows).into_iter().filter(|(_, slope)| *slope > 0.0) {
                self.matrix.add(layout.diagonal[leak.node], 1.0 / slope);
                self.rhs[leak.node] += (loss + model.nodes[leak.node].elevation) / slope;
            }
            self.excess[leak.node] -= flows[0] + flows[1];
        }
        for node in 0..junctions {
            self.excess[node] -= state.delivered[node];
            self.rhs[node] += self.excess[node];
        }
        for &valve in &layout.valves {
            self.valve_coefficients(model, state, valve);
        }
    }

    /// Valves that keep a head or a flow.
    fn valve_coefficients(&mut self, model: &Model, state: &State, index: usize) {
        let link = &model.links[index];
        let (from, to) = (link.from, link.to);
        let Some(setting) = state.setting[index].filter(|_| link.kind.regulates()) else { return };
        let flow = state.flow[index];
        let active = state.status[index] == Status::Active;
        match link.kind {
            LinkKind::PressureReducing if active => {
                // The head downstream is given, and the flow is what is missing there.
                self.p[index] = 0.0;
                self.y[index] = flow + self.excess[to];
                self.rhs[to] += (model.nodes[to].elevation + setting) * LARGE;
                self.matrix.add(model.layout.diagonal[to], LARGE);
                if self.excess[to] < 0.0 {
                    self.rhs[from] += self.excess[to];
                }
                return;
            }
            LinkKind::PressureSustaining if active => {
                // The head upstream is given, and the flow is what is left over there.
                self.p[index] = 0.0;
                self.y[index] = flow - self.excess[from];
                self.rhs[from] += (model.nodes[from].elevation + setting) * LARGE;
                self.matrix.add(model.layout.diagonal[from], LARGE);
                if self.excess[from] > 0.0 {
                    self.rhs[to] += self.excess[from];
                }
                // A trace of a link keeps the matrix in one piece.
                if let Some(place) = model.layout.between[index] {
                    self.matrix.add(place, -1.0 / LARGE);
                }
                self.matrix.add(model.layout.diagonal[to], 1.0 / LARGE);
                return;
            }
            LinkKind::FlowControl if active => {
                // The network is cut; the flow is a demand on one side and a supply on the other.
                self.excess[from] -= setting;
                self.excess[to] += setting;
                self.p[index] = 1.0 / LARGE;
                self.y[index] = flow - setting;
                self.rhs[from] -= setting;
                self.rhs[to] += setting;
                self.add_link(model, index);
                return;
            }
            _ => {}
        }
        let Coefficients { p, y } = valve(model, state, index, link.minor_loss);
        self.p[index] = p;
        self.y[index] = y;
        self.add_link(model, index);
        self.rhs[from] += y - flow;
        self.rhs[to] -= y - flow;
    }

    fn add_link(&mut self, model: &Model, index: usize) {
        let (p, link, layout) = (self.p[index], &model.links[index], &model.layout);
        if let Some(place) = layout.between[index] {
            self.matrix.add(place, -p);
        }
        self.matrix.add(layout.diagonal[link.from], p);
        self.matrix.add(layout.diagonal[link.to], p);
    }

    /// Corrects all flows; the sum of corrections over the sum of flows.
    fn update_flows(&mut self, model: &Model, state: &mut State) -> f64 {
        let (mut sum, mut change, mut largest) = (0.0, 0.0, 0.0_f64);
        let mut count = |flow: f64, dq: f64| {
            sum += flow.abs();
            change += dq.abs();
            largest = largest.max(dq.abs());
        };
        state.demand[model.junctions..].fill(0.0);
        for (index, link) in model.links.iter().enumerate() {
            let drop = state.head[link.from] - state.head[link.to];
            let mut dq = (self.y[index] - self.p[index] * drop) * self.relaxation;
            if let Some(pump) = &link.pump
                && matches!(pump.curve, PumpCurve::ConstantPower { .. })
                && dq > state.flow[index] * (1.0 + ROUNDING)
            {
                // A pump of constant power cannot run backwards; a flow that is 0 but for rounding does not.
                dq = state.flow[index] / 2.0;
            }
            state.flow[index] -= dq;
            let flow = state.flow[index];
            count(flow, dq);
            if !state.status[index].is_closed() {
                if link.from >= model.junctions {
                    state.demand[link.from] -= flow;
                }
                if link.to >= model.junctions {
                    state.demand[link.to] += flow;
                }
            }
        }
        for &node in &model.layout.emitters {
            let (loss, slope) = emitter(model, state, node);
            let drop = state.head[node] - model.nodes[node].elevation;
            let dq = (loss - drop) / slope * self.relaxation;
            state.emitted[node] -= dq;
            count(state.emitted[node], dq);
        }
        if model.options.pressure_driven {
            for node in 0..model.junctions {
                let wanted = state.wanted[node];
                if wanted <= 0.0 {
                    continue;
                }
                let (loss, slope) = demand(model, state, node);
                let drop = state.head[node] - model.nodes[node].elevation - model.options.minimum_pressure;
                let mut dq = (loss - drop) / slope * self.relaxation;
                if dq.abs() > 0.4 * wanted {
                    dq = 0.4 * sign(dq) * wanted;
                }
                state.delivered[node] -= dq;
                count(state.delivered[node], dq);
            }
        }
        for (leak, flows) in model.leaks.iter().zip(&mut state.leaked) {
            let pressure = state.head[leak.node] - model.nodes[leak.node].elevation;
            let mut changed = 0.0;
            let losses = leak.losses(*flows);
            for (flow, (loss, slope)) in flows.iter_mut().zip(losses) {
                if slope > 0.0 {
                    let dq = (loss - pressure) / slope * self.relaxation;
                    *flow -= dq;
                    changed += dq;
                }
            }
            if changed != 0.0 {
                count(flows[0] + flows[1], changed);
            }
        }
        self.largest_flow_change = largest;
        if sum > model.options.accuracy { change / sum } else { change }
    }

    fn has_converged(&mut self, model: &Model, state: &State, error: f64) -> bool {
        let options = &model.options;
        if error > options.accuracy {
            return false;
        }
        if options.head_error_limit > 0.0 && self.head_error(model, state) > options.head_error_limit {
            return false;
        }
        if options.flow_change_limit > 0.0 && self.largest_flow_change > options.flow_change_limit {
            return false;
        }
        leakage::agree(model, state) && (!options.pressure_driven || pressure_driven_converged(model, state))
    }

    /// The largest difference between the head lost in a link and that between its ends.
    fn head_error(&mut self, model: &Model, state: &State) -> f64 {
        self.link_coefficients(model, state);
        let error = |index: usize| {
            let link = &model.links[index];
            if state.status[index].is_closed() || self.p[index] == 0.0 {
                return 0.0;
            }
            (state.head[link.from] - state.head[link.to] - self.y[index] / self.p[index]).abs()
        };
        (0..model.links.len()).map(error).fold(0.0, f64::max)
    }

    /// When a valve that keeps a head or flow makes the matrix singular, it gives up. Whether one did.
    fn release_valve(model: &Model, state: &mut State, node: usize) -> bool {
        let touching = model.layout.valves.iter().find(|&&valve| {
            let link = &model.links[valve];
            link.from == node || link.to == node
        });
        let Some(&valve) = touching else { return false };
        if state.status[valve] != Status::Active || !model.links[valve].kind.regulates() {
            return false;
        }
        state.status[valve] = if model.links[valve].kind == LinkKind::FlowControl {
            Status::CannotSupplyFlow
        } else {
            Status::CannotKeepPressure
        };
        true
    }
}

fn pressure_driven_converged(model: &Model, state: &State) -> bool {
    let options = &model.options;
    (0..model.junctions).all(|node| {
        let wanted = state.wanted[node];
        if wanted <= 0.0 {
            return true;
        }
        let pressure = state.head[node] - model.nodes[node].elevation;
        let share =
            (pressure - options.minimum_pressure) / (options.required_pressure - options.minimum_pressure);
        let expected = wanted * share.clamp(0.0, 1.0).powf(options.pressure_exponent);
        (expected - state.delivered[node]).abs() <= 1e-4
    })
}

/// Controls that look at the pressure of a junction. Whether one changed its link.
fn switch_by_pressure(model: &Model, state: &mut State) -> bool {
    let mut any = false;
    for control in &model.controls {
        let reached = match control.when {
            When::Below { node, head } => {
                node < model.junctions && state.head[node] <= head + model.options.head_tolerance
            }
            When::Above { node, head } => {
                node < model.junctions && state.head[node] >= head - model.options.head_tolerance
            }
            When::Time(_) | When::ClockTime(_) => false,
        };
        if !reached {
            continue;
        }
        let link = control.link;
        let kind = model.links[link].kind;
        let changes = match kind {
            LinkKind::CheckValve => false,
            LinkKind::Pipe => state.status[link] != control.status,
            LinkKind::Pump => state.setting[link] != control.setting,
            _ => {
                state.setting[link] != control.setting
                    || (state.setting[link].is_none() && state.status[link] != control.status)
            }
        };
        if changes {
            state.status[link] = control.status;
            if !kind.is_pipe() {
                state.setting[link] = control.setting;
            }
            any = true;
        }
    }
    any
}
