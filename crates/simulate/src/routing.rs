//! Shortest ways on the road graph: what `route`, `isochrone` and `accessibility` share.

pub(crate) mod hierarchy;
mod order;
mod perfect;
pub(crate) mod roads;
pub(crate) mod sweep;

#[cfg(test)]
mod tests;
