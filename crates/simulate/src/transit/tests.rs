//! The search against one that knows no patterns, no marks and no order: every run of every trip is tried, ride by ride.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type};
use serde_json::{Value, json};
use twinlake_contracts::{Horizon, Operator, Outcome, Parameters, Result, Snapshot};
use twinlake_formats::gtfs;

use super::timetable::{Timetable, Walking, great_circle_m};
use crate::{Isochrone, Route};

struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

/// A call: stop, arrival, departure, whether one may board and alight.
type Call = (usize, i64, i64, bool, bool);

/// Day of the month, and whether the service runs then.
type Exceptions = Vec<(u32, bool)>;

/// From, to (not included) and seconds between departures.
type Headways = Vec<(i64, i64, i64)>;

/// A feed as its author knows it.
#[derive(Default)]
struct Feed {
    places: Vec<(f64, f64)>,
    /// Service and calls of each trip, and its headways.
    trips: Vec<(usize, Vec<Call>, Headways)>,
    /// By service: weekdays from Monday, and exceptions (day of the month, runs).
    services: Vec<([bool; 7], Exceptions)>,
    /// From, to, kind, seconds.
    transfers: Vec<(usize, usize, u8, i64)>,
}

impl Feed {
    fn random(dice: &mut Dice) -> Self {
        let stops = 4 + dice.below(8) as usize;
        let mut feed = Self {
            // A few kilometres wide: some stops lie within a walk.
            places: (0..stops)
                .map(|_| (60.0 + dice.below(40) as f64 / 1000.0, 25.0 + dice.below(80) as f64 / 1000.0))
                .collect(),
            ..Self::default()
        };
        for _ in 0..3 {
            let days = std::array::from_fn(|_| !dice.one_in(3));
            let exceptions = (9..=12).filter(|_| dice.one_in(4)).collect::<Vec<u32>>();
            feed.services.push((days, exceptions.into_iter().map(|day| (day, dice.one_in(2))).collect()));
        }
        for _ in 0..4 + dice.below(10) {
            let mut line: Vec<usize> =
                (0..2 + dice.below(5)).map(|_| dice.below(stops as u64) as usize).collect();
            line.dedup();
            if line.len() < 2 {
                continue;
            }
            for _ in 0..=dice.below(4) {
                let mut time = 3600 * (5 + dice.below(22) as i64) + 60 * dice.below(60) as i64;
                let mut calls = Vec::new();
                for stop in &line {
                    let wait = 60 * dice.below(2) as i64;
                    calls.push((*stop, time, time + wait, !dice.one_in(8), !dice.one_in(8)));
                    time += wait + 60 * dice.below(25) as i64;
                }
                let headways = if dice.one_in(6) {
                    let from = 3600 * (6 + dice.below(10) as i64);
                    vec![(from, from + 5400, 600 + 60 * dice.below(10) as i64)]
                } else {
                    Vec::new()
                };
                feed.trips.push((dice.below(3) as usize, calls, headways));
            }
        }
        for _ in 0..dice.below(4) {
            let (from, to) = (dice.below(stops as u64) as usize, dice.below(stops as u64) as usize);
            let new = |known: &(usize, usize, u8, i64)| known.0 != from || known.1 != to;
            if feed.transfers.iter().all(new) {
                feed.transfers.push((
                    from,
                    to,
                    [1, 2, 2, 3][dice.below(4) as usize],
                    60 * dice.below(15) as i64,
                ));
            }
        }
        feed
    }

    fn tables(&self) -> Snapshot {
        let clock = |time: i64| format!("{}:{:02}:{:02}", time / 3600, time / 60 % 60, time % 60);
        let mut stops = String::from("stop_id,stop_lat,stop_lon\n");
        for (at, (latitude, longitude)) in self.places.iter().enumerate() {
            let _ = writeln!(stops, "s{at},{latitude},{longitude}");
        }
        let mut trips = String::from("trip_id,route_id,service_id\n");
        let mut times = String::from(
            "trip_id,stop_sequence,stop_id,arrival_time,departure_time,pickup_type,drop_off_type\n",
        );
        let mut frequencies = String::from("trip_id,start_time,end_time,headway_secs\n");
        for (at, (service, calls, headways)) in self.trips.iter().enumerate() {
            let _ = writeln!(trips, "t{at},r,c{service}");
            for (sequence, (stop, arrival, departure, pickup, drop_off)) in calls.iter().enumerate() {
                let (pickup, drop_off) = (u8::from(!pickup), u8::from(!drop_off));
                let (arrival, departure) = (clock(*arrival), clock(*departure));
                let _ = writeln!(
                    times,
                    "t{at},{},s{stop},{arrival},{departure},{pickup},{drop_off}",
                    5 * sequence
                );
            }
            for (from, to, headway) in headways {
                let _ = writeln!(frequencies, "t{at},{},{},{headway}", clock(*from), clock(*to));
            }
        }
        let mut calendar = String::from(
            "service_id,monday,tuesday,wednesday,thursday,friday,saturday,sunday,start_date,end_date\n",
        );
        let mut dates = String::from("service_id,date,exception_type\n");
        for (at, (days, exceptions)) in self.services.iter().enumerate() {
            let days: Vec<&str> = days.iter().map(|day| if *day { "1" } else { "0" }).collect();
            let _ = writeln!(calendar, "c{at},{},20230101,20240101", days.join(","));
            for (day, runs) in exceptions {
                let _ = writeln!(dates, "c{at},202310{day:02},{}", if *runs { 1 } else { 2 });
            }
        }
        let mut transfers = String::from("from_stop_id,to_stop_id,transfer_type,min_transfer_time\n");
        for (from, to, kind, seconds) in &self.transfers {
            let _ = writeln!(transfers, "s{from},s{to},{kind},{seconds}");
        }
        let files = [
            ("stops.txt", stops),
            ("trips.txt", trips),
            ("stop_times.txt", times),
            ("frequencies.txt", frequencies),
            ("calendar.txt", calendar),
            ("calendar_dates.txt", dates),
            ("transfers.txt", transfers),
        ];
        let files = files.into_iter().map(|(name, text)| (name.to_owned(), text)).collect();
        Snapshot { tables: gtfs::read_feed(&files, "feed").unwrap() }
    }

    /// All runs around that day of October 2023 (the 9th was a Monday), in seconds after its midnight.
    fn runs(&self, day: u32) -> Vec<Vec<Call>> {
        let mut runs = Vec::new();
        for shift in [-1_i64, 0, 1] {
            let date = (i64::from(day) + shift) as u32;
            for (service, calls, headways) in &self.trips {
                let (days, exceptions) = &self.services[*service];
                let usual = days[(date as usize + 5) % 7];
                let exception = exceptions.iter().find(|exception| exception.0 == date);
                if !exception.map_or(usual, |exception| exception.1) {
                    continue;
                }
                let mut starts = Vec::new();
                for (from, to, headway) in headways {
                    let mut start = *from;
                    while start < *to {
                        starts.push(start - calls[0].2);
                        start += headway;
                    }
                }
                if headways.is_empty() {
                    starts.push(0);
                }
                for start in starts {
                    let later = start + 86_400 * shift;
                    runs.push(
                        calls
                            .iter()
                            .map(|call| (call.0, call.1 + later, call.2 + later, call.3, call.4))
                            .collect(),
                    );
                }
            }
        }
        runs
    }

    /// Seconds from alighting at one stop to being ready at another.
    fn change(&self, from: usize, to: usize, walking: &Walking) -> Option<i64> {
        let rule = self.transfers.iter().find(|rule| rule.0 == from && rule.1 == to);
        let metres = 1.3 * great_circle_m(self.places[from], self.places[to]);
        match rule {
            Some((_, _, 3, _)) => None,
            Some((_, _, 1, _)) => Some(0),
            Some((_, _, 2, seconds)) => Some(*seconds),
            _ if from == to => Some(walking.change_s),
            _ => (metres <= walking.transfer_m)
                .then(|| (metres / walking.speed_mps).ceil() as i64 + walking.change_s),
        }
    }

    /// Earliest arrival and the fewest rides for it.
    fn earliest(
        &self,
        runs: &[Vec<Call>],
        walking: &Walking,
        from: usize,
        to: usize,
        departure: i64,
    ) -> Option<(i64, i64)> {
        let stops = self.places.len();
        let walk = |one: usize, other: usize| -> Option<i64> {
            let metres = 1.3 * great_circle_m(self.places[one], self.places[other]);
            let seconds = (metres / walking.speed_mps).ceil() as i64;
            if one == other { Some(0) } else { (metres <= walking.access_m).then_some(seconds) }
        };
        let mut best = walk(from, to).map(|walk| (departure + walk, 0));
        let mut ready: Vec<Option<i64>> =
            (0..stops).map(|stop| walk(from, stop).map(|walk| departure + walk)).collect();
        for rides in 1..=8 {
            let mut arrival: Vec<Option<i64>> = vec![None; stops];
            for run in runs {
                let mut aboard = false;
                for (stop, arrives, departs, pickup, drop_off) in run {
                    if aboard && *drop_off && arrival[*stop].is_none_or(|known| *arrives < known) {
                        arrival[*stop] = Some(*arrives);
                    }
                    aboard |= *pickup && ready[*stop].is_some_and(|ready| ready <= *departs);
                }
            }
            for (stop, arrives) in arrival.iter().enumerate() {
                if let (Some(arrives), Some(walk)) = (arrives, walk(stop, to))
                    && best.is_none_or(|best| arrives + walk < best.0)
                {
                    best = Some((arrives + walk, rides));
                }
            }
            ready = (0..stops)
                .map(|stop| {
                    let changes = (0..stops)
                        .filter_map(|other| Some(arrival[other]? + self.change(other, stop, walking)?));
                    changes.chain(ready[stop]).min()
                })
                .collect();
        }
        best
    }
}

fn run(operator: &dyn Operator, city: &Snapshot, set: &[(&str, Value)]) -> Result<Outcome> {
    let mut set: Parameters = set.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    set.insert("mode".to_owned(), json!("transit"));
    operator.run(city, Horizon { from_us: 0, to_us: 0 }, 0, &set, &|_, _| true)
}

fn whole(outcome: &Outcome, role: &str, name: &str) -> Vec<Option<i64>> {
    outcome.tables[role][name].as_primitive::<Int64Type>().iter().collect()
}

fn text(outcome: &Outcome, role: &str, name: &str) -> Vec<Option<String>> {
    outcome.tables[role][name].as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
}

/// Pairs of stops with departures.
fn demand(rows: &[(String, String, i64)]) -> arrow::array::RecordBatch {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    RecordBatch::try_from_iter([
        ("origin", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.0))) as ArrayRef),
        ("destination", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.1)))),
        ("departure_s", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2)))),
    ])
    .unwrap()
}

#[test]
fn journeys_are_those_of_trying_everything() {
    let walking = Walking { speed_mps: 1.3, detour: 1.3, transfer_m: 500.0, access_m: 900.0, change_s: 120 };
    let mut dice = Dice(4);
    let (mut found, mut with_changes) = (0, 0);
    for case in 0..120 {
        let feed = Feed::random(&mut dice);
        let mut city = feed.tables();
        let day = 9 + dice.below(5) as u32;
        let stops = feed.places.len();
        let queries: Vec<(usize, usize, i64)> = (0..60)
            .map(|_| {
                let time = 3600 * dice.below(30) as i64 + dice.below(3600) as i64;
                (dice.below(stops as u64) as usize, dice.below(stops as u64) as usize, time)
            })
            .collect();
        let rows: Vec<(String, String, i64)> =
            queries.iter().map(|query| (format!("s{}", query.0), format!("s{}", query.1), query.2)).collect();
        city.tables.insert("demand".to_owned(), demand(&rows));
        let set = [
            ("date", json!(format!("2023-10-{day:02}"))),
            ("max_transfer_walk_m", json!(500)),
            ("max_access_walk_m", json!(900)),
            ("change_s", json!(120)),
        ];
        let outcome = run(&Route, &city, &set).unwrap();
        let (arrivals, rides) =
            (whole(&outcome, "journeys", "arrival_s"), whole(&outcome, "journeys", "rides"));
        let runs = feed.runs(day);
        for (row, (from, to, departure)) in queries.iter().enumerate() {
            let exact = feed.earliest(&runs, &walking, *from, *to, *departure);
            let ours = arrivals[row].zip(rides[row]);
            assert_eq!(ours, exact, "feed {case}, day {day}, from {from} to {to} at {departure}");
            found += usize::from(exact.is_some());
            with_changes += usize::from(exact.is_some_and(|exact| exact.1 > 1));
        }
        check_legs(&feed, &runs, &outcome, &queries);
    }
    assert!(found > 3000 && with_changes > 300, "{found} journeys, {with_changes} with changes");
}

/// Every leg is possible, each begins after the one before, and the last ends at the arrival.
fn check_legs(feed: &Feed, runs: &[Vec<Call>], outcome: &Outcome, queries: &[(usize, usize, i64)]) {
    let (rows, kinds) = (whole(outcome, "legs", "row"), text(outcome, "legs", "kind"));
    let (from, to) = (text(outcome, "legs", "from_stop"), text(outcome, "legs", "to_stop"));
    let (departs, arrives) = (whole(outcome, "legs", "departure_s"), whole(outcome, "legs", "arrival_s"));
    let arrivals = whole(outcome, "journeys", "arrival_s");
    let number = |stop: &Option<String>| stop.as_ref().map(|stop| stop[1..].parse::<usize>().unwrap());
    let mut ends: BTreeMap<i64, i64> = BTreeMap::new();
    for leg in 0..rows.len() {
        let row = rows[leg].unwrap();
        let (leaves, comes) = (departs[leg].unwrap(), arrives[leg].unwrap());
        let before = ends.insert(row, comes).unwrap_or(queries[row as usize - 1].2);
        assert!(before <= leaves && leaves <= comes, "leg {leg} of row {row}");
        if kinds[leg].as_deref() == Some("ride") {
            let (from, to) = (number(&from[leg]).unwrap(), number(&to[leg]).unwrap());
            let rides = |run: &Vec<Call>| {
                let board = run.iter().position(|call| call.0 == from && call.2 == leaves && call.3);
                board.is_some_and(|at| {
                    run[at + 1..].iter().any(|call| call.0 == to && call.1 == comes && call.4)
                })
            };
            assert!(runs.iter().any(rides), "nothing runs from {from} at {leaves} to {to} at {comes}");
        }
    }
    for (row, end) in ends {
        assert_eq!(arrivals[row as usize - 1], Some(end));
    }
    assert!(feed.places.len() > 3);
}

#[test]
fn isochrones_agree_with_routes() {
    let mut dice = Dice(77);
    for _ in 0..20 {
        let feed = Feed::random(&mut dice);
        let mut city = feed.tables();
        let stops = feed.places.len();
        let rows: Vec<(String, String, i64)> =
            (0..stops).map(|stop| ("s0".to_owned(), format!("s{stop}"), 30_000)).collect();
        city.tables.insert("demand".to_owned(), demand(&rows));
        let mut origins = demand(&rows[..1]);
        origins = arrow::array::RecordBatch::try_from_iter([
            ("stop_id", origins.remove_column(0)),
            ("departure_s", origins.column(1).clone()),
        ])
        .unwrap();
        city.tables.insert("origins".to_owned(), origins);
        // Without a walk from the last ride the two ask the same question.
        let set = [("date", json!("2023-10-10")), ("max_access_walk_m", json!(0))];
        let routes = run(&Route, &city, &set).unwrap();
        let reach =
            run(&Isochrone, &city, &[&set[..], &[("limits", json!([3600, 200_000]))]].concat()).unwrap();
        let names = text(&reach, "stops", "stop_id");
        let costs: Vec<Option<f64>> =
            reach.tables["stops"]["cost"].as_primitive::<Float64Type>().iter().collect();
        for (stop, duration) in whole(&routes, "journeys", "duration_s").into_iter().enumerate() {
            let at = names.iter().position(|name| name.as_deref() == Some(format!("s{stop}").as_str()));
            assert_eq!(at.and_then(|at| costs[at]), duration.map(|duration| duration as f64), "stop {stop}");
        }
    }
}

#[test]
fn mistakes_are_named() {
    let feed = Feed::random(&mut Dice(4));
    let mut city = feed.tables();
    city.tables.insert("demand".to_owned(), demand(&[("s0".to_owned(), "nowhere".to_owned(), 0)]));
    let said = |set: &[(&str, Value)]| run(&Route, &city, set).err().unwrap().to_string();
    assert!(said(&[]).contains("--set date=2017-07-24"));
    assert!(said(&[("date", json!("2023-10-09"))]).contains("row 1 of 'demand' names the stop 'nowhere'"));
    assert!(
        said(&[("date", json!("2023-10-09")), ("walk_speed_mps", json!(0))]).contains("walk_speed_mps = 0")
    );
}

/// A real feed, if the test data are there: a line with weekday, Saturday and Sunday services and exceptions.
#[test]
fn a_real_feed() {
    let Some(data) = std::env::var_os("TWINLAKE_TESTDATA") else {
        println!("skipped: TWINLAKE_TESTDATA is not set, so there is no real feed to route on");
        return;
    };
    let folder = std::path::Path::new(&data).join("traffic/gtfs-caltrain");
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        files.insert(name, std::fs::read_to_string(&path).unwrap());
    }
    let mut city = Snapshot { tables: gtfs::read_feed(&files, "caltrain").unwrap() };
    let walking = Walking { speed_mps: 1.3, detour: 1.3, transfer_m: 400.0, access_m: 800.0, change_s: 60 };
    // 24 July 2017, a Monday: from San Francisco (northern platforms are 70011, southern 70012) to San Jose Diridon.
    let table = Timetable::read(&city, 17_371, &walking).unwrap();
    assert!(table.running > 80, "{}", table.running);
    let rows = [28_500, 43_200, 79_200].map(|time| ("70012".to_owned(), "70262".to_owned(), time));
    city.tables.insert("demand".to_owned(), demand(&rows));
    let outcome = run(&Route, &city, &[("date", json!("2017-07-24"))]).unwrap();
    let arrivals = whole(&outcome, "journeys", "arrival_s");
    // Every run of the day from the feed itself, without changes: none arrives before what was found.
    let times = &city.tables["stop_times"];
    let (trips, stops) = (times["trip_id"].as_string::<i32>(), times["stop_id"].as_string::<i32>());
    let clock = |column: &str, row: usize| times[column].as_primitive::<Int64Type>().value(row);
    let running: std::collections::HashSet<&str> = table
        .patterns
        .iter()
        .flat_map(|pattern| &pattern.trips)
        .map(|trip| table.trip_ids[*trip as usize].as_str())
        .collect();
    for ((.., departure), arrival) in rows.iter().zip(&arrivals) {
        let arrival = arrival.unwrap();
        let mut direct: BTreeMap<&str, (Option<i64>, Option<i64>)> = BTreeMap::new();
        for row in 0..times.num_rows() {
            let slot = direct.entry(trips.value(row)).or_default();
            match stops.value(row) {
                "70012" => slot.0 = Some(clock("departure_s", row)),
                "70262" => slot.1 = Some(clock("arrival_s", row)),
                _ => {}
            }
        }
        let first = direct
            .iter()
            .filter(|(trip, _)| running.contains(*trip))
            .filter_map(|(_, (leaves, comes))| leaves.zip(*comes))
            .filter(|(leaves, comes)| leaves >= departure && comes > leaves)
            .map(|(_, comes)| comes)
            .min();
        assert!(
            first.is_none_or(|first| arrival <= first) && arrival - departure < 3 * 3600,
            "{arrival} {first:?}"
        );
    }
}
