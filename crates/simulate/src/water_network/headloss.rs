//! Head loss of each link at its flow, and its slope.
//!
//! The solver wants for each link `p = 1 / h'(q)` and `y = h(q) / h'(q)`. Where the slope is too small to divide by, a
//! line takes the place of the curve; where nothing flows, a resistance of 1e8.

use std::f64::consts::PI;

use super::model::{LARGE, Link, LinkKind, Model, PumpCurve, SMALL, TINY, line_through};
use super::options::{Headloss, Options};
use super::state::State;

/// `p` and `y` of a link.
#[derive(Debug, Clone, Copy)]
pub(super) struct Coefficients {
    pub(super) p: f64,
    pub(super) y: f64,
}

impl Coefficients {
    fn of(loss: f64, slope: f64) -> Self {
        Self { p: 1.0 / slope, y: loss / slope }
    }

    /// As good as closed.
    fn closed(flow: f64) -> Self {
        Self { p: 1.0 / LARGE, y: flow }
    }

    /// As good as without resistance.
    fn free(flow: f64) -> Self {
        Self { p: 1.0 / SMALL, y: flow }
    }
}

/// The coefficients of a link, None for valves that the solver treats by their status.
#[inline]
pub(super) fn coefficients(model: &Model, state: &State, index: usize) -> Option<Coefficients> {
    let link = &model.links[index];
    let flow = state.flow[index];
    Some(match link.kind {
        LinkKind::Pipe | LinkKind::CheckValve => {
            if state.status[index].is_closed() {
                Coefficients::closed(flow)
            } else {
                pipe(&model.options, link, flow)
            }
        }
        LinkKind::Pump => pump(model, state, index),
        LinkKind::PressureBreaker => {
            let drop = state.setting[index].unwrap_or(0.0);
            if drop == 0.0 || link.minor_loss * flow * flow > drop {
                valve(model, state, index, link.minor_loss)
            } else {
                Coefficients { p: LARGE, y: drop * LARGE }
            }
        }
        LinkKind::Throttle => {
            let loss = state.setting[index].map(|setting| 0.02517 * setting / link.diameter.powi(4));
            valve(model, state, index, loss.unwrap_or(link.minor_loss))
        }
        LinkKind::Positional => {
            let loss = state.setting[index].map(|percent| positional(model, link, percent));
            valve(model, state, index, loss.unwrap_or(link.minor_loss))
        }
        LinkKind::GeneralPurpose => match link.curve {
            Some(curve) if !state.status[index].is_closed() => {
                let size = flow.abs().max(TINY);
                let (slope, intercept) = line_through(&model.curves[curve], size);
                let slope = slope.max(TINY);
                Coefficients { p: 1.0 / slope, y: (intercept / slope + size) * sign(flow) }
            }
            _ => valve(model, state, index, link.minor_loss),
        },
        LinkKind::PressureReducing | LinkKind::PressureSustaining | LinkKind::FlowControl => {
            if state.setting[index].is_some() {
                return None;
            }
            valve(model, state, index, link.minor_loss)
        }
    })
}

/// −1 below 0, else 1.
pub(super) fn sign(value: f64) -> f64 {
    if value < 0.0 { -1.0 } else { 1.0 }
}

#[inline]
fn pipe(options: &Options, link: &Link, flow: f64) -> Coefficients {
    let size = flow.abs();
    let exponent = match options.headloss {
        Headloss::DarcyWeisbach => return darcy_weisbach(options, link, flow),
        Headloss::HazenWilliams => 1.852,
        Headloss::ChezyManning => 2.0,
    };
    let mut slope = match options.headloss {
        Headloss::ChezyManning => exponent * link.resistance * size,
        _ => exponent * link.resistance * size.powf(exponent - 1.0),
    };
    if slope < options.least_gradient {
        slope = options.least_gradient / exponent;
        let loss = slope * size;
        return with_minor_loss(loss, slope, link, flow, size);
    }
    with_minor_loss(slope * size / exponent, slope, link, flow, size)
}

#[inline]
fn with_minor_loss(loss: f64, slope: f64, link: &Link, flow: f64, size: f64) -> Coefficients {
    let loss = (loss + link.minor_loss * size * size) * sign(flow);
    Coefficients::of(loss, slope + 2.0 * link.minor_loss * size)
}

/// Darcy-Weisbach: Hagen-Poiseuille to a Reynolds number of 2000, Swamee and Jain (1976) from 4000, between them the
/// cubic of Dunlop (1991).
fn darcy_weisbach(options: &Options, link: &Link, flow: f64) -> Coefficients {
    let size = flow.abs();
    let viscous = options.viscosity * link.diameter;
    if size <= 500.0 * PI * viscous {
        let resistance = 16.0 * PI * viscous * link.resistance;
        let loss = flow * (resistance + link.minor_loss * size);
        return Coefficients::of(loss, resistance + 2.0 * link.minor_loss * size);
    }
    let (friction, slope) = friction_factor(size, link.roughness / link.diameter, viscous);
    let resistance = friction * link.resistance + link.minor_loss;
    let loss = resistance * size * flow;
    Coefficients::of(loss, 2.0 * resistance * size + slope * link.resistance * size * size)
}

/// Friction factor and its slope over flow, beyond a Reynolds number of 2000.
fn friction_factor(flow: f64, roughness: f64, viscous: f64) -> (f64, f64) {
    // −2 / ln 10 turns a natural logarithm into −2 log₁₀; 5.74 (π/4)^0.9 is Swamee and Jain's 5.74 / Re^0.9 over
    // `flow / viscous`, which is Re π/4.
    let of_log = -2.0 / std::f64::consts::LN_10;
    let reduced = flow / viscous;
    if reduced >= 1000.0 * PI {
        let smooth = 5.74 * (PI / 4.0).powf(0.9) / reduced.powf(0.9);
        let inside = roughness / 3.7 + smooth;
        let root = of_log * inside.ln();
        let friction = 1.0 / (root * root);
        return (friction, 1.8 * friction * smooth * of_log / inside / root / flow);
    }
    let at_4000 = 5.74 / 4000.0_f64.powf(0.9);
    let inside = roughness / 3.7 + at_4000;
    let root = of_log * inside.ln();
    let fa = 1.0 / (root * root);
    let fb = (2.0 + 2.0 * 0.9 * of_log * at_4000 / (inside * root)) * fa;
    let r = reduced / (500.0 * PI);
    let x1 = 7.0 * fa - fb;
    let x2 = 0.128 - 17.0 * fa + 2.5 * fb;
    let x3 = -0.128 + 13.0 * fa - 2.0 * fb;
    let x4 = 0.032 - 3.0 * fa + 0.5 * fb;
    let friction = x1 + r * (x2 + r * (x3 + r * x4));
    (friction, (x2 + r * (2.0 * x3 + 3.0 * r * x4)) / viscous / (500.0 * PI))
}

fn pump(model: &Model, state: &State, index: usize) -> Coefficients {
    let flow = state.flow[index];
    let speed = state.setting[index].unwrap_or(0.0);
    let Some(pump) = &model.links[index].pump else { return Coefficients::closed(flow) };
    if state.status[index].is_closed() || speed == 0.0 {
        return Coefficients::closed(flow);
    }
    let size = flow.abs();
    // A pump loses what it gains: its head is negative, and falls with speed by the affinity laws.
    match pump.curve {
        PumpCurve::Points { curve } => {
            let (slope, intercept) = line_through(&model.curves[curve], size / speed);
            let slope = -slope * speed;
            Coefficients::of(-intercept * speed * speed + slope * flow, slope)
        }
        PumpCurve::ConstantPower { r } => {
            let r = r * speed.powi(3);
            let slope = r / size / size;
            if slope > LARGE {
                Coefficients::closed(flow)
            } else if slope < SMALL {
                Coefficients::free(flow)
            } else {
                Coefficients::of(-r / flow, slope)
            }
        }
        PumpCurve::Power { shutoff, r, n } => {
            let shutoff = -shutoff * speed * speed;
            let n = if (n - 1.0).abs() < TINY { 1.0 } else { n };
            let r = r * speed.powf(2.0 - n);
            if n == 1.0 {
                return Coefficients::of(shutoff + r * flow, r);
            }
            let slope = n * r * size.powf(n - 1.0);
            if slope < model.options.least_gradient {
                let slope = model.options.least_gradient;
                Coefficients::of(shutoff + slope * flow, slope)
            } else {
                Coefficients::of(shutoff + slope * flow / n, slope)
            }
        }
    }
}

/// A valve by its minor loss, or closed.
pub(super) fn valve(model: &Model, state: &State, index: usize, minor_loss: f64) -> Coefficients {
    let flow = state.flow[index];
    if state.status[index].is_closed() {
        return Coefficients::closed(flow);
    }
    if minor_loss <= 0.0 {
        return Coefficients::free(flow);
    }
    let slope = 2.0 * minor_loss * flow.abs();
    let least = model.options.least_gradient;
    if slope < least {
        Coefficients::of(flow * least / 2.0, least / 2.0)
    } else {
        Coefficients::of(flow * slope / 2.0, slope)
    }
}

/// The loss coefficient of a valve that is open by so many percent: its flow coefficient falls by its curve, or in
/// proportion.
fn positional(model: &Model, link: &Link, percent: f64) -> f64 {
    if percent >= 100.0 {
        return link.minor_loss;
    }
    if percent <= 0.0 {
        return LARGE;
    }
    let ratio = match link.curve.map(|curve| &model.curves[curve]) {
        Some(points) if points.len() > 1 => {
            let (first, last) = (points[0], points[points.len() - 1]);
            if percent < first.0 {
                percent / first.0 * first.1
            } else if percent > last.0 {
                last.1 + (percent - last.0) / (100.0 - last.0) * (100.0 - last.1)
            } else {
                let (slope, intercept) = line_through(points, percent);
                intercept + slope * percent
            }
        }
        _ => percent,
    };
    let ratio = (ratio / 100.0).clamp(SMALL, 1.0);
    (link.minor_loss / (ratio * ratio)).min(LARGE)
}

/// A barrier that keeps a flow above a bound (`beyond` is how far it is above) without a kink.
fn lower_barrier(beyond: f64, loss: &mut f64, slope: &mut f64) {
    let a = 1e9 * beyond;
    let b = (a * a + 1e-6).sqrt();
    *loss += (a - b) / 2.0;
    *slope += 5e8 * (1.0 - a / b);
}

fn upper_barrier(beyond: f64, loss: &mut f64, slope: &mut f64) {
    let a = 1e9 * beyond;
    let b = (a * a + 1e-6).sqrt();
    *loss += f64::midpoint(a, b);
    *slope += 5e8 * (1.0 + a / b);
}

/// Head loss and slope of an emitter at a junction.
pub(super) fn emitter(model: &Model, state: &State, node: usize) -> (f64, f64) {
    let options = &model.options;
    let flow = state.emitted[node];
    let coefficient = model.nodes[node].emitter.max(SMALL);
    let mut slope = options.emitter_power * coefficient * flow.abs().powf(options.emitter_power - 1.0);
    let mut loss = if slope < options.least_gradient {
        slope = options.least_gradient / options.emitter_power;
        slope * flow
    } else {
        slope * flow / options.emitter_power
    };
    if !options.emitter_backflow {
        lower_barrier(flow, &mut loss, &mut slope);
    }
    (loss, slope)
}

/// Head loss and slope of a demand that depends on pressure (Wagner, Shamir, Marks 1988, turned around).
pub(super) fn demand(model: &Model, state: &State, node: usize) -> (f64, f64) {
    let options = &model.options;
    let range = options.required_pressure - options.minimum_pressure;
    let n = 1.0 / options.pressure_exponent;
    let (delivered, wanted) = (state.delivered[node], state.wanted[node]);
    let mut slope = n * range * (delivered.abs() / wanted).powf(n - 1.0) / wanted;
    let mut loss = slope * delivered / n;
    lower_barrier(delivered, &mut loss, &mut slope);
    upper_barrier(delivered - wanted, &mut loss, &mut slope);
    (loss, slope)
}
