//! Trajectories: a `LINESTRING M` whose measure is the time in seconds since 1970-01-01T00:00:00Z, strictly increasing;
//! between two points the thing moves straight and evenly. In longitude and latitude distances are metres on the mean
//! sphere, else units of the reference system.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BinaryBuilder, BooleanArray, Float64Array, Int64Builder, ListArray,
    StructArray, TimestampMicrosecondArray, TimestampMicrosecondBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::ReturnFieldArgs;
use geo::{Coord, Distance, Haversine, Point};
use twinlake_contracts::{CRS84, crs_of, geometry_field, timestamp_type};

use crate::aggregate::{Aggregate, Fold, Gives};
use crate::call::Call;
use crate::definition::{
    BOOLEAN, CrsRule, Definition, FLOAT64, Kind, Output, Parameter, TIMESTAMP, is_lon_lat,
};
use crate::metric::LocalMetres;
use crate::shape::{Dimensions, Form, Position, Shape};

const T: Parameter = ("trajectory", Kind::Geometry);
const ONE: &[&[Parameter]] = &[&[T]];
const XYM: Dimensions = Dimensions { z: false, m: true };

/// The metadata key under which the plan keeps whether coordinates are degrees.
const DEGREES: &str = "twinlake:degrees";

fn in_degrees(args: &ReturnFieldArgs<'_>) -> bool {
    args.arg_fields.first().and_then(|field| crs_of(field)).is_none_or(|crs| is_lon_lat(&crs))
}

/// A plain result of a function that measures, with what it measures in.
macro_rules! measured {
    ($name:literal, $data_type:expr) => {
        Output::Field(|args| {
            let metadata = HashMap::from([(DEGREES.to_owned(), in_degrees(args).to_string())]);
            Ok(Field::new($name, $data_type, true).with_metadata(metadata))
        })
    };
}

/// How far two places are apart.
#[derive(Debug, Clone, Copy)]
struct Ruler {
    degrees: bool,
}

impl Ruler {
    fn of(call: &Call<'_>) -> Self {
        let degrees = match call.result.metadata().get(DEGREES) {
            Some(text) => text == "true",
            None => crs_of(call.result).is_none_or(|crs| is_lon_lat(&crs)),
        };
        Self { degrees }
    }

    fn distance(self, a: Coord, b: Coord) -> f64 {
        if self.degrees { Haversine.distance(Point(a), Point(b)) } else { (a.x - b.x).hypot(a.y - b.y) }
    }

    /// The vector from one place to another in the units of distances.
    fn vector(self, from: Coord, to: Coord) -> Coord {
        if self.degrees { LocalMetres::at(from).project(to) } else { to - from }
    }
}

/// A place at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Fix {
    at: Coord,
    time_s: f64,
}

/// Reads a trajectory; `None` for an empty line.
fn fixes(call: &Call<'_>, bytes: &[u8]) -> Result<Option<Vec<Fix>>> {
    let shape = call.shape(bytes)?;
    let Form::Line(line) = &shape.form else { return call.error("takes a trajectory: a LINESTRING M") };
    if line.is_empty() {
        return Ok(None);
    }
    if !shape.dimensions.m {
        return call.error("takes a trajectory: a LINESTRING M whose measures are seconds since 1970 (traj_from_points makes it)");
    }
    let fixes: Vec<Fix> = line.iter().map(|p| Fix { at: Coord { x: p[0], y: p[1] }, time_s: p[3] }).collect();
    match fixes.windows(2).find(|w| w[0].time_s.partial_cmp(&w[1].time_s) != Some(std::cmp::Ordering::Less)) {
        Some(w) => call.error(format!(
            "the measures of a trajectory increase, {} is followed by {}",
            w[0].time_s, w[1].time_s
        )),
        None => Ok(Some(fixes)),
    }
}

fn each<C, V>(call: &Call<'_>, mut compute: impl FnMut(&[Fix]) -> Option<V>) -> Result<ArrayRef>
where
    C: FromIterator<Option<V>> + Array + 'static,
{
    let bytes = call.bytes(0)?;
    call.rows::<C, V>(|row| match bytes.get(row) {
        Some(bytes) => Ok(fixes(call, bytes)?.and_then(|fixes| compute(&fixes))),
        None => Ok(None),
    })
}

fn micros(time_s: f64) -> i64 {
    (time_s * 1e6).round() as i64
}

fn length(ruler: Ruler, fixes: &[Fix]) -> f64 {
    fixes.windows(2).map(|w| ruler.distance(w[0].at, w[1].at)).sum()
}

pub(crate) static FROM_POINTS: Aggregate = Aggregate {
    name: "traj_from_points",
    aliases: &[],
    summary: "The trajectory through the points of a group in the order of their times; of several points at one time the one with the smallest coordinates; null with fewer than two times",
    overloads: &[&[("point", Kind::Geometry), ("ts", Kind::Timestamp)]],
    gives: Gives::Geometry,
    start: || Box::<Track>::default(),
};

/// Time in microseconds, x and y.
#[derive(Debug, Default)]
struct Track(Vec<(i64, f64, f64)>);

impl Fold for Track {
    fn add(&mut self, call: &Call<'_>) -> Result<()> {
        let (points, times) = (call.geometries(0)?, call.timestamps(1)?);
        for row in 0..call.rows {
            let (Some(point), Some(time)) = (points.get(row)?, times.get(row)) else { continue };
            match &*point {
                geo::Geometry::Point(point) => self.0.push((time, point.x(), point.y())),
                other if geo::HasDimensions::is_empty(other) => {}
                _ => return call.error("takes points"),
            }
        }
        Ok(())
    }

    fn state(&self) -> Option<Vec<u8>> {
        let bytes =
            self.0.iter().flat_map(|(time, x, y)| [time.to_le_bytes(), x.to_le_bytes(), y.to_le_bytes()]);
        (!self.0.is_empty()).then(|| bytes.flatten().collect())
    }

    fn merge(&mut self, state: &[u8]) -> Result<()> {
        let (rows, rest) = state.as_chunks::<24>();
        if !rest.is_empty() {
            return exec_err!("traj_from_points got a state that is not its own");
        }
        self.0.extend(rows.iter().map(|row| {
            let (words, _) = row.as_chunks::<8>();
            (i64::from_le_bytes(words[0]), f64::from_le_bytes(words[1]), f64::from_le_bytes(words[2]))
        }));
        Ok(())
    }

    fn finish(&mut self) -> Result<ScalarValue> {
        self.0.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.total_cmp(&b.2)));
        self.0.dedup_by_key(|fix| fix.0);
        let line: Vec<Position> =
            self.0.iter().map(|(time, x, y)| [*x, *y, 0.0, *time as f64 / 1e6]).collect();
        Ok(ScalarValue::Binary((line.len() > 1).then(|| Shape::new(Form::Line(line), XYM).encode())))
    }

    fn size(&self) -> usize {
        self.0.capacity() * 24
    }
}

pub(crate) static IS_VALID: Definition = Definition::new(
    "traj_is_valid",
    "Whether a geometry is a trajectory: a LINESTRING M of two points or more whose measures increase",
    &[&[("geometry", Kind::Geometry)]],
    BOOLEAN,
    |call| {
        call.each_shape::<BooleanArray, _>(|shape| {
            Ok(Some(match &shape.form {
                Form::Line(line) => {
                    shape.dimensions.m && line.len() > 1 && line.windows(2).all(|w| w[0][3] < w[1][3])
                }
                _ => false,
            }))
        })
    },
)
.also(&["st_isvalidtrajectory"]);

pub(crate) static LENGTH: Definition = Definition {
    name: "traj_length",
    aliases: &[],
    summary: "How far a trajectory goes, in metres for longitude and latitude, else in units of the reference system",
    overloads: ONE,
    crs: CrsRule::Same,
    output: measured!("traj_length", DataType::Float64),
    body: |call| {
        let ruler = Ruler::of(call);
        each::<Float64Array, _>(call, |fixes| Some(length(ruler, fixes)))
    },
};

pub(crate) static DURATION: Definition =
    Definition::new("traj_duration_s", "How long a trajectory takes, in seconds", ONE, FLOAT64, |call| {
        each::<Float64Array, _>(call, |fixes| Some(fixes.last()?.time_s - fixes.first()?.time_s))
    });

pub(crate) static START: Definition =
    Definition::new("traj_start", "When a trajectory starts", ONE, TIMESTAMP, |call| {
        times(call, <[Fix]>::first)
    });

pub(crate) static END: Definition =
    Definition::new("traj_end", "When a trajectory ends", ONE, TIMESTAMP, |call| times(call, <[Fix]>::last));

fn times(call: &Call<'_>, take: fn(&[Fix]) -> Option<&Fix>) -> Result<ArrayRef> {
    let array =
        each::<TimestampMicrosecondArray, _>(call, |fixes| take(fixes).map(|fix| micros(fix.time_s)))?;
    Ok(arrow::compute::cast(&array, &timestamp_type())?)
}

pub(crate) static SPEED: Definition = Definition {
    name: "traj_speed",
    aliases: &[],
    summary: "The mean speed of a trajectory, or its speed at a time, in metres per second for longitude and latitude, else in units of the reference system per second; null at a time outside of it",
    overloads: &[&[T], &[T, ("ts", Kind::Timestamp)]],
    crs: CrsRule::Same,
    output: measured!("traj_speed", DataType::Float64),
    body: |call| {
        let ruler = Ruler::of(call);
        if call.arity() == 1 {
            return each::<Float64Array, _>(call, |fixes| {
                let duration = fixes.last()?.time_s - fixes.first()?.time_s;
                (duration > 0.0).then(|| length(ruler, fixes) / duration)
            });
        }
        let (bytes, times) = (call.bytes(0)?, call.timestamps(1)?);
        call.rows::<Float64Array, _>(|row| {
            let (Some(bytes), Some(time)) = (bytes.get(row), times.get(row)) else { return Ok(None) };
            let Some(fixes) = fixes(call, bytes)? else { return Ok(None) };
            Ok(leg(&fixes, time as f64 / 1e6)
                .map(|(from, to)| ruler.distance(from.at, to.at) / (to.time_s - from.time_s)))
        })
    },
};

/// The leg under way at a time.
fn leg(fixes: &[Fix], time_s: f64) -> Option<(Fix, Fix)> {
    let (first, last) = (fixes.first()?, fixes.last()?);
    if time_s < first.time_s || time_s > last.time_s || fixes.len() < 2 {
        return None;
    }
    let after = fixes.partition_point(|fix| fix.time_s <= time_s).clamp(1, fixes.len() - 1);
    Some((fixes[after - 1], fixes[after]))
}

fn place(fixes: &[Fix], time_s: f64) -> Option<Coord> {
    let (from, to) = leg(fixes, time_s)?;
    let part = (time_s - from.time_s) / (to.time_s - from.time_s);
    Some(if part >= 1.0 { to.at } else { from.at + (to.at - from.at) * part })
}

pub(crate) static AT_TIME: Definition = Definition::new(
    "traj_at_time",
    "Where the thing was at a time; null outside of the trajectory's time",
    &[&[T, ("ts", Kind::Timestamp)]],
    Output::Geometry,
    |call| {
        let (bytes, times) = (call.bytes(0)?, call.timestamps(1)?);
        call.rows::<BinaryArray, _>(|row| {
            let (Some(bytes), Some(time)) = (bytes.get(row), times.get(row)) else { return Ok(None) };
            let Some(fixes) = fixes(call, bytes)? else { return Ok(None) };
            Ok(place(&fixes, time as f64 / 1e6).map(|at| crate::geometry::encode(&Point(at).into())))
        })
    },
);

pub(crate) static SIMPLIFY: Definition = Definition::new(
    "traj_simplify",
    "Fewer points: at no time was the thing farther from the new trajectory than a tolerance, in metres for longitude and latitude, else in units of the reference system (synchronised Euclidean distance, top down: Meratnia & de By 2004)",
    &[&[T, ("tolerance", Kind::Number)]],
    Output::Geometry,
    |call| {
        let ruler = Ruler::of(call);
        let (column, tolerances) = (call.bytes(0)?, call.numbers(1)?);
        call.rows::<BinaryArray, _>(|row| {
            let (Some(bytes), Some(tolerance)) = (column.get(row), tolerances.get(row)) else {
                return Ok(None);
            };
            if tolerance.is_nan() || tolerance < 0.0 {
                return call.error(format!("the tolerance {tolerance} is not a distance"));
            }
            let Some(fixes) = fixes(call, bytes)? else { return Ok(Some(bytes.to_vec())) };
            let keep = synchronised(ruler, &fixes, tolerance);
            let line = fixes
                .iter()
                .zip(keep)
                .filter(|(_, keep)| *keep)
                .map(|(fix, _)| [fix.at.x, fix.at.y, 0.0, fix.time_s])
                .collect();
            Ok(Some(Shape::new(Form::Line(line), XYM).encode()))
        })
    },
);

fn synchronised(ruler: Ruler, fixes: &[Fix], tolerance: f64) -> Vec<bool> {
    let mut keep = vec![false; fixes.len()];
    let mut open = vec![(0, fixes.len() - 1)];
    while let Some((from, to)) = open.pop() {
        (keep[from], keep[to]) = (true, true);
        let (a, b) = (fixes[from], fixes[to]);
        let mut worst = (tolerance, None);
        for (index, fix) in fixes.iter().enumerate().take(to).skip(from + 1) {
            let part = (fix.time_s - a.time_s) / (b.time_s - a.time_s);
            let distance = ruler.distance(fix.at, a.at + (b.at - a.at) * part);
            if distance > worst.0 {
                worst = (distance, Some(index));
            }
        }
        if let (_, Some(index)) = worst {
            open.extend([(from, index), (index, to)]);
        }
    }
    keep
}

pub(crate) static STOPS: Definition = Definition {
    name: "traj_stops",
    aliases: &[],
    summary: "Where the thing stayed within a distance (metres for longitude and latitude) of the first point of the stay for at least so many seconds, as a list of structs: the mean point, from when, until when, of how many points (Li et al. 2008)",
    overloads: &[&[T, ("distance", Kind::Number), ("duration_s", Kind::Number)]],
    crs: CrsRule::Same,
    output: Output::Field(stops_field),
    body: stops,
};

fn stop_fields(crs: &str) -> Fields {
    vec![
        geometry_field("geom", crs, true),
        Field::new("start_ts", timestamp_type(), true),
        Field::new("end_ts", timestamp_type(), true),
        Field::new("points", DataType::Int64, true),
    ]
    .into()
}

#[allow(clippy::unnecessary_wraps, reason = "the shape that Output::Field asks for")]
fn stops_field(args: &ReturnFieldArgs<'_>) -> Result<Field> {
    let crs = args.arg_fields.first().and_then(|field| crs_of(field)).unwrap_or_else(|| CRS84.to_owned());
    let item = Field::new_list_field(DataType::Struct(stop_fields(&crs)), true);
    let metadata = HashMap::from([(DEGREES.to_owned(), is_lon_lat(&crs).to_string())]);
    Ok(Field::new("traj_stops", DataType::List(Arc::new(item)), true).with_metadata(metadata))
}

fn stops(call: &Call<'_>) -> Result<ArrayRef> {
    let ruler = Ruler::of(call);
    let (column, distances, durations) = (call.bytes(0)?, call.numbers(1)?, call.numbers(2)?);
    let mut points = BinaryBuilder::new();
    let (mut starts, mut ends) = (TimestampMicrosecondBuilder::new(), TimestampMicrosecondBuilder::new());
    let mut counts = Int64Builder::new();
    let mut lengths = Vec::with_capacity(call.rows);
    let mut valid = Vec::with_capacity(call.rows);
    for row in 0..call.rows {
        let (Some(bytes), Some(distance), Some(duration_s)) =
            (column.get(row), distances.get(row), durations.get(row))
        else {
            lengths.push(0);
            valid.push(false);
            continue;
        };
        if !(distance >= 0.0 && duration_s >= 0.0) {
            return call.error(format!("{distance} and {duration_s} are not a distance and a duration"));
        }
        let fixes = fixes(call, bytes)?.unwrap_or_default();
        let stays = stays(ruler, &fixes, distance, duration_s);
        for stay in &stays {
            let count = stay.len() as f64;
            let sum = stay.iter().fold(Coord { x: 0.0, y: 0.0 }, |sum, fix| sum + fix.at);
            points.append_value(crate::geometry::encode(&Point(sum / count).into()));
            starts.append_value(micros(stay[0].time_s));
            ends.append_value(micros(stay[stay.len() - 1].time_s));
            counts.append_value(stay.len() as i64);
        }
        lengths.push(stays.len());
        valid.push(true);
    }
    let DataType::List(item) = call.result.data_type() else { return call.error("its type is not a list") };
    let DataType::Struct(fields) = item.data_type() else { return call.error("its items are not structs") };
    let zoned =
        |mut times: TimestampMicrosecondBuilder| arrow::compute::cast(&times.finish(), &timestamp_type());
    let columns: Vec<ArrayRef> =
        vec![Arc::new(points.finish()), zoned(starts)?, zoned(ends)?, Arc::new(counts.finish())];
    let items = StructArray::try_new(fields.clone(), columns, None)?;
    Ok(Arc::new(ListArray::try_new(
        Arc::clone(item),
        OffsetBuffer::from_lengths(lengths),
        Arc::new(items),
        Some(NullBuffer::from(valid)),
    )?))
}

fn stays(ruler: Ruler, fixes: &[Fix], distance: f64, duration_s: f64) -> Vec<&[Fix]> {
    let mut stays = Vec::new();
    let mut from = 0;
    while from + 1 < fixes.len() {
        let rest = &fixes[from + 1..];
        let inside = rest.iter().take_while(|fix| ruler.distance(fixes[from].at, fix.at) <= distance).count();
        let stay = &fixes[from..=from + inside];
        if inside > 0 && stay[inside].time_s - stay[0].time_s >= duration_s {
            stays.push(stay);
            from += inside + 1;
        } else {
            from += 1;
        }
    }
    stays
}

pub(crate) static NEAREST_APPROACH: Definition = Definition {
    name: "traj_nearest_approach",
    aliases: &["st_distancecpa"],
    summary: "The smallest distance between two things at one and the same time, in metres for longitude and latitude, else in units of the reference system; null when their times do not overlap",
    overloads: &[&[("a", Kind::Geometry), ("b", Kind::Geometry)]],
    crs: CrsRule::Same,
    output: measured!("traj_nearest_approach", DataType::Float64),
    body: |call| approach::<Float64Array, _>(call, |distance, _| distance),
};

pub(crate) static NEAREST_APPROACH_TIME: Definition = Definition {
    name: "traj_nearest_approach_time",
    aliases: &[],
    summary: "When two things were nearest to each other, the first time if several; null when their times do not overlap",
    overloads: &[&[("a", Kind::Geometry), ("b", Kind::Geometry)]],
    crs: CrsRule::Same,
    output: measured!("traj_nearest_approach_time", timestamp_type()),
    body: |call| {
        let array = approach::<TimestampMicrosecondArray, _>(call, |_, time_s| micros(time_s))?;
        Ok(arrow::compute::cast(&array, &timestamp_type())?)
    },
};

fn approach<C, V>(call: &Call<'_>, take: fn(f64, f64) -> V) -> Result<ArrayRef>
where
    C: FromIterator<Option<V>> + Array + 'static,
{
    let ruler = Ruler::of(call);
    let (left, right) = (call.bytes(0)?, call.bytes(1)?);
    call.rows::<C, V>(|row| {
        let (Some(a), Some(b)) = (left.get(row), right.get(row)) else { return Ok(None) };
        let (Some(a), Some(b)) = (fixes(call, a)?, fixes(call, b)?) else { return Ok(None) };
        Ok(nearest(ruler, &a, &b).map(|(distance, time_s)| take(distance, time_s)))
    })
}

/// Between two neighbouring times of either, the vector from one to the other changes evenly: its length is smallest at
/// an end or where it stands at right angles to its change.
fn nearest(ruler: Ruler, a: &[Fix], b: &[Fix]) -> Option<(f64, f64)> {
    let from = a.first()?.time_s.max(b.first()?.time_s);
    let to = a.last()?.time_s.min(b.last()?.time_s);
    if from > to {
        return None;
    }
    let mut times: Vec<f64> =
        a.iter().chain(b).map(|fix| fix.time_s).filter(|t| *t > from && *t < to).collect();
    times.extend([from, to]);
    times.sort_by(f64::total_cmp);
    times.dedup();
    let apart = |time_s: f64| Some((place(a, time_s)?, place(b, time_s)?));
    let mut best: Option<(f64, f64)> = None;
    let mut hold = |time_s: f64| -> Option<()> {
        let (p, q) = apart(time_s)?;
        let distance = ruler.distance(p, q);
        if best.is_none_or(|(known, _)| distance < known) {
            best = Some((distance, time_s));
        }
        Some(())
    };
    hold(times[0])?;
    for span in times.windows(2) {
        let ((p0, q0), (p1, q1)) = (apart(span[0])?, apart(span[1])?);
        let (start, end) = (ruler.vector(p0, q0), ruler.vector(p1, q1));
        let change = end - start;
        let squared = change.x * change.x + change.y * change.y;
        if squared > 0.0 {
            let part = -(start.x * change.x + start.y * change.y) / squared;
            if part > 0.0 && part < 1.0 {
                hold(span[0] + (span[1] - span[0]) * part)?;
            }
        }
        hold(span[1])?;
    }
    best
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    /// Planar: to the east at 1 unit a second for 10 s, a stop of 100 s, then on for 10 s.
    const WALK: &str =
        "st_setsrid(st_geomfromtext('LINESTRING M (0 0 0,10 0 10,10 0.5 60,10 0 110,20 0 120)'), 3879)";

    #[test]
    fn follows_a_thing() {
        check(&[
            (&format!("traj_duration_s({WALK}), traj_length({WALK})"), "120.0|21.0"),
            (&format!("traj_speed({WALK}, '1970-01-01T00:00:05Z')"), "1.0"),
            (&format!("traj_speed({WALK}, '1970-01-01T01:00:00Z')"), "NULL"),
            (&format!("round(traj_speed({WALK}), 3)"), "0.175"),
            (&format!("st_astext(traj_at_time({WALK}, '1970-01-01T00:01:55Z'))"), "POINT(15 0)"),
            (&format!("traj_end({WALK})"), "1970-01-01T00:02:00Z"),
            (
                &format!("st_astext(traj_simplify({WALK}, 1))"),
                "LINESTRING M (0 0 0,10 0 10,10 0 110,20 0 120)",
            ),
            (&format!("cardinality(traj_stops({WALK}, 1, 60))"), "1"),
            (
                &format!("traj_stops({WALK}, 1, 60)[1]['points'], traj_stops({WALK}, 1, 60)[1]['start_ts']"),
                "3|1970-01-01T00:00:10Z",
            ),
            (&format!("cardinality(traj_stops({WALK}, 1, 600))"), "0"),
            (&format!("traj_is_valid({WALK}), traj_is_valid(st_point(1, 1))"), "true|false"),
            ("traj_speed(NULL), traj_stops(NULL, 1, 1)", "NULL|NULL"),
        ]);
        fails("traj_length(st_geomfromtext('LINESTRING(0 0,1 1)'))", "takes a trajectory: a LINESTRING M");
        fails(
            "traj_length(st_geomfromtext('LINESTRING M (0 0 5,1 1 5)'))",
            "measures of a trajectory increase",
        );
    }

    #[test]
    fn finds_how_near_two_came() {
        let other = "st_setsrid(st_geomfromtext('LINESTRING M (10 3 0,0 3 10)'), 3879)";
        check(&[
            (&format!("traj_nearest_approach({WALK}, {other})"), "3.0"),
            (&format!("traj_nearest_approach_time({WALK}, {other})"), "1970-01-01T00:00:05Z"),
            (
                &format!(
                    "traj_nearest_approach({WALK}, st_setsrid(st_geomfromtext('LINESTRING M (0 0 900,0 3 910)'), 3879))"
                ),
                "NULL",
            ),
            // Degrees are measured in metres, over the antimeridian too.
            (
                "round(traj_nearest_approach(st_geomfromtext('LINESTRING M (179.999 0 0,179.998 0 10)'), st_geomfromtext('LINESTRING M (-179.999 0 0,-179.998 0 10)')))",
                "222.0",
            ),
        ]);
    }

    #[test]
    fn comes_from_points_in_any_order() {
        let rows = query(
            "SELECT st_astext(traj_from_points(st_point(x, 0), to_timestamp_micros(t * 1000000)))
             FROM (VALUES (2, 20), (1, 10), (3, 30), (9, 20)) AS v(x, t)",
        );
        assert_eq!(rows.unwrap(), ["LINESTRING M (1 0 10,2 0 20,3 0 30)"]);
        assert_eq!(query("SELECT traj_from_points(st_point(1, 1), now())").unwrap(), ["NULL"]);
    }
}
