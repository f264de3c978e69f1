//! What a function is: its name, arguments, result and body. One adapter makes it a DataFusion function.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, TimeUnit};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, DocSection, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use twinlake_contracts::{CRS84, crs_of, geometry_field, timestamp_type};

use crate::call::Call;

/// What an argument may be; whatever is accepted reaches the body as the one Arrow type named here, by a cast in the
/// plan or, for geometry, in the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// WKB, as `Binary`.
    Geometry,
    /// WKB whose field need not be a geometry, as `Binary`.
    Bytes,
    /// `Float64`, from any number.
    Number,
    /// `Int64`, from any whole number.
    Integer,
    /// `Utf8`.
    Text,
    /// `Timestamp(Microsecond, "UTC")`; a time stamp without a zone is taken as UTC.
    Timestamp,
    /// `Interval(MonthDayNano)`, from an interval or its text.
    Interval,
    /// `Boolean`.
    Boolean,
    /// `Utf8`, from text or a whole number.
    TextOrInteger,
    /// `List(Binary)` of WKB.
    Geometries,
    /// `List(Int64)`.
    Integers,
    /// A struct, as it is.
    Struct,
    /// The name or EPSG number of a reference system, a constant, as it is.
    Crs,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Geometry => "geometry",
            Self::Bytes => "binary",
            Self::Number => "number",
            Self::Integer => "integer",
            Self::Text => "text",
            Self::Timestamp => "timestamp",
            Self::Interval => "interval",
            Self::Boolean => "boolean",
            Self::TextOrInteger => "text or integer",
            Self::Geometries => "geometry[]",
            Self::Integers => "integer[]",
            Self::Struct => "struct",
            Self::Crs => "text or integer constant",
        }
    }

    /// The type that an argument of type `given` is cast to; `None` when it does not fit.
    pub(crate) fn accept(self, given: &DataType) -> Option<DataType> {
        let is_bytes = matches!(
            given,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_)
        );
        let is_text = matches!(given, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        let is_null = given.is_null();
        match self {
            // A cast in the plan would take the reference system off the field, so the call casts.
            Self::Geometry | Self::Bytes if is_bytes => Some(given.clone()),
            Self::Geometry | Self::Bytes => is_null.then_some(DataType::Binary),
            Self::Number => (given.is_numeric() || is_null).then_some(DataType::Float64),
            Self::Integer => (given.is_integer() || is_null).then_some(DataType::Int64),
            Self::Text => (is_text || is_null).then_some(DataType::Utf8),
            Self::Timestamp => {
                let fits = matches!(given, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64);
                (fits || is_null || is_text).then(timestamp_type)
            }
            Self::Interval => (matches!(given, DataType::Interval(_)) || is_null || is_text)
                .then_some(DataType::Interval(IntervalUnit::MonthDayNano)),
            Self::TextOrInteger => (is_text || is_null || given.is_integer()).then_some(DataType::Utf8),
            Self::Boolean => (matches!(given, DataType::Boolean) || is_null).then_some(DataType::Boolean),
            Self::Geometries => match given {
                DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                    Self::Geometry.accept(item.data_type()).map(|_| given.clone())
                }
                _ => is_null.then(|| list_of(DataType::Binary)),
            },
            Self::Integers => match given {
                DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                    Self::Integer.accept(item.data_type()).map(|_| list_of(DataType::Int64))
                }
                _ => is_null.then(|| list_of(DataType::Int64)),
            },
            Self::Crs => crate::functions::crs::accept(given),
            Self::Struct => (matches!(given, DataType::Struct(_)) || is_null).then(|| given.clone()),
        }
    }
}

/// A list type with nullable items.
pub(crate) fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(item, true)))
}

/// Name and kind of an argument.
pub(crate) type Parameter = (&'static str, Kind);

/// Which reference systems the geometries of a call may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CrsRule {
    /// Any, but the same for all geometries of the call that name one.
    Same,
    /// Longitude and latitude in degrees; another one is refused.
    LonLat,
}

/// What a function gives.
pub(crate) enum Output {
    /// A plain value.
    Value(fn() -> DataType),
    /// A geometry in the reference system of the first geometry argument that names one, else `OGC:CRS84`.
    Geometry,
    /// A list of geometries in that reference system.
    Geometries,
    /// A field worked out from the fields or the constants of the arguments.
    Field(fn(&ReturnFieldArgs<'_>) -> Result<Field>),
}

/// One SQL function.
pub(crate) struct Definition {
    /// The name in SQL.
    pub name: &'static str,
    /// Other names for the same function.
    pub aliases: &'static [&'static str],
    /// What it gives, with the unit, in a sentence.
    pub summary: &'static str,
    /// The argument lists that it takes; no two of equal length.
    pub overloads: &'static [&'static [Parameter]],
    /// Which reference systems may meet.
    pub crs: CrsRule,
    /// What it gives.
    pub output: Output,
    /// Computes all rows of a call.
    pub body: fn(&Call<'_>) -> Result<ArrayRef>,
}

/// `Output::Value` for the usual types.
pub(crate) const FLOAT64: Output = Output::Value(|| DataType::Float64);
pub(crate) const INT64: Output = Output::Value(|| DataType::Int64);
pub(crate) const BOOLEAN: Output = Output::Value(|| DataType::Boolean);
pub(crate) const UTF8: Output = Output::Value(|| DataType::Utf8);
pub(crate) const TIMESTAMP: Output =
    Output::Value(|| DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));

impl Definition {
    /// A function without other names over geometries of one reference system.
    pub(crate) const fn new(
        name: &'static str,
        summary: &'static str,
        overloads: &'static [&'static [Parameter]],
        output: Output,
        body: fn(&Call<'_>) -> Result<ArrayRef>,
    ) -> Self {
        Self { name, aliases: &[], summary, overloads, crs: CrsRule::Same, output, body }
    }

    /// The same with other names.
    pub(crate) const fn also(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    /// The same for longitude and latitude only.
    pub(crate) const fn lon_lat(mut self) -> Self {
        self.crs = CrsRule::LonLat;
        self
    }

    /// How it is called, one text an argument list.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.overloads.iter().map(|list| self.syntax(list)).collect()
    }

    /// The DataFusion function.
    pub(crate) fn udf(&'static self) -> ScalarUDF {
        let documentation =
            Documentation::builder(DocSection::default(), self.summary, self.calls().join(" | ")).build();
        ScalarUDF::new_from_impl(Function {
            definition: self,
            aliases: self.aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            signature: Signature::user_defined(Volatility::Immutable),
            documentation,
        })
    }

    fn syntax(&self, parameters: &[Parameter]) -> String {
        syntax(self.name, parameters)
    }

    fn wrong_arguments<T>(&self, given: &[DataType]) -> Result<T> {
        let given: Vec<String> = given.iter().map(ToString::to_string).collect();
        let known = self.calls().join(" or ");
        plan_err!("{} does not take ({}); it is {known}", self.name, given.join(", "))
    }

    fn parameters(&self, count: usize) -> Option<&'static [Parameter]> {
        self.overloads.iter().copied().find(|list| list.len() == count)
    }

    /// Checks the reference systems and gives the one that a geometry result inherits.
    fn crs(&self, fields: &[FieldRef]) -> Result<String> {
        let parameters = self.parameters(fields.len()).unwrap_or_default();
        common_crs(self.name, self.crs, parameters, fields)
    }
}

/// A call with the names and kinds of its arguments.
pub(crate) fn syntax(name: &str, parameters: &[Parameter]) -> String {
    let list: Vec<String> = parameters.iter().map(|(name, kind)| format!("{name} {}", kind.word())).collect();
    format!("{name}({})", list.join(", "))
}

/// The reference system that all geometries of a call share; `OGC:CRS84` when none names one.
pub(crate) fn common_crs(
    name: &str,
    rule: CrsRule,
    parameters: &[Parameter],
    fields: &[FieldRef],
) -> Result<String> {
    let mut first: Option<String> = None;
    for ((_, kind), field) in parameters.iter().zip(fields) {
        let crs = match (kind, field.data_type()) {
            (Kind::Geometry, _) => crs_of(field),
            (
                Kind::Geometries,
                DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _),
            ) => crs_of(item),
            _ => None,
        };
        let Some(crs) = crs else { continue };
        if rule == CrsRule::LonLat && !is_lon_lat(&crs) {
            return plan_err!(
                "{name} takes longitude and latitude in degrees ({CRS84}), not {crs}; \
                 use the planar function, which measures in the units of {crs}"
            );
        }
        match &first {
            Some(known) if *known != crs && !(is_lon_lat(known) && is_lon_lat(&crs)) => {
                return plan_err!(
                    "{name} meets geometries of different reference systems, {known} and {crs}"
                );
            }
            Some(_) => {}
            None => first = Some(crs),
        }
    }
    Ok(first.unwrap_or_else(|| CRS84.to_owned()))
}

/// Whether a reference system is longitude and latitude in degrees on WGS 84, in this order in WKB.
pub(crate) fn is_lon_lat(crs: &str) -> bool {
    matches!(crs, CRS84 | "EPSG:4326")
}

struct Function {
    definition: &'static Definition,
    aliases: Vec<String>,
    signature: Signature,
    documentation: Documentation,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Function").field("name", &self.definition.name).finish_non_exhaustive()
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.definition.name == other.definition.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.definition.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.definition.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        self.definition
            .parameters(given.len())
            .and_then(|list| list.iter().zip(given).map(|((_, kind), given)| kind.accept(given)).collect())
            .map_or_else(|| self.definition.wrong_arguments(given), Ok)
    }

    fn return_type(&self, given: &[DataType]) -> Result<DataType> {
        match &self.definition.output {
            Output::Value(data_type) => Ok(data_type()),
            Output::Geometries => Ok(list_of(DataType::Binary)),
            Output::Geometry | Output::Field(_) if self.definition.parameters(given.len()).is_some() => {
                Ok(DataType::Binary)
            }
            _ => self.definition.wrong_arguments(given),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let crs = self.definition.crs(args.arg_fields)?;
        let name = self.definition.name;
        let field = match &self.definition.output {
            Output::Value(data_type) => Field::new(name, data_type(), true),
            Output::Geometry => geometry_field(name, &crs, true),
            Output::Geometries => {
                let item = geometry_field(Field::LIST_FIELD_DEFAULT_NAME, &crs, true);
                Field::new(name, DataType::List(Arc::new(item)), true)
            }
            Output::Field(make) => make(&args)?,
        };
        Ok(Arc::new(field))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(parameters) = self.definition.parameters(args.args.len()) else {
            return exec_err!("{} got {} arguments", self.definition.name, args.args.len());
        };
        let constant = args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let call = Call::new(self.definition.name, rows, &args.return_field, &args.args, parameters)?;
        let array = guarded(self.definition.name, || (self.definition.body)(&call))?;
        if constant {
            // A scalar made from a list would lose what the item's field says.
            if let Some(list) = array.as_list_opt::<i32>() {
                return Ok(ColumnarValue::Scalar(ScalarValue::List(Arc::new(list.clone()))));
            }
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?));
        }
        Ok(ColumnarValue::Array(array))
    }
}

/// Runs a body. Geometry libraries may panic on input that nobody thought of: here, and nowhere else, that becomes an
/// error of the query instead of the end of the process.
pub(crate) fn guarded<T>(name: &str, body: impl FnOnce() -> Result<T>) -> Result<T> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)) {
        Ok(result) => result,
        Err(_) => {
            exec_err!("{name}: cannot be computed for this input (a defect: please report it with the input)")
        }
    }
}
