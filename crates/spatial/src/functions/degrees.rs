//! The guard of every function that takes degrees and gives metres.

use datafusion::common::Result;
use geo::Geometry;
use geo::coords_iter::CoordsIter;

use crate::call::Call;

/// An error when a coordinate cannot be longitude and latitude in degrees: metres were given.
pub(crate) fn check_degrees(call: &Call<'_>, geometry: &Geometry) -> Result<()> {
    match geometry.coords_iter().find(|coord| coord.x.abs() > 360.0 || coord.y.abs() > 90.0) {
        Some(bad) => call.error(format!("({}, {}) is not longitude and latitude in degrees", bad.x, bad.y)),
        None => Ok(()),
    }
}
