//! Geometry at the doors: WKB as GeoJSON for HTTP, as hexadecimal EWKB for PostgreSQL clients.
//!
//! Takes ISO WKB and EWKB, either byte order, with Z and M. GeoJSON (RFC 7946) keeps X, Y and Z; M is left out.

use std::fmt::Write as _;

/// How deep collections may nest; more is taken for damage.
const DEEPEST: u32 = 16;
/// EWKB: the bits of the type word that say Z, M and "an SRID follows".
const EWKB_Z: u32 = 0x8000_0000;
const EWKB_M: u32 = 0x4000_0000;
const EWKB_SRID: u32 = 0x2000_0000;

/// The EPSG number of a CRS name (`EPSG:3879`, `OGC:CRS84`), as PostGIS uses it; 0 when there is none.
pub(crate) fn srid(crs: Option<&str>) -> u32 {
    match crs {
        Some("OGC:CRS84") => 4326,
        Some(name) => name.strip_prefix("EPSG:").and_then(|code| code.parse().ok()).unwrap_or(0),
        None => 0,
    }
}

/// WKB as upper-case hexadecimal EWKB with its SRID: the text form of PostGIS, read by psycopg, shapely, GeoPandas.
/// Bytes that are no WKB come out as plain hexadecimal.
pub(crate) fn ewkb_hex(wkb: &[u8], srid: u32) -> String {
    let mut text = String::with_capacity(2 * wkb.len() + 8);
    let header = match (srid, wkb) {
        (0, _) => None,
        (_, [1, a, b, c, d, rest @ ..]) => Some((true, u32::from_le_bytes([*a, *b, *c, *d]), rest)),
        (_, [0, a, b, c, d, rest @ ..]) => Some((false, u32::from_be_bytes([*a, *b, *c, *d]), rest)),
        _ => None,
    };
    match header {
        Some((little, kind, rest)) if kind & EWKB_SRID == 0 => {
            let word = |value: u32| if little { value.to_le_bytes() } else { value.to_be_bytes() };
            push_hex(&mut text, &[u8::from(little)]);
            push_hex(&mut text, &word(ewkb_kind(kind) | EWKB_SRID));
            push_hex(&mut text, &word(srid));
            push_hex(&mut text, rest);
        }
        _ => push_hex(&mut text, wkb),
    }
    text
}

/// ISO type numbers (1001, 2001, 3001) as EWKB's flags; others unchanged.
fn ewkb_kind(kind: u32) -> u32 {
    match kind {
        1001..=1999 => (kind - 1000) | EWKB_Z,
        2001..=2999 => (kind - 2000) | EWKB_M,
        3001..=3999 => (kind - 3000) | EWKB_Z | EWKB_M,
        _ => kind,
    }
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02X}");
    }
}

/// Writes WKB as a GeoJSON geometry. `false`, with `out` unchanged, when the bytes are no WKB.
pub(crate) fn write_geojson(wkb: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let mut reader = Reader { bytes: wkb, little: true };
    if reader.geometry(out, 0).is_some() {
        true
    } else {
        out.truncate(start);
        false
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    little: bool,
}

/// What one position holds.
#[derive(Clone, Copy)]
struct Dimensions {
    z: bool,
    m: bool,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.bytes.split_first_chunk::<N>()?;
        self.bytes = rest;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        let bytes = self.take::<4>()?;
        Some(if self.little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    fn f64(&mut self) -> Option<f64> {
        let bytes = self.take::<8>()?;
        Some(if self.little { f64::from_le_bytes(bytes) } else { f64::from_be_bytes(bytes) })
    }

    /// A count of things that need at least `size` bytes each: a damaged count never makes us loop or allocate.
    fn count(&mut self, size: usize) -> Option<u32> {
        let count = self.u32()?;
        (count as usize).checked_mul(size).filter(|need| *need <= self.bytes.len()).map(|_| count)
    }

    fn header(&mut self) -> Option<(u32, Dimensions)> {
        self.little = match self.take::<1>()? {
            [0] => false,
            [1] => true,
            _ => return None,
        };
        let word = self.u32()?;
        if word & EWKB_SRID != 0 {
            self.u32()?;
        }
        let kind = ewkb_kind(word & !(EWKB_Z | EWKB_M | EWKB_SRID)) | (word & (EWKB_Z | EWKB_M));
        let dimensions = Dimensions { z: kind & EWKB_Z != 0, m: kind & EWKB_M != 0 };
        Some((kind & 0xFF, dimensions))
    }

    fn geometry(&mut self, out: &mut Vec<u8>, depth: u32) -> Option<()> {
        if depth > DEEPEST {
            return None;
        }
        let (kind, dimensions) = self.header()?;
        let name = match kind {
            1 => "Point",
            2 => "LineString",
            3 => "Polygon",
            4 => "MultiPoint",
            5 => "MultiLineString",
            6 => "MultiPolygon",
            7 => "GeometryCollection",
            _ => return None,
        };
        let member = if kind == 7 { "geometries" } else { "coordinates" };
        out.extend_from_slice(format!("{{\"type\":\"{name}\",\"{member}\":").as_bytes());
        match kind {
            1..=3 => self.coordinates(out, kind, dimensions)?,
            7 => self.list(out, 9, |reader, out| reader.geometry(out, depth + 1))?,
            _ => self.list(out, 9, |reader, out| {
                let (part, dimensions) = reader.header()?;
                (part + 3 == kind).then(|| reader.coordinates(out, part, dimensions))?
            })?,
        }
        out.push(b'}');
        Some(())
    }

    fn coordinates(&mut self, out: &mut Vec<u8>, kind: u32, dimensions: Dimensions) -> Option<()> {
        let size = 16 + 8 * (usize::from(dimensions.z) + usize::from(dimensions.m));
        match kind {
            1 => self.position(out, dimensions),
            2 => self.list(out, size, |reader, out| reader.position(out, dimensions)),
            3 => self.list(out, 4, |reader, out| {
                reader.list(out, size, |reader, out| reader.position(out, dimensions))
            }),
            _ => None,
        }
    }

    fn list(
        &mut self,
        out: &mut Vec<u8>,
        size: usize,
        mut item: impl FnMut(&mut Self, &mut Vec<u8>) -> Option<()>,
    ) -> Option<()> {
        let count = self.count(size)?;
        out.push(b'[');
        for index in 0..count {
            if index > 0 {
                out.push(b',');
            }
            item(self, out)?;
        }
        out.push(b']');
        Some(())
    }

    /// One position; an empty point (NaN) is an empty array.
    fn position(&mut self, out: &mut Vec<u8>, dimensions: Dimensions) -> Option<()> {
        let (x, y) = (self.f64()?, self.f64()?);
        let z = if dimensions.z { Some(self.f64()?) } else { None };
        if dimensions.m {
            self.f64()?;
        }
        out.push(b'[');
        if x.is_finite() && y.is_finite() {
            for (index, value) in
                [Some(x), Some(y), z.filter(|z| z.is_finite())].into_iter().flatten().enumerate()
            {
                if index > 0 {
                    out.push(b',');
                }
                serde_json::to_writer(&mut *out, &value).ok()?;
            }
        }
        out.push(b']');
        Some(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A little-endian WKB point.
    pub(crate) fn point(x: f64, y: f64) -> Vec<u8> {
        let mut wkb = vec![1, 1, 0, 0, 0];
        wkb.extend(x.to_le_bytes());
        wkb.extend(y.to_le_bytes());
        wkb
    }

    fn geojson(wkb: &[u8]) -> Option<String> {
        let mut out = Vec::new();
        write_geojson(wkb, &mut out).then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn writes_points_lines_polygons_and_collections() {
        assert_eq!(geojson(&point(24.94, 60.17)).unwrap(), r#"{"type":"Point","coordinates":[24.94,60.17]}"#);
        let mut line = vec![0, 0, 0, 3, 0xEA, 0, 0, 0, 2]; // big-endian ISO LineString Z
        for value in [1.0_f64, 2.0, 3.0, 4.0, 5.0, 6.0] {
            line.extend(value.to_be_bytes());
        }
        assert_eq!(
            geojson(&line).unwrap(),
            r#"{"type":"LineString","coordinates":[[1.0,2.0,3.0],[4.0,5.0,6.0]]}"#
        );
        let mut several = vec![1, 4, 0, 0, 0, 2, 0, 0, 0];
        several.extend(point(1.0, 2.0));
        several.extend(point(3.0, 4.0));
        assert_eq!(
            geojson(&several).unwrap(),
            r#"{"type":"MultiPoint","coordinates":[[1.0,2.0],[3.0,4.0]]}"#
        );
        let mut collection = vec![1, 7, 0, 0, 0, 1, 0, 0, 0];
        collection.extend(point(1.0, 2.0));
        assert_eq!(
            geojson(&collection).unwrap(),
            r#"{"type":"GeometryCollection","geometries":[{"type":"Point","coordinates":[1.0,2.0]}]}"#
        );
        assert_eq!(geojson(&point(f64::NAN, f64::NAN)).unwrap(), r#"{"type":"Point","coordinates":[]}"#);
    }

    #[test]
    fn refuses_damage_without_looping() {
        for length in 0..21 {
            assert_eq!(geojson(&point(1.0, 2.0)[..length]), None, "{length} bytes");
        }
        assert_eq!(geojson(&[1, 2, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]), None);
        let mut nested = Vec::new();
        for _ in 0..1000 {
            nested.extend([1, 7, 0, 0, 0, 1, 0, 0, 0]);
        }
        assert_eq!(geojson(&nested), None);
    }

    #[test]
    fn ewkb_carries_the_srid() {
        assert_eq!(srid(Some("OGC:CRS84")), 4326);
        assert_eq!(srid(Some("EPSG:3879")), 3879);
        assert_eq!(srid(None), 0);
        // SELECT ST_SetSRID(ST_MakePoint(1, 2), 4326) in PostGIS
        assert_eq!(ewkb_hex(&point(1.0, 2.0), 4326), "0101000020E6100000000000000000F03F0000000000000040");
        assert_eq!(ewkb_hex(&[7], 4326), "07");
    }
}
