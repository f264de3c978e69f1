//! Nodes, edges and faces of one or two geometries in the plane, each with what it is to the geometries.
//!
//! Half-edges are sorted around their nodes by the exact orientation, followed to the cycles that bound faces, and
//! winding numbers spread from the unbounded face over the edges (as in Berg et al. 2008, chapter 2; for the location
//! of one component within another a ray to the left from its leftmost node).

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use geo::{Coord, Geometry, LineString, Orientation, Polygon};
use geo_index::rtree::sort::HilbertSort;
use geo_index::rtree::{RTree, RTreeBuilder, RTreeIndex};

use super::noding::{Segment, clean, node, orient};

/// What a source of segments is.
#[derive(Debug, Clone, Copy)]
struct Source {
    /// 0 or 1: the geometry it belongs to.
    input: usize,
    /// For a ring: by how much the winding number is larger to the left of its segments.
    ring: Option<i32>,
}

/// The parts of one or two geometries, before noding.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    sources: Vec<Source>,
    segments: Vec<Segment>,
    points: Vec<(Coord, usize)>,
    ends: Vec<(Coord, usize)>,
}

/// Twice the signed area of a ring around its first coordinate; positive for counter-clockwise.
pub(crate) fn doubled_area(ring: &[Coord]) -> f64 {
    let Some(origin) = ring.first() else { return 0.0 };
    ring.windows(2)
        .map(|w| {
            let (a, b) = (w[0] - *origin, w[1] - *origin);
            a.x * b.y - b.x * a.y
        })
        .sum()
}

impl Parts {
    /// Adds a geometry as input 0 or 1.
    pub(crate) fn add(&mut self, geometry: &Geometry, input: usize) {
        match geometry {
            Geometry::Point(point) => self.points.push((clean(point.0), input)),
            Geometry::MultiPoint(points) => self.points.extend(points.iter().map(|p| (clean(p.0), input))),
            Geometry::Line(line) => self.line(&LineString::from(*line), input),
            Geometry::LineString(line) => self.line(line, input),
            Geometry::MultiLineString(lines) => lines.iter().for_each(|line| self.line(line, input)),
            Geometry::Polygon(polygon) => self.polygon(polygon, input),
            Geometry::MultiPolygon(polygons) => polygons.iter().for_each(|p| self.polygon(p, input)),
            Geometry::Rect(rect) => self.polygon(&rect.to_polygon(), input),
            Geometry::Triangle(triangle) => self.polygon(&triangle.to_polygon(), input),
            Geometry::GeometryCollection(members) => members.iter().for_each(|g| self.add(g, input)),
        }
    }

    pub(crate) fn line(&mut self, line: &LineString, input: usize) {
        let (Some(first), Some(last)) = (line.0.first(), line.0.last()) else { return };
        if line.0.iter().all(|c| c == first) {
            // A line without length is the point that it is.
            self.points.push((clean(*first), input));
            return;
        }
        self.source(&line.0, Source { input, ring: None });
        self.ends.extend([(clean(*first), input), (clean(*last), input)]);
    }

    fn polygon(&mut self, polygon: &Polygon, input: usize) {
        self.ring(polygon.exterior(), input, 1);
        for hole in polygon.interiors() {
            self.ring(hole, input, -1);
        }
    }

    /// A ring; inside of it the winding number is larger by `inside`, whichever way it turns.
    pub(crate) fn ring(&mut self, ring: &LineString, input: usize, inside: i32) {
        let turn = if doubled_area(&ring.0) < 0.0 { -1 } else { 1 };
        self.source(&ring.0, Source { input, ring: Some(inside * turn) });
    }

    fn source(&mut self, coords: &[Coord], source: Source) {
        let number = self.sources.len() as u32;
        self.sources.push(source);
        self.segments.extend(coords.windows(2).map(|w| Segment {
            a: clean(w[0]),
            b: clean(w[1]),
            source: number,
        }));
    }

    /// Nodes and connects everything; with `grid`, rounded to multiples of it.
    pub(crate) fn arrange(self, grid: Option<f64>) -> Arrangement {
        Arrangement::new(self, grid)
    }
}

/// A node and what lies on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node {
    pub at: Coord,
    /// Whether a point of the input lies here.
    pub point: [bool; 2],
    /// How many ends of lines of the input lie here.
    pub ends: [u32; 2],
    /// Whether lines pass here only because a point of the input lies on them.
    pub passed: bool,
    /// The winding numbers around a node without edges.
    winding: [i32; 2],
}

/// An edge between two nodes, `from` the smaller one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Edge {
    pub from: u32,
    pub to: u32,
    /// Winding number on the left minus that on the right.
    pub delta: [i32; 2],
    /// How often lines of the input run over it.
    pub lines: [u32; 2],
    /// How often rings of the input run over it.
    pub rings: [u32; 2],
    /// Whether the first source of it runs from `from` to `to`.
    pub forward: bool,
}

/// The whole plane. Half-edge `2 e` runs along edge `e`, `2 e + 1` against it; a face lies on its left.
#[derive(Debug)]
pub(crate) struct Arrangement {
    pub nodes: Vec<Node>,
    pub edges: Vec<Edge>,
    /// Outgoing half-edges of each node, counter-clockwise.
    pub around: Vec<Vec<u32>>,
    /// The place of each half-edge in `around` of its node.
    place: Vec<u32>,
    /// The face on the left of each half-edge.
    face: Vec<u32>,
    /// The winding numbers of each face.
    winding: Vec<[i32; 2]>,
    /// Whether coordinates were rounded, so that areas may have collapsed to lines.
    collapsed: bool,
}

/// How a cell lies to a geometry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Location {
    Interior,
    Boundary,
    Exterior,
}

impl Arrangement {
    fn new(mut parts: Parts, grid: Option<f64>) -> Self {
        let mut isolated: Vec<Coord> =
            parts.points.iter().map(|(c, _)| *c).chain(parts.ends.iter().map(|(c, _)| *c)).collect();
        let corners: HashSet<(u64, u64)> = if parts.points.is_empty() {
            HashSet::new()
        } else {
            parts.segments.iter().flat_map(|s| [s.a, s.b]).map(|c| (c.x.to_bits(), c.y.to_bits())).collect()
        };
        let segments = node(std::mem::take(&mut parts.segments), &mut isolated, grid);
        let mut numbers: HashMap<(u64, u64), u32> = HashMap::with_capacity(segments.len());
        let mut nodes: Vec<Node> = Vec::new();
        let mut number = |at: Coord, nodes: &mut Vec<Node>| {
            *numbers.entry((at.x.to_bits(), at.y.to_bits())).or_insert_with(|| {
                nodes.push(Node { at, point: [false; 2], ends: [0; 2], passed: false, winding: [0; 2] });
                nodes.len() as u32 - 1
            })
        };
        let mut edges: Vec<Edge> = Vec::with_capacity(segments.len());
        let mut known: HashMap<(u32, u32), u32> = HashMap::with_capacity(segments.len());
        for segment in &segments {
            let (a, b) = (number(segment.a, &mut nodes), number(segment.b, &mut nodes));
            let (from, to) = (a.min(b), a.max(b));
            let index = *known.entry((from, to)).or_insert_with(|| {
                edges.push(Edge {
                    from,
                    to,
                    delta: [0; 2],
                    lines: [0; 2],
                    rings: [0; 2],
                    forward: a == from,
                });
                edges.len() as u32 - 1
            });
            let edge = &mut edges[index as usize];
            let Source { input, ring } = parts.sources[segment.source as usize];
            match ring {
                Some(left) => {
                    edge.delta[input] += if a == from { left } else { -left };
                    edge.rings[input] += 1;
                }
                None => edge.lines[input] += 1,
            }
        }
        let (points, ends) = isolated.split_at(parts.points.len());
        for ((_, input), at) in parts.points.iter().zip(points) {
            let index = number(*at, &mut nodes);
            nodes[index as usize].point[*input] = true;
        }
        for ((_, input), at) in parts.ends.iter().zip(ends) {
            let index = number(*at, &mut nodes);
            nodes[index as usize].ends[*input] += 1;
        }
        let mut result = Self {
            around: vec![Vec::new(); nodes.len()],
            place: vec![0; edges.len() * 2],
            face: vec![0; edges.len() * 2],
            winding: Vec::new(),
            collapsed: false,
            nodes,
            edges,
        };
        for node in &mut result.nodes {
            node.passed =
                node.point != [false; 2] && !corners.contains(&(node.at.x.to_bits(), node.at.y.to_bits()));
        }
        result.collapsed = grid.is_some();
        result.sort_around();
        for (node, around) in result.nodes.iter_mut().zip(&result.around) {
            node.passed &= around.len() == 2;
        }
        result.find_faces();
        result
    }

    /// The node that a half-edge starts at.
    pub(crate) fn origin(&self, half: u32) -> u32 {
        let edge = &self.edges[(half / 2) as usize];
        if half.is_multiple_of(2) { edge.from } else { edge.to }
    }

    pub(crate) fn at(&self, node: u32) -> Coord {
        self.nodes[node as usize].at
    }

    /// The face on the left of a half-edge.
    pub(crate) fn face(&self, half: u32) -> u32 {
        self.face[half as usize]
    }

    /// How many faces there are; the first one is unbounded.
    pub(crate) fn faces(&self) -> usize {
        self.winding.len()
    }

    /// The winding numbers of a face.
    pub(crate) fn winding(&self, face: u32) -> [i32; 2] {
        self.winding[face as usize]
    }

    /// The half-edge that leaves the end of `half` next to it clockwise: around the face on its left.
    pub(crate) fn next(&self, half: u32) -> u32 {
        let twin = half ^ 1;
        let around = &self.around[self.origin(twin) as usize];
        let place = self.place[twin as usize] as usize;
        around[(place + around.len() - 1) % around.len()]
    }

    /// The first half-edge clockwise from the twin of `half` for which `wanted` holds.
    pub(crate) fn next_where(&self, half: u32, wanted: impl Fn(u32) -> bool) -> Option<u32> {
        let twin = half ^ 1;
        let around = &self.around[self.origin(twin) as usize];
        let place = self.place[twin as usize] as usize;
        (1..=around.len()).map(|i| around[(place + around.len() - i) % around.len()]).find(|h| wanted(*h))
    }

    fn sort_around(&mut self) {
        for index in 0..self.edges.len() as u32 {
            let Edge { from, to, .. } = self.edges[index as usize];
            self.around[from as usize].push(index * 2);
            self.around[to as usize].push(index * 2 + 1);
        }
        let mut around = std::mem::take(&mut self.around);
        for (node, halves) in around.iter_mut().enumerate() {
            let centre = self.nodes[node].at;
            // From straight down (not included) counter-clockwise.
            let half_plane = |c: Coord| !(c.x > centre.x || (c.x == centre.x && c.y > centre.y));
            halves.sort_by(|a, b| {
                let (p, q) = (self.at(self.origin(a ^ 1)), self.at(self.origin(b ^ 1)));
                half_plane(p).cmp(&half_plane(q)).then_with(|| match orient(centre, p, q) {
                    Orientation::CounterClockwise => Ordering::Less,
                    Orientation::Clockwise => Ordering::Greater,
                    Orientation::Collinear => Ordering::Equal,
                })
            });
            for (place, half) in halves.iter().enumerate() {
                self.place[*half as usize] = place as u32;
            }
        }
        self.around = around;
    }

    fn find_faces(&mut self) {
        const NONE: u32 = u32::MAX;
        // Cycles of half-edges.
        let halves = self.face.len() as u32;
        let mut cycle = vec![NONE; halves as usize];
        let mut starts: Vec<u32> = Vec::new();
        for start in 0..halves {
            if cycle[start as usize] != NONE {
                continue;
            }
            let name = starts.len() as u32;
            starts.push(start);
            let mut half = start;
            while cycle[half as usize] == NONE {
                cycle[half as usize] = name;
                half = self.next(half);
            }
        }
        // Components, each with its leftmost (then lowest) node.
        let mut component = vec![NONE; self.nodes.len()];
        let mut leftmost: Vec<u32> = Vec::new();
        for start in 0..self.nodes.len() as u32 {
            if component[start as usize] != NONE || self.around[start as usize].is_empty() {
                continue;
            }
            let name = leftmost.len() as u32;
            let mut best = start;
            let mut open = vec![start];
            component[start as usize] = name;
            while let Some(node) = open.pop() {
                let (c, b) = (self.at(node), self.at(best));
                if c.x < b.x || (c.x == b.x && c.y < b.y) {
                    best = node;
                }
                for half in &self.around[node as usize] {
                    let other = self.origin(half ^ 1);
                    if component[other as usize] == NONE {
                        component[other as usize] = name;
                        open.push(other);
                    }
                }
            }
            leftmost.push(best);
        }
        // Faces are cycles joined over components; the last number stands for the unbounded face.
        let unbounded = starts.len() as u32;
        let mut joined = Sets::new(starts.len() + 1);
        let mut windings: Vec<Option<[i32; 2]>> = vec![None; starts.len()];
        let tree = self.edge_tree();
        let mut open: Vec<u32> = Vec::new();
        for (name, node) in leftmost.iter().enumerate() {
            // All edges of this node lead to the right, so the last one counter-clockwise has the outside on its left.
            let Some(last) = self.around[*node as usize].last() else { continue };
            let outside = cycle[*last as usize];
            let (winding, nearest) = self.look_left(self.at(*node), tree.as_ref(), |edge| {
                component[edge.from as usize] != name as u32
            });
            joined.join(outside, nearest.map_or(unbounded, |half| cycle[half as usize]));
            windings[outside as usize] = Some(winding);
            open.push(outside);
        }
        while let Some(name) = open.pop() {
            let Some(here) = windings[name as usize] else { continue };
            let start = starts[name as usize];
            let mut half = start;
            loop {
                let other = cycle[(half ^ 1) as usize] as usize;
                if windings[other].is_none() {
                    let delta = self.delta(half);
                    windings[other] = Some([here[0] - delta[0], here[1] - delta[1]]);
                    open.push(other as u32);
                }
                half = self.next(half);
                if half == start {
                    break;
                }
            }
        }
        let mut names: HashMap<u32, u32> = HashMap::from([(joined.find(unbounded), 0)]);
        self.winding = vec![[0; 2]];
        for half in 0..halves as usize {
            let root = joined.find(cycle[half]);
            let name = *names.entry(root).or_insert_with(|| {
                self.winding.push(windings[cycle[half] as usize].unwrap_or_default());
                self.winding.len() as u32 - 1
            });
            self.face[half] = name;
        }
        for index in 0..self.nodes.len() {
            if self.around[index].is_empty() {
                self.nodes[index].winding = self.look_left(self.nodes[index].at, tree.as_ref(), |_| true).0;
            }
        }
    }

    /// Winding number on the left of a half-edge minus that on its right.
    pub(crate) fn delta(&self, half: u32) -> [i32; 2] {
        let delta = self.edges[(half / 2) as usize].delta;
        if half.is_multiple_of(2) { delta } else { [-delta[0], -delta[1]] }
    }

    fn edge_tree(&self) -> Option<RTree<f64>> {
        if self.edges.is_empty() {
            return None;
        }
        let mut builder = RTreeBuilder::<f64>::new(self.edges.len() as u32);
        for edge in &self.edges {
            let (a, b) = (self.at(edge.from), self.at(edge.to));
            builder.add(a.x.min(b.x), a.y.min(b.y), a.x.max(b.x), a.y.max(b.y));
        }
        Some(builder.finish::<HilbertSort>())
    }

    /// The winding numbers at a coordinate that lies on none of the edges asked for, and the half-edge whose left
    /// face it lies in: the nearest one on a ray to the left.
    fn look_left(
        &self,
        from: Coord,
        tree: Option<&RTree<f64>>,
        wanted: impl Fn(&Edge) -> bool,
    ) -> ([i32; 2], Option<u32>) {
        let mut winding = [0; 2];
        let mut nearest: Option<(f64, Coord, Coord, u32)> = None;
        let Some(tree) = tree else { return (winding, None) };
        for index in tree.search(f64::NEG_INFINITY, from.y, from.x, from.y) {
            let edge = &self.edges[index as usize];
            if !wanted(edge) {
                continue;
            }
            let (mut low, mut high, mut up) = (self.at(edge.from), self.at(edge.to), index * 2);
            if low.y > high.y {
                std::mem::swap(&mut low, &mut high);
                up += 1;
            }
            // Half open, so that a node on the ray counts once and a level edge never.
            if !(low.y <= from.y && from.y < high.y) || orient(low, high, from) != Orientation::Clockwise {
                continue;
            }
            // Crossed from its left to its right.
            let delta = self.delta(up);
            winding = [winding[0] - delta[0], winding[1] - delta[1]];
            let x = low.x + (high.x - low.x) * ((from.y - low.y) / (high.y - low.y));
            let is_nearer = match &nearest {
                None => true,
                Some((known, known_low, known_high, _)) => {
                    // Edges do not cross: where both have a part above one height, orientation tells the order.
                    let beside = match orient(*known_low, *known_high, low) {
                        Orientation::Collinear => orient(*known_low, *known_high, high),
                        side => side,
                    };
                    if x == *known { beside == Orientation::Clockwise } else { x > *known }
                }
            };
            if is_nearer {
                nearest = Some((x, low, high, up));
            }
        }
        // The right side of the edge is the left side of the half-edge that runs down.
        (winding, nearest.map(|(_, _, _, up)| up ^ 1))
    }

    /// Whether a face belongs to an input.
    pub(crate) fn face_in(&self, face: u32, input: usize) -> bool {
        self.winding[face as usize][input] != 0
    }

    /// Whether a line runs over an edge, or an area that rounding made one.
    fn has_line(&self, index: usize, input: usize) -> bool {
        let edge = &self.edges[index];
        edge.lines[input] > 0 || (self.collapsed && edge.rings[input] > 0 && edge.delta[input] == 0)
    }

    /// Where an edge lies.
    pub(crate) fn edge_location(&self, index: usize, input: usize) -> Location {
        let half = index as u32 * 2;
        let (left, right) = (self.face_in(self.face(half), input), self.face_in(self.face(half ^ 1), input));
        match (left, right) {
            (true, true) => Location::Interior,
            (false, false) if self.has_line(index, input) => Location::Interior,
            (false, false) => Location::Exterior,
            _ => Location::Boundary,
        }
    }

    /// Where a node lies. Areas go before lines, lines before points; the end of an odd number of lines is boundary
    /// (OGC 06-103r4, the mod-2 rule).
    pub(crate) fn node_location(&self, index: usize, input: usize) -> Location {
        let halves = &self.around[index];
        let node = &self.nodes[index];
        if halves.is_empty() {
            return if node.winding[input] != 0 || node.point[input] {
                Location::Interior
            } else {
                Location::Exterior
            };
        }
        let inside = halves.iter().filter(|half| self.face_in(self.face(**half), input)).count();
        if inside == halves.len() {
            return Location::Interior;
        }
        if inside > 0 {
            return Location::Boundary;
        }
        if halves.iter().any(|half| self.has_line((half / 2) as usize, input)) {
            return if node.ends[input] % 2 == 1 { Location::Boundary } else { Location::Interior };
        }
        if node.point[input] { Location::Interior } else { Location::Exterior }
    }

    /// For a node without edges: in which inputs the face around it lies.
    pub(crate) fn node_area(&self, index: usize) -> Option<[bool; 2]> {
        self.around[index].is_empty().then(|| self.nodes[index].winding.map(|turns| turns != 0))
    }

    /// Whether some face has a winding number that no valid polygon gives it.
    pub(crate) fn turned_inside_out(&self) -> bool {
        self.winding.iter().any(|[a, b]| *a < 0 || *b < 0)
    }
}

/// Disjoint sets of numbers (Tarjan 1975).
#[derive(Debug)]
pub(crate) struct Sets(Vec<u32>);

impl Sets {
    pub(crate) fn new(count: usize) -> Self {
        Self((0..count as u32).collect())
    }

    pub(crate) fn find(&mut self, mut one: u32) -> u32 {
        while self.0[one as usize] != one {
            let above = self.0[self.0[one as usize] as usize];
            self.0[one as usize] = above;
            one = above;
        }
        one
    }

    pub(crate) fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.find(a), self.find(b));
        self.0[a as usize] = b;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use geo::wkt;

    fn arrange(a: &Geometry, b: &Geometry) -> Arrangement {
        let mut parts = Parts::default();
        parts.add(a, 0);
        parts.add(b, 1);
        parts.arrange(None)
    }

    #[test]
    fn faces_know_what_they_belong_to() {
        let a = wkt! { POLYGON((0. 0.,4. 0.,4. 4.,0. 4.,0. 0.),(1. 1.,2. 1.,2. 2.,1. 2.,1. 1.)) }.into();
        let b = wkt! { POLYGON((3. 3.,5. 3.,5. 5.,3. 5.,3. 3.)) }.into();
        let plane = arrange(&a, &b);
        let mut windings: Vec<[i32; 2]> = (0..plane.faces() as u32).map(|f| plane.winding(f)).collect();
        windings.sort_unstable();
        assert_eq!(windings, [[0, 0], [0, 0], [0, 1], [1, 0], [1, 1]]);
    }

    #[test]
    fn a_component_inside_another_one_is_found_there() {
        let outer = wkt! { POLYGON((0. 0.,9. 0.,9. 9.,0. 9.,0. 0.)) }.into();
        let inner =
            wkt! { GEOMETRYCOLLECTION(POLYGON((3. 3.,4. 3.,4. 4.,3. 3.)),POINT(8. 8.),POINT(10. 8.)) };
        let plane = arrange(&outer, &Geometry::GeometryCollection(inner));
        assert!((0..plane.faces() as u32).any(|f| plane.winding(f) == [1, 1]));
        let places: Vec<Location> = (0..plane.nodes.len())
            .filter(|i| plane.around[*i].is_empty())
            .map(|i| plane.node_location(i, 0))
            .collect();
        assert_eq!(places, [Location::Interior, Location::Exterior]);
    }
}
