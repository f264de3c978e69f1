//! Geometries held against many others: read once from WKB, points as two numbers, polygons with an index of their edges.

pub(crate) mod area;
pub(crate) mod bounds;
pub(crate) mod scan;
pub(crate) mod shape;
