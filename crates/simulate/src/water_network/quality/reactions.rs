//! Reactions in the bulk of the water and at the walls of pipes.

use std::f64::consts::PI;

use super::super::headloss::sign;
use super::super::model::{BIG, L_PER_FT3, Link, LinkKind, Model, TINY};
use super::super::options::Quality;
use super::super::state::State;
use super::Segments;

/// Which reactions there are, and the wall rate of each pipe at the present flows.
pub(super) struct Reactions {
    reacts: bool,
    wall: Vec<f64>,
    /// Viscosity over diffusivity.
    schmidt: f64,
}

/// The factor that turns a rate per mg/L to one per mg/ft³, for an order of reaction.
fn per_volume(order: f64) -> f64 {
    if order == 1.0 { 1.0 } else { L_PER_FT3.powf(1.0 - order.max(0.0)) }
}

impl Reactions {
    pub(super) fn new(model: &Model) -> Self {
        let options = &model.options;
        let reacts = match options.quality {
            Quality::Age => true,
            Quality::Chemical => {
                model.links.iter().any(|link| link.bulk != 0.0 || link.wall != 0.0)
                    || model.tanks.iter().any(|tank| tank.bulk != 0.0)
            }
            Quality::None | Quality::Trace(_) => false,
        };
        let schmidt = if options.diffusivity > 0.0 { options.viscosity / options.diffusivity } else { 0.0 };
        Self { reacts, wall: vec![0.0; model.links.len()], schmidt }
    }

    pub(super) fn any(&self) -> bool {
        self.reacts
    }

    /// Wall rates at these flows.
    pub(super) fn set_rates(&mut self, model: &Model, state: &State) {
        if !self.reacts || model.options.quality != Quality::Chemical {
            return;
        }
        for (index, link) in model.links.iter().enumerate() {
            self.wall[index] =
                if link.wall == 0.0 { 0.0 } else { self.wall_rate(model, link, state.real_flow(index)) };
        }
    }

    /// First order: the rate per second, of wall and way to the wall in series. Zero order: the mass transfer alone.
    fn wall_rate(&self, model: &Model, link: &Link, flow: f64) -> f64 {
        let options = &model.options;
        let first_order = options.wall_order != 0.0;
        if self.schmidt == 0.0 {
            return if first_order { link.wall * 4.0 / link.diameter } else { BIG };
        }
        let velocity = flow.abs() / (PI * link.diameter * link.diameter / 4.0);
        let reynolds = velocity * link.diameter / options.viscosity;
        // Standing water, turbulent flow (Notter and Sleicher 1971), laminar flow (Graetz).
        let sherwood = if reynolds < 1.0 {
            2.0
        } else if reynolds >= 2300.0 {
            0.0149 * reynolds.powf(0.88) * self.schmidt.powf(0.333)
        } else {
            let y = link.diameter / link.length * reynolds * self.schmidt;
            3.65 + 0.0668 * y / (1.0 + 0.04 * y.powf(0.667))
        };
        let transfer = sherwood * options.diffusivity / link.diameter;
        if !first_order {
            return transfer;
        }
        4.0 / link.diameter * link.wall * transfer / (transfer + link.wall.abs())
    }

    /// Lets everything react for a time; the mass that is gone.
    pub(super) fn react(
        &self,
        model: &Model,
        links: &mut [Segments],
        tanks: &mut [Segments],
        seconds: f64,
    ) -> f64 {
        if !self.reacts {
            return 0.0;
        }
        let mut gone = 0.0;
        let age = model.options.quality == Quality::Age;
        let mut all = |segments: &mut Segments, rate: &dyn Fn(f64) -> f64| {
            for segment in segments {
                let after = (segment.quality + rate(segment.quality)).max(0.0);
                gone += (segment.quality - after) * segment.volume;
                segment.quality = after;
            }
        };
        let hours = seconds / 3600.0;
        let options = &model.options;
        for ((index, link), segments) in model.links.iter().enumerate().zip(links) {
            if link.kind != LinkKind::Pipe {
                continue;
            }
            if age {
                all(segments, &|_| hours);
                continue;
            }
            let unit = per_volume(options.bulk_order);
            all(segments, &|quality| {
                let bulk = bulk_rate(model, quality, link.bulk, options.bulk_order) * unit;
                (bulk + self.at_wall(model, link, index, quality)) * seconds
            });
        }
        for (tank, segments) in model.tanks.iter().zip(tanks) {
            if age {
                all(segments, &|_| hours);
                continue;
            }
            let unit = per_volume(options.tank_order);
            all(segments, &|quality| {
                bulk_rate(model, quality, tank.bulk, options.tank_order) * unit * seconds
            });
        }
        gone
    }

    fn at_wall(&self, model: &Model, link: &Link, index: usize, quality: f64) -> f64 {
        if link.wall == 0.0 {
            return 0.0;
        }
        if model.options.wall_order != 0.0 {
            return quality * self.wall[index];
        }
        // No more reaches the wall than flows to it.
        let reaching = sign(link.wall) * quality * self.wall[index];
        let rate = if reaching.abs() < link.wall.abs() { reaching } else { link.wall };
        rate * 4.0 / link.diameter
    }
}

/// Rate of a bulk reaction of any order, with a limit; below 0 the order stands for Michaelis-Menten.
fn bulk_rate(model: &Model, quality: f64, coefficient: f64, order: f64) -> f64 {
    let limit = model.options.limiting_concentration * L_PER_FT3;
    let potential = if order == 0.0 {
        1.0
    } else if order < 0.0 {
        let below = limit + sign(coefficient) * quality;
        let below = if below.abs() < TINY { sign(below) * TINY } else { below };
        quality / below
    } else {
        let first = if limit == 0.0 { quality } else { (sign(coefficient) * (limit - quality)).max(0.0) };
        match order {
            1.0 => first,
            2.0 => first * quality,
            _ => first * quality.max(0.0).powf(order - 1.0),
        }
    };
    coefficient * potential.max(0.0)
}
