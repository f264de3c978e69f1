//! `to_timestamp` and its kin, in UTC for every kind of argument.
//!
//! DataFusion 55 promises the session's zone when it plans `to_timestamp(text)`, and gives a column without a zone
//! when it runs (its `datetime/to_timestamp.rs` drops the zone for columns of text). These wrappers run the function
//! without a zone, where it is sound, and put the zone on the result: text without an offset is UTC, an offset in the
//! text counts.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, config::ConfigOptions};
use datafusion::functions::datetime;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use datafusion::prelude::SessionContext;

/// Puts the wrappers in the place of DataFusion's functions.
pub(crate) fn register(context: &SessionContext) {
    let without_zone = ConfigOptions::default();
    for function in [
        datetime::to_timestamp(&without_zone),
        datetime::to_timestamp_seconds(&without_zone),
        datetime::to_timestamp_millis(&without_zone),
        datetime::to_timestamp_micros(&without_zone),
        datetime::to_timestamp_nanos(&without_zone),
    ] {
        context.register_udf(ScalarUDF::new_from_impl(Utc(function)));
    }
}

/// A function whose time stamps get the zone UTC.
#[derive(Debug)]
struct Utc(Arc<ScalarUDF>);

impl PartialEq for Utc {
    fn eq(&self, other: &Self) -> bool {
        self.0.name() == other.0.name()
    }
}

impl Eq for Utc {}

impl Hash for Utc {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name().hash(state);
    }
}

/// The same instants, said to be in UTC.
fn in_utc(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Timestamp(unit, _) => DataType::Timestamp(*unit, Some("UTC".into())),
        other => other.clone(),
    }
}

impl ScalarUDFImpl for Utc {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(in_utc(&self.0.return_type(arguments)?))
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let field = self.0.return_field_from_args(arguments)?;
        Ok(Arc::new(field.as_ref().clone().with_data_type(in_utc(field.data_type()))))
    }

    fn invoke_with_args(&self, mut arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let field = Arc::clone(&arguments.return_field);
        let DataType::Timestamp(unit, _) = field.data_type() else {
            return self.0.invoke_with_args(arguments);
        };
        let naive = Field::new(field.name(), DataType::Timestamp(*unit, None), field.is_nullable());
        arguments.return_field = Arc::new(naive);
        arguments.config_options = Arc::new(ConfigOptions::default());
        self.0.invoke_with_args(arguments)?.cast_to(field.data_type(), None)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.0.documentation()
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{engine, lines};

    #[tokio::test]
    async fn text_columns_numbers_and_literals_are_instants_in_utc() {
        let (_folder, engine) = engine().await;
        let session = engine.session(crate::SessionSettings::default()).unwrap();
        for sql in [
            "SELECT to_timestamp(x) AS t FROM (VALUES ('2018-10-09T04:32:53Z')) v(x)",
            "SELECT to_timestamp(x) AS t FROM (VALUES ('2018-10-09T07:32:53+03:00')) v(x)",
            "SELECT to_timestamp(x) AS t FROM (VALUES ('2018-10-09T04:32:53')) v(x)",
            "SELECT to_timestamp('2018-10-09T04:32:53Z') AS t",
            "SELECT to_timestamp_seconds(x) AS t FROM (VALUES (1539059573)) v(x)",
            "SELECT to_timestamp_micros(x) AS t FROM (VALUES (1539059573000000)) v(x)",
        ] {
            let rows = session.collect(sql).await.unwrap();
            assert_eq!(lines(&rows).trim(), "2018-10-09T04:32:53Z", "{sql}");
        }
    }
}
