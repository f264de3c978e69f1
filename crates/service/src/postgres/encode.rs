//! Rows as PostgreSQL data rows.
//!
//! - Geometry is `text` holding hexadecimal EWKB with its SRID, the text form of PostGIS.
//! - A time stamp with a time zone is `timestamptz`, shown in the session's `TimeZone`.
//! - A type that PostgreSQL does not have is `text`, as SQL prints it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions as DisplayOptions};
use datafusion::error::DataFusionError;
use datafusion_postgres::arrow_pg::datatypes::{field_into_pg_type, into_pg_type};
use datafusion_postgres::arrow_pg::encoder::{Encoder, encode_value};
use datafusion_postgres::pgwire::api::Type;
use datafusion_postgres::pgwire::api::portal::Format;
use datafusion_postgres::pgwire::api::results::{DataRowEncoder, FieldFormat, FieldInfo, QueryResponse};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::data::DataRow;
use datafusion_postgres::pgwire::types::format::FormatOptions;
use futures::stream;
use twinlake_contracts::{crs_of, is_geometry};

use crate::answer::Answer;
use crate::failure::Failure;
use crate::geometry::{ewkb_hex, srid};
use crate::json::printed;
use crate::postgres::error::raise;

/// How one column becomes values on the wire.
#[derive(Debug, Clone)]
enum Way {
    /// The encoder knows the type; a column of another type is cast to it first.
    Typed(FieldRef),
    /// An instant as PostgreSQL prints it in the date style ISO: no zeros at the end of a fraction.
    Instant(FieldRef),
    /// WKB as hexadecimal EWKB.
    Geometry(u32),
    /// As SQL prints it.
    Printed,
}

/// The columns of an answer on the wire.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    fields: Arc<Vec<FieldInfo>>,
    ways: Vec<Way>,
}

impl Wire {
    /// The columns of a schema; `format` is what the client asked for.
    pub(super) fn new(
        schema: &Schema,
        format: &Format,
        options: &Arc<FormatOptions>,
        zone: &str,
    ) -> PgWireResult<Self> {
        if let Format::Individual(codes) = format
            && codes.len() != schema.fields().len()
        {
            let message = format!("{} column formats for {} columns", codes.len(), schema.fields().len());
            return Err(raise("08P01", message));
        }
        let (fields, ways) = schema
            .fields()
            .iter()
            .enumerate()
            .map(|(index, field)| {
                let (kind, mut way) = way(field, zone);
                let text = format.format_for(index) == FieldFormat::Text;
                let iso = options.date_style.to_ascii_lowercase().starts_with("iso");
                if let (Way::Typed(field), true) = (&way, text && iso)
                    && matches!(field.data_type(), DataType::Timestamp(..))
                {
                    way = Way::Instant(Arc::clone(field));
                }
                let info =
                    FieldInfo::new(field.name().clone(), None, None, kind.clone(), format.format_for(index))
                        .with_type_size(size_of(&kind))
                        .with_format_options(Arc::clone(options));
                (info, way)
            })
            .unzip();
        Ok(Self { fields: Arc::new(fields), ways })
    }

    /// The description of the columns.
    pub(super) fn fields(&self) -> &Vec<FieldInfo> {
        &self.fields
    }

    /// An answer as it is sent: encoded batch by batch.
    pub(super) fn response(self, answer: Answer) -> QueryResponse {
        let fields = Arc::clone(&self.fields);
        let wire = Arc::new(self);
        let state = (Some(answer), Vec::new().into_iter());
        let rows = stream::unfold(state, move |(mut answer, mut ready)| {
            let wire = Arc::clone(&wire);
            async move {
                loop {
                    if let Some(row) = ready.next() {
                        return Some((Ok(row), (answer, ready)));
                    }
                    let coming = answer.as_mut()?;
                    let rows = match coming.next().await {
                        Ok(Some(batch)) => wire.rows(&batch),
                        Ok(None) => return None,
                        Err(failure) => Err(failure.into()),
                    };
                    match rows {
                        Ok(rows) => ready = rows.into_iter(),
                        Err(error) => return Some((Err(error), (None, ready))),
                    }
                }
            }
        });
        QueryResponse::new(fields, rows)
    }

    /// Encodes a batch.
    pub(super) fn rows(&self, batch: &RecordBatch) -> PgWireResult<Vec<DataRow>> {
        if batch.num_columns() != self.ways.len() {
            return Err(raise("XX000", "an answer has other columns than it was described with"));
        }
        let columns = self
            .ways
            .iter()
            .zip(batch.columns())
            .map(|(way, column)| way.prepare(column))
            .collect::<Result<Vec<_>, Failure>>()?;
        let mut encoder = DataRowEncoder::new(Arc::clone(&self.fields));
        let mut rows = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            for ((column, field), info) in columns.iter().zip(self.fields.iter()) {
                // The encoder's own rules for null differ by type; a null is a null.
                if column.is_null(row) || column.data_type() == &DataType::Null {
                    Encoder::encode_field(&mut encoder, &None::<i8>, info)?;
                } else {
                    encode_value(&mut encoder, column, row, field, info)?;
                }
            }
            rows.push(encoder.take_row());
        }
        Ok(rows)
    }
}

fn way(field: &FieldRef, zone: &str) -> (Type, Way) {
    if is_geometry(field) {
        return (Type::TEXT, Way::Geometry(srid(crs_of(field).as_deref())));
    }
    let field = match field.data_type() {
        DataType::Timestamp(unit, Some(_)) => {
            let kind = DataType::Timestamp(*unit, Some(zone.into()));
            Arc::new(field.as_ref().clone().with_data_type(kind))
        }
        // Keys of a dictionary are the engine's affair.
        DataType::Dictionary(_, values) => {
            Arc::new(field.as_ref().clone().with_data_type(values.as_ref().clone()))
        }
        _ => Arc::clone(field),
    };
    match field_into_pg_type(&field) {
        Ok(kind) => (kind, Way::Typed(field)),
        Err(_) => (Type::TEXT, Way::Printed),
    }
}

/// The fixed width of a type in bytes; -1 when it varies.
fn size_of(kind: &Type) -> i16 {
    match *kind {
        Type::BOOL | Type::CHAR => 1,
        Type::INT2 => 2,
        Type::INT4 | Type::FLOAT4 | Type::DATE | Type::OID => 4,
        Type::INT8 | Type::FLOAT8 | Type::TIMESTAMP | Type::TIMESTAMPTZ | Type::TIME => 8,
        Type::INTERVAL => 16,
        _ => -1,
    }
}

impl Way {
    fn prepare(&self, column: &ArrayRef) -> Result<(ArrayRef, FieldRef), Failure> {
        let text = |values: StringArray| -> (ArrayRef, FieldRef) {
            (Arc::new(values), Arc::new(Field::new("", DataType::Utf8, true)))
        };
        Ok(match self {
            Self::Typed(field) if column.data_type() == field.data_type() || column.data_type().is_null() => {
                (Arc::clone(column), Arc::clone(field))
            }
            Self::Typed(field) => {
                let column =
                    cast(column, field.data_type()).map_err(|e| Failure::from(DataFusionError::from(e)))?;
                (column, Arc::clone(field))
            }
            Self::Instant(field) => {
                let column =
                    cast(column, field.data_type()).map_err(|e| Failure::from(DataFusionError::from(e)))?;
                text((0..column.len()).map(|row| instant(&column, row)).collect())
            }
            Self::Geometry(srid) => {
                let binary =
                    cast(column, &DataType::Binary).map_err(|e| Failure::from(DataFusionError::from(e)))?;
                text(
                    binary.as_binary::<i32>().iter().map(|wkb| wkb.map(|wkb| ewkb_hex(wkb, *srid))).collect(),
                )
            }
            Self::Printed => text(
                (0..column.len()).map(|row| column.is_valid(row).then(|| printed(column, row))).collect(),
            ),
        })
    }
}

/// An instant in the zone of its type, for example `2018-10-09 07:33:10.25+03`; `None` for a null.
fn instant(column: &ArrayRef, row: usize) -> Option<String> {
    let plain = "%Y-%m-%d %H:%M:%S%.f";
    let options = DisplayOptions::new().with_timestamp_format(Some(plain)).with_null("");
    let zoned = format!("{plain}%:z");
    let options = options.with_timestamp_tz_format(Some(&zoned));
    let text = column.is_valid(row).then(|| ArrayFormatter::try_new(column, &options).ok())??;
    let text = text.value(row).try_to_string().ok()?;
    let (clock, offset) = match column.data_type() {
        DataType::Timestamp(_, Some(_)) => text.split_at_checked(text.len().checked_sub(6)?)?,
        _ => (text.as_str(), ""),
    };
    let clock = if clock.contains('.') { clock.trim_end_matches('0').trim_end_matches('.') } else { clock };
    Some(format!("{clock}{}", offset.strip_suffix(":00").unwrap_or(offset)))
}

/// The wire type of a parameter of that Arrow type.
pub(super) fn parameter_type(kind: Option<&DataType>) -> Type {
    kind.and_then(|kind| into_pg_type(kind).ok()).unwrap_or(Type::UNKNOWN)
}

/// The Arrow type of a parameter that the client declared as that type, where the statement does not say.
pub(super) fn declared_type(kind: &Type) -> Option<DataType> {
    Some(match *kind {
        Type::BOOL => DataType::Boolean,
        Type::INT2 => DataType::Int16,
        Type::INT4 => DataType::Int32,
        Type::INT8 => DataType::Int64,
        Type::FLOAT4 => DataType::Float32,
        Type::FLOAT8 => DataType::Float64,
        Type::TEXT | Type::VARCHAR | Type::BPCHAR => DataType::Utf8,
        Type::BYTEA => DataType::Binary,
        Type::DATE => DataType::Date32,
        Type::TIMESTAMP => DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None),
        Type::TIMESTAMPTZ => twinlake_contracts::timestamp_type(),
        _ => return None,
    })
}

/// One row of text under one name, for `SHOW`.
pub(super) fn one_text(name: &str, value: &str, format: &Format) -> PgWireResult<QueryResponse> {
    let schema = text_schema(name);
    let wire = Wire::new(&schema, format, &Arc::default(), "UTC")?;
    let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(StringArray::from(vec![value]))])
        .map_err(|error| PgWireError::from(Failure::from(DataFusionError::from(error))))?;
    let rows = wire.rows(&batch)?;
    Ok(QueryResponse::new(Arc::clone(&wire.fields), stream::iter(rows.into_iter().map(Ok))))
}

/// The schema of what `SHOW` gives.
pub(super) fn text_schema(name: &str) -> Schema {
    Schema::new(vec![Field::new(name, DataType::Utf8, false)])
}
