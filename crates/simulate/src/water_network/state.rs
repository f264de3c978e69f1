//! Heads, flows, statuses and tank volumes at one moment.

use std::f64::consts::PI;

use super::leakage::START_FLOW;
use super::model::{LinkKind, Model, NO_FLOW, PumpCurve, Status};

/// The state of the whole network, in the solver's units.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) head: Vec<f64>,
    /// What leaves at a junction, what flows into a tank.
    pub(super) demand: Vec<f64>,
    /// By junction: what is wanted, what is delivered, what goes out of the emitter.
    pub(super) wanted: Vec<f64>,
    pub(super) delivered: Vec<f64>,
    pub(super) emitted: Vec<f64>,
    /// By leak of the model: out of fixed and out of growing areas.
    pub(super) leaked: Vec<[f64; 2]>,
    pub(super) flow: Vec<f64>,
    pub(super) status: Vec<Status>,
    pub(super) setting: Vec<Option<f64>>,
    /// By tank.
    pub(super) volume: Vec<f64>,
    /// Sum of all positive demands.
    pub(super) system_demand: f64,
}

impl State {
    pub(super) fn new(model: &Model) -> Self {
        let nodes = model.nodes.len();
        let mut head = vec![0.0; nodes];
        for (tank, head) in model.tanks.iter().zip(&mut head[model.junctions..]) {
            *head = tank.initial_head;
        }
        let emits = |node: &super::model::Node| if node.emitter > 0.0 { 1.0 } else { 0.0 };
        let mut state = Self {
            head,
            demand: vec![0.0; nodes],
            wanted: vec![0.0; model.junctions],
            delivered: vec![0.0; model.junctions],
            emitted: model.nodes[..model.junctions].iter().map(emits).collect(),
            leaked: model
                .leaks
                .iter()
                .map(|leak| [leak.fixed, leak.variable].map(|it| if it > 0.0 { START_FLOW } else { 0.0 }))
                .collect(),
            flow: vec![NO_FLOW; model.links.len()],
            status: model.links.iter().map(|link| link.status).collect(),
            setting: model.links.iter().map(|link| link.setting).collect(),
            volume: model.tanks.iter().map(|tank| tank.initial_volume).collect(),
            system_demand: 0.0,
        };
        for (index, link) in model.links.iter().enumerate() {
            if link.kind.regulates() && link.setting.is_some() {
                state.status[index] = Status::Active;
            }
            if !state.status[index].is_closed() {
                state.flow[index] = match &link.pump {
                    Some(pump) => state.setting[index].unwrap_or(1.0) * pump.start_flow,
                    None => PI * link.diameter * link.diameter / 4.0,
                };
            }
        }
        state
    }

    /// What flows, nothing in closed links.
    pub(super) fn real_flow(&self, link: usize) -> f64 {
        if self.status[link].is_closed() { 0.0 } else { self.flow[link] }
    }

    /// A constant-power pump that starts again needs a flow to start from.
    pub(super) fn restart(&mut self, model: &Model, link: usize) {
        if let Some(pump) = &model.links[link].pump
            && matches!(pump.curve, PumpCurve::ConstantPower { .. })
        {
            self.flow[link] = pump.start_flow;
        }
    }

    /// Opens or closes for good: a pump at full or no speed, a valve without setting.
    pub(super) fn open_or_close(&mut self, model: &Model, link: usize, open: bool) {
        let kind = model.links[link].kind;
        if kind == LinkKind::Pump {
            self.setting[link] = Some(if open { 1.0 } else { 0.0 });
            if open && self.status[link] == Status::Closed {
                self.restart(model, link);
            }
        } else if kind.is_valve() && kind != LinkKind::GeneralPurpose {
            self.setting[link] = None;
        }
        self.status[link] = if open { Status::Open } else { Status::Closed };
    }

    /// Gives a link a setting, which may open it.
    pub(super) fn set(&mut self, model: &Model, link: usize, setting: f64) {
        let closed = self.status[link].is_closed();
        match model.links[link].kind {
            LinkKind::Pump => {
                if setting > 0.0 && closed {
                    self.restart(model, link);
                    self.status[link] = Status::Open;
                }
                if setting == 0.0 && !closed {
                    self.status[link] = Status::Closed;
                }
            }
            LinkKind::FlowControl => self.status[link] = Status::Active,
            _ => {
                if self.setting[link].is_none() && closed {
                    self.status[link] = Status::Open;
                }
            }
        }
        self.setting[link] = Some(setting);
    }
}
