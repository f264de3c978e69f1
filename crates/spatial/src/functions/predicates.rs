//! How two geometries lie to each other (OGC 06-103r4, dimensionally extended nine-intersection model), in the plane
//! of the coordinates. A collection counts as the union of its members.

use arrow::array::{BooleanArray, StringArray};
use arrow::datatypes::{DataType, Field};
use datafusion::common::Result;
use geo::coordinate_position::{CoordPos, CoordinatePosition};
use geo::{BoundingRect, Geometry, Intersects, Point};

use super::measures::farthest;
use crate::call::Call;
use crate::definition::{BOOLEAN, CrsRule, Definition, Kind, Output, Parameter};
use crate::prepared::shape::Relation;
use crate::topology::relate::{Matrix, boxes_meet, dimension, relate};

const TWO: &[&[Parameter]] = &[&[("a", Kind::Geometry), ("b", Kind::Geometry)]];

macro_rules! predicate {
    ($name:literal, $summary:literal, $holds:expr) => {
        Definition::new($name, $summary, TWO, BOOLEAN, |call| {
            let holds: fn(&Geometry, &Geometry) -> bool = $holds;
            call.pairs::<BooleanArray, _>(|a, b| Ok(Some(holds(a, b))))
        })
    };
}

/// The relations that a prepared constant decides quickly.
macro_rules! relation {
    ($name:literal, $summary:literal, $relation:expr, $holds:literal) => {
        Definition::new($name, $summary, TWO, BOOLEAN, |call| {
            call.prepared_pairs::<BooleanArray, _>(|a, b, _| Ok(Some(a.relates($relation, b) == $holds)))
        })
    };
}

pub(crate) static INTERSECTS: Definition =
    relation!("st_intersects", "Whether a and b share a point", Relation::Intersects, true);
pub(crate) static DISJOINT: Definition =
    relation!("st_disjoint", "Whether a and b share no point", Relation::Intersects, false);
pub(crate) static CONTAINS: Definition =
    relation!("st_contains", "Whether b lies in a and not only on its boundary", Relation::Contains, true);
pub(crate) static WITHIN: Definition =
    relation!("st_within", "Whether a lies in b and not only on its boundary", Relation::Within, true);
pub(crate) static COVERS: Definition =
    relation!("st_covers", "Whether no point of b lies outside a", Relation::Covers, true);
pub(crate) static COVERED_BY: Definition =
    relation!("st_coveredby", "Whether no point of a lies outside b", Relation::CoveredBy, true);
pub(crate) static CONTAINS_PROPERLY: Definition =
    predicate!("st_containsproperly", "Whether b lies in the interior of a, off its boundary", |a, b| {
        box_covers(a, b) && relate(a, b).matches("T**FF*FF*") == Some(true)
    });
pub(crate) static TOUCHES: Definition =
    predicate!("st_touches", "Whether a and b share points, but none that is inside of both", |a, b| {
        boxes_meet(a, b) && relate(a, b).touches()
    });
pub(crate) static CROSSES: Definition = predicate!(
    "st_crosses",
    "Whether the insides of a and b share some of their points and the shared part has a smaller dimension than the larger of the two",
    |a, b| boxes_meet(a, b) && relate(a, b).crosses(dimension(a), dimension(b))
);
pub(crate) static OVERLAPS: Definition = predicate!(
    "st_overlaps",
    "Whether a and b have one dimension, share a part of that dimension, and each has a part outside of the other",
    |a, b| boxes_meet(a, b) && relate(a, b).overlaps(dimension(a), dimension(b))
);
pub(crate) static EQUALS: Definition = predicate!(
    "st_equals",
    "Whether a and b are the same set of points; two empty geometries are equal",
    |a, b| {
        match (dimension(a), dimension(b)) {
            (-1, -1) => true,
            (x, y) => x == y && box_covers(a, b) && box_covers(b, a) && relate(a, b).equals(),
        }
    }
);

pub(crate) static ORDERING_EQUALS: Definition = Definition::new(
    "st_orderingequals",
    "Whether a and b have the same type and the same coordinates in the same order, third ones and measures too",
    TWO,
    BOOLEAN,
    |call| {
        let (left, right) = (call.bytes(0)?, call.bytes(1)?);
        call.rows::<BooleanArray, _>(|row| match (left.get(row), right.get(row)) {
            (Some(a), Some(b)) => Ok(Some(call.shape(a)? == call.shape(b)?)),
            _ => Ok(None),
        })
    },
);

pub(crate) static RELATE: Definition = Definition {
    name: "st_relate",
    aliases: &[],
    summary: "The nine-intersection matrix of a and b as nine letters of F 0 1 2; with a pattern of T F * 0 1 2 whether the matrix matches it",
    overloads: &[
        &[("a", Kind::Geometry), ("b", Kind::Geometry)],
        &[("a", Kind::Geometry), ("b", Kind::Geometry), ("pattern", Kind::Text)],
    ],
    crs: CrsRule::Same,
    output: Output::Field(|args| {
        let data_type = if args.arg_fields.len() == 2 { DataType::Utf8 } else { DataType::Boolean };
        Ok(Field::new("st_relate", data_type, true))
    }),
    body: |call| {
        if call.arity() == 2 {
            return call.pairs::<StringArray, _>(|a, b| Ok(Some(relate(a, b).to_string())));
        }
        let (left, right, patterns) = (call.geometries(0)?, call.geometries(1)?, call.texts(2)?);
        call.rows::<BooleanArray, _>(|row| {
            let (Some(a), Some(b), Some(pattern)) = (left.get(row)?, right.get(row)?, patterns.get(row))
            else {
                return Ok(None);
            };
            matched(call, relate(&a, &b), pattern)
        })
    },
};

pub(crate) static RELATE_MATCH: Definition = Definition::new(
    "st_relatematch",
    "Whether a nine-intersection matrix matches a pattern of T F * 0 1 2",
    &[&[("matrix", Kind::Text), ("pattern", Kind::Text)]],
    BOOLEAN,
    |call| {
        let (matrices, patterns) = (call.texts(0)?, call.texts(1)?);
        call.rows::<BooleanArray, _>(|row| match (matrices.get(row), patterns.get(row)) {
            (Some(matrix), Some(pattern)) => match Matrix::parse(matrix) {
                Some(matrix) => matched(call, matrix, pattern),
                None => call.error(format!("'{matrix}' is not nine letters of F 0 1 2")),
            },
            _ => Ok(None),
        })
    },
);

fn matched(call: &Call<'_>, matrix: Matrix, pattern: &str) -> Result<Option<bool>> {
    match matrix.matches(pattern) {
        Some(holds) => Ok(Some(holds)),
        None => call.error(format!("'{pattern}' is not nine letters of T F * 0 1 2")),
    }
}

pub(crate) static DFULLY_WITHIN: Definition = Definition::new(
    "st_dfullywithin",
    "Whether every point of a and every point of b are at most a distance, in units of the reference system, apart",
    &[&[("a", Kind::Geometry), ("b", Kind::Geometry), ("distance", Kind::Number)]],
    BOOLEAN,
    |call| {
        let (left, right, distances) = (call.geometries(0)?, call.geometries(1)?, call.numbers(2)?);
        call.rows::<BooleanArray, _>(|row| {
            let (Some(a), Some(b), Some(distance)) = (left.get(row)?, right.get(row)?, distances.get(row))
            else {
                return Ok(None);
            };
            if distance.is_nan() || distance < 0.0 {
                return call.error(format!("the distance {distance} is not a distance"));
            }
            Ok(Some(farthest(&a, &b).is_some_and(|(farthest, ..)| farthest <= distance)))
        })
    },
);

/// The bounding boxes decide most pairs.
pub(crate) fn intersects(a: &Geometry, b: &Geometry) -> bool {
    boxes_meet(a, b) && a.intersects(b)
}

/// A point and an area are held against each other without an arrangement.
pub(crate) fn contains(a: &Geometry, b: &Geometry) -> bool {
    match point_in_area(a, b) {
        Some(position) => position == CoordPos::Inside,
        None => box_covers(a, b) && relate(a, b).contains(),
    }
}

pub(crate) fn covers(a: &Geometry, b: &Geometry) -> bool {
    match point_in_area(a, b) {
        Some(position) => position != CoordPos::Outside,
        None => box_covers(a, b) && relate(a, b).covers(),
    }
}

/// Whether the bounding box of b lies in that of a: without that nothing else needs to be looked at.
fn box_covers(a: &Geometry, b: &Geometry) -> bool {
    match (a.bounding_rect(), b.bounding_rect()) {
        (Some(a), Some(b)) => {
            a.min().x <= b.min().x
                && a.min().y <= b.min().y
                && a.max().x >= b.max().x
                && a.max().y >= b.max().y
        }
        _ => false,
    }
}

fn point_in_area(area: &Geometry, point: &Geometry) -> Option<CoordPos> {
    let Geometry::Point(Point(at)) = point else { return None };
    match area {
        Geometry::Polygon(polygon) => Some(polygon.coordinate_position(at)),
        Geometry::MultiPolygon(polygons) => {
            // Members of a valid one share points of their boundaries at most.
            let mut found = CoordPos::Outside;
            for polygon in polygons {
                match polygon.coordinate_position(at) {
                    CoordPos::Inside => return Some(CoordPos::Inside),
                    CoordPos::OnBoundary => found = CoordPos::OnBoundary,
                    CoordPos::Outside => {}
                }
            }
            Some(found)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    fn all(a: &str, b: &str) -> String {
        let names = [
            "st_intersects",
            "st_disjoint",
            "st_contains",
            "st_within",
            "st_covers",
            "st_coveredby",
            "st_touches",
            "st_crosses",
            "st_overlaps",
            "st_equals",
        ];
        let calls: Vec<String> = names
            .iter()
            .map(|name| format!("{name}(st_geomfromtext('{a}'), st_geomfromtext('{b}'))"))
            .collect();
        eval(&calls.join(", ")).replace("true", "T").replace("false", "F").replace('|', "")
    }

    #[test]
    fn tells_inside_boundary_and_outside_apart() {
        let square = "POLYGON((0 0,4 0,4 4,0 4,0 0))";
        assert_eq!(all(square, "POINT(1 1)"), "TFTFTFFFFF");
        assert_eq!(all(square, "POINT(4 1)"), "TFFFTFTFFF");
        assert_eq!(all(square, "POINT(5 1)"), "FTFFFFFFFF");
        assert_eq!(all("POINT(1 1)", square), "TFFTFTFFFF");
        assert_eq!(all(square, "LINESTRING(-1 2,5 2)"), "TFFFFFFTFF");
        assert_eq!(all(square, square), "TFTTTTFFFT");
        assert_eq!(all(square, "POINT EMPTY"), "FTFFFFFFFF");
        assert_eq!(all(square, "POLYGON((2 2,6 2,6 6,2 6,2 2))"), "TFFFFFFFTF");
        assert_eq!(all("POINT EMPTY", "LINESTRING EMPTY"), "FTFFFFFFFT");
    }

    #[test]
    fn every_type_meets_itself() {
        for wkt in EVERY_TYPE {
            assert!(all(wkt, wkt).starts_with("TFTTTTF"), "{wkt}");
            assert!(all(wkt, wkt).ends_with('T'), "{wkt}");
        }
    }

    #[test]
    fn relates_with_and_without_a_pattern() {
        let (a, b) = ("st_makeenvelope(0,0,2,2)", "st_makeenvelope(1,1,3,3)");
        check(&[
            (&format!("st_relate({a}, {b})"), "212101212"),
            (&format!("st_relate({a}, {b}, 'T*T***T**')"), "true"),
            ("st_relatematch('212101212', 'T********')", "true"),
            ("st_orderingequals(st_makeenvelope(0,0,1,1), st_reverse(st_makeenvelope(0,0,1,1)))", "false"),
            ("st_dfullywithin(st_point(0, 0), st_makeenvelope(0,0,3,4), 5)", "true"),
            ("st_dfullywithin(st_point(0, 0), st_makeenvelope(0,0,3,4), 4.9)", "false"),
        ]);
        fails("st_relate(st_point(1, 1), st_point(1, 1), 'T')", "st_relate: 'T' is not nine letters");
    }

    #[test]
    fn null_gives_null_and_a_constant_meets_a_column() {
        check(&[
            ("st_intersects(NULL, st_point(1, 1))", "NULL"),
            ("st_within(st_point(1, 1), NULL)", "NULL"),
        ]);
        let rows = query(
            "SELECT x, st_within(st_point(x, 1), st_makeenvelope(0, 0, 2, 2)) FROM (VALUES (1), (3), (NULL)) AS t(x)",
        );
        assert_eq!(rows.unwrap(), ["1|true", "3|false", "NULL|NULL"]);
        fails("st_intersects(st_point(1, 1), decode('01', 'hex'))", "st_intersects: invalid WKB");
    }
}
