//! A timetable of public transport: the files of GTFS Schedule as tables.
//!
//! Takes the texts of a feed's files by name (`stops.txt`, `stop_times.txt`, …) and gives a table each, with the columns
//! that routing needs: times in seconds after noon minus 12 hours of the service day (so past midnight they go on beyond
//! 86,400), dates as `Date32`, identifiers as text. Columns that are not listed in [`FILES`] are left out.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Date32Array, Float64Array, Int64Array, RecordBatch, StringArray};
use chrono::{Datelike, NaiveDate};
use twinlake_contracts::{Error, Place, Result};

/// What the text of a column means.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Text,
    Number,
    Whole,
    /// `H:MM:SS`, as seconds.
    Time,
    /// `YYYYMMDD`.
    Date,
    /// 0 or 1.
    Flag,
    /// 1 means no, anything else yes.
    NotForbidden,
}

/// A column: its name in the file, its name in the table, its kind, and whether every row must have a value.
type Column = (&'static str, &'static str, Kind, bool);

/// A file: its name, the table's role, whether a feed must have it, and its columns.
type File = (&'static str, &'static str, bool, &'static [Column]);

const FILES: [File; 8] = [
    (
        "stops.txt",
        "stops",
        true,
        &[
            ("stop_id", "stop_id", Kind::Text, true),
            ("stop_name", "name", Kind::Text, false),
            ("stop_lat", "latitude", Kind::Number, false),
            ("stop_lon", "longitude", Kind::Number, false),
            ("location_type", "location_type", Kind::Whole, false),
            ("parent_station", "parent_station", Kind::Text, false),
        ],
    ),
    (
        "routes.txt",
        "routes",
        false,
        &[
            ("route_id", "route_id", Kind::Text, true),
            ("route_short_name", "short_name", Kind::Text, false),
            ("route_long_name", "long_name", Kind::Text, false),
            ("route_type", "route_type", Kind::Whole, false),
        ],
    ),
    (
        "trips.txt",
        "trips",
        true,
        &[
            ("trip_id", "trip_id", Kind::Text, true),
            ("route_id", "route_id", Kind::Text, true),
            ("service_id", "service_id", Kind::Text, true),
        ],
    ),
    (
        "stop_times.txt",
        "stop_times",
        true,
        &[
            ("trip_id", "trip_id", Kind::Text, true),
            ("stop_sequence", "stop_sequence", Kind::Whole, true),
            ("stop_id", "stop_id", Kind::Text, true),
            ("arrival_time", "arrival_s", Kind::Time, false),
            ("departure_time", "departure_s", Kind::Time, false),
            ("pickup_type", "pickup", Kind::NotForbidden, false),
            ("drop_off_type", "drop_off", Kind::NotForbidden, false),
        ],
    ),
    (
        "calendar.txt",
        "calendar",
        false,
        &[
            ("service_id", "service_id", Kind::Text, true),
            ("monday", "monday", Kind::Flag, true),
            ("tuesday", "tuesday", Kind::Flag, true),
            ("wednesday", "wednesday", Kind::Flag, true),
            ("thursday", "thursday", Kind::Flag, true),
            ("friday", "friday", Kind::Flag, true),
            ("saturday", "saturday", Kind::Flag, true),
            ("sunday", "sunday", Kind::Flag, true),
            ("start_date", "start_date", Kind::Date, true),
            ("end_date", "end_date", Kind::Date, true),
        ],
    ),
    (
        "calendar_dates.txt",
        "calendar_dates",
        false,
        &[
            ("service_id", "service_id", Kind::Text, true),
            ("date", "date", Kind::Date, true),
            ("exception_type", "exception_type", Kind::Whole, true),
        ],
    ),
    (
        "frequencies.txt",
        "frequencies",
        false,
        &[
            ("trip_id", "trip_id", Kind::Text, true),
            ("start_time", "start_s", Kind::Time, true),
            ("end_time", "end_s", Kind::Time, true),
            ("headway_secs", "headway_s", Kind::Whole, true),
        ],
    ),
    (
        "transfers.txt",
        "transfers",
        false,
        &[
            ("from_stop_id", "from_stop_id", Kind::Text, true),
            ("to_stop_id", "to_stop_id", Kind::Text, true),
            ("transfer_type", "transfer_type", Kind::Whole, false),
            ("min_transfer_time", "min_transfer_time_s", Kind::Whole, false),
        ],
    ),
];

/// The tables of a feed by role. `files`: the texts by file name; others than those known are passed over. An error names
/// the file and the line.
pub fn read_feed(files: &BTreeMap<String, String>, feed: &str) -> Result<BTreeMap<String, RecordBatch>> {
    let mut tables = BTreeMap::new();
    for (name, role, needed, columns) in FILES {
        match files.get(name) {
            Some(text) => {
                tables.insert(role.to_owned(), read_file(text, &format!("{feed}/{name}"), columns)?);
            }
            None if needed => {
                return Err(Error::config(format!("the GTFS feed {feed} has no {name}"))
                    .with_help("every feed has stops.txt, trips.txt and stop_times.txt"));
            }
            None => {}
        }
    }
    if !tables.contains_key("calendar") && !tables.contains_key("calendar_dates") {
        return Err(Error::config(format!(
            "the GTFS feed {feed} has neither calendar.txt nor calendar_dates.txt"
        ))
        .with_help("without one of them no trip runs on any day"));
    }
    Ok(tables)
}

/// The values of one column.
enum Values {
    Texts(Vec<Option<String>>),
    Numbers(Vec<Option<f64>>),
    Wholes(Vec<Option<i64>>),
    Dates(Vec<Option<i32>>),
    Flags(Vec<Option<bool>>),
}

impl Values {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Text => Self::Texts(Vec::new()),
            Kind::Number => Self::Numbers(Vec::new()),
            Kind::Whole | Kind::Time => Self::Wholes(Vec::new()),
            Kind::Date => Self::Dates(Vec::new()),
            Kind::Flag | Kind::NotForbidden => Self::Flags(Vec::new()),
        }
    }

    /// Adds the value of that text; `None` when the text is not one of its kind. An empty text is no value.
    fn push(&mut self, kind: Kind, text: &str) -> Option<()> {
        let given = Some(text.trim()).filter(|text| !text.is_empty());
        match self {
            Self::Texts(values) => values.push(given.map(str::to_owned)),
            Self::Numbers(values) => values.push(match given {
                Some(text) => Some(text.parse().ok().filter(|number: &f64| number.is_finite())?),
                None => None,
            }),
            Self::Wholes(values) => values.push(match (given, kind) {
                (Some(text), Kind::Time) => Some(seconds(text)?),
                (Some(text), _) => Some(text.parse().ok()?),
                (None, _) => None,
            }),
            Self::Dates(values) => values.push(match given {
                Some(text) => Some(day(text)?),
                None => None,
            }),
            Self::Flags(values) => values.push(match (given, kind) {
                (given, Kind::NotForbidden) => Some(given != Some("1")),
                (Some("1"), _) => Some(true),
                (Some("0"), _) => Some(false),
                (Some(_), _) => return None,
                (None, _) => None,
            }),
        }
        Some(())
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Texts(values) => Arc::new(StringArray::from(values)),
            Self::Numbers(values) => Arc::new(Float64Array::from(values)),
            Self::Wholes(values) => Arc::new(Int64Array::from(values)),
            Self::Dates(values) => Arc::new(Date32Array::from(values)),
            Self::Flags(values) => Arc::new(BooleanArray::from(values)),
        }
    }
}

fn read_file(text: &str, file: &str, columns: &[Column]) -> Result<RecordBatch> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let wrong = |line: u64, message: String| {
        let line = line as usize;
        let content = text.lines().nth(line.saturating_sub(1)).unwrap_or_default().to_owned();
        let place = Place { file: Some(file.into()), line, column: 1, text: content, length: 1 };
        Error::config(message).at(place)
    };
    let mut reader =
        csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(text.as_bytes());
    let header =
        reader.headers().map_err(|error| wrong(1, format!("the header cannot be read: {error}")))?.clone();
    let mut found = Vec::with_capacity(columns.len());
    for (name, _, kind, needed) in columns {
        let at = header.iter().position(|column| column == *name);
        if at.is_none() && *needed {
            return Err(wrong(1, format!("there is no column {name}")));
        }
        found.push((at, Values::new(*kind)));
    }
    for record in reader.records() {
        let record = record.map_err(|error| {
            let line = error.position().map_or(0, csv::Position::line);
            wrong(line, format!("the row cannot be read: {error}"))
        })?;
        let line = record.position().map_or(0, csv::Position::line);
        for ((name, _, kind, needed), (at, values)) in columns.iter().zip(&mut found) {
            let text = at.and_then(|at| record.get(at)).unwrap_or_default();
            if *needed && text.is_empty() {
                return Err(wrong(line, format!("the row has no {name}")));
            }
            if values.push(*kind, text).is_none() {
                let wanted = match kind {
                    Kind::Time => "a time, H:MM:SS",
                    Kind::Date => "a date, YYYYMMDD",
                    Kind::Flag => "0 or 1",
                    Kind::Whole => "a whole number",
                    _ => "a number",
                };
                return Err(wrong(line, format!("{name} is '{text}', it must be {wanted}")));
            }
        }
    }
    let columns =
        columns.iter().zip(found).map(|((_, name, ..), (_, values))| (*name, values.finish(), true));
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

/// `H:MM:SS` with any number of hours, in seconds.
fn seconds(text: &str) -> Option<i64> {
    let mut parts = text.split(':').map(|part| part.trim().parse::<u32>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    let fits = parts.next().is_none() && minutes < 60 && seconds < 60 && hours < 1000;
    fits.then(|| i64::from(hours * 3600 + minutes * 60 + seconds))
}

/// `YYYYMMDD` as days since 1970-01-01.
fn day(text: &str) -> Option<i32> {
    let epoch = NaiveDate::from_ymd_opt(1970, 1, 1)?.num_days_from_ce();
    (text.len() == 8)
        .then(|| NaiveDate::parse_from_str(text, "%Y%m%d").ok())?
        .map(|date| date.num_days_from_ce() - epoch)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Date32Type, Int64Type};

    use super::*;

    fn feed() -> BTreeMap<String, String> {
        let files = [
            (
                "stops.txt",
                "\u{feff}stop_id,stop_name,stop_lat,stop_lon\na,\"Hall, north\",60.1,24.9\nb,Port,60.2,24.8\n",
            ),
            ("trips.txt", "route_id,service_id,trip_id\nr,s,t\n"),
            (
                "stop_times.txt",
                "trip_id,arrival_time,departure_time,stop_id,stop_sequence,pickup_type\n\
                 t, 9:05:00,09:06:00,a,1,1\nt,25:00:01,,b,7,\n",
            ),
            ("calendar_dates.txt", "service_id,date,exception_type\ns,20240229,1\n"),
        ];
        files.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect()
    }

    #[test]
    fn reads_times_past_midnight_dates_and_quotes() {
        let tables = read_feed(&feed(), "feed").unwrap();
        let times = &tables["stop_times"];
        assert_eq!(times["arrival_s"].as_primitive::<Int64Type>().values(), &[32_700, 90_001]);
        assert!(times["departure_s"].is_null(1));
        let pickup: Vec<Option<bool>> = times["pickup"].as_boolean().iter().collect();
        assert_eq!(pickup, [Some(false), Some(true)]);
        // No column says that nobody may leave: everybody may.
        assert!(times["drop_off"].as_boolean().iter().all(|flag| flag == Some(true)));
        assert_eq!(tables["stops"]["name"].as_string::<i32>().value(0), "Hall, north");
        assert_eq!(tables["calendar_dates"]["date"].as_primitive::<Date32Type>().value(0), 19_782);
        assert!(!tables.contains_key("frequencies"));
    }

    #[test]
    fn mistakes_name_file_and_line() {
        let said = |name: &str, from: &str, to: &str| {
            let mut files = feed();
            let text = files[name].replace(from, to);
            files.insert(name.to_owned(), text);
            read_feed(&files, "feed").err().unwrap().to_string()
        };
        let shown = said("stop_times.txt", "25:00:01", "25:61:01");
        assert!(shown.contains("feed/stop_times.txt:3") && shown.contains("H:MM:SS"), "{shown}");
        assert!(said("calendar_dates.txt", "20240229", "20230229").contains("YYYYMMDD"));
        assert!(said("stops.txt", "stop_id", "id").contains("no column stop_id"));
        assert!(said("trips.txt", "r,s,t", "r,,t").contains("feed/trips.txt:2"));
        let mut files = feed();
        files.remove("trips.txt");
        assert!(read_feed(&files, "feed").err().unwrap().to_string().contains("no trips.txt"));
    }
}
