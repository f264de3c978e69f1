//! Shortest ways on the road graph: what `route`, `isochrone` and `accessibility` share.

pub(crate) mod asked;
pub(crate) mod hierarchy;
pub(crate) mod labels;
mod order;
mod perfect;
pub(crate) mod roads;
pub(crate) mod sweep;
mod tree;

#[cfg(test)]
mod tests;
