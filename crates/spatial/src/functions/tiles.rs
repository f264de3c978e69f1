//! Vector tiles: the box of a tile, geometry in the units of a tile, and the tile itself (Mapbox Vector Tile
//! specification 2.1).

use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, StructArray};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use geo::{BoundingRect, Coord, CoordsIter, Geometry, LineString, MapCoords, Polygon, RemoveRepeatedPoints};
use twinlake_contracts::{EXTENSION_NAME, WKB_EXTENSION, geometry_field};

use super::shaping::singles;
use super::st_makeenvelope::rectangle;
use crate::aggregate::{Aggregate, Fold, Gives};
use crate::call::Call;
use crate::definition::{CrsRule, Definition, Kind, Output, Parameter};
use crate::geometry::{decode, encode};
use crate::topology::arrangement::doubled_area;
use crate::topology::overlay::{Operation, assemble, overlay, type_dimension};
use crate::topology::valid;

/// Half the side of the square of web mercator in metres: pi times the equatorial radius of WGS 84.
const HALF_M: f64 = std::f64::consts::PI * 6_378_137.0;

const ZXY: [Parameter; 3] = [("zoom", Kind::Integer), ("x", Kind::Integer), ("y", Kind::Integer)];

pub(crate) static TILE_ENVELOPE: Definition = Definition {
    name: "st_tileenvelope",
    aliases: &[],
    summary: "The square of a web mercator tile (EPSG:3857), y from the north, made larger by a margin as a part of its side if given",
    overloads: &[&[ZXY[0], ZXY[1], ZXY[2]], &[ZXY[0], ZXY[1], ZXY[2], ("margin", Kind::Number)]],
    crs: CrsRule::Same,
    output: Output::Field(|_| Ok(geometry_field("st_tileenvelope", "EPSG:3857", true))),
    body: |call| {
        let (zooms, xs, ys) = (call.integers(0)?, call.integers(1)?, call.integers(2)?);
        let margins = if call.arity() > 3 { Some(call.numbers(3)?) } else { None };
        call.rows::<BinaryArray, _>(|row| {
            let (Some(zoom), Some(x), Some(y)) = (zooms.get(row), xs.get(row), ys.get(row)) else {
                return Ok(None);
            };
            let margin = match &margins {
                None => 0.0,
                Some(margins) => match margins.get(row) {
                    Some(margin) if margin > -0.5 && margin.is_finite() => margin,
                    Some(other) => return call.error(format!("the margin {other} leaves no tile")),
                    None => return Ok(None),
                },
            };
            if !(0..=30).contains(&zoom)
                || !(0..1_i64 << zoom).contains(&x)
                || !(0..1_i64 << zoom).contains(&y)
            {
                return call.error(format!("there is no tile {zoom}/{x}/{y}"));
            }
            let side = 2.0 * HALF_M / (1_i64 << zoom) as f64;
            let (west, north) = (x as f64 * side - HALF_M, HALF_M - y as f64 * side);
            let out = margin * side;
            // Tiles never reach over the edge of the world.
            let edge = |value: f64| value.clamp(-HALF_M, HALF_M);
            let area = rectangle(
                edge(west - out),
                edge(north - side - out),
                edge(west + side + out),
                edge(north + out),
            );
            Ok(Some(encode(&area.into())))
        })
    },
};

const GEOMETRY: Parameter = ("geometry", Kind::Geometry);
const BOUNDS: Parameter = ("bounds", Kind::Geometry);
const EXTENT: Parameter = ("extent", Kind::Integer);
const BUFFER: Parameter = ("buffer", Kind::Integer);

pub(crate) static AS_MVT_GEOM: Definition = Definition {
    name: "st_asmvtgeom",
    aliases: &[],
    summary: "The geometry in whole units of a tile with these bounds, y down, cut at a buffer around it; the tile has 4096 units a side and a buffer of 256 unless given; null when nothing is left",
    overloads: &[
        &[GEOMETRY, BOUNDS],
        &[GEOMETRY, BOUNDS, EXTENT],
        &[GEOMETRY, BOUNDS, EXTENT, BUFFER],
        &[GEOMETRY, BOUNDS, EXTENT, BUFFER, ("clip", Kind::Boolean)],
    ],
    crs: CrsRule::Same,
    // Units of a tile have no reference system.
    output: Output::Field(|_| {
        let metadata = HashMap::from([(EXTENSION_NAME.to_owned(), WKB_EXTENSION.to_owned())]);
        Ok(Field::new("st_asmvtgeom", DataType::Binary, true).with_metadata(metadata))
    }),
    body: |call| {
        let (geometries, bounds) = (call.geometries(0)?, call.geometries(1)?);
        let extents = if call.arity() > 2 { Some(call.integers(2)?) } else { None };
        let buffers = if call.arity() > 3 { Some(call.integers(3)?) } else { None };
        let clips = if call.arity() > 4 { Some(call.booleans(4)?) } else { None };
        call.rows::<BinaryArray, _>(|row| {
            let (Some(geometry), Some(bounds)) = (geometries.get(row)?, bounds.get(row)?) else {
                return Ok(None);
            };
            let extent = extents.as_ref().map_or(Some(4096), |column| column.get(row));
            let buffer = buffers.as_ref().map_or(Some(256), |column| column.get(row));
            let clip = clips.as_ref().map_or(Some(true), |column| column.get(row));
            let (Some(extent), Some(buffer), Some(clip)) = (extent, buffer, clip) else { return Ok(None) };
            if !(1..=1 << 24).contains(&extent) || !(0..=1 << 24).contains(&buffer) {
                return call.error(format!("an extent of {extent} with a buffer of {buffer} is no tile"));
            }
            let Some(bounds) = bounds.bounding_rect().filter(|b| b.width() > 0.0 && b.height() > 0.0) else {
                return call.error("the bounds have no area");
            };
            let extent = extent as f64;
            let placed = geometry.map_coords(|c| Coord {
                x: (c.x - bounds.min().x) / bounds.width() * extent,
                y: (bounds.max().y - c.y) / bounds.height() * extent,
            });
            if placed.coords_iter().any(|c| !c.x.is_finite() || !c.y.is_finite()) {
                return call.error("the geometry is too far from the bounds");
            }
            let buffer = buffer as f64;
            let window = clip.then(|| rectangle(-buffer, -buffer, extent + buffer, extent + buffer));
            Ok(in_tile(&placed, window.as_ref()).map(|geometry| encode(&geometry)))
        })
    },
};

/// Cut, rounded to whole units and valid; `None` when nothing of its dimension is left.
fn in_tile(geometry: &Geometry, window: Option<&Polygon>) -> Option<Geometry> {
    let bounds = geometry.bounding_rect()?;
    let window = match window.and_then(BoundingRect::bounding_rect) {
        Some(rect)
            if bounds.min().x > rect.max().x
                || bounds.min().y > rect.max().y
                || bounds.max().x < rect.min().x
                || bounds.max().y < rect.min().y =>
        {
            return None;
        }
        Some(rect) => Some(rect),
        None => None,
    };
    let inside = |c: &Coord| {
        window.is_none_or(|w| c.x >= w.min().x && c.x <= w.max().x && c.y >= w.min().y && c.y <= w.max().y)
    };
    let round = |c: Coord| Coord { x: c.x.round_ties_even() + 0.0, y: c.y.round_ties_even() + 0.0 };
    let dimension = type_dimension(geometry);
    let (mut points, mut lines, mut areas) = (Vec::new(), Vec::new(), Vec::new());
    for part in singles(geometry) {
        // Of a collection, what has its largest dimension.
        if type_dimension(&part) != dimension {
            continue;
        }
        match part {
            Geometry::Point(point) if inside(&point.0) => points.push(geo::Point(round(point.0))),
            Geometry::LineString(line) => {
                let pieces = match window {
                    Some(rect) => clip_line(&line, rect),
                    None => vec![line],
                };
                lines.extend(
                    pieces
                        .iter()
                        .map(|piece| piece.map_coords(round).remove_repeated_points())
                        .filter(|piece| piece.0.len() > 1),
                );
            }
            Geometry::Polygon(polygon) => areas.push(polygon),
            _ => {}
        }
    }
    if !areas.is_empty() {
        let whole: Geometry = geo::MultiPolygon::new(std::mem::take(&mut areas)).map_coords(round).into();
        let whole = if valid::check(&whole).is_ok() { whole } else { valid::repair(&whole) };
        let rect = window.unwrap_or(bounds);
        let frame =
            rectangle(rect.min().x.floor(), rect.min().y.floor(), rect.max().x.ceil(), rect.max().y.ceil());
        // On the grid of whole units, so that rounding leaves it valid.
        let cut = overlay(&whole, &frame.into(), Operation::Intersection, Some(1.0)).ok()?;
        areas.extend(singles(&cut).into_iter().filter_map(|part| match part {
            Geometry::Polygon(area) if !area.exterior().0.is_empty() => Some(area),
            _ => None,
        }));
    }
    (!points.is_empty() || !lines.is_empty() || !areas.is_empty())
        .then(|| assemble(points, lines, areas, dimension))
}

/// The parts of a line inside a box (Liang & Barsky 1984).
fn clip_line(line: &LineString, rect: geo::Rect) -> Vec<LineString> {
    let mut pieces: Vec<LineString> = Vec::new();
    for part in line.lines() {
        let d = part.delta();
        let (mut from, mut to) = (0.0_f64, 1.0_f64);
        let sides = [
            (-d.x, part.start.x - rect.min().x),
            (d.x, rect.max().x - part.start.x),
            (-d.y, part.start.y - rect.min().y),
            (d.y, rect.max().y - part.start.y),
        ];
        for (speed, room) in sides {
            if speed == 0.0 && room < 0.0 {
                to = -1.0;
            } else if speed < 0.0 {
                from = from.max(room / speed);
            } else if speed > 0.0 {
                to = to.min(room / speed);
            }
        }
        if from > to {
            continue;
        }
        let start = if from == 0.0 { part.start } else { part.start + d * from };
        let end = if to == 1.0 { part.end } else { part.start + d * to };
        match pieces.last_mut() {
            Some(piece) if piece.0.last() == Some(&start) => piece.0.push(end),
            _ => pieces.push(LineString::new(vec![start, end])),
        }
    }
    pieces
}

const LAYER: Parameter = ("layer", Kind::Text);

pub(crate) static AS_MVT: Aggregate = Aggregate {
    name: "st_asmvt",
    aliases: &[],
    summary: "A vector tile of one layer from geometries in units of the tile (st_asmvtgeom), the layer's name, a struct of properties such as named_struct('name', name), a feature number and the units a side (4096)",
    overloads: &[
        &[GEOMETRY, LAYER],
        &[GEOMETRY, LAYER, ("properties", Kind::Struct)],
        &[GEOMETRY, LAYER, ("properties", Kind::Struct), ("id", Kind::Integer)],
        &[GEOMETRY, LAYER, ("properties", Kind::Struct), ("id", Kind::Integer), EXTENT],
    ],
    gives: Gives::Value(|| DataType::Binary),
    start: || Box::<Tile>::default(),
};

/// A property's value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Value {
    Text(String),
    /// The bits of a number.
    Double(u64),
    Integer(i64),
    Boolean(bool),
}

#[derive(Debug, Clone)]
struct Feature {
    wkb: Vec<u8>,
    id: Option<u64>,
    properties: Vec<(String, Value)>,
}

#[derive(Debug, Default)]
struct Tile {
    layers: BTreeMap<String, (u32, Vec<Feature>)>,
}

impl Fold for Tile {
    fn add(&mut self, call: &Call<'_>) -> Result<()> {
        let (bytes, layers) = (call.bytes(0)?, call.texts(1)?);
        let properties = if call.arity() > 2 { Some(call.structs(2)?) } else { None };
        let columns = properties.map(columns_of).transpose()?.unwrap_or_default();
        let ids = if call.arity() > 3 { Some(call.integers(3)?) } else { None };
        let extents = if call.arity() > 4 { Some(call.integers(4)?) } else { None };
        for row in 0..call.rows {
            let (Some(wkb), Some(layer)) = (bytes.get(row), layers.get(row)) else { continue };
            let extent = extents.as_ref().and_then(|column| column.get(row)).unwrap_or(4096);
            let Some(extent) = u32::try_from(extent).ok().filter(|extent| *extent > 0) else {
                return call.error(format!("an extent of {extent} is no tile"));
            };
            let id = ids.as_ref().and_then(|column| column.get(row)).and_then(|id| u64::try_from(id).ok());
            let has_properties = properties.is_none_or(|structs| structs.is_valid(row));
            let properties = columns
                .iter()
                .filter(|_| has_properties)
                .filter_map(|(name, column)| Some((name.clone(), value(column, row)?)))
                .collect();
            let known = self.layers.entry(layer.to_owned()).or_insert_with(|| (extent, Vec::new()));
            if known.0 != extent {
                return call.error(format!("the layer {layer} has extents {} and {extent}", known.0));
            }
            known.1.push(Feature { wkb: wkb.to_vec(), id, properties });
        }
        Ok(())
    }

    fn state(&self) -> Option<Vec<u8>> {
        (!self.layers.is_empty()).then(|| self.write_state())
    }

    fn merge(&mut self, state: &[u8]) -> Result<()> {
        if self.read_state(state).is_none() {
            return exec_err!("st_asmvt got a state that is not its own");
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<ScalarValue> {
        if self.layers.is_empty() {
            return Ok(ScalarValue::Binary(None));
        }
        let mut tile = Protobuf::default();
        for (name, (extent, features)) in &self.layers {
            tile.message(3, &layer(name, *extent, features)?);
        }
        Ok(ScalarValue::Binary(Some(tile.0)))
    }

    fn size(&self) -> usize {
        self.layers
            .values()
            .flat_map(|(_, features)| features)
            .map(|f| f.wkb.len() + 64 * f.properties.len() + 64)
            .sum()
    }
}

impl Tile {
    fn write_state(&self) -> Vec<u8> {
        let mut state = Protobuf::default();
        for (name, (extent, features)) in &self.layers {
            for feature in features {
                let mut one = Protobuf::default();
                one.bytes(1, name.as_bytes());
                one.number(2, u64::from(*extent));
                one.bytes(3, &feature.wkb);
                if let Some(id) = feature.id {
                    one.number(4, id);
                }
                for (key, value) in &feature.properties {
                    let mut property = Protobuf::default();
                    property.bytes(1, key.as_bytes());
                    property.message(2, &value.message());
                    one.message(5, &property);
                }
                state.message(1, &one);
            }
        }
        state.0
    }

    fn read_state(&mut self, state: &[u8]) -> Option<()> {
        for (_, item) in fields(state)? {
            let Item::Bytes(one) = item else { return None };
            let (mut name, mut extent) = (String::new(), 4096);
            let mut feature = Feature { wkb: Vec::new(), id: None, properties: Vec::new() };
            for field in fields(one)? {
                match field {
                    (1, Item::Bytes(text)) => name = String::from_utf8(text.to_vec()).ok()?,
                    (2, Item::Number(number)) => extent = number as u32,
                    (3, Item::Bytes(wkb)) => feature.wkb = wkb.to_vec(),
                    (4, Item::Number(id)) => feature.id = Some(id),
                    (5, Item::Bytes(property)) => {
                        let parts = fields(property)?;
                        let [(1, Item::Bytes(key)), (2, Item::Bytes(value))] = parts[..] else { return None };
                        feature.properties.push((String::from_utf8(key.to_vec()).ok()?, Value::read(value)?));
                    }
                    _ => return None,
                }
            }
            self.layers.entry(name).or_insert_with(|| (extent, Vec::new())).1.push(feature);
        }
        Some(())
    }
}

/// Columns of a struct as one of the types that tiles know.
fn columns_of(structs: &StructArray) -> Result<Vec<(String, ArrayRef)>> {
    structs
        .fields()
        .iter()
        .zip(structs.columns())
        .map(|(field, column)| {
            let wanted = match field.data_type() {
                DataType::Boolean => DataType::Boolean,
                kind if kind.is_integer() => DataType::Int64,
                kind if kind.is_floating() || matches!(kind, DataType::Decimal128(..)) => DataType::Float64,
                _ => DataType::Utf8,
            };
            Ok((field.name().clone(), arrow::compute::cast(column, &wanted)?))
        })
        .collect()
}

fn value(column: &ArrayRef, row: usize) -> Option<Value> {
    if column.is_null(row) {
        return None;
    }
    Some(match column.data_type() {
        DataType::Boolean => Value::Boolean(column.as_boolean().value(row)),
        DataType::Int64 => Value::Integer(column.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => Value::Double(column.as_primitive::<Float64Type>().value(row).to_bits()),
        _ => Value::Text(column.as_string::<i32>().value(row).to_owned()),
    })
}

impl Value {
    fn message(&self) -> Protobuf {
        let mut message = Protobuf::default();
        match self {
            Self::Text(text) => message.bytes(1, text.as_bytes()),
            Self::Double(bits) => message.fixed(3, *bits),
            Self::Integer(number) => message.number(6, zigzag(*number)),
            Self::Boolean(yes) => message.number(7, u64::from(*yes)),
        }
        message
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        match fields(bytes)?[..] {
            [(1, Item::Bytes(text))] => Some(Self::Text(String::from_utf8(text.to_vec()).ok()?)),
            [(3, Item::Fixed(bits))] => Some(Self::Double(bits)),
            [(6, Item::Number(bits))] => Some(Self::Integer((bits >> 1) as i64 ^ -((bits & 1) as i64))),
            [(7, Item::Number(yes))] => Some(Self::Boolean(yes != 0)),
            _ => None,
        }
    }
}

fn layer(name: &str, extent: u32, features: &[Feature]) -> Result<Protobuf> {
    let mut message = Protobuf::default();
    message.number(15, 2);
    message.bytes(1, name.as_bytes());
    let mut keys: Vec<&str> = Vec::new();
    let mut values: Vec<&Value> = Vec::new();
    let mut known_keys: HashMap<&str, u64> = HashMap::new();
    let mut known_values: HashMap<&Value, u64> = HashMap::new();
    for feature in features {
        let geometry = match decode(&feature.wkb) {
            Ok(geometry) => geometry,
            Err(error) => return exec_err!("st_asmvt: {error}"),
        };
        let Some((kind, commands)) = commands(&geometry) else { continue };
        let mut one = Protobuf::default();
        if let Some(id) = feature.id {
            one.number(1, id);
        }
        let mut tags = Vec::with_capacity(feature.properties.len() * 2);
        for (key, value) in &feature.properties {
            tags.push(*known_keys.entry(key).or_insert_with(|| {
                keys.push(key);
                keys.len() as u64 - 1
            }));
            tags.push(*known_values.entry(value).or_insert_with(|| {
                values.push(value);
                values.len() as u64 - 1
            }));
        }
        if !tags.is_empty() {
            one.packed(2, &tags);
        }
        one.number(3, kind);
        one.packed(4, &commands);
        message.message(2, &one);
    }
    for key in keys {
        message.bytes(3, key.as_bytes());
    }
    for value in values {
        message.message(4, &value.message());
    }
    message.number(5, u64::from(extent));
    Ok(message)
}

/// The type and the commands of a geometry (section 4.3 of the specification); `None` when there is nothing to draw.
fn commands(geometry: &Geometry) -> Option<(u64, Vec<u64>)> {
    let dimension = type_dimension(geometry);
    let parts: Vec<Geometry> =
        singles(geometry).into_iter().filter(|part| type_dimension(part) == dimension).collect();
    let mut pen = Pen::default();
    if dimension == 0 {
        let points: Vec<Coord> = parts
            .iter()
            .filter_map(|part| if let Geometry::Point(p) = part { Some(p.0) } else { None })
            .collect();
        if points.is_empty() {
            return None;
        }
        pen.command(1, &points);
    }
    for part in &parts {
        match part {
            Geometry::LineString(line) if line.0.len() > 1 => {
                pen.command(1, &line.0[..1]);
                pen.command(2, &line.0[1..]);
            }
            Geometry::Polygon(polygon) => {
                for (index, ring) in
                    std::iter::once(polygon.exterior()).chain(polygon.interiors()).enumerate()
                {
                    if ring.0.len() < 4 {
                        continue;
                    }
                    let mut coords = ring.0[..ring.0.len() - 1].to_vec();
                    // With y down, shells have a positive area by the surveyor's formula.
                    if (doubled_area(&ring.0) > 0.0) != (index == 0) {
                        coords.reverse();
                    }
                    pen.command(1, &coords[..1]);
                    pen.command(2, &coords[1..]);
                    pen.commands.push(7 | 1 << 3);
                }
            }
            _ => {}
        }
    }
    let kind = dimension as u64 + 1;
    (!pen.commands.is_empty() && (0..=2).contains(&dimension)).then_some((kind, pen.commands))
}

#[derive(Default)]
struct Pen {
    commands: Vec<u64>,
    x: i64,
    y: i64,
}

impl Pen {
    fn command(&mut self, id: u64, places: &[Coord]) {
        self.commands.push(id | (places.len() as u64) << 3);
        for place in places {
            let (x, y) = (place.x.round() as i64, place.y.round() as i64);
            self.commands.extend([zigzag(x - self.x), zigzag(y - self.y)]);
            (self.x, self.y) = (x, y);
        }
    }
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

/// Bytes of a protocol buffer message.
#[derive(Default)]
struct Protobuf(Vec<u8>);

impl Protobuf {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn number(&mut self, field: u64, number: u64) {
        self.varint(field << 3);
        self.varint(number);
    }

    fn fixed(&mut self, field: u64, bits: u64) {
        self.varint(field << 3 | 1);
        self.0.extend(bits.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn message(&mut self, field: u64, message: &Self) {
        self.bytes(field, &message.0);
    }

    fn packed(&mut self, field: u64, numbers: &[u64]) {
        let mut packed = Self::default();
        for number in numbers {
            packed.varint(*number);
        }
        self.bytes(field, &packed.0);
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Item<'a> {
    Number(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message in order.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Item<'_>)>> {
    fn varint(bytes: &mut &[u8]) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (first, rest) = bytes.split_first()?;
            *bytes = rest;
            number |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let item = match key & 7 {
            0 => Item::Number(varint(&mut bytes)?),
            1 => {
                let (fixed, rest) = bytes.split_first_chunk::<8>()?;
                bytes = rest;
                Item::Fixed(u64::from_le_bytes(*fixed))
            }
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (content, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                Item::Bytes(content)
            }
            _ => return None,
        };
        found.push((key >> 3, item));
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    #[test]
    fn finds_tiles_and_places_geometry_in_them() {
        check(&[
            (
                "st_astext(st_snaptogrid(st_tileenvelope(1, 1, 0), 0.1))",
                "POLYGON((0 0,20037508.3 0,20037508.3 20037508.3,0 20037508.3,0 0))",
            ),
            ("st_srid(st_tileenvelope(0, 0, 0))", "3857"),
            (
                "st_astext(st_asmvtgeom(st_point(25, 25), st_makeenvelope(0, 0, 100, 100)))",
                "POINT(1024 3072)",
            ),
            ("st_asmvtgeom(st_point(125, 25), st_makeenvelope(0, 0, 100, 100))", "NULL"),
            (
                "st_astext(st_asmvtgeom(st_point(125, 25), st_makeenvelope(0, 0, 100, 100), 4096, 256, false))",
                "POINT(5120 3072)",
            ),
            (
                "st_astext(st_asmvtgeom(st_geomfromtext('LINESTRING(-50 50,150 50)'), st_makeenvelope(0, 0, 100, 100), 100, 10))",
                "LINESTRING(-10 50,110 50)",
            ),
            (
                "st_astext(st_asmvtgeom(st_makeenvelope(50, 50, 500, 500), st_makeenvelope(0, 0, 100, 100), 100, 0))",
                "POLYGON((50 0,100 0,100 50,50 50,50 0))",
            ),
            (
                "st_asmvtgeom(st_makeenvelope(50, 50, 50.001, 50.001), st_makeenvelope(0, 0, 100, 100), 100, 0)",
                "NULL",
            ),
            ("st_asmvtgeom(NULL, st_makeenvelope(0, 0, 1, 1)), st_tileenvelope(NULL, 1, 1)", "NULL|NULL"),
        ]);
        fails("st_tileenvelope(1, 2, 0)", "st_tileenvelope: there is no tile 1/2/0");
        fails("st_asmvtgeom(st_point(1, 1), st_point(1, 1))", "the bounds have no area");
    }

    #[test]
    fn writes_the_example_of_the_specification() {
        // Section 4.3.5.6: a polygon of (3 6), (8 12), (20 34).
        let polygon = geo::wkt! { POLYGON((3. 6.,8. 12.,20. 34.,3. 6.)) }.into();
        let (kind, commands) = commands(&polygon).unwrap();
        assert_eq!((kind, commands), (3, vec![9, 6, 12, 18, 10, 12, 24, 44, 15]));
        // Section 4.3.5.2: points (5 7), (3 2).
        let points = geo::wkt! { MULTIPOINT(5. 7.,3. 2.) }.into();
        assert_eq!(super::commands(&points).unwrap(), (1, vec![17, 10, 14, 3, 9]));
    }

    #[test]
    fn collects_features_of_layers() {
        let rows = query(
            "SELECT encode(st_asmvt(st_point(x, x), 'stops', named_struct('name', name, 'n', x, 'on', x > 1), x), 'hex')
             FROM (VALUES (1, 'a'), (2, 'b'), (3, NULL)) AS t(x, name)",
        )
        .unwrap();
        let bytes: Vec<u8> = (0..rows[0].len() / 2)
            .map(|i| u8::from_str_radix(&rows[0][2 * i..2 * i + 2], 16).unwrap())
            .collect();
        let tile = fields(&bytes).unwrap();
        let [(3, Item::Bytes(layer))] = tile[..] else { panic!("{tile:?}") };
        let layer = fields(layer).unwrap();
        let of = |field| layer.iter().filter(|(number, _)| *number == field).count();
        // Three features, three keys, values a, b, 1, 2, 3, false, true.
        assert_eq!((of(2), of(3), of(4)), (3, 3, 7));
        assert!(layer.contains(&(15, Item::Number(2))) && layer.contains(&(5, Item::Number(4096))));
        assert!(layer.contains(&(1, Item::Bytes(b"stops"))));
    }

    #[test]
    fn a_state_comes_back() {
        let feature = Feature {
            wkb: vec![1, 2, 3],
            id: Some(7),
            properties: vec![
                ("a".to_owned(), Value::Integer(-5)),
                ("b".to_owned(), Value::Double(1.5_f64.to_bits())),
            ],
        };
        let mut tile = Tile::default();
        tile.layers.insert("x".to_owned(), (512, vec![feature]));
        let mut again = Tile::default();
        again.merge(&tile.state().unwrap()).unwrap();
        assert_eq!(format!("{tile:?}"), format!("{again:?}"));
    }
}
