//! Noding: cuts segments where they meet, so that two of them share end points or nothing.

use std::collections::HashMap;

use geo::{Coord, Kernel, Orientation};
use geo_index::rtree::sort::HilbertSort;
use geo_index::rtree::{RTree, RTreeBuilder, RTreeIndex};

/// The exact orientation of three coordinates.
pub(crate) fn orient(a: Coord, b: Coord, c: Coord) -> Orientation {
    geo::kernels::RobustKernel::orient2d(a, b, c)
}

/// Numbers nearer to zero than this count as zero: exact orientations (Shewchuk 1997) hold only while no product of two
/// differences of coordinates underflows, and wrong ones let noding cut the same places again and again.
const LEAST: f64 = 1e-120;

/// Without negative zero, so that equal coordinates have equal bits.
pub(crate) fn clean(c: Coord) -> Coord {
    let number = |v: f64| if v.abs() < LEAST { 0.0 } else { v };
    Coord { x: number(c.x), y: number(c.y) }
}

/// A directed segment and the number of what it came from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Segment {
    pub a: Coord,
    pub b: Coord,
    pub source: u32,
}

/// Rounds of noding after which segments that still cross are snapped to a fine grid.
const ROUNDS: usize = 6;

/// Cuts `segments` at their common places and at `points` that lie on them. With `grid`, all coordinates and
/// crossings are rounded to multiples of it (snap rounding, Hobby 1999). Segments without length are dropped.
pub(crate) fn node(mut segments: Vec<Segment>, points: &mut [Coord], grid: Option<f64>) -> Vec<Segment> {
    if let Some(grid) = grid {
        return snap_round(segments, points, grid);
    }
    segments.retain(|segment| segment.a != segment.b);
    let largest =
        segments.iter().flat_map(|s| [s.a.x, s.a.y, s.b.x, s.b.y]).fold(0.0_f64, |most, v| most.max(v.abs()));
    let tolerance = largest.max(f64::MIN_POSITIVE) * SAME;
    let before = segments.clone();
    for _ in 0..ROUNDS {
        let (cut, crossed) = split(&segments, points, tolerance);
        if !crossed {
            return cut;
        }
        segments = cut;
    }
    snap_round(before, points, tolerance)
}

/// Crossings this close to each other or to an end, as a part of the largest coordinate, are one place: lines that
/// meet in one place would otherwise cross in as many as there are pairs, each a rounding away from the other.
const SAME: f64 = 1.0 / (1_u64 << 46) as f64;

/// Places found so far, by cell of the tolerance.
struct Places {
    tolerance: f64,
    cells: HashMap<(i64, i64), Vec<Coord>>,
}

impl Places {
    fn cell(&self, c: Coord) -> (i64, i64) {
        ((c.x / self.tolerance).floor() as i64, (c.y / self.tolerance).floor() as i64)
    }

    fn add(&mut self, c: Coord) {
        let places = self.cells.entry(self.cell(c)).or_default();
        if !places.contains(&c) {
            places.push(c);
        }
    }

    /// The closest known place within the tolerance, else the new one.
    fn snap(&mut self, c: Coord) -> Coord {
        let (x, y) = self.cell(c);
        let mut best: Option<(f64, Coord)> = None;
        for cell in (x - 1..=x + 1).flat_map(|x| (y - 1..=y + 1).map(move |y| (x, y))) {
            for known in self.cells.get(&cell).into_iter().flatten() {
                let distance = (known.x - c.x).hypot(known.y - c.y);
                if distance <= self.tolerance && best.is_none_or(|(nearest, _)| distance < nearest) {
                    best = Some((distance, *known));
                }
            }
        }
        best.map_or_else(
            || {
                self.add(c);
                c
            },
            |(_, known)| known,
        )
    }
}

fn tree(segments: &[Segment]) -> RTree<f64> {
    let mut builder = RTreeBuilder::<f64>::new(segments.len() as u32);
    for Segment { a, b, .. } in segments {
        builder.add(a.x.min(b.x), a.y.min(b.y), a.x.max(b.x), a.y.max(b.y));
    }
    builder.finish::<HilbertSort>()
}

/// One round: every segment cut where another one or a point touches it. Whether crossings inside of two segments
/// were found, whose rounding may have made new ones.
fn split(segments: &[Segment], points: &[Coord], tolerance: f64) -> (Vec<Segment>, bool) {
    if segments.is_empty() {
        return (Vec::new(), false);
    }
    let tree = tree(segments);
    let mut cuts: Vec<Vec<Coord>> = vec![Vec::new(); segments.len()];
    let mut crossings: Vec<(usize, usize, Coord)> = Vec::new();
    for (i, s) in segments.iter().enumerate() {
        let found = tree.search(s.a.x.min(s.b.x), s.a.y.min(s.b.y), s.a.x.max(s.b.x), s.a.y.max(s.b.y));
        for j in found {
            let j = j as usize;
            if j <= i {
                continue;
            }
            let t = &segments[j];
            if (s.a == t.a && s.b == t.b) || (s.a == t.b && s.b == t.a) {
                continue;
            }
            match meet(s, t) {
                Meet::Nothing => {}
                Meet::Crossing(at) => crossings.push((i, j, at)),
                Meet::Touches { ends_of_t_on_s, ends_of_s_on_t } => {
                    cuts[i]
                        .extend([t.a, t.b].iter().zip(ends_of_t_on_s).filter(|(_, on)| *on).map(|(c, _)| c));
                    cuts[j]
                        .extend([s.a, s.b].iter().zip(ends_of_s_on_t).filter(|(_, on)| *on).map(|(c, _)| c));
                }
            }
        }
    }
    if !crossings.is_empty() {
        let mut places = Places { tolerance, cells: HashMap::new() };
        segments.iter().flat_map(|s| [s.a, s.b]).chain(points.iter().copied()).for_each(|c| places.add(c));
        for (i, j, at) in &crossings {
            let at = places.snap(*at);
            cuts[*i].push(at);
            cuts[*j].push(at);
        }
    }
    for point in points {
        for index in tree.search(point.x, point.y, point.x, point.y) {
            let s = &segments[index as usize];
            if orient(s.a, s.b, *point) == Orientation::Collinear {
                cuts[index as usize].push(*point);
            }
        }
    }
    (apply(segments, cuts), !crossings.is_empty())
}

fn apply(segments: &[Segment], cuts: Vec<Vec<Coord>>) -> Vec<Segment> {
    let mut result = Vec::with_capacity(segments.len());
    for (s, mut cuts) in segments.iter().zip(cuts) {
        if cuts.is_empty() {
            result.push(*s);
            continue;
        }
        let d = s.b - s.a;
        let along = |c: &Coord| (c.x - s.a.x) * d.x + (c.y - s.a.y) * d.y;
        cuts.sort_by(|x, y| along(x).total_cmp(&along(y)));
        let mut last = s.a;
        for at in cuts.into_iter().chain([s.b]) {
            if at != last {
                result.push(Segment { a: last, b: at, source: s.source });
                last = at;
            }
        }
    }
    result
}

enum Meet {
    Nothing,
    Crossing(Coord),
    Touches { ends_of_t_on_s: [bool; 2], ends_of_s_on_t: [bool; 2] },
}

fn in_box(c: Coord, s: &Segment) -> bool {
    c.x >= s.a.x.min(s.b.x) && c.x <= s.a.x.max(s.b.x) && c.y >= s.a.y.min(s.b.y) && c.y <= s.a.y.max(s.b.y)
}

fn meet(s: &Segment, t: &Segment) -> Meet {
    let (ta, tb) = (orient(s.a, s.b, t.a), orient(s.a, s.b, t.b));
    if ta == tb && ta != Orientation::Collinear {
        return Meet::Nothing;
    }
    let (sa, sb) = (orient(t.a, t.b, s.a), orient(t.a, t.b, s.b));
    if sa == sb && sa != Orientation::Collinear {
        return Meet::Nothing;
    }
    let flat = Orientation::Collinear;
    if ta != flat && tb != flat && sa != flat && sb != flat {
        return Meet::Crossing(crossing(s, t));
    }
    Meet::Touches {
        ends_of_t_on_s: [ta == flat && in_box(t.a, s), tb == flat && in_box(t.b, s)],
        ends_of_s_on_t: [sa == flat && in_box(s.a, t), sb == flat && in_box(s.b, t)],
    }
}

/// Where two segments cross that are known to: solved relative to the middle of their common box, so that large
/// coordinates do not cost digits; never outside of that box.
fn crossing(s: &Segment, t: &Segment) -> Coord {
    let range = |a: f64, b: f64, c: f64, d: f64| (a.min(b).max(c.min(d)), a.max(b).min(c.max(d)));
    let (x0, x1) = range(s.a.x, s.b.x, t.a.x, t.b.x);
    let (y0, y1) = range(s.a.y, s.b.y, t.a.y, t.b.y);
    let middle = Coord { x: f64::midpoint(x0, x1), y: f64::midpoint(y0, y1) };
    // Lines in homogeneous form; their product is the point (Berg et al. 2008, chapter 1).
    let line = |from: Coord, to: Coord| (from.y - to.y, to.x - from.x, from.x * to.y - to.x * from.y);
    let (a1, b1, c1) = line(s.a - middle, s.b - middle);
    let (a2, b2, c2) = line(t.a - middle, t.b - middle);
    let weight = a1 * b2 - a2 * b1;
    let place = Coord { x: (b1 * c2 - b2 * c1) / weight, y: (a2 * c1 - a1 * c2) / weight };
    if place.x.is_finite() && place.y.is_finite() {
        return Coord { x: (place.x + middle.x).clamp(x0, x1), y: (place.y + middle.y).clamp(y0, y1) };
    }
    middle
}

/// Rounds to a multiple of the cell size, half a cell up, without a negative zero.
pub(crate) fn round_to(value: f64, grid: f64) -> f64 {
    round_with(value, grid, RoundTiesUp::round_ties_up)
}

/// Rounds to a multiple of the cell size, half a cell to the even one, as `st_snaptogrid` of PostGIS does.
pub(crate) fn round_even(value: f64, grid: f64) -> f64 {
    round_with(value, grid, f64::round_ties_even)
}

fn round_with(value: f64, grid: f64, round: fn(f64) -> f64) -> f64 {
    // A cell size such as 0.001 is no sum of binary fractions: its reciprocal is, so divide by that.
    let inverse = (1.0 / grid).round();
    let exact = inverse >= 1.0 && ((1.0 / inverse) - grid).abs() <= f64::EPSILON * grid;
    let rounded = if exact { round(value * inverse) / inverse } else { round(value / grid) * grid };
    rounded + 0.0
}

trait RoundTiesUp {
    fn round_ties_up(self) -> f64;
}

impl RoundTiesUp for f64 {
    /// Half a cell goes up for negative numbers too, so that rounding does not depend on the origin.
    fn round_ties_up(self) -> f64 {
        if self.abs() < 4_503_599_627_370_496.0 { (self + 0.5).floor() } else { self }
    }
}

fn snap_round(segments: Vec<Segment>, points: &mut [Coord], grid: f64) -> Vec<Segment> {
    let round = |c: Coord| Coord { x: round_to(c.x, grid), y: round_to(c.y, grid) };
    for point in &mut *points {
        *point = round(*point);
    }
    // Crossings are those of the segments as they came; hot cells are all rounded ends and crossings.
    let mut hot: Vec<Coord> = points.to_vec();
    if !segments.is_empty() {
        let tree = tree(&segments);
        for (i, s) in segments.iter().enumerate() {
            hot.extend([round(s.a), round(s.b)]);
            let found = tree.search(s.a.x.min(s.b.x), s.a.y.min(s.b.y), s.a.x.max(s.b.x), s.a.y.max(s.b.y));
            for j in found.into_iter().map(|j| j as usize).filter(|j| *j > i) {
                if let Meet::Crossing(at) = meet(s, &segments[j]) {
                    hot.push(round(at));
                }
            }
        }
    }
    hot.sort_by(|a, b| a.x.total_cmp(&b.x).then(a.y.total_cmp(&b.y)));
    hot.dedup();
    if segments.is_empty() {
        return segments;
    }
    let half = grid / 2.0;
    let tree = tree(&segments);
    let mut cuts: Vec<Vec<Coord>> = vec![Vec::new(); segments.len()];
    for cell in hot {
        for index in tree.search(cell.x - half, cell.y - half, cell.x + half, cell.y + half) {
            if passes(&segments[index as usize], cell, half) {
                cuts[index as usize].push(cell);
            }
        }
    }
    let rounded: Vec<Segment> =
        segments.iter().map(|s| Segment { a: round(s.a), b: round(s.b), source: s.source }).collect();
    let mut result = Vec::with_capacity(rounded.len());
    for ((s, original), mut cuts) in rounded.iter().zip(&segments).zip(cuts) {
        let d = original.b - original.a;
        let along = |c: &Coord| (c.x - original.a.x) * d.x + (c.y - original.a.y) * d.y;
        cuts.sort_by(|x, y| along(x).total_cmp(&along(y)));
        let mut last = s.a;
        for at in cuts.into_iter().filter(|c| *c != s.a && *c != s.b).chain([s.b]) {
            if at != last {
                result.push(Segment { a: last, b: at, source: s.source });
                last = at;
            }
        }
    }
    result
}

/// Whether a segment passes through the cell around a centre: closed below and to the left, open above and to the
/// right.
fn passes(s: &Segment, centre: Coord, half: f64) -> bool {
    let (x0, x1) = (centre.x - half, centre.x + half);
    let (y0, y1) = (centre.y - half, centre.y + half);
    if s.a.x.max(s.b.x) < x0 || s.a.x.min(s.b.x) >= x1 || s.a.y.max(s.b.y) < y0 || s.a.y.min(s.b.y) >= y1 {
        return false;
    }
    let side = |x, y| orient(s.a, s.b, Coord { x, y });
    let corners = [side(x0, y0), side(x1, y0), side(x1, y1), side(x0, y1)];
    let left = corners.contains(&Orientation::CounterClockwise);
    let right = corners.contains(&Orientation::Clockwise);
    if left && right {
        return true;
    }
    // The line touches the cell in a corner or a side at most: the lower left corner belongs to the cell.
    corners[0] == Orientation::Collinear
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(a: (f64, f64), b: (f64, f64)) -> Segment {
        Segment { a: a.into(), b: b.into(), source: 0 }
    }

    #[test]
    fn cuts_at_crossings_touches_and_points() {
        let cross = vec![segment((0.0, 0.0), (2.0, 2.0)), segment((0.0, 2.0), (2.0, 0.0))];
        assert_eq!(node(cross, &mut [], None).len(), 4);
        let touch = vec![segment((0.0, 0.0), (2.0, 0.0)), segment((1.0, 0.0), (1.0, 1.0))];
        assert_eq!(node(touch, &mut [], None).len(), 3);
        let overlap = vec![segment((0.0, 0.0), (2.0, 0.0)), segment((1.0, 0.0), (3.0, 0.0))];
        assert_eq!(node(overlap, &mut [], None).len(), 4);
        let point = vec![segment((0.0, 0.0), (2.0, 2.0))];
        assert_eq!(node(point, &mut [Coord { x: 1.0, y: 1.0 }], None).len(), 2);
    }

    #[test]
    fn rounds_to_a_grid() {
        let cross = vec![segment((0.0, 0.1), (3.0, 2.0)), segment((0.2, 2.0), (3.0, 0.0))];
        for s in node(cross, &mut [], Some(1.0)) {
            assert!([s.a.x, s.a.y, s.b.x, s.b.y].iter().all(|v| v.fract() == 0.0), "{s:?}");
        }
        assert_eq!(round_to(0.123_456_7, 0.001), 0.123);
        assert_eq!(round_to(-0.5, 1.0), 0.0);
    }

    #[test]
    fn many_lines_through_one_place_end_without_crossings() {
        let fan: Vec<Segment> = (0..40)
            .map(|i| {
                let angle = f64::from(i) * 0.157;
                segment(
                    (10.0 * angle.cos(), 10.0 * angle.sin()),
                    (-9.0 * angle.cos() + 0.1, -9.0 * angle.sin()),
                )
            })
            .collect();
        let noded = node(fan, &mut [], None);
        for (i, s) in noded.iter().enumerate() {
            for t in &noded[i + 1..] {
                assert!(!matches!(meet(s, t), Meet::Crossing(_)), "{s:?} {t:?}");
            }
        }
    }
}
