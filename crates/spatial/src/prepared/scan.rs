//! What is asked of every geometry, read straight from WKB: empty, a point, or a box.

use geo::{BoundingRect, Coord};
use twinlake_contracts::Result;

use super::bounds::Bounds;
use crate::geometry::{self, plain_point};

/// Where a geometry lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Extent {
    Empty,
    Point(Coord),
    Area(Bounds<2>),
}

impl Extent {
    pub(crate) fn bounds(&self) -> Option<Bounds<2>> {
        match self {
            Self::Empty => None,
            Self::Point(at) => Some(Bounds::point(at.x, at.y)),
            Self::Area(bounds) => Some(*bounds),
        }
    }
}

/// Reads the extent without building the geometry. What [`geometry::decode`] refuses is refused with the same words.
pub(crate) fn extent(bytes: &[u8]) -> Result<Extent> {
    if let Some(at) = plain_point(bytes) {
        return Ok(Extent::Point(at));
    }
    let mut scan = Scan { rest: bytes, bounds: Bounds::NOTHING, only_point: true };
    match scan.geometry(0) {
        Some(()) if scan.rest.is_empty() => {
            let bounds = scan.bounds;
            Ok(match (bounds.is_nothing(), scan.only_point) {
                (true, _) => Extent::Empty,
                (false, true) => Extent::Point(Coord { x: bounds.min[0], y: bounds.min[1] }),
                (false, false) => Extent::Area(bounds),
            })
        }
        // Something is wrong with it, or this reader does not know it: the full one decides.
        _ => {
            let rect = geometry::decode(bytes)?.bounding_rect();
            Ok(rect.map_or(Extent::Empty, |rect| {
                Extent::Area(Bounds { min: [rect.min().x, rect.min().y], max: [rect.max().x, rect.max().y] })
            }))
        }
    }
}

/// How deep collections may lie in one another for this reader.
const DEEPEST: usize = 16;

struct Scan<'a> {
    rest: &'a [u8],
    bounds: Bounds<2>,
    only_point: bool,
}

/// Byte order and numbers a coordinate of the geometry being read.
#[derive(Clone, Copy)]
struct Layout {
    little: bool,
    numbers: usize,
}

impl<'a> Scan<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn count(&mut self, layout: Layout) -> Option<usize> {
        let bytes: [u8; 4] = self.take(4)?.try_into().ok()?;
        let count = if layout.little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) };
        usize::try_from(count).ok()
    }

    fn coordinates(&mut self, count: usize, layout: Layout) -> Option<()> {
        let width = layout.numbers * 8;
        let bytes = self.take(count.checked_mul(width)?)?;
        let number = |bytes: &[u8]| -> Option<f64> {
            let bytes: [u8; 8] = bytes.try_into().ok()?;
            Some(if layout.little { f64::from_le_bytes(bytes) } else { f64::from_be_bytes(bytes) })
        };
        for coordinate in bytes.chunks_exact(width) {
            let (x, y) = (number(&coordinate[..8])?, number(&coordinate[8..16])?);
            if !x.is_finite() || !y.is_finite() {
                return None;
            }
            self.bounds.add(x, y);
        }
        Some(())
    }

    fn geometry(&mut self, depth: usize) -> Option<()> {
        if depth > DEEPEST {
            return None;
        }
        let little = match self.take(1)? {
            [0] => false,
            [1] => true,
            _ => return None,
        };
        let mut layout = Layout { little, numbers: 2 };
        let code = u32::try_from(self.count(layout)?).ok()?;
        if code & 0x2000_0000 != 0 {
            self.take(4)?;
        }
        let (kind, iso) = ((code & 0x0fff_ffff) % 1000, (code & 0x0fff_ffff) / 1000);
        layout.numbers += match iso {
            0 => usize::from(code & 0x8000_0000 != 0) + usize::from(code & 0x4000_0000 != 0),
            1 | 2 => 1,
            3 => 2,
            _ => return None,
        };
        self.only_point &= kind == 1;
        match kind {
            1 => self.point(layout),
            2 => match self.count(layout)? {
                1 => None,
                count => self.coordinates(count, layout),
            },
            3 => {
                for _ in 0..self.count(layout)? {
                    match self.count(layout)? {
                        1..=3 => return None,
                        count => self.coordinates(count, layout)?,
                    }
                }
                Some(())
            }
            4..=7 => {
                for _ in 0..self.count(layout)? {
                    self.geometry(depth + 1)?;
                }
                Some(())
            }
            _ => None,
        }
    }

    fn point(&mut self, layout: Layout) -> Option<()> {
        let before = self.rest;
        if self.coordinates(1, layout).is_some() {
            return Some(());
        }
        // All numbers of an empty point are NaN; one that is half a number is for the full reader to refuse.
        self.rest = before;
        let bytes = self.take(layout.numbers * 8)?;
        let empty = bytes[..16].chunks_exact(8).all(|number| {
            let number: [u8; 8] = std::array::from_fn(|i| number[i]);
            if layout.little { f64::from_le_bytes(number) } else { f64::from_be_bytes(number) }.is_nan()
        });
        empty.then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join::testing::{Random, geometry as random_geometry};

    #[test]
    fn agrees_with_the_geometry_itself() {
        let mut random = Random::new(11);
        for _ in 0..3_000 {
            let geometry = random_geometry(&mut random);
            let bytes = crate::encode(&geometry);
            let expected = geometry
                .bounding_rect()
                .map(|rect| Bounds { min: [rect.min().x, rect.min().y], max: [rect.max().x, rect.max().y] });
            assert_eq!(extent(&bytes).unwrap().bounds(), expected, "{geometry:?}");
        }
    }

    #[test]
    fn refuses_what_decoding_refuses() {
        let line = crate::encode(&geo::LineString::from(vec![(0.0, 0.0), (1.0, 1.0)]).into());
        for cut in 0..line.len() {
            assert!(extent(&line[..cut]).is_err(), "{cut}");
        }
        let mut nan = line.clone();
        nan[9..17].copy_from_slice(&f64::NAN.to_le_bytes());
        assert!(extent(&nan).unwrap_err().to_string().contains("not finite"));
        let mut long = line;
        long.push(0);
        assert!(extent(&long).is_err());
    }

    #[test]
    fn reads_big_endian_three_dimensions_and_empty() {
        let mut big = vec![0, 0, 0, 0, 1];
        big.extend(1.0_f64.to_be_bytes());
        big.extend(2.0_f64.to_be_bytes());
        assert_eq!(extent(&big).unwrap(), Extent::Point(Coord { x: 1.0, y: 2.0 }));
        let mut iso = vec![1, 0xe9, 3, 0, 0];
        let mut extended = vec![1, 1, 0, 0, 0xa0, 0xe6, 0x10, 0, 0];
        for bytes in [&mut iso, &mut extended] {
            for number in [1.0_f64, 2.0, 3.0] {
                bytes.extend(number.to_le_bytes());
            }
            assert_eq!(extent(bytes).unwrap(), Extent::Point(Coord { x: 1.0, y: 2.0 }));
        }
        let mut empty = vec![1, 1, 0, 0, 0];
        empty.extend(f64::NAN.to_le_bytes());
        empty.extend(f64::NAN.to_le_bytes());
        assert_eq!(extent(&empty).unwrap(), Extent::Empty);
    }
}
