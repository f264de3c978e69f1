//! `time_bucket_gapfill`: a row for each bucket, also for those that nothing was measured in.
//!
//! `SELECT time_bucket_gapfill('5 minutes', ts) AS bucket, sensor, avg(v), locf(avg(v)), interpolate(avg(v)) FROM readings
//! WHERE ts >= '2024-01-01' AND ts < '2024-01-02' GROUP BY 1, 2`. The names are TimescaleDB's. An analyzer rule puts a
//! node over the aggregate; its operator sorts each series by bucket and adds what is missing. HAVING looks at what was
//! measured, before gaps are filled.

pub(crate) mod exec;
mod gather;
pub(crate) mod grid;
pub(crate) mod markers;
pub(crate) mod node;
pub(crate) mod rewrite;
mod series;

#[cfg(test)]
mod tests {
    use crate::testing::{query, query_within};

    const TABLE: &str = "WITH r AS (SELECT k, to_timestamp(m * 60) AS ts, v FROM (VALUES ('a', 0, 10.0), ('a', 1, 20.0), \
         ('a', 15, 40.0), ('b', 6, 5.0), ('b', 7, NULL)) AS t(k, m, v))";

    fn ask(rest: &str) -> String {
        let rows = query(&format!("{TABLE} {rest}"));
        rows.map_or_else(|error| error, |rows| rows.join(" ").replace("1970-01-01T", "").replace(":00Z", ""))
    }

    #[test]
    fn fills_each_series_within_the_bounds_of_where() {
        let sql = "SELECT k, time_bucket_gapfill('5 minutes', ts) AS t, avg(v), count(*), locf(avg(v)), interpolate(avg(v)) FROM r \
             WHERE ts >= TIMESTAMP '1970-01-01' AND ts < TIMESTAMP '1970-01-01T00:20:00' GROUP BY k, t ORDER BY k, t";
        assert_eq!(
            ask(sql),
            "a|00:00|15.0|2|15.0|15.0 a|00:05|NULL|NULL|15.0|23.333333333333332 a|00:10|NULL|NULL|15.0|31.666666666666664 \
             a|00:15|40.0|1|40.0|40.0 b|00:00|NULL|NULL|NULL|NULL b|00:05|5.0|2|5.0|5.0 b|00:10|NULL|NULL|5.0|NULL b|00:15|NULL|NULL|5.0|NULL"
        );
        let between = "SELECT count(*) FROM (SELECT time_bucket_gapfill('5 minutes', ts) FROM r \
             WHERE ts BETWEEN TIMESTAMP '1970-01-01' AND TIMESTAMP '1970-01-01T00:20:00' GROUP BY 1)";
        assert_eq!(ask(between), "5");
    }

    #[test]
    fn bounds_may_be_given_or_missing() {
        let counts = |arguments: &str| {
            ask(&format!(
                "SELECT k, count(*) FROM (SELECT time_bucket_gapfill({arguments}) AS t, k FROM r GROUP BY 1, 2) GROUP BY k ORDER BY k"
            ))
        };
        assert_eq!(counts("'5 minutes', ts"), "a|4 b|1");
        assert_eq!(
            counts("'5 minutes', ts, TIMESTAMP '1970-01-01', TIMESTAMP '1970-01-01T00:30:00'"),
            "a|6 b|6"
        );
        assert_eq!(counts("'5 minutes', ts, NULL, TIMESTAMP '1970-01-01T00:30:00'"), "a|6 b|5");
        // Rows outside of the bounds stay.
        assert_eq!(
            counts("'5 minutes', ts, TIMESTAMP '1970-01-01T00:05:00', TIMESTAMP '1970-01-01T00:10:00'"),
            "a|3 b|1"
        );
        assert_eq!(
            ask(
                "SELECT time_bucket_gapfill('1 month', ts, TIMESTAMP '1970-01-15', TIMESTAMP '1970-04-01')::date AS t, count(*) FROM r GROUP BY t ORDER BY t"
            ),
            "00:00|5 1970-02-01T00:00|NULL 1970-03-01T00:00|NULL"
        );
    }

    #[test]
    fn works_inside_larger_queries() {
        assert_eq!(
            ask(
                "SELECT k, max(filled) FROM (SELECT k, time_bucket_gapfill('5 minutes', ts) AS t, round(locf(avg(v)) / 2) AS filled \
                 FROM r GROUP BY k, t HAVING count(*) > 1) WHERE k <> 'c' GROUP BY k ORDER BY k"
            ),
            "a|8.0 b|3.0"
        );
        assert_eq!(
            ask(
                "SELECT time_bucket_gapfill('5 minutes', ts) AS t, lag(locf(last(v, ts))) OVER (ORDER BY time_bucket_gapfill('5 minutes', ts)) FROM r GROUP BY t ORDER BY t"
            ),
            "00:00|NULL 00:05|20.0 00:10|5.0 00:15|5.0"
        );
        assert_eq!(
            ask(
                "SELECT time_bucket_gapfill('5 minutes', ts) AS t, sum(v) FROM r WHERE k = 'none' GROUP BY t"
            ),
            ""
        );
        assert_eq!(
            ask(
                "SELECT time_bucket_gapfill('10 minutes', ts), locf(last(k, ts)) FROM r WHERE ts < TIMESTAMP '1970-01-01T00:30:00' GROUP BY 1 ORDER BY 1"
            ),
            "00:00|b 00:10|a 00:20|a"
        );
        let plan = query(&format!(
            "EXPLAIN {TABLE} SELECT time_bucket_gapfill('5 minutes', ts), k FROM r WHERE ts < now() AND ts > now() - INTERVAL '1 hour' GROUP BY 1, 2"
        ));
        let plan = plan.unwrap().join(" ");
        assert!(plan.contains("GapFillExec: keys=[k]"), "{plan}");
    }

    #[test]
    fn what_does_not_fit_into_memory_is_filled_from_files() {
        // 2,000 sensors in an order that has nothing to do with them, over the aggregates' states and (HAVING) over rows.
        let readings = "SELECT i * 7919 % 2003 AS k, arrow_cast(i * 104729 % 86400 * 1000000, 'Timestamp(µs, \"UTC\")') AS ts, \
             CAST(i % 1000 AS DOUBLE) AS v FROM generate_series(0, 199999) AS g(i)";
        for having in ["", "HAVING count(*) > 0"] {
            let sql = format!(
                "SELECT count(*), count(v), sum(v), sum(f), sum(l), sum(k), count(DISTINCT t) FROM (SELECT k, \
                 time_bucket_gapfill('10 minutes', ts, TIMESTAMP '1970-01-01', TIMESTAMP '1970-01-02') AS t, \
                 avg(v) AS v, locf(avg(v)) AS f, interpolate(sum(v)) AS l FROM ({readings}) GROUP BY k, t {having})"
            );
            let expected = query(&sql).unwrap();
            assert!(expected[0].starts_with("288432|"), "{expected:?}");
            let numbers = |rows: &[String]| -> Vec<f64> {
                rows[0].split('|').map(|value| value.parse().unwrap()).collect()
            };
            let found = query_within(12 << 20, &sql).unwrap();
            for (found, expected) in numbers(&found).iter().zip(numbers(&expected)) {
                assert!((found - expected).abs() < 1e-9 * expected, "{having}: {found} {expected}");
            }
        }
    }

    #[test]
    fn what_has_no_meaning_is_named() {
        for (sql, part) in [
            ("SELECT time_bucket_gapfill('0 minutes', ts) FROM r GROUP BY 1", "the width must be positive"),
            ("SELECT time_bucket_gapfill(v, ts) FROM r GROUP BY 1", "time_bucket_gapfill does not take"),
            ("SELECT time_bucket_gapfill('5 minutes', ts) FROM r", "belongs into GROUP BY"),
            ("SELECT locf(v) FROM r", "belongs over an aggregate"),
            (
                "SELECT time_bucket_gapfill('5 minutes', ts) + INTERVAL '1 minute', count(*) FROM r GROUP BY 1",
                "stands alone in GROUP BY",
            ),
            (
                "SELECT time_bucket_gapfill('5 minutes', ts), time_bucket_gapfill('1 minute', ts) FROM r GROUP BY 1, 2",
                "takes one time_bucket_gapfill",
            ),
            (
                "SELECT time_bucket_gapfill('1 microsecond', ts, TIMESTAMP '1970-01-01', TIMESTAMP '2020-01-01') FROM r GROUP BY 1",
                "narrow the bounds",
            ),
            (
                "SELECT time_bucket_gapfill('1 minute', ts), interpolate(max(k)) FROM r GROUP BY 1",
                "interpolate does not take",
            ),
        ] {
            let message = ask(sql);
            assert!(message.contains(part), "{sql}: {message}");
        }
    }
}
