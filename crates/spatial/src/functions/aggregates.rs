//! Aggregates that put geometries together: `st_union_agg`, `st_collect_agg`, `st_extent`.

use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::GroupsAccumulator;
use geo::{BoundingRect, Coord, CoordsIter, Geometry, Rect};

use super::collect_groups::CollectGroups;
use super::st_makeenvelope::rectangle;
use crate::aggregate::{Aggregate, Fold, Gives};
use crate::call::Call;
use crate::definition::{Kind, Parameter};
use crate::geometry::{decode, encode};
use crate::shape::{Dimensions, Form, Shape};
use crate::topology::overlay::union_all;

const ONE: &[&[Parameter]] = &[&[("geometry", Kind::Geometry)]];

pub(crate) static UNION: Aggregate = Aggregate {
    name: "st_union_agg",
    aliases: &["st_memunion"],
    summary: "The union of the geometries of a group: areas without borders between, lines cut where they meet",
    overloads: ONE,
    gives: Gives::Geometry,
    start: || Box::<Union>::default(),
};

/// So many are united at once: memory stays bounded where they overlap much.
const AT_ONCE: usize = 4_096;

#[derive(Debug, Default)]
struct Union {
    parts: Vec<Geometry>,
}

impl Union {
    fn united(&self) -> Result<Option<Geometry>> {
        if self.parts.is_empty() {
            return Ok(None);
        }
        match union_all(&self.parts, None) {
            Ok(whole) => Ok(Some(whole)),
            Err(invalid) => exec_err!("st_union_agg: {invalid}"),
        }
    }

    fn push(&mut self, geometry: Geometry) -> Result<()> {
        self.parts.push(geometry);
        if self.parts.len() >= AT_ONCE {
            self.parts = self.united()?.into_iter().collect();
        }
        Ok(())
    }
}

impl Fold for Union {
    fn add(&mut self, call: &Call<'_>) -> Result<()> {
        let geometries = call.geometries(0)?;
        for row in 0..call.rows {
            if let Some(geometry) = geometries.get(row)? {
                self.push(geometry.into_owned())?;
            }
        }
        Ok(())
    }

    fn state(&self) -> Option<Vec<u8>> {
        let all = Geometry::GeometryCollection(self.parts.iter().cloned().collect());
        (!self.parts.is_empty()).then(|| Shape::of(&all).encode())
    }

    fn merge(&mut self, state: &[u8]) -> Result<()> {
        let Ok(Geometry::GeometryCollection(parts)) = decode(state) else {
            return exec_err!("st_union_agg got a state that is not its own");
        };
        parts.into_iter().try_for_each(|part| self.push(part))
    }

    fn finish(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Binary(self.united()?.map(|whole| encode(&whole))))
    }

    fn size(&self) -> usize {
        self.parts.iter().map(|part| 64 + part.coords_count() * 16).sum()
    }
}

pub(crate) static COLLECT: Aggregate = Aggregate {
    name: "st_collect_agg",
    aliases: &[],
    summary: "The geometries of a group put together as they are: a multi-part geometry when all are points, lines or polygons, else a collection",
    overloads: ONE,
    gives: Gives::Geometry,
    start: || Box::<Collect>::default(),
};

#[derive(Debug, Default)]
struct Collect(Vec<Shape>);

impl Fold for Collect {
    fn add(&mut self, call: &Call<'_>) -> Result<()> {
        let bytes = call.bytes(0)?;
        for row in 0..call.rows {
            if let Some(bytes) = bytes.get(row) {
                self.0.push(call.shape(bytes)?);
            }
        }
        Ok(())
    }

    fn state(&self) -> Option<Vec<u8>> {
        // Members keep their own dimensions in WKB.
        let all = Shape::new(Form::Collection(self.0.clone()), Dimensions::default());
        (!self.0.is_empty()).then(|| all.encode())
    }

    fn merge(&mut self, state: &[u8]) -> Result<()> {
        let Ok((Shape { form: Form::Collection(members), .. }, _)) = Shape::from_wkb(state) else {
            return exec_err!("st_collect_agg got a state that is not its own");
        };
        self.0.extend(members);
        Ok(())
    }

    fn finish(&mut self) -> Result<ScalarValue> {
        let all = std::mem::take(&mut self.0);
        Ok(ScalarValue::Binary((!all.is_empty()).then(|| Shape::collect(all).encode())))
    }

    fn size(&self) -> usize {
        self.0.iter().map(|shape| 64 + shape.positions().len() * 32).sum()
    }

    fn groups(&self, result: &FieldRef) -> Option<Box<dyn GroupsAccumulator>> {
        Some(Box::new(CollectGroups::new(Arc::clone(result))))
    }
}

pub(crate) static EXTENT: Aggregate = Aggregate {
    name: "st_extent",
    aliases: &["st_envelope_agg"],
    summary: "The bounding box of the geometries of a group as a polygon; null when all are empty",
    overloads: ONE,
    gives: Gives::Geometry,
    start: || Box::<Extent>::default(),
};

#[derive(Debug, Default)]
struct Extent(Option<Rect>);

impl Extent {
    fn take(&mut self, other: Rect) {
        self.0 = Some(match self.0 {
            None => other,
            Some(known) => Rect::new(
                Coord { x: known.min().x.min(other.min().x), y: known.min().y.min(other.min().y) },
                Coord { x: known.max().x.max(other.max().x), y: known.max().y.max(other.max().y) },
            ),
        });
    }
}

impl Fold for Extent {
    fn add(&mut self, call: &Call<'_>) -> Result<()> {
        let geometries = call.geometries(0)?;
        for row in 0..call.rows {
            if let Some(bounds) = geometries.get(row)?.and_then(|geometry| geometry.bounding_rect()) {
                self.take(bounds);
            }
        }
        Ok(())
    }

    fn state(&self) -> Option<Vec<u8>> {
        self.0.map(|b| {
            [b.min().x, b.min().y, b.max().x, b.max().y].iter().flat_map(|v| v.to_le_bytes()).collect()
        })
    }

    fn merge(&mut self, state: &[u8]) -> Result<()> {
        let numbers: Vec<f64> =
            state.chunks_exact(8).filter_map(|chunk| chunk.try_into().ok().map(f64::from_le_bytes)).collect();
        let [x0, y0, x1, y1] = numbers[..] else {
            return exec_err!("st_extent got a state that is not its own");
        };
        self.take(Rect::new(Coord { x: x0, y: y0 }, Coord { x: x1, y: y1 }));
        Ok(())
    }

    fn finish(&mut self) -> Result<ScalarValue> {
        let bounds = self.0.map(|b| rectangle(b.min().x, b.min().y, b.max().x, b.max().y));
        Ok(ScalarValue::Binary(bounds.map(|polygon| encode(&polygon.into()))))
    }

    fn size(&self) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    const ROWS: &str = "(VALUES (0, 'POLYGON((0 0,1 0,1 1,0 1,0 0))'), (0, 'POLYGON((1 0,2 0,2 1,1 1,1 0))'), (1, 'POINT(7 8)'), (1, NULL), (2, NULL)) AS t(k, wkt)";

    fn groups(call: &str) -> Vec<String> {
        query(&format!("SELECT st_astext({call}(st_geomfromtext(wkt))) FROM {ROWS} GROUP BY k ORDER BY k"))
            .unwrap()
    }

    #[test]
    fn groups_come_together() {
        assert_eq!(groups("st_union_agg"), ["POLYGON((0 0,1 0,2 0,2 1,1 1,0 1,0 0))", "POINT(7 8)", "NULL"]);
        assert_eq!(
            groups("st_collect_agg"),
            ["MULTIPOLYGON(((0 0,1 0,1 1,0 1,0 0)),((1 0,2 0,2 1,1 1,1 0)))", "MULTIPOINT((7 8))", "NULL"]
        );
        assert_eq!(
            groups("st_extent"),
            ["POLYGON((0 0,2 0,2 1,0 1,0 0))", "POLYGON((7 8,7 8,7 8,7 8,7 8))", "NULL"]
        );
        assert_eq!(
            query("SELECT st_srid(st_union_agg(st_setsrid(st_point(x, 1), 3879))) FROM (VALUES (1), (2)) AS t(x)").unwrap(),
            ["3879"]
        );
    }

    #[test]
    fn refuses_what_is_no_geometry() {
        assert!(query("SELECT st_union_agg(1)").unwrap_err().contains("st_union_agg does not take (Int64)"));
    }
}
