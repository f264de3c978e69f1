//! What the index needs of each row: its geometry as WKB, how far it reaches, and when it is.

use std::sync::Arc;

use arrow::array::{Array, BinaryArray, Float64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::cast::{as_binary_array, as_float64_array};
use datafusion::common::{DataFusionError, JoinSide, Result};
use datafusion::logical_expr::ColumnarValue;

use super::condition::Condition;
use super::filter::Expr;
use super::predicate::{Limit, Test};
use super::window::Spans;
use crate::metric::EARTH_MEAN_RADIUS_M;
use crate::prepared::bounds::Bounds;
use crate::prepared::scan::{Extent, extent};

/// The evaluated keys of a batch of one side.
pub(super) struct Keys {
    geometries: Column<BinaryArray>,
    limits: Option<Column<Float64Array>>,
    spans: Option<Spans>,
    sphere: bool,
    empty_meets_empty: bool,
    function: Arc<str>,
}

/// Values of a batch; a constant stands for all rows.
struct Column<A> {
    values: A,
    constant: bool,
}

impl<A: Array + Clone + 'static> Column<A> {
    fn evaluate(
        expression: &Expr,
        batch: &RecordBatch,
        data_type: &DataType,
        of: fn(&dyn Array) -> Result<&A>,
    ) -> Result<Self> {
        let (values, constant) = match expression.evaluate(batch)? {
            ColumnarValue::Array(values) => (values, false),
            ColumnarValue::Scalar(value) => (value.to_array_of_size(1)?, true),
        };
        let values = if values.data_type() == data_type { values } else { cast(&values, data_type)? };
        Ok(Self { values: of(&values)?.clone(), constant })
    }

    fn index(&self, row: usize) -> Option<usize> {
        let index = if self.constant { 0 } else { row };
        self.values.is_valid(index).then_some(index)
    }
}

/// A row that can meet something.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub extent: Extent,
    /// The distance that the condition gives for this row, when it depends on this side.
    pub limit: f64,
    /// From and to on the axis of the window.
    pub span: (f64, f64),
}

impl Keys {
    /// Evaluates the keys of one side.
    pub(super) fn evaluate(condition: &Condition, side: JoinSide, batch: &RecordBatch) -> Result<Self> {
        let predicate = &condition.predicate;
        let geometry = if side == JoinSide::Left { &predicate.left } else { &predicate.right };
        let limit = match (&predicate.test, side) {
            (Test::Distance { limit: Limit::Left(limit), .. }, JoinSide::Left)
            | (Test::Distance { limit: Limit::Right(limit), .. }, JoinSide::Right) => Some(limit),
            _ => None,
        };
        Ok(Self {
            geometries: Column::evaluate(geometry, batch, &DataType::Binary, |array| as_binary_array(array))?,
            limits: limit
                .map(|limit| {
                    Column::evaluate(limit, batch, &DataType::Float64, |array| as_float64_array(array))
                })
                .transpose()?,
            spans: condition.window.as_ref().map(|window| window.spans(side, batch)).transpose()?,
            sphere: predicate.test.on_sphere(),
            empty_meets_empty: matches!(predicate.test, Test::Boxes { empty_meets_empty: true }),
            function: predicate.function.as_str().into(),
        })
    }

    /// The WKB of a row that has a key.
    pub(super) fn wkb(&self, row: usize) -> &[u8] {
        self.geometries.index(row).map_or(&[], |index| self.geometries.values.value(index))
    }

    /// The key of a row; `None` when it can meet nothing: null, empty, without limit or without time.
    pub(super) fn get(&self, row: usize) -> Result<Option<Key>> {
        let Some(index) = self.geometries.index(row) else { return Ok(None) };
        let extent =
            extent(self.geometries.values.value(index)).map_err(|error| name(&self.function, error))?;
        let (extent, bounds) = match extent.bounds() {
            Some(bounds) => (extent, bounds),
            // All that is empty lies in one place, where nothing else does.
            None if self.empty_meets_empty => {
                let nowhere = Bounds::point(f64::INFINITY, f64::INFINITY);
                (Extent::Area(nowhere), nowhere)
            }
            None => return Ok(None),
        };
        if self.sphere {
            check_degrees(&self.function, &bounds)?;
        }
        let limit = match &self.limits {
            None => 0.0,
            Some(limits) => match limits.index(row) {
                Some(index) => limits.values.value(index),
                None => return Ok(None),
            },
        };
        let span = match &self.spans {
            None => (f64::NEG_INFINITY, f64::INFINITY),
            Some(spans) => match spans.get(row) {
                Some(span) => span,
                None => return Ok(None),
            },
        };
        Ok(Some(Key { extent, limit, span }))
    }
}

/// An error of a geometry under the name of the function that meets it.
pub(super) fn name(function: &str, error: twinlake_contracts::Error) -> DataFusionError {
    let message = match error {
        twinlake_contracts::Error::Data { message, .. } => message,
        other => other.to_string(),
    };
    DataFusionError::Execution(format!("{function}: {message}"))
}

fn check_degrees(function: &str, bounds: &Bounds<2>) -> Result<()> {
    for (x, y) in [(bounds.min[0], bounds.min[1]), (bounds.max[0], bounds.max[1])] {
        if x.abs() > 360.0 || y.abs() > 90.0 {
            return Err(DataFusionError::Execution(format!(
                "{function}: ({x}, {y}) is not longitude and latitude in degrees"
            )));
        }
    }
    Ok(())
}

/// The box that everything within a distance meets; the distance in the unit of the plane, or in metres on the
/// sphere, where the box may reach beyond ±180° (half the width of a circle: Snyder 1987, from eq. 5-3).
pub(super) fn reach(bounds: &Bounds<2>, limit: f64, sphere: bool) -> Bounds<2> {
    if limit.is_nan() || limit == f64::INFINITY {
        return Bounds { min: [f64::NEG_INFINITY; 2], max: [f64::INFINITY; 2] };
    }
    if !sphere {
        return bounds.with_margin(limit, limit);
    }
    let angle = limit.max(0.0) / EARTH_MEAN_RADIUS_M * (1.0 + 1e-9);
    let dy = angle.to_degrees();
    let farthest = bounds.min[1].abs().max(bounds.max[1].abs());
    let dx = if farthest + dy >= 90.0 {
        // Over the pole: every longitude.
        360.0
    } else {
        (angle.sin() / farthest.to_radians().cos()).min(1.0).asin().to_degrees()
    };
    bounds.with_margin(dx, dy)
}
