//! A geometry as joins and predicates hold it: a point is two numbers, a polygon may be prepared.

use std::ops::Deref;
use std::sync::OnceLock;

use geo::coordinate_position::CoordPos;
use geo::{Coord, Distance, Euclidean, Geometry, Haversine, Point};
use twinlake_contracts::Result;

use super::area::AreaIndex;
use super::bounds::Bounds;
use super::scan::{Extent, extent};
use crate::functions::predicates::{contains, covers, intersects};
use crate::functions::st_distance::planar_distance;
use crate::geometry;
use crate::metric::closest_pair;

/// A decoded geometry.
#[derive(Debug)]
pub(crate) enum Shape {
    Point(Coord),
    Other(Box<Other>),
}

#[derive(Debug)]
pub(crate) struct Other {
    geometry: Geometry,
    bounds: Option<Bounds<2>>,
    area: OnceLock<Option<AreaIndex>>,
}

/// How two geometries lie to each other, as far as the join decides it by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    Intersects,
    Contains,
    Within,
    Covers,
    CoveredBy,
}

impl Relation {
    /// The relation of b to a, when this is that of a to b.
    fn reversed(self) -> Self {
        match self {
            Self::Intersects => Self::Intersects,
            Self::Contains => Self::Within,
            Self::Within => Self::Contains,
            Self::Covers => Self::CoveredBy,
            Self::CoveredBy => Self::Covers,
        }
    }

    /// Whether it holds between two geometries, as the SQL function of its name says.
    fn holds(self, a: &Geometry, b: &Geometry) -> bool {
        match self {
            Self::Intersects => intersects(a, b),
            Self::Contains => contains(a, b),
            Self::Within => contains(b, a),
            Self::Covers => covers(a, b),
            Self::CoveredBy => covers(b, a),
        }
    }
}

impl Shape {
    /// Reads WKB.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self> {
        Self::decode(extent(bytes)?, bytes)
    }

    /// Decodes what [`extent`] has seen.
    pub(crate) fn decode(extent: Extent, bytes: &[u8]) -> Result<Self> {
        match extent {
            Extent::Point(at) => Ok(Self::Point(at)),
            _ => Ok(Self::Other(Box::new(Other {
                geometry: geometry::decode(bytes)?,
                bounds: extent.bounds(),
                area: OnceLock::new(),
            }))),
        }
    }

    /// Builds the index of a polygon now, since many points are to come.
    pub(crate) fn prepare(&self) {
        if let Self::Other(other) = self {
            other.area.get_or_init(|| AreaIndex::new(&other.geometry));
        }
    }

    /// About how many bytes it takes, prepared.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Point(_) => 0,
            Self::Other(other) => {
                let area = other.area.get().and_then(Option::as_ref).map_or(0, AreaIndex::bytes);
                size_of::<Other>() + 2 * area
            }
        }
    }

    fn with_geometry<T>(&self, use_it: impl FnOnce(&Geometry) -> T) -> T {
        match self {
            Self::Point(at) => use_it(&Geometry::Point(Point(*at))),
            Self::Other(other) => use_it(&other.geometry),
        }
    }

    /// Whether `relation` holds between this and another.
    pub(crate) fn relates(&self, relation: Relation, other: &Self) -> bool {
        match (self, other) {
            (Self::Point(a), Self::Point(b)) => a == b,
            (Self::Other(area), Self::Point(at)) => area.relates_to_point(relation, *at),
            (Self::Point(at), Self::Other(area)) => area.relates_to_point(relation.reversed(), *at),
            (Self::Other(a), Self::Other(b)) => {
                // None of the relations holds between geometries whose boxes are apart.
                let apart = matches!((&a.bounds, &b.bounds), (Some(a), Some(b)) if !a.meets(b));
                !apart && relation.holds(&a.geometry, &b.geometry)
            }
        }
    }

    /// The planar distance when it is at most `limit`, else something greater; `None` when one is empty.
    pub(crate) fn planar_distance(&self, other: &Self, limit: f64) -> Option<f64> {
        match (self, other) {
            (Self::Point(a), Self::Point(b)) => {
                // A distance is no shorter than its part along either axis, but for its own rounding.
                let far = limit.abs() * (1.0 + 8.0 * f64::EPSILON);
                if (a.x - b.x).abs() > far || (a.y - b.y).abs() > far {
                    return Some(f64::INFINITY);
                }
                Some(Euclidean.distance(*a, *b))
            }
            (Self::Other(area), Self::Point(at)) | (Self::Point(at), Self::Other(area)) => {
                if let Some(bounds) = &area.bounds
                    && bounds.distance_squared(&Bounds::point(at.x, at.y))
                        > limit * limit * (1.0 + 16.0 * f64::EPSILON)
                {
                    return Some(f64::INFINITY);
                }
                match area.area.get() {
                    Some(Some(index)) => Some(index.distance(*at, limit)),
                    _ => planar_distance(&area.geometry, &Geometry::Point(Point(*at))),
                }
            }
            (Self::Other(a), Self::Other(b)) => planar_distance(&a.geometry, &b.geometry),
        }
    }

    /// The distance in metres on the mean sphere; `None` when one is empty.
    pub(crate) fn sphere_distance_m(&self, other: &Self) -> Option<f64> {
        if let (Self::Point(a), Self::Point(b)) = (self, other) {
            return Some(Haversine.distance(Point(*a), Point(*b)));
        }
        self.with_geometry(|a| {
            other.with_geometry(|b| {
                closest_pair(a, b).map(|(from, to)| Haversine.distance(from.into(), to.into()))
            })
        })
    }
}

impl Other {
    fn relates_to_point(&self, relation: Relation, at: Coord) -> bool {
        if self.bounds.is_some_and(|bounds| !bounds.meets(&Bounds::point(at.x, at.y))) {
            return false;
        }
        match (self.area.get(), relation) {
            (Some(Some(index)), Relation::Intersects | Relation::Covers) => {
                index.position(at) != CoordPos::Outside
            }
            (Some(Some(index)), Relation::Contains) => index.position(at) == CoordPos::Inside,
            _ => relation.holds(&self.geometry, &Geometry::Point(Point(at))),
        }
    }
}

/// A shape that is kept, or one for a moment.
pub(crate) enum Held<'a> {
    Kept(&'a Shape),
    Own(Shape),
}

impl Deref for Held<'_> {
    type Target = Shape;

    fn deref(&self) -> &Shape {
        match self {
            Self::Kept(shape) => shape,
            Self::Own(shape) => shape,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join::testing::{Random, geometry};

    #[test]
    fn a_prepared_shape_relates_as_the_geometry_does() {
        let mut random = Random::new(23);
        let relations = [
            Relation::Intersects,
            Relation::Contains,
            Relation::Within,
            Relation::Covers,
            Relation::CoveredBy,
        ];
        for round in 0..4_000 {
            let (a, b) = (geometry(&mut random), geometry(&mut random));
            let shape = |geometry: &Geometry| {
                let bytes = crate::encode(geometry);
                let shape = Shape::decode(extent(&bytes).unwrap(), &bytes).unwrap();
                if round % 2 == 0 {
                    shape.prepare();
                }
                shape
            };
            let (left, right) = (shape(&a), shape(&b));
            for relation in relations {
                assert_eq!(
                    left.relates(relation, &right),
                    relation.holds(&a, &b),
                    "{relation:?} {a:?} {b:?}"
                );
            }
            let expected = planar_distance(&a, &b);
            assert_eq!(left.planar_distance(&right, f64::INFINITY), expected, "{a:?} {b:?}");
        }
    }
}
