//! Precise home locations: a person's or device's repeated night position.
//!
//! A row at night (22 to 6 o'clock, solar time by its longitude) lies in a cell of a thousandth of a degree, some 100 m. A
//! thing has a home when on at least three nights the same cell holds most of its rows of the night. Where many things share a
//! cell (a depot, a car park) it is nobody's home.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The least number of nights in the same cell.
const NIGHTS: usize = 3;
/// The part of the nights that the cell must hold.
const PART_OF_NIGHTS: f64 = 0.6;
/// How many things may share a cell that is a home.
const HOUSEHOLD: usize = 3;
/// The part of all things with nights that must have a home.
const PART_OF_THINGS: f64 = 0.3;

const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;

type Cell = (i64, i64);

/// Gathers positions by thing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Homes {
    /// For each thing and night the cells with how many rows.
    nights: HashMap<u64, BTreeMap<i64, BTreeMap<Cell, u32>>>,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct HomesFound {
    /// Things seen on enough nights.
    pub(crate) things: usize,
    /// Those of them with a home.
    pub(crate) homes: usize,
}

impl Homes {
    /// Takes a position: the thing's hash, microseconds since the epoch, degrees.
    pub(crate) fn add(&mut self, thing: u64, time_us: i64, longitude: f64, latitude: f64) {
        if !(longitude.abs() <= 180.0 && latitude.abs() <= 90.0) || (longitude == 0.0 && latitude == 0.0) {
            return;
        }
        let solar_us = time_us + (longitude / 15.0 * HOUR_US as f64) as i64;
        // The night belongs to the day on which it began.
        let hour = solar_us.rem_euclid(DAY_US) / HOUR_US;
        if (6..22).contains(&hour) {
            return;
        }
        let night = (solar_us - 12 * HOUR_US).div_euclid(DAY_US);
        let cell = ((longitude * 1000.0).round() as i64, (latitude * 1000.0).round() as i64);
        *self.nights.entry(thing).or_default().entry(night).or_default().entry(cell).or_default() += 1;
    }

    /// The homes, when enough things have one.
    pub(crate) fn found(&self) -> Option<HomesFound> {
        let mut things = 0;
        let mut by_cell: BTreeMap<Cell, usize> = BTreeMap::new();
        for nights in self.nights.values().filter(|nights| nights.len() >= NIGHTS) {
            things += 1;
            let mut counts: BTreeMap<Cell, usize> = BTreeMap::new();
            for cells in nights.values() {
                // Noise puts a position near an edge into the cell beside it: the neighbours count as the same place.
                let held: BTreeSet<Cell> = cells.keys().copied().collect();
                for cell in &held {
                    *counts.entry(*cell).or_default() += 1;
                }
            }
            let most = counts.iter().max_by_key(|(_, nights)| **nights);
            if let Some((cell, held)) = most
                && *held >= NIGHTS
                && *held as f64 >= PART_OF_NIGHTS * nights.len() as f64
            {
                *by_cell.entry(*cell).or_default() += 1;
            }
        }
        let homes: usize = by_cell.values().filter(|things| **things <= HOUSEHOLD).sum();
        (homes > 0 && homes as f64 >= PART_OF_THINGS * things as f64).then_some(HomesFound { things, homes })
    }
}

/// Whether a column's name says that it tells one person or device from another.
pub(crate) fn names_a_thing(column: &str) -> bool {
    let lower = column.to_lowercase();
    let parts: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric()).collect();
    [
        "id",
        "device",
        "user",
        "person",
        "vehicle",
        "phone",
        "imei",
        "msisdn",
        "plate",
        "taxi",
        "driver",
        "rider",
        "customer",
        "mac",
        "uid",
        "subscriber",
        "bike",
        "scooter",
    ]
    .iter()
    .any(|word| parts.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDNIGHT: i64 = 1_700_000_000_000_000 / DAY_US * DAY_US;

    /// Things with a position at one o'clock in the morning of Helsinki on five nights.
    fn nights(place: impl Fn(u64, i64) -> (f64, f64)) -> Option<HomesFound> {
        let mut homes = Homes::default();
        for thing in 1..=20 {
            for night in 0..5 {
                let (longitude, latitude) = place(thing, night);
                homes.add(thing, MIDNIGHT + night * DAY_US - HOUR_US, longitude, latitude);
                // By day everybody is in the same place.
                homes.add(thing, MIDNIGHT + night * DAY_US + 10 * HOUR_US, 24.94, 60.17);
            }
        }
        homes.found()
    }

    #[test]
    fn who_sleeps_in_the_same_place_is_at_home() {
        let home = |thing: u64, _| (24.9 + thing as f64 * 0.01, 60.2);
        assert_eq!(nights(home), Some(HomesFound { things: 20, homes: 20 }));
    }

    #[test]
    fn a_depot_and_those_who_move_are_no_homes() {
        assert_eq!(nights(|_, _| (24.9, 60.2)), None, "a depot");
        assert_eq!(
            nights(|thing, night| (24.9 + (thing as f64 + night as f64 * 7.0) * 0.01, 60.2)),
            None,
            "night buses"
        );
        let mut by_day = Homes::default();
        (0..5).for_each(|day| by_day.add(1, MIDNIGHT + day * DAY_US + 10 * HOUR_US, 24.9, 60.2));
        assert_eq!(by_day.found(), None, "a shop");
    }
}
