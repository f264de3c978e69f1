//! Journeys by public transport: timetables, walking, and the search that `route` and `isochrone` share.

pub(crate) mod journeys;
mod raptor;
mod timetable;

#[cfg(test)]
mod tests;
