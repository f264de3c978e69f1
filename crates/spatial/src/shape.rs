//! Geometry with all that its coordinates carry (x, y, z, m), for functions that take it apart, put it together or
//! write it down. What computes in the plane uses `geo` instead.

use twinlake_contracts::{Error, Result};

/// How deep collections may nest: deeper ones are refused, so that no input overflows the stack.
pub(crate) const DEEPEST: usize = 32;

fn invalid(message: impl Into<String>) -> Error {
    Error::data("invalid_geometry", message)
}

/// Whether coordinates have a third one and a measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Dimensions {
    pub z: bool,
    pub m: bool,
}

impl Dimensions {
    /// How many numbers a coordinate has.
    pub(crate) fn count(self) -> usize {
        2 + usize::from(self.z) + usize::from(self.m)
    }

    /// What either has.
    pub(crate) fn or(self, other: Self) -> Self {
        Self { z: self.z || other.z, m: self.m || other.m }
    }
}

/// x, y, z, m; what the geometry does not have is 0.
pub(crate) type Position = [f64; 4];

/// The seven types.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Form {
    /// `None` for an empty point.
    Point(Option<Position>),
    Line(Vec<Position>),
    Polygon(Vec<Vec<Position>>),
    MultiPoint(Vec<Shape>),
    MultiLine(Vec<Shape>),
    MultiPolygon(Vec<Shape>),
    Collection(Vec<Shape>),
}

/// A geometry.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shape {
    pub form: Form,
    pub dimensions: Dimensions,
}

/// WKB flavours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// Dimensions in the thousands of the type (ISO 13249-3).
    Iso,
    /// Dimensions and an optional reference system number in flags of the type (PostGIS).
    Extended { srid: Option<u32> },
}

impl Shape {
    pub(crate) fn new(form: Form, dimensions: Dimensions) -> Self {
        Self { form, dimensions }
    }

    /// The number of the type in WKB.
    pub(crate) fn code(&self) -> u32 {
        match self.form {
            Form::Point(_) => 1,
            Form::Line(_) => 2,
            Form::Polygon(_) => 3,
            Form::MultiPoint(_) => 4,
            Form::MultiLine(_) => 5,
            Form::MultiPolygon(_) => 6,
            Form::Collection(_) => 7,
        }
    }

    /// The members of a multi-part geometry or collection.
    pub(crate) fn members(&self) -> Option<&[Shape]> {
        match &self.form {
            Form::MultiPoint(members)
            | Form::MultiLine(members)
            | Form::MultiPolygon(members)
            | Form::Collection(members) => Some(members),
            _ => None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match &self.form {
            Form::Point(position) => position.is_none(),
            Form::Line(positions) => positions.is_empty(),
            Form::Polygon(rings) => rings.iter().all(Vec::is_empty),
            _ => self.members().unwrap_or_default().iter().all(Self::is_empty),
        }
    }

    /// The same with every list of positions (one of a point) changed; a list that comes back empty empties it.
    pub(crate) fn map_lists(&self, change: &mut impl FnMut(&[Position]) -> Vec<Position>) -> Self {
        let form = match &self.form {
            Form::Point(position) => {
                Form::Point(position.and_then(|p| change(std::slice::from_ref(&p)).first().copied()))
            }
            Form::Line(line) => Form::Line(change(line)),
            Form::Polygon(rings) => Form::Polygon(rings.iter().map(|ring| change(ring)).collect()),
            Form::MultiPoint(members) => {
                Form::MultiPoint(members.iter().map(|m| m.map_lists(change)).collect())
            }
            Form::MultiLine(members) => {
                Form::MultiLine(members.iter().map(|m| m.map_lists(change)).collect())
            }
            Form::MultiPolygon(members) => {
                Form::MultiPolygon(members.iter().map(|m| m.map_lists(change)).collect())
            }
            Form::Collection(members) => {
                Form::Collection(members.iter().map(|m| m.map_lists(change)).collect())
            }
        };
        Self { form, dimensions: self.dimensions }
    }

    /// The same with every position changed.
    pub(crate) fn map(&self, mut change: impl FnMut(Position) -> Position) -> Self {
        self.map_lists(&mut |list| list.iter().map(|p| change(*p)).collect())
    }

    /// The same with the dimensions given; coordinates that are new are 0.
    pub(crate) fn with_dimensions(&self, dimensions: Dimensions) -> Self {
        let mut shape = self.map(|[x, y, z, m]| {
            [x, y, if dimensions.z { z } else { 0.0 }, if dimensions.m { m } else { 0.0 }]
        });
        shape.set_dimensions(dimensions);
        shape
    }

    fn set_dimensions(&mut self, dimensions: Dimensions) {
        self.dimensions = dimensions;
        match &mut self.form {
            Form::MultiPoint(members)
            | Form::MultiLine(members)
            | Form::MultiPolygon(members)
            | Form::Collection(members) => {
                for member in members {
                    member.set_dimensions(dimensions);
                }
            }
            _ => {}
        }
    }

    /// All positions in order.
    pub(crate) fn positions(&self) -> Vec<Position> {
        let mut all = Vec::new();
        let _ = self.map_lists(&mut |list| {
            all.extend_from_slice(list);
            Vec::new()
        });
        all
    }

    /// Several geometries as the smallest type that holds them as they are: a multi-part one of equal single ones,
    /// else a collection. Dimensions are those that any of them has.
    pub(crate) fn collect(members: Vec<Self>) -> Self {
        let dimensions = members.iter().fold(Dimensions::default(), |all, one| all.or(one.dimensions));
        let members: Vec<Self> = members.into_iter().map(|one| one.with_dimensions(dimensions)).collect();
        let first = members.first().map_or(0, Self::code);
        let form = match first {
            1..=3 if members.iter().all(|one| one.code() == first) => match first {
                1 => Form::MultiPoint(members),
                2 => Form::MultiLine(members),
                _ => Form::MultiPolygon(members),
            },
            _ => Form::Collection(members),
        };
        Self { form, dimensions }
    }

    /// The multi-part geometry with this one as its only member; what is multi-part already stays.
    pub(crate) fn multi(self) -> Self {
        let dimensions = self.dimensions;
        let is_empty = self.is_empty();
        let alone = |shape: Self| if is_empty { Vec::new() } else { vec![shape] };
        let form = match self.form {
            Form::Point(_) => Form::MultiPoint(alone(self)),
            Form::Line(_) => Form::MultiLine(alone(self)),
            Form::Polygon(_) => Form::MultiPolygon(alone(self)),
            other => other,
        };
        Self { form, dimensions }
    }

    /// Reads WKB of either byte order, ISO or extended, and the reference system number of the latter.
    pub(crate) fn from_wkb(bytes: &[u8]) -> Result<(Self, Option<u32>)> {
        let mut reader = Reader { bytes, at: 0, srid: None };
        let shape = reader.geometry(0)?;
        if reader.at != bytes.len() {
            return Err(invalid(format!(
                "invalid WKB: {} bytes follow the geometry",
                bytes.len() - reader.at
            )));
        }
        Ok((shape, reader.srid))
    }

    /// Writes little-endian WKB (`big` for big-endian).
    pub(crate) fn to_wkb(&self, flavour: Flavour, big: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        Writer { bytes: &mut bytes, big }.geometry(self, flavour);
        bytes
    }

    /// ISO WKB, little-endian: how geometry travels.
    pub(crate) fn encode(&self) -> Vec<u8> {
        self.to_wkb(Flavour::Iso, false)
    }

    /// Well-known text as PostGIS writes it: `POINT Z (1 2 3)`; with at most `digits` decimals.
    pub(crate) fn to_wkt(&self, digits: Option<usize>) -> String {
        let mut text = String::new();
        self.write_wkt(&mut text, digits, true);
        text
    }

    fn write_wkt(&self, text: &mut String, digits: Option<usize>, named: bool) {
        const NAMES: [&str; 7] = [
            "POINT",
            "LINESTRING",
            "POLYGON",
            "MULTIPOINT",
            "MULTILINESTRING",
            "MULTIPOLYGON",
            "GEOMETRYCOLLECTION",
        ];
        let is_empty = match &self.form {
            Form::Polygon(rings) => rings.is_empty(),
            Form::Point(_) | Form::Line(_) => self.is_empty(),
            _ => self.members().unwrap_or_default().is_empty(),
        };
        if named {
            text.push_str(NAMES[self.code() as usize - 1]);
            text.push_str(match (self.dimensions.z, self.dimensions.m) {
                (false, false) if is_empty => " ",
                (false, false) => "",
                (true, false) => " Z ",
                (false, true) => " M ",
                (true, true) => " ZM ",
            });
        }
        if is_empty {
            text.push_str("EMPTY");
            return;
        }
        let dimensions = self.dimensions;
        let list = |text: &mut String, list: &[Position]| {
            if list.is_empty() {
                text.push_str("EMPTY");
                return;
            }
            text.push('(');
            for (index, position) in list.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_position(text, *position, dimensions, digits);
            }
            text.push(')');
        };
        match &self.form {
            Form::Point(position) => list(text, position.as_slice()),
            Form::Line(line) => list(text, line),
            Form::Polygon(rings) => {
                text.push('(');
                for (index, ring) in rings.iter().enumerate() {
                    if index > 0 {
                        text.push(',');
                    }
                    list(text, ring);
                }
                text.push(')');
            }
            _ => {
                text.push('(');
                let named = matches!(self.form, Form::Collection(_));
                for (index, member) in self.members().unwrap_or_default().iter().enumerate() {
                    if index > 0 {
                        text.push(',');
                    }
                    member.write_wkt(text, digits, named);
                }
                text.push(')');
            }
        }
    }

    /// Reads well-known text: ISO (`POINT Z (1 2 3)`), what PostGIS writes (`POINT(1 2 3)`), and an `SRID=4326;`
    /// before it.
    pub(crate) fn from_wkt(text: &str) -> Result<(Self, Option<u32>)> {
        let mut rest = text.trim_start();
        let mut srid = None;
        if rest.get(..5).is_some_and(|word| word.eq_ignore_ascii_case("SRID=")) {
            let Some((number, after)) = rest[5..].split_once(';') else {
                return Err(invalid("SRID= without a semicolon after its number"));
            };
            srid = Some(
                number.trim().parse().map_err(|_| invalid(format!("SRID={number} is not a whole number")))?,
            );
            rest = after;
        }
        let mut parser = Parser { text: rest, at: 0 };
        let shape = parser.geometry(0, None)?;
        if let Some(more) = parser.peek() {
            return Err(invalid(format!("'{more}' follows the geometry")));
        }
        Ok((shape, srid))
    }

    /// The plane geometry: x and y. An empty point becomes an empty `MultiPoint`, or nothing as a member.
    pub(crate) fn to_plane(&self) -> geo::Geometry {
        let coord = |[x, y, _, _]: &Position| geo::Coord { x: *x, y: *y };
        let line = |list: &[Position]| geo::LineString::new(list.iter().map(coord).collect());
        let polygon = |rings: &[Vec<Position>]| {
            let mut rings = rings.iter().map(|ring| line(ring));
            let shell = rings.next().unwrap_or_else(|| geo::LineString::new(Vec::new()));
            geo::Polygon::new(shell, rings.collect())
        };
        match &self.form {
            Form::Point(Some(position)) => geo::Point(coord(position)).into(),
            Form::Point(None) => geo::MultiPoint::new(Vec::new()).into(),
            Form::Line(list) => line(list).into(),
            Form::Polygon(rings) => polygon(rings).into(),
            Form::MultiPoint(members) => geo::MultiPoint::new(
                members.iter().flat_map(Self::positions).map(|p| geo::Point(coord(&p))).collect(),
            )
            .into(),
            Form::MultiLine(members) => geo::MultiLineString::new(
                members
                    .iter()
                    .filter_map(|m| if let Form::Line(l) = &m.form { Some(line(l)) } else { None })
                    .collect(),
            )
            .into(),
            Form::MultiPolygon(members) => geo::MultiPolygon::new(
                members
                    .iter()
                    .filter_map(|m| if let Form::Polygon(r) = &m.form { Some(polygon(r)) } else { None })
                    .collect(),
            )
            .into(),
            Form::Collection(members) => {
                geo::Geometry::GeometryCollection(members.iter().map(Self::to_plane).collect())
            }
        }
    }

    /// The same for `geo`; `None` of a point is an empty `MultiPoint` there.
    pub(crate) fn of(geometry: &geo::Geometry) -> Self {
        let plane = Dimensions::default();
        let position = |c: &geo::Coord| [c.x, c.y, 0.0, 0.0];
        let line = |line: &geo::LineString| line.0.iter().map(position).collect::<Vec<_>>();
        let rings = |polygon: &geo::Polygon| {
            std::iter::once(polygon.exterior())
                .chain(polygon.interiors())
                .map(line)
                .filter(|ring| !ring.is_empty())
                .collect::<Vec<_>>()
        };
        let form = match geometry {
            geo::Geometry::Point(point) => Form::Point(Some(position(&point.0))),
            geo::Geometry::Line(one) => Form::Line(vec![position(&one.start), position(&one.end)]),
            geo::Geometry::LineString(one) => Form::Line(line(one)),
            geo::Geometry::Polygon(one) => Form::Polygon(rings(one)),
            geo::Geometry::Rect(one) => Form::Polygon(rings(&one.to_polygon())),
            geo::Geometry::Triangle(one) => Form::Polygon(rings(&one.to_polygon())),
            geo::Geometry::MultiPoint(many) => Form::MultiPoint(
                many.iter().map(|p| Self::new(Form::Point(Some(position(&p.0))), plane)).collect(),
            ),
            geo::Geometry::MultiLineString(many) => {
                Form::MultiLine(many.iter().map(|l| Self::new(Form::Line(line(l)), plane)).collect())
            }
            geo::Geometry::MultiPolygon(many) => {
                Form::MultiPolygon(many.iter().map(|p| Self::new(Form::Polygon(rings(p)), plane)).collect())
            }
            geo::Geometry::GeometryCollection(many) => Form::Collection(many.iter().map(Self::of).collect()),
        };
        Self::new(form, plane)
    }
}

fn write_position(text: &mut String, [x, y, z, m]: Position, dimensions: Dimensions, digits: Option<usize>) {
    let number = |text: &mut String, value: f64| match digits {
        Some(digits) => {
            let fixed = format!("{value:.digits$}");
            let short = if digits > 0 { fixed.trim_end_matches('0').trim_end_matches('.') } else { &fixed };
            text.push_str(if short == "-0" { "0" } else { short });
        }
        None => text.push_str(&value.to_string()),
    };
    number(text, x);
    text.push(' ');
    number(text, y);
    for (has, value) in [(dimensions.z, z), (dimensions.m, m)] {
        if has {
            text.push(' ');
            number(text, value);
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    srid: Option<u32>,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let taken = self.bytes.get(self.at..self.at + N).and_then(|slice| slice.try_into().ok());
        self.at += N;
        taken.ok_or_else(|| invalid("invalid WKB: it ends within the geometry"))
    }

    fn number(&mut self, big: bool) -> Result<u32> {
        let bytes = self.take()?;
        Ok(if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// A count of things of which each takes `size` bytes at least.
    fn count(&mut self, big: bool, size: usize) -> Result<usize> {
        let count = self.number(big)? as usize;
        if count.saturating_mul(size) > self.bytes.len().saturating_sub(self.at) {
            return Err(invalid(format!("invalid WKB: {count} items do not fit into its bytes")));
        }
        Ok(count)
    }

    fn position(&mut self, big: bool, dimensions: Dimensions) -> Result<Position> {
        let mut float = || -> Result<f64> {
            let bytes = self.take()?;
            Ok(if big { f64::from_be_bytes(bytes) } else { f64::from_le_bytes(bytes) })
        };
        let (x, y) = (float()?, float()?);
        let z = if dimensions.z { float()? } else { 0.0 };
        let m = if dimensions.m { float()? } else { 0.0 };
        Ok([x, y, z, m])
    }

    fn list(&mut self, big: bool, dimensions: Dimensions) -> Result<Vec<Position>> {
        let count = self.count(big, dimensions.count() * 8)?;
        (0..count).map(|_| self.position(big, dimensions)).collect()
    }

    fn members(&mut self, big: bool, depth: usize, code: Option<u32>) -> Result<Vec<Shape>> {
        let count = self.count(big, 9)?;
        (0..count)
            .map(|_| {
                let member = self.geometry(depth + 1)?;
                match code {
                    Some(code) if member.code() != code => {
                        Err(invalid("invalid WKB: a member of another type in a multi-part geometry"))
                    }
                    _ => Ok(member),
                }
            })
            .collect()
    }

    fn geometry(&mut self, depth: usize) -> Result<Shape> {
        if depth > DEEPEST {
            return Err(invalid(format!("collections nest deeper than {DEEPEST}")));
        }
        let [order] = self.take()?;
        let big = match order {
            0 => true,
            1 => false,
            other => return Err(invalid(format!("invalid WKB: {other} is not a byte order"))),
        };
        let word = self.number(big)?;
        let iso = (word & 0x0fff_ffff) / 1000;
        let dimensions = Dimensions {
            z: word & 0x8000_0000 != 0 || iso == 1 || iso == 3,
            m: word & 0x4000_0000 != 0 || iso == 2 || iso == 3,
        };
        if word & 0x2000_0000 != 0 {
            let number = self.number(big)?;
            self.srid = self.srid.or(Some(number));
        }
        let form = match (word & 0x0fff_ffff) % 1000 {
            _ if iso > 3 => return Err(invalid(format!("invalid WKB: {word} is not a geometry type"))),
            1 => {
                let position = self.position(big, dimensions)?;
                Form::Point((!(position[0].is_nan() && position[1].is_nan())).then_some(position))
            }
            2 => Form::Line(self.list(big, dimensions)?),
            3 => {
                let count = self.count(big, 4)?;
                Form::Polygon((0..count).map(|_| self.list(big, dimensions)).collect::<Result<_>>()?)
            }
            4 => Form::MultiPoint(self.members(big, depth, Some(1))?),
            5 => Form::MultiLine(self.members(big, depth, Some(2))?),
            6 => Form::MultiPolygon(self.members(big, depth, Some(3))?),
            7 => Form::Collection(self.members(big, depth, None)?),
            _ => return Err(invalid(format!("invalid WKB: {word} is not a geometry type"))),
        };
        Ok(Shape { form, dimensions })
    }
}

struct Writer<'a> {
    bytes: &'a mut Vec<u8>,
    big: bool,
}

impl Writer<'_> {
    fn number(&mut self, number: u32) {
        self.bytes.extend(if self.big { number.to_be_bytes() } else { number.to_le_bytes() });
    }

    fn position(&mut self, [x, y, z, m]: Position, dimensions: Dimensions) {
        for (has, value) in [(true, x), (true, y), (dimensions.z, z), (dimensions.m, m)] {
            if has {
                self.bytes.extend(if self.big { value.to_be_bytes() } else { value.to_le_bytes() });
            }
        }
    }

    fn list(&mut self, list: &[Position], dimensions: Dimensions) {
        self.number(list.len() as u32);
        for position in list {
            self.position(*position, dimensions);
        }
    }

    fn geometry(&mut self, shape: &Shape, flavour: Flavour) {
        let dimensions = shape.dimensions;
        self.bytes.push(u8::from(!self.big));
        match flavour {
            Flavour::Iso => {
                self.number(shape.code() + 1000 * u32::from(dimensions.z) + 2000 * u32::from(dimensions.m));
            }
            Flavour::Extended { srid } => {
                let flags = (u32::from(dimensions.z) << 31)
                    | (u32::from(dimensions.m) << 30)
                    | (u32::from(srid.is_some()) << 29);
                self.number(shape.code() | flags);
                if let Some(srid) = srid {
                    self.number(srid);
                }
            }
        }
        match &shape.form {
            Form::Point(position) => self.position(position.unwrap_or([f64::NAN; 4]), dimensions),
            Form::Line(line) => self.list(line, dimensions),
            Form::Polygon(rings) => {
                self.number(rings.len() as u32);
                for ring in rings {
                    self.list(ring, dimensions);
                }
            }
            _ => {
                let members = shape.members().unwrap_or_default();
                self.number(members.len() as u32);
                let inner = match flavour {
                    Flavour::Iso => Flavour::Iso,
                    Flavour::Extended { .. } => Flavour::Extended { srid: None },
                };
                for member in members {
                    self.geometry(member, inner);
                }
            }
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&mut self) -> Option<char> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        self.text[self.at..].chars().next()
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn expect(&mut self, wanted: char) -> Result<()> {
        if self.eat(wanted) {
            return Ok(());
        }
        Err(invalid(match self.peek() {
            Some(found) => format!("'{wanted}' is expected at character {}, not '{found}'", self.at + 1),
            None => format!("'{wanted}' is missing at the end"),
        }))
    }

    fn word(&mut self) -> &'a str {
        self.peek();
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// Whether the next word is the one given; it is taken then.
    fn eat_word(&mut self, wanted: &str) -> bool {
        let before = self.at;
        let found = self.word().eq_ignore_ascii_case(wanted);
        if !found {
            self.at = before;
        }
        found
    }

    fn number(&mut self) -> Result<f64> {
        self.peek();
        let rest = &self.text[self.at..];
        let end =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c))).unwrap_or(rest.len());
        let number: f64 = rest[..end]
            .parse()
            .map_err(|_| invalid(format!("a number is expected at character {}", self.at + 1)))?;
        self.at += end;
        Ok(number)
    }

    /// A position; `dimensions` are learnt from the first one if the text did not say them.
    fn position(&mut self, dimensions: &mut Option<Dimensions>) -> Result<Position> {
        let mut numbers = Vec::with_capacity(4);
        while matches!(self.peek(), Some(c) if c != ',' && c != ')') && numbers.len() < 5 {
            numbers.push(self.number()?);
        }
        let known = match dimensions {
            Some(known) => *known,
            None => *dimensions.insert(Dimensions { z: numbers.len() >= 3, m: numbers.len() >= 4 }),
        };
        if numbers.len() != known.count() {
            return Err(invalid(format!("a position has {} numbers, not {}", known.count(), numbers.len())));
        }
        let mut rest = numbers[2..].iter().copied();
        let z = if known.z { rest.next() } else { None };
        let m = if known.m { rest.next() } else { None };
        Ok([numbers[0], numbers[1], z.unwrap_or(0.0), m.unwrap_or(0.0)])
    }

    fn each<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        if self.eat_word("EMPTY") {
            return Ok(Vec::new());
        }
        self.expect('(')?;
        let mut items = vec![item(self)?];
        while self.eat(',') {
            items.push(item(self)?);
        }
        self.expect(')')?;
        Ok(items)
    }

    fn geometry(&mut self, depth: usize, outer: Option<Dimensions>) -> Result<Shape> {
        if depth > DEEPEST {
            return Err(invalid(format!("collections nest deeper than {DEEPEST}")));
        }
        let name = self.word().to_ascii_uppercase();
        // The dimensions may be part of the word: POINTZ.
        let (name, mut said) = ["ZM", "Z", "M"]
            .iter()
            .find_map(|ending| {
                let stem = name.strip_suffix(ending)?;
                Some((stem.to_owned(), Some(Dimensions { z: ending.contains('Z'), m: ending.contains('M') })))
            })
            .unwrap_or((name, None));
        if said.is_none() {
            let before = self.at;
            said = match self.word().to_ascii_uppercase().as_str() {
                "Z" => Some(Dimensions { z: true, m: false }),
                "M" => Some(Dimensions { z: false, m: true }),
                "ZM" => Some(Dimensions { z: true, m: true }),
                _ => {
                    self.at = before;
                    None
                }
            };
        }
        let mut dimensions = said.or(outer);
        let form = match name.as_str() {
            "POINT" => {
                Form::Point(self.each(|p| p.position(&mut dimensions)).and_then(|list| match list[..] {
                    [] => Ok(None),
                    [one] => Ok(Some(one)),
                    _ => Err(invalid("a point has one position")),
                })?)
            }
            "LINESTRING" | "LINEARRING" => Form::Line(self.each(|p| p.position(&mut dimensions))?),
            "POLYGON" => Form::Polygon(self.each(|p| p.each(|p| p.position(&mut dimensions)))?),
            "MULTIPOINT" => {
                let points = self.each(|p| match p.peek() {
                    Some('(') => Ok(p.each(|p| p.position(&mut dimensions))?.first().copied()),
                    _ if p.eat_word("EMPTY") => Ok(None),
                    _ => p.position(&mut dimensions).map(Some),
                })?;
                let plain = dimensions.unwrap_or_default();
                Form::MultiPoint(points.into_iter().map(|one| Shape::new(Form::Point(one), plain)).collect())
            }
            "MULTILINESTRING" => {
                let lines = self.each(|p| p.each(|p| p.position(&mut dimensions)))?;
                let plain = dimensions.unwrap_or_default();
                Form::MultiLine(lines.into_iter().map(|one| Shape::new(Form::Line(one), plain)).collect())
            }
            "MULTIPOLYGON" => {
                let areas = self.each(|p| p.each(|p| p.each(|p| p.position(&mut dimensions))))?;
                let plain = dimensions.unwrap_or_default();
                Form::MultiPolygon(
                    areas.into_iter().map(|one| Shape::new(Form::Polygon(one), plain)).collect(),
                )
            }
            "GEOMETRYCOLLECTION" => {
                let members = self.each(|p| p.geometry(depth + 1, dimensions))?;
                let all =
                    members.iter().fold(dimensions.unwrap_or_default(), |all, one| all.or(one.dimensions));
                dimensions = Some(all);
                Form::Collection(members.into_iter().map(|one| one.with_dimensions(all)).collect())
            }
            other => return Err(invalid(format!("'{other}' is not a geometry type"))),
        };
        Ok(Shape { form, dimensions: dimensions.unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_give_back_every_form() {
        for text in [
            "POINT(1 2)",
            "POINT Z (1 2 3)",
            "POINT M (1 2 3)",
            "POINT ZM (1 2 3 4)",
            "POINT EMPTY",
            "POINT Z EMPTY",
            "LINESTRING(0 0,1.5 -2)",
            "POLYGON((0 0,1 0,1 1,0 0),(0.1 0.1,0.2 0.1,0.2 0.2,0.1 0.1))",
            "MULTIPOINT((1 2),EMPTY)",
            "MULTILINESTRING Z ((0 0 1,1 1 2),EMPTY)",
            "MULTIPOLYGON(((0 0,1 0,1 1,0 0)))",
            "GEOMETRYCOLLECTION(POINT(1 2),GEOMETRYCOLLECTION(LINESTRING EMPTY))",
            "GEOMETRYCOLLECTION EMPTY",
        ] {
            let (shape, _) = Shape::from_wkt(text).unwrap();
            assert_eq!(shape.to_wkt(None), text);
            for flavour in [Flavour::Iso, Flavour::Extended { srid: Some(4326) }] {
                for big in [false, true] {
                    let (read, srid) = Shape::from_wkb(&shape.to_wkb(flavour, big)).unwrap();
                    assert_eq!(read, shape, "{text}");
                    assert_eq!(srid.is_some(), flavour != Flavour::Iso);
                }
            }
        }
    }

    #[test]
    fn reads_what_others_write() {
        for (text, expected) in [
            ("point z(1 2 3)", "POINT Z (1 2 3)"),
            ("POINTZM(1 2 3 4)", "POINT ZM (1 2 3 4)"),
            ("POINT(1 2 3)", "POINT Z (1 2 3)"),
            ("  MULTIPOINT ( 1 2 , 3 4 ) ", "MULTIPOINT((1 2),(3 4))"),
            ("SRID=3857;LINEARRING(0 0, 1e1 0, 0 -.5, 0 0)", "LINESTRING(0 0,10 0,0 -0.5,0 0)"),
        ] {
            assert_eq!(Shape::from_wkt(text).unwrap().0.to_wkt(None), expected);
        }
        for bad in [
            "",
            "POINT",
            "POINT(1)",
            "POINT(1 2",
            "POINT(1 2) x",
            "POINT(1 2,3 4)",
            "LINESTRING(1 2,3 4 5)",
            "SRID=x;POINT(1 2)",
        ] {
            assert!(Shape::from_wkt(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn deep_nesting_and_huge_counts_are_refused() {
        let deep = format!("{}POINT(1 2){}", "GEOMETRYCOLLECTION(".repeat(100_000), ")".repeat(100_000));
        assert!(Shape::from_wkt(&deep).unwrap_err().to_string().contains("nest deeper"));
        let bytes: Vec<u8> = [1, 7, 0, 0, 0, 1, 0, 0, 0].repeat(100_000);
        assert!(Shape::from_wkb(&bytes).unwrap_err().to_string().contains("nest deeper"));
        assert!(Shape::from_wkb(&[1, 2, 0, 0, 0, 255, 255, 255, 255]).is_err());
    }
}
