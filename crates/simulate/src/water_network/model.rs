//! The network as the solver sees it, in feet, cubic feet and seconds.
//!
//! EPANET computes in US units with rounded factors and absolute tolerances in them; to take the same decisions the
//! solver does too. Tables are in SI; the two factors here are the way in and out.

use std::ops::Deref;
use std::sync::Arc;

use ahash::AHashMap;

use super::layout::Layout;
use super::leakage::Leak;
use super::options::Options;
use super::report::Columns;
use super::rules::{Control, Rule};

/// Metres in a foot; cubic metres in a cubic foot, as EPANET rounds it.
pub(super) const M_PER_FT: f64 = 0.3048;
pub(super) const M3_PER_FT3: f64 = 0.028_317;
/// Litres in a cubic foot: concentrations are mg/L outside and mg/ft³ inside.
pub(super) const L_PER_FT3: f64 = 28.317;

/// Coefficients of links that are as good as closed, or as good as without resistance.
pub(super) const LARGE: f64 = 1e8;
pub(super) const SMALL: f64 = 1e-6;
/// "No limit".
pub(super) const BIG: f64 = 1e10;
pub(super) const TINY: f64 = 1e-6;
/// A flow that counts as none, ft³/s.
pub(super) const NO_FLOW: f64 = 1e-6;

/// Indices by name.
pub(super) type Names = AHashMap<String, usize>;

/// The state of a link. Up to `Closed` nothing flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Status {
    /// A pump that cannot deliver the head.
    CannotLift,
    /// Closed for now: a full or empty tank, or a constant-power pump without flow.
    ClosedForNow,
    Closed,
    Open,
    /// A valve that regulates.
    Active,
    /// A flow control valve that cannot supply its flow.
    CannotSupplyFlow,
    /// A pressure valve that cannot keep its pressure.
    CannotKeepPressure,
}

impl Status {
    pub(super) fn is_closed(self) -> bool {
        self <= Self::Closed
    }
}

/// What a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkKind {
    CheckValve,
    Pipe,
    Pump,
    PressureReducing,
    PressureSustaining,
    PressureBreaker,
    FlowControl,
    Throttle,
    GeneralPurpose,
    Positional,
}

impl LinkKind {
    /// Whether the solver may set the status of such a valve.
    pub(super) fn regulates(self) -> bool {
        matches!(self, Self::PressureReducing | Self::PressureSustaining | Self::FlowControl)
    }

    pub(super) fn is_pipe(self) -> bool {
        matches!(self, Self::CheckValve | Self::Pipe)
    }

    pub(super) fn is_valve(self) -> bool {
        !self.is_pipe() && self != Self::Pump
    }
}

/// How a pump lifts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum PumpCurve {
    /// `h = shutoff − r qⁿ`.
    Power { shutoff: f64, r: f64, n: f64 },
    /// Lines between the points of a curve.
    Points { curve: usize },
    /// `h q = r`.
    ConstantPower { r: f64 },
}

#[derive(Debug, Clone)]
pub(super) struct Pump {
    pub(super) curve: PumpCurve,
    /// Flow that iterations begin with.
    pub(super) start_flow: f64,
    pub(super) most_head: f64,
    pub(super) most_flow: f64,
    pub(super) pattern: Option<usize>,
}

#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) id: String,
    pub(super) kind: LinkKind,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) diameter: f64,
    pub(super) length: f64,
    pub(super) roughness: f64,
    /// Friction: `h = resistance qⁿ`, for Darcy-Weisbach without the friction factor.
    pub(super) resistance: f64,
    /// `h = minor_loss q²`.
    pub(super) minor_loss: f64,
    pub(super) status: Status,
    /// Speed, pressure, flow, or coefficient; None for a valve fixed open or closed.
    pub(super) setting: Option<f64>,
    pub(super) pump: Option<Pump>,
    pub(super) curve: Option<usize>,
    /// Per second; feet a second (first order) or mg/ft²/s (zero order).
    pub(super) bulk: f64,
    pub(super) wall: f64,
    /// Coefficients of its leaks: see [`super::leakage::coefficients`].
    pub(super) leak: [f64; 2],
}

/// How water mixes in a tank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mixing {
    Complete,
    TwoCompartments,
    FirstInFirstOut,
    LastInFirstOut,
}

/// A tank, or a reservoir: one without area.
#[derive(Debug, Clone)]
pub(super) struct Tank {
    pub(super) area: f64,
    pub(super) initial_head: f64,
    pub(super) least_head: f64,
    pub(super) most_head: f64,
    pub(super) initial_volume: f64,
    pub(super) least_volume: f64,
    pub(super) most_volume: f64,
    pub(super) curve: Option<usize>,
    pub(super) can_overflow: bool,
    pub(super) pattern: Option<usize>,
    pub(super) mixing: Mixing,
    pub(super) mixing_fraction: f64,
    pub(super) bulk: f64,
}

impl Tank {
    pub(super) fn is_reservoir(&self) -> bool {
        self.area == 0.0
    }
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) id: String,
    pub(super) elevation: f64,
    /// Base demand and pattern.
    pub(super) demands: Vec<(f64, Option<usize>)>,
    /// `h = emitter qⁿ`; 0 for none.
    pub(super) emitter: f64,
    /// mg/ft³, hours or percent.
    pub(super) quality: f64,
    pub(super) source: Option<Source>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SourceKind {
    Concentration,
    Mass,
    SetPoint,
    FlowPaced,
}

#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) kind: SourceKind,
    /// mg/L, or mg a minute.
    pub(super) strength: f64,
    pub(super) pattern: Option<usize>,
}

/// The whole network: junctions first, then tanks and reservoirs.
pub(super) struct Network {
    pub(super) nodes: Vec<Node>,
    pub(super) junctions: usize,
    pub(super) tanks: Vec<Tank>,
    pub(super) links: Vec<Link>,
    pub(super) leaks: Vec<Leak>,
    pub(super) patterns: Vec<Vec<f64>>,
    /// Points in feet, cubic feet and seconds.
    pub(super) curves: Vec<Vec<(f64, f64)>>,
    pub(super) controls: Vec<Control>,
    pub(super) rules: Vec<Rule>,
    pub(super) node_index: Names,
    /// What the solver needs of how the links join the junctions.
    pub(super) layout: Layout,
    /// Names and kinds as columns of results.
    pub(super) columns: Columns,
}

/// A network and how it is to be run. The network may be shared with other runs.
pub(super) struct Model {
    pub(super) network: Arc<Network>,
    pub(super) options: Options,
}

impl Deref for Model {
    type Target = Network;

    fn deref(&self) -> &Network {
        &self.network
    }
}

impl Network {
    pub(super) fn tank(&self, node: usize) -> Option<&Tank> {
        node.checked_sub(self.junctions).and_then(|tank| self.tanks.get(tank))
    }

    /// The factor of a pattern in a period, counted from the start.
    pub(super) fn factor(&self, pattern: Option<usize>, period: i64) -> f64 {
        match pattern.and_then(|pattern| self.patterns.get(pattern)) {
            Some(factors) if !factors.is_empty() => factors[period as usize % factors.len()],
            _ => 1.0,
        }
    }

    /// The volume in a tank at a head.
    pub(super) fn volume_at(&self, tank: usize, head: f64) -> f64 {
        let of = &self.tanks[tank];
        match of.curve {
            None => of.least_volume + (head - of.least_head) * of.area,
            Some(curve) => {
                let level = head - self.nodes[self.junctions + tank].elevation;
                interpolate(self.curves[curve].iter().copied(), level)
            }
        }
    }

    /// The head in a tank at a volume.
    pub(super) fn head_at(&self, tank: usize, volume: f64) -> f64 {
        let of = &self.tanks[tank];
        match of.curve {
            None => of.least_head + (volume - of.least_volume) / of.area,
            Some(curve) => {
                let levels = self.curves[curve].iter().map(|&(level, volume)| (volume, level));
                self.nodes[self.junctions + tank].elevation + interpolate(levels, volume)
            }
        }
    }
}

/// Linear between points, constant beyond them.
pub(super) fn interpolate(points: impl Iterator<Item = (f64, f64)>, at: f64) -> f64 {
    let mut before: Option<(f64, f64)> = None;
    for (x, y) in points {
        if x >= at {
            return match before {
                Some((x0, y0)) if x > x0 => y - (x - at) * (y - y0) / (x - x0),
                _ => y,
            };
        }
        before = Some((x, y));
    }
    before.map_or(0.0, |(_, y)| y)
}

/// Slope and intercept of the part of a curve that holds `at`; the first and last part go on beyond it.
pub(super) fn line_through(points: &[(f64, f64)], at: f64) -> (f64, f64) {
    let last = points.len() - 1;
    let right = points.partition_point(|(x, _)| *x < at).clamp(1.min(last), last);
    let (left, right) = (points[right.saturating_sub(1)], points[right]);
    let slope = if right.0 > left.0 { (right.1 - left.1) / (right.0 - left.0) } else { 0.0 };
    (slope, left.1 - slope * left.0)
}
