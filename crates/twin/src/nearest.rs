//! The nearest instance of another twin, as a function in a query plan.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Float64Builder, StructArray, UInt32Builder};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Fields, Float64Type};
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use geo::Centroid;
use twinlake_spatial::{Nearest, NearestIndex, decode};

use crate::view::through;

/// Segments this much farther than the nearest count as equally near: the heading decides between them. The two
/// directions of a street lie on the same line, so their distances differ by rounding alone.
const EQUALLY_NEAR_M: f64 = 0.5;

/// The field of the result with the other instance's key.
pub(crate) const KEY: &str = "key";
/// The field of the result with the distance in metres.
pub(crate) const DISTANCE_M: &str = "distance_m";

/// The other twin's geometries, indexed, and their keys, row by row.
pub(crate) struct Targets {
    index: NearestIndex,
    keys: ArrayRef,
}

impl Targets {
    pub(crate) fn new(geometries: &BinaryArray, keys: ArrayRef) -> twinlake_contracts::Result<Self> {
        Ok(Self { index: NearestIndex::build(geometries)?, keys })
    }

    /// The nearest target; of equally near ones the one whose direction is closest to `heading_deg`.
    fn find(
        &self,
        longitude: f64,
        latitude: f64,
        within_m: f64,
        heading_deg: Option<f64>,
    ) -> Option<Nearest> {
        let nearest = self.index.nearest(longitude, latitude, within_m)?;
        let Some(heading) = heading_deg.filter(|heading| heading.is_finite()) else { return Some(nearest) };
        let turn = |found: &Nearest| {
            found.bearing_deg.map_or(180.0, |bearing| {
                let turn = (bearing - heading).rem_euclid(360.0);
                turn.min(360.0 - turn)
            })
        };
        self.index
            .within(longitude, latitude, (nearest.distance_m + EQUALLY_NEAR_M).min(within_m))
            .into_iter()
            .min_by(|a, b| {
                turn(a)
                    .total_cmp(&turn(b))
                    .then(a.distance_m.total_cmp(&b.distance_m))
                    .then(a.row.cmp(&b.row))
            })
            .or(Some(nearest))
    }
}

/// `nearest(geom, heading)`: a struct of the key and the distance of the nearest target; null when there is none
/// within the bound or the position is null. Of a geometry that is not a point, the centroid is taken.
pub(crate) struct NearestFunction {
    name: String,
    targets: Arc<Targets>,
    within_m: f64,
    signature: Signature,
}

impl NearestFunction {
    pub(crate) fn new(relation: &str, targets: Arc<Targets>, within_m: f64) -> Self {
        let signature = Signature::new(
            TypeSignature::Exact(vec![DataType::Binary, DataType::Float64]),
            Volatility::Immutable,
        );
        Self { name: format!("nearest_{relation}"), targets, within_m, signature }
    }

    fn fields(&self) -> Fields {
        Fields::from(vec![
            Field::new(KEY, self.targets.keys.data_type().clone(), true),
            Field::new(DISTANCE_M, DataType::Float64, true),
        ])
    }
}

impl std::fmt::Debug for NearestFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NearestFunction").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PartialEq for NearestFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && Arc::ptr_eq(&self.targets, &other.targets)
            && self.within_m.to_bits() == other.within_m.to_bits()
    }
}

impl Eq for NearestFunction {}

impl Hash for NearestFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        Arc::as_ptr(&self.targets).hash(state);
    }
}

impl ScalarUDFImpl for NearestFunction {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(self.fields()))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&arguments.args)?;
        let [geometries, headings] = columns.as_slice() else {
            return exec_err!("{} takes a geometry and a heading", self.name);
        };
        let (geometries, headings) = (geometries.as_binary::<i32>(), headings.as_primitive::<Float64Type>());
        let mut rows = UInt32Builder::with_capacity(geometries.len());
        let mut distances = Float64Builder::with_capacity(geometries.len());
        for row in 0..geometries.len() {
            let position = if geometries.is_valid(row) {
                decode(geometries.value(row)).map_err(through)?.centroid()
            } else {
                None
            };
            let heading = headings.is_valid(row).then(|| headings.value(row));
            let found = position.and_then(|at| self.targets.find(at.x(), at.y(), self.within_m, heading));
            rows.append_option(found.map(|found| found.row as u32));
            distances.append_option(found.map(|found| found.distance_m));
        }
        let keys = take(&self.targets.keys, &rows.finish(), None)?;
        let result = StructArray::try_new(self.fields(), vec![keys, Arc::new(distances.finish())], None)?;
        Ok(ColumnarValue::Array(Arc::new(result)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;
    use geo::line_string;
    use twinlake_spatial::encode;

    #[test]
    fn of_the_two_directions_of_a_street_the_heading_decides() {
        let north = encode(&line_string![(x: 24.0, y: 60.0), (x: 24.0, y: 60.01)].into());
        let south = encode(&line_string![(x: 24.0, y: 60.01), (x: 24.0, y: 60.0)].into());
        let geometries: BinaryArray = [Some(north), Some(south)].into_iter().collect();
        let targets = Targets::new(&geometries, Arc::new(Int64Array::from(vec![1, 2]))).unwrap();
        let row = |heading| targets.find(24.0001, 60.005, 30.0, heading).map(|found| found.row);
        assert_eq!(row(Some(350.0)), Some(0));
        assert_eq!(row(Some(170.0)), Some(1));
        assert_eq!(row(None), Some(0));
        assert_eq!(row(Some(f64::NAN)), Some(0));
        assert_eq!(targets.find(24.01, 60.005, 30.0, None), None);
    }
}
