//! Joins of intervals that overlap: `a JOIN b ON a.start < b.end AND a.end > b.start`.
//!
//! So are joins of moments with intervals (`a.ts >= b.start AND a.ts < b.end`). A physical rule puts an operator with an
//! index of intervals in the place of the nested loop that would compare every pair. Other conditions beside the two
//! comparisons are looked at for the pairs that are found. A join with an equality stays a hash join.

pub(crate) mod exec;
mod index;
pub(crate) mod rule;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::testing::query;

    fn values(rows: &[(i64, i64)]) -> String {
        let rows: Vec<String> =
            rows.iter().map(|(start, length)| format!("({start}, {})", start + length)).collect();
        format!("(VALUES {}, (NULL, 3), (4, NULL))", rows.join(", "))
    }

    #[test]
    fn the_plan_has_the_operator() {
        for (on, expected) in [
            ("a.s < b.e AND a.e > b.s", true),
            ("b.s <= a.e AND a.s <= b.e AND a.s + b.s <> 7", true),
            ("a.s >= b.s AND a.s < b.e", true),
            ("a.s < b.e", false),
            ("a.s < b.e AND a.e < b.s", false),
        ] {
            for kind in ["", "LEFT", "RIGHT", "FULL"] {
                let sql = format!(
                    "EXPLAIN SELECT * FROM (VALUES (1, 2)) AS a(s, e) {kind} JOIN (VALUES (1, 2)) AS b(s, e) ON {on}"
                );
                let plan = query(&sql).unwrap().join(" ");
                assert_eq!(plan.contains("OverlapJoinExec"), expected, "{kind} {on}: {plan}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]

        #[test]
        fn the_same_as_comparing_every_pair(
            left in proptest::collection::vec((0..40_i64, -3..10_i64), 1..25),
            right in proptest::collection::vec((0..40_i64, -3..10_i64), 1..25),
            kind in proptest::sample::select(vec!["", "LEFT", "RIGHT", "FULL"]),
            on in proptest::sample::select(vec![
                ("a.s < b.e AND a.e > b.s", "a.s + 0 * b.s < b.e AND a.e + 0 * b.s > b.s"),
                ("a.s <= b.e AND a.e >= b.s AND a.e <> b.s", "a.s + 0 * b.s <= b.e AND a.e + 0 * b.s >= b.s AND a.e <> b.s"),
                ("a.s >= b.s AND a.s < b.e", "a.s >= b.s + 0 * a.s AND a.s < b.e + 0 * a.s"),
                ("a.s::double < b.e::double AND a.e::double >= b.s::double", "a.s + 0 * b.s < b.e AND a.e + 0 * b.s >= b.s"),
            ]),
        ) {
            let ask = |on: &str| {
                let (left, right) = (values(&left), values(&right));
                query(&format!(
                    "SELECT a.s, a.e, b.s, b.e FROM {left} AS a(s, e) {kind} JOIN {right} AS b(s, e) ON {on} ORDER BY 1, 2, 3, 4"
                ))
            };
            prop_assert_eq!(ask(on.0), ask(on.1));
        }
    }
}
