//! Longer strides where sweep after sweep goes a little further the same way.
//!
//! Shifting flow origin by origin is a descent along one group of coordinates at a time. Where two origins share a steep
//! link, each undoes most of what the other did, and thousands of sweeps creep along one direction. The change that a
//! sweep made *is* that direction: it keeps every trip's origin and destination, so any multiple of it that leaves no
//! flow negative is allowed, and the objective, being convex, has one minimum along it.

use super::bush::Bush;
use super::link_states::LinkStates;

/// The flows before a sweep.
#[derive(Default)]
pub(crate) struct Footprint {
    bushes: Vec<Vec<f64>>,
}

/// A stride is at most this many sweeps long.
const LONGEST: f64 = 1e4;
/// Halvings of the bracket around the minimum.
const HALVINGS: u32 = 40;

impl Footprint {
    pub(crate) fn take(&mut self, bushes: &[Bush]) {
        self.bushes.resize_with(bushes.len(), Vec::new);
        for (saved, bush) in self.bushes.iter_mut().zip(bushes) {
            saved.clear();
            saved.extend_from_slice(bush.flows());
        }
    }

    /// Goes on in the direction of the last sweep to the minimum of the objective on it. Bushes with a link that the
    /// sweep has all but emptied stay where they are.
    pub(crate) fn stride_on(&self, bushes: &mut [Bush], links: &mut LinkStates) {
        let room: Vec<f64> =
            self.bushes.iter().zip(&*bushes).map(|(before, bush)| room(before, bush)).collect();
        let mut direction = vec![0.0; links.flow.len()];
        // The surcharges do not depend on the flow: their part of the slope is the same all along.
        let mut surcharges = 0.0;
        let mut longest = LONGEST;
        for ((before, bush), &room) in self.bushes.iter().zip(&*bushes).zip(&room) {
            if room >= 1.0 {
                longest = longest.min(room);
                for ((&link, flow), before) in bush.links().iter().zip(bush.flows()).zip(before) {
                    direction[link as usize] += flow - before;
                    surcharges += (flow - before) * links.surcharge(bush.class(), link);
                }
            }
        }
        let stretch = minimum(links, &direction, surcharges, longest);
        if stretch > 0.0 {
            for ((before, bush), room) in self.bushes.iter().zip(&mut *bushes).zip(room) {
                if room >= 1.0 {
                    bush.go_on(before, stretch);
                }
            }
            for (link, change) in direction.into_iter().enumerate() {
                if change != 0.0 {
                    links.set_flow(link, (links.flow[link] + stretch * change).max(0.0));
                }
            }
        }
    }
}

/// How many more of its last changes the bush can take before a flow is used up.
fn room(before: &[f64], bush: &Bush) -> f64 {
    bush.flows()
        .iter()
        .zip(before)
        .filter(|(flow, before)| flow < before)
        .fold(f64::INFINITY, |room, (flow, before)| room.min(flow / (before - flow)))
}

/// Where on `0..=longest` the objective is least: where its slope, which grows, is zero.
fn minimum(links: &LinkStates, direction: &[f64], surcharges: f64, longest: f64) -> f64 {
    let falls_at = |stretch: f64| links.slope_along(direction, stretch) + surcharges < 0.0;
    if !falls_at(0.0) {
        return 0.0;
    }
    // Most strides are short: find the scale first.
    let (mut low, mut high) = (0.0, 1.0_f64.min(longest));
    while falls_at(high) {
        if high >= longest {
            return longest;
        }
        low = high;
        high = (2.0 * high).min(longest);
    }
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if falls_at(middle) {
            low = middle;
        } else {
            high = middle;
        }
        if high - low <= 1e-3 * high {
            break;
        }
    }
    low
}
