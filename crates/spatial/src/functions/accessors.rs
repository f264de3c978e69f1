//! What a geometry is made of: members, rings, points, dimensions.

use arrow::array::{
    ArrayRef, BinaryArray, BinaryBuilder, BooleanArray, Float64Array, Int64Array, ListBuilder,
};
use datafusion::common::Result;

use crate::call::Call;
use crate::definition::{BOOLEAN, Definition, FLOAT64, INT64, Kind, Output, Parameter, UTF8};
use crate::shape::{Dimensions, Form, Position, Shape};

const G: &[&[Parameter]] = &[&[("geometry", Kind::Geometry)]];
const NTH: &[&[Parameter]] = &[&[("geometry", Kind::Geometry), ("n", Kind::Integer)]];

pub(crate) static NUM_GEOMETRIES: Definition = Definition::new(
    "st_numgeometries",
    "How many members a multi-part geometry or collection has; 1 for a single geometry, 0 for an empty one",
    G,
    INT64,
    |call| {
        count(call, |shape| match shape.members() {
            Some(members) => Some(members.len()),
            None => Some(usize::from(!shape.is_empty())),
        })
    },
);

pub(crate) static GEOMETRY_N: Definition = Definition::new(
    "st_geometryn",
    "The n-th member, from 1; a single geometry is its own first member; null when there is none",
    NTH,
    Output::Geometry,
    |call| {
        nth(call, |shape, n| match shape.members() {
            Some(members) => members.get(n).cloned(),
            None => (n == 0 && !shape.is_empty()).then(|| shape.clone()),
        })
    },
);

pub(crate) static DUMP: Definition = Definition::new(
    "st_dump",
    "The single geometries that a geometry is made of, as a list; unnest makes rows of it",
    G,
    Output::Geometries,
    |call| {
        list(call, |shape| {
            let mut parts = Vec::new();
            singles(shape, &mut parts);
            parts
        })
    },
);

pub(crate) static DUMP_POINTS: Definition = Definition::new(
    "st_dumppoints",
    "All points of a geometry in order, as a list; unnest makes rows of it",
    G,
    Output::Geometries,
    |call| list(call, |shape| points(shape).collect()),
);

pub(crate) static DUMP_RINGS: Definition = Definition::new(
    "st_dumprings",
    "The rings of a polygon as polygons without holes, the shell first, as a list; null for other geometries",
    G,
    Output::Geometries,
    |call| {
        list_or_null(call, |shape| match &shape.form {
            Form::Polygon(rings) => Some(
                rings
                    .iter()
                    .map(|ring| Shape::new(Form::Polygon(vec![ring.clone()]), shape.dimensions))
                    .collect(),
            ),
            _ => None,
        })
    },
);

pub(crate) static POINTS: Definition = Definition::new(
    "st_points",
    "All points of a geometry as a MULTIPOINT, repeated ones too",
    G,
    Output::Geometry,
    |call| {
        call.each_shape::<BinaryArray, _>(|shape| {
            let all = Form::MultiPoint(points(shape).collect());
            Ok(Some(Shape::new(all, shape.dimensions).encode()))
        })
    },
);

pub(crate) static EXTERIOR_RING: Definition = Definition::new(
    "st_exteriorring",
    "The shell of a polygon as a line; null for other geometries",
    G,
    Output::Geometry,
    |call| {
        call.each_shape::<BinaryArray, _>(|shape| {
            Ok(polygon(shape).map(|rings| line(rings.first().cloned().unwrap_or_default(), shape).encode()))
        })
    },
);

pub(crate) static INTERIOR_RING_N: Definition = Definition::new(
    "st_interiorringn",
    "The n-th hole of a polygon, from 1, as a line; null when there is none",
    NTH,
    Output::Geometry,
    |call| nth(call, |shape, n| polygon(shape)?.get(n + 1).map(|ring| line(ring.clone(), shape))),
);

pub(crate) static NUM_INTERIOR_RINGS: Definition = Definition::new(
    "st_numinteriorrings",
    "How many holes a polygon has; null for other geometries",
    G,
    INT64,
    |call| count(call, |shape| polygon(shape).map(|rings| rings.len().saturating_sub(1))),
)
.also(&["st_numinteriorring"]);

pub(crate) static N_RINGS: Definition = Definition::new(
    "st_nrings",
    "How many rings polygons have, shells and holes; 0 for points and lines",
    G,
    INT64,
    |call| count(call, |shape| Some(rings(shape))),
);

pub(crate) static NUM_POINTS: Definition = Definition::new(
    "st_numpoints",
    "How many points a line has; null for other geometries (st_npoints counts those of any)",
    G,
    INT64,
    |call| count(call, |shape| if let Form::Line(line) = &shape.form { Some(line.len()) } else { None }),
);

pub(crate) static POINT_N: Definition = Definition::new(
    "st_pointn",
    "The n-th point of a line, from 1, or from the end when n is negative; null when there is none and for other geometries",
    NTH,
    Output::Geometry,
    |call| {
        let (bytes, numbers) = (call.bytes(0)?, call.integers(1)?);
        call.rows::<BinaryArray, _>(|row| {
            let (Some(bytes), Some(n)) = (bytes.get(row), numbers.get(row)) else { return Ok(None) };
            let shape = call.shape(bytes)?;
            let Form::Line(line) = &shape.form else { return Ok(None) };
            let index = match n {
                0 => return Ok(None),
                n if n > 0 => usize::try_from(n - 1).ok(),
                n => usize::try_from(n.unsigned_abs()).ok().and_then(|back| line.len().checked_sub(back)),
            };
            Ok(index.and_then(|index| line.get(index)).map(|at| point(*at, shape.dimensions).encode()))
        })
    },
);

pub(crate) static DIMENSION: Definition = Definition::new(
    "st_dimension",
    "0 for points, 1 for lines, 2 for areas; the largest of a collection's members; also of an empty geometry, 0 for an empty collection",
    G,
    INT64,
    |call| call.each_shape::<Int64Array, _>(|shape| Ok(Some(inherent(shape)))),
);

pub(crate) static COORD_DIM: Definition =
    Definition::new("st_coorddim", "How many numbers a coordinate has: 2, 3 or 4", G, INT64, |call| {
        count(call, |shape| Some(shape.dimensions.count()))
    })
    .also(&["st_ndims"]);

pub(crate) static HAS_Z: Definition =
    Definition::new("st_hasz", "Whether coordinates have a third one", G, BOOLEAN, |call| {
        call.each_shape::<BooleanArray, _>(|shape| Ok(Some(shape.dimensions.z)))
    });

pub(crate) static HAS_M: Definition =
    Definition::new("st_hasm", "Whether coordinates have a measure", G, BOOLEAN, |call| {
        call.each_shape::<BooleanArray, _>(|shape| Ok(Some(shape.dimensions.m)))
    });

pub(crate) static ZM_FLAG: Definition = Definition::new(
    "st_zmflag",
    "What coordinates have beside x and y: 0 nothing, 1 a measure, 2 a third coordinate, 3 both",
    G,
    INT64,
    |call| count(call, |shape| Some(usize::from(shape.dimensions.m) + 2 * usize::from(shape.dimensions.z))),
);

pub(crate) static Z: Definition = Definition::new(
    "st_z",
    "The third coordinate of a point; null without one and for an empty point",
    G,
    FLOAT64,
    |call| coordinate(call, |position, has| has.z.then_some(position[2])),
);

pub(crate) static M: Definition = Definition::new(
    "st_m",
    "The measure of a point; null without one and for an empty point",
    G,
    FLOAT64,
    |call| coordinate(call, |position, has| has.m.then_some(position[3])),
);

pub(crate) static ZMIN: Definition =
    Definition::new("st_zmin", "The smallest third coordinate; null without one", G, FLOAT64, |call| {
        extreme(call, 2, f64::min)
    });
pub(crate) static ZMAX: Definition =
    Definition::new("st_zmax", "The largest third coordinate; null without one", G, FLOAT64, |call| {
        extreme(call, 2, f64::max)
    });
pub(crate) static MMIN: Definition =
    Definition::new("st_mmin", "The smallest measure; null without one", G, FLOAT64, |call| {
        extreme(call, 3, f64::min)
    });
pub(crate) static MMAX: Definition =
    Definition::new("st_mmax", "The largest measure; null without one", G, FLOAT64, |call| {
        extreme(call, 3, f64::max)
    });

pub(crate) static IS_CLOSED: Definition = Definition::new(
    "st_isclosed",
    "Whether every line ends where it starts; true for points and areas, false for an empty geometry",
    G,
    BOOLEAN,
    |call| call.each_shape::<BooleanArray, _>(|shape| Ok(Some(is_closed(shape)))),
);

pub(crate) static IS_RING: Definition = Definition::new(
    "st_isring",
    "Whether a line is closed and simple; null for other geometries",
    G,
    BOOLEAN,
    |call| {
        call.each_shape::<BooleanArray, _>(|shape| {
            Ok(matches!(shape.form, Form::Line(_))
                .then(|| is_closed(shape) && crate::topology::simple::is_simple(&shape.to_plane())))
        })
    },
);

pub(crate) static IS_COLLECTION: Definition = Definition::new(
    "st_iscollection",
    "Whether a geometry is a collection or multi-part",
    G,
    BOOLEAN,
    |call| call.each_shape::<BooleanArray, _>(|shape| Ok(Some(shape.members().is_some()))),
);

pub(crate) static SUMMARY: Definition =
    Definition::new("st_summary", "Type and size of a geometry in words", G, UTF8, |call| {
        call.each_shape::<arrow::array::StringArray, _>(|shape| {
            let letters = format!(
                "{}{}",
                if shape.dimensions.z { "Z" } else { "" },
                if shape.dimensions.m { "M" } else { "" }
            );
            let name = shape.to_wkt(Some(0));
            let name = name.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
            let what = match (&shape.form, shape.members()) {
                (_, Some(members)) => format!("{} members", members.len()),
                (Form::Polygon(rings), _) => format!("{} rings", rings.len()),
                _ => format!("{} points", shape.positions().len()),
            };
            Ok(Some(format!("{name}[{letters}] with {what}")))
        })
    });

fn count(call: &Call<'_>, of: fn(&Shape) -> Option<usize>) -> Result<ArrayRef> {
    call.each_shape::<Int64Array, _>(|shape| Ok(of(shape).map(|count| count as i64)))
}

fn nth(call: &Call<'_>, take: fn(&Shape, usize) -> Option<Shape>) -> Result<ArrayRef> {
    let (bytes, numbers) = (call.bytes(0)?, call.integers(1)?);
    call.rows::<BinaryArray, _>(|row| {
        let (Some(bytes), Some(n)) = (bytes.get(row), numbers.get(row)) else { return Ok(None) };
        let shape = call.shape(bytes)?;
        let index = usize::try_from(n).ok().and_then(|n| n.checked_sub(1));
        Ok(index.and_then(|index| take(&shape, index)).map(|part| part.encode()))
    })
}

pub(crate) fn list(call: &Call<'_>, parts: fn(&Shape) -> Vec<Shape>) -> Result<ArrayRef> {
    list_or_null(call, |shape| Some(parts(shape)))
}

fn list_or_null(call: &Call<'_>, parts: impl Fn(&Shape) -> Option<Vec<Shape>>) -> Result<ArrayRef> {
    let bytes = call.bytes(0)?;
    let mut lists = list_builder(call);
    for row in 0..call.rows {
        match bytes.get(row).map(|bytes| call.shape(bytes)).transpose()?.and_then(|shape| parts(&shape)) {
            Some(parts) => {
                for part in parts {
                    lists.values().append_value(part.encode());
                }
                lists.append(true);
            }
            None => lists.append(false),
        }
    }
    Ok(std::sync::Arc::new(lists.finish()))
}

/// A builder of the list of geometries that the call was planned to give.
pub(crate) fn list_builder(call: &Call<'_>) -> ListBuilder<BinaryBuilder> {
    let lists = ListBuilder::new(BinaryBuilder::new());
    match call.result.data_type() {
        arrow::datatypes::DataType::List(item) => lists.with_field(std::sync::Arc::clone(item)),
        _ => lists,
    }
}

/// The single geometries of a shape, collections opened at every depth.
pub(crate) fn singles(shape: &Shape, into: &mut Vec<Shape>) {
    match shape.members() {
        Some(members) => members.iter().for_each(|member| singles(member, into)),
        None => into.push(shape.clone()),
    }
}

fn point(at: Position, dimensions: Dimensions) -> Shape {
    Shape::new(Form::Point(Some(at)), dimensions)
}

fn line(positions: Vec<Position>, like: &Shape) -> Shape {
    Shape::new(Form::Line(positions), like.dimensions)
}

fn points(shape: &Shape) -> impl Iterator<Item = Shape> + use<> {
    let dimensions = shape.dimensions;
    shape.positions().into_iter().map(move |at| point(at, dimensions))
}

fn polygon(shape: &Shape) -> Option<&[Vec<Position>]> {
    if let Form::Polygon(rings) = &shape.form { Some(rings) } else { None }
}

fn rings(shape: &Shape) -> usize {
    match (&shape.form, shape.members()) {
        (Form::Polygon(rings), _) => rings.len(),
        (_, Some(members)) => members.iter().map(rings).sum(),
        _ => 0,
    }
}

fn inherent(shape: &Shape) -> i64 {
    match shape.form {
        Form::Point(_) | Form::MultiPoint(_) => 0,
        Form::Line(_) | Form::MultiLine(_) => 1,
        Form::Polygon(_) | Form::MultiPolygon(_) => 2,
        Form::Collection(ref members) => members.iter().map(inherent).max().unwrap_or(0),
    }
}

fn coordinate(call: &Call<'_>, take: fn(Position, Dimensions) -> Option<f64>) -> Result<ArrayRef> {
    call.each_shape::<Float64Array, _>(|shape| match &shape.form {
        Form::Point(position) => Ok(position.and_then(|position| take(position, shape.dimensions))),
        _ if shape.is_empty() => Ok(None),
        _ => call.error("takes a point; st_centroid makes one of other geometries"),
    })
}

fn extreme(call: &Call<'_>, index: usize, pick: fn(f64, f64) -> f64) -> Result<ArrayRef> {
    call.each_shape::<Float64Array, _>(|shape| {
        let has = if index == 2 { shape.dimensions.z } else { shape.dimensions.m };
        Ok(if has { shape.positions().iter().map(|p| p[index]).reduce(pick) } else { None })
    })
}

fn is_closed(shape: &Shape) -> bool {
    if shape.is_empty() {
        return false;
    }
    match &shape.form {
        Form::Line(line) => line.first().map(|p| &p[..3]) == line.last().map(|p| &p[..3]),
        Form::MultiLine(members) | Form::Collection(members) => members.iter().all(is_closed),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn takes_every_type_apart() {
        every_type("st_numgeometries", ["1", "1", "1", "2", "2", "2", "2"]);
        every_type("st_nrings", ["0", "0", "1", "0", "0", "2", "0"]);
        every_type("st_dimension", ["0", "1", "2", "0", "1", "2", "1"]);
        every_type("st_isclosed", ["true", "false", "true", "true", "false", "true", "false"]);
        every_type("st_iscollection", ["false", "false", "false", "true", "true", "true", "true"]);
        every_type("st_numpoints", ["NULL", "2", "NULL", "NULL", "NULL", "NULL", "NULL"]);
        check(&[
            ("st_astext(st_geometryn(st_geomfromtext('MULTIPOINT Z (1 2 3,4 5 6)'), 2))", "POINT Z (4 5 6)"),
            ("st_geometryn(st_geomfromtext('MULTIPOINT(1 2)'), 0)", "NULL"),
            ("st_astext(st_pointn(st_geomfromtext('LINESTRING(0 0,1 1,2 2)'), -1))", "POINT(2 2)"),
            ("st_pointn(st_geomfromtext('LINESTRING(0 0,1 1,2 2)'), -4)", "NULL"),
            ("st_z(st_geomfromtext('POINT Z (1 2 3)')), st_m(st_geomfromtext('POINT M (1 2 3)'))", "3.0|3.0"),
            ("st_z(st_point(1, 2))", "NULL"),
            (
                "cardinality(st_dump(st_geomfromtext('GEOMETRYCOLLECTION(POINT(1 2),MULTIPOINT(3 4,5 6))')))",
                "3",
            ),
            ("st_summary(st_geomfromtext('LINESTRING M (0 0 1,1 1 2)'))", "LINESTRING[M] with 2 points"),
        ]);
        fails("st_z(st_geomfromtext('LINESTRING Z (0 0 0,1 1 1)'))", "st_z: takes a point");
    }
}
