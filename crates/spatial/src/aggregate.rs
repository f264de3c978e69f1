//! Aggregates: the sibling of `definition` for functions over many rows.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, DocSection, Documentation, GroupsAccumulator,
    Signature, Volatility,
};
use twinlake_contracts::geometry_field;

use crate::call::Call;
use crate::definition::{CrsRule, Parameter, common_crs, guarded, syntax};

/// What an aggregate gives.
pub(crate) enum Gives {
    /// A geometry in the reference system of its input.
    Geometry,
    /// A plain value.
    Value(fn() -> DataType),
}

/// One aggregate. Rows with a null among their arguments are left out; without rows it is null.
pub(crate) struct Aggregate {
    /// The name in SQL.
    pub name: &'static str,
    /// Other names for the same function.
    pub aliases: &'static [&'static str],
    /// What it gives, with the unit, in a sentence.
    pub summary: &'static str,
    /// The argument lists that it takes; no two of equal length.
    pub overloads: &'static [&'static [Parameter]],
    /// What it gives.
    pub gives: Gives,
    /// Starts empty.
    pub start: fn() -> Box<dyn Fold>,
}

/// What an aggregate has seen so far.
pub(crate) trait Fold: std::fmt::Debug + Send + Sync {
    /// Takes the rows of a batch.
    fn add(&mut self, call: &Call<'_>) -> Result<()>;
    /// All that was seen, to be merged elsewhere; `None` for nothing.
    fn state(&self) -> Option<Vec<u8>>;
    /// Takes what another one saw.
    fn merge(&mut self, state: &[u8]) -> Result<()>;
    /// The result; null for nothing.
    fn finish(&mut self) -> Result<ScalarValue>;
    /// Bytes held, about.
    fn size(&self) -> usize;
    /// One that folds all groups of a query at once, with the same states and results; most have none.
    fn groups(&self, _result: &FieldRef) -> Option<Box<dyn GroupsAccumulator>> {
        None
    }
}

impl Aggregate {
    /// The DataFusion function.
    pub(crate) fn udaf(&'static self) -> AggregateUDF {
        AggregateUDF::new_from_impl(Function {
            aggregate: self,
            aliases: self.aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            signature: Signature::user_defined(Volatility::Immutable),
            documentation: Documentation::builder(
                DocSection::default(),
                self.summary,
                self.calls().join(" | "),
            )
            .build(),
        })
    }

    /// How it is called, one text an argument list.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.overloads.iter().map(|list| syntax(self.name, list)).collect()
    }

    fn parameters(&self, count: usize) -> Option<&'static [Parameter]> {
        self.overloads.iter().copied().find(|list| list.len() == count)
    }
}

struct Function {
    aggregate: &'static Aggregate,
    aliases: Vec<String>,
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

impl AggregateUDFImpl for Function {
    fn name(&self) -> &str {
        self.aggregate.name
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

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let accepted = self
            .aggregate
            .parameters(given.len())
            .and_then(|list| list.iter().zip(given).map(|((_, kind), given)| kind.accept(given)).collect());
        accepted.map_or_else(
            || {
                let given: Vec<String> = given.iter().map(ToString::to_string).collect();
                let known = self.aggregate.calls().join(" or ");
                plan_err!("{} does not take ({}); it is {known}", self.aggregate.name, given.join(", "))
            },
            Ok,
        )
    }

    fn return_type(&self, _given: &[DataType]) -> Result<DataType> {
        Ok(match self.aggregate.gives {
            Gives::Geometry => DataType::Binary,
            Gives::Value(data_type) => data_type(),
        })
    }

    fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef> {
        let name = self.aggregate.name;
        let parameters = self.aggregate.parameters(fields.len()).unwrap_or_default();
        let crs = common_crs(name, CrsRule::Same, parameters, fields)?;
        Ok(Arc::new(match self.aggregate.gives {
            Gives::Geometry => geometry_field(name, &crs, true),
            Gives::Value(data_type) => Field::new(name, data_type(), true),
        }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[seen]", args.name), DataType::Binary, true))])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        let plain = !args.is_distinct && args.order_bys.is_empty();
        plain && (self.aggregate.start)().groups(&args.return_field).is_some()
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let groups = (self.aggregate.start)().groups(&args.return_field);
        groups.map_or_else(|| exec_err!("{} folds one group at a time", self.aggregate.name), Ok)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Running {
            aggregate: self.aggregate,
            result: Arc::clone(&args.return_field),
            fold: (self.aggregate.start)(),
        }))
    }
}

#[derive(Debug)]
struct Running {
    aggregate: &'static Aggregate,
    result: FieldRef,
    fold: Box<dyn Fold>,
}

impl std::fmt::Debug for Aggregate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Aggregate").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Accumulator for Running {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let name = self.aggregate.name;
        let Some(parameters) = self.aggregate.parameters(values.len()) else {
            return exec_err!("{name} got {} arguments", values.len());
        };
        let rows = values.first().map_or(0, Array::len);
        let columns: Vec<ColumnarValue> =
            values.iter().map(|v| ColumnarValue::Array(Arc::clone(v))).collect();
        let call = Call::new(name, rows, &self.result, &columns, parameters)?;
        let fold = &mut self.fold;
        guarded(name, || fold.add(&call))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let fold = &mut self.fold;
        guarded(self.aggregate.name, || fold.finish())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.fold.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Binary(self.fold.state())])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let Some(states) = states.first().and_then(|column| column.as_binary_opt::<i32>()) else {
            return exec_err!("{} got a state that is not its own", self.aggregate.name);
        };
        let fold = &mut self.fold;
        guarded(self.aggregate.name, || states.iter().flatten().try_for_each(|state| fold.merge(state)))
    }
}
