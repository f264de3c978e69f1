//! `st_startpoint`, `st_endpoint`: where a line begins and ends.

use arrow::array::{ArrayRef, BinaryArray};
use datafusion::common::Result;
use geo::{Coord, Geometry, LineString, Point};

use crate::call::Call;
use crate::definition::{CrsRule, Definition, Kind, Output};
use crate::geometry::encode;

pub(crate) static START: Definition = Definition {
    name: "st_startpoint",
    aliases: &[],
    summary: "The first point of a line; null for an empty one and for geometries that are no line",
    overloads: &[&[("line", Kind::Geometry)]],
    crs: CrsRule::Same,
    output: Output::Geometry,
    body: |call| endpoint(call, |line| line.0.first().copied()),
};

pub(crate) static END: Definition = Definition {
    name: "st_endpoint",
    aliases: &[],
    summary: "The last point of a line; null for an empty one and for geometries that are no line",
    overloads: &[&[("line", Kind::Geometry)]],
    crs: CrsRule::Same,
    output: Output::Geometry,
    body: |call| endpoint(call, |line| line.0.last().copied()),
};

fn endpoint(call: &Call<'_>, take: fn(&LineString) -> Option<Coord>) -> Result<ArrayRef> {
    let geometries = call.geometries(0)?;
    call.rows::<BinaryArray, _>(|row| match geometries.get(row)?.as_deref() {
        Some(Geometry::LineString(line)) => Ok(take(line).map(|coord| encode(&Point(coord).into()))),
        _ => Ok(None),
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn finds_ends_of_lines_only() {
        every_type(
            "st_startpoint",
            ["NULL", "010100000000000000000000000000000000000000", "NULL", "NULL", "NULL", "NULL", "NULL"],
        );
        check(&[
            ("st_astext(st_endpoint(st_geomfromtext('LINESTRING(0 0,3 4)')))", "POINT(3 4)"),
            ("st_startpoint(st_geomfromtext('LINESTRING EMPTY'))", "NULL"),
            ("st_endpoint(NULL)", "NULL"),
        ]);
    }
}
