//! `st_transform`: coordinates from one reference system to another.
//!
//! EPSG codes are looked up in `crs-definitions` and computed by `proj4rs` (a port of PROJ: Snyder 1987 for the
//! projections, Helmert transformations between datums). Coordinates are x, y: longitude before latitude, easting
//! before northing, whatever the order of axes that EPSG writes.
//!
//! `GCJ-02` and `BD-09` are the shifted longitudes and latitudes of maps of China. The shifts are the published
//! approximations that map services use; outside of the box of China GCJ-02 is WGS 84. Both inverses are iterated until
//! the forward shift gives the coordinate back to 10^-12 degrees.

use arrow::array::{ArrayRef, BinaryArray};
use arrow::datatypes::{DataType, Field};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::ReturnFieldArgs;
use proj4rs::proj::Proj;
use twinlake_contracts::{CRS84, crs_of, geometry_field};

use crate::call::Call;
use crate::definition::{CrsRule, Definition, Kind, Output, is_lon_lat};

/// The metadata key under which the plan keeps the reference system that coordinates come from.
const FROM: &str = "twinlake:from_crs";

pub(crate) static TRANSFORM: Definition = Definition {
    name: "st_transform",
    aliases: &[],
    summary: "The geometry in the reference system given as a constant, an EPSG number or a name such as 'EPSG:3857', 'OGC:CRS84', 'GCJ-02' or 'BD-09'; from the one of the geometry or one given before it",
    overloads: &[
        &[("geometry", Kind::Geometry), ("to", Kind::Crs)],
        &[("geometry", Kind::Geometry), ("from", Kind::Crs), ("to", Kind::Crs)],
    ],
    crs: CrsRule::Same,
    output: Output::Field(field),
    body,
};

/// The name of a reference system from a constant.
fn named(args: &ReturnFieldArgs<'_>, index: usize) -> Result<String> {
    let value = args.scalar_arguments.get(index).copied().flatten();
    let name = match value {
        Some(ScalarValue::Int64(Some(number))) => Some(format!("EPSG:{number}")),
        Some(ScalarValue::Int32(Some(number))) => Some(format!("EPSG:{number}")),
        Some(text) => text.try_as_str().flatten().map(str::to_owned),
        None => None,
    };
    match (name, value) {
        (Some(name), _) => match System::new(&name) {
            Ok(_) if is_lon_lat(&name) => Ok(CRS84.to_owned()),
            Ok(_) => Ok(name),
            Err(message) => plan_err!("st_transform: {message}"),
        },
        (None, Some(null)) if null.is_null() => Ok(CRS84.to_owned()),
        _ => plan_err!("st_transform needs a constant reference system, for example 3857 or 'EPSG:3857'"),
    }
}

fn field(args: &ReturnFieldArgs<'_>) -> Result<Field> {
    let last = args.arg_fields.len() - 1;
    let from = if last > 1 {
        named(args, 1)?
    } else {
        let from =
            args.arg_fields.first().and_then(|field| crs_of(field)).unwrap_or_else(|| CRS84.to_owned());
        if let Err(message) = System::new(&from) {
            return plan_err!("st_transform: {message}");
        }
        from
    };
    let to = named(args, last)?;
    let field = geometry_field("st_transform", &to, true);
    let mut metadata = field.metadata().clone();
    metadata.insert(FROM.to_owned(), from);
    Ok(field.with_metadata(metadata))
}

/// The type of a reference system argument: as it is, so that the plan still sees the constant.
pub(crate) fn accept(given: &DataType) -> Option<DataType> {
    (given.is_integer()
        || given.is_null()
        || matches!(given, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8))
    .then(|| given.clone())
}

fn body(call: &Call<'_>) -> Result<ArrayRef> {
    let bytes = call.bytes(0)?;
    let from_name = call.result.metadata().get(FROM).cloned().unwrap_or_else(|| CRS84.to_owned());
    let to_name = crs_of(call.result).unwrap_or_else(|| CRS84.to_owned());
    let (from, to) = match (System::new(&from_name), System::new(&to_name)) {
        (Ok(from), Ok(to)) => (from, to),
        (Err(message), _) | (_, Err(message)) => return call.error(message),
    };
    call.rows::<BinaryArray, _>(|row| {
        let Some(bytes) = bytes.get(row) else { return Ok(None) };
        let shape = call.shape(bytes)?;
        let mut failed = None;
        let moved = shape.map(|[x, y, z, m]| {
            let Some([x, y, z]) = from.to(&to, [x, y, z]) else {
                failed = failed.or(Some((x, y)));
                return [x, y, z, m];
            };
            [x, y, z, m]
        });
        match failed {
            Some((x, y)) => call.error(format!("({x}, {y}) of {from_name} has no place in {to_name}")),
            None => Ok(Some(moved.encode())),
        }
    })
}

/// A reference system ready to compute.
pub(crate) enum System {
    Projected(Box<Proj>),
    Gcj02,
    Bd09,
}

impl System {
    /// `Err` says why a name cannot be used.
    pub(crate) fn new(name: &str) -> std::result::Result<Self, String> {
        match name.to_ascii_uppercase().as_str() {
            "GCJ-02" | "GCJ02" => return Ok(Self::Gcj02),
            "BD-09" | "BD09" | "BD-09LL" => return Ok(Self::Bd09),
            _ => {}
        }
        let code = match name.split_once(':') {
            Some((authority, "CRS84")) if authority.eq_ignore_ascii_case("OGC") => Some(4326),
            Some((authority, code)) if authority.eq_ignore_ascii_case("EPSG") => code.parse::<u16>().ok(),
            _ => None,
        };
        let definition = code.and_then(crs_definitions::from_code).map(|known| known.proj4);
        let Some(definition) = definition.filter(|definition| !definition.is_empty()) else {
            return Err(format!("the reference system '{name}' is not known"));
        };
        match Proj::from_proj_string(definition) {
            Ok(projection) => Ok(Self::Projected(Box::new(projection))),
            Err(error) => Err(format!("the reference system '{name}' cannot be computed: {error}")),
        }
    }

    /// One position in another system; `None` where there is none.
    pub(crate) fn to(&self, to: &Self, [x, y, z]: [f64; 3]) -> Option<[f64; 3]> {
        let wgs84 = |from: &Self| match from {
            Self::Gcj02 => Some(gcj02_inverse([x, y])),
            Self::Bd09 => Some(gcj02_inverse(bd09_inverse([x, y]))),
            Self::Projected(_) => None,
        };
        let moved = match (self, to, wgs84(self)) {
            (Self::Gcj02, Self::Gcj02, _) | (Self::Bd09, Self::Bd09, _) => [x, y, z],
            (Self::Gcj02, Self::Bd09, _) => with_z(bd09([x, y]), z),
            (Self::Bd09, Self::Gcj02, _) => with_z(bd09_inverse([x, y]), z),
            (Self::Projected(from), Self::Projected(to), _) => project(from, to, [x, y, z])?,
            (Self::Projected(from), shifted, _) => {
                let [x, y, z] = project(from, &degrees()?, [x, y, z])?;
                let shift = gcj02([x, y]);
                with_z(if matches!(shifted, Self::Bd09) { bd09(shift) } else { shift }, z)
            }
            (_, Self::Projected(to), Some([x, y])) => project(&degrees()?, to, [x, y, z])?,
            _ => return None,
        };
        moved.iter().all(|value| value.is_finite()).then_some(moved)
    }
}

fn with_z([x, y]: [f64; 2], z: f64) -> [f64; 3] {
    [x, y, z]
}

/// Longitude and latitude on WGS 84.
fn degrees() -> Option<Proj> {
    Proj::from_proj_string("+proj=longlat +datum=WGS84 +no_defs").ok()
}

fn project(from: &Proj, to: &Proj, [x, y, z]: [f64; 3]) -> Option<[f64; 3]> {
    let mut point = if from.is_latlong() {
        if y.abs() > 90.0 + 1e-9 {
            return None;
        }
        (x.to_radians(), y.to_radians(), z)
    } else {
        (x, y, z)
    };
    proj4rs::transform::transform(from, to, &mut point).ok()?;
    let (x, y, z) = point;
    Some(if to.is_latlong() { [x.to_degrees(), y.to_degrees(), z] } else { [x, y, z] })
}

/// The half axis and squared eccentricity that the shift is written with (Krassovsky 1940).
const A: f64 = 6_378_245.0;
const EE: f64 = 0.006_693_421_622_965_943;
const PI: f64 = std::f64::consts::PI;

/// The box outside of which there is no shift.
fn in_china([lon, lat]: [f64; 2]) -> bool {
    (72.004..=137.8347).contains(&lon) && (0.8293..=55.8271).contains(&lat)
}

/// WGS 84 to GCJ-02.
pub(crate) fn gcj02(place: [f64; 2]) -> [f64; 2] {
    if in_china(place) { shifted(place) } else { place }
}

fn shifted([lon, lat]: [f64; 2]) -> [f64; 2] {
    let (x, y) = (lon - 105.0, lat - 35.0);
    let root = x.abs().sqrt();
    let waves = |v: f64, a: f64, b: f64, p: f64, q: f64| (a * (v * p).sin() + b * (v * q).sin()) * 2.0 / 3.0;
    let common = waves(x, 20.0, 20.0, 6.0 * PI, 2.0 * PI);
    let north = -100.0
        + 2.0 * x
        + 3.0 * y
        + 0.2 * y * y
        + 0.1 * x * y
        + 0.2 * root
        + common
        + waves(y, 20.0, 40.0, PI, PI / 3.0)
        + waves(y, 160.0, 320.0, PI / 12.0, PI / 30.0);
    let east = 300.0
        + x
        + 2.0 * y
        + 0.1 * x * x
        + 0.1 * x * y
        + 0.1 * root
        + common
        + waves(x, 20.0, 40.0, PI, PI / 3.0)
        + waves(x, 150.0, 300.0, PI / 12.0, PI / 30.0);
    // Metres to degrees on the ellipsoid: radii of curvature of the meridian and of the prime vertical.
    let phi = lat.to_radians();
    let w = 1.0 - EE * phi.sin() * phi.sin();
    let meridian = A * (1.0 - EE) / (w * w.sqrt());
    let parallel = A / w.sqrt() * phi.cos();
    [lon + (east / parallel).to_degrees(), lat + (north / meridian).to_degrees()]
}

/// GCJ-02 to WGS 84: the place whose shift is the one given.
pub(crate) fn gcj02_inverse(place: [f64; 2]) -> [f64; 2] {
    let found = inverse(place, shifted);
    // Where the place found has no shift, the one given has none.
    if in_china(found) { found } else { place }
}

/// GCJ-02 to BD-09.
pub(crate) fn bd09([x, y]: [f64; 2]) -> [f64; 2] {
    const TURNS: f64 = PI * 3000.0 / 180.0;
    let radius = x.hypot(y) + 0.000_02 * (y * TURNS).sin();
    let angle = y.atan2(x) + 0.000_003 * (x * TURNS).cos();
    [radius * angle.cos() + 0.0065, radius * angle.sin() + 0.006]
}

/// BD-09 to GCJ-02.
pub(crate) fn bd09_inverse(place: [f64; 2]) -> [f64; 2] {
    inverse(place, bd09)
}

/// Fixed-point iteration: the shifts change far more slowly than the place.
fn inverse(place: [f64; 2], forward: fn([f64; 2]) -> [f64; 2]) -> [f64; 2] {
    let mut guess = place;
    for _ in 0..50 {
        let there = forward(guess);
        let miss = [place[0] - there[0], place[1] - there[1]];
        guess = [guess[0] + miss[0], guess[1] + miss[1]];
        if miss[0].abs() < 1e-13 && miss[1].abs() < 1e-13 {
            break;
        }
    }
    guess
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    #[test]
    fn transforms_between_systems() {
        check(&[
            (
                "st_astext(st_snaptogrid(st_transform(st_point(24.9384, 60.1699), 3857), 0.01))",
                "POINT(2776129.99 8437661.78)",
            ),
            ("st_srid(st_transform(st_point(24.9384, 60.1699), 3067))", "3067"),
            ("st_srid(st_transform(st_setsrid(st_point(385600, 6671800), 3067), 4326))", "4326"),
            ("st_astext(st_transform(st_geomfromtext('POINT EMPTY'), 3857))", "POINT EMPTY"),
            ("st_transform(NULL, 3857)", "NULL"),
            ("st_astext(st_transform(st_point(1, 2), 4326, 'OGC:CRS84'))", "POINT(1 2)"),
        ]);
        fails("st_transform(st_point(1, 2), 1)", "the reference system 'EPSG:1' is not known");
        fails("st_transform(st_point(1, 2), 'Mars')", "'Mars' is not known");
        fails("st_transform(st_setcrs(st_point(1, 2), 'IAU:30100'), 3857)", "'IAU:30100' is not known");
        fails("st_transform(st_point(0, 100), 3857)", "has no place in EPSG:3857");
    }

    #[test]
    fn knows_the_zones_of_china() {
        for code in 4490..=4554 {
            assert!(System::new(&format!("EPSG:{code}")).is_ok(), "{code}");
        }
        // The central meridian of each zone has the zone's false easting.
        check(&[
            ("st_x(st_transform(st_point(117, 40), 4548))", "500000.0"),
            ("st_x(st_transform(st_point(117, 40), 4498))", "20500000.0"),
            ("round(st_y(st_transform(st_point(117, 40), 4548)))", "4429529.0"),
            (
                "st_astext(st_snaptogrid(st_transform(st_transform(st_point(116.4, 39.9), 4548), 4490), 0.0000001))",
                "POINT(116.4 39.9)",
            ),
        ]);
    }

    #[test]
    fn shifts_of_china_come_back_exactly() {
        // Tiananmen, as map services show it: some 500 m apart.
        let [lon, lat] = gcj02([116.391_305, 39.907_44]);
        assert!((lon - 116.397_547).abs() < 1e-5 && (lat - 39.908_842).abs() < 1e-5, "{lon} {lat}");
        for place in
            [[116.4, 39.9], [121.47, 31.23], [87.6, 43.8], [114.17, 22.32], [73.0, 1.0], [137.0, 55.0]]
        {
            for (there, back) in [
                (gcj02 as fn([f64; 2]) -> [f64; 2], gcj02_inverse as fn([f64; 2]) -> [f64; 2]),
                (bd09, bd09_inverse),
            ] {
                let again = back(there(place));
                assert!((again[0] - place[0]).hypot(again[1] - place[1]) < 1e-12, "{place:?} {again:?}");
            }
        }
        assert_eq!(gcj02([24.94, 60.17]), [24.94, 60.17]);
        check(&[
            (
                "st_astext(st_snaptogrid(st_transform(st_transform(st_point(116.4, 39.9), 'BD-09'), 4326), 0.000000001))",
                "POINT(116.4 39.9)",
            ),
            ("st_srid(st_transform(st_point(116.4, 39.9), 'GCJ-02'))", "0"),
        ]);
        fails(
            "st_distance(st_transform(st_point(116.4, 39.9), 'GCJ-02'), st_point(1, 1))",
            "different reference systems",
        );
    }
}
