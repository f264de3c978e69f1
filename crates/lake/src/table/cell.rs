//! The H3 cell beside a geometry: what rows are clustered and pruned by.

use arrow::array::{Array, AsArray, BinaryArray, Int64Array};
use arrow::datatypes::{DataType, Field};
use h3o::{LatLng, Resolution};
use twinlake_contracts::{CRS84, crs_of, is_geometry};

/// The column with the H3 cell of the row's geometry: resolution 9 (about 200 m), as Int64 because Delta has no
/// unsigned type. H3 indexes have their highest bit clear, so the number is the same.
pub const H3_COLUMN: &str = "_h3";
const RESOLUTION: Resolution = Resolution::Nine;
/// Geometry collections within collections deeper than this are taken for damage.
const DEPTH_LIMIT: u32 = 32;

/// The field of the cell column.
pub(super) fn cell_field() -> Field {
    Field::new(H3_COLUMN, DataType::Int64, true)
}

/// Whether a geometry column is in longitude and latitude, so that cells can be computed.
pub(super) fn has_cells(field: &Field) -> bool {
    is_geometry(field) && crs_of(field).is_some_and(|crs| crs == CRS84 || crs == "EPSG:4326")
}

/// The cell of the centre of each geometry's bounding box; null for null, empty or damaged geometry, and outside
/// the range of longitude and latitude.
pub(super) fn cells(geometries: &dyn Array) -> Int64Array {
    let Some(geometries) = geometries.as_binary_opt::<i32>() else {
        return Int64Array::new_null(geometries.len());
    };
    let cell = |wkb: Option<&[u8]>| {
        let (longitude, latitude) = centre(wkb?)?;
        let valid = (-180.0..=180.0).contains(&longitude) && (-90.0..=90.0).contains(&latitude);
        let place = valid.then(|| LatLng::new(latitude, longitude).ok())??;
        Some(u64::from(place.to_cell(RESOLUTION)) as i64)
    };
    BinaryArray::iter(geometries).map(cell).collect()
}

/// The centre of the bounding box of a WKB geometry.
fn centre(wkb: &[u8]) -> Option<(f64, f64)> {
    let bounds = bounds(wkb)?;
    let middle = |axis: usize| f64::midpoint(bounds.low[axis], bounds.high[axis]);
    (!bounds.is_empty()).then(|| (middle(0), middle(1)))
}

/// The bounding box of a WKB geometry (ISO and EWKB, any dimension); `None` when it is damaged.
pub(super) fn bounds(wkb: &[u8]) -> Option<Bounds> {
    let mut bounds = Bounds { low: [f64::INFINITY; 2], high: [f64::NEG_INFINITY; 2] };
    let mut rest = wkb;
    geometry(&mut rest, &mut bounds, 0)?;
    Some(bounds)
}

/// A box: the least and the greatest of both axes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bounds {
    pub(super) low: [f64; 2],
    pub(super) high: [f64; 2],
}

impl Bounds {
    /// Whether there is no point in it: the box of an empty geometry.
    pub(super) fn is_empty(&self) -> bool {
        !(self.low[0] <= self.high[0] && self.low[1] <= self.high[1])
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (part, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*part)
}

fn integer(rest: &mut &[u8], little: bool) -> Option<u32> {
    let bytes = take::<4>(rest)?;
    Some(if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
}

fn point(rest: &mut &[u8], little: bool, dimensions: usize, bounds: &mut Bounds) -> Option<()> {
    for axis in 0..dimensions {
        let bytes = take::<8>(rest)?;
        let value = if little { f64::from_le_bytes(bytes) } else { f64::from_be_bytes(bytes) };
        // An empty point is written as NaN.
        if axis < 2 && !value.is_nan() {
            bounds.low[axis] = bounds.low[axis].min(value);
            bounds.high[axis] = bounds.high[axis].max(value);
        }
    }
    Some(())
}

fn points(rest: &mut &[u8], little: bool, dimensions: usize, bounds: &mut Bounds) -> Option<()> {
    let count = integer(rest, little)?;
    (0..count).try_for_each(|_| point(rest, little, dimensions, bounds).ok_or(())).ok()
}

fn geometry(rest: &mut &[u8], bounds: &mut Bounds, depth: u32) -> Option<()> {
    let little = match take::<1>(rest)? {
        [0] => false,
        [1] => true,
        _ => return None,
    };
    let code = integer(rest, little)?;
    // EWKB: flags in the highest bits, and an SRID if its flag is set. ISO: thousands.
    let flags = code >> 29;
    let iso = (code & 0x0fff_ffff) / 1000;
    let dimensions = 2
        + usize::from(flags & 0b100 != 0 || iso == 1 || iso == 3)
        + usize::from(flags & 0b010 != 0 || iso == 2 || iso == 3);
    if flags & 0b001 != 0 {
        integer(rest, little)?;
    }
    match (code & 0x0fff_ffff) % 1000 {
        1 => point(rest, little, dimensions, bounds),
        2 => points(rest, little, dimensions, bounds),
        3 => {
            let rings = integer(rest, little)?;
            (0..rings).try_for_each(|_| points(rest, little, dimensions, bounds).ok_or(())).ok()
        }
        4..=7 if depth < DEPTH_LIMIT => {
            let parts = integer(rest, little)?;
            (0..parts).try_for_each(|_| geometry(rest, bounds, depth + 1).ok_or(())).ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wkb(code: u32, head: &[u32], numbers: &[f64]) -> Vec<u8> {
        let mut bytes = vec![1];
        bytes.extend(code.to_le_bytes());
        bytes.extend(head.iter().flat_map(|count| count.to_le_bytes()));
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        bytes
    }

    #[test]
    fn finds_the_centre_of_every_kind_and_of_no_damaged_one() {
        type Case = (Vec<u8>, Option<(f64, f64)>);
        let nan = f64::NAN;
        let cases: Vec<Case> = vec![
            (wkb(1, &[], &[24.9, 60.2]), Some((24.9, 60.2))),
            (wkb(1001, &[], &[24.9, 60.2, 5.0]), Some((24.9, 60.2))),
            (wkb(0xE000_0001, &[4326], &[24.9, 60.2, 5.0, 1.0]), Some((24.9, 60.2))),
            (wkb(1, &[], &[nan, nan]), None),
            (wkb(2, &[2], &[0.0, 0.0, 2.0, 4.0]), Some((1.0, 2.0))),
            (wkb(2, &[0], &[]), None),
            (wkb(3, &[1, 3], &[0.0, 0.0, 2.0, 0.0, 2.0, 2.0]), Some((1.0, 1.0))),
            (
                [wkb(4, &[2], &[]), wkb(1, &[], &[0.0, 0.0]), wkb(1, &[], &[4.0, 2.0])].concat(),
                Some((2.0, 1.0)),
            ),
            (wkb(2, &[u32::MAX], &[0.0, 0.0]), None),
            (wkb(9, &[], &[0.0, 0.0]), None),
            (vec![], None),
            (vec![7; 40], None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(centre(&bytes), expected, "{bytes:?}");
        }
        let mut nested = Vec::new();
        (0..100).for_each(|_| nested.extend(wkb(7, &[1], &[])));
        assert_eq!(centre(&nested), None);
    }

    #[test]
    fn gives_the_published_cell_and_null_outside_the_world() {
        let geometries = BinaryArray::from_iter([
            Some(wkb(1, &[], &[24.941_338, 60.171_017])),
            Some(wkb(1, &[], &[385_000.0, 6_672_000.0])),
            None,
        ]);
        let cells = cells(&geometries);
        let expected = LatLng::new(60.171_017, 24.941_338).unwrap().to_cell(Resolution::Nine);
        assert_eq!(cells.value(0), u64::from(expected) as i64);
        assert!(cells.is_null(1) && cells.is_null(2));
    }
}
