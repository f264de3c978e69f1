//! Which links open, close or regulate, judged by heads and flows.

use super::model::{BIG, LinkKind, Model, PumpCurve, Status, TINY};
use super::state::State;

/// Pressure-keeping valves. Whether one changed.
pub(super) fn valve_statuses(model: &Model, state: &mut State, valves: &[usize]) -> bool {
    let mut changed = false;
    for &index in valves {
        let link = &model.links[index];
        let Some(setting) = state.setting[index] else { continue };
        let before = state.status[index];
        let heads = (state.head[link.from], state.head[link.to]);
        let after = match link.kind {
            LinkKind::PressureReducing => {
                reducing(model, state, index, model.nodes[link.to].elevation + setting, heads)
            }
            LinkKind::PressureSustaining => {
                sustaining(model, state, index, model.nodes[link.from].elevation + setting, heads)
            }
            _ => continue,
        };
        state.status[index] = after;
        changed |= before != after;
    }
    changed
}

fn reducing(
    model: &Model,
    state: &State,
    index: usize,
    kept: f64,
    (upstream, downstream): (f64, f64),
) -> Status {
    let options = &model.options;
    let (flow, tolerance) = (state.flow[index], options.head_tolerance);
    let open_loss = model.links[index].minor_loss * flow * flow;
    let backwards = flow < -options.flow_tolerance;
    match state.status[index] {
        Status::Active | Status::Open | Status::CannotKeepPressure if backwards => Status::Closed,
        Status::Active if upstream - open_loss < kept - tolerance => Status::Open,
        Status::Open if downstream >= kept + tolerance => Status::Active,
        Status::Closed if upstream >= kept + tolerance && downstream < kept - tolerance => Status::Active,
        Status::Closed if upstream < kept - tolerance && upstream > downstream + tolerance => Status::Open,
        other => other,
    }
}

fn sustaining(
    model: &Model,
    state: &State,
    index: usize,
    kept: f64,
    (upstream, downstream): (f64, f64),
) -> Status {
    let options = &model.options;
    let (flow, tolerance) = (state.flow[index], options.head_tolerance);
    let open_loss = model.links[index].minor_loss * flow * flow;
    let backwards = flow < -options.flow_tolerance;
    let downhill = upstream > downstream + tolerance;
    match state.status[index] {
        Status::Active | Status::Open | Status::CannotKeepPressure if backwards => Status::Closed,
        Status::Active if downstream + open_loss > kept + tolerance => Status::Open,
        Status::Open if upstream < kept - tolerance => Status::Active,
        Status::Closed if downstream > kept + tolerance && downhill => Status::Open,
        Status::Closed if upstream >= kept + tolerance && downhill => Status::Active,
        other => other,
    }
}

/// Check valves, pumps, flow control valves, and pipes at full or empty tanks. Whether one changed.
pub(super) fn link_statuses(model: &Model, state: &mut State) -> bool {
    let mut changed = false;
    for (index, link) in model.links.iter().enumerate() {
        let before = state.status[index];
        let drop = state.head[link.from] - state.head[link.to];
        let flow = state.flow[index];
        if matches!(before, Status::CannotLift | Status::ClosedForNow) {
            state.status[index] = Status::Open;
        }
        match link.kind {
            LinkKind::CheckValve => state.status[index] = check_valve(model, state.status[index], drop, flow),
            LinkKind::Pump
                if state.status[index] >= Status::Open && state.setting[index].unwrap_or(0.0) > 0.0 =>
            {
                state.status[index] = pump(model, state, index, -drop);
            }
            LinkKind::FlowControl if state.setting[index].is_some() => {
                state.status[index] = flow_control(model, state, index, before, drop);
            }
            _ => {}
        }
        close_at_tank(model, state, index, link.from, flow);
        close_at_tank(model, state, index, link.to, -flow);
        changed |= before != state.status[index];
    }
    changed
}

fn check_valve(model: &Model, status: Status, drop: f64, flow: f64) -> Status {
    let options = &model.options;
    let backwards = flow < -options.flow_tolerance;
    if drop.abs() > options.head_tolerance {
        if drop < -options.head_tolerance || backwards { Status::Closed } else { Status::Open }
    } else if backwards {
        Status::Closed
    } else {
        status
    }
}

fn pump(model: &Model, state: &State, index: usize, gain: f64) -> Status {
    let Some(pump) = &model.links[index].pump else { return state.status[index] };
    let speed = state.setting[index].unwrap_or(0.0);
    let most = if matches!(pump.curve, PumpCurve::ConstantPower { .. }) {
        if state.flow[index] < TINY {
            return Status::ClosedForNow;
        }
        BIG
    } else {
        speed * speed * pump.most_head
    };
    if gain > most + model.options.head_tolerance { Status::CannotLift } else { Status::Open }
}

fn flow_control(model: &Model, state: &State, index: usize, before: Status, drop: f64) -> Status {
    let options = &model.options;
    let flow = state.flow[index];
    let setting = state.setting[index].unwrap_or(0.0);
    if drop < -options.head_tolerance || flow < -options.flow_tolerance {
        return Status::CannotSupplyFlow;
    }
    match before {
        Status::CannotSupplyFlow if flow >= setting => Status::Active,
        // An active valve cannot lose less than an open one.
        Status::Active if drop / (flow * flow) < model.links[index].minor_loss => Status::CannotSupplyFlow,
        other => other,
    }
}

/// Nothing flows into a full tank or out of an empty one. `outflow` is what leaves the node through the link.
fn close_at_tank(model: &Model, state: &mut State, index: usize, node: usize, outflow: f64) {
    if state.status[index].is_closed() {
        return;
    }
    let Some(tank) = model.tank(node).filter(|tank| !tank.is_reservoir()) else { return };
    let head = state.head[node];
    let full = head >= tank.most_head && !tank.can_overflow && outflow < 0.0;
    let empty = head <= tank.least_head && outflow > 0.0;
    if full || empty {
        state.status[index] = Status::ClosedForNow;
    }
}
