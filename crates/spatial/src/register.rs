//! The explicit list of all functions.

use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use datafusion::prelude::SessionContext;

use crate::definition::Definition;
use crate::functions as list;
use crate::join::st_knn;

/// One line a function.
static ALL: &[&Definition] = &[
    &list::bounds::XMIN,
    &list::bounds::XMAX,
    &list::bounds::YMIN,
    &list::bounds::YMAX,
    &list::coordinates::X,
    &list::coordinates::Y,
    &list::endpoints::START,
    &list::endpoints::END,
    &list::h3_cell_to_boundary::DEFINITION,
    &list::h3_cell_to_latlng::DEFINITION,
    &list::h3_cell_to_parent::DEFINITION,
    &list::h3_cell_to_point::DEFINITION,
    &list::h3_from_string::DEFINITION,
    &list::h3_grid_disk::DEFINITION,
    &list::h3_latlng_to_cell::DEFINITION,
    &list::h3_string::DEFINITION,
    &list::predicates::INTERSECTS,
    &list::predicates::DISJOINT,
    &list::predicates::CONTAINS,
    &list::predicates::WITHIN,
    &list::predicates::COVERS,
    &list::predicates::COVERED_BY,
    &list::st_area::DEFINITION,
    &list::st_areaspheroid::DEFINITION,
    &list::st_asbinary::DEFINITION,
    &list::st_asgeojson::DEFINITION,
    &list::st_astext::DEFINITION,
    &list::st_centroid::DEFINITION,
    &list::st_distance::DEFINITION,
    &list::st_distancesphere::DEFINITION,
    &list::st_distancespheroid::DEFINITION,
    &list::st_dwithin::DEFINITION,
    &list::st_dwithinsphere::DEFINITION,
    &list::st_envelope::DEFINITION,
    &list::st_geometrytype::DEFINITION,
    &list::st_geomfromgeojson::DEFINITION,
    &list::st_geomfromtext::DEFINITION,
    &list::st_geomfromwkb::DEFINITION,
    &list::st_isempty::DEFINITION,
    &list::st_length::DEFINITION,
    &list::st_lengthsphere::DEFINITION,
    &list::st_lengthspheroid::DEFINITION,
    &list::st_lineinterpolatepoint::DEFINITION,
    &list::st_makeenvelope::DEFINITION,
    &list::st_npoints::DEFINITION,
    &list::st_point::DEFINITION,
    &list::st_setcrs::DEFINITION,
    &list::st_setcrs::SRID,
    &list::st_srid::DEFINITION,
    &list::time_bucket::DEFINITION,
    &crate::time::percentile::AT,
    &st_knn::PLANAR,
    &st_knn::SPHERE,
];

/// All functions, in the order of the list.
pub fn functions() -> Vec<ScalarUDF> {
    ALL.iter().copied().map(Definition::udf).chain(crate::time::gapfill::markers::functions()).collect()
}

/// Adds all functions to a session. A name that the session knows already is taken over.
pub fn register(context: &SessionContext) -> Result<()> {
    for function in functions() {
        context.register_udf(function);
    }
    for aggregate in crate::time::aggregates() {
        context.register_udaf(aggregate);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::definition::Output;
    use crate::testing::eval;

    #[test]
    fn null_in_null_out() {
        for definition in super::ALL {
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
