//! The plane cut into nodes, edges and faces by one or two geometries, and what can be read off it: the nine
//! intersections, overlay, validity, repair, polygons of lines.
//!
//! Everything starts with [`noding`] (segments meet at common end points only), then [`arrangement`] (which face lies
//! on which side, and in which geometry each face, edge and node lies). Orientation is decided by an exact predicate
//! (Shewchuk 1997); coordinates of crossings are rounded to the nearest numbers once, and what the rounding makes
//! cross is noded again.

pub(crate) mod arrangement;
pub(crate) mod noding;
pub(crate) mod overlay;
pub(crate) mod polygonize;
pub(crate) mod relate;
pub(crate) mod simple;
pub(crate) mod valid;
