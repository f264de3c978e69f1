//! `st_x`, `st_y`: the coordinates of a point.

use arrow::array::{ArrayRef, Float64Array};
use datafusion::common::Result;
use geo::{Geometry, HasDimensions, Point};

use crate::call::Call;
use crate::definition::{CrsRule, Definition, FLOAT64, Kind};

pub(crate) static X: Definition = Definition {
    name: "st_x",
    aliases: &[],
    summary: "The x of a point (longitude in degrees for OGC:CRS84); null for an empty point",
    overloads: &[&[("point", Kind::Geometry)]],
    crs: CrsRule::Same,
    output: FLOAT64,
    body: |call| coordinate(call, Point::x),
};

pub(crate) static Y: Definition = Definition {
    name: "st_y",
    aliases: &[],
    summary: "The y of a point (latitude in degrees for OGC:CRS84); null for an empty point",
    overloads: &[&[("point", Kind::Geometry)]],
    crs: CrsRule::Same,
    output: FLOAT64,
    body: |call| coordinate(call, Point::y),
};

fn coordinate(call: &Call<'_>, take: fn(Point) -> f64) -> Result<ArrayRef> {
    let geometries = call.geometries(0)?;
    call.rows::<Float64Array, _>(|row| match geometries.get(row)?.as_deref() {
        None => Ok(None),
        Some(Geometry::Point(point)) => Ok(Some(take(*point))),
        Some(other) if other.is_empty() => Ok(None),
        Some(_) => call.error("takes a point; st_centroid makes one of other geometries"),
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn reads_points() {
        check(&[
            ("st_x(st_point(24.94, 60.17)), st_y(st_point(24.94, 60.17))", "24.94|60.17"),
            ("st_x(st_geomfromtext('POINT EMPTY'))", "NULL"),
            ("st_y(NULL)", "NULL"),
        ]);
        for wkt in &EVERY_TYPE[1..] {
            fails(&format!("st_x(st_geomfromtext('{wkt}'))"), "st_x: takes a point");
        }
    }
}
