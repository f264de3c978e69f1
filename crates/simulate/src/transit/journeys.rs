//! The mode `transit` of `route` and `isochrone`: journeys on foot and by public transport.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use twinlake_contracts::{Error, Outcome, ParameterSpec, Parameters, Progress, Result, Snapshot, TableShape};

use super::raptor::{NEVER, Ready, Round, search};
use super::timetable::{Timetable, Walking};
use crate::columns::Table;
use crate::parameters::{self, word};

/// The tables of a timetable, as `formats::gtfs` gives them.
pub(crate) fn timetable_tables() -> Vec<TableShape> {
    let shape = |role, description, columns| TableShape { role, description, columns };
    vec![
        shape(
            "stops",
            "Mode transit. Where vehicles call (GTFS stops.txt).",
            vec![
                ("stop_id", "Utf8", "names the stop"),
                ("latitude", "Float64", "degrees"),
                ("longitude", "Float64", "degrees"),
                ("parent_station", "Utf8", "the station it belongs to; null or no column: none"),
            ],
        ),
        shape(
            "trips",
            "Mode transit (GTFS trips.txt).",
            vec![
                ("trip_id", "Utf8", "names the trip"),
                ("route_id", "Utf8", "the line"),
                ("service_id", "Utf8", "on which days it runs"),
            ],
        ),
        shape(
            "stop_times",
            "Mode transit (GTFS stop_times.txt). Times left out lie evenly between those given.",
            vec![
                ("trip_id", "Utf8", "the trip"),
                ("stop_sequence", "Int64", "order along the trip"),
                ("stop_id", "Utf8", "the stop"),
                ("arrival_s", "Int64", "seconds after midnight of the service day; beyond 86400 past it"),
                ("departure_s", "Int64", "the same"),
                ("pickup", "Boolean", "false: nobody may board; null or no column: true"),
                ("drop_off", "Boolean", "false: nobody may alight; null or no column: true"),
            ],
        ),
        shape(
            "calendar",
            "Mode transit (GTFS calendar.txt); may be left out.",
            vec![
                ("service_id", "Utf8", "the service"),
                ("monday", "Boolean", "whether it runs on Mondays; so on to sunday"),
                ("start_date", "Date32", "first day"),
                ("end_date", "Date32", "last day"),
            ],
        ),
        shape(
            "calendar_dates",
            "Mode transit (GTFS calendar_dates.txt); may be left out.",
            vec![
                ("service_id", "Utf8", "the service"),
                ("date", "Date32", "the day"),
                ("exception_type", "Int64", "1: runs, 2: does not"),
            ],
        ),
        shape(
            "frequencies",
            "Mode transit (GTFS frequencies.txt); may be left out. Every headway is taken as a departure to the second.",
            vec![
                ("trip_id", "Utf8", "the trip"),
                ("start_s", "Int64", "first departure, seconds"),
                ("end_s", "Int64", "end, not included, seconds"),
                ("headway_s", "Int64", "seconds between departures"),
            ],
        ),
        shape(
            "transfers",
            "Mode transit (GTFS transfers.txt); may be left out.",
            vec![
                ("from_stop_id", "Utf8", "stop or station"),
                ("to_stop_id", "Utf8", "stop or station"),
                (
                    "transfer_type",
                    "Int64",
                    "0 possible, 1 timed, 2 takes min_transfer_time_s, 3 not possible",
                ),
                ("min_transfer_time_s", "Int64", "seconds from arrival to boarding"),
            ],
        ),
    ]
}

/// The parameters of the mode.
pub(crate) fn transit_parameters() -> Vec<ParameterSpec> {
    let parameter = |name, description, unit, default| ParameterSpec { name, description, unit, default };
    vec![
        parameter("mode", "'road' or 'transit' (on foot and by public transport)", "", json!("road")),
        parameter("date", "transit: the day, YYYY-MM-DD", "", Value::Null),
        parameter(
            "departure_s",
            "transit: departure after midnight, where the table does not say",
            "s",
            json!(28_800),
        ),
        parameter("max_rides", "transit: at most so many rides", "", json!(8)),
        parameter("walk_speed_mps", "transit: speed on foot", "m/s", json!(1.3)),
        parameter("walk_detour", "transit: distance walked by straight-line distance", "", json!(1.3)),
        parameter("max_transfer_walk_m", "transit: farthest walk between two rides", "m", json!(400)),
        parameter(
            "max_access_walk_m",
            "transit: farthest walk to the first and from the last ride",
            "m",
            json!(800),
        ),
        parameter("change_s", "transit: time to change, beside the walk", "s", json!(60)),
    ]
}

/// Whether the parameters ask for the mode.
pub(crate) fn wants_transit(parameters: &Parameters) -> Result<bool> {
    Ok(word(parameters, "mode", &["road", "transit"])? == "transit")
}

/// The parameters of the mode, read.
pub(super) struct Settings {
    pub(super) date: i32,
    departure_s: i32,
    pub(super) rides: usize,
    pub(super) walking: Walking,
}

impl Settings {
    pub(super) fn read(parameters: &Parameters) -> Result<Self> {
        let number = |name: &str, least: f64, most: f64| -> Result<f64> {
            let wanted = format!("a number from {least} to {most}");
            parameters::number(parameters, name, &wanted, |value| (least..=most).contains(&value))
        };
        let date = match &parameters["date"] {
            Value::String(text) => days(text),
            _ => None,
        };
        let date = date.ok_or_else(|| {
            Error::config(format!("parameter date = {} must be a day", parameters["date"])).with_help(
                "for example --set date=2017-07-24: trips depend on the day of the week and on holidays",
            )
        })?;
        Ok(Self {
            date,
            departure_s: number("departure_s", 0.0, 172_800.0)? as i32,
            rides: number("max_rides", 1.0, 50.0)? as usize,
            walking: Walking {
                speed_mps: number("walk_speed_mps", 0.1, 10.0)?,
                detour: number("walk_detour", 1.0, 10.0)?,
                transfer_m: number("max_transfer_walk_m", 0.0, 10_000.0)?,
                access_m: number("max_access_walk_m", 0.0, 20_000.0)?,
                change_s: number("change_s", 0.0, 3600.0)? as i64,
            },
        })
    }
}

/// `YYYY-MM-DD` as days since 1970-01-01 (proleptic Gregorian calendar; Hinnant 2013, days_from_civil).
fn days(text: &str) -> Option<i32> {
    let mut parts = text.trim().split('-').map(|part| part.parse::<i32>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = *lengths.get(usize::try_from(month - 1).ok()?)?;
    if parts.next().is_some() || !(1..=length).contains(&day) || !(1900..=2200).contains(&year) {
        return None;
    }
    // Years begin in March, so that the leap day is the last of its year.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468)
}

/// Where a journey begins or ends.
#[derive(Debug, Clone)]
pub(super) struct End {
    name: String,
    place: (f64, f64),
    /// Stops that are this end, without a walk.
    stops: Vec<u32>,
}

impl End {
    fn stop(table: &Timetable, id: &str) -> Option<Self> {
        let index = *table.index.get(id)?;
        let it = &table.stops[index as usize];
        // A station is all of its stops.
        let inside = (0..table.stops.len() as u32)
            .filter(|stop| table.stops[*stop as usize].parent.as_deref() == Some(id));
        let stops = std::iter::once(index).chain(inside).collect();
        Some(Self { name: id.to_owned(), place: (it.latitude, it.longitude), stops })
    }

    /// Stops within the walk, with its seconds.
    pub(super) fn within_walk(&self, table: &Timetable, walking: &Walking) -> Vec<(u32, i32)> {
        let stops = table.stops.iter().enumerate();
        stops
            .filter_map(|(at, stop)| {
                if self.stops.contains(&(at as u32)) {
                    return Some((at as u32, 0));
                }
                let metres = walking.metres(self.place, (stop.latitude, stop.longitude));
                (metres <= walking.access_m).then(|| (at as u32, walking.seconds(metres)))
            })
            .collect()
    }
}

/// The ends that a table names, by stop in `<what>` or by place in `<what>_longitude` and `<what>_latitude`.
fn read_ends(batch: &RecordBatch, role: &str, what: &str, table: &Timetable) -> Result<Vec<End>> {
    let rows = Table::new(role, batch);
    let (longitude, latitude) = if what == "stop_id" {
        ("longitude".to_owned(), "latitude".to_owned())
    } else {
        (format!("{what}_longitude"), format!("{what}_latitude"))
    };
    if rows.has(&longitude) && !rows.has(what) {
        let (longitudes, latitudes) = (rows.numbers(&longitude)?, rows.numbers(&latitude)?);
        return longitudes
            .into_iter()
            .zip(latitudes)
            .enumerate()
            .map(|(row, place)| match place {
                (Some(longitude), Some(latitude)) if longitude.abs() <= 180.0 && latitude.abs() <= 90.0 => {
                    Ok(End {
                        name: format!("{longitude} {latitude}"),
                        place: (latitude, longitude),
                        stops: Vec::new(),
                    })
                }
                _ => Err(Error::config(format!(
                    "row {} of '{role}' has no {longitude} and {latitude} in degrees",
                    row + 1
                ))),
            })
            .collect();
    }
    identifiers(batch, &rows, what)?
        .into_iter()
        .enumerate()
        .map(|(row, id)| {
            let id = id.unwrap_or_default();
            End::stop(table, &id).ok_or_else(|| {
                Error::config(format!(
                    "row {} of '{role}' names the stop '{id}', which 'stops' does not have",
                    row + 1
                ))
            })
        })
        .collect()
}

/// A column of identifiers. A file in which all of them are numbers may have made numbers of them.
fn identifiers(batch: &RecordBatch, rows: &Table<'_>, column: &str) -> Result<Vec<Option<String>>> {
    match batch.column_by_name(column) {
        Some(values) if values.data_type().is_integer() => {
            let texts = cast(values, &DataType::Utf8)?;
            Ok(texts.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect())
        }
        _ => rows.texts(column),
    }
}

/// A leg of a journey: on foot, or a ride.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Leg {
    pub(super) from: Option<u32>,
    pub(super) to: Option<u32>,
    pub(super) trip: Option<u32>,
    pub(super) departure: i32,
    pub(super) arrival: i32,
}

/// A journey, from its start.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Journey {
    pub(super) arrival: i32,
    pub(super) rides: usize,
    pub(super) legs: Vec<Leg>,
}

/// The earliest arrival, with as few rides as it can be had with.
pub(super) fn earliest(
    table: &Timetable,
    settings: &Settings,
    from: &End,
    to: &End,
    departure: i32,
) -> Option<Journey> {
    let walking = &settings.walking;
    let access: Vec<(u32, i32)> =
        from.within_walk(table, walking).into_iter().map(|(stop, walk)| (stop, departure + walk)).collect();
    let egress = to.within_walk(table, walking);
    let rounds = search(table, &access, settings.rides);
    let metres = walking.metres(from.place, to.place);
    let same = from.stops.iter().any(|stop| to.stops.contains(stop));
    let mut best: Option<(i32, usize, u32, i32)> = None;
    for (rides, round) in rounds.iter().enumerate().skip(1) {
        for (stop, walk) in &egress {
            let arrival = round.arrival[*stop as usize].saturating_add(*walk);
            if round.arrival[*stop as usize] < NEVER && best.is_none_or(|best| arrival < best.0) {
                best = Some((arrival, rides, *stop, *walk));
            }
        }
    }
    let on_foot = if same { Some(0) } else { (metres <= walking.access_m).then(|| walking.seconds(metres)) };
    if let Some(walk) = on_foot.filter(|walk| best.is_none_or(|best| departure + walk <= best.0)) {
        let leg = Leg { from: None, to: None, trip: None, departure, arrival: departure + walk };
        return Some(Journey {
            arrival: departure + walk,
            rides: 0,
            legs: if walk > 0 { vec![leg] } else { Vec::new() },
        });
    }
    let (arrival, rides, stop, walk) = best?;
    let mut legs = legs_back(table, &rounds, rides, stop, departure);
    if walk > 0 {
        legs.push(Leg { from: Some(stop), to: None, trip: None, departure: arrival - walk, arrival });
    }
    Some(Journey { arrival, rides: legs.iter().filter(|leg| leg.trip.is_some()).count().min(rides), legs })
}

/// The legs up to the arrival at a stop in a round, followed back.
fn legs_back(table: &Timetable, rounds: &[Round], round: usize, stop: u32, departure: i32) -> Vec<Leg> {
    let mut legs = Vec::new();
    let (mut round, mut stop) = (round, stop);
    // The value may be of an earlier round: the last that made it better.
    while let Some((at, ride)) =
        (1..=round).rev().find_map(|at| rounds[at].ride[stop as usize].map(|ride| (at, ride)))
    {
        let pattern = &table.patterns[ride.pattern as usize];
        let (trip, board) = (ride.trip as usize, ride.board as usize);
        let boarded = pattern.stops[board];
        legs.push(Leg {
            from: Some(boarded),
            to: Some(stop),
            trip: Some(pattern.trips[trip]),
            departure: pattern.departure(trip, board),
            arrival: pattern.arrival(trip, ride.alight as usize),
        });
        let came = (0..at).rev().find_map(|at| match rounds[at].came[boarded as usize] {
            Ready::Never => None,
            came => Some((at, came)),
        });
        if let Some((before, Ready::Change(other))) = came {
            if other != boarded {
                let left = rounds[before].arrival[other as usize];
                let ready = rounds[before].ready[boarded as usize];
                legs.push(Leg {
                    from: Some(other),
                    to: Some(boarded),
                    trip: None,
                    departure: left,
                    arrival: ready,
                });
            }
            (round, stop) = (before, other);
        } else {
            let ready = rounds[0].ready[boarded as usize];
            if ready > departure {
                legs.push(Leg { from: None, to: Some(boarded), trip: None, departure, arrival: ready });
            }
            break;
        }
    }
    legs.reverse();
    legs
}

/// `route` in the mode `transit`.
pub(crate) fn route(city: &Snapshot, parameters: &Parameters, progress: Progress<'_>) -> Result<Outcome> {
    let settings = Settings::read(parameters)?;
    if !progress(0.0, "reading the timetable") {
        return Err(Error::config("the run was stopped"));
    }
    let table = Timetable::read(city, settings.date, &settings.walking)?;
    let demand = city.table("demand")?;
    let (from, to) =
        (read_ends(demand, "demand", "origin", &table)?, read_ends(demand, "demand", "destination", &table)?);
    let departures = departures(demand, "demand", settings.departure_s)?;
    let queries: Vec<usize> = (0..demand.num_rows()).collect();
    let journeys: Vec<Option<Journey>> = queries
        .par_iter()
        .map(|row| earliest(&table, &settings, &from[*row], &to[*row], departures[*row]))
        .collect();
    let names = |ends: &[End]| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(ends.iter().map(|end| &end.name)))
    };
    let whole = |value: fn(&Journey) -> i64| -> ArrayRef {
        Arc::new(journeys.iter().map(|journey| journey.as_ref().map(value)).collect::<Int64Array>())
    };
    let duration = journeys
        .iter()
        .zip(&departures)
        .map(|(journey, departure)| journey.as_ref().map(|journey| i64::from(journey.arrival - departure)));
    let journey_table = RecordBatch::try_from_iter_with_nullable([
        ("origin", names(&from), false),
        ("destination", names(&to), false),
        (
            "departure_s",
            Arc::new(departures.iter().map(|time| Some(i64::from(*time))).collect::<Int64Array>())
                as ArrayRef,
            false,
        ),
        ("arrival_s", whole(|journey| i64::from(journey.arrival)), true),
        ("duration_s", Arc::new(duration.collect::<Int64Array>()), true),
        ("rides", whole(|journey| journey.rides as i64), true),
    ])?;
    let found = journeys.iter().filter(|journey| journey.is_some()).count();
    let summary = [
        ("pairs", json!(journeys.len())),
        ("reached", json!(found)),
        ("unreached", json!(journeys.len() - found)),
        ("trips_on_the_day", json!(table.running)),
        ("patterns", json!(table.patterns.len())),
        ("stops", json!(table.stops.len())),
    ];
    Ok(Outcome {
        tables: BTreeMap::from([
            ("journeys".to_owned(), journey_table),
            ("legs".to_owned(), leg_table(&table, &journeys)?),
        ]),
        summary: summary.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>(),
    })
}

fn departures(batch: &RecordBatch, role: &str, usual: i32) -> Result<Vec<i32>> {
    let table = Table::new(role, batch);
    if !table.has("departure_s") {
        return Ok(vec![usual; batch.num_rows()]);
    }
    let times = table.numbers("departure_s")?.into_iter().enumerate();
    times
        .map(|(row, time)| match time {
            None => Ok(usual),
            Some(time) if (0.0..=172_800.0).contains(&time) => Ok(time as i32),
            Some(time) => Err(Error::config(format!("row {} of '{role}' has departure_s {time}", row + 1))
                .with_help("seconds after midnight of the date, up to 172800")),
        })
        .collect()
}

fn leg_table(table: &Timetable, journeys: &[Option<Journey>]) -> Result<RecordBatch> {
    let legs: Vec<(usize, usize, &Leg)> = journeys
        .iter()
        .enumerate()
        .flat_map(|(row, journey)| {
            let legs = journey.iter().flat_map(|journey| journey.legs.iter().enumerate());
            legs.map(move |(at, leg)| (row, at, leg))
        })
        .collect();
    let whole = |value: fn(&(usize, usize, &Leg)) -> i64| -> ArrayRef {
        Arc::new(legs.iter().map(|leg| Some(value(leg))).collect::<Int64Array>())
    };
    let text = |value: &dyn Fn(&Leg) -> Option<String>| -> ArrayRef {
        Arc::new(legs.iter().map(|leg| value(leg.2)).collect::<StringArray>())
    };
    let stop = |stop: Option<u32>| stop.map(|stop| table.stops[stop as usize].id.clone());
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("row", whole(|leg| leg.0 as i64 + 1), false),
        ("sequence", whole(|leg| leg.1 as i64 + 1), false),
        ("kind", text(&|leg| Some(if leg.trip.is_some() { "ride" } else { "walk" }.to_owned())), false),
        ("from_stop", text(&|leg| stop(leg.from)), true),
        ("to_stop", text(&|leg| stop(leg.to)), true),
        ("trip_id", text(&|leg| leg.trip.map(|trip| table.trip_ids[trip as usize].clone())), true),
        ("route_id", text(&|leg| leg.trip.map(|trip| table.trip_routes[trip as usize].clone())), true),
        ("departure_s", whole(|leg| i64::from(leg.2.departure)), false),
        ("arrival_s", whole(|leg| i64::from(leg.2.arrival)), false),
    ])?)
}

/// `isochrone` in the mode `transit`: stops within the limits, seconds.
pub(crate) fn isochrone(city: &Snapshot, parameters: &Parameters, limits: &[f64]) -> Result<Outcome> {
    let settings = Settings::read(parameters)?;
    let table = Timetable::read(city, settings.date, &settings.walking)?;
    let batch = city.table("origins")?;
    let origins = read_ends(batch, "origins", "stop_id", &table)?;
    let departures = departures(batch, "origins", settings.departure_s)?;
    let (mut names, mut stops, mut costs, mut bands) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut rides = Vec::new();
    for (origin, departure) in origins.iter().zip(departures) {
        let walks = origin.within_walk(&table, &settings.walking);
        let access: Vec<(u32, i32)> =
            walks.into_iter().map(|(stop, walk)| (stop, departure + walk)).collect();
        let rounds = search(&table, &access, settings.rides);
        let mut found: Vec<(i32, u32, usize)> = Vec::new();
        for stop in 0..table.stops.len() {
            // On foot alone, or by the fewest rides that give the earliest arrival.
            let times = rounds.iter().map(|round| round.arrival[stop]).enumerate();
            let on_foot = (rounds[0].ready[stop], 0);
            let best = times.map(|(rides, time)| (time, rides)).chain([on_foot]).min();
            if let Some((time, rides)) = best.filter(|(time, _)| *time < NEVER) {
                found.push((time - departure, stop as u32, rides));
            }
        }
        found.sort_unstable();
        for (cost, stop, by) in found {
            if let Some(band) = limits.iter().find(|limit| f64::from(cost) <= **limit) {
                names.push(origin.name.clone());
                stops.push(table.stops[stop as usize].id.clone());
                costs.push(f64::from(cost));
                bands.push(*band);
                rides.push(by as i64);
            }
        }
    }
    let summary = [("origins", json!(origins.len())), ("stops_within", json!(stops.len()))];
    let rows = RecordBatch::try_from_iter([
        ("origin", Arc::new(StringArray::from(names)) as ArrayRef),
        ("stop_id", Arc::new(StringArray::from(stops))),
        ("cost", Arc::new(Float64Array::from(costs))),
        ("band", Arc::new(Float64Array::from(bands))),
        ("rides", Arc::new(Int64Array::from(rides))),
    ])?;
    Ok(Outcome {
        tables: BTreeMap::from([("stops".to_owned(), rows)]),
        summary: summary.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::days;

    #[test]
    fn days_of_the_calendar() {
        assert_eq!(days("1970-01-01"), Some(0));
        assert_eq!(days("2024-02-29"), Some(19_782));
        assert_eq!(days("2000-03-01"), Some(11_017));
        for wrong in ["2023-02-29", "2024-13-01", "2024-01", "24-01-01", "2024-01-01-01", "today"] {
            assert_eq!(days(wrong), None, "{wrong}");
        }
    }
}
