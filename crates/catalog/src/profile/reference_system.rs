//! The coordinate reference system, proposed from the ranges of coordinates.
//!
//! Ranges alone cannot prove a system; a proposal says what else the numbers could be. In China in particular, longitude and
//! latitude may be WGS 84, CGCS2000 (equal within centimetres) or GCJ-02 (shifted by up to some 500 m): numbers do not tell.

use serde::Serialize;

/// A proposed reference system.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CrsProposal {
    /// The columns: a geometry, or the two with the coordinates (first x or longitude, then y or latitude).
    pub columns: Vec<String>,
    /// The system, for example `OGC:CRS84`; `None` when the numbers leave it open.
    pub crs: Option<String>,
    /// What speaks for it, and what else it could be.
    pub because: String,
}

/// The box of coordinates: least and greatest x, least and greatest y.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) x: (f64, f64),
    pub(crate) y: (f64, f64),
}

/// The half of the Earth's circumference in web Mercator, in metres.
const MERCATOR_M: f64 = 20_037_508.342_789_244;

/// What the coordinates seem to be in, and why.
pub(crate) fn propose(extent: Extent) -> (Option<String>, String) {
    if let Some(found) = in_order(extent) {
        return found;
    }
    // Some write the northing or the latitude first.
    let turned = Extent { x: extent.y, y: extent.x };
    if let Some((Some(crs), because)) = in_order(turned)
        && crs != "EPSG:3857"
    {
        return (Some(crs), format!("{because}, with the axes in the other order: exchange x and y"));
    }
    let within = |(low, high): (f64, f64)| low >= -MERCATOR_M && high <= MERCATOR_M;
    if within(extent.x) && within(extent.y) {
        return (
            Some("EPSG:3857".to_owned()),
            "metres within web Mercator's square; a national grid is possible, too".to_owned(),
        );
    }
    (None, "the coordinates are in no system that is known here".to_owned())
}

fn in_order(extent: Extent) -> Option<(Option<String>, String)> {
    let within = |x: (f64, f64), y: (f64, f64)| {
        extent.x.0 >= x.0 && extent.x.1 <= x.1 && extent.y.0 >= y.0 && extent.y.1 <= y.1
    };
    let found = |crs: &str, because: &str| Some((Some(crs.to_owned()), because.to_owned()));
    if within((-180.0, 180.0), (-90.0, 90.0)) {
        if extent.x.1 - extent.x.0 <= 1.0
            && extent.x.0 >= 0.0
            && extent.x.1 <= 1.0
            && extent.y.1 <= 1.0
            && extent.y.0 >= 0.0
        {
            return Some((
                None,
                "all coordinates lie between 0 and 1: they may be parts of a picture".to_owned(),
            ));
        }
        if within((73.0, 136.0), (17.0, 54.0)) {
            return found(
                "OGC:CRS84",
                "longitude and latitude in China: WGS 84, CGCS2000 (EPSG:4490, equal within centimetres) or GCJ-02 (shifted by up \
                 to 500 m): the numbers alone do not tell",
            );
        }
        return found("OGC:CRS84", "longitude and latitude in degrees");
    }
    if within((50_000.0, 760_000.0), (6_570_000.0, 7_800_000.0)) {
        return found(
            "EPSG:3067",
            "eastings and northings of Finland (ETRS-TM35FIN); UTM zone 35 north (EPSG:32635) differs by less than a metre",
        );
    }
    let finnish_zone = (extent.x.0 / 1e6).floor();
    if (19.0..=31.0).contains(&finnish_zone)
        && within(
            (finnish_zone * 1e6 + 300_000.0, finnish_zone * 1e6 + 700_000.0),
            (6_570_000.0, 7_800_000.0),
        )
    {
        // ETRS-GK19FIN is EPSG:3873, one more for each zone up to ETRS-GK31FIN.
        let code = 3873 + (finnish_zone as i32 - 19);
        return Some((
            Some(format!("EPSG:{code}")),
            format!(
                "eastings with the zone {finnish_zone} in front and northings of Finland (ETRS-GK{finnish_zone}FIN)"
            ),
        ));
    }
    let zone = (extent.x.0 / 1e6).floor();
    let chinese_northing = (1_800_000.0, 6_000_000.0);
    if within((zone * 1e6 + 150_000.0, zone * 1e6 + 850_000.0), chinese_northing) {
        if (25.0..=45.0).contains(&zone) {
            let code = 4513 + (zone as i32 - 25);
            return Some((
                Some(format!("EPSG:{code}")),
                format!(
                    "eastings with the 3-degree zone {zone} in front: CGCS2000; Xian 1980 and Beijing 1954 look the same"
                ),
            ));
        }
        if (13.0..=23.0).contains(&zone) {
            let code = 4491 + (zone as i32 - 13);
            return Some((
                Some(format!("EPSG:{code}")),
                format!(
                    "eastings with the 6-degree zone {zone} in front: CGCS2000; Xian 1980 and Beijing 1954 look the same"
                ),
            ));
        }
    }
    if within((160_000.0, 840_000.0), (0.0, 9_400_000.0)) && extent.y.0 > 100_000.0 {
        return Some((None, "eastings around 500,000 m: a transverse Mercator zone (UTM, or CGCS2000 without its zone number); which zone the numbers do not tell".to_owned()));
    }
    None
}

/// Pairs of column names that hold x and y.
const PAIRS: &[(&str, &str)] = &[
    ("lon", "lat"),
    ("lng", "lat"),
    ("long", "lat"),
    ("longitude", "latitude"),
    ("x", "y"),
    ("easting", "northing"),
    ("east", "north"),
    ("e", "n"),
    ("coord_x", "coord_y"),
    ("pos_x", "pos_y"),
    ("经度", "纬度"),
];

/// The columns that hold coordinates, by their names: x or longitude, y or latitude.
pub(crate) fn coordinate_columns(columns: &[&str]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (x, first) in columns.iter().enumerate() {
        let lower = first.to_lowercase();
        for (left, right) in PAIRS {
            // `start_lon` belongs to `start_lat`.
            let Some(prefix) = lower.strip_suffix(left) else { continue };
            if !(prefix.is_empty() || prefix.ends_with(['_', '.', ' '])) {
                continue;
            }
            let partner = format!("{prefix}{right}");
            if let Some(y) = columns.iter().position(|name| name.to_lowercase() == partner) {
                found.push((x, y));
                break;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_tell_the_system() {
        for (x, y, expected, word) in [
            ((24.5, 25.2), (60.1, 60.4), Some("OGC:CRS84"), "longitude"),
            ((60.1, 60.4), (24.5, 25.2), Some("OGC:CRS84"), "longitude"),
            ((116.2, 116.6), (39.8, 40.1), Some("OGC:CRS84"), "GCJ-02"),
            ((39.8, 40.1), (116.2, 116.6), Some("OGC:CRS84"), "other order"),
            ((380_000.0, 392_000.0), (6_670_000.0, 6_685_000.0), Some("EPSG:3067"), "TM35FIN"),
            ((25_490_000.0, 25_510_000.0), (6_670_000.0, 6_685_000.0), Some("EPSG:3879"), "GK25"),
            ((2_770_000.0, 2_790_000.0), (8_430_000.0, 8_450_000.0), Some("EPSG:3857"), "web Mercator"),
            ((39_440_000.0, 39_460_000.0), (4_410_000.0, 4_430_000.0), Some("EPSG:4527"), "3-degree zone 39"),
            ((4_410_000.0, 4_430_000.0), (39_440_000.0, 39_460_000.0), Some("EPSG:4527"), "other order"),
            ((20_440_000.0, 20_460_000.0), (4_410_000.0, 4_430_000.0), Some("EPSG:4498"), "6-degree zone 20"),
            ((440_000.0, 460_000.0), (4_410_000.0, 4_430_000.0), None, "which zone"),
            ((0.1, 0.9), (0.0, 1.0), None, "picture"),
            ((-1e9, 1e9), (0.0, 1.0), None, "no system"),
        ] {
            let (crs, because) = propose(Extent { x, y });
            assert_eq!(crs.as_deref(), expected, "{x:?} {y:?}: {because}");
            assert!(because.contains(word), "{because}");
        }
    }

    #[test]
    fn columns_pair_by_name() {
        assert_eq!(coordinate_columns(&["id", "lon", "lat"]), [(1, 2)]);
        assert_eq!(coordinate_columns(&["start_lat", "start_lng", "end_lat", "end_lng"]), [(1, 0), (3, 2)]);
        assert!(coordinate_columns(&["salon", "flat", "index", "y"]).is_empty());
    }
}
