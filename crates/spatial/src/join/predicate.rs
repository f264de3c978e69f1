//! The conditions that the join carries out by index: which functions they are, and what they mean for boxes.

use std::fmt;

use datafusion::common::{JoinSide, ScalarValue};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_plan::joins::utils::JoinFilter;

use super::filter::{Expr, comparison, constant, one_sided, turned};
use crate::prepared::shape::Relation;

/// A condition between a geometry of the left side, which is indexed, and one of the right.
#[derive(Debug, Clone)]
pub(super) struct Predicate {
    /// The name of the function, for errors.
    pub function: String,
    /// As it was written, for `EXPLAIN`.
    pub text: String,
    /// The geometry over the left side's columns.
    pub left: Expr,
    /// The geometry over the right side's columns.
    pub right: Expr,
    pub test: Test,
}

/// What must hold of two geometries whose boxes are near enough.
#[derive(Debug, Clone)]
pub(super) enum Test {
    /// A relation; `left_first` when the left side's geometry is the first argument.
    Relation { relation: Relation, left_first: bool },
    /// The boxes must meet; the condition itself is among what remains.
    Boxes { empty_meets_empty: bool },
    /// A distance in the plane, or in metres on the sphere; `compared` when SQL's `<` or `<=` says so, else the
    /// function does. One that is not `exact` only bounds the boxes.
    Distance { sphere: bool, limit: Limit, inclusive: bool, compared: bool, exact: bool },
    /// Among the nearest to each row of the right side (`of_right`) or of the left; `fill` with rows that have no distance
    /// when there are too few others.
    Nearest { count: usize, sphere: bool, of_right: bool, fill: bool },
}

/// The greatest distance: over the columns of one side; a constant counts as the right side's.
#[derive(Debug, Clone)]
pub(super) enum Limit {
    Left(Expr),
    Right(Expr),
}

impl Test {
    /// Whether coordinates are longitude and latitude in degrees and distances are in metres.
    pub(super) fn on_sphere(&self) -> bool {
        matches!(self, Self::Distance { sphere: true, .. } | Self::Nearest { sphere: true, .. })
    }
}

impl Predicate {
    /// Recognises a condition; the flag says whether it must be checked again on each pair.
    pub(super) fn recognise(part: &Expr, filter: &JoinFilter) -> Option<(Self, bool)> {
        if let Some(call) = part.downcast_ref::<ScalarFunctionExpr>() {
            return Self::function(part, call, filter);
        }
        let (a, operator, b) = comparison(part)?;
        Self::distance_comparison(part, a, operator, b, filter)
            .or_else(|| Self::distance_comparison(part, b, turned(operator), a, filter))
    }

    fn function(part: &Expr, call: &ScalarFunctionExpr, filter: &JoinFilter) -> Option<(Self, bool)> {
        let name = call.fun().name();
        let (first, second) = (call.args().first()?, call.args().get(1)?);
        let (left, right, left_first) = sides(first, second, filter)?;
        let relation = |relation| (Test::Relation { relation, left_first }, false);
        let (test, again) = match name {
            "st_intersects" => relation(Relation::Intersects),
            "st_contains" => relation(Relation::Contains),
            "st_within" => relation(Relation::Within),
            "st_covers" => relation(Relation::Covers),
            "st_coveredby" => relation(Relation::CoveredBy),
            "st_touches" | "st_crosses" | "st_overlaps" | "st_containsproperly" => {
                (Test::Boxes { empty_meets_empty: false }, true)
            }
            "st_equals" | "st_orderingequals" => (Test::Boxes { empty_meets_empty: true }, true),
            "st_dwithin" | "st_dfullywithin" | "st_dwithin_sphere" | "st_dwithin_spheroid" => {
                let limit = Limit::over(call.args().get(2)?, filter)?;
                let exact = matches!(name, "st_dwithin" | "st_dwithin_sphere");
                let sphere = !matches!(name, "st_dwithin" | "st_dfullywithin");
                (Test::Distance { sphere, limit, inclusive: true, compared: false, exact }, !exact)
            }
            "st_knn" | "st_knn_sphere" | "st_knn_rows" | "st_knn_sphere_rows" => {
                let ScalarValue::Int64(Some(count)) = constant(call.args().get(2)?)? else { return None };
                let count = usize::try_from(count).ok().filter(|count| *count > 0)?;
                let (sphere, fill) = (name.starts_with("st_knn_sphere"), name.ends_with("_rows"));
                (Test::Nearest { count, sphere, of_right: !left_first, fill }, false)
            }
            _ => return None,
        };
        Some((Self { function: name.to_owned(), text: part.to_string(), left, right, test }, again))
    }

    /// `distance(a, b) < limit` and the like.
    fn distance_comparison(
        part: &Expr,
        distance: &Expr,
        operator: Operator,
        limit: &Expr,
        filter: &JoinFilter,
    ) -> Option<(Self, bool)> {
        let inclusive = match operator {
            Operator::Lt => false,
            Operator::LtEq => true,
            _ => return None,
        };
        let call = distance.downcast_ref::<ScalarFunctionExpr>()?;
        let name = call.fun().name();
        let (sphere, exact) = match name {
            "st_distance" => (false, true),
            "st_distancesphere" => (true, true),
            "st_distancespheroid" => (true, false),
            _ => return None,
        };
        let [a, b] = call.args() else { return None };
        let (left, right, _) = sides(a, b, filter)?;
        let test =
            Test::Distance { sphere, limit: Limit::over(limit, filter)?, inclusive, compared: true, exact };
        Some((Self { function: name.to_owned(), text: part.to_string(), left, right, test }, !exact))
    }

    /// The more a condition narrows, the greater; of several, the index serves the greatest.
    pub(super) fn rank(&self) -> u8 {
        match self.test {
            Test::Nearest { .. } => 3,
            Test::Relation { .. } => 2,
            Test::Boxes { .. } => 1,
            Test::Distance { .. } => 0,
        }
    }
}

impl fmt::Display for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Limit {
    fn over(limit: &Expr, filter: &JoinFilter) -> Option<Self> {
        // Whole numbers are cast by whoever evaluates it.
        if !limit.data_type(filter.schema()).ok()?.is_numeric() {
            return None;
        }
        match one_sided(limit, filter)? {
            (JoinSide::Left, limit) => Some(Self::Left(limit)),
            (_, limit) => Some(Self::Right(limit)),
        }
    }
}

/// The two geometries by side, and whether the left one comes first.
fn sides(first: &Expr, second: &Expr, filter: &JoinFilter) -> Option<(Expr, Expr, bool)> {
    match (one_sided(&bare(first), filter)?, one_sided(&bare(second), filter)?) {
        ((JoinSide::Left, a), (JoinSide::Right, b)) => Some((a, b, true)),
        ((JoinSide::Right, a), (JoinSide::Left, b)) => Some((b, a, false)),
        _ => None,
    }
}

/// The geometry without a function that only checks it or names its reference system: the join checks it anyway, and
/// planning has compared the systems.
pub(super) fn bare(geometry: &Expr) -> Expr {
    let Some(call) = geometry.downcast_ref::<ScalarFunctionExpr>() else { return geometry.clone() };
    match (call.fun().name(), call.args()) {
        ("st_geomfromwkb", [wkb]) | ("st_setcrs" | "st_setsrid", [wkb, _]) => bare(wkb),
        _ => geometry.clone(),
    }
}
