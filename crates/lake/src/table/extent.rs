//! The bounding box beside a geometry: what files, row groups and pages are pruned by.
//!
//! A table with a geometry `geom` has four more columns in its files, which queries do not see. A filter that only
//! geometries near a constant one can pass (`st_intersects(geom, …)`, `st_dwithin(geom, …, 10)`) also becomes
//! comparisons of these columns with numbers: the statistics of Delta and Parquet say for which files and pages they
//! cannot hold. The columns are single floats rounded outwards, since they only need to be safe. They are null where
//! nothing is known: in files older than the columns, and for damaged geometry, which the filter itself is to meet. An
//! empty or null geometry has a box that meets nothing.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, lit};
use datafusion::prelude::Column;
use datafusion::scalar::ScalarValue;
use twinlake_contracts::{GEOMETRY_COLUMN, is_geometry};

use super::cell::{Bounds, bounds};

/// Least x, least y, greatest x, greatest y.
const COLUMNS: [&str; 4] = ["_geom_xmin", "_geom_ymin", "_geom_xmax", "_geom_ymax"];
/// A degree of latitude is nowhere shorter, in metres, on the sphere and on the spheroid.
const METRES_PER_DEGREE: f64 = 110_000.0;
/// Beyond this latitude a distance in metres may be any number of degrees of longitude.
const POLAR_DEG: f64 = 89.0;

/// Whether a column is not shown to queries.
pub(super) fn is_hidden(column: &str) -> bool {
    COLUMNS.contains(&column)
}

/// The fields that belong to a table of these columns, if it has a geometry.
pub(super) fn fields(visible: &Schema) -> Vec<Field> {
    match visible.field_with_name(GEOMETRY_COLUMN) {
        Ok(field) if is_geometry(field) => {
            COLUMNS.map(|name| Field::new(name, DataType::Float32, true)).to_vec()
        }
        _ => Vec::new(),
    }
}

/// The places of the columns that queries see.
pub(super) fn visible_places(stored: &Schema) -> Vec<usize> {
    (0..stored.fields().len()).filter(|place| !is_hidden(stored.field(*place).name())).collect()
}

/// The columns that queries see.
pub(super) fn visible(stored: &SchemaRef) -> SchemaRef {
    let places = visible_places(stored);
    if places.len() == stored.fields().len() {
        return Arc::clone(stored);
    }
    let fields: Vec<_> = places.into_iter().map(|place| Arc::clone(&stored.fields()[place])).collect();
    Arc::new(Schema::new_with_metadata(fields, stored.metadata().clone()))
}

/// Rows as queries see them, with the boxes of their geometries where the stored schema has columns for them.
pub(super) fn with_boxes(rows: &RecordBatch, stored: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let boxes = rows.column_by_name(GEOMETRY_COLUMN).map(|geometries| boxes(geometries));
    let column = |field: &Arc<Field>| -> Result<ArrayRef, ArrowError> {
        let place = COLUMNS.iter().position(|name| name == field.name());
        if let (Some(place), Some(boxes)) = (place, &boxes) {
            return Ok(Arc::clone(&boxes[place]));
        }
        match rows.column_by_name(field.name()) {
            Some(column) => Ok(Arc::clone(column)),
            None => Ok(arrow::array::new_null_array(field.data_type(), rows.num_rows())),
        }
    };
    let columns = stored.fields().iter().map(column).collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(Arc::clone(stored), columns)
}

fn down(value: f64) -> f32 {
    let near = value as f32;
    if f64::from(near) > value { near.next_down() } else { near }
}

fn up(value: f64) -> f32 {
    let near = value as f32;
    if f64::from(near) < value { near.next_up() } else { near }
}

fn boxes(geometries: &dyn Array) -> [ArrayRef; 4] {
    let mut columns: [Vec<Option<f32>>; 4] = std::array::from_fn(|_| Vec::with_capacity(geometries.len()));
    // Finite, so that the statistics of a table's log, which are JSON, can name it.
    let nothing = [f32::MAX, f32::MAX, f32::MIN, f32::MIN].map(Some);
    let binary = geometries.as_binary_opt::<i32>();
    for row in 0..geometries.len() {
        let values = match binary {
            Some(binary) if binary.is_valid(row) => match bounds(binary.value(row)) {
                Some(bounds) if bounds.is_empty() => nothing,
                Some(Bounds { low, high }) => [down(low[0]), down(low[1]), up(high[0]), up(high[1])]
                    .map(|value| Some(value).filter(|value| value.is_finite())),
                None => [None; 4],
            },
            Some(_) => nothing,
            None => [None; 4],
        };
        for (column, value) in columns.iter_mut().zip(values) {
            column.push(value);
        }
    }
    columns.map(|column| Arc::new(Float32Array::from(column)) as ArrayRef)
}

/// What a filter says of the boxes, as filters over the hidden columns; nothing when it says nothing.
pub(super) fn implied(filter: &Expr) -> Vec<Expr> {
    let Some(place) = area(filter) else { return Vec::new() };
    let sides = [
        (COLUMNS[0], Operator::LtEq, up(place.high[0])),
        (COLUMNS[1], Operator::LtEq, up(place.high[1])),
        (COLUMNS[2], Operator::GtEq, down(place.low[0])),
        (COLUMNS[3], Operator::GtEq, down(place.low[1])),
    ];
    sides
        .into_iter()
        .filter(|(.., value)| value.is_finite())
        .map(|(name, operator, value)| {
            let column = Expr::Column(Column::new_unqualified(name));
            let inside =
                Expr::BinaryExpr(BinaryExpr::new(Box::new(column.clone()), operator, Box::new(lit(value))));
            column.is_null().or(inside)
        })
        .collect()
}

/// The box (least x, least y, greatest x, greatest y) that a row's geometry must meet for a filter on it to be true, such as
/// `st_intersects(geom, …)` with a constant; `None` when the filter says nothing of the kind.
pub fn extent_of(filter: &Expr) -> Option<[f64; 4]> {
    let Bounds { low, high } = area(filter)?;
    Some([low[0], low[1], high[0], high[1]])
}

/// The box that a geometry's box must meet for the filter to be true.
fn area(filter: &Expr) -> Option<Bounds> {
    match filter {
        Expr::ScalarFunction(call) => {
            let (geometry, distance) = match call.args.as_slice() {
                [one, other] => (constant(one, other)?, None),
                [one, other, distance] => (constant(one, other)?, Some(number(distance)?)),
                _ => return None,
            };
            match (call.name(), distance) {
                (
                    "st_intersects"
                    | "st_contains"
                    | "st_within"
                    | "st_covers"
                    | "st_coveredby"
                    | "st_equals"
                    | "st_touches"
                    | "st_crosses"
                    | "st_overlaps"
                    | "st_containsproperly",
                    None,
                ) => Some(geometry),
                ("st_dwithin", Some(distance)) => Some(widened(geometry, distance, distance)),
                (
                    "st_dwithin_sphere" | "st_dwithin_spheroid" | "st_dwithinsphere" | "st_dwithinspheroid",
                    Some(metres),
                ) => Some(widened_by_metres(geometry, metres)),
                _ => None,
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (call, distance) = match (left.as_ref(), op, right.as_ref()) {
                (Expr::ScalarFunction(call), Operator::Lt | Operator::LtEq, distance)
                | (distance, Operator::Gt | Operator::GtEq, Expr::ScalarFunction(call)) => {
                    (call, number(distance)?)
                }
                _ => return None,
            };
            let [one, other] = call.args.as_slice() else { return None };
            let geometry = constant(one, other)?;
            match call.name() {
                "st_distance" => Some(widened(geometry, distance, distance)),
                "st_distancesphere" | "st_distancespheroid" => Some(widened_by_metres(geometry, distance)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The box of the constant geometry, when the other argument is the table's.
fn constant(one: &Expr, other: &Expr) -> Option<Bounds> {
    let wkb = match (one, other) {
        (Expr::Column(column), Expr::Literal(value, _)) | (Expr::Literal(value, _), Expr::Column(column))
            if column.name == GEOMETRY_COLUMN =>
        {
            value
        }
        _ => return None,
    };
    match wkb {
        ScalarValue::Binary(Some(wkb))
        | ScalarValue::LargeBinary(Some(wkb))
        | ScalarValue::BinaryView(Some(wkb)) => bounds(wkb).filter(|bounds| !bounds.is_empty()),
        _ => None,
    }
}

fn number(expression: &Expr) -> Option<f64> {
    let Expr::Literal(value, _) = expression else { return None };
    match value.cast_to(&DataType::Float64).ok()? {
        ScalarValue::Float64(Some(number)) if number.is_finite() => Some(number.max(0.0)),
        _ => None,
    }
}

fn widened(place: Bounds, x: f64, y: f64) -> Bounds {
    // Distances are computed with rounding.
    let (x, y) = (x * 1.000_001, y * 1.000_001);
    Bounds { low: [place.low[0] - x, place.low[1] - y], high: [place.high[0] + x, place.high[1] + y] }
}

fn widened_by_metres(place: Bounds, metres: f64) -> Bounds {
    let latitude = metres / METRES_PER_DEGREE;
    let farthest = place.low[1].abs().max(place.high[1].abs()) + latitude;
    let longitude = if farthest < POLAR_DEG { latitude / farthest.to_radians().cos() * 1.01 } else { 360.0 };
    let mut found = widened(place, longitude, latitude);
    // On the other side of the antimeridian the numbers begin again.
    if found.low[0] < -180.0 || found.high[0] > 180.0 {
        (found.low[0], found.high[0]) = (f64::NEG_INFINITY, f64::INFINITY);
    }
    found
}

#[cfg(test)]
mod tests {
    use arrow::array::BinaryArray;
    use arrow::datatypes::Float32Type;

    use super::*;

    fn point(x: f64, y: f64) -> Vec<u8> {
        [&[1, 1, 0, 0, 0][..], &x.to_le_bytes(), &y.to_le_bytes()].concat()
    }

    #[test]
    fn boxes_round_outwards_and_know_what_they_do_not_know() {
        let damaged = vec![1, 2];
        let empty = point(f64::NAN, f64::NAN);
        let rows = [Some(point(24.940_000_1, 60.17)), None, Some(damaged), Some(empty)];
        let columns = boxes(&rows.into_iter().collect::<BinaryArray>());
        let [xmin, ymin, xmax, ymax] = columns.each_ref().map(AsArray::as_primitive::<Float32Type>);
        assert!(f64::from(xmin.value(0)) <= 24.940_000_1 && f64::from(xmax.value(0)) >= 24.940_000_1);
        assert!(f64::from(ymin.value(0)) <= 60.17 && f64::from(ymax.value(0)) >= 60.17);
        assert!(xmin.value(1) > xmax.value(1) && xmin.value(3) > xmax.value(3));
        assert!(xmin.is_null(2) && ymax.is_null(2));
    }

    #[test]
    fn metres_become_enough_degrees() {
        let there = Bounds { low: [24.94, 60.17], high: [24.94, 60.17] };
        let found = widened_by_metres(there, 1_000.0);
        assert!(found.high[1] - 60.17 > 0.008_99 && found.high[0] - 24.94 > 0.018 && found.high[0] < 24.97);
        assert_eq!(
            widened_by_metres(Bounds { low: [179.99, 0.0], high: [179.99, 0.0] }, 5_000.0).low[0],
            f64::NEG_INFINITY
        );
        assert_eq!(
            widened_by_metres(Bounds { low: [0.0, 89.5], high: [0.0, 89.5] }, 5_000.0).high[0],
            f64::INFINITY
        );
    }
}
