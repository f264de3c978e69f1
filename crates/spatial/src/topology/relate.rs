//! The dimensionally extended nine-intersection matrix (Egenhofer & Herring 1990; OGC 06-103r4) and the predicates
//! that it defines.

use geo::{BoundingRect, CoordsIter, Geometry, Intersects};

use super::arrangement::{Location, Parts};

/// Rows interior, boundary, exterior of the first geometry, columns of the second; -1 stands for empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Matrix([[i8; 3]; 3]);

/// How two geometries lie to each other. A collection is the union of its members.
pub(crate) fn relate(a: &Geometry, b: &Geometry) -> Matrix {
    let mut parts = Parts::default();
    parts.add(a, 0);
    parts.add(b, 1);
    let plane = parts.arrange(None);
    let mut matrix = Matrix([[-1; 3]; 3]);
    matrix.0[2][2] = 2;
    let row = |location| match location {
        Location::Interior => 0,
        Location::Boundary => 1,
        Location::Exterior => 2,
    };
    let mut raise = |a, b, dimension: i8| {
        let entry = &mut matrix.0[row(a)][row(b)];
        *entry = (*entry).max(dimension);
    };
    for face in 0..plane.faces() as u32 {
        let place = |input| if plane.face_in(face, input) { Location::Interior } else { Location::Exterior };
        raise(place(0), place(1), 2);
    }
    for edge in 0..plane.edges.len() {
        raise(plane.edge_location(edge, 0), plane.edge_location(edge, 1), 1);
    }
    for node in 0..plane.nodes.len() {
        raise(plane.node_location(node, 0), plane.node_location(node, 1), 0);
    }
    matrix
}

impl std::fmt::Display for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for entry in self.0.as_flattened() {
            match entry {
                -1 => write!(f, "F")?,
                dimension => write!(f, "{dimension}")?,
            }
        }
        Ok(())
    }
}

impl Matrix {
    /// Reads nine letters of `F 0 1 2`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut matrix = [[-1; 3]; 3];
        if text.len() != 9 {
            return None;
        }
        for (entry, letter) in matrix.as_flattened_mut().iter_mut().zip(text.bytes()) {
            *entry = match letter {
                b'F' | b'f' => -1,
                digit @ b'0'..=b'2' => (digit - b'0') as i8,
                _ => return None,
            };
        }
        Some(Self(matrix))
    }

    /// Whether the matrix matches a pattern of nine of `T F * 0 1 2`; `None` when it is no pattern.
    pub(crate) fn matches(&self, pattern: &str) -> Option<bool> {
        let pattern = pattern.as_bytes();
        if pattern.len() != 9 {
            return None;
        }
        let mut all = true;
        for (entry, wanted) in self.0.as_flattened().iter().zip(pattern) {
            all &= match wanted.to_ascii_uppercase() {
                b'*' => true,
                b'T' => *entry >= 0,
                b'F' => *entry < 0,
                digit @ b'0'..=b'2' => *entry == (digit - b'0') as i8,
                _ => return None,
            };
        }
        Some(all)
    }

    fn is(self, pattern: &str) -> bool {
        self.matches(pattern) == Some(true)
    }

    fn dimensions(self) -> (i8, i8) {
        let a = self.0[..2].as_flattened().iter().copied().max().unwrap_or(-1);
        let b = self.0.iter().flat_map(|row| &row[..2]).copied().max().unwrap_or(-1);
        (a, b)
    }

    pub(crate) fn intersects(self) -> bool {
        self.0[..2].iter().any(|row| row[..2].iter().any(|entry| *entry >= 0))
    }

    pub(crate) fn contains(self) -> bool {
        self.is("T*****FF*")
    }

    pub(crate) fn covers(self) -> bool {
        self.intersects() && self.is("******FF*")
    }

    pub(crate) fn touches(self) -> bool {
        self.intersects() && self.is("F********")
    }

    /// Points against lines or areas and lines against areas: some inside, some outside. Two lines: a point in common.
    pub(crate) fn crosses(self, dimension_a: i8, dimension_b: i8) -> bool {
        match (dimension_a, dimension_b) {
            (1, 1) => self.is("0********"),
            (a, b) if a < b => self.is("T*T******"),
            (a, b) if a > b => self.is("T*****T**"),
            _ => false,
        }
    }

    pub(crate) fn overlaps(self, dimension_a: i8, dimension_b: i8) -> bool {
        match (dimension_a, dimension_b) {
            (1, 1) => self.is("1*T***T**"),
            (0, 0) | (2, 2) => self.is("T*T***T**"),
            _ => false,
        }
    }

    /// The same set of points; two empty geometries are equal.
    pub(crate) fn equals(self) -> bool {
        self.is("T*F**FFF*") || self.dimensions() == (-1, -1)
    }
}

/// The dimension of what a geometry has: -1 when it is empty.
pub(crate) fn dimension(geometry: &Geometry) -> i8 {
    match geometry {
        Geometry::GeometryCollection(members) => members.iter().map(dimension).max().unwrap_or(-1),
        other if other.coords_count() == 0 => -1,
        Geometry::Point(_) | Geometry::MultiPoint(_) => 0,
        Geometry::Line(_) | Geometry::LineString(_) | Geometry::MultiLineString(_) => {
            // A line without length is a point.
            i8::from(
                crate::geometry::lines(geometry).iter().any(|line| line.0.windows(2).any(|w| w[0] != w[1])),
            )
        }
        Geometry::Polygon(_) | Geometry::MultiPolygon(_) | Geometry::Rect(_) | Geometry::Triangle(_) => 2,
    }
}

/// Whether the bounding boxes of two geometries share a place; never for an empty one.
pub(crate) fn boxes_meet(a: &Geometry, b: &Geometry) -> bool {
    match (a.bounding_rect(), b.bounding_rect()) {
        (Some(a), Some(b)) => a.intersects(&b),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use geo::wkt;

    #[test]
    fn relates_as_the_standard_draws_it() {
        let square: Geometry = wkt! { POLYGON((0. 0.,4. 0.,4. 4.,0. 4.,0. 0.)) }.into();
        let line: Geometry = wkt! { LINESTRING(-1. 2.,5. 2.) }.into();
        assert_eq!(relate(&square, &line).to_string(), "1F20F1102");
        assert_eq!(relate(&square, &square).to_string(), "2FFF1FFF2");
        assert!(relate(&line, &square).crosses(1, 2));
    }

    #[test]
    fn adjacent_members_of_a_collection_have_no_boundary_between_them() {
        let two = Geometry::GeometryCollection(wkt! {
            GEOMETRYCOLLECTION(POLYGON((0. 0.,1. 0.,1. 1.,0. 1.,0. 0.)),POLYGON((1. 0.,2. 0.,2. 1.,1. 1.,1. 0.)))
        });
        let on_the_seam: Geometry = wkt! { POINT(1. 0.5) }.into();
        assert!(relate(&two, &on_the_seam).contains());
    }
}
