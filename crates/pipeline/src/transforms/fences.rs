//! Named areas, and which of them hold a geometry.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use geo::{BoundingRect, Geometry, Intersects, Rect};
use geo_traits::to_geo::ToGeoGeometry;
use twinlake_contracts::{Error, Result};
use wkb::reader::Wkb;

use crate::wkt;

/// An area with its name.
#[derive(Debug, Clone)]
struct Fence {
    name: String,
    area: Geometry,
    bounds: Rect,
}

/// Areas in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Fences(Vec<Fence>);

/// A geometry from WKB with two finite coordinates a point (others are dropped); `None` for an empty point.
pub(super) fn geometry(bytes: &[u8]) -> Result<Option<Geometry>, String> {
    let read = Wkb::try_new(bytes).map_err(|error| error.to_string())?;
    let Some(geometry) = read.try_to_geometry() else { return Ok(None) };
    let finite = |at: geo::Coord| at.x.is_finite() && at.y.is_finite();
    if geo::CoordsIter::coords_iter(&geometry).all(finite) {
        Ok(Some(geometry))
    } else {
        Err("a coordinate is not finite".to_owned())
    }
}

impl Fences {
    /// Adds an area given as WKT.
    pub fn add_text(&mut self, name: &str, text: &str) -> Result<()> {
        let wrong = |what: &str| {
            Error::config(format!("the fence '{name}' is not {what}"))
                .with_help(format!("{name} = \"POLYGON ((24.9 60.1, 25 60.1, 25 60.2, 24.9 60.1))\""))
        };
        let bytes = wkt::from_text(text).ok_or_else(|| wrong("well-known text"))?;
        self.add(name, &bytes).map_err(|_| wrong("a closed polygon"))
    }

    /// Adds an area given as WKB.
    fn add(&mut self, name: &str, bytes: &[u8]) -> Result<(), String> {
        let area = geometry(bytes)?.ok_or("it is empty")?;
        let closed = |polygon: &geo::Polygon| polygon.exterior().0.len() >= 4;
        let is_area = match &area {
            Geometry::Polygon(polygon) => closed(polygon),
            Geometry::MultiPolygon(polygons) => !polygons.0.is_empty() && polygons.iter().all(closed),
            _ => false,
        };
        let bounds = area.bounding_rect().filter(|_| is_area).ok_or("it is not a polygon")?;
        self.0.push(Fence { name: name.to_owned(), area, bounds });
        Ok(())
    }

    /// The areas of a table: the columns with the names, and with the areas as WKT or WKB.
    pub fn from_table(table: &RecordBatch, name: usize, area: usize) -> Result<Self> {
        let mut fences = Self::default();
        let (names, areas) = (table.column(name).as_string::<i32>(), table.column(area));
        for row in (0..table.num_rows()).filter(|row| names.is_valid(*row) && areas.is_valid(*row)) {
            let name = names.value(row);
            if areas.data_type() == &DataType::Utf8 {
                fences.add_text(name, areas.as_string::<i32>().value(row))?;
            } else {
                let bytes = areas.as_binary::<i32>().value(row);
                fences
                    .add(name, bytes)
                    .map_err(|what| Error::config(format!("the fence '{name}': {what}")))?;
            }
        }
        Ok(fences)
    }

    /// The names of the areas that hold a geometry or touch it, in their order.
    pub fn around<'a>(&'a self, geometry: &'a Geometry) -> impl Iterator<Item = &'a str> {
        let bounds = geometry.bounding_rect();
        let near = move |fence: &&Fence| bounds.is_some_and(|bounds| fence.bounds.intersects(&bounds));
        self.0
            .iter()
            .filter(near)
            .filter(|fence| fence.area.intersects(geometry))
            .map(|fence| fence.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inside(text: &str) -> Vec<String> {
        let mut fences = Fences::default();
        fences.add_text("square", "POLYGON ((0 0, 4 0, 4 4, 0 4, 0 0), (1 1, 2 1, 2 2, 1 2, 1 1))").unwrap();
        fences
            .add_text("islands", "MULTIPOLYGON (((3 3, 6 3, 6 6, 3 6, 3 3)), ((10 0, 11 0, 11 1, 10 0)))")
            .unwrap();
        let point = geometry(&wkt::from_text(text).unwrap()).unwrap().unwrap();
        fences.around(&point).map(str::to_owned).collect()
    }

    #[test]
    fn a_boundary_belongs_to_its_area_and_a_hole_does_not() {
        assert_eq!(inside("POINT (0.5 0.5)"), ["square"]);
        assert_eq!(inside("POINT (1.5 1.5)"), [""; 0], "in the hole");
        assert_eq!(inside("POINT (1 1.5)"), ["square"], "on the edge of the hole");
        assert_eq!(inside("POINT (4 4)"), ["square", "islands"], "on a corner, and inside");
        assert_eq!(inside("POINT (4.000000001 0)"), [""; 0]);
        assert_eq!(inside("LINESTRING (-1 0.5, 9 0.5)"), ["square"], "what only crosses it, too");
    }

    #[test]
    fn what_is_no_area_is_a_mistake() {
        let mut fences = Fences::default();
        for text in [
            "POINT (1 1)",
            "POLYGON ((0 0, 1 1))",
            "POLYGON EMPTY",
            "polygone",
            "POLYGON ((0 0, 1 x, 1 1, 0 0))",
        ] {
            let error = fences.add_text("depot", text).unwrap_err().to_string();
            assert!(error.contains("the fence 'depot' is not"), "{text}: {error}");
        }
        assert!(geometry(&[1, 2, 3]).is_err());
        let nan =
            [vec![1, 1, 0, 0, 0], f64::NAN.to_le_bytes().to_vec(), 1f64.to_le_bytes().to_vec()].concat();
        assert!(geometry(&nan).is_err());
    }
}
