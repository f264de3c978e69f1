//! Along a line: parts of it, places on it, curves beside it.

use arrow::array::{BinaryArray, Float64Array};
use geo::{Coord, Euclidean, Geometry, Length, Line, LineString, MultiLineString};

use super::measures::foot;
use crate::definition::{Definition, FLOAT64, Kind, Output, Parameter};
use crate::geometry::encode;
use crate::shape::{Dimensions, Form, Position, Shape};
use crate::topology::arrangement::Parts;
use crate::topology::overlay::empty_of;
use crate::topology::polygonize;

const LINE: Parameter = ("line", Kind::Geometry);

pub(crate) static SUBSTRING: Definition = Definition::new(
    "st_linesubstring",
    "The part of a line between two fractions (0 to 1) of its planar length, with third coordinates and measures; a point when they are equal; empty for an empty line",
    &[&[LINE, ("start", Kind::Number), ("end", Kind::Number)]],
    Output::Geometry,
    |call| {
        let (lines, starts, ends) = (call.bytes(0)?, call.numbers(1)?, call.numbers(2)?);
        call.rows::<BinaryArray, _>(|row| {
            let (Some(line), Some(start), Some(end)) = (lines.get(row), starts.get(row), ends.get(row)) else {
                return Ok(None);
            };
            if !(0.0..=1.0).contains(&start) || !(0.0..=1.0).contains(&end) || start > end {
                return call.error(format!("the fractions {start} to {end} are not in order in 0..=1"));
            }
            let shape = call.shape(line)?;
            let Form::Line(positions) = &shape.form else { return call.error("takes a line") };
            if positions.is_empty() {
                return Ok(Some(shape.encode()));
            }
            let part = substring(positions, start, end);
            let form = match part.as_slice() {
                [only] => Form::Point(Some(*only)),
                _ => Form::Line(part),
            };
            Ok(Some(Shape::new(form, shape.dimensions).encode()))
        })
    },
)
.also(&["st_line_substring"]);

/// How far along each position is, in the plane.
fn stations(positions: &[Position]) -> Vec<f64> {
    let mut sum = 0.0;
    std::iter::once(0.0)
        .chain(positions.windows(2).map(|w| {
            sum += (w[1][0] - w[0][0]).hypot(w[1][1] - w[0][1]);
            sum
        }))
        .collect()
}

/// The position at a distance along.
fn at(positions: &[Position], stations: &[f64], distance: f64) -> Position {
    let after = stations.partition_point(|station| *station < distance).clamp(1, positions.len() - 1);
    let (before, span) = (after - 1, stations[after] - stations[after - 1]);
    let part = if span > 0.0 { ((distance - stations[before]) / span).clamp(0.0, 1.0) } else { 0.0 };
    match part {
        0.0 => positions[before],
        1.0 => positions[after],
        part => std::array::from_fn(|i| {
            positions[before][i] + (positions[after][i] - positions[before][i]) * part
        }),
    }
}

fn substring(positions: &[Position], start: f64, end: f64) -> Vec<Position> {
    if positions.len() < 2 {
        return positions.to_vec();
    }
    let stations = stations(positions);
    let length = stations[stations.len() - 1];
    let (from, to) = (start * length, end * length);
    let mut part = vec![at(positions, &stations, from)];
    part.extend(
        positions
            .iter()
            .zip(&stations)
            .filter(|(_, station)| **station > from && **station < to)
            .map(|(p, _)| *p),
    );
    if to > from {
        part.push(at(positions, &stations, to));
    }
    part
}

pub(crate) static LOCATE: Definition = Definition::new(
    "st_linelocatepoint",
    "The fraction (0 to 1) of the planar length of a line at which it comes nearest to a point; null if one is empty",
    &[&[LINE, ("point", Kind::Geometry)]],
    FLOAT64,
    |call| {
        call.pairs::<Float64Array, _>(|line, point| {
            let (Geometry::LineString(line), Geometry::Point(point)) = (line, point) else {
                if geo::HasDimensions::is_empty(line) || geo::HasDimensions::is_empty(point) {
                    return Ok(None);
                }
                return call.error("takes a line and a point");
            };
            Ok(locate(line, point.0))
        })
    },
)
.also(&["st_line_locate_point"]);

pub(crate) fn locate(line: &LineString, point: Coord) -> Option<f64> {
    let length = Euclidean.length(line);
    let mut best: Option<(f64, f64)> = None;
    let mut so_far = 0.0;
    for part in line.lines() {
        let (place, distance) = foot(point, &part);
        if best.is_none_or(|(known, _)| distance < known) {
            best = Some((distance, so_far + (place.x - part.start.x).hypot(place.y - part.start.y)));
        }
        so_far += Euclidean.length(&part);
    }
    best.map(|(_, along)| if length > 0.0 { (along / length).clamp(0.0, 1.0) } else { 0.0 })
}

pub(crate) static INTERPOLATE_POINTS: Definition = Definition::new(
    "st_lineinterpolatepoints",
    "Points at every multiple of a fraction of the planar length of a line, or the first one only",
    &[&[LINE, ("fraction", Kind::Number)], &[LINE, ("fraction", Kind::Number), ("repeat", Kind::Boolean)]],
    Output::Geometry,
    |call| {
        let (lines, fractions) = (call.bytes(0)?, call.numbers(1)?);
        let repeats = if call.arity() > 2 { Some(call.booleans(2)?) } else { None };
        call.rows::<BinaryArray, _>(|row| {
            let (Some(line), Some(fraction)) = (lines.get(row), fractions.get(row)) else { return Ok(None) };
            let repeat = match &repeats {
                None => true,
                Some(repeats) => match repeats.get(row) {
                    Some(repeat) => repeat,
                    None => return Ok(None),
                },
            };
            if !(1e-6..=1.0).contains(&fraction) && fraction != 0.0 {
                return call.error(format!("the fraction {fraction} is not in 0.000001..=1"));
            }
            let shape = call.shape(line)?;
            let Form::Line(positions) = &shape.form else { return call.error("takes a line") };
            if positions.len() < 2 {
                return Ok(Some(encode(&empty_of(0))));
            }
            let stations = stations(positions);
            let length = stations[stations.len() - 1];
            let count = if repeat && fraction > 0.0 { (1.0 / fraction + 1e-9).floor() as usize } else { 1 };
            let point = |i: usize| {
                let distance = (i as f64 * fraction).min(1.0) * length;
                Shape::new(Form::Point(Some(at(positions, &stations, distance))), shape.dimensions)
            };
            if count == 1 {
                return Ok(Some(point(1).encode()));
            }
            let points = (1..=count).map(point).collect();
            Ok(Some(Shape::new(Form::MultiPoint(points), shape.dimensions).encode()))
        })
    },
);

pub(crate) static ADD_MEASURE: Definition = Definition::new(
    "st_addmeasure",
    "A line whose measures run evenly by planar length from one number to another",
    &[&[LINE, ("start", Kind::Number), ("end", Kind::Number)]],
    Output::Geometry,
    |call| {
        let (lines, starts, ends) = (call.bytes(0)?, call.numbers(1)?, call.numbers(2)?);
        call.rows::<BinaryArray, _>(|row| {
            let (Some(line), Some(start), Some(end)) = (lines.get(row), starts.get(row), ends.get(row))
            else {
                return Ok(None);
            };
            let mut shape = call.shape(line)?;
            let Form::Line(positions) = &mut shape.form else { return call.error("takes a line") };
            let stations = stations(positions);
            let length = stations.last().copied().unwrap_or(0.0);
            for (position, station) in positions.iter_mut().zip(stations) {
                position[3] = if length > 0.0 { start + (end - start) * (station / length) } else { start };
            }
            shape.dimensions = Dimensions { m: true, ..shape.dimensions };
            Ok(Some(shape.encode()))
        })
    },
);

pub(crate) static INTERPOLATE_MEASURE: Definition = Definition::new(
    "st_interpolatepoint",
    "The measure of a line where it comes nearest to a point",
    &[&[LINE, ("point", Kind::Geometry)]],
    FLOAT64,
    |call| {
        let (lines, points) = (call.bytes(0)?, call.geometries(1)?);
        call.rows::<Float64Array, _>(|row| {
            let (Some(line), Some(point)) = (lines.get(row), points.get(row)?) else { return Ok(None) };
            let shape = call.shape(line)?;
            let (Form::Line(positions), Geometry::Point(point), true) =
                (&shape.form, &*point, shape.dimensions.m)
            else {
                return call.error("takes a line with measures and a point");
            };
            let Geometry::LineString(plane) = shape.to_plane() else { return Ok(None) };
            let Some(fraction) = locate(&plane, point.0) else { return Ok(None) };
            let stations = stations(positions);
            let distance = fraction * stations.last().copied().unwrap_or(0.0);
            Ok(Some(at(positions, &stations, distance)[3]))
        })
    },
);

pub(crate) static OFFSET_CURVE: Definition = Definition::new(
    "st_offsetcurve",
    "The curve at a distance beside a line, in its direction: to the left, to the right for a negative distance; corners are round",
    &[&[LINE, ("distance", Kind::Number)]],
    Output::Geometry,
    |call| {
        let (lines, distances) = (call.geometries(0)?, call.numbers(1)?);
        call.rows::<BinaryArray, _>(|row| {
            let (Some(line), Some(distance)) = (lines.get(row)?, distances.get(row)) else { return Ok(None) };
            if !distance.is_finite() {
                return call.error(format!("the distance {distance} is not finite"));
            }
            let curves: Vec<LineString> = match &*line {
                Geometry::LineString(line) => offset(line, distance),
                Geometry::MultiLineString(lines) => {
                    lines.iter().flat_map(|line| offset(line, distance)).collect()
                }
                Geometry::Polygon(polygon) => offset(polygon.exterior(), distance),
                _ => return call.error("takes a line"),
            };
            Ok(Some(match curves.len() {
                0 => encode(&empty_of(1)),
                1 => encode(&curves.into_iter().next().map_or_else(|| empty_of(1), Geometry::from)),
                _ => encode(&MultiLineString::new(curves).into()),
            }))
        })
    },
);

/// Segments moved aside and joined by arcs, cut where they meet; what comes nearer to the line than the distance is
/// left out.
fn offset(line: &LineString, distance: f64) -> Vec<LineString> {
    let mut line = line.clone();
    line.0.dedup();
    // A distance that is lost in the digits of the coordinates is none.
    let largest = line.0.iter().fold(0.0_f64, |most, c| most.max(c.x.abs()).max(c.y.abs()));
    if line.0.len() < 2 || distance.abs() <= largest * f64::EPSILON {
        return vec![line];
    }
    let aside = |part: &Line| {
        let d = part.delta();
        let length = d.x.hypot(d.y);
        Coord { x: -d.y / length * distance, y: d.x / length * distance }
    };
    let parts: Vec<Line> = line.lines().collect();
    let mut raw: Vec<Coord> = Vec::new();
    let closed = line.is_closed();
    for (index, part) in parts.iter().enumerate() {
        let move_by = aside(part);
        raw.extend([part.start + move_by, part.end + move_by]);
        let next = match parts.get(index + 1) {
            Some(next) => next,
            None if closed => &parts[0],
            None => break,
        };
        arc(&mut raw, part.end, move_by, aside(next), distance);
    }
    if closed {
        raw.extend(raw.first().copied());
    }
    let mut graph = Parts::default();
    graph.line(&LineString::new(raw), 0);
    let plane = graph.arrange(None);
    let limit = distance.abs() * (1.0 - 1e-6);
    let far = |c: Coord| parts.iter().all(|part| foot(c, part).1 >= limit);
    let chosen: Vec<bool> = plane
        .edges
        .iter()
        .map(|edge| {
            let (a, b) = (plane.at(edge.from), plane.at(edge.to));
            // Chords of arcs dip below the distance by the square of half their angle.
            let middle = (a + b) / 2.0;
            parts.iter().all(|part| foot(middle, part).1 >= limit * 0.994) && far(a) && far(b)
        })
        .collect();
    let mut curves = polygonize::lines(&plane, &chosen, false);
    for curve in &mut curves {
        // In the direction of the line.
        if let (Some(first), Some(last)) = (curve.0.first().copied(), curve.0.last().copied()) {
            let along = |c: Coord| locate(&line, c).unwrap_or(0.0);
            let turned = if first == last {
                let (second, before) = (curve.0[1], curve.0[curve.0.len() - 2]);
                along(second) > along(before)
            } else {
                along(first) > along(last)
            };
            if turned {
                curve.0.reverse();
            }
        }
    }
    curves.sort_by(|a, b| {
        let along = |c: &LineString| c.0.first().and_then(|c| locate(&line, *c)).unwrap_or(0.0);
        along(a).total_cmp(&along(b))
    });
    curves
}

/// The corners of an arc around a centre from one offset to another, on the outer side of a turn only.
fn arc(into: &mut Vec<Coord>, centre: Coord, from: Coord, to: Coord, distance: f64) {
    let turn = from.x * to.y - from.y * to.x;
    // Left of a left turn is its inside.
    if turn * distance >= 0.0 && (turn != 0.0 || from.x * to.x + from.y * to.y > 0.0) {
        return;
    }
    let (start, mut end) = (from.y.atan2(from.x), to.y.atan2(to.x));
    if distance > 0.0 && end > start {
        end -= std::f64::consts::TAU;
    } else if distance < 0.0 && end < start {
        end += std::f64::consts::TAU;
    }
    let count = ((end - start).abs() / std::f64::consts::FRAC_PI_2 * 8.0).ceil();
    let radius = distance.abs();
    into.extend((1..count as usize).map(|i| {
        let (sin, cos) = (start + (end - start) * (i as f64 / count)).sin_cos();
        Coord { x: centre.x + radius * cos, y: centre.y + radius * sin }
    }));
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn walks_along() {
        let line = "st_geomfromtext('LINESTRING(0 0,4 0,4 4)')";
        check(&[
            (&format!("st_astext(st_linesubstring({line}, 0.25, 0.75))"), "LINESTRING(2 0,4 0,4 2)"),
            (&format!("st_astext(st_linesubstring({line}, 0.5, 0.5))"), "POINT(4 0)"),
            (&format!("st_linelocatepoint({line}, st_point(5, 2))"), "0.75"),
            (
                &format!("st_astext(st_lineinterpolatepoints({line}, 0.25))"),
                "MULTIPOINT((2 0),(4 0),(4 2),(4 4))",
            ),
            (&format!("st_astext(st_lineinterpolatepoints({line}, 0.25, false))"), "POINT(2 0)"),
            (&format!("st_astext(st_addmeasure({line}, 0, 16))"), "LINESTRING M (0 0 0,4 0 8,4 4 16)"),
            (&format!("st_interpolatepoint(st_addmeasure({line}, 0, 16), st_point(5, 2))"), "12.0"),
            (&format!("st_astext(st_offsetcurve({line}, 1))"), "LINESTRING(0 1,3 1,3 4)"),
            (&format!("st_equals(st_offsetcurve({line}, 1e-290), {line})"), "true"),
            (
                "st_astext(st_offsetcurve(st_geomfromtext('LINESTRING(0 0,4 0)'), -1))",
                "LINESTRING(0 -1,4 -1)",
            ),
            ("st_linelocatepoint(st_geomfromtext('LINESTRING EMPTY'), st_point(1, 1))", "NULL"),
        ]);
        fails(
            &format!("st_linesubstring({line}, 0.75, 0.25)"),
            "st_linesubstring: the fractions 0.75 to 0.25",
        );
        fails("st_linesubstring(st_point(1, 1), 0, 1)", "takes a line");
    }
}
