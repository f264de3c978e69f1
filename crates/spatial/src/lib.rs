//! Space and time for DataFusion: geometry, H3 and time functions, nearest-neighbour search.
//!
//! Geometry travels as WKB in `Binary` columns whose field says `geoarrow.wkb` and names a coordinate reference
//! system; [`register`] adds every function to a session. Rules that hold for all of them:
//!
//! - null in, null out; a value that an empty geometry does not have (the `st_x` of `POINT EMPTY`) is null;
//! - damaged WKB, a coordinate that is not finite, or a value out of range is an error that names the function;
//! - lengths, areas and distances of planar functions are in the units of the reference system (degrees in
//!   `OGC:CRS84`); functions with `sphere` or `spheroid` in their name take longitude and latitude in degrees, give
//!   metres, and refuse geometries of any other reference system;
//! - two geometries of different reference systems never meet: that is an error when the query is planned;
//! - set operations, predicates and measures are planar; functions that take geometry apart, put it together or write
//!   it down keep third coordinates and measures;
//! - a panic within a geometry library becomes an error that names the function, in one place (`definition::guarded`).

mod aggregate;
mod call;
#[cfg(test)]
mod conformance;
mod definition;
mod functions;
#[doc(hidden)]
pub mod fuzzing;
mod geometry;
mod join;
mod metric;
mod nearest;
mod prepared;
mod reference;
mod register;
mod session;
mod shape;
#[cfg(test)]
mod testing;
pub mod time;
mod topology;
pub mod wire;

pub use geo::Geometry;
pub use geometry::{decode, encode, from_geojson, to_geojson, to_wkt};
pub use metric::EARTH_MEAN_RADIUS_M;
pub use nearest::{Nearest, NearestIndex};
pub use reference::sql_reference;
pub use register::{aggregates, functions, register};
pub use session::configure;
