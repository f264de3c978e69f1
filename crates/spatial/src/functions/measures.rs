//! Lengths, distances and directions, in the plane of the coordinates and on the ellipsoid.

use arrow::array::{ArrayRef, BinaryArray, Float64Array};
use datafusion::common::Result;
use geo::coords_iter::CoordsIter;
use geo::line_measures::FrechetDistance;
use geo::{Bearing, Coord, Destination, Euclidean, Geodesic, Geometry, Length, Line, LineString, Point};

use super::degrees::check_degrees;
use crate::call::Call;
use crate::definition::{Definition, FLOAT64, Kind, Output, Parameter};
use crate::geometry::{encode, total};
use crate::metric::segments;
use crate::topology::relate::boxes_meet;

const ONE: &[&[Parameter]] = &[&[("geometry", Kind::Geometry)]];
const TWO: &[&[Parameter]] = &[&[("a", Kind::Geometry), ("b", Kind::Geometry)]];
const FROM_TO: &[&[Parameter]] = &[&[("from", Kind::Geometry), ("to", Kind::Geometry)]];

pub(crate) static PERIMETER: Definition = Definition::new(
    "st_perimeter",
    "The length of the rings of polygons in units of the reference system; 0 for points and lines",
    ONE,
    FLOAT64,
    |call| {
        call.each::<Float64Array, _>(|geometry| {
            Ok(Some(total(rings(geometry).into_iter().map(|ring| Euclidean.length(ring)))))
        })
    },
)
.also(&["st_perimeter2d"]);

pub(crate) static PERIMETER_SPHEROID: Definition = Definition::new(
    "st_perimeterspheroid",
    "The length of the rings of polygons in metres on the WGS 84 ellipsoid (Karney 2013); 0 for points and lines",
    ONE,
    FLOAT64,
    |call| {
        call.each::<Float64Array, _>(|geometry| {
            check_degrees(call, geometry)?;
            Ok(Some(total(rings(geometry).into_iter().map(|ring| Geodesic.length(ring)))))
        })
    },
)
.lon_lat();

fn rings(geometry: &Geometry) -> Vec<&LineString> {
    match geometry {
        Geometry::Polygon(one) => std::iter::once(one.exterior()).chain(one.interiors()).collect(),
        Geometry::MultiPolygon(many) => {
            many.iter().flat_map(|one| std::iter::once(one.exterior()).chain(one.interiors())).collect()
        }
        Geometry::GeometryCollection(members) => members.iter().flat_map(rings).collect(),
        _ => Vec::new(),
    }
}

pub(crate) static AZIMUTH: Definition = Definition::new(
    "st_azimuth",
    "The direction from one point to another in radians, clockwise from the y axis, in the plane; null for equal points",
    FROM_TO,
    FLOAT64,
    |call| {
        two_points(call, |from, to| {
            let (dx, dy) = (to.x() - from.x(), to.y() - from.y());
            Ok((dx != 0.0 || dy != 0.0).then(|| dx.atan2(dy).rem_euclid(std::f64::consts::TAU)))
        })
    },
);

pub(crate) static AZIMUTH_SPHEROID: Definition = Definition::new(
    "st_azimuthspheroid",
    "The direction in radians, clockwise from north, in which the shortest way on the WGS 84 ellipsoid from one point to another starts; null for equal points",
    FROM_TO,
    FLOAT64,
    |call| {
        two_points(call, |from, to| {
            check_degrees(call, &from.into())?;
            check_degrees(call, &to.into())?;
            Ok((from != to).then(|| Geodesic.bearing(from, to).to_radians().rem_euclid(std::f64::consts::TAU)))
        })
    },
)
.lon_lat();

fn two_points(
    call: &Call<'_>,
    mut compute: impl FnMut(Point, Point) -> Result<Option<f64>>,
) -> Result<ArrayRef> {
    call.pairs::<Float64Array, _>(|a, b| match (a, b) {
        (Geometry::Point(from), Geometry::Point(to)) => compute(*from, *to),
        _ if a.coords_count() == 0 || b.coords_count() == 0 => Ok(None),
        _ => call.error("takes two points"),
    })
}

pub(crate) static ANGLE: Definition = Definition::new(
    "st_angle",
    "The angle at the second of three points, from the first clockwise to the third, in radians; null when two neighbours are equal",
    &[&[("a", Kind::Geometry), ("corner", Kind::Geometry), ("b", Kind::Geometry)]],
    FLOAT64,
    |call| {
        let points = [call.geometries(0)?, call.geometries(1)?, call.geometries(2)?];
        call.rows::<Float64Array, _>(|row| {
            let (Some(a), Some(c), Some(b)) = (points[0].get(row)?, points[1].get(row)?, points[2].get(row)?)
            else {
                return Ok(None);
            };
            let (Geometry::Point(a), Geometry::Point(c), Geometry::Point(b)) = (&*a, &*c, &*b) else {
                return call.error("takes three points");
            };
            if a == c || b == c {
                return Ok(None);
            }
            let towards = |p: &Point| (p.x() - c.x()).atan2(p.y() - c.y());
            Ok(Some((towards(b) - towards(a)).rem_euclid(std::f64::consts::TAU)))
        })
    },
);

pub(crate) static PROJECT_SPHEROID: Definition = Definition::new(
    "st_projectspheroid",
    "The point at a distance in metres and a direction in radians clockwise from north, along the shortest way on the WGS 84 ellipsoid (Karney 2013)",
    &[&[("point", Kind::Geometry), ("distance_m", Kind::Number), ("azimuth", Kind::Number)]],
    Output::Geometry,
    |call| {
        project(call, |call, from, distance, azimuth| {
            check_degrees(call, &from.into())?;
            Ok(Geodesic.destination(from, azimuth.to_degrees(), distance))
        })
    },
)
.lon_lat();

pub(crate) static PROJECT: Definition = Definition::new(
    "st_project",
    "The point at a distance and a direction in radians clockwise from the y axis, in the plane",
    &[&[("point", Kind::Geometry), ("distance", Kind::Number), ("azimuth", Kind::Number)]],
    Output::Geometry,
    |call| {
        project(call, |_, from, distance, azimuth| {
            Ok(Point::new(from.x() + distance * azimuth.sin(), from.y() + distance * azimuth.cos()))
        })
    },
);

fn project(call: &Call<'_>, go: impl Fn(&Call<'_>, Point, f64, f64) -> Result<Point>) -> Result<ArrayRef> {
    let (points, distances, azimuths) = (call.geometries(0)?, call.numbers(1)?, call.numbers(2)?);
    call.rows::<BinaryArray, _>(|row| {
        let (Some(from), Some(distance), Some(azimuth)) =
            (points.get(row)?, distances.get(row), azimuths.get(row))
        else {
            return Ok(None);
        };
        if !distance.is_finite() || !azimuth.is_finite() {
            return call.error(format!("a distance of {distance} at {azimuth} leads nowhere"));
        }
        match &*from {
            Geometry::Point(from) => Ok(Some(encode(&go(call, *from, distance, azimuth)?.into()))),
            _ => call.error("takes a point"),
        }
    })
}

pub(crate) static HAUSDORFF: Definition = Definition::new(
    "st_hausdorffdistance",
    "The largest distance from a vertex of one to the nearest vertex of the other, in units of the reference system; with a fraction, segments are first cut into parts of that fraction; null if one is empty",
    &[
        &[("a", Kind::Geometry), ("b", Kind::Geometry)],
        &[("a", Kind::Geometry), ("b", Kind::Geometry), ("densify_fraction", Kind::Number)],
    ],
    FLOAT64,
    |call| {
        dense(call, |_, a, b| {
            if a.coords_count() == 0 || b.coords_count() == 0 {
                return Ok(None);
            }
            // Vertices against the whole of the other geometry, both ways.
            Ok(Some(directed(a, b).max(directed(b, a))))
        })
    },
);

/// The largest distance of a vertex of `a` from `b`'s lines and points.
fn directed(a: &Geometry, b: &Geometry) -> f64 {
    let parts = segments(b);
    a.coords_iter()
        .map(|c| parts.iter().map(|part| foot(c, part).1).fold(f64::INFINITY, f64::min))
        .fold(0.0, f64::max)
}

pub(crate) static FRECHET: Definition = Definition::new(
    "st_frechetdistance",
    "The discrete Fréchet distance of two lines (Eiter & Mannila 1994): the shortest leash for walking both; with a fraction, segments are first cut into parts of that fraction; null if one is empty",
    &[
        &[("a", Kind::Geometry), ("b", Kind::Geometry)],
        &[("a", Kind::Geometry), ("b", Kind::Geometry), ("densify_fraction", Kind::Number)],
    ],
    FLOAT64,
    |call| {
        dense(call, |_, a, b| {
            if a.coords_count() == 0 || b.coords_count() == 0 {
                return Ok(None);
            }
            let line = |geometry: &Geometry| LineString::new(geometry.coords_iter().collect());
            Ok(Some(Euclidean.frechet_distance(&line(a), &line(b))))
        })
    },
);

fn dense(
    call: &Call<'_>,
    compute: impl Fn(&Call<'_>, &Geometry, &Geometry) -> Result<Option<f64>>,
) -> Result<ArrayRef> {
    if call.arity() == 2 {
        return call.pairs::<Float64Array, _>(|a, b| compute(call, a, b));
    }
    let (left, right, fractions) = (call.geometries(0)?, call.geometries(1)?, call.numbers(2)?);
    call.rows::<Float64Array, _>(|row| {
        let (Some(a), Some(b), Some(fraction)) = (left.get(row)?, right.get(row)?, fractions.get(row)) else {
            return Ok(None);
        };
        if !(1e-4..=1.0).contains(&fraction) {
            return call.error(format!("the fraction {fraction} is not in 0.0001..=1"));
        }
        let parts = (1.0 / fraction).ceil() as usize;
        compute(call, &cut(&a, parts), &cut(&b, parts))
    })
}

/// Every segment cut into equal parts.
fn cut(geometry: &Geometry, parts: usize) -> Geometry {
    super::shaping::change_lines(geometry, &|line| {
        let mut coords: Vec<Coord> = line.0.first().copied().into_iter().collect();
        for part in line.lines() {
            coords.extend((1..parts).map(|i| part.start + part.delta() * (i as f64 / parts as f64)));
            coords.push(part.end);
        }
        LineString::new(coords)
    })
}

pub(crate) static MAX_DISTANCE: Definition = Definition::new(
    "st_maxdistance",
    "The largest distance between a point of a and a point of b, in units of the reference system; null if one is empty",
    TWO,
    FLOAT64,
    |call| call.pairs::<Float64Array, _>(|a, b| Ok(farthest(a, b).map(|(distance, ..)| distance))),
);

pub(crate) static CLOSEST_POINT: Definition = Definition::new(
    "st_closestpoint",
    "The point of a that is nearest to b, in the plane; null if one is empty",
    TWO,
    Output::Geometry,
    |call| {
        call.pairs::<BinaryArray, _>(|a, b| Ok(nearest(a, b).map(|(from, _)| encode(&Point(from).into()))))
    },
);

pub(crate) static SHORTEST_LINE: Definition = Definition::new(
    "st_shortestline",
    "A line of two points from a to b as long as their distance in the plane; null if one is empty",
    TWO,
    Output::Geometry,
    |call| {
        call.pairs::<BinaryArray, _>(|a, b| {
            Ok(nearest(a, b).map(|(from, to)| encode(&Line::new(from, to).into())))
        })
    },
);

pub(crate) static LONGEST_LINE: Definition = Definition::new(
    "st_longestline",
    "A line of two points from a to b as long as their largest distance in the plane; null if one is empty",
    TWO,
    Output::Geometry,
    |call| {
        call.pairs::<BinaryArray, _>(|a, b| {
            Ok(farthest(a, b).map(|(_, from, to)| encode(&Line::new(from, to).into())))
        })
    },
);

/// The farthest pair: it lies at vertices.
pub(crate) fn farthest(a: &Geometry, b: &Geometry) -> Option<(f64, Coord, Coord)> {
    let others: Vec<Coord> = b.coords_iter().collect();
    let mut best: Option<(f64, Coord, Coord)> = None;
    for from in a.coords_iter() {
        for to in &others {
            let distance = (from.x - to.x).hypot(from.y - to.y);
            if best.is_none_or(|(known, ..)| distance > known) {
                best = Some((distance, from, *to));
            }
        }
    }
    best
}

/// The place on a segment nearest to a coordinate, and how far that is.
pub(crate) fn foot(c: Coord, part: &Line) -> (Coord, f64) {
    let d = part.delta();
    let squared = d.x * d.x + d.y * d.y;
    let along = if squared > 0.0 {
        (((c.x - part.start.x) * d.x + (c.y - part.start.y) * d.y) / squared).clamp(0.0, 1.0)
    } else {
        0.0
    };
    // The ends are kept as they are.
    let place = if along == 1.0 { part.end } else { part.start + d * along };
    (place, (c.x - place.x).hypot(c.y - place.y))
}

/// The closest places of two geometries in the plane; one common place where they meet, `None` when one is empty.
pub(crate) fn nearest(a: &Geometry, b: &Geometry) -> Option<(Coord, Coord)> {
    a.coords_iter().next()?;
    b.coords_iter().next()?;
    if boxes_meet(a, b) && super::predicates::intersects(a, b) {
        let common =
            crate::topology::overlay::overlay(a, b, crate::topology::overlay::Operation::Intersection, None);
        if let Some(place) = common.ok().and_then(|common| common.coords_iter().next()) {
            return Some((place, place));
        }
    }
    let (parts_a, parts_b) = (segments(a), segments(b));
    let mut best: Option<(f64, Coord, Coord)> = None;
    let mut hold = |distance: f64, from: Coord, to: Coord| {
        if best.is_none_or(|(known, ..)| distance < known) {
            best = Some((distance, from, to));
        }
    };
    for vertex in a.coords_iter() {
        for part in &parts_b {
            let (place, distance) = foot(vertex, part);
            hold(distance, vertex, place);
        }
    }
    for vertex in b.coords_iter() {
        for part in &parts_a {
            let (place, distance) = foot(vertex, part);
            hold(distance, place, vertex);
        }
    }
    best.map(|(_, from, to)| (from, to))
}

pub(crate) static MINIMUM_CLEARANCE: Definition = Definition::new(
    "st_minimumclearance",
    "The smallest distance by which moving one vertex could make the geometry invalid; Infinity when none could",
    ONE,
    FLOAT64,
    |call| {
        call.each::<Float64Array, _>(|geometry| {
            Ok(Some(clearance(geometry).map_or(f64::INFINITY, |(distance, ..)| distance)))
        })
    },
);

pub(crate) static MINIMUM_CLEARANCE_LINE: Definition = Definition::new(
    "st_minimumclearanceline",
    "A line of two points that spans st_minimumclearance; an empty line when there is none",
    ONE,
    Output::Geometry,
    |call| {
        call.each::<BinaryArray, _>(|geometry| {
            Ok(Some(match clearance(geometry) {
                Some((_, from, to)) => encode(&Line::new(from, to).into()),
                None => encode(&LineString::new(Vec::new()).into()),
            }))
        })
    },
);

/// The closest pair of a vertex and another vertex or a segment that it is no end of.
fn clearance(geometry: &Geometry) -> Option<(f64, Coord, Coord)> {
    let parts = segments(geometry);
    let mut best: Option<(f64, Coord, Coord)> = None;
    for vertex in geometry.coords_iter() {
        for part in &parts {
            let candidates: &[Coord] =
                if part.start == vertex || part.end == vertex { &[] } else { &[foot(vertex, part).0] };
            let ends = [part.start, part.end];
            for place in candidates.iter().chain(ends.iter().filter(|end| **end != vertex)) {
                let distance = (vertex.x - place.x).hypot(vertex.y - place.y);
                if best.is_none_or(|(known, ..)| distance < known) {
                    best = Some((distance, *place, vertex));
                }
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn measures_the_plane() {
        let g = |wkt: &str| format!("st_geomfromtext('{wkt}')");
        every_type("st_perimeter", ["0.0", "0.0", "16.0", "0.0", "0.0", "20.0", "0.0"]);
        check(&[
            ("degrees(st_azimuth(st_point(0, 0), st_point(1, 0)))", "90.0"),
            ("st_azimuth(st_point(0, 0), st_point(0, 0))", "NULL"),
            ("degrees(st_angle(st_point(0, 1), st_point(0, 0), st_point(1, 0)))", "90.0"),
            (
                &format!(
                    "st_hausdorffdistance({}, {})",
                    g("LINESTRING(0 0,2 0)"),
                    g("MULTIPOINT(0 1,1 0,2 1)")
                ),
                "1.0",
            ),
            (
                &format!(
                    "st_frechetdistance({}, {})",
                    g("LINESTRING(0 0,100 0)"),
                    g("LINESTRING(0 0,50 50,100 0)")
                ),
                "70.71067811865476",
            ),
            (
                &format!(
                    "st_frechetdistance({}, {}, 0.5)",
                    g("LINESTRING(0 0,100 0)"),
                    g("LINESTRING(0 0,50 50,100 0)")
                ),
                "50.0",
            ),
            ("st_maxdistance(st_point(0, 0), st_makeenvelope(0, 0, 3, 4))", "5.0"),
            (
                &format!("st_astext(st_closestpoint({}, st_point(1, 1)))", g("LINESTRING(0 0,2 0)")),
                "POINT(1 0)",
            ),
            (
                &format!("st_astext(st_shortestline(st_point(1, 1), {}))", g("LINESTRING(0 0,2 0)")),
                "LINESTRING(1 1,1 0)",
            ),
            (
                &format!("st_astext(st_longestline(st_point(0, 0), {}))", g("LINESTRING(0 0,2 0)")),
                "LINESTRING(0 0,2 0)",
            ),
            ("st_maxdistance(st_point(0, 0), st_geomfromtext('POINT EMPTY'))", "NULL"),
        ]);
        fails("st_azimuth(st_point(0, 0), st_makeenvelope(0, 0, 1, 1))", "st_azimuth: takes two points");
    }

    #[test]
    fn measures_the_ellipsoid() {
        // A degree of longitude on the equator is 111319.49 m, one of latitude from it 110574.39 m.
        check(&[
            ("round(st_perimeterspheroid(st_makeenvelope(0, 0, 1, 1)), 0) BETWEEN 443700 AND 443800", "true"),
            ("round(degrees(st_azimuthspheroid(st_point(0, 0), st_point(1, 0))), 6)", "90.0"),
            ("round(st_x(st_projectspheroid(st_point(0, 0), 111319.4907932, radians(90))), 6)", "1.0"),
            // Over the antimeridian and over the pole.
            ("round(st_x(st_projectspheroid(st_point(179.5, 0), 111319.4907932, radians(90))), 6)", "-179.5"),
            ("round(st_y(st_projectspheroid(st_point(0, 89.5), 111693.98 , 0)), 2)", "89.5"),
        ]);
        fails(
            "st_azimuthspheroid(st_setcrs(st_point(1, 2), 'EPSG:3879'), st_setcrs(st_point(1, 3), 'EPSG:3879'))",
            "takes longitude and latitude",
        );
    }
}
