//! Geometries made from one geometry: buffers, hulls, simpler, smoother, denser, moved.

use arrow::array::{ArrayRef, BinaryArray};
use datafusion::common::Result;
use geo::algorithm::buffer::{BufferStyle, LineCap, LineJoin};
use geo::concave_hull::ConcaveHullOptions;
use geo::coords_iter::CoordsIter;
use geo::{
    BoundingRect, Buffer, ConcaveHull, ConvexHull, Coord, Geometry, GeometryCollection, InteriorPoint,
    LineString, MultiLineString, MultiPoint, MultiPolygon, Orient, Point, Polygon, Simplify, SimplifyVwIdx,
};

use super::st_makeenvelope::rectangle;
use crate::call::Call;
use crate::definition::{Definition, Kind, Output, Parameter};
use crate::geometry::encode;
use crate::shape::Shape;
use crate::topology::noding::round_even;
use crate::topology::overlay::{assemble, empty_of, type_dimension, union_all};
use crate::topology::valid;

const ONE: &[&[Parameter]] = &[&[("geometry", Kind::Geometry)]];
const G: Parameter = ("geometry", Kind::Geometry);
const TOLERANCE: &[&[Parameter]] = &[&[("geometry", Kind::Geometry), ("tolerance", Kind::Number)]];

pub(crate) static BUFFER: Definition = Definition::new(
    "st_buffer",
    "All places within a distance of a geometry, in units of the reference system; a negative distance shrinks areas. The third argument is the number of segments of a quarter circle (8) or a text such as 'quad_segs=4 endcap=flat join=mitre mitre_limit=2 side=both'",
    &[&[G, ("distance", Kind::Number)], &[G, ("distance", Kind::Number), ("style", Kind::TextOrInteger)]],
    Output::Geometry,
    |call| {
        let (geometries, distances) = (call.geometries(0)?, call.numbers(1)?);
        let styles = if call.arity() > 2 { Some(call.texts(2)?) } else { None };
        call.rows::<BinaryArray, _>(|row| {
            let (Some(geometry), Some(distance)) = (geometries.get(row)?, distances.get(row)) else {
                return Ok(None);
            };
            let style = match &styles {
                None => Style::default(),
                Some(styles) => match styles.get(row) {
                    Some(text) => Style::parse(call, text)?,
                    None => return Ok(None),
                },
            };
            if !distance.is_finite() {
                return call.error(format!("the distance {distance} is not finite"));
            }
            match buffer(&geometry, distance, &style) {
                Ok(area) => Ok(Some(encode(&area))),
                Err(message) => call.error(message),
            }
        })
    },
);

/// How a buffer turns around corners and ends.
#[derive(Debug, Clone, Copy)]
struct Style {
    quad_segs: u32,
    cap: Cap,
    join: Join,
    mitre_limit: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Cap {
    Round,
    Flat,
    Square,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Join {
    Round,
    Mitre,
    Bevel,
}

impl Default for Style {
    fn default() -> Self {
        Self { quad_segs: 8, cap: Cap::Round, join: Join::Round, mitre_limit: 5.0 }
    }
}

impl Style {
    fn parse(call: &Call<'_>, text: &str) -> Result<Self> {
        let mut style = Self::default();
        if let Ok(number) = text.trim().parse::<u32>() {
            style.quad_segs = number.clamp(1, 1000);
            return Ok(style);
        }
        for setting in text.split_whitespace() {
            let Some((name, value)) = setting.split_once('=') else {
                return call.error(format!("'{setting}' is not name=value"));
            };
            let bad = || call.error(format!("'{value}' is not a value of {name}"));
            match name.to_ascii_lowercase().as_str() {
                "quad_segs" => match value.parse::<u32>() {
                    Ok(number) => style.quad_segs = number.clamp(1, 1000),
                    Err(_) => return bad(),
                },
                "endcap" => {
                    style.cap = match value {
                        "round" => Cap::Round,
                        "flat" | "butt" => Cap::Flat,
                        "square" => Cap::Square,
                        _ => return bad(),
                    };
                }
                "join" => {
                    style.join = match value {
                        "round" => Join::Round,
                        "mitre" | "miter" => Join::Mitre,
                        "bevel" => Join::Bevel,
                        _ => return bad(),
                    };
                }
                "mitre_limit" | "miter_limit" => match value.parse::<f64>() {
                    Ok(limit) if limit >= 1.0 => style.mitre_limit = limit,
                    _ => return bad(),
                },
                "side" if value == "both" => {}
                "side" => {
                    return call
                        .error("only side=both is supported; st_offsetcurve gives one side of a line");
                }
                _ => {
                    return call.error(format!(
                        "'{name}' is not a setting of buffers: quad_segs, endcap, join, mitre_limit, side"
                    ));
                }
            }
        }
        Ok(style)
    }

    fn of_geo(&self, distance: f64) -> BufferStyle<f64> {
        let step = std::f64::consts::FRAC_PI_2 / f64::from(self.quad_segs);
        let style = BufferStyle::new(distance);
        let style = match self.join {
            Join::Round => style.line_join(LineJoin::Round(step)),
            // The limit counts half widths at the tip; there the angle between the segments is the smallest one kept.
            Join::Mitre => style.line_join(LineJoin::Miter(2.0 * (1.0 / self.mitre_limit).asin())),
            Join::Bevel => style.line_join(LineJoin::Bevel),
        };
        match self.cap {
            Cap::Round => style.line_cap(LineCap::Round(step)),
            Cap::Flat => style.line_cap(LineCap::Butt),
            Cap::Square => style.line_cap(LineCap::Square),
        }
    }
}

/// The area around the parts of a geometry, united.
fn buffer(geometry: &Geometry, distance: f64, style: &Style) -> std::result::Result<Geometry, String> {
    let mut areas: Vec<Geometry> = Vec::new();
    let mut outlined: Vec<Polygon> = Vec::new();
    for part in singles(geometry) {
        match part {
            Geometry::Point(point) if distance > 0.0 => areas.extend(around_point(point, distance, style)),
            Geometry::LineString(line) if distance > 0.0 => {
                let mut line = line;
                line.0.dedup();
                match line.0.as_slice() {
                    [] => {}
                    [only] => areas.extend(around_point(Point(*only), distance, style)),
                    _ => areas.push(line.buffer_with_style(style.of_geo(distance)).into()),
                }
            }
            Geometry::Polygon(polygon) => {
                if polygon.exterior().0.is_empty() {
                    continue;
                }
                let flat = crate::topology::arrangement::doubled_area(&polygon.exterior().0) == 0.0;
                if flat && distance > 0.0 {
                    areas.push(polygon.exterior().buffer_with_style(style.of_geo(distance)).into());
                } else if !flat {
                    outlined.push(polygon);
                }
            }
            _ => {}
        }
    }
    if !outlined.is_empty() {
        // Rings that cross, and members that overlap, are made one valid area first.
        let whole: Geometry = MultiPolygon::new(outlined).into();
        let whole = if valid::check(&whole).is_ok() {
            whole
        } else {
            let members: Vec<Geometry> = singles(&whole).iter().map(valid::repair).collect();
            union_all(&members, None).map_err(|invalid| invalid.to_string())?
        };
        if distance == 0.0 {
            areas.push(whole);
        } else {
            for part in singles(&whole) {
                if let Geometry::Polygon(polygon) = part {
                    let polygon = polygon.orient(geo::orient::Direction::Default);
                    areas.push(polygon.buffer_with_style(style.of_geo(distance)).into());
                }
            }
        }
    }
    areas.retain(|area| area.coords_count() > 0);
    if areas.is_empty() {
        return Ok(empty_of(2));
    }
    // What the library made is on its own grid: rings that touch there are cleaned before they are united.
    let clean: Vec<Geometry> = areas
        .iter()
        .map(|area| if valid::check(area).is_ok() { area.clone() } else { valid::repair(area) })
        .collect();
    let united = union_all(&clean, None).map_err(|invalid| invalid.to_string())?;
    // Only areas stay.
    let polygons: Vec<Polygon> = singles(&united)
        .into_iter()
        .filter_map(|part| if let Geometry::Polygon(polygon) = part { Some(polygon) } else { None })
        .collect();
    Ok(assemble(Vec::new(), Vec::new(), polygons, 2))
}

/// A circle as a regular polygon, or a square for square ends; flat ends leave nothing of a point.
fn around_point(point: Point, distance: f64, style: &Style) -> Option<Geometry> {
    match style.cap {
        Cap::Flat => None,
        Cap::Square => Some(
            rectangle(point.x() - distance, point.y() - distance, point.x() + distance, point.y() + distance)
                .into(),
        ),
        Cap::Round => {
            let count = style.quad_segs * 4;
            let mut ring: Vec<Coord> = (0..count)
                .map(|i| {
                    let angle = std::f64::consts::TAU * f64::from(i) / f64::from(count);
                    // The quarters are exact.
                    let (sin, cos) = match i * 4 % count {
                        0 => [(0.0, 1.0), (1.0, 0.0), (0.0, -1.0), (-1.0, 0.0)][(i * 4 / count) as usize],
                        _ => angle.sin_cos(),
                    };
                    Coord { x: point.x() + distance * cos, y: point.y() + distance * sin }
                })
                .collect();
            ring.extend(ring.first().copied());
            Some(Polygon::new(LineString::new(ring), Vec::new()).into())
        }
    }
}

/// The single geometries of a plane geometry.
pub(crate) fn singles(geometry: &Geometry) -> Vec<Geometry> {
    match geometry {
        Geometry::GeometryCollection(members) => members.iter().flat_map(singles).collect(),
        other => crate::topology::overlay::members(other.clone()),
    }
}

pub(crate) static CONVEX_HULL: Definition = Definition::new(
    "st_convexhull",
    "The smallest convex geometry around all points: an area, a line or a point",
    ONE,
    Output::Geometry,
    |call| call.each::<BinaryArray, _>(|geometry| Ok(Some(encode(&convex_hull(geometry))))),
);

fn convex_hull(geometry: &Geometry) -> Geometry {
    let mut coords: Vec<Coord> = geometry.coords_iter().collect();
    coords.sort_by(crate::topology::polygonize::order);
    coords.dedup();
    match coords.as_slice() {
        [] => geometry.clone(),
        [only] => Point(*only).into(),
        [first, .., last] => {
            let (first, last) = (*first, *last);
            let flat = coords
                .iter()
                .all(|c| crate::topology::noding::orient(first, last, *c) == geo::Orientation::Collinear);
            if flat {
                return LineString::new(vec![first, last]).into();
            }
            let hull = MultiPoint::from(coords).convex_hull();
            assemble(Vec::new(), Vec::new(), vec![hull], 2)
        }
    }
}

pub(crate) static CONCAVE_HULL: Definition = Definition::new(
    "st_concavehull",
    "An area around all points that follows them more closely than the convex hull (Park & Oh 2012): 1 is the convex hull, towards 0 it becomes more concave",
    &[&[G, ("ratio", Kind::Number)]],
    Output::Geometry,
    |call| {
        let (geometries, ratios) = (call.geometries(0)?, call.numbers(1)?);
        call.rows::<BinaryArray, _>(|row| {
            let (Some(geometry), Some(ratio)) = (geometries.get(row)?, ratios.get(row)) else {
                return Ok(None);
            };
            if !(0.0..=1.0).contains(&ratio) {
                return call.error(format!("the ratio {ratio} is not in 0..=1"));
            }
            let hull = convex_hull(&geometry);
            if ratio == 1.0 || !matches!(hull, Geometry::Polygon(_)) {
                return Ok(Some(encode(&hull)));
            }
            let coords: Vec<Coord> = geometry.coords_iter().collect();
            let options = ConcaveHullOptions { concavity: 1.0 + 4.0 * ratio, length_threshold: 0.0 };
            Ok(Some(encode(&coords.concave_hull_with_options(options).into())))
        })
    },
);

pub(crate) static POINT_ON_SURFACE: Definition = Definition::new(
    "st_pointonsurface",
    "A point that surely lies on the geometry, inside of areas; empty for an empty geometry",
    ONE,
    Output::Geometry,
    |call| {
        call.each::<BinaryArray, _>(|geometry| {
            Ok(Some(match interior_point(geometry) {
                Some(point) => encode(&point.into()),
                None => encode(&empty_of(0)),
            }))
        })
    },
);

/// Of the members with the largest dimension: for points and lines the place nearest to the centroid, for areas the
/// middle of the longest part of a level line through them.
fn interior_point(geometry: &Geometry) -> Option<Point> {
    let largest = crate::topology::relate::dimension(geometry);
    let parts: Vec<Geometry> = singles(geometry)
        .into_iter()
        .filter(|part| crate::topology::relate::dimension(part) == largest && part.coords_count() > 0)
        .collect();
    let whole = match largest {
        0 | 1 => Geometry::GeometryCollection(GeometryCollection::new_from(parts)),
        _ => {
            let mut best: Option<(f64, Point)> = None;
            for part in &parts {
                let Geometry::Polygon(polygon) = part else { continue };
                if let Some((width, point)) = widest(polygon)
                    && best.is_none_or(|(known, _)| width > known)
                {
                    best = Some((width, point));
                }
            }
            return best.map(|(_, point)| point).or_else(|| parts.first()?.interior_point());
        }
    };
    let centre = geo::Centroid::centroid(&whole)?.0;
    let distance = |c: &Coord| (c.x - centre.x).hypot(c.y - centre.y);
    // Of lines a vertex inside, if there is one.
    let mut inner: Vec<Coord> = Vec::new();
    let mut ends: Vec<Coord> = Vec::new();
    for part in singles(&whole) {
        let coords: Vec<Coord> = part.coords_iter().collect();
        match coords.as_slice() {
            [] => {}
            [first, middle @ .., last] if largest == 1 => {
                inner.extend(middle);
                ends.extend([first, last]);
            }
            all => inner.extend(all),
        }
    }
    let list = if inner.is_empty() { ends } else { inner };
    list.into_iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).map(Point)
}

/// The middle of the longest stretch of a level line that runs half way between vertices near the middle.
fn widest(polygon: &Polygon) -> Option<(f64, Point)> {
    let bounds = polygon.bounding_rect()?;
    let middle = f64::midpoint(bounds.min().y, bounds.max().y);
    let (mut below, mut above) = (bounds.min().y, bounds.max().y);
    for coord in polygon.coords_iter() {
        if coord.y <= middle {
            below = below.max(coord.y);
        } else {
            above = above.min(coord.y);
        }
    }
    let y = f64::midpoint(below, above);
    let mut crossings: Vec<f64> = Vec::new();
    for ring in std::iter::once(polygon.exterior()).chain(polygon.interiors()) {
        for part in ring.lines() {
            let (low, high) =
                if part.start.y <= part.end.y { (part.start, part.end) } else { (part.end, part.start) };
            if low.y <= y && y < high.y {
                crossings.push(low.x + (high.x - low.x) * ((y - low.y) / (high.y - low.y)));
            }
        }
    }
    crossings.sort_by(f64::total_cmp);
    let mut best: Option<(f64, Point)> = None;
    for stretch in crossings.chunks_exact(2) {
        let width = stretch[1] - stretch[0];
        if width > 0.0 && best.is_none_or(|(known, _)| width > known) {
            best = Some((width, Point::new(f64::midpoint(stretch[0], stretch[1]), y)));
        }
    }
    best
}

pub(crate) static EXPAND: Definition = Definition::new(
    "st_expand",
    "The bounding box made larger by a distance on every side, or by one in x and one in y, as a polygon; an empty geometry as it is",
    &[&[G, ("distance", Kind::Number)], &[G, ("dx", Kind::Number), ("dy", Kind::Number)]],
    Output::Geometry,
    |call| {
        let (geometries, dx) = (call.geometries(0)?, call.numbers(1)?);
        let dy = call.numbers(call.arity() - 1)?;
        call.rows::<BinaryArray, _>(|row| {
            let (Some(geometry), Some(dx), Some(dy)) = (geometries.get(row)?, dx.get(row), dy.get(row))
            else {
                return Ok(None);
            };
            let Some(bounds) = geometry.bounding_rect() else { return Ok(Some(encode(&geometry))) };
            let (x0, y0, x1, y1) =
                (bounds.min().x - dx, bounds.min().y - dy, bounds.max().x + dx, bounds.max().y + dy);
            if x0 <= x1 && y0 <= y1 && [x0, y0, x1, y1].iter().all(|v| v.is_finite()) {
                return Ok(Some(encode(&rectangle(x0, y0, x1, y1).into())));
            }
            call.error(format!("({dx}, {dy}) leaves no box"))
        })
    },
);

/// Checks a tolerance for each row and changes the geometry.
fn with_tolerance(call: &Call<'_>, change: impl Fn(&Geometry, f64) -> Geometry) -> Result<ArrayRef> {
    let (geometries, tolerances) = (call.geometries(0)?, call.numbers(1)?);
    call.rows::<BinaryArray, _>(|row| {
        let (Some(geometry), Some(tolerance)) = (geometries.get(row)?, tolerances.get(row)) else {
            return Ok(None);
        };
        if !tolerance.is_finite() || tolerance < 0.0 {
            return call.error(format!("the tolerance {tolerance} is not a distance"));
        }
        Ok(Some(encode(&change(&geometry, tolerance))))
    })
}

pub(crate) static SIMPLIFY: Definition = Definition::new(
    "st_simplify",
    "Fewer points, none farther than a tolerance from what was there (Douglas & Peucker 1973); areas are made valid again and may vanish",
    TOLERANCE,
    Output::Geometry,
    |call| {
        with_tolerance(call, |geometry, tolerance| {
            if tolerance == 0.0 {
                return change_lines(geometry, &|line| line.simplify(0.0));
            }
            let simpler = change_lines(geometry, &|line| line.simplify(tolerance));
            only_same_dimension(&drop_collapsed(&simpler), geometry)
        })
    },
);

/// Rings of fewer than three different points, and shells with their holes, are gone.
fn drop_collapsed(geometry: &Geometry) -> Geometry {
    let area = |polygon: &Polygon| -> Option<Polygon> {
        (polygon.exterior().0.len() >= 4).then(|| {
            Polygon::new(
                polygon.exterior().clone(),
                polygon.interiors().iter().filter(|hole| hole.0.len() >= 4).cloned().collect(),
            )
        })
    };
    match geometry {
        Geometry::Polygon(polygon) => area(polygon).map_or_else(|| empty_of(2), Into::into),
        Geometry::MultiPolygon(polygons) => {
            let left: Vec<Polygon> = polygons.iter().filter_map(area).collect();
            if left.is_empty() {
                MultiPolygon::new(left).into()
            } else {
                assemble(Vec::new(), Vec::new(), left, 2)
            }
        }
        Geometry::GeometryCollection(members) => Geometry::GeometryCollection(
            members.iter().map(drop_collapsed).filter(|m| m.coords_count() > 0).collect(),
        ),
        other => other.clone(),
    }
}

/// A geometry made valid, without what fell to a lower dimension.
fn only_same_dimension(simpler: &Geometry, before: &Geometry) -> Geometry {
    if type_dimension(before) < 2 || valid::check(simpler).is_ok() {
        return simpler.clone();
    }
    let polygons: Vec<Polygon> = singles(&valid::repair(simpler))
        .into_iter()
        .filter_map(|part| if let Geometry::Polygon(polygon) = part { Some(polygon) } else { None })
        .collect();
    assemble(Vec::new(), Vec::new(), polygons, 2)
}

pub(crate) static SIMPLIFY_PRESERVE: Definition = Definition::new(
    "st_simplifypreservetopology",
    "Fewer points like st_simplify, but no line or ring vanishes or comes to cross itself or another one: where it would, points stay",
    TOLERANCE,
    Output::Geometry,
    |call| {
        with_tolerance(call, |geometry, tolerance| {
            // Points come back ring by ring until nothing crosses: a smaller tolerance halves the change.
            let mut step = tolerance;
            for _ in 0..24 {
                let simpler = change_lines(geometry, &|line| keep_ring(line, step));
                if valid::check(geometry).is_err()
                    || (valid::check(&simpler).is_ok()
                        && (crate::topology::simple::is_simple(&simpler)
                            || !crate::topology::simple::is_simple(geometry)))
                {
                    return simpler;
                }
                step /= 2.0;
            }
            geometry.clone()
        })
    },
);

/// Douglas-Peucker keeps the place where a ring starts; it goes too when its neighbours see past it.
fn without_start(before: &LineString, mut ring: LineString, tolerance: f64) -> LineString {
    let count = ring.0.len();
    if !before.is_closed() || before.0.len() < 4 || count <= 4 {
        return ring;
    }
    let across = geo::Line::new(ring.0[count - 2], ring.0[1]);
    if super::measures::foot(ring.0[0], &across).1 <= tolerance {
        ring.0.pop();
        ring.0.remove(0);
        ring.0.extend(ring.0.first().copied());
    }
    ring
}

/// Douglas-Peucker that leaves a ring at least four points.
fn keep_ring(line: &LineString, tolerance: f64) -> LineString {
    let mut step = tolerance;
    let is_ring = line.is_closed() && line.0.len() >= 4;
    for _ in 0..24 {
        let simpler = line.simplify(step);
        if !is_ring || simpler.0.len() >= 4 {
            return without_start(line, simpler, step);
        }
        step /= 2.0;
    }
    line.clone()
}

pub(crate) static SIMPLIFY_VW: Definition = Definition::new(
    "st_simplifyvw",
    "Fewer points: those whose triangle with their neighbours has less than an area are dropped, the smallest first (Visvalingam & Whyatt 1993)",
    &[&[G, ("area", Kind::Number)]],
    Output::Geometry,
    |call| {
        with_tolerance(call, |geometry, area| {
            let simpler = change_lines(geometry, &|line| {
                // A triangle of just that area stays.
                let keep = line.simplify_vw_idx(area.next_down());
                LineString::new(keep.into_iter().filter_map(|index| line.0.get(index).copied()).collect())
            });
            drop_collapsed(&simpler)
        })
    },
);

pub(crate) static CHAIKIN: Definition = Definition::new(
    "st_chaikinsmoothing",
    "Corners cut off again and again (Chaikin 1974), once or as often as given (1 to 5)",
    &[&[G], &[G, ("times", Kind::Integer)]],
    Output::Geometry,
    |call| {
        let geometries = call.geometries(0)?;
        let times = if call.arity() > 1 { Some(call.integers(1)?) } else { None };
        call.rows::<BinaryArray, _>(|row| {
            let Some(geometry) = geometries.get(row)? else { return Ok(None) };
            let times = match &times {
                None => 1,
                Some(times) => match times.get(row) {
                    None => return Ok(None),
                    Some(times @ 1..=5) => times as usize,
                    Some(other) => return call.error(format!("{other} is not in 1..=5")),
                },
            };
            Ok(Some(encode(&change_lines(&geometry, &|line| {
                (0..times).fold(line.clone(), |line, _| cut_corners(&line))
            }))))
        })
    },
);

/// Every corner becomes the two places a quarter of the way to its neighbours; the ends of a line stay.
fn cut_corners(line: &LineString) -> LineString {
    let coords = &line.0;
    if coords.len() < 3 {
        return line.clone();
    }
    let quarters =
        |before: Coord, at: Coord, after: Coord| [at + (before - at) * 0.25, at + (after - at) * 0.25];
    let inner = coords.windows(3).flat_map(|w| quarters(w[0], w[1], w[2]));
    if !line.is_closed() {
        let ends = (coords[0], coords[coords.len() - 1]);
        return LineString::new(std::iter::once(ends.0).chain(inner).chain([ends.1]).collect());
    }
    let start = quarters(coords[coords.len() - 2], coords[0], coords[1]);
    LineString::new([start[1]].into_iter().chain(inner).chain([start[0], start[1]]).collect())
}

pub(crate) static SEGMENTIZE: Definition = Definition::new(
    "st_segmentize",
    "No segment longer than a length in units of the reference system: longer ones are cut into equal parts",
    &[&[G, ("max_length", Kind::Number)]],
    Output::Geometry,
    |call| {
        let (geometries, lengths) = (call.geometries(0)?, call.numbers(1)?);
        call.rows::<BinaryArray, _>(|row| {
            let (Some(geometry), Some(length)) = (geometries.get(row)?, lengths.get(row)) else {
                return Ok(None);
            };
            if length.is_nan() || length <= 0.0 {
                return call.error(format!("{length} is not a length"));
            }
            let parts = |part: &geo::Line| (part.delta().x.hypot(part.delta().y) / length).ceil().max(1.0);
            let total: f64 = crate::metric::segments(&geometry).iter().map(parts).sum();
            if total > 1e7 {
                return call.error(format!("{total} points would be needed"));
            }
            Ok(Some(encode(&change_lines(&geometry, &|line| {
                let mut coords: Vec<Coord> = line.0.first().copied().into_iter().collect();
                for part in line.lines() {
                    let count = parts(&part);
                    let steps = 1..count as usize;
                    coords.extend(steps.map(|i| part.start + part.delta() * (i as f64 / count)));
                    coords.push(part.end);
                }
                LineString::new(coords)
            }))))
        })
    },
)
.also(&["st_densify"]);

/// The same with every line and ring changed.
pub(crate) fn change_lines(geometry: &Geometry, change: &dyn Fn(&LineString) -> LineString) -> Geometry {
    let area = |polygon: &Polygon| {
        Polygon::new(change(polygon.exterior()), polygon.interiors().iter().map(change).collect())
    };
    match geometry {
        Geometry::LineString(line) => change(line).into(),
        Geometry::MultiLineString(lines) => {
            MultiLineString::new(lines.iter().filter(|line| !line.0.is_empty()).map(change).collect()).into()
        }
        Geometry::Polygon(polygon) => area(polygon).into(),
        Geometry::MultiPolygon(polygons) => MultiPolygon::new(polygons.iter().map(area).collect()).into(),
        Geometry::GeometryCollection(members) => {
            Geometry::GeometryCollection(members.iter().map(|member| change_lines(member, change)).collect())
        }
        other => other.clone(),
    }
}

pub(crate) static SNAP_TO_GRID: Definition = Definition::new(
    "st_snaptogrid",
    "Coordinates rounded to multiples of a cell size; points that fall together are one, what collapses is gone",
    &[&[G, ("size", Kind::Number)]],
    Output::Geometry,
    |call| {
        let (bytes, sizes) = (call.bytes(0)?, call.numbers(1)?);
        call.rows::<BinaryArray, _>(|row| {
            let (Some(bytes), Some(size)) = (bytes.get(row), sizes.get(row)) else { return Ok(None) };
            if !size.is_finite() || size < 0.0 {
                return call.error(format!("the cell size {size} is not a length"));
            }
            let shape = call.shape(bytes)?;
            if size == 0.0 {
                return Ok(Some(shape.encode()));
            }
            let round = |p: &[f64; 4]| [round_even(p[0], size), round_even(p[1], size), p[2], p[3]];
            Ok(Some(snapped(&shape, &round).encode()))
        })
    },
);

fn snapped(shape: &Shape, round: &dyn Fn(&[f64; 4]) -> [f64; 4]) -> Shape {
    use crate::shape::Form;
    let list = |list: &[[f64; 4]], least: usize| {
        let mut rounded: Vec<[f64; 4]> = list.iter().map(round).collect();
        rounded.dedup_by(|a, b| a[..2] == b[..2]);
        if rounded.len() < least { Vec::new() } else { rounded }
    };
    let members = |members: &[Shape]| -> Vec<Shape> {
        members.iter().map(|member| snapped(member, round)).filter(|member| !member.is_empty()).collect()
    };
    let form = match &shape.form {
        Form::Point(position) => Form::Point(position.as_ref().map(round)),
        Form::Line(line) => Form::Line(list(line, 2)),
        Form::Polygon(rings) => {
            let mut rounded: Vec<Vec<[f64; 4]>> = rings.iter().map(|ring| list(ring, 4)).collect();
            if rounded.first().is_none_or(Vec::is_empty) {
                rounded.clear();
            }
            rounded.retain(|ring| !ring.is_empty());
            Form::Polygon(rounded)
        }
        Form::MultiPoint(all) => {
            let mut all = members(all);
            all.dedup();
            Form::MultiPoint(all)
        }
        Form::MultiLine(all) => Form::MultiLine(members(all)),
        Form::MultiPolygon(all) => Form::MultiPolygon(members(all)),
        Form::Collection(all) => Form::Collection(members(all)),
    };
    Shape::new(form, shape.dimensions)
}

pub(crate) static TRANSLATE: Definition = Definition::new(
    "st_translate",
    "Moved by dx, dy and, if given, dz",
    &[
        &[G, ("dx", Kind::Number), ("dy", Kind::Number)],
        &[G, ("dx", Kind::Number), ("dy", Kind::Number), ("dz", Kind::Number)],
    ],
    Output::Geometry,
    |call| {
        affine(call, |n| {
            let dz = n.get(2).copied().unwrap_or(0.0);
            [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, n[0], n[1], dz]
        })
    },
);

pub(crate) static SCALE: Definition = Definition::new(
    "st_scale",
    "Coordinates multiplied by factors for x, y and, if given, z",
    &[
        &[G, ("fx", Kind::Number), ("fy", Kind::Number)],
        &[G, ("fx", Kind::Number), ("fy", Kind::Number), ("fz", Kind::Number)],
    ],
    Output::Geometry,
    |call| {
        affine(call, |n| {
            let fz = n.get(2).copied().unwrap_or(1.0);
            [n[0], 0.0, 0.0, 0.0, n[1], 0.0, 0.0, 0.0, fz, 0.0, 0.0, 0.0]
        })
    },
);

pub(crate) static ROTATE: Definition = Definition::new(
    "st_rotate",
    "Turned counter-clockwise by an angle in radians around the origin or around a place x, y",
    &[&[G, ("angle", Kind::Number)], &[G, ("angle", Kind::Number), ("x", Kind::Number), ("y", Kind::Number)]],
    Output::Geometry,
    |call| {
        affine(call, |n| {
            let (sin, cos) = n[0].sin_cos();
            let (x, y) = (n.get(1).copied().unwrap_or(0.0), n.get(2).copied().unwrap_or(0.0));
            [cos, -sin, 0.0, sin, cos, 0.0, 0.0, 0.0, 1.0, x - cos * x + sin * y, y - sin * x - cos * y, 0.0]
        })
    },
);

pub(crate) static AFFINE: Definition = Definition::new(
    "st_affine",
    "Every coordinate transformed: in the plane x' = a x + b y + xoff, y' = d x + e y + yoff from a, b, d, e, xoff, yoff; in space from a to i, row by row, and three offsets",
    &[
        &[
            G,
            ("a", Kind::Number),
            ("b", Kind::Number),
            ("d", Kind::Number),
            ("e", Kind::Number),
            ("xoff", Kind::Number),
            ("yoff", Kind::Number),
        ],
        &[
            G,
            ("a", Kind::Number),
            ("b", Kind::Number),
            ("c", Kind::Number),
            ("d", Kind::Number),
            ("e", Kind::Number),
            ("f", Kind::Number),
            ("g", Kind::Number),
            ("h", Kind::Number),
            ("i", Kind::Number),
            ("xoff", Kind::Number),
            ("yoff", Kind::Number),
            ("zoff", Kind::Number),
        ],
    ],
    Output::Geometry,
    |call| {
        affine(call, |n| match n {
            [a, b, d, e, x, y] => [*a, *b, 0.0, *d, *e, 0.0, 0.0, 0.0, 1.0, *x, *y, 0.0],
            _ => std::array::from_fn(|i| n.get(i).copied().unwrap_or(0.0)),
        })
    },
);

/// Applies a matrix of three rows and its offset to every position.
fn affine(call: &Call<'_>, matrix: impl Fn(&[f64]) -> [f64; 12]) -> Result<ArrayRef> {
    let bytes = call.bytes(0)?;
    let numbers = (1..call.arity()).map(|index| call.numbers(index)).collect::<Result<Vec<_>>>()?;
    call.rows::<BinaryArray, _>(|row| {
        let (Some(bytes), Some(values)) =
            (bytes.get(row), numbers.iter().map(|column| column.get(row)).collect::<Option<Vec<f64>>>())
        else {
            return Ok(None);
        };
        if values.iter().any(|value| !value.is_finite()) {
            return call.error(format!("{values:?} are not finite"));
        }
        let m = matrix(&values);
        let moved = call.shape(bytes)?.map(|[x, y, z, measure]| {
            [
                m[0] * x + m[1] * y + m[2] * z + m[9],
                m[3] * x + m[4] * y + m[5] * z + m[10],
                m[6] * x + m[7] * y + m[8] * z + m[11],
                measure,
            ]
        });
        if moved.positions().iter().flatten().any(|value| !value.is_finite()) {
            return call.error("a coordinate would not be finite");
        }
        Ok(Some(moved.encode()))
    })
}

pub(crate) static ORIENTED_ENVELOPE: Definition = Definition::new(
    "st_orientedenvelope",
    "The smallest rectangle in any direction around a geometry; a line or a point for flat ones",
    ONE,
    Output::Geometry,
    |call| {
        call.each::<BinaryArray, _>(|geometry| {
            let hull = convex_hull(geometry);
            Ok(Some(match &hull {
                Geometry::Polygon(area) => match geo::MinimumRotatedRect::minimum_rotated_rect(area) {
                    Some(rectangle) => encode(&rectangle.into()),
                    None => encode(&hull),
                },
                _ => encode(&hull),
            }))
        })
    },
);

#[cfg(test)]
mod tests {
    use crate::testing::*;

    fn text(call: &str) -> String {
        eval(&format!("st_astext({call})"))
    }

    #[test]
    fn buffers_every_type() {
        let areas = every_value("st_area(st_buffer({}, 1))");
        // A circle of 32 corners has 3.1214 of area.
        assert!((areas[0] - 3.121_445).abs() < 1e-5, "{areas:?}");
        assert!((areas[1] - (10.0 + 3.121_445)).abs() < 1e-3, "{areas:?}");
        assert!((areas[2] - (16.0 + 16.0 + 3.121_445)).abs() < 1e-3, "{areas:?}");
        assert_eq!(
            text("st_buffer(st_point(0, 0), 1, 'endcap=square')"),
            "POLYGON((-1 -1,1 -1,1 1,-1 1,-1 -1))"
        );
        assert_eq!(text("st_buffer(st_makeenvelope(0,0,4,4), -3)"), "POLYGON EMPTY");
        assert_eq!(text("st_buffer(st_point(0, 0), -1)"), "POLYGON EMPTY");
        assert_eq!(eval("st_npoints(st_buffer(st_point(0, 0), 1, 2))"), "9");
        assert_eq!(eval("round(st_area(st_buffer(st_makeenvelope(0,0,4,4), 1, 'join=mitre')), 6)"), "36.0");
        assert_eq!(
            eval("round(st_area(st_buffer(st_geomfromtext('LINESTRING(0 0,4 0)'), 1, 'endcap=flat')), 6)"),
            "8.0"
        );
        fails("st_buffer(st_point(0, 0), 1, 'endcap=odd')", "st_buffer: 'odd' is not a value of endcap");
    }

    fn every_value(template: &str) -> Vec<f64> {
        EVERY_TYPE
            .iter()
            .map(|wkt| eval(&template.replace("{}", &format!("st_geomfromtext('{wkt}')"))).parse().unwrap())
            .collect()
    }

    #[test]
    fn hulls_and_inner_points() {
        assert_eq!(
            eval("st_area(st_convexhull(st_geomfromtext('MULTIPOINT(0 0,4 0,4 4,0 4,2 2)')))"),
            "16.0"
        );
        assert_eq!(text("st_convexhull(st_geomfromtext('MULTIPOINT(0 0,1 1,2 2)'))"), "LINESTRING(0 0,2 2)");
        assert_eq!(text("st_convexhull(st_point(1, 2))"), "POINT(1 2)");
        for wkt in EVERY_TYPE {
            let g = format!("st_geomfromtext('{wkt}')");
            assert_eq!(eval(&format!("st_intersects({g}, st_pointonsurface({g}))")), "true", "{wkt}");
            assert_eq!(
                eval(&format!("st_covers(st_concavehull({g}, 0.5), st_point(1, 2)) IS NOT NULL")),
                "true"
            );
        }
        assert_eq!(text("st_expand(st_point(1, 1), 1)"), "POLYGON((0 0,2 0,2 2,0 2,0 0))");
    }

    #[test]
    fn simplifies_and_densifies() {
        let line = "st_geomfromtext('LINESTRING(0 0,1 0.1,2 0,2 5)')";
        assert_eq!(text(&format!("st_simplify({line}, 0.5)")), "LINESTRING(0 0,2 0,2 5)");
        assert_eq!(text(&format!("st_simplifypreservetopology({line}, 0.5)")), "LINESTRING(0 0,2 0,2 5)");
        assert_eq!(text(&format!("st_simplifyvw({line}, 1)")), "LINESTRING(0 0,2 0,2 5)");
        assert_eq!(
            text("st_segmentize(st_geomfromtext('LINESTRING(0 0,4 0)'), 2)"),
            "LINESTRING(0 0,2 0,4 0)"
        );
        assert_eq!(
            text("st_chaikinsmoothing(st_geomfromtext('LINESTRING(0 0,4 0,4 4)'))"),
            "LINESTRING(0 0,3 0,4 1,4 4)"
        );
        assert_eq!(text("st_simplify(st_makeenvelope(0,0,1,1), 9)"), "POLYGON EMPTY");
        assert_eq!(
            text("st_snaptogrid(st_geomfromtext('LINESTRING(0.1 0.1,0.2 0.2,1.1 1.1)'), 1)"),
            "LINESTRING(0 0,1 1)"
        );
        fails("st_segmentize(st_geomfromtext('LINESTRING(0 0,4 0)'), 0)", "st_segmentize: 0 is not a length");
    }

    #[test]
    fn moves() {
        assert_eq!(text("st_translate(st_point(1, 2), 1, 1)"), "POINT(2 3)");
        assert_eq!(text("st_translate(st_makepoint(1, 2, 3), 1, 1, 1)"), "POINT Z (2 3 4)");
        assert_eq!(text("st_scale(st_point(1, 2), 2, 3)"), "POINT(2 6)");
        assert_eq!(text("st_snaptogrid(st_rotate(st_point(1, 0), pi() / 2), 0.001)"), "POINT(0 1)");
        assert_eq!(text("st_affine(st_point(1, 2), 1, 0, 0, 1, 10, 20)"), "POINT(11 22)");
    }
}
