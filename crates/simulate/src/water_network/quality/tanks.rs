//! How water mixes in tanks.

use std::collections::VecDeque;

use super::super::model::{Mixing, Model};
use super::super::options::Quality;
use super::{Segment, Segments, push_back};

/// What came into a tank in a step, and how much more came than left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inflow {
    pub(super) volume: f64,
    pub(super) mass: f64,
    pub(super) net: f64,
}

/// The segments of a tank at the start; none of a reservoir.
pub(super) fn at_start(model: &Model, tank: usize) -> Segments {
    let of = &model.tanks[tank];
    if of.is_reservoir() {
        return VecDeque::new();
    }
    let quality = match model.options.quality {
        Quality::Trace(_) => 0.0,
        _ => model.nodes[model.junctions + tank].quality,
    };
    let volume = of.initial_volume;
    if of.mixing != Mixing::TwoCompartments {
        return VecDeque::from([Segment { volume, quality }]);
    }
    // The stagnant zone is in front, the mixing zone at the back.
    let stagnant = (volume - of.mixing_fraction * of.most_volume).max(0.0);
    VecDeque::from([Segment { volume: stagnant, quality }, Segment { volume: volume - stagnant, quality }])
}

/// Mixes what came in; `leaving` becomes the quality of what leaves. Gives the mass lost by overflow.
pub(super) fn mix(
    model: &Model,
    tank: usize,
    segments: &mut Segments,
    leaving: &mut f64,
    inflow: Inflow,
    (full, tolerance): (bool, f64),
) -> f64 {
    let of = &model.tanks[tank];
    match of.mixing {
        Mixing::Complete => complete(segments, leaving, inflow, of.most_volume),
        Mixing::TwoCompartments => {
            two_compartments(segments, leaving, inflow, of.mixing_fraction * of.most_volume, of.most_volume)
        }
        Mixing::FirstInFirstOut => first_in_first_out(segments, leaving, inflow, full, tolerance),
        Mixing::LastInFirstOut => last_in_first_out(segments, leaving, inflow, full, tolerance),
    }
}

fn complete(segments: &mut Segments, leaving: &mut f64, inflow: Inflow, most: f64) -> f64 {
    let Some(all) = segments.front_mut() else { return 0.0 };
    let volume = all.volume + inflow.volume;
    if volume > 0.0 {
        all.quality = (all.quality * all.volume + inflow.mass) / volume;
    }
    all.volume = (all.volume + inflow.net).max(0.0);
    *leaving = all.quality;
    let over = (all.volume - most).max(0.0);
    all.volume -= over;
    over * *leaving
}

fn two_compartments(segments: &mut Segments, leaving: &mut f64, inflow: Inflow, zone: f64, most: f64) -> f64 {
    let (Some(&(mut stagnant)), Some(&(mut mixing))) = (segments.front(), segments.back()) else {
        return 0.0;
    };
    if segments.len() < 2 {
        return 0.0;
    }
    let mut moved = 0.0;
    if inflow.net > 0.0 {
        moved = (mixing.volume + inflow.net - zone).max(0.0);
        if inflow.volume > 0.0 {
            mixing.quality = (mixing.quality * mixing.volume + inflow.mass) / (mixing.volume + inflow.volume);
        }
        if moved > 0.0 {
            stagnant.quality =
                (stagnant.quality * stagnant.volume + mixing.quality * moved) / (stagnant.volume + moved);
        }
    } else if inflow.net < 0.0 {
        if stagnant.volume > 0.0 {
            moved = stagnant.volume.min(-inflow.net);
        }
        if inflow.volume + moved > 0.0 {
            mixing.quality = (mixing.quality * mixing.volume + inflow.mass + stagnant.quality * moved)
                / (mixing.volume + inflow.volume + moved);
        }
    }
    let mut lost = 0.0;
    if moved > 0.0 && inflow.net > 0.0 {
        mixing.volume = zone;
        stagnant.volume += moved;
        let over = (stagnant.volume - (most - zone)).max(0.0);
        lost = over * stagnant.quality;
        stagnant.volume -= over;
    } else if moved > 0.0 {
        stagnant.volume = (stagnant.volume - moved).max(0.0);
        mixing.volume = zone + moved + inflow.net;
    } else {
        mixing.volume = (mixing.volume + inflow.net).min(zone).max(0.0);
        if mixing.volume < zone {
            stagnant.volume = 0.0;
        }
    }
    *leaving = mixing.quality;
    *segments = VecDeque::from([stagnant, mixing]);
    lost
}

/// Takes a volume from the front, the last segment giving whatever is asked of it: volume and mass.
fn withdraw(segments: &mut Segments, mut volume: f64) -> (f64, f64) {
    let (mut taken, mut mass) = (0.0, 0.0);
    while volume > 0.0 {
        let only = segments.len() == 1;
        let Some(first) = segments.front_mut() else { break };
        let part = if only { volume } else { first.volume.min(volume) };
        taken += part;
        mass += part * first.quality;
        volume -= part;
        if part < first.volume {
            first.volume -= part;
        } else if !only {
            segments.pop_front();
        }
    }
    (taken, mass)
}

fn first_in_first_out(
    segments: &mut Segments,
    leaving: &mut f64,
    inflow: Inflow,
    full: bool,
    tolerance: f64,
) -> f64 {
    if inflow.volume > 0.0 {
        add(segments, inflow.volume, inflow.mass / inflow.volume, tolerance);
    }
    let overflows = full && inflow.net > 0.0;
    let out = if overflows { inflow.volume } else { inflow.volume - inflow.net };
    let (volume, mass) = withdraw(segments, out);
    *leaving = if volume > 0.0 { mass / volume } else { segments.front().map_or(0.0, |first| first.quality) };
    if overflows { inflow.net * *leaving } else { 0.0 }
}

fn last_in_first_out(
    segments: &mut Segments,
    leaving: &mut f64,
    inflow: Inflow,
    full: bool,
    tolerance: f64,
) -> f64 {
    let quality_in = if inflow.volume > 0.0 { inflow.mass / inflow.volume } else { 0.0 };
    *leaving = segments.back().map_or(0.0, |last| last.quality);
    let mut lost = 0.0;
    if inflow.net > 0.0 {
        add(segments, inflow.net, quality_in, tolerance);
        *leaving = segments.back().map_or(0.0, |last| last.quality);
        if full {
            lost = withdraw(segments, inflow.net).1;
        }
    } else if inflow.net < 0.0 {
        segments.make_contiguous().reverse();
        let (volume, mass) = withdraw(segments, -inflow.net);
        segments.make_contiguous().reverse();
        if volume + inflow.volume > 0.0 {
            *leaving = (mass + inflow.mass) / (volume + inflow.volume);
        }
    }
    lost
}

/// Adds a volume to the last segment, which keeps its quality where that is about the same.
fn add(segments: &mut Segments, volume: f64, quality: f64, tolerance: f64) {
    match segments.back_mut() {
        Some(last) if (last.quality - quality).abs() < tolerance => last.volume += volume,
        _ => push_back(segments, volume, quality, 0.0),
    }
}
