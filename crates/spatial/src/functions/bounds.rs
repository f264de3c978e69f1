//! `st_xmin`, `st_xmax`, `st_ymin`, `st_ymax`: the bounding box in numbers.

use arrow::array::{ArrayRef, Float64Array};
use datafusion::common::Result;
use geo::{BoundingRect, Rect};

use crate::call::Call;
use crate::definition::{CrsRule, Definition, FLOAT64, Kind};

macro_rules! bound {
    ($name:literal, $summary:literal, $take:expr) => {
        Definition {
            name: $name,
            aliases: &[],
            summary: $summary,
            overloads: &[&[("geometry", Kind::Geometry)]],
            crs: CrsRule::Same,
            output: FLOAT64,
            body: |call| bound(call, $take),
        }
    };
}

pub(crate) static XMIN: Definition = bound!("st_xmin", "The smallest x; null if empty", |b| b.min().x);
pub(crate) static XMAX: Definition = bound!("st_xmax", "The largest x; null if empty", |b| b.max().x);
pub(crate) static YMIN: Definition = bound!("st_ymin", "The smallest y; null if empty", |b| b.min().y);
pub(crate) static YMAX: Definition = bound!("st_ymax", "The largest y; null if empty", |b| b.max().y);

fn bound(call: &Call<'_>, take: fn(&Rect) -> f64) -> Result<ArrayRef> {
    let geometries = call.geometries(0)?;
    call.rows::<Float64Array, _>(|row| {
        Ok(geometries.get(row)?.and_then(|geometry| geometry.bounding_rect()).as_ref().map(take))
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn bounds_every_type() {
        every_type("st_xmin", ["1.0", "0.0", "0.0", "1.0", "0.0", "0.0", "0.0"]);
        every_type("st_xmax", ["1.0", "3.0", "4.0", "3.0", "10.0", "11.0", "3.0"]);
        every_type("st_ymin", ["2.0", "0.0", "0.0", "2.0", "0.0", "0.0", "0.0"]);
        every_type("st_ymax", ["2.0", "4.0", "4.0", "4.0", "5.0", "11.0", "4.0"]);
        check(&[("st_xmin(st_geomfromtext('LINESTRING EMPTY'))", "NULL"), ("st_ymax(NULL)", "NULL")]);
    }
}
