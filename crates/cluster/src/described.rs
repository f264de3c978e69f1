//! Functions that carry what their result's field says.
//!
//! A function of space keeps in the field of its result what it must know when it runs, such as the reference system that
//! coordinates come from. DataFusion writes of that field the name and the type only. So, before a plan travels, calls whose
//! field says more get a function of their own that has the field in its bytes.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, Result, internal_datafusion_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature,
};
use datafusion_proto::protobuf;
use prost::Message;

/// A function as it is called in one place.
#[derive(Debug)]
struct Described {
    function: Arc<ScalarUDF>,
    field: FieldRef,
}

impl PartialEq for Described {
    fn eq(&self, other: &Self) -> bool {
        self.function == other.function && self.field == other.field
    }
}

impl Eq for Described {}

impl Hash for Described {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.function.hash(state);
        self.field.hash(state);
    }
}

impl ScalarUDFImpl for Described {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        self.function.aliases()
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn is_strict(&self) -> bool {
        self.function.is_strict()
    }

    fn short_circuits(&self) -> bool {
        self.function.short_circuits()
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        self.function.coerce_types(given)
    }

    fn return_type(&self, _given: &[DataType]) -> Result<DataType> {
        Ok(self.field.data_type().clone())
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::clone(&self.field))
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        args.return_field = Arc::clone(&self.field);
        self.function.invoke_with_args(args)
    }
}

/// The plan with such functions where they are needed.
pub(crate) fn describe(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| {
        let schema = match &node {
            LogicalPlan::TableScan(scan) => {
                DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?
            }
            _ => merge_schema(&node.inputs()),
        };
        node.map_expressions(|expression| expression.transform_up(|part| Ok(described(part, &schema))))
    })
    .data()
}

fn described(part: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let Expr::ScalarFunction(call) = &part else { return Transformed::no(part) };
    if is_described(&call.func) {
        return Transformed::no(part);
    }
    // An expression that is not about this node's columns stays as it is.
    let Ok((_, field)) = part.to_field(schema) else { return Transformed::no(part) };
    if field.metadata().is_empty() {
        return Transformed::no(part);
    }
    let function = Described { function: Arc::clone(&call.func), field };
    let function = Arc::new(ScalarUDF::new_from_impl(function));
    Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(function, call.args.clone())))
}

/// Whether the function carries a field.
pub(crate) fn is_described(function: &ScalarUDF) -> bool {
    (function.inner().as_ref() as &dyn std::any::Any).is::<Described>()
}

/// The bytes of the field, when the function carries one.
pub(crate) fn write(function: &ScalarUDF) -> Result<Option<Vec<u8>>> {
    let inner = function.inner().as_ref() as &dyn std::any::Any;
    let Some(described) = inner.downcast_ref::<Described>() else { return Ok(None) };
    let field: protobuf::Field = described
        .field
        .as_ref()
        .try_into()
        .map_err(|error| internal_datafusion_err!("a field cannot be written: {error}"))?;
    Ok(Some(field.encode_to_vec()))
}

/// The function with the field of these bytes.
pub(crate) fn read(function: Arc<ScalarUDF>, bytes: &[u8]) -> Result<Arc<ScalarUDF>> {
    let unread = |error: String| internal_datafusion_err!("a field cannot be read: {error}");
    let field = protobuf::Field::decode(bytes).map_err(|error| unread(error.to_string()))?;
    let field = Field::try_from(&field).map_err(|error| unread(error.to_string()))?;
    Ok(Arc::new(ScalarUDF::new_from_impl(Described { function, field: Arc::new(field) })))
}
