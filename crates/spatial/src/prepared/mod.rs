//! Geometries held against many others: read once from WKB, points as two numbers, polygons with an index of their edges.

pub(crate) mod area;
pub(crate) mod bounds;
mod raster;
pub(crate) mod scan;
pub(crate) mod shape;
