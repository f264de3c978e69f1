//! Aggregates by buckets of time: `GROUP BY sensor, time_bucket('5 minutes', ts)`.
//!
//! A hash table of (sensor, bucket) grows with both and is met at a random place by every reading. Here the two are
//! numbered apart: a hash of the sensors alone, which stays small, and a table for each bucket from the sensor's number to
//! its group. Readings come roughly in the order of time, so that the tables of one or two buckets, and the states of their
//! groups, are all that is touched. Data without that order gives the same answers.

pub(crate) mod groups;
pub(crate) mod partial;
pub(crate) mod rule;
pub(crate) mod table;

#[cfg(test)]
mod tests {
    use crate::testing::query;

    /// The plan must hold the operator, and the answer must be that of buckets written as arithmetic.
    fn same(keys: &str, aggregates: &str, readings: &str) {
        let ask = |bucket: &str| {
            let keys = if keys.is_empty() { String::new() } else { format!("{keys},") };
            let sql =
                format!("SELECT {keys} {bucket} AS b, {aggregates} FROM ({readings}) GROUP BY {keys} b");
            let plan = query(&format!("EXPLAIN {sql}")).unwrap().join("\n");
            let mut rows = query(&sql).unwrap();
            rows.sort();
            (rows, plan)
        };
        let (found, plan) = ask("time_bucket('5 minutes', ts)");
        assert!(plan.contains("BucketsExec: mode=Partial"), "{plan}");
        let (expected, plan) = ask("date_bin(INTERVAL '5 minutes', ts, TIMESTAMP '2000-01-03')");
        assert!(!plan.contains("BucketsExec"), "{plan}");
        assert_eq!(found, expected, "{keys} {aggregates}");
    }

    #[test]
    fn answers_as_a_hash_of_both() {
        let readings = |order: &str| {
            format!(
                "SELECT i % 7 AS k, CASE WHEN i % 11 = 0 THEN NULL ELSE 'name ' || (i % 3) END AS s, \
                 CASE WHEN i % 13 = 0 THEN NULL ELSE arrow_cast(i * 1000000, 'Timestamp(µs, \"UTC\")') END AS ts, \
                 CASE WHEN i % 5 = 0 THEN NULL ELSE i * 0.5 END AS v FROM generate_series(0, 20000) AS g(i) ORDER BY {order}"
            )
        };
        for order in ["i", "i * 7919 % 20011"] {
            let readings = readings(order);
            same("k", "count(*), count(v), sum(v), min(v), max(s)", &readings);
            same("k, s", "avg(v), sum(v) FILTER (WHERE k > 3)", &readings);
            same("", "count(*), last(v, ts)", &readings);
            same("s", "first(k, ts), median(v), count(DISTINCT k)", &readings);
        }
    }

    #[test]
    fn sparse_groups_and_groups_of_one() {
        let readings = "SELECT i * 3 % 300007 AS k, arrow_cast(i * 7919 % 300007 * 300000000, 'Timestamp(µs, \"UTC\")') AS ts, i AS v \
             FROM generate_series(0, 250000) AS g(i)";
        same("k", "sum(v)", readings);
    }
}
