//! Geohashes (Niemeyer 2008): base-32 text of interleaved bits of longitude and latitude.

use arrow::array::{ArrayRef, BinaryArray, StringArray};
use datafusion::common::Result;
use geo::{BoundingRect, Point};

use super::st_makeenvelope::rectangle;
use crate::call::Call;
use crate::definition::{Definition, Kind, Output, UTF8};
use crate::geometry::encode;

const ALPHABET: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
/// Twenty letters are as exact as numbers are.
const LONGEST: usize = 20;

pub(crate) static GEOHASH: Definition = Definition::new(
    "st_geohash",
    "The geohash of a geometry in longitude and latitude: of a point with 20 letters or as many as given, of others the longest one whose cell holds it all; null for an empty geometry",
    &[&[("geometry", Kind::Geometry)], &[("geometry", Kind::Geometry), ("letters", Kind::Integer)]],
    UTF8,
    |call| {
        let geometries = call.geometries(0)?;
        let letters = if call.arity() > 1 { Some(call.integers(1)?) } else { None };
        call.rows::<StringArray, _>(|row| {
            let Some(geometry) = geometries.get(row)? else { return Ok(None) };
            let length = match &letters {
                None => None,
                Some(letters) => match letters.get(row) {
                    None => return Ok(None),
                    Some(count @ 1..=20) => Some(count as usize),
                    Some(other) => return call.error(format!("{other} letters are not in 1..=20")),
                },
            };
            let Some(bounds) = geometry.bounding_rect() else { return Ok(None) };
            let (min, max) = (bounds.min(), bounds.max());
            if min.x < -180.0 || max.x > 180.0 || min.y < -90.0 || max.y > 90.0 {
                return call.error("takes longitude -180 to 180 and latitude -90 to 90 in degrees");
            }
            if min == max {
                return Ok(Some(write(min.x, min.y, length.unwrap_or(LONGEST))));
            }
            let centre = bounds.center();
            let whole = write(centre.x, centre.y, LONGEST);
            let fits = (0..=LONGEST)
                .rev()
                .find(|count| {
                    read(&whole[..*count]).is_some_and(|[west, south, east, north]| {
                        west <= min.x && south <= min.y && max.x <= east && max.y <= north
                    })
                })
                .unwrap_or(0);
            Ok(Some(whole[..length.unwrap_or(fits).min(LONGEST)].to_owned()))
        })
    },
)
.lon_lat();

fn write(lon: f64, lat: f64, letters: usize) -> String {
    let mut ranges = [[-180.0, 180.0], [-90.0, 90.0]];
    let mut text = String::with_capacity(letters);
    let mut axis = 0;
    for _ in 0..letters {
        let mut letter = 0;
        for _ in 0..5 {
            let value = [lon, lat][axis];
            let [low, high] = &mut ranges[axis];
            let middle = f64::midpoint(*low, *high);
            letter = letter * 2 + usize::from(value >= middle);
            if value >= middle {
                *low = middle;
            } else {
                *high = middle;
            }
            axis = 1 - axis;
        }
        text.push(char::from(ALPHABET[letter]));
    }
    text
}

/// West, south, east, north of the cell; `None` when it is no geohash.
fn read(text: &str) -> Option<[f64; 4]> {
    let mut ranges = [[-180.0, 180.0], [-90.0, 90.0]];
    let mut axis = 0;
    for letter in text.bytes() {
        let bits = ALPHABET.iter().position(|known| *known == letter.to_ascii_lowercase())?;
        for bit in (0..5).rev() {
            let [low, high] = &mut ranges[axis];
            let middle = f64::midpoint(*low, *high);
            if bits >> bit & 1 == 1 {
                *low = middle;
            } else {
                *high = middle;
            }
            axis = 1 - axis;
        }
    }
    Some([ranges[0][0], ranges[1][0], ranges[0][1], ranges[1][1]])
}

pub(crate) static FROM_GEOHASH: Definition = Definition::new(
    "st_geomfromgeohash",
    "The cell of a geohash, or of its first letters, as a rectangle in longitude and latitude",
    &[&[("geohash", Kind::Text)], &[("geohash", Kind::Text), ("letters", Kind::Integer)]],
    Output::Geometry,
    |call| cells(call, |[west, south, east, north]| encode(&rectangle(west, south, east, north).into())),
);

pub(crate) static POINT_FROM_GEOHASH: Definition = Definition::new(
    "st_pointfromgeohash",
    "The middle of the cell of a geohash, or of its first letters, as a point in longitude and latitude",
    &[&[("geohash", Kind::Text)], &[("geohash", Kind::Text), ("letters", Kind::Integer)]],
    Output::Geometry,
    |call| {
        cells(call, |[west, south, east, north]| {
            encode(&Point::new(f64::midpoint(west, east), f64::midpoint(south, north)).into())
        })
    },
);

fn cells(call: &Call<'_>, make: fn([f64; 4]) -> Vec<u8>) -> Result<ArrayRef> {
    let texts = call.texts(0)?;
    let letters = if call.arity() > 1 { Some(call.integers(1)?) } else { None };
    call.rows::<BinaryArray, _>(|row| {
        let Some(text) = texts.get(row) else { return Ok(None) };
        let length = match &letters {
            None => text.len(),
            Some(letters) => match letters.get(row) {
                None => return Ok(None),
                Some(count) => usize::try_from(count).unwrap_or(0).min(text.len()),
            },
        };
        match text.get(..length).filter(|text| !text.is_empty()).and_then(read) {
            Some(bounds) => Ok(Some(make(bounds))),
            None => call.error(format!("'{text}' is not a geohash")),
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn writes_and_reads() {
        check(&[
            ("st_geohash(st_point(-126, 48), 5)", "c0w3h"),
            ("st_geohash(st_point(-126, 48))", "c0w3hf1s70w3hf1s70w3"),
            ("st_geohash(st_geomfromtext('LINESTRING(24.93 60.16,24.95 60.18)'))", "ud9w"),
            (
                "st_astext(st_snaptogrid(st_pointfromgeohash('c0w3hf1s70w3hf1s70w3'), 0.000001))",
                "POINT(-126 48)",
            ),
            ("st_covers(st_geomfromgeohash('ud9w'), st_point(24.94, 60.17))", "true"),
            ("st_geohash(st_geomfromtext('POINT EMPTY'))", "NULL"),
            ("st_geohash(NULL), st_geomfromgeohash(NULL)", "NULL|NULL"),
        ]);
        fails("st_geomfromgeohash('a!')", "st_geomfromgeohash: 'a!' is not a geohash");
        fails("st_geohash(st_point(1, 100))", "takes longitude -180 to 180");
    }
}
