//! `st_intersects`, `st_disjoint`, `st_contains`, `st_within`, `st_covers`, `st_coveredby`: how two geometries lie to
//! each other (OGC 06-103r4, dimensionally extended nine-intersection model), in the plane of the coordinates.

use arrow::array::{ArrayRef, BooleanArray};
use datafusion::common::Result;
use geo::{BoundingRect, Contains, Covers, Geometry, Intersects};

use crate::call::Call;
use crate::definition::{BOOLEAN, CrsRule, Definition, Kind};

macro_rules! predicate {
    ($name:literal, $summary:literal, $holds:expr) => {
        Definition {
            name: $name,
            aliases: &[],
            summary: $summary,
            overloads: &[&[("a", Kind::Geometry), ("b", Kind::Geometry)]],
            crs: CrsRule::Same,
            output: BOOLEAN,
            body: |call| predicate(call, $holds),
        }
    };
}

pub(crate) static INTERSECTS: Definition =
    predicate!("st_intersects", "Whether a and b share a point", intersects);
pub(crate) static DISJOINT: Definition =
    predicate!("st_disjoint", "Whether a and b share no point", |a, b| !intersects(a, b));
pub(crate) static CONTAINS: Definition =
    predicate!("st_contains", "Whether b lies in a and not only on its boundary", |a, b| intersects(a, b)
        && a.contains(b));
pub(crate) static WITHIN: Definition =
    predicate!("st_within", "Whether a lies in b and not only on its boundary", |a, b| intersects(a, b)
        && b.contains(a));
pub(crate) static COVERS: Definition =
    predicate!("st_covers", "Whether no point of b lies outside a", |a, b| intersects(a, b) && a.covers(b));
pub(crate) static COVERED_BY: Definition =
    predicate!("st_coveredby", "Whether no point of a lies outside b", |a, b| intersects(a, b)
        && b.covers(a));

/// The bounding boxes decide most pairs.
fn intersects(a: &Geometry, b: &Geometry) -> bool {
    match (a.bounding_rect(), b.bounding_rect()) {
        (Some(box_a), Some(box_b)) => box_a.intersects(&box_b) && a.intersects(b),
        _ => false,
    }
}

fn predicate(call: &Call<'_>, holds: fn(&Geometry, &Geometry) -> bool) -> Result<ArrayRef> {
    let (left, right) = (call.geometries(0)?, call.geometries(1)?);
    call.rows::<BooleanArray, _>(|row| {
        let (Some(a), Some(b)) = (left.get(row)?, right.get(row)?) else { return Ok(None) };
        Ok(Some(holds(&a, &b)))
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    fn all(a: &str, b: &str) -> String {
        let names = ["st_intersects", "st_disjoint", "st_contains", "st_within", "st_covers", "st_coveredby"];
        let calls: Vec<String> = names
            .iter()
            .map(|name| format!("{name}(st_geomfromtext('{a}'), st_geomfromtext('{b}'))"))
            .collect();
        eval(&calls.join(", ")).replace("true", "T").replace("false", "F").replace('|', "")
    }

    #[test]
    fn tells_inside_boundary_and_outside_apart() {
        let square = "POLYGON((0 0,4 0,4 4,0 4,0 0))";
        assert_eq!(all(square, "POINT(1 1)"), "TFTFTF");
        assert_eq!(all(square, "POINT(4 1)"), "TFFFTF");
        assert_eq!(all(square, "POINT(5 1)"), "FTFFFF");
        assert_eq!(all("POINT(1 1)", square), "TFFTFT");
        assert_eq!(all(square, "LINESTRING(-1 2,5 2)"), "TFFFFF");
        assert_eq!(all(square, square), "TFTTTT");
        assert_eq!(all(square, "POINT EMPTY"), "FTFFFF");
    }

    #[test]
    fn every_type_meets_itself() {
        for wkt in EVERY_TYPE {
            assert!(all(wkt, wkt).starts_with("TF"), "{wkt}");
        }
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
