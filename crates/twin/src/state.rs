//! The state of a twin as a query plan over the lake: fold, overrides, relations, simulated columns.
//!
//! Nothing is read here. The plan goes to the same optimiser as every query, so a filter on the key reaches the
//! table's files, and what a query does not ask for (a relation, a simulation) is not computed.
//!
//! **Fold.** Of the rows of a key with `time ≤ as_of` and `_ingested_at ≤ known_at` the one with the latest time is
//! the state. Ties on time go to the row that became known last, then to the one later in the log (nulls last, each
//! time), then to the greatest values, so that the same table always gives the same state. Rows without a key or
//! without a time take no part; under a `known_at`, rows that do not say when they became known take no part either.
//!
//! **Maps** have no time: their rows hold always, and neither `as_of` nor `known_at` hides them.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{BinaryArray, new_empty_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::{Column, DFSchema, ScalarValue, plan_err};
use datafusion::datasource::{TableProvider, provider_as_source};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::functions::core::expr_fn::{coalesce, get_field};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::expr::FieldMetadata;
use datafusion::logical_expr::{
    EmptyRelation, Expr, ExprFunctionExt, ExprSchemable, LogicalPlan, LogicalPlanBuilder, ScalarUDF,
    SortExpr, cast, lit, when,
};
use twinlake_contracts::{Error, INGESTED_AT, SEQUENCE, TableName, suggest, timestamp_type};

use crate::Twins;
use crate::keyed::{HIT, Keyed, KeyedFunction};
use crate::live::LiveTable;
use crate::model::{KNOWN_TIME, Lifecycle, Property, TwinModel, VALID_TIME};
use crate::nearest::{DISTANCE_M, KEY, NearestFunction, Targets};
use crate::scenario::{Override, Scenario};
use crate::simulated;
use crate::view::{View, through};

const LOG_SEQUENCE: &str = "__sequence";
const RANK: &str = "__rank";
/// Whether an override touched the row.
pub(crate) const TOUCHED: &str = "__touched";

/// Plans readings of twins for one session.
pub(crate) struct StatePlanner<'a> {
    pub(crate) twins: &'a Twins,
    pub(crate) session: &'a dyn Session,
    pub(crate) view: &'a View,
    /// Whether tables are stood in for by ones without rows, so that the plan says what comes from where and nothing else.
    pub(crate) stand_in: bool,
}

/// A column by its exact name.
pub(crate) fn named(name: &str) -> Expr {
    Expr::Column(Column::from_name(name))
}

/// An instant as a literal.
pub(crate) fn instant(us: Option<i64>) -> Expr {
    lit(ScalarValue::TimestampMicrosecond(us, Some("UTC".into())))
}

/// The null of a type.
pub(crate) fn null(data_type: &DataType) -> Result<Expr> {
    Ok(lit(ScalarValue::try_from(data_type)?))
}

impl StatePlanner<'_> {
    /// The plan of `twin.<model>`, or with `history` of `twin.<model>_history`; its columns are the model's schema.
    /// Columns that are not in `wanted` may be null.
    pub(crate) async fn plan(
        &self,
        model: &TwinModel,
        history: bool,
        wanted: &HashSet<String>,
    ) -> Result<LogicalPlan> {
        let name = model.table().ok_or_else(|| {
            through(Error::internal(format!("twin model '{}' is bound to no table", model.name)))
        })?;
        let present =
            if history || self.stand_in || !self.view.is_present() { None } else { self.twins.live(model) };
        let mut plan = if let Some(live) = present {
            LogicalPlanBuilder::scan(
                name.to_string(),
                provider_as_source(Arc::new(LiveTable::new(live))),
                None,
            )?
        } else {
            let Some(provider) = self.provider(model, name).await? else {
                return empty(&model.schema());
            };
            let plan = self.stored(model, name, provider)?;
            if model.map.is_some() || !history { fold(model, plan, &[&model.key])? } else { plan }
        };
        plan = plan.project(keep(model).into_iter().chain([lit(false).alias(TOUCHED)]))?;
        // Past readings are not rewritten by a scenario; it changes what holds from its fork on.
        let overridden = model.map.is_some() || !history;
        plan = self.seen(model, plan, history, overridden, wanted).await?;
        plan.project(final_columns(model))?.build()
    }

    /// What is seen of stored rows: with derived properties, without what has ended, with overrides, relations and runs.
    pub(crate) async fn seen(
        &self,
        model: &TwinModel,
        plan: LogicalPlanBuilder,
        history: bool,
        overridden: bool,
        wanted: &HashSet<String>,
    ) -> Result<LogicalPlanBuilder> {
        let mut plan = self.derived(model, plan, &HashSet::new())?;
        if !history {
            plan = self.alive(model, plan)?;
        }
        if let Some(scenario) = self.view.scenario.as_ref()
            && overridden
        {
            plan = self.overridden(model, plan, scenario)?;
        }
        plan = self.related(model, plan, wanted).await?;
        simulated::add(self, model, plan, history, wanted).await
    }

    /// The newest snapshot of one of the model's tables; `None` while there is none.
    pub(crate) async fn provider(
        &self,
        model: &TwinModel,
        name: &TableName,
    ) -> Result<Option<Arc<dyn TableProvider>>> {
        if self.stand_in {
            return Ok(Twins::stand_in(model, name));
        }
        self.twins.provider(name).await.map_err(through)
    }

    /// The table's rows that are in view, as properties (without the derived ones), times and log sequence.
    pub(crate) fn stored(
        &self,
        model: &TwinModel,
        name: &TableName,
        provider: Arc<dyn TableProvider>,
    ) -> Result<LogicalPlanBuilder> {
        let schema = provider.schema();
        let has = |column: &str| schema.column_with_name(column).is_some();
        let mut plan = LogicalPlanBuilder::scan(name.to_string(), provider_as_source(provider), None)?;
        let key = model.key_property().map_err(through)?;
        let key_column = key.column.as_deref().unwrap_or(&model.key);
        existing(&schema, name, &model.name, key_column)?;
        plan = plan.filter(named(key_column).is_not_null())?;
        let mut columns = Vec::new();
        for (property_name, property) in
            model.properties.iter().filter(|(_, property)| property.sql.is_none())
        {
            columns.push(stored_value(model, name, &schema, property_name, property)?.alias(property_name));
        }
        let known = if has(INGESTED_AT) {
            as_type(named(INGESTED_AT), &schema, INGESTED_AT, &timestamp_type())
        } else {
            instant(None)
        };
        let time = match &model.telemetry {
            None => instant(None),
            Some(telemetry) => {
                existing(&schema, name, &model.name, &telemetry.time)?;
                let time = as_type(named(&telemetry.time), &schema, &telemetry.time, &timestamp_type());
                plan = plan.filter(time.clone().is_not_null())?;
                if self.view.observed_until_us.is_some() {
                    plan = plan.filter(time.clone().lt_eq(instant(self.view.observed_until_us)))?;
                }
                if self.view.known_until_us.is_some() {
                    plan = plan.filter(known.clone().lt_eq(instant(self.view.known_until_us)))?;
                }
                time
            }
        };
        let sequence = if has(SEQUENCE) {
            as_type(named(SEQUENCE), &schema, SEQUENCE, &DataType::Int64)
        } else {
            null(&DataType::Int64)?
        };
        columns.push(time.alias(VALID_TIME));
        columns.push(known.alias(KNOWN_TIME));
        columns.push(sequence.alias(LOG_SEQUENCE));
        plan.project(columns)
    }

    /// Adds the properties that follow from others, computed from the stored ones; those in `kept` stay as they are.
    fn derived(
        &self,
        model: &TwinModel,
        plan: LogicalPlanBuilder,
        kept: &HashSet<&str>,
    ) -> Result<LogicalPlanBuilder> {
        if model.properties.values().all(|property| property.sql.is_none()) {
            return Ok(plan);
        }
        let there = |name: &str| plan.schema().has_column_with_unqualified_name(name);
        let schema = stored_schema(model)?;
        let mut columns: Vec<Expr> = Vec::new();
        for (name, property) in &model.properties {
            columns.push(match &property.sql {
                Some(sql) if !(kept.contains(name.as_str()) && there(name)) => {
                    let place = format!("the sql of property '{name}' of twin model '{}'", model.name);
                    cast(self.expression(sql, &schema, &place)?, property.kind.data_type()).alias(name)
                }
                _ => named(name),
            });
        }
        columns.extend(beside(model, &plan));
        plan.project(columns)
    }

    /// The instances whose last reading does not say that it was their last.
    fn alive(&self, model: &TwinModel, plan: LogicalPlanBuilder) -> Result<LogicalPlanBuilder> {
        let Some(lifecycle) = &model.lifecycle else { return Ok(plan) };
        let ended = self.ended(model, lifecycle, plan.schema())?;
        plan.filter(ended.is_not_true())
    }

    fn ended(&self, model: &TwinModel, lifecycle: &Lifecycle, schema: &DFSchema) -> Result<Expr> {
        self.expression(
            &lifecycle.ended_when,
            schema,
            &format!("the lifecycle of twin model '{}'", model.name),
        )
    }

    /// The rows with a scenario's overrides, one after the other, as `CASE WHEN` over the base.
    fn overridden(
        &self,
        model: &TwinModel,
        mut plan: LogicalPlanBuilder,
        scenario: &Scenario,
    ) -> Result<LogicalPlanBuilder> {
        let mut set: HashSet<&str> = HashSet::new();
        for change in scenario.overrides_of(&model.name) {
            if let Some(keyed) = &change.keyed {
                let properties = model.properties.keys().map(String::as_str);
                set.extend(properties.filter(|name| keyed.properties().any(|own| own == *name)));
                plan = looked_up(model, plan, keyed)?;
                continue;
            }
            let place = format!("scenario '{}'", scenario.name);
            let holds = match &change.condition {
                Some(sql) => coalesce(vec![self.expression(sql, plan.schema(), &place)?, lit(false)]),
                None => lit(true),
            };
            let mut columns = Vec::new();
            for (name, property) in &model.properties {
                columns.push(match self.changed(change, name, property, plan.schema(), &place)? {
                    Some(value) => {
                        set.insert(name);
                        when(holds.clone(), value).otherwise(named(name))?.alias(name)
                    }
                    None => named(name),
                });
            }
            columns.extend(beside(model, &plan).into_iter().filter(|column| *column != named(TOUCHED)));
            columns.push(named(TOUCHED).or(holds).alias(TOUCHED));
            plan = plan.project(columns)?;
        }
        if set.is_empty() { Ok(plan) } else { self.derived(model, plan, &set) }
    }

    fn changed(
        &self,
        change: &Override,
        name: &str,
        property: &Property,
        schema: &DFSchema,
        place: &str,
    ) -> Result<Option<Expr>> {
        if let Some(value) = change.set.get(name) {
            return Ok(Some(constant(value, property)?));
        }
        let Some(sql) = change.compute.get(name) else { return Ok(None) };
        Ok(Some(cast(self.expression(sql, schema, place)?, property.kind.data_type())))
    }

    /// Adds each relation's two columns; what nobody wants is null.
    async fn related(
        &self,
        model: &TwinModel,
        mut plan: LogicalPlanBuilder,
        wanted: &HashSet<String>,
    ) -> Result<LogicalPlanBuilder> {
        for (name, relation) in &model.relations {
            let Some(nearest) = relation.nearest() else { continue };
            let all: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
            let asked = wanted.contains(nearest.key_column) || wanted.contains(nearest.distance_column);
            let targets = if self.stand_in {
                let none = Targets::new(
                    &BinaryArray::from_iter_values(std::iter::empty::<&[u8]>()),
                    new_empty_array(&relation.key_kind.data_type()),
                );
                Some(Arc::new(none.map_err(through)?))
            } else if asked {
                self.twins.targets(&relation.twin).await?
            } else {
                None
            };
            let Some(targets) = targets else {
                let key = null(&relation.key_kind.data_type())?.alias(nearest.key_column);
                let distance = null(&DataType::Float64)?.alias(nearest.distance_column);
                plan = plan.project(all.into_iter().chain([key, distance]))?;
                continue;
            };
            let heading = match nearest.heading {
                Some(heading) => named(heading),
                None => null(&DataType::Float64)?,
            };
            let function = ScalarUDF::from(NearestFunction::new(name, targets, nearest.within_m));
            // A null position is not looked up, and nothing is found for it.
            let position = match &relation.condition {
                None => named(nearest.geometry),
                Some(sql) => {
                    let place = format!("relation '{name}' of twin model '{}'", model.name);
                    let holds = self.expression(sql, plan.schema(), &place)?;
                    when(holds, named(nearest.geometry)).end()?
                }
            };
            let found = format!("__{name}");
            plan = plan
                .project(all.iter().cloned().chain([function.call(vec![position, heading]).alias(&found)]))?;
            let key = get_field(named(&found), KEY).alias(nearest.key_column);
            let distance = get_field(named(&found), DISTANCE_M).alias(nearest.distance_column);
            plan = plan.project(all.into_iter().chain([key, distance]))?;
        }
        Ok(plan)
    }

    /// An SQL expression over the columns of `schema`; an error says where it was written.
    fn expression(&self, sql: &str, schema: &DFSchema, place: &str) -> Result<Expr> {
        let Some(state) = self.session.as_any().downcast_ref::<SessionState>() else {
            return Err(through(Error::internal("a session of an unknown kind reads a twin")));
        };
        state.create_logical_expr(sql, schema).map_err(|error| {
            through(Error::config(format!("{place}: '{sql}' is not possible: {}", error.strip_backtrace())))
        })
    }
}

/// Checks every SQL expression of the models and scenarios against their columns, in `session`.
pub(crate) fn check_expressions(
    twins: &Twins,
    session: &dyn Session,
    view: &View,
    model: &TwinModel,
) -> Result<()> {
    let planner = StatePlanner { twins, session, view, stand_in: false };
    let schema = model.schema();
    let columns = keep(model).into_iter().chain([lit(false).alias(TOUCHED)]);
    let plan = LogicalPlanBuilder::from(empty(&schema)?).project(columns)?;
    let mut plan = planner.derived(model, plan, &HashSet::new())?;
    for (name, relation) in &model.relations {
        if let Some(sql) = &relation.condition {
            let place = format!("relation '{name}' of twin model '{}'", model.name);
            planner.expression(sql, plan.schema(), &place)?;
        }
        if let Some(sql) = &relation.weight {
            let place = format!("the weight of relation '{name}' of twin model '{}'", model.name);
            let weight = planner.expression(sql, plan.schema(), &place)?;
            if !weight.get_type(plan.schema())?.is_numeric() {
                return Err(through(Error::config(format!("{place}: '{sql}' is not a number"))));
            }
        }
    }
    plan = planner.alive(model, plan)?;
    if let Some(scenario) = &view.scenario {
        plan = planner.overridden(model, plan, scenario)?;
    }
    // Types are checked by analysis: a WHERE that is no condition fails here.
    session.optimize(&plan.build()?).map(|_| ()).map_err(|error| {
        let place = match view.scenario_name() {
            Some(scenario) => format!("scenario '{scenario}' over twin model '{}'", model.name),
            None => format!("twin model '{}'", model.name),
        };
        through(Error::config(format!("{place}: {}", error.strip_backtrace())))
    })
}

/// No row, with these columns.
pub(crate) fn empty(schema: &SchemaRef) -> Result<LogicalPlan> {
    let schema = Arc::new(DFSchema::try_from(schema.as_ref().clone())?);
    Ok(LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, schema }))
}

/// The rows with the overrides that are given by key.
fn looked_up(model: &TwinModel, plan: LogicalPlanBuilder, keyed: &Arc<Keyed>) -> Result<LogicalPlanBuilder> {
    const FOUND: &str = "__overrides";
    let own = beside(model, &plan);
    let all: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
    let function = ScalarUDF::from(KeyedFunction::new(Arc::clone(keyed)));
    let plan = plan.project(all.into_iter().chain([function.call(vec![named(&model.key)]).alias(FOUND)]))?;
    let mut columns = Vec::new();
    for name in model.properties.keys() {
        columns.push(if keyed.properties().any(|own| own == *name) {
            coalesce(vec![get_field(named(FOUND), name.as_str()), named(name)]).alias(name)
        } else {
            named(name)
        });
    }
    columns.extend(own.into_iter().filter(|column| *column != named(TOUCHED)));
    columns.push(named(TOUCHED).or(coalesce(vec![get_field(named(FOUND), HIT), lit(false)])).alias(TOUCHED));
    plan.project(columns)
}

/// The columns of a plan that are no properties.
fn beside(model: &TwinModel, plan: &LogicalPlanBuilder) -> Vec<Expr> {
    let columns = plan.schema().fields().iter().map(|field| field.name());
    columns.filter(|name| !model.properties.contains_key(*name)).map(|name| named(name)).collect()
}

/// One row for each value of `columns`: see the module's documentation.
pub(crate) fn fold(
    model: &TwinModel,
    plan: LogicalPlanBuilder,
    columns: &[&str],
) -> Result<LogicalPlanBuilder> {
    let latest = |name: &str| SortExpr::new(named(name), false, false);
    let mut order: Vec<SortExpr> = [VALID_TIME, KNOWN_TIME, LOG_SEQUENCE].map(latest).into();
    order.extend(
        model
            .properties
            .iter()
            .filter(|(name, property)| {
                property.value.is_none() && property.sql.is_none() && **name != model.key
            })
            .map(|(name, _)| latest(name)),
    );
    let rank = row_number()
        .partition_by(columns.iter().map(|column| named(column)).collect())
        .order_by(order)
        .build()?;
    // At most 1, not equal to 1: the optimiser knows that shape as the first of each group.
    plan.window([rank.alias(RANK)])?.filter(named(RANK).lt_eq(lit(1_u64)))
}

/// The stored properties and the two times.
pub(crate) fn keep(model: &TwinModel) -> Vec<Expr> {
    let stored = model.properties.iter().filter(|(_, property)| property.sql.is_none());
    stored.map(|(name, _)| named(name)).chain([VALID_TIME, KNOWN_TIME].map(named)).collect()
}

fn stored_schema(model: &TwinModel) -> Result<DFSchema> {
    let fields: Vec<Field> = model
        .properties
        .iter()
        .filter(|(_, property)| property.sql.is_none())
        .map(|(name, property)| property.field(name))
        .collect();
    DFSchema::try_from(Schema::new(fields))
}

/// The model's columns in order, geometries with their reference system.
pub(crate) fn final_columns(model: &TwinModel) -> Vec<Expr> {
    let column = |field: &Arc<Field>| {
        let column = named(field.name());
        if field.metadata().is_empty() {
            return column;
        }
        column.alias_with_metadata(field.name(), Some(FieldMetadata::from(field.metadata().clone())))
    };
    model.schema().fields().iter().map(column).collect()
}

fn stored_value(
    model: &TwinModel,
    table: &TableName,
    schema: &SchemaRef,
    name: &str,
    property: &Property,
) -> Result<Expr> {
    if let Some(value) = &property.value {
        return constant(value, property);
    }
    let column = property.column.as_deref().unwrap_or(name);
    existing(schema, table, &model.name, column)?;
    Ok(as_type(named(column), schema, column, &property.kind.data_type()))
}

fn existing(schema: &SchemaRef, table: &TableName, model: &str, column: &str) -> Result<()> {
    if schema.column_with_name(column).is_some() {
        return Ok(());
    }
    let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let failed = Error::config(format!("twin model '{model}' needs a column '{column}' in table {table}"));
    Err(through(match suggest(column, known.iter().copied()) {
        Some(near) => failed.with_help(format!("did you mean '{near}'?")),
        None => failed.with_help(format!("the table has: {}", known.join(", "))),
    }))
}

/// The column in the type wanted; bare where it has that type, so that filters on it reach the table.
fn as_type(column: Expr, schema: &SchemaRef, name: &str, wanted: &DataType) -> Expr {
    match schema.field_with_name(name) {
        Ok(field) if field.data_type() == wanted => column,
        _ => cast(column, wanted.clone()),
    }
}

/// A TOML value as a literal of the property's type.
fn constant(value: &serde_json::Value, property: &Property) -> Result<Expr> {
    constant_value(value, property).map(lit)
}

/// A TOML value as a value of the property's type.
pub(crate) fn constant_value(value: &serde_json::Value, property: &Property) -> Result<ScalarValue> {
    let text = match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let parsed = if property.kind.data_type() == timestamp_type() {
        twinlake_contracts::parse_us(&text)
            .map(|us| ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into())))
    } else {
        ScalarValue::try_from_string(text.clone(), &property.kind.data_type()).ok()
    };
    let Some(parsed) = parsed else { return plan_err!("'{text}' is not a {}", property.kind.name()) };
    Ok(parsed)
}
