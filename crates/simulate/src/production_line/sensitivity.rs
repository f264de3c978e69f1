//! Which change helps most: each factor of the line changed by a step, all else and all random numbers alike.

use super::distribution::Distribution;
use super::model::Line;

/// A line with one factor changed.
pub(super) struct Change {
    /// What kind of factor: the name of the column or time.
    pub(super) factor: &'static str,
    pub(super) element: String,
    /// The factor before and after, in its own unit: seconds, pieces or a share.
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) unit: &'static str,
    pub(super) line: Line,
}

/// Every factor changed in the direction that should help: times and shares of rejects down by `step`, times to failure
/// and arrivals up by it, counts and capacities up by `step`, at least by one.
pub(super) fn changes(line: &Line, step: f64) -> Vec<Change> {
    let mut found = Changes { line, found: Vec::new() };
    for (at, source) in line.sources.iter().enumerate() {
        if let Some(time) = source.interarrival {
            let faster = scaled(time, 1.0 / (1.0 + step));
            found.add("interarrival_time", &source.name, (time.mean(), faster.mean(), "s"), |line| {
                line.sources[at].interarrival = Some(faster);
            });
        }
    }
    if let Some(limit) = line.work_in_process_limit {
        let more = raised(limit, step);
        found.add("work_in_process_limit", "line", (limit as f64, more as f64, ""), |line| {
            line.work_in_process_limit = Some(more);
        });
    }
    for (at, buffer) in line.buffers.iter().enumerate() {
        if let Some(capacity) = buffer.capacity {
            let more = raised(capacity, step);
            found.add("capacity", &buffer.name, (capacity as f64, more as f64, ""), |line| {
                line.buffers[at].capacity = Some(more);
            });
        }
    }
    for (at, pool) in line.pools.iter().enumerate() {
        let more = raised(pool.count, step);
        found.add("count", &pool.name, (pool.count as f64, more as f64, ""), |line| {
            line.pools[at].count = more;
            for station in line.stations.iter_mut().filter(|it| it.transport && it.pool == Some(at)) {
                station.units = more;
            }
        });
    }
    for at in 0..line.stations.len() {
        of_station(&mut found, at, step);
    }
    found.found
}

fn of_station(found: &mut Changes, at: usize, step: f64) {
    let line = found.line;
    let station = &line.stations[at];
    let name = station.name.as_str();
    let mean = |times: &[Distribution]| -> f64 {
        line.products.iter().zip(times).map(|(product, time)| product.share * time.mean()).sum()
    };
    let cycle = mean(&station.process);
    let factor = if station.transport { "travel_time" } else { "process_time" };
    found.add(factor, name, (cycle, cycle * (1.0 - step), "s"), |line| {
        line.stations[at].process.iter_mut().for_each(|time| *time = scaled(*time, 1.0 - step));
    });
    if let Some(pickup) = station.pickup {
        let faster = scaled(pickup, 1.0 - step);
        found.add("pickup_time", name, (pickup.mean(), faster.mean(), "s"), |line| {
            line.stations[at].pickup = Some(faster);
        });
    }
    let setups: Vec<f64> = station.setup.iter().flatten().flatten().map(Distribution::mean).collect();
    if !setups.is_empty() {
        let setup = setups.iter().sum::<f64>() / setups.len() as f64;
        found.add("setup_time", name, (setup, setup * (1.0 - step), "s"), |line| {
            for time in line.stations[at].setup.iter_mut().flatten().flatten() {
                *time = scaled(*time, 1.0 - step);
            }
        });
    }
    if let Some(failure) = &station.failure {
        let (up, down) = (failure.to_failure, failure.to_repair);
        let (longer, shorter) = (scaled(up, 1.0 + step), scaled(down, 1.0 - step));
        found.add("time_to_failure", name, (up.mean(), longer.mean(), "s"), |line| {
            if let Some(failure) = &mut line.stations[at].failure {
                failure.to_failure = longer;
            }
        });
        found.add("time_to_repair", name, (down.mean(), shorter.mean(), "s"), |line| {
            if let Some(failure) = &mut line.stations[at].failure {
                failure.to_repair = shorter;
            }
        });
    }
    if station.scrap_share > 0.0 {
        let less = station.scrap_share * (1.0 - step);
        found.add("scrap_share", name, (station.scrap_share, less, ""), |line| {
            line.stations[at].scrap_share = less;
        });
    }
    if station.rework_share > 0.0 {
        let less = station.rework_share * (1.0 - step);
        found.add("rework_share", name, (station.rework_share, less, ""), |line| {
            line.stations[at].rework_share = less;
        });
    }
}

struct Changes<'a> {
    line: &'a Line,
    found: Vec<Change>,
}

impl Changes<'_> {
    fn add(
        &mut self,
        factor: &'static str,
        element: &str,
        (from, to, unit): (f64, f64, &'static str),
        change: impl FnOnce(&mut Line),
    ) {
        let mut line = self.line.clone();
        change(&mut line);
        self.found.push(Change { factor, element: element.to_owned(), from, to, unit, line });
    }
}

fn raised(count: usize, step: f64) -> usize {
    count + ((count as f64 * step).round() as usize).max(1)
}

/// The same draws, all multiplied.
fn scaled(time: Distribution, by: f64) -> Distribution {
    match time {
        Distribution::Constant { value } => Distribution::Constant { value: value * by },
        Distribution::Exponential { mean } => Distribution::Exponential { mean: mean * by },
        Distribution::Uniform { min, max } => Distribution::Uniform { min: min * by, max: max * by },
        Distribution::Triangular { min, mode, max } => {
            Distribution::Triangular { min: min * by, mode: mode * by, max: max * by }
        }
        Distribution::LogNormal { location, scale } => {
            Distribution::LogNormal { location: location + by.ln(), scale }
        }
        Distribution::Gamma { shape, scale } => Distribution::Gamma { shape, scale: scale * by },
        Distribution::Weibull { shape, scale } => Distribution::Weibull { shape, scale: scale * by },
    }
}
