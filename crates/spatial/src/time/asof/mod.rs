//! `ASOF JOIN`: each row with the nearest one in time.
//!
//! `a ASOF JOIN b ON a.key = b.key AND a.ts >= b.ts` gives each row of `a` the columns of the latest row of `b` with the
//! same key that is not later. `>` takes only earlier ones; `<=` and `<` take the earliest that is not earlier, and
//! later. Rows of `a` that find nothing are dropped, or with `ASOF LEFT JOIN` kept with nulls; Snowflake's
//! `ASOF JOIN b MATCH_CONDITION (a.ts >= b.ts) ON a.key = b.key` is read too, and keeps them as it does there. A key or
//! time that is null finds nothing. Of several rows of `b` at one time any one is taken.

pub(crate) mod exec;
mod merged;
pub(crate) mod node;
pub(crate) mod relation;
pub(crate) mod streamed;
mod syntax;

pub use syntax::{mark, tokens};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::testing::{query, query_with, query_within};

    const TABLES: &str = "WITH a(k, t, x) AS (VALUES ('p', 5, 'a5'), ('p', 10, 'a10'), ('q', 1, 'a1'), ('r', 7, 'a7'), \
         (NULL, 7, 'null key'), ('p', NULL, 'null time')), \
         b(k, t, y) AS (VALUES ('p', 10, 'b10'), ('p', 4, 'b4'), ('p', 5, 'b5'), ('q', 2, 'b2'), (NULL, 6, 'bnull'), ('p', NULL, 'no time'))";

    fn ask(rest: &str) -> String {
        query(&format!("{TABLES} {rest}")).map_or_else(|error| error, |rows| rows.join(" "))
    }

    #[test]
    fn finds_the_nearest_in_each_direction() {
        for (operator, expected) in [
            (">=", "a10|b10 a5|b5"),
            (">", "a10|b5 a5|b4"),
            ("<=", "a1|b2 a10|b10 a5|b5"),
            ("<", "a1|b2 a5|b10"),
        ] {
            let sql =
                format!("SELECT x, y FROM a ASOF JOIN b ON a.k = b.k AND a.t {operator} b.t ORDER BY x");
            assert_eq!(ask(&sql), expected, "{operator}");
        }
        assert_eq!(
            ask("SELECT x, y FROM a ASOF JOIN b ON b.t <= a.t AND b.k = a.k ORDER BY x"),
            "a10|b10 a5|b5"
        );
        assert_eq!(
            ask("SELECT x, y FROM a ASOF JOIN b ON a.t + 1 > b.t - 1 AND a.k || '' = b.k ORDER BY x"),
            "a1|b2 a10|b10 a5|b5"
        );
    }

    #[test]
    fn keeps_the_left_side_when_asked() {
        let all = "a1|NULL a10|b10 a5|b5 a7|NULL null key|NULL null time|NULL";
        assert_eq!(ask("SELECT x, y FROM a ASOF LEFT JOIN b ON a.k = b.k AND a.t >= b.t ORDER BY x"), all);
        assert_eq!(
            ask("SELECT x, y FROM a ASOF JOIN b MATCH_CONDITION (a.t >= b.t) ON a.k = b.k ORDER BY x"),
            all
        );
        assert_eq!(
            ask("SELECT x, y FROM a ASOF JOIN b MATCH_CONDITION (a.t >= b.t) ORDER BY x"),
            "a1|NULL a10|b10 a5|b5 a7|bnull null key|bnull null time|NULL"
        );
    }

    #[test]
    fn filters_decide_before_or_after() {
        let sql = "SELECT x, y FROM a ASOF JOIN b ON a.k = b.k AND a.t >= b.t";
        assert_eq!(ask(&format!("{sql} WHERE y <> 'b5' ORDER BY x")), "a10|b10");
        assert_eq!(ask(&format!("{sql} WHERE x = 'a5' AND a.k = 'p'")), "a5|b5");
        assert_eq!(
            ask(
                "SELECT x, y FROM a ASOF JOIN (SELECT * FROM b WHERE y <> 'b5') AS b ON a.k = b.k AND a.t >= b.t ORDER BY x"
            ),
            "a10|b10 a5|b4"
        );
        let plan = query(&format!("EXPLAIN {TABLES} {sql} WHERE a.k = 'p' AND y <> 'b5'")).unwrap().join(" ");
        assert!(plan.contains("AsofJoinExec: join_type=Inner"), "{plan}");
    }

    #[test]
    fn joins_of_joins_and_empty_sides() {
        assert_eq!(
            ask(
                "SELECT a.x, b.y, c.y FROM a ASOF JOIN b ON a.k = b.k AND a.t >= b.t ASOF JOIN b AS c ON a.k = c.k AND a.t > c.t ORDER BY 1"
            ),
            "a10|b10|b5 a5|b5|b4"
        );
        assert_eq!(
            ask(
                "SELECT count(*) FROM a ASOF JOIN (SELECT * FROM b WHERE false) AS b ON a.k = b.k AND a.t >= b.t"
            ),
            "0"
        );
        assert_eq!(
            ask(
                "SELECT count(*) FROM a ASOF LEFT JOIN (SELECT * FROM b WHERE false) AS b ON a.k = b.k AND a.t >= b.t"
            ),
            "6"
        );
        assert_eq!(
            ask("SELECT count(y) FROM (SELECT * FROM a WHERE false) AS a ASOF JOIN b ON a.t >= b.t"),
            "0"
        );
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (on, part) in [
            ("a.k = b.k", "needs a comparison of times"),
            ("a.t >= b.t AND a.t > b.t", "a second one is a.t > b.t"),
            ("a.t >= b.t OR a.k = b.k", "does not fit an ASOF JOIN"),
            ("a.t >= b.t AND b.t > 3", "does not fit an ASOF JOIN"),
            ("a.x >= b.y", "cannot compare"),
        ] {
            let message = ask(&format!("SELECT * FROM a ASOF JOIN b ON {on}"));
            assert!(message.contains(part), "{on}: {message}");
        }
    }

    fn rows() -> impl Strategy<Value = Vec<(u8, i64)>> {
        proptest::collection::vec((0..4_u8, 0..30_i64), 1..30)
    }

    fn values(rows: &[(u8, i64)]) -> String {
        let rows: Vec<String> = rows.iter().map(|(key, time)| format!("({key}, {time})")).collect();
        format!("(VALUES {})", rows.join(", "))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn the_same_as_looking_at_every_pair(
            left in rows(), right in rows(), (operator, nearest) in proptest::sample::select(
                vec![(">=", "max"), (">", "max"), ("<=", "min"), ("<", "min")]
            ),
        ) {
            let (left, right) = (values(&left), values(&right));
            let fast = query(&format!(
                "SELECT a.k, a.t, b.t FROM {left} AS a(k, t) ASOF LEFT JOIN {right} AS b(k, t) ON a.k = b.k AND a.t {operator} b.t ORDER BY 1, 2, 3"
            ));
            let naive = query(&format!(
                "SELECT n.k, n.t, {nearest}(b.t) FROM (SELECT row_number() OVER () AS n, k, t FROM {left} AS a(k, t)) AS n \
                 LEFT JOIN {right} AS b(k, t) ON n.k = b.k AND n.t {operator} b.t GROUP BY n.n, n.k, n.t ORDER BY 1, 2, 3"
            ));
            prop_assert_eq!(fast, naive);
        }
    }

    #[test]
    fn the_smaller_side_is_held() {
        let plan = |left: &str, right: &str| {
            let sql = format!("EXPLAIN SELECT * FROM {left} AS a(t) ASOF JOIN {right} AS b(t) ON a.t >= b.t");
            query(&sql).unwrap().join(" ")
        };
        let (one, many) = ("(VALUES (1))", "(VALUES (1), (2), (3), (4))");
        assert!(plan(one, many).contains("AsofStreamedExec: join_type=Inner"), "{}", plan(one, many));
        assert!(plan(many, one).contains("AsofJoinExec: join_type=Inner"), "{}", plan(many, one));
    }

    #[test]
    fn what_does_not_fit_into_memory_is_joined_from_files() {
        let side = |count: i64, factor: i64, name: &str| {
            format!(
                "SELECT CASE WHEN i % 97 = 0 THEN NULL ELSE i * {factor} % 501 END AS k, CASE WHEN i % 89 = 0 THEN NULL ELSE i * 7919 % 100003 END AS t, \
                 i AS {name}, 'a text that takes some room ' || i AS {name}_text FROM generate_series(1, {count}) AS g(i)"
            )
        };
        let (left, right) = (side(60_000, 31, "x"), side(80_000, 17, "y"));
        let keys = "a.k = b.k AND ";
        for (kind, on, operator) in [
            ("", "a.k = b.k AND a.k % 7 = b.k % 7 AND ", ">="),
            ("LEFT", keys, ">"),
            ("LEFT", "", "<="),
            ("", keys, "<"),
        ] {
            let sql = format!(
                "SELECT count(*), count(b.y), sum(a.x), sum(b.t - a.t), sum(b.k), max(y_text), min(x_text) FROM ({left}) AS a \
                 ASOF {kind} JOIN ({right}) AS b ON {on} a.t {operator} b.t"
            );
            let expected = query(&sql).unwrap();
            let found = query_within(14 << 20, &sql);
            assert_eq!(found, Ok(expected), "{kind} {on} {operator}");
        }
    }

    #[test]
    fn the_order_of_the_left_side_is_kept_with_files_too() {
        let sql = "SELECT a.i, b.i FROM (SELECT value AS i FROM generate_series(1, 100000)) AS a ASOF JOIN \
             (SELECT i, i * 7919 % 100003 AS t, 'a text that takes some room ' || i AS s FROM generate_series(1, 100000) AS g(i)) AS b \
             ON a.i % 7 = b.i % 7 AND a.i >= b.t WHERE b.s <> '' ORDER BY a.i";
        let expected = query(sql).unwrap();
        assert!(expected.len() > 99_000, "{}", expected.len());
        assert_eq!(query_within(16 << 20, sql).unwrap(), expected);
    }

    #[test]
    fn the_smaller_side_goes_to_files_too() {
        // The left side has so few rows that it would be held, if it fitted.
        let side = |count: i64, name: &str, padding: usize| {
            format!(
                "SELECT value % 11 AS k, value * 7919 % 100003 AS t, value AS {name}, repeat('x', {padding}) || value AS {name}_text FROM generate_series(1, {count})"
            )
        };
        for (left, right, mebibytes) in [
            (side(40_000, "x", 400), side(90_000, "y", 0), 24),
            // Here it does, and what is noted of the right side is compacted.
            (side(300, "x", 0), side(90_000, "y", 400), 2),
        ] {
            // Tables know how many rows they have.
            let sql = |explain: &str| {
                format!(
                    "CREATE TABLE a AS {left}; CREATE TABLE b AS {right}; {explain} SELECT count(*), sum(x), sum(y), max(x_text), max(y_text) \
                     FROM a ASOF JOIN b ON a.k = b.k AND a.t >= b.t"
                )
            };
            let plan = query(&sql("EXPLAIN")).unwrap().join("\n");
            assert!(plan.contains("AsofStreamedExec"), "{plan}");
            let (expected, sql) = (query(&sql("")).unwrap(), sql(""));
            let found = if mebibytes > 2 {
                query_within(mebibytes << 20, &sql)
            } else {
                query_with(mebibytes << 20, &sql)
            };
            assert_eq!(found, Ok(expected));
        }
    }
}
