//! The messages, and those of DataFusion's types that have none of their own there.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::{DataFusionError, JoinSide, JoinType, Result, internal_datafusion_err};
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinFilter};
use datafusion_proto::protobuf::{self, PhysicalExprNode};

use super::{Read, Write};

/// One operator.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Operator {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4")]
    pub kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
#[allow(clippy::large_enum_variant, reason = "one lives for a moment, on its way to bytes")]
pub(super) enum Kind {
    #[prost(message, tag = "1")]
    SpatialJoin(Join),
    #[prost(message, tag = "2")]
    OverlapJoin(Join),
    #[prost(message, tag = "3")]
    AsofJoin(Asof),
    #[prost(message, tag = "4")]
    GapFill(Gaps),
}

/// A join with a condition that is no equality.
#[derive(Clone, PartialEq, prost::Message)]
#[allow(clippy::struct_field_names, reason = "a join's type is called so")]
pub(super) struct Join {
    #[prost(message, optional, tag = "1")]
    pub filter: Option<Filter>,
    /// The place in [`JOIN_TYPES`].
    #[prost(uint32, tag = "2")]
    pub join_type: u32,
    #[prost(message, optional, tag = "3")]
    pub projection: Option<Places>,
    #[prost(bool, tag = "4")]
    pub with_distance: bool,
    #[prost(bool, tag = "5")]
    pub whole: bool,
}

/// Places of columns.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Places {
    #[prost(uint32, repeated, tag = "1")]
    pub places: Vec<u32>,
}

/// The condition of a join.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Filter {
    #[prost(message, optional, tag = "1")]
    pub expression: Option<PhysicalExprNode>,
    #[prost(message, repeated, tag = "2")]
    pub columns: Vec<FilterColumn>,
    #[prost(message, optional, tag = "3")]
    pub schema: Option<protobuf::Schema>,
}

/// Where a column of a condition comes from.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct FilterColumn {
    #[prost(uint32, tag = "1")]
    pub index: u32,
    /// 0 left, 1 right, 2 neither.
    #[prost(uint32, tag = "2")]
    pub side: u32,
}

/// A join with the nearest in time.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Asof {
    #[prost(message, repeated, tag = "1")]
    pub left_keys: Vec<PhysicalExprNode>,
    #[prost(message, repeated, tag = "2")]
    pub right_keys: Vec<PhysicalExprNode>,
    #[prost(message, optional, tag = "3")]
    pub left_time: Option<PhysicalExprNode>,
    #[prost(message, optional, tag = "4")]
    pub right_time: Option<PhysicalExprNode>,
    /// The place among `>=`, `>`, `<=`, `<`.
    #[prost(uint32, tag = "5")]
    pub operator: u32,
    #[prost(bool, tag = "6")]
    pub keeps_left: bool,
    #[prost(message, optional, tag = "7")]
    pub schema: Option<protobuf::Schema>,
}

/// Filling of gaps.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Gaps {
    #[prost(uint32, tag = "1")]
    pub time: u32,
    #[prost(uint32, repeated, tag = "2")]
    pub keys: Vec<u32>,
    #[prost(int32, tag = "3")]
    pub months: i32,
    #[prost(int32, tag = "4")]
    pub days: i32,
    #[prost(int64, tag = "5")]
    pub nanoseconds: i64,
    #[prost(int64, optional, tag = "6")]
    pub first: Option<i64>,
    #[prost(int64, optional, tag = "7")]
    pub end: Option<i64>,
    #[prost(message, repeated, tag = "8")]
    pub fills: Vec<Fill>,
    #[prost(message, optional, tag = "9")]
    pub schema: Option<protobuf::Schema>,
}

/// A column without gaps.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Fill {
    /// Whether it is carried on, not interpolated.
    #[prost(bool, tag = "1")]
    pub carried: bool,
    #[prost(message, optional, tag = "2")]
    pub value: Option<PhysicalExprNode>,
}

/// In the order of their numbers in messages.
const JOIN_TYPES: [JoinType; 10] = [
    JoinType::Inner,
    JoinType::Left,
    JoinType::Right,
    JoinType::Full,
    JoinType::LeftSemi,
    JoinType::RightSemi,
    JoinType::LeftAnti,
    JoinType::RightAnti,
    JoinType::LeftMark,
    JoinType::RightMark,
];

/// An error for a part of a message that is not there.
pub(super) fn missing(what: &str) -> DataFusionError {
    internal_datafusion_err!("an operator came without its {what}")
}

/// A number as it is in messages.
pub(super) fn number(place: usize) -> Result<u32> {
    u32::try_from(place).map_err(|_| internal_datafusion_err!("{place} is no place of a column"))
}

pub(super) fn write_join_type(join_type: JoinType) -> Result<u32> {
    number(JOIN_TYPES.iter().position(|known| *known == join_type).ok_or_else(|| missing("join type"))?)
}

pub(super) fn read_join_type(number: u32) -> Result<JoinType> {
    JOIN_TYPES.get(number as usize).copied().ok_or_else(|| missing("join type"))
}

pub(super) fn write_schema(schema: &Schema) -> Result<protobuf::Schema> {
    schema.try_into().map_err(|error| internal_datafusion_err!("a schema cannot be written: {error}"))
}

pub(super) fn read_schema(schema: Option<&protobuf::Schema>) -> Result<SchemaRef> {
    let schema = schema.ok_or_else(|| missing("schema"))?;
    let schema: Schema =
        schema.try_into().map_err(|error| internal_datafusion_err!("a schema cannot be read: {error}"))?;
    Ok(Arc::new(schema))
}

pub(super) fn write_projection(projection: Option<&[usize]>) -> Result<Option<Places>> {
    let places = |places: &[usize]| {
        Ok(Places { places: places.iter().map(|place| number(*place)).collect::<Result<_>>()? })
    };
    projection.map(places).transpose()
}

pub(super) fn read_projection(projection: Option<Places>) -> Option<Vec<usize>> {
    projection.map(|places| places.places.into_iter().map(|place| place as usize).collect())
}

pub(super) fn write_filter(filter: &JoinFilter, write: Write<'_>) -> Result<Filter> {
    let column = |column: &ColumnIndex| {
        let side = match column.side {
            JoinSide::Left => 0,
            JoinSide::Right => 1,
            JoinSide::None => 2,
        };
        Ok(FilterColumn { index: number(column.index)?, side })
    };
    Ok(Filter {
        expression: Some(write(filter.expression())?),
        columns: filter.column_indices().iter().map(column).collect::<Result<_>>()?,
        schema: Some(write_schema(filter.schema())?),
    })
}

pub(super) fn read_filter(filter: Option<Filter>, read: Read<'_>) -> Result<JoinFilter> {
    let filter = filter.ok_or_else(|| missing("condition"))?;
    let schema = read_schema(filter.schema.as_ref())?;
    let expression = read(&filter.expression.ok_or_else(|| missing("condition"))?, &schema)?;
    let columns = filter.columns.iter().map(|column| ColumnIndex {
        index: column.index as usize,
        side: match column.side {
            0 => JoinSide::Left,
            1 => JoinSide::Right,
            _ => JoinSide::None,
        },
    });
    Ok(JoinFilter::new(expression, columns.collect(), schema))
}
