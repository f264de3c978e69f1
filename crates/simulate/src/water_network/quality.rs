//! What the water carries: age, a reacting substance, or the share from one node.
//!
//! Lagrangian transport (Liou and Kroon 1987, as in Rossman et al. 2020, chapter 12): each pipe is a row of segments of
//! one quality. In a quality step all segments react, then nodes are taken from upstream to downstream: water leaves the
//! segments at the end of a pipe, mixes at the node, and goes on as a new segment, or joins the last one where the
//! difference is below the tolerance.

mod reactions;
mod tanks;

use std::collections::VecDeque;

use super::model::{LinkKind, Model, SourceKind};
use super::options::Quality;
use super::state::State;
use reactions::Reactions;

/// Less than 0.005 gallons a minute counts as standing water.
const STANDING: f64 = 0.005 / 448.831;

/// A stretch of water of one quality.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    volume: f64,
    quality: f64,
}

/// The segments of a pipe or tank: the front leaves first.
type Segments = VecDeque<Segment>;

/// Masses since the start: volume times quality.
#[derive(Debug, Default)]
struct Masses {
    initial: f64,
    inflow: f64,
    outflow: f64,
    reacted: f64,
}

/// Quality everywhere at one moment.
pub(super) struct Transport {
    pub(super) node_quality: Vec<f64>,
    links: Vec<Segments>,
    tanks: Vec<Segments>,
    /// What leaves each tank.
    tank_quality: Vec<f64>,
    /// −1, 0 or 1 by link.
    direction: Vec<i8>,
    /// Nodes from upstream to downstream.
    order: Vec<usize>,
    /// By node: links at it, the last first.
    at_node: Vec<Vec<usize>>,
    reactions: Reactions,
    traced: Option<usize>,
    tolerance: f64,
    masses: Masses,
}

impl Transport {
    /// The state at the start; None if no quality is asked for.
    pub(super) fn new(model: &Model) -> Option<Self> {
        let traced = match &model.options.quality {
            Quality::None => return None,
            Quality::Trace(node) => model.node_index.get(node).copied(),
            Quality::Age | Quality::Chemical => None,
        };
        let tracing = matches!(model.options.quality, Quality::Trace(_));
        let mut node_quality: Vec<f64> =
            model.nodes.iter().map(|node| if tracing { 0.0 } else { node.quality }).collect();
        let tank_quality = node_quality[model.junctions..].to_vec();
        if let Some(node) = traced {
            node_quality[node] = 100.0;
        }
        let mut at_node = vec![Vec::new(); model.nodes.len()];
        for (index, link) in model.links.iter().enumerate().rev() {
            at_node[link.from].push(index);
            at_node[link.to].push(index);
        }
        let pipe = |link: &super::model::Link| {
            let volume = std::f64::consts::FRAC_PI_4 * link.length * link.diameter * link.diameter;
            let whole = Segment { volume, quality: node_quality[link.to] };
            if link.kind == LinkKind::Pipe { VecDeque::from([whole]) } else { VecDeque::new() }
        };
        let links: Vec<Segments> = model.links.iter().map(pipe).collect();
        let tanks = (0..model.tanks.len()).map(|tank| tanks::at_start(model, tank)).collect();
        let concentration =
            if model.options.quality == Quality::Chemical { super::model::L_PER_FT3 } else { 1.0 };
        let mut transport = Self {
            node_quality,
            links,
            tanks,
            tank_quality,
            direction: vec![0; model.links.len()],
            order: Vec::new(),
            at_node,
            reactions: Reactions::new(model),
            traced,
            tolerance: model.options.quality_tolerance * concentration,
            masses: Masses::default(),
        };
        transport.masses.initial = transport.stored();
        Some(transport)
    }

    fn stored(&self) -> f64 {
        self.links.iter().chain(&self.tanks).flatten().fold(0.0, |sum, part| sum + part.volume * part.quality)
    }

    /// What left and is there over what was there and came in; 1 where nothing is lost.
    pub(super) fn mass_balance(&self) -> f64 {
        let mut into = self.masses.initial + self.masses.inflow;
        let mut out = self.masses.outflow + self.stored();
        if self.masses.reacted > 0.0 {
            out += self.masses.reacted;
        } else {
            into -= self.masses.reacted;
        }
        if into == 0.0 { 1.0 } else { out / into }
    }

    /// The mean quality of each link; of one without volume that of its ends.
    pub(super) fn link_qualities(&self, model: &Model) -> Vec<f64> {
        let of = |(link, segments): (&super::model::Link, &Segments)| {
            let volume = segments.iter().fold(0.0, |sum, part| sum + part.volume);
            let mass = segments.iter().fold(0.0, |sum, part| sum + part.volume * part.quality);
            let ends = f64::midpoint(self.node_quality[link.from], self.node_quality[link.to]);
            if volume > 0.0 { mass / volume } else { ends }
        };
        model.links.iter().zip(&self.links).map(of).collect()
    }

    /// Moves everything on by `seconds` from `now` at the flows of `state`.
    pub(super) fn advance(&mut self, model: &Model, state: &State, now: i64, seconds: i64) {
        self.reactions.set_rates(model, state);
        if self.turn(state) {
            self.sort(model);
        }
        let mut done = 0;
        while done < seconds {
            let step = model.options.times.quality_step.min(seconds - done);
            done += step;
            // Sources follow the patterns of the moment that the hydraulics are of.
            self.step(model, state, now, step as f64);
        }
    }

    /// Follows changes of direction. Whether any changed.
    fn turn(&mut self, state: &State) -> bool {
        let mut changed = false;
        for (index, direction) in self.direction.iter_mut().enumerate() {
            let flow = state.real_flow(index);
            let now = match flow {
                flow if flow.abs() < STANDING => 0,
                flow if flow < 0.0 => -1,
                _ => 1,
            };
            if now * *direction < 0 {
                self.links[index].make_contiguous().reverse();
            }
            changed |= now != *direction;
            *direction = now;
        }
        changed
    }

    /// The node that a link flows into; of standing water its end.
    fn downstream(&self, model: &Model, link: usize) -> usize {
        if self.direction[link] < 0 { model.links[link].from } else { model.links[link].to }
    }

    fn upstream(&self, model: &Model, link: usize) -> usize {
        if self.direction[link] < 0 { model.links[link].to } else { model.links[link].from }
    }

    /// Orders nodes so that water comes only from nodes before; circles are cut where they touch what is ordered.
    fn sort(&mut self, model: &Model) {
        let nodes = model.nodes.len();
        let mut waiting = vec![0_u32; nodes];
        for link in (0..model.links.len()).filter(|&link| self.direction[link] != 0) {
            waiting[self.downstream(model, link)] += 1;
        }
        let mut stack: Vec<usize> = (0..nodes).filter(|&node| waiting[node] == 0).collect();
        self.order.clear();
        while self.order.len() < nodes {
            let Some(node) = stack.pop() else {
                let Some(next) = self.cut(model, &waiting) else { break };
                waiting[next] = 0;
                stack.push(next);
                continue;
            };
            self.order.push(node);
            for &link in &self.at_node[node] {
                let next = self.downstream(model, link);
                if self.direction[link] == 0 || next == node || waiting[next] == 0 {
                    continue;
                }
                waiting[next] -= 1;
                if waiting[next] == 0 {
                    stack.push(next);
                }
            }
        }
    }

    fn cut(&self, model: &Model, waiting: &[u32]) -> Option<usize> {
        let beside = self.order.iter().rev().find_map(|&node| {
            self.at_node[node]
                .iter()
                .map(|&link| model.links[link].from + model.links[link].to - node)
                .find(|&other| waiting[other] > 0)
        });
        beside.or_else(|| waiting.iter().position(|waiting| *waiting > 0))
    }

    fn step(&mut self, model: &Model, state: &State, now: i64, seconds: f64) {
        self.masses.reacted += self.reactions.react(model, &mut self.links, &mut self.tanks, seconds);
        for at in 0..self.order.len() {
            let node = self.order[at];
            let (mut volume_in, mut mass_in, mut flow_out) = (0.0, 0.0, 0.0);
            for place in 0..self.at_node[node].len() {
                let link = self.at_node[node][place];
                let flow = state.real_flow(link).abs();
                if self.downstream(model, link) == node {
                    let (volume, mass) = take_front(&mut self.links[link], flow * seconds);
                    volume_in += volume;
                    mass_in += mass;
                } else {
                    flow_out += flow;
                }
            }
            let junction = node < model.junctions;
            if junction {
                flow_out += state.demand[node].max(0.0);
            }
            let volume_out = flow_out * seconds;
            let (leaving, added) =
                self.mix(model, state, node, [volume_in, mass_in, volume_out], now, seconds);
            for place in 0..self.at_node[node].len() {
                let link = self.at_node[node][place];
                if self.upstream(model, link) == node {
                    let volume = state.real_flow(link).abs() * seconds;
                    push_back(&mut self.links[link], volume, leaving, self.tolerance);
                }
            }
            if junction {
                self.masses.outflow += state.demand[node].max(0.0) * seconds * self.node_quality[node];
                self.masses.inflow += added * volume_out;
            } else if model.tanks[node - model.junctions].is_reservoir() {
                self.masses.outflow += mass_in;
                self.masses.inflow += if added > 0.0 { added } else { self.node_quality[node] } * volume_out;
            } else {
                self.masses.inflow += added * volume_out;
            }
        }
    }

    /// The quality that leaves a node, and what of it a source added.
    fn mix(
        &mut self,
        model: &Model,
        state: &State,
        node: usize,
        [volume_in, mass_in, volume_out]: [f64; 3],
        now: i64,
        seconds: f64,
    ) -> (f64, f64) {
        let reservoir = model.tank(node).is_some_and(super::model::Tank::is_reservoir);
        if node < model.junctions {
            // Water that comes in from outside dilutes.
            let volume = volume_in - state.demand[node].min(0.0) * seconds;
            if volume > 0.0 {
                self.node_quality[node] = mass_in / volume;
            } else if self.reactions.any() {
                self.node_quality[node] = self.standing_quality(model, node);
            }
        } else if !reservoir {
            let tank = node - model.junctions;
            let full = state.volume[tank] >= model.tanks[tank].most_volume;
            let inflow = tanks::Inflow { volume: volume_in, mass: mass_in, net: volume_in - volume_out };
            let lost = tanks::mix(
                model,
                tank,
                &mut self.tanks[tank],
                &mut self.tank_quality[tank],
                inflow,
                (full, self.tolerance),
            );
            self.masses.outflow += lost;
            self.node_quality[node] = self.tank_quality[tank];
        }
        if let Some(traced) = self.traced {
            if node != traced {
                return (self.node_quality[node], 0.0);
            }
            let added = if reservoir { 100.0 } else { (100.0 - self.node_quality[node]).max(0.0) };
            self.node_quality[node] = 100.0;
            return (100.0, added);
        }
        let added = self.source(model, state, node, volume_out, now, seconds);
        if added == 0.0 {
            return (self.node_quality[node], 0.0);
        }
        if reservoir {
            self.node_quality[node] = added;
            return (added, added);
        }
        let leaving = self.node_quality[node] + added;
        if node < model.junctions {
            self.node_quality[node] = leaving;
        }
        (leaving, added)
    }

    /// The quality that a source adds to what leaves its node.
    fn source(
        &self,
        model: &Model,
        state: &State,
        node: usize,
        volume_out: f64,
        now: i64,
        seconds: f64,
    ) -> f64 {
        let Some(source) = &model.nodes[node].source else { return 0.0 };
        if model.options.quality != Quality::Chemical
            || source.strength == 0.0
            || volume_out / seconds <= STANDING
        {
            return 0.0;
        }
        let times = model.options.times;
        let period = (now + times.pattern_start) / times.pattern_step;
        let factor = if source.pattern.is_some() { model.factor(source.pattern, period) } else { 1.0 };
        let concentration = source.strength * factor * super::model::L_PER_FT3;
        match source.kind {
            SourceKind::Concentration if node < model.junctions => {
                (-concentration * state.demand[node].min(0.0) * seconds / volume_out).max(0.0)
            }
            SourceKind::Concentration | SourceKind::FlowPaced => concentration,
            SourceKind::Mass => source.strength * factor / 60.0 * seconds / volume_out,
            SourceKind::SetPoint => (concentration - self.node_quality[node]).max(0.0),
        }
    }

    /// Where nothing flows: the mean of the nearest segments around.
    fn standing_quality(&self, model: &Model, node: usize) -> f64 {
        let (mut sum, mut count) = (0.0, 0.0);
        for &link in &self.at_node[node] {
            let inflow = self.downstream(model, link) == node;
            let nearest = if inflow { self.links[link].front() } else { self.links[link].back() };
            if let Some(segment) = nearest {
                sum += segment.quality;
                count += 1.0;
            }
        }
        if count > 0.0 { sum / count } else { 0.0 }
    }
}

/// Takes a volume from the front: what there was of it, and its mass.
fn take_front(segments: &mut Segments, mut volume: f64) -> (f64, f64) {
    let (mut taken, mut mass) = (0.0, 0.0);
    while volume > 0.0 {
        let Some(first) = segments.front_mut() else { break };
        let part = first.volume.min(volume);
        taken += part;
        mass += part * first.quality;
        volume -= part;
        if part >= first.volume {
            segments.pop_front();
        } else {
            first.volume -= part;
        }
    }
    (taken, mass)
}

/// Adds a volume at the back, to the last segment where it is of about the same quality.
fn push_back(segments: &mut Segments, volume: f64, quality: f64, tolerance: f64) {
    if volume == 0.0 {
        return;
    }
    match segments.back_mut() {
        Some(last) if (last.quality - quality).abs() < tolerance => {
            last.quality = (last.quality * last.volume + quality * volume) / (last.volume + volume);
            last.volume += volume;
        }
        _ => segments.push_back(Segment { volume, quality }),
    }
}
