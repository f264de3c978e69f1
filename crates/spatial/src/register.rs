//! The explicit list of all functions.

use datafusion::common::Result;
use datafusion::logical_expr::{AggregateUDF, Documentation, ScalarUDF};
use datafusion::prelude::SessionContext;

use crate::aggregate::Aggregate;
use crate::definition::Definition;
use crate::functions as list;
use crate::join::st_knn;

/// All functions by family, one line a function.
static FAMILIES: &[(&str, &[&Definition])] = &[
    (
        "Geometry from text, bytes and numbers",
        &[
            &list::st_geomfromtext::DEFINITION,
            &list::st_geomfromwkb::DEFINITION,
            &list::st_geomfromgeojson::DEFINITION,
            &list::ewkb::FROM_EWKB,
            &list::ewkb::FROM_EWKT,
            &list::geohash::FROM_GEOHASH,
            &list::geohash::POINT_FROM_GEOHASH,
            &list::st_point::DEFINITION,
            &list::construct::MAKE_POINT,
            &list::construct::POINT_Z,
            &list::construct::POINT_M,
            &list::construct::POINT_ZM,
            &list::construct::MAKE_LINE,
            &list::construct::LINE_FROM_MULTIPOINT,
            &list::construct::MAKE_POLYGON,
            &list::construct::POLYGON,
            &list::construct::COLLECT,
            &list::st_makeenvelope::DEFINITION,
        ],
    ),
    (
        "Geometry as text and bytes",
        &[
            &list::st_astext::DEFINITION,
            &list::st_asbinary::DEFINITION,
            &list::st_asgeojson::DEFINITION,
            &list::ewkb::AS_EWKB,
            &list::ewkb::AS_HEX_EWKB,
            &list::ewkb::AS_EWKT,
            &list::geohash::GEOHASH,
        ],
    ),
    (
        "Reference systems",
        &[
            &list::st_setcrs::DEFINITION,
            &list::st_setcrs::SRID,
            &list::st_srid::DEFINITION,
            &list::crs::TRANSFORM,
        ],
    ),
    (
        "What a geometry is made of",
        &[
            &list::st_geometrytype::DEFINITION,
            &list::st_isempty::DEFINITION,
            &list::st_npoints::DEFINITION,
            &list::coordinates::X,
            &list::coordinates::Y,
            &list::accessors::NUM_GEOMETRIES,
            &list::accessors::GEOMETRY_N,
            &list::accessors::DUMP,
            &list::accessors::DUMP_POINTS,
            &list::accessors::DUMP_RINGS,
            &list::accessors::POINTS,
            &list::accessors::EXTERIOR_RING,
            &list::accessors::INTERIOR_RING_N,
            &list::accessors::NUM_INTERIOR_RINGS,
            &list::accessors::N_RINGS,
            &list::accessors::NUM_POINTS,
            &list::accessors::POINT_N,
            &list::accessors::DIMENSION,
            &list::accessors::COORD_DIM,
            &list::accessors::HAS_Z,
            &list::accessors::HAS_M,
            &list::accessors::ZM_FLAG,
            &list::accessors::Z,
            &list::accessors::M,
            &list::accessors::ZMIN,
            &list::accessors::ZMAX,
            &list::accessors::MMIN,
            &list::accessors::MMAX,
            &list::accessors::IS_CLOSED,
            &list::accessors::IS_RING,
            &list::accessors::IS_COLLECTION,
            &list::accessors::SUMMARY,
            &list::endpoints::START,
            &list::endpoints::END,
            &list::bounds::XMIN,
            &list::bounds::XMAX,
            &list::bounds::YMIN,
            &list::bounds::YMAX,
            &list::st_envelope::DEFINITION,
        ],
    ),
    (
        "Geometry changed",
        &[
            &list::construct::MULTI,
            &list::construct::FORCE_2D,
            &list::construct::FORCE_3D,
            &list::construct::FORCE_3DM,
            &list::construct::FORCE_4D,
            &list::construct::FORCE_COLLECTION,
            &list::construct::HOMOGENIZE,
            &list::construct::REVERSE,
            &list::construct::FLIP,
            &list::construct::FORCE_CCW,
            &list::construct::FORCE_CW,
            &list::construct::IS_CCW,
            &list::construct::IS_CW,
            &list::construct::COLLECTION_EXTRACT,
            &list::construct::ADD_POINT,
            &list::construct::SET_POINT,
            &list::construct::REMOVE_POINT,
            &list::construct::REMOVE_REPEATED,
            &list::construct::NORMALIZE,
        ],
    ),
    (
        "How two geometries lie to each other",
        &[
            &list::predicates::INTERSECTS,
            &list::predicates::DISJOINT,
            &list::predicates::CONTAINS,
            &list::predicates::WITHIN,
            &list::predicates::COVERS,
            &list::predicates::COVERED_BY,
            &list::predicates::CONTAINS_PROPERLY,
            &list::predicates::TOUCHES,
            &list::predicates::CROSSES,
            &list::predicates::OVERLAPS,
            &list::predicates::EQUALS,
            &list::predicates::ORDERING_EQUALS,
            &list::predicates::RELATE,
            &list::predicates::RELATE_MATCH,
            &list::predicates::DFULLY_WITHIN,
            &list::st_dwithin::DEFINITION,
            &list::st_dwithinsphere::DEFINITION,
        ],
    ),
    (
        "Measures",
        &[
            &list::st_area::DEFINITION,
            &list::st_areaspheroid::DEFINITION,
            &list::st_length::DEFINITION,
            &list::st_lengthsphere::DEFINITION,
            &list::st_lengthspheroid::DEFINITION,
            &list::st_distance::DEFINITION,
            &list::st_distancesphere::DEFINITION,
            &list::st_distancespheroid::DEFINITION,
            &list::measures::PERIMETER,
            &list::measures::PERIMETER_SPHEROID,
            &list::measures::AZIMUTH,
            &list::measures::AZIMUTH_SPHEROID,
            &list::measures::ANGLE,
            &list::measures::PROJECT_SPHEROID,
            &list::measures::PROJECT,
            &list::measures::HAUSDORFF,
            &list::measures::FRECHET,
            &list::measures::MAX_DISTANCE,
            &list::measures::CLOSEST_POINT,
            &list::measures::SHORTEST_LINE,
            &list::measures::LONGEST_LINE,
            &list::measures::MINIMUM_CLEARANCE,
            &list::measures::MINIMUM_CLEARANCE_LINE,
        ],
    ),
    (
        "Set operations, validity",
        &[
            &list::overlay::INTERSECTION,
            &list::overlay::DIFFERENCE,
            &list::overlay::SYM_DIFFERENCE,
            &list::overlay::UNION,
            &list::overlay::UNARY_UNION,
            &list::overlay::CLIP,
            &list::overlay::IS_VALID,
            &list::overlay::IS_VALID_REASON,
            &list::overlay::MAKE_VALID,
            &list::overlay::IS_SIMPLE,
            &list::overlay::BOUNDARY,
            &list::overlay::NODE,
            &list::overlay::LINE_MERGE,
            &list::overlay::POLYGONIZE,
            &list::overlay::SPLIT,
        ],
    ),
    (
        "Shapes from a geometry",
        &[
            &list::st_centroid::DEFINITION,
            &list::shaping::BUFFER,
            &list::shaping::CONVEX_HULL,
            &list::shaping::CONCAVE_HULL,
            &list::shaping::POINT_ON_SURFACE,
            &list::shaping::EXPAND,
            &list::shaping::SIMPLIFY,
            &list::shaping::SIMPLIFY_PRESERVE,
            &list::shaping::SIMPLIFY_VW,
            &list::shaping::CHAIKIN,
            &list::shaping::SEGMENTIZE,
            &list::shaping::SNAP_TO_GRID,
            &list::shaping::TRANSLATE,
            &list::shaping::SCALE,
            &list::shaping::ROTATE,
            &list::shaping::AFFINE,
            &list::shaping::ORIENTED_ENVELOPE,
        ],
    ),
    (
        "Along a line",
        &[
            &list::st_lineinterpolatepoint::DEFINITION,
            &list::lines::INTERPOLATE_POINTS,
            &list::lines::LOCATE,
            &list::lines::SUBSTRING,
            &list::lines::ADD_MEASURE,
            &list::lines::INTERPOLATE_MEASURE,
            &list::lines::OFFSET_CURVE,
        ],
    ),
    ("Vector tiles", &[&list::tiles::TILE_ENVELOPE, &list::tiles::AS_MVT_GEOM]),
    (
        "H3",
        &[
            &list::h3_cell_to_boundary::DEFINITION,
            &list::h3_cell_to_latlng::DEFINITION,
            &list::h3_cell_to_parent::DEFINITION,
            &list::h3_cell_to_point::DEFINITION,
            &list::h3_from_string::DEFINITION,
            &list::h3_grid_disk::DEFINITION,
            &list::h3_latlng_to_cell::DEFINITION,
            &list::h3_string::DEFINITION,
            &list::h3::RESOLUTION,
            &list::h3::IS_VALID,
            &list::h3::IS_PENTAGON,
            &list::h3::AREA,
            &list::h3::CENTER_CHILD,
            &list::h3::CHILDREN,
            &list::h3::RING,
            &list::h3::DISTANCE,
            &list::h3::PATH,
            &list::h3::ARE_NEIGHBOURS,
            &list::h3::COMPACT,
            &list::h3::UNCOMPACT,
            &list::h3::POLYGON_TO_CELLS,
        ],
    ),
    (
        "Trajectories",
        &[
            &list::trajectory::IS_VALID,
            &list::trajectory::LENGTH,
            &list::trajectory::DURATION,
            &list::trajectory::START,
            &list::trajectory::END,
            &list::trajectory::SPEED,
            &list::trajectory::AT_TIME,
            &list::trajectory::SIMPLIFY,
            &list::trajectory::STOPS,
            &list::trajectory::NEAREST_APPROACH,
            &list::trajectory::NEAREST_APPROACH_TIME,
        ],
    ),
    ("Nearest neighbours", &[&st_knn::PLANAR, &st_knn::SPHERE]),
    ("Time", &[&list::time_bucket::DEFINITION, &crate::time::percentile::AT]),
];

/// All aggregates.
static AGGREGATES: &[&Aggregate] = &[
    &list::aggregates::UNION,
    &list::aggregates::COLLECT,
    &list::aggregates::EXTENT,
    &list::tiles::AS_MVT,
    &list::trajectory::FROM_POINTS,
];

/// Every definition, in the order of the families.
pub(crate) fn definitions() -> impl Iterator<Item = &'static Definition> {
    FAMILIES.iter().flat_map(|(_, family)| family.iter().copied())
}

/// A family's title and the name, other names and documentation of each of its functions.
pub(crate) type Family = (&'static str, Vec<(String, Vec<String>, Option<Documentation>)>);

/// Everything that is registered, by family, for the reference.
pub(crate) fn families() -> Vec<Family> {
    let of_scalar = |f: &ScalarUDF| (f.name().to_owned(), f.aliases().to_vec(), f.documentation().cloned());
    let of_aggregate =
        |f: &AggregateUDF| (f.name().to_owned(), f.aliases().to_vec(), f.documentation().cloned());
    let mut all: Vec<Family> = FAMILIES
        .iter()
        .map(|(title, family)| (*title, family.iter().map(|d| of_scalar(&d.udf())).collect()))
        .collect();
    all.push((
        "Filling gaps in time",
        crate::time::gapfill::markers::functions().iter().map(of_scalar).collect(),
    ));
    all.push(("Spans of time", vec![of_scalar(&crate::time::abs::function())]));
    let own = AGGREGATES.iter().copied().map(Aggregate::udaf);
    all.push(("Aggregates of geometry", own.map(|f| of_aggregate(&f)).collect()));
    all.push(("Aggregates of time", crate::time::aggregates().iter().map(of_aggregate).collect()));
    all
}

/// All functions, in the order of the list.
pub fn functions() -> Vec<ScalarUDF> {
    let of_time =
        crate::time::gapfill::markers::functions().into_iter().chain([crate::time::abs::function()]);
    definitions().map(Definition::udf).chain(of_time).collect()
}

/// All aggregates, in the order of the list.
pub fn aggregates() -> Vec<AggregateUDF> {
    AGGREGATES.iter().copied().map(Aggregate::udaf).chain(crate::time::aggregates()).collect()
}

/// Adds all functions to a session. A name that the session knows already is taken over.
pub fn register(context: &SessionContext) -> Result<()> {
    for function in functions() {
        context.register_udf(function);
    }
    for aggregate in aggregates() {
        context.register_udaf(aggregate);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use arrow::datatypes::DataType;
    use datafusion::common::ScalarValue;

    use crate::definition::{Kind, Output};
    use crate::shape::{Dimensions, Form, Shape};
    use crate::testing::{eval, invoke};

    #[test]
    fn null_in_null_out() {
        for definition in super::definitions() {
            // Those with a constant argument have their own test.
            if matches!(definition.output, Output::Field(_)) {
                continue;
            }
            for overload in definition.overloads {
                let call = format!("{}({})", definition.name, vec!["NULL"; overload.len()].join(", "));
                assert_eq!(eval(&call), "NULL", "{call}");
            }
        }
    }

    /// Whatever comes in, a function answers or says what is wrong; none panics.
    #[test]
    fn odd_input_is_an_answer_or_an_error() {
        let geometries: Vec<ScalarValue> = [
            "POINT(0 0)",
            "POINT(1e200 -1e200)",
            "POINT EMPTY",
            "LINESTRING(0 0,0 0)",
            "LINESTRING(0 0,1 1,0 0,1 1)",
            "LINESTRING(0 0,2 2,2 0,0 2,0 0)",
            "LINESTRING Z (0 0 1,5 5 2)",
            "LINESTRING M (0 0 1,5 5 2,6 6 9)",
            "LINESTRING EMPTY",
            "POLYGON((0 0,0 0,0 0,0 0))",
            "POLYGON((0 0,5 0,0 0,5 0,0 0))",
            "POLYGON((0 0,2 2,2 0,0 2,0 0))",
            "POLYGON((0 0,9 0,9 9,0 9,0 0),(0 0,9 0,9 9,0 9,0 0))",
            "POLYGON((0 0,9 0,9 9,0 9,0 0),(20 20,21 20,21 21,20 20))",
            "POLYGON((179 0,-179 0,-179 1,179 1,179 0))",
            "POLYGON((0 90,90 90,180 90,-90 90,0 90))",
            "POLYGON((0 0,1e-300 0,0 1e-300,0 0))",
            "POLYGON EMPTY",
            "MULTIPOINT((1 1),EMPTY,(1 1))",
            "MULTILINESTRING((0 0,1 1),EMPTY,(1 1,0 0))",
            "MULTIPOLYGON(((0 0,4 0,4 4,0 4,0 0)),((2 2,6 2,6 6,2 6,2 2)),EMPTY)",
            "GEOMETRYCOLLECTION(POINT EMPTY,GEOMETRYCOLLECTION(POLYGON((0 0,1 0,1 1,0 0)),LINESTRING(0 0,1 1)))",
            "GEOMETRYCOLLECTION EMPTY",
        ]
        .iter()
        .map(|wkt| Shape::from_wkt(wkt).unwrap().0.encode())
        .chain([vec![], vec![1, 3], vec![0; 40], vec![255; 40]])
        .chain([Shape::new(Form::Point(Some([f64::NAN, 1.0, 0.0, 0.0])), Dimensions::default()).encode()])
        .map(|bytes| ScalarValue::Binary(Some(bytes)))
        .collect();
        let mut state = 7_u64;
        let mut pick = |count: usize| {
            // Knuth 1997, the linear congruential generator of MMIX.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % count
        };
        let numbers = [0.0, -1.0, 0.5, 1.0, 7.25, 1e6, 1e-9, f64::NAN, f64::INFINITY];
        let integers = [0, -1, 1, 2, 9, 15, 599_686_042_433_355_775, i64::MAX, i64::MIN];
        let texts =
            ["", "x", "POINT(1 2)", "NDR", "ezs42", "T*F**FFF*", "1 day", "quad_segs=2 join=mitre", "{}"];
        let mut calls = 0;
        for definition in super::definitions() {
            for overload in definition.overloads {
                for _ in 0..120 {
                    let arguments: Vec<ScalarValue> = overload
                        .iter()
                        .map(|(name, kind)| match kind {
                            // Fine cells of large areas take long.
                            Kind::Integer if *name == "resolution" => {
                                ScalarValue::Int64(Some([-1, 0, 3, 16][pick(4)]))
                            }
                            Kind::Geometry | Kind::Bytes => geometries[pick(geometries.len())].clone(),
                            Kind::Number => ScalarValue::Float64(Some(numbers[pick(numbers.len())])),
                            Kind::Integer => ScalarValue::Int64(Some(integers[pick(integers.len())])),
                            Kind::Text | Kind::TextOrInteger => {
                                ScalarValue::Utf8(Some(texts[pick(texts.len())].to_owned()))
                            }
                            Kind::Crs => ScalarValue::Utf8(Some("EPSG:3857".to_owned())),
                            Kind::Boolean => ScalarValue::Boolean(Some(pick(2) == 0)),
                            Kind::Timestamp => {
                                ScalarValue::TimestampMicrosecond(Some(5_000_000), Some("UTC".into()))
                            }
                            Kind::Interval => ScalarValue::new_interval_mdn(0, 1, 0),
                            Kind::Geometries => {
                                let items: Vec<ScalarValue> = (0..pick(4))
                                    .map(|_| geometries[pick(geometries.len())].clone())
                                    .collect();
                                ScalarValue::List(ScalarValue::new_list_nullable(&items, &DataType::Binary))
                            }
                            Kind::Integers => {
                                let items: Vec<ScalarValue> = (0..pick(4))
                                    .map(|_| ScalarValue::Int64(Some(integers[pick(integers.len())])))
                                    .collect();
                                ScalarValue::List(ScalarValue::new_list_nullable(&items, &DataType::Int64))
                            }
                            Kind::Struct => ScalarValue::Null,
                        })
                        .collect();
                    calls += 1;
                    if let Err(message) = invoke(definition.name, &arguments) {
                        assert!(
                            !message.contains("a defect"),
                            "{}({arguments:?}): {message}",
                            definition.name
                        );
                    }
                }
            }
        }
        assert!(calls > 20_000, "{calls}");
    }

    #[test]
    fn every_name_is_there_once_and_documented() {
        let mut names = BTreeSet::new();
        for function in super::functions() {
            for name in std::iter::once(function.name()).chain(function.aliases().iter().map(String::as_str))
            {
                assert!(names.insert(name.to_owned()), "{name} twice");
                assert!(
                    name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'),
                    "{name}"
                );
            }
            let documentation = function.documentation().unwrap();
            assert!(!documentation.description.is_empty(), "{}", function.name());
        }
    }
}
