//! What of a balanced state is not as it should be, by element and time.

use std::collections::HashMap;
use std::sync::Arc;

use super::model::{LinkKind, Model, Status};
use super::solver::Balance;
use super::state::State;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The iterations did not reach the accuracy; of the network as a whole.
    Unbalanced,
    /// A junction with a demand is below the pressure of the air; metres.
    NegativePressure,
    /// No open way leads from a tank or reservoir to the junction.
    Disconnected,
    /// The pump would have to lift higher than it can.
    PumpCannotLift,
    /// The flow is beyond the end of the pump's curve; m³/s.
    PumpBeyondCurve,
    /// A valve cannot supply its flow.
    ValveCannotSupplyFlow,
    /// A valve cannot keep its pressure.
    ValveCannotKeepPressure,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Unbalanced => "unbalanced",
            Self::NegativePressure => "negative_pressure",
            Self::Disconnected => "disconnected",
            Self::PumpCannotLift => "pump_cannot_lift",
            Self::PumpBeyondCurve => "pump_beyond_curve",
            Self::ValveCannotSupplyFlow => "valve_cannot_supply_flow",
            Self::ValveCannotKeepPressure => "valve_cannot_keep_pressure",
        }
    }
}

/// A thing that was wrong from one moment to another.
#[derive(Debug, Clone)]
pub(super) struct Warning {
    pub(super) kind: Kind,
    /// Node or link by index, by kind; none for the network.
    pub(super) element: Option<usize>,
    pub(super) from: i64,
    pub(super) until: i64,
    /// The worst value, in the solver's units.
    pub(super) value: Option<f64>,
}

/// All warnings, in the order in which they began.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    pub(super) all: Vec<Warning>,
    open: HashMap<(Kind, Option<usize>), usize>,
}

/// Which junctions an open way joins to a tank or reservoir; found anew when a link opens or closes.
#[derive(Debug, Default)]
pub(super) struct Ways {
    closed: Vec<bool>,
    joined: Arc<Vec<bool>>,
}

impl Ways {
    pub(super) fn joined(&mut self, model: &Model, state: &State) -> Arc<Vec<bool>> {
        let closed = || state.status.iter().map(|status| status.is_closed());
        if !closed().eq(self.closed.iter().copied()) {
            self.closed = closed().collect();
            self.joined = Arc::new(flood(model, &self.closed));
        }
        Arc::clone(&self.joined)
    }
}

fn flood(model: &Model, closed: &[bool]) -> Vec<bool> {
    let mut neighbours: Vec<Vec<usize>> = vec![Vec::new(); model.nodes.len()];
    for (link, _) in model.links.iter().zip(closed).filter(|(_, closed)| !**closed) {
        neighbours[link.from].push(link.to);
        neighbours[link.to].push(link.from);
    }
    let mut joined = vec![false; model.nodes.len()];
    joined[model.junctions..].fill(true);
    let mut open: Vec<usize> = (model.junctions..model.nodes.len()).collect();
    while let Some(node) = open.pop() {
        for &next in &neighbours[node] {
            if !joined[next] {
                joined[next] = true;
                open.push(next);
            }
        }
    }
    joined.truncate(model.junctions);
    joined
}

impl Warnings {
    pub(super) fn look(
        &mut self,
        model: &Model,
        state: &State,
        joined: &[bool],
        balance: &Balance,
        now: i64,
    ) {
        let mut seen: HashMap<(Kind, Option<usize>), usize> = HashMap::new();
        let mut add = |kind: Kind, element: Option<usize>, value: Option<f64>| {
            let key = (kind, element);
            let place = if let Some(&place) = self.open.get(&key) {
                let warning = &mut self.all[place];
                warning.until = now;
                let worst = if kind == Kind::NegativePressure { f64::min } else { f64::max };
                warning.value = match (warning.value, value) {
                    (Some(before), Some(value)) => Some(worst(before, value)),
                    (before, value) => before.or(value),
                };
                place
            } else {
                self.all.push(Warning { kind, element, from: now, until: now, value });
                self.all.len() - 1
            };
            seen.insert(key, place);
        };
        if !balance.converged {
            add(Kind::Unbalanced, None, Some(balance.error));
        }
        for (node, &joined) in joined.iter().enumerate() {
            let pressure = state.head[node] - model.nodes[node].elevation;
            if !joined {
                add(Kind::Disconnected, Some(node), None);
            } else if pressure < 0.0 && state.demand[node] > 0.0 {
                add(Kind::NegativePressure, Some(node), Some(pressure));
            }
        }
        for (index, link) in model.links.iter().enumerate() {
            match (link.kind, state.status[index]) {
                (_, Status::CannotLift) => add(Kind::PumpCannotLift, Some(index), None),
                (_, Status::CannotSupplyFlow) => add(Kind::ValveCannotSupplyFlow, Some(index), None),
                (_, Status::CannotKeepPressure) => add(Kind::ValveCannotKeepPressure, Some(index), None),
                (LinkKind::Pump, status) if !status.is_closed() => {
                    let speed = state.setting[index].unwrap_or(0.0);
                    let most = link.pump.as_ref().map_or(f64::INFINITY, |pump| pump.most_flow);
                    if state.flow[index] > speed * most {
                        add(Kind::PumpBeyondCurve, Some(index), Some(state.flow[index]));
                    }
                }
                _ => {}
            }
        }
        self.open = seen;
    }
}
