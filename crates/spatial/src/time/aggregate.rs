//! What an aggregate is: its name, types, state and accumulator. One adapter makes it a DataFusion aggregate.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, not_impl_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, DocSection, Documentation, EmitTo, GroupsAccumulator,
    Signature, Volatility,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;

/// What an accumulator is made for.
#[derive(Clone)]
pub(crate) struct Arguments {
    /// The fields of the arguments.
    pub fields: Vec<FieldRef>,
    /// The arguments that are constants.
    pub constants: Vec<Option<ScalarValue>>,
    /// The field of the result.
    pub result: FieldRef,
}

impl Arguments {
    fn new(args: &AccumulatorArgs) -> Self {
        let constant = |expr: &Arc<dyn PhysicalExpr>| {
            expr.downcast_ref::<Literal>().map(|literal| literal.value().clone())
        };
        Self {
            fields: args.expr_fields.to_vec(),
            constants: args.exprs.iter().map(constant).collect(),
            result: Arc::clone(&args.return_field),
        }
    }
}

/// Makes an accumulator.
pub(crate) type Make = fn(&Arguments) -> Result<Groups>;
/// One accumulator for all groups.
pub(crate) type Groups = Box<dyn GroupsAccumulator + Sync>;

/// One SQL aggregate. Its result does not depend on the order of its rows.
pub(crate) struct Aggregate {
    /// The name in SQL.
    pub name: &'static str,
    /// What it gives, with the unit, in a sentence or two.
    pub summary: &'static str,
    /// Its calls, separated by ` | `.
    pub syntax: &'static str,
    /// The types that arguments of these types are cast to; `None` when they do not fit.
    pub accept: fn(&[DataType]) -> Option<Vec<DataType>>,
    /// The field of the result; its name does not matter.
    pub result: fn(&[FieldRef]) -> Field,
    /// The columns of a partial result; their names do not matter.
    pub state: fn(&Field) -> Vec<DataType>,
    /// Its accumulator.
    pub make: Make,
}

impl Aggregate {
    /// The DataFusion aggregate.
    pub(crate) fn udaf(&'static self) -> AggregateUDF {
        AggregateUDF::new_from_impl(Function {
            aggregate: self,
            signature: Signature::user_defined(Volatility::Immutable),
            documentation: Documentation::builder(DocSection::default(), self.summary, self.syntax).build(),
        })
    }
}

struct Function {
    aggregate: &'static Aggregate,
    signature: Signature,
    documentation: Documentation,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Function").field("name", &self.aggregate.name).finish_non_exhaustive()
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.aggregate.name == other.aggregate.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.aggregate.name.hash(state);
    }
}

impl Function {
    fn groups(&self, args: &AccumulatorArgs) -> Result<Groups> {
        if args.is_distinct {
            return not_impl_err!("{} takes no DISTINCT", self.aggregate.name);
        }
        (self.aggregate.make)(&Arguments::new(args))
    }
}

impl AggregateUDFImpl for Function {
    fn name(&self) -> &str {
        self.aggregate.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        (self.aggregate.accept)(given).map_or_else(
            || {
                let given: Vec<String> = given.iter().map(ToString::to_string).collect();
                let (name, syntax) = (self.aggregate.name, self.aggregate.syntax.replace(" | ", " or "));
                plan_err!("{name} does not take ({}); it is {syntax}", given.join(", "))
            },
            Ok,
        )
    }

    fn return_type(&self, given: &[DataType]) -> Result<DataType> {
        let fields: Vec<FieldRef> =
            given.iter().map(|given| Arc::new(Field::new("argument", given.clone(), true))).collect();
        Ok((self.aggregate.result)(&fields).data_type().clone())
    }

    fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef> {
        Ok(Arc::new((self.aggregate.result)(fields).with_name(self.aggregate.name).with_nullable(true)))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let types = (self.aggregate.state)(&args.return_field);
        let name = |part: usize| format_state_name(args.name, &part.to_string());
        Ok(types
            .into_iter()
            .enumerate()
            .map(|(part, data_type)| Arc::new(Field::new(name(part), data_type, true)))
            .collect())
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let arguments = Arguments::new(&args);
        let inner = self.groups(&args)?;
        Ok(Box::new(One { make: self.aggregate.make, name: self.aggregate.name, arguments, inner }))
    }

    fn groups_accumulator_supported(&self, _args: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let groups = self.groups(&args)?;
        Ok(groups)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// All rows as one group.
struct One {
    make: Make,
    name: &'static str,
    arguments: Arguments,
    inner: Groups,
}

impl std::fmt::Debug for One {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("One").field("name", &self.name).finish_non_exhaustive()
    }
}

impl One {
    fn copy_of(&self, state: &[ArrayRef]) -> Result<Groups> {
        let mut copy = (self.make)(&self.arguments)?;
        copy.merge_batch(state, &[0], 1)?;
        Ok(copy)
    }
}

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = values.first().map_or(0, Array::len);
        self.inner.update_batch(values, &vec![0; rows], None, 1)
    }

    /// Leaves the state as it is: a window's frame may grow on.
    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.inner.update_batch(&self.no_rows(), &[], None, 1)?;
        let state = self.inner.state(EmitTo::All)?;
        self.inner = self.copy_of(&state)?;
        let result = self.copy_of(&state)?.evaluate(EmitTo::All)?;
        ScalarValue::try_from_array(&result, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.update_batch(&self.no_rows(), &[], None, 1)?;
        let state = self.inner.state(EmitTo::All)?;
        state.iter().map(|column| ScalarValue::try_from_array(column, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let rows = states.first().map_or(0, Array::len);
        self.inner.merge_batch(states, &vec![0; rows], 1)
    }
}

impl One {
    /// A batch without rows makes the group known to the accumulator.
    fn no_rows(&self) -> Vec<ArrayRef> {
        self.arguments.fields.iter().map(|field| arrow::array::new_empty_array(field.data_type())).collect()
    }
}

/// Whether a row counts under a filter of the aggregate.
pub(crate) fn passes(filter: Option<&BooleanArray>, row: usize) -> bool {
    filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
}
