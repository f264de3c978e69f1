//! The trips that run around a date, as patterns: trips that call at the same stops in the same order, none overtaking
//! another (Delling, Pajor, Werneck 2015, section 3).

use std::collections::{BTreeMap, HashMap, HashSet};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Date32Type;
use twinlake_contracts::{Error, Result, Snapshot};

use crate::columns::Table;

/// Seconds of a day.
pub(super) const DAY: i64 = 86_400;

pub(super) struct Stop {
    pub(super) id: String,
    pub(super) latitude: f64,
    pub(super) longitude: f64,
    pub(super) parent: Option<String>,
}

/// Trips alike, by departure. Times are seconds after midnight of the date asked for, negative on the day before.
pub(super) struct Pattern {
    pub(super) stops: Vec<u32>,
    pub(super) pickup: Vec<bool>,
    pub(super) drop_off: Vec<bool>,
    /// A name a trip, and its arrivals and departures, trip after trip.
    pub(super) trips: Vec<u32>,
    pub(super) arrival: Vec<i32>,
    pub(super) departure: Vec<i32>,
}

impl Pattern {
    pub(super) fn arrival(&self, trip: usize, at: usize) -> i32 {
        self.arrival[trip * self.stops.len() + at]
    }

    pub(super) fn departure(&self, trip: usize, at: usize) -> i32 {
        self.departure[trip * self.stops.len() + at]
    }
}

/// A timetable for one date.
pub(super) struct Timetable {
    pub(super) stops: Vec<Stop>,
    pub(super) index: HashMap<String, u32>,
    pub(super) patterns: Vec<Pattern>,
    /// Patterns and positions by stop.
    pub(super) calls: Vec<Vec<(u32, u32)>>,
    /// By stop: where one can board after alighting there, and after how many seconds (the stop itself included).
    pub(super) changes: Vec<Vec<(u32, i32)>>,
    pub(super) trip_ids: Vec<String>,
    pub(super) trip_routes: Vec<String>,
    pub(super) running: usize,
}

/// How people walk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Walking {
    pub(super) speed_mps: f64,
    /// Straight-line distance times this is what one walks.
    pub(super) detour: f64,
    /// Farthest walk between stops, metres walked.
    pub(super) transfer_m: f64,
    /// Farthest walk to the first stop or from the last one, metres walked.
    pub(super) access_m: f64,
    /// Seconds to change vehicles, beside the walk.
    pub(super) change_s: i64,
}

impl Walking {
    /// Metres walked between two places.
    pub(super) fn metres(&self, one: (f64, f64), other: (f64, f64)) -> f64 {
        self.detour * great_circle_m(one, other)
    }

    pub(super) fn seconds(&self, metres: f64) -> i32 {
        (metres / self.speed_mps).ceil() as i32
    }
}

/// Metres between two places in degrees (latitude, longitude) on a sphere of 6,371,008.8 m (haversine; Sinnott 1984).
pub(super) fn great_circle_m(one: (f64, f64), other: (f64, f64)) -> f64 {
    let half = |a: f64, b: f64| ((b - a).to_radians() * 0.5).sin().powi(2);
    let sum =
        half(one.0, other.0) + one.0.to_radians().cos() * other.0.to_radians().cos() * half(one.1, other.1);
    2.0 * 6_371_008.8 * sum.sqrt().min(1.0).asin()
}

/// A trip's calls, in order.
struct Trip {
    stops: Vec<u32>,
    pickup: Vec<bool>,
    drop_off: Vec<bool>,
    arrival: Vec<i64>,
    departure: Vec<i64>,
}

impl Timetable {
    /// The trips of the date, what still runs from the day before, and the trips of the day after. `date`: days since
    /// 1970-01-01.
    pub(super) fn read(city: &Snapshot, date: i32, walking: &Walking) -> Result<Self> {
        let stops = read_stops(city.table("stops")?)?;
        let index: HashMap<String, u32> =
            stops.iter().enumerate().map(|(at, stop)| (stop.id.clone(), at as u32)).collect();
        let trips = Table::new("trips", city.table("trips")?);
        let trip_ids = texts(&trips, "trips", "trip_id")?;
        let trip_routes = texts(&trips, "trips", "route_id")?;
        let services = texts(&trips, "trips", "service_id")?;
        let numbers: HashMap<&str, usize> =
            trip_ids.iter().enumerate().map(|(at, id)| (id.as_str(), at)).collect();
        if numbers.len() < trip_ids.len() {
            return Err(Error::config("a trip_id is there twice in 'trips'"));
        }
        let calls = read_calls(city.table("stop_times")?, &numbers, &index, trip_ids.len())?;
        let frequencies = read_frequencies(city, &numbers)?;
        let active: Vec<HashSet<String>> =
            [-1, 0, 1].into_iter().map(|day| services_on(city, date + day)).collect::<Result<_>>()?;
        let mut groups: BTreeMap<CallKey, Vec<Run>> = BTreeMap::new();
        let mut running = 0;
        for (trip, calls) in calls.iter().enumerate() {
            let Some(calls) = calls else { continue };
            let starts: Vec<i64> = match frequencies.get(&trip) {
                None => vec![0],
                Some(windows) => windows
                    .iter()
                    .flat_map(|(from, to, headway)| (*from..*to).step_by(*headway as usize))
                    .map(|start| start - calls.departure[0])
                    .collect(),
            };
            for (day, services_of_day) in active.iter().enumerate() {
                if !services_of_day.contains(&services[trip]) {
                    continue;
                }
                let midnight = (day as i64 - 1) * DAY;
                for start in &starts {
                    let shift = midnight + start;
                    // What has ended before the date begins serves nobody.
                    if calls.arrival.last().is_some_and(|last| last + shift < 0) {
                        continue;
                    }
                    running += usize::from(day == 1);
                    let shifted =
                        |times: &[i64]| times.iter().map(|time| (time + shift) as i32).collect::<Vec<i32>>();
                    let key = (calls.stops.clone(), calls.pickup.clone(), calls.drop_off.clone());
                    groups.entry(key).or_default().push(Run {
                        trip: trip as u32,
                        arrival: shifted(&calls.arrival),
                        departure: shifted(&calls.departure),
                    });
                }
            }
        }
        let mut patterns = Vec::new();
        for ((stops, pickup, drop_off), runs) in groups {
            for lane in without_overtaking(runs) {
                patterns.push(Pattern {
                    stops: stops.clone(),
                    pickup: pickup.clone(),
                    drop_off: drop_off.clone(),
                    trips: lane.iter().map(|run| run.trip).collect(),
                    arrival: lane.iter().flat_map(|run| run.arrival.iter().copied()).collect(),
                    departure: lane.iter().flat_map(|run| run.departure.iter().copied()).collect(),
                });
            }
        }
        let mut calls = vec![Vec::new(); stops.len()];
        for (pattern, it) in patterns.iter().enumerate() {
            for (at, stop) in it.stops.iter().enumerate() {
                calls[*stop as usize].push((pattern as u32, at as u32));
            }
        }
        let changes = read_changes(city, &stops, &index, walking)?;
        Ok(Self { stops, index, patterns, calls, changes, trip_ids, trip_routes, running })
    }
}

/// What runs of a pattern have in common: stops, where one may board, where one may alight.
type CallKey = (Vec<u32>, Vec<bool>, Vec<bool>);

struct Run {
    trip: u32,
    arrival: Vec<i32>,
    departure: Vec<i32>,
}

/// Sorts runs into as few rows as a greedy choice finds, in each of which no run is ever ahead of the one before it.
fn without_overtaking(mut runs: Vec<Run>) -> Vec<Vec<Run>> {
    runs.sort_by(|one, other| {
        (&one.departure, &one.arrival, one.trip).cmp(&(&other.departure, &other.arrival, other.trip))
    });
    let mut lanes: Vec<Vec<Run>> = Vec::new();
    for run in runs {
        let follows = |lane: &&mut Vec<Run>| {
            lane.last().is_none_or(|last| {
                let behind =
                    |before: &[i32], after: &[i32]| before.iter().zip(after).all(|(one, other)| one <= other);
                behind(&last.arrival, &run.arrival) && behind(&last.departure, &run.departure)
            })
        };
        match lanes.iter_mut().find(follows) {
            Some(lane) => lane.push(run),
            None => lanes.push(vec![run]),
        }
    }
    lanes
}

fn texts(table: &Table<'_>, role: &str, column: &str) -> Result<Vec<String>> {
    table
        .texts(column)?
        .into_iter()
        .enumerate()
        .map(|(row, text)| {
            text.ok_or_else(|| Error::config(format!("row {} of '{role}' has no {column}", row + 1)))
        })
        .collect()
}

fn read_stops(batch: &RecordBatch) -> Result<Vec<Stop>> {
    let table = Table::new("stops", batch);
    let ids = texts(&table, "stops", "stop_id")?;
    let (latitudes, longitudes) = (table.numbers("latitude")?, table.numbers("longitude")?);
    let parents =
        if table.has("parent_station") { table.texts("parent_station")? } else { vec![None; ids.len()] };
    let mut seen = HashSet::new();
    ids.into_iter()
        .zip(parents)
        .enumerate()
        .map(|(row, (id, parent))| {
            if !seen.insert(id.clone()) {
                return Err(Error::config(format!("stop '{id}' is there twice in 'stops'")));
            }
            // A stop without a place can be changed at, but not walked to.
            let (latitude, longitude) =
                (latitudes[row].unwrap_or(f64::NAN), longitudes[row].unwrap_or(f64::NAN));
            if latitude.abs() > 90.0 || longitude.abs() > 180.0 {
                return Err(Error::config(format!(
                    "stop '{id}' is at latitude {latitude}, longitude {longitude}"
                )));
            }
            Ok(Stop { id, latitude, longitude, parent })
        })
        .collect()
}

/// The calls of each trip. Times that a feed leaves out lie evenly between those that it gives.
fn read_calls(
    batch: &RecordBatch,
    trips: &HashMap<&str, usize>,
    stops: &HashMap<String, u32>,
    count: usize,
) -> Result<Vec<Option<Trip>>> {
    let table = Table::new("stop_times", batch);
    let (trip_ids, stop_ids) =
        (texts(&table, "stop_times", "trip_id")?, texts(&table, "stop_times", "stop_id")?);
    let sequence = table.integers("stop_sequence")?;
    let (arrival, departure) = (table.numbers("arrival_s")?, table.numbers("departure_s")?);
    let allowed = |column: &str| -> Result<Vec<bool>> {
        if !table.has(column) {
            return Ok(vec![true; trip_ids.len()]);
        }
        Ok(table.flags(column)?.into_iter().map(|flag| flag.unwrap_or(true)).collect())
    };
    let (pickup, drop_off) = (allowed("pickup")?, allowed("drop_off")?);
    let mut rows: Vec<(usize, i64, usize)> = Vec::with_capacity(trip_ids.len());
    for (row, trip) in trip_ids.iter().enumerate() {
        let trip = trips.get(trip.as_str()).ok_or_else(|| {
            Error::config(format!(
                "row {} of 'stop_times' names the trip '{trip}', which 'trips' does not have",
                row + 1
            ))
        })?;
        rows.push((*trip, sequence[row], row));
    }
    rows.sort_unstable();
    let mut calls: Vec<Option<Trip>> = (0..count).map(|_| None).collect();
    for rows in rows.chunk_by(|one, other| one.0 == other.0) {
        let trip = rows[0].0;
        let mut stop_numbers = Vec::with_capacity(rows.len());
        for (_, _, row) in rows {
            let stop = stops.get(&stop_ids[*row]).ok_or_else(|| {
                Error::config(format!(
                    "row {} of 'stop_times' names the stop '{}', which 'stops' does not have",
                    row + 1,
                    stop_ids[*row]
                ))
            })?;
            stop_numbers.push(*stop);
        }
        let mut arrivals: Vec<Option<f64>> =
            rows.iter().map(|(.., row)| arrival[*row].or(departure[*row])).collect();
        let mut departures: Vec<Option<f64>> =
            rows.iter().map(|(.., row)| departure[*row].or(arrival[*row])).collect();
        let name = || format!("the trip '{}'", trip_ids[rows[0].2]);
        if arrivals.first().is_none_or(Option::is_none) || arrivals.last().is_none_or(Option::is_none) {
            return Err(Error::config(format!("{} has no time at its first or its last stop", name())));
        }
        fill_gaps(&mut arrivals, &mut departures);
        let whole = |times: Vec<Option<f64>>| -> Vec<i64> {
            times.into_iter().map(|time| time.unwrap_or(0.0).round() as i64).collect()
        };
        let (arrivals, departures) = (whole(arrivals), whole(departures));
        let in_order = arrivals.iter().zip(&departures).all(|(arrival, departure)| arrival <= departure)
            && departures.iter().zip(arrivals.iter().skip(1)).all(|(departure, next)| departure <= next);
        if !in_order {
            return Err(Error::config(format!("{} goes back in time", name()))
                .with_help("times of a trip must not fall along its stop_sequence; past midnight they go on beyond 24:00:00"));
        }
        calls[trip] = Some(Trip {
            stops: stop_numbers,
            pickup: rows.iter().map(|(.., row)| pickup[*row]).collect(),
            drop_off: rows.iter().map(|(.., row)| drop_off[*row]).collect(),
            arrival: arrivals,
            departure: departures,
        });
    }
    Ok(calls)
}

fn fill_gaps(arrivals: &mut [Option<f64>], departures: &mut [Option<f64>]) {
    let mut known = 0;
    for at in 1..arrivals.len() {
        let Some(arrival) = arrivals[at] else { continue };
        let departure = departures[known].unwrap_or(arrival);
        for between in known + 1..at {
            let share = (between - known) as f64 / (at - known) as f64;
            let time = (departure + share * (arrival - departure)).floor();
            arrivals[between] = Some(time);
            departures[between] = Some(time);
        }
        known = at;
    }
}

/// Headways by trip.
type Headways = HashMap<usize, Vec<(i64, i64, i64)>>;

/// By trip: from, to (not included) and headway, seconds.
fn read_frequencies(city: &Snapshot, trips: &HashMap<&str, usize>) -> Result<Headways> {
    let mut found = Headways::new();
    let Some(batch) = city.tables.get("frequencies") else { return Ok(found) };
    let table = Table::new("frequencies", batch);
    let ids = texts(&table, "frequencies", "trip_id")?;
    let (from, to, headway) =
        (table.integers("start_s")?, table.integers("end_s")?, table.integers("headway_s")?);
    for (row, id) in ids.iter().enumerate() {
        let trip = trips.get(id.as_str()).ok_or_else(|| {
            Error::config(format!(
                "row {} of 'frequencies' names the trip '{id}', which 'trips' does not have",
                row + 1
            ))
        })?;
        if headway[row] <= 0 {
            return Err(Error::config(format!(
                "row {} of 'frequencies' has a headway_s of {}",
                row + 1,
                headway[row]
            )));
        }
        found.entry(*trip).or_default().push((from[row], to[row], headway[row]));
    }
    Ok(found)
}

/// The services that run on that day: those of the calendar's weekday, with the exceptions of `calendar_dates`.
fn services_on(city: &Snapshot, day: i32) -> Result<HashSet<String>> {
    const WEEKDAYS: [&str; 7] =
        ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let mut running = HashSet::new();
    if let Some(batch) = city.tables.get("calendar") {
        let table = Table::new("calendar", batch);
        let services = texts(&table, "calendar", "service_id")?;
        // 1970-01-01 was a Thursday.
        let weekday = table.flags(WEEKDAYS[(i64::from(day) + 3).rem_euclid(7) as usize])?;
        let (from, to) = (dates(batch, "calendar", "start_date")?, dates(batch, "calendar", "end_date")?);
        for (row, service) in services.into_iter().enumerate() {
            if weekday[row] == Some(true) && (from[row]..=to[row]).contains(&day) {
                running.insert(service);
            }
        }
    }
    if let Some(batch) = city.tables.get("calendar_dates") {
        let table = Table::new("calendar_dates", batch);
        let services = texts(&table, "calendar_dates", "service_id")?;
        let (days, kinds) = (dates(batch, "calendar_dates", "date")?, table.integers("exception_type")?);
        for (row, service) in services.into_iter().enumerate() {
            if days[row] == day {
                match kinds[row] {
                    1 => running.insert(service),
                    2 => running.remove(&service),
                    other => {
                        return Err(Error::config(format!(
                            "row {} of 'calendar_dates' has exception_type {other}, it must be 1 (runs) or 2 (does not)",
                            row + 1
                        )));
                    }
                };
            }
        }
    }
    Ok(running)
}

fn dates(batch: &RecordBatch, role: &str, column: &str) -> Result<Vec<i32>> {
    let found = batch.column_by_name(column).and_then(|values| values.as_primitive_opt::<Date32Type>());
    match found {
        Some(days) if days.null_count() == 0 => Ok(days.values().to_vec()),
        _ => Err(Error::config(format!(
            "the table '{role}' needs a column '{column}' of type Date32 without nulls"
        ))),
    }
}

/// Where one can change: at the stop itself, at stops within a walk and of the same station; `transfers` has the last word.
fn read_changes(
    city: &Snapshot,
    stops: &[Stop],
    index: &HashMap<String, u32>,
    walking: &Walking,
) -> Result<Vec<Vec<(u32, i32)>>> {
    let change = walking.change_s as i32;
    let mut found: Vec<BTreeMap<u32, i32>> = vec![BTreeMap::new(); stops.len()];
    let mut north: Vec<u32> =
        (0..stops.len() as u32).filter(|stop| stops[*stop as usize].latitude.is_finite()).collect();
    north.sort_by(|one, other| stops[*one as usize].latitude.total_cmp(&stops[*other as usize].latitude));
    // Whoever is farther north than this is too far, whatever the longitude.
    let band = walking.transfer_m / walking.detour / 110_000.0;
    for (at, one) in north.iter().enumerate() {
        let here = &stops[*one as usize];
        for other in &north[at + 1..] {
            let there = &stops[*other as usize];
            if there.latitude - here.latitude > band {
                break;
            }
            let metres = walking.metres((here.latitude, here.longitude), (there.latitude, there.longitude));
            if metres <= walking.transfer_m {
                let seconds = walking.seconds(metres) + change;
                found[*one as usize].insert(*other, seconds);
                found[*other as usize].insert(*one, seconds);
            }
        }
    }
    for (stop, row) in found.iter_mut().enumerate() {
        row.insert(stop as u32, change);
    }
    if let Some(batch) = city.tables.get("transfers") {
        let table = Table::new("transfers", batch);
        let (from, to) =
            (texts(&table, "transfers", "from_stop_id")?, texts(&table, "transfers", "to_stop_id")?);
        let (kinds, least) = (table.numbers("transfer_type")?, table.numbers("min_transfer_time_s")?);
        for row in 0..batch.num_rows() {
            // A station stands for all of its stops.
            let members = |name: &str| -> Vec<u32> {
                let inside = (0..stops.len() as u32)
                    .filter(|stop| stops[*stop as usize].parent.as_deref() == Some(name));
                index.get(name).copied().into_iter().chain(inside).collect()
            };
            for one in members(&from[row]) {
                for other in members(&to[row]) {
                    let same = if one == other { 0 } else { i32::MAX };
                    let walk = found[one as usize].get(&other).copied().unwrap_or(same);
                    match (kinds[row].unwrap_or(0.0) as i64, least[row]) {
                        (3, _) => {
                            found[one as usize].remove(&other);
                        }
                        (1, _) => {
                            found[one as usize].insert(other, 0);
                        }
                        (2, Some(seconds)) => {
                            found[one as usize].insert(other, seconds as i32);
                        }
                        _ if walk == i32::MAX => {
                            let (here, there) = (&stops[one as usize], &stops[other as usize]);
                            let metres = walking
                                .metres((here.latitude, here.longitude), (there.latitude, there.longitude));
                            if metres.is_finite() {
                                found[one as usize].insert(other, walking.seconds(metres) + change);
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    Ok(found.into_iter().map(|row| row.into_iter().collect()).collect())
}
