//! Runs a SQL expression with all functions, for the tests beside them.

use datafusion::prelude::SessionContext;

/// The first row of `SELECT {expressions}`, columns joined by `|`, null as `NULL`; an error as its message.
pub(crate) fn eval(expressions: &str) -> String {
    query(&format!("SELECT {expressions}")).map_or_else(|error| error, |rows| rows.join("\n"))
}

/// All rows of a query.
pub(crate) fn query(sql: &str) -> Result<Vec<String>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| error.to_string())?;
    runtime
        .block_on(async {
            let context = SessionContext::new();
            crate::register(&context)?;
            context.sql(sql).await?.collect().await
        })
        .map_err(|error| error.to_string())
        .and_then(|batches| {
            let options = arrow::util::display::FormatOptions::default().with_null("NULL");
            let mut rows = Vec::new();
            for batch in batches {
                let columns = batch
                    .columns()
                    .iter()
                    .map(|column| arrow::util::display::ArrayFormatter::try_new(column, &options))
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|error| error.to_string())?;
                for row in 0..batch.num_rows() {
                    let cells: Vec<String> =
                        columns.iter().map(|column| column.value(row).to_string()).collect();
                    rows.push(cells.join("|"));
                }
            }
            Ok(rows)
        })
}

/// Asserts a table of expressions and their values.
pub(crate) fn check(cases: &[(&str, &str)]) {
    for (expression, expected) in cases {
        assert_eq!(eval(expression), *expected, "{expression}");
    }
}

/// Asserts that an expression fails with a message that contains `part`.
pub(crate) fn fails(expression: &str, part: &str) {
    let result = query(&format!("SELECT {expression}"));
    let message = result.expect_err(expression);
    assert!(message.contains(part), "{expression}: {message}");
}

/// One geometry of every type, with its WKT.
pub(crate) const EVERY_TYPE: [&str; 7] = [
    "POINT(1 2)",
    "LINESTRING(0 0,3 4)",
    "POLYGON((0 0,4 0,4 4,0 4,0 0))",
    "MULTIPOINT((1 2),(3 4))",
    "MULTILINESTRING((0 0,3 4),(10 0,10 5))",
    "MULTIPOLYGON(((0 0,4 0,4 4,0 4,0 0)),((10 10,11 10,11 11,10 11,10 10)))",
    "GEOMETRYCOLLECTION(POINT(1 2),LINESTRING(0 0,3 4))",
];

/// Asserts the value of `function(geometry)` for one geometry of every type, in the order of [`EVERY_TYPE`].
pub(crate) fn every_type(function: &str, expected: [&str; 7]) {
    for (wkt, expected) in EVERY_TYPE.iter().zip(expected) {
        let expression = format!("{function}(st_geomfromtext('{wkt}'))");
        assert_eq!(eval(&expression), expected, "{expression}");
    }
}
