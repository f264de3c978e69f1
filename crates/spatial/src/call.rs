//! One call of a function: its columns, with constants decoded once.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayAccessor, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array,
    IntervalMonthDayNanoArray, ListArray, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field};
use datafusion::common::cast::{
    as_binary_array, as_boolean_array, as_float64_array, as_int64_array, as_list_array, as_string_array,
    as_struct_array, as_timestamp_microsecond_array,
};
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::logical_expr::ColumnarValue;
use geo::Geometry;

use crate::definition::{Kind, Parameter, list_of};
use crate::geometry;
use crate::prepared::shape::Shape as Prepared;
use crate::shape::Shape;

/// The arguments of one call over `rows` rows.
pub(crate) struct Call<'a> {
    /// The function's name.
    pub name: &'static str,
    /// How many rows to compute.
    pub rows: usize,
    /// The field of the result, as it was planned. What the fields of the arguments said then is lost by now: a scan
    /// may compute the function on a file's own columns.
    pub result: &'a Field,
    columns: Vec<(ArrayRef, bool)>,
}

impl<'a> Call<'a> {
    /// Checks the types that coercion promised, so that bodies can rely on them.
    pub(crate) fn new(
        name: &'static str,
        rows: usize,
        result: &'a Field,
        arguments: &[ColumnarValue],
        parameters: &[Parameter],
    ) -> Result<Self> {
        let columns = arguments
            .iter()
            .zip(parameters)
            .map(|(value, (_, kind))| {
                let (array, constant) = match value {
                    ColumnarValue::Array(array) => (Arc::clone(array), false),
                    ColumnarValue::Scalar(scalar) => (scalar.to_array_of_size(1)?, true),
                };
                // Geometry comes in any binary type; callers that plan by hand may skip coercion.
                let array = match kind {
                    Kind::Geometry | Kind::Bytes if *array.data_type() != DataType::Binary => {
                        arrow::compute::cast(&array, &DataType::Binary)?
                    }
                    Kind::Text | Kind::TextOrInteger if *array.data_type() != DataType::Utf8 => {
                        arrow::compute::cast(&array, &DataType::Utf8)?
                    }
                    Kind::Geometries => arrow::compute::cast(&array, &list_of(DataType::Binary))?,
                    _ => array,
                };
                Ok((array, constant))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { name, rows, result, columns })
    }

    /// How many arguments were given.
    pub(crate) fn arity(&self) -> usize {
        self.columns.len()
    }

    /// An execution error that names the function.
    pub(crate) fn error<T>(&self, message: impl std::fmt::Display) -> Result<T> {
        exec_err!("{}: {message}", self.name)
    }

    /// Computes each row; `None` is null.
    pub(crate) fn rows<C, T>(&self, compute: impl FnMut(usize) -> Result<Option<T>>) -> Result<ArrayRef>
    where
        C: FromIterator<Option<T>> + Array + 'static,
    {
        Ok(Arc::new((0..self.rows).map(compute).collect::<Result<C>>()?))
    }

    fn column(&self, index: usize) -> Result<(&ArrayRef, bool)> {
        match self.columns.get(index) {
            Some((array, constant)) => Ok((array, *constant)),
            None => self.error(format!("argument {} is missing", index + 1)),
        }
    }

    pub(crate) fn numbers(&self, index: usize) -> Result<Values<&Float64Array>> {
        let (array, constant) = self.column(index)?;
        Ok(Values { array: as_float64_array(array)?, constant })
    }

    pub(crate) fn integers(&self, index: usize) -> Result<Values<&Int64Array>> {
        let (array, constant) = self.column(index)?;
        Ok(Values { array: as_int64_array(array)?, constant })
    }

    pub(crate) fn texts(&self, index: usize) -> Result<Values<&StringArray>> {
        let (array, constant) = self.column(index)?;
        Ok(Values { array: as_string_array(array)?, constant })
    }

    pub(crate) fn timestamps(&self, index: usize) -> Result<Values<&TimestampMicrosecondArray>> {
        let (array, constant) = self.column(index)?;
        Ok(Values { array: as_timestamp_microsecond_array(array)?, constant })
    }

    pub(crate) fn intervals(&self, index: usize) -> Result<Values<&IntervalMonthDayNanoArray>> {
        let (array, constant) = self.column(index)?;
        let array = datafusion::common::cast::as_interval_mdn_array(array)?;
        Ok(Values { array, constant })
    }

    pub(crate) fn bytes(&self, index: usize) -> Result<Values<&BinaryArray>> {
        let (array, constant) = self.column(index)?;
        Ok(Values { array: as_binary_array(array)?, constant })
    }

    pub(crate) fn booleans(&self, index: usize) -> Result<Values<&BooleanArray>> {
        let (array, constant) = self.column(index)?;
        Ok(Values { array: as_boolean_array(array)?, constant })
    }

    /// Lists; an item of the list is one value of the array that comes with it.
    pub(crate) fn lists(&self, index: usize) -> Result<Values<&ListArray>> {
        let (array, constant) = self.column(index)?;
        Ok(Values { array: as_list_array(array)?, constant })
    }

    /// A column of structs.
    pub(crate) fn structs(&self, index: usize) -> Result<&StructArray> {
        as_struct_array(self.column(index)?.0)
    }

    /// Computes each row from the geometry of the first argument; null in, null out.
    pub(crate) fn each<C, T>(
        &self,
        mut compute: impl FnMut(&Geometry) -> Result<Option<T>>,
    ) -> Result<ArrayRef>
    where
        C: FromIterator<Option<T>> + Array + 'static,
    {
        let geometries = self.geometries(0)?;
        self.rows::<C, T>(|row| match geometries.get(row)? {
            Some(geometry) => compute(&geometry),
            None => Ok(None),
        })
    }

    /// Computes each row from the geometries of the first two arguments; null in, null out.
    pub(crate) fn pairs<C, T>(
        &self,
        mut compute: impl FnMut(&Geometry, &Geometry) -> Result<Option<T>>,
    ) -> Result<ArrayRef>
    where
        C: FromIterator<Option<T>> + Array + 'static,
    {
        let (left, right) = (self.geometries(0)?, self.geometries(1)?);
        self.rows::<C, T>(|row| match (left.get(row)?, right.get(row)?) {
            (Some(a), Some(b)) => compute(&a, &b),
            _ => Ok(None),
        })
    }

    /// As [`Call::pairs`], with a constant prepared for the rows that it meets; `compute` gets the row too.
    pub(crate) fn prepared_pairs<C, T>(
        &self,
        mut compute: impl FnMut(&Prepared, &Prepared, usize) -> Result<Option<T>>,
    ) -> Result<ArrayRef>
    where
        C: FromIterator<Option<T>> + Array + 'static,
    {
        let (left, right) = (self.bytes(0)?, self.bytes(1)?);
        let (a, b) = (self.prepared(&left)?, self.prepared(&right)?);
        // A constant is looked at once, not row by row: for points that is a good part of the work.
        match (&a, &b) {
            (Some(a), Some(b)) => self.rows::<C, T>(|row| compute(a, b, row)),
            (Some(a), None) => self.rows::<C, T>(|row| match right.get(row) {
                Some(bytes) => compute(a, &self.read(bytes)?, row),
                None => Ok(None),
            }),
            (None, Some(b)) => self.rows::<C, T>(|row| match left.get(row) {
                Some(bytes) => compute(&self.read(bytes)?, b, row),
                None => Ok(None),
            }),
            (None, None) => self.rows::<C, T>(|row| match (left.get(row), right.get(row)) {
                (Some(a), Some(b)) => compute(&self.read(a)?, &self.read(b)?, row),
                _ => Ok(None),
            }),
        }
    }

    fn read(&self, bytes: &[u8]) -> Result<Prepared> {
        match geometry::plain_point(bytes) {
            Some(at) => Ok(Prepared::Point(at)),
            None => self.data(Prepared::read(bytes)),
        }
    }

    /// The constant of a column, prepared for the rows that it meets; `None` for a null and for a column of many values.
    fn prepared(&self, column: &Values<&BinaryArray>) -> Result<Option<Prepared>> {
        let Some(bytes) = column.constant().filter(|_| self.rows > 0) else { return Ok(None) };
        let decoded = self.read(bytes)?;
        if self.rows >= WORTH_PREPARING {
            decoded.prepare();
        }
        Ok(Some(decoded))
    }

    /// Computes each row from the first argument with all its coordinates; null in, null out.
    pub(crate) fn each_shape<C, T>(
        &self,
        mut compute: impl FnMut(&Shape) -> Result<Option<T>>,
    ) -> Result<ArrayRef>
    where
        C: FromIterator<Option<T>> + Array + 'static,
    {
        let bytes = self.bytes(0)?;
        self.rows::<C, T>(|row| match bytes.get(row) {
            Some(bytes) => compute(&self.shape(bytes)?),
            None => Ok(None),
        })
    }

    /// Reads WKB with all its coordinates.
    pub(crate) fn shape(&self, bytes: &[u8]) -> Result<Shape> {
        self.data(Shape::from_wkb(bytes)).map(|(shape, _)| shape)
    }

    /// The value, or its error as one of this function.
    pub(crate) fn data<T>(&self, result: twinlake_contracts::Result<T>) -> Result<T> {
        match result {
            Ok(value) => Ok(value),
            Err(twinlake_contracts::Error::Data { message, .. }) => self.error(message),
            Err(other) => self.error(other),
        }
    }

    pub(crate) fn geometries(&self, index: usize) -> Result<Geometries<'_>> {
        Ok(Geometries { name: self.name, values: self.bytes(index)?, constant: OnceCell::new() })
    }
}

/// A column of values, or one value that stands for all rows.
pub(crate) struct Values<A: ArrayAccessor> {
    array: A,
    constant: bool,
}

impl<A: ArrayAccessor> Values<A> {
    /// The one value that stands for all rows, if it is one and not null.
    pub(crate) fn constant(&self) -> Option<A::Item> {
        (self.constant && self.array.is_valid(0)).then(|| self.array.value(0))
    }

    /// The column; of one row when its value stands for all.
    pub(crate) fn array(&self) -> &A {
        &self.array
    }

    /// The value of a row; `None` is null.
    pub(crate) fn get(&self, row: usize) -> Option<A::Item> {
        let index = if self.constant { 0 } else { row };
        self.array.is_valid(index).then(|| self.array.value(index))
    }
}

/// So few rows are not worth preparing a constant for.
const WORTH_PREPARING: usize = 8;

/// A column of geometries; a constant is decoded once.
pub(crate) struct Geometries<'a> {
    name: &'static str,
    values: Values<&'a BinaryArray>,
    constant: OnceCell<Geometry>,
}

impl Geometries<'_> {
    /// The geometry of a row, checked; `None` is null.
    pub(crate) fn get(&self, row: usize) -> Result<Option<Cow<'_, Geometry>>> {
        let Some(bytes) = self.values.get(row) else { return Ok(None) };
        if !self.values.constant {
            return Ok(Some(Cow::Owned(self.decode(bytes)?)));
        }
        if let Some(known) = self.constant.get() {
            return Ok(Some(Cow::Borrowed(known)));
        }
        let decoded = self.decode(bytes)?;
        Ok(Some(Cow::Borrowed(self.constant.get_or_init(|| decoded))))
    }

    /// The WKB of a row, structure checked, coordinates as they are; `None` is null.
    pub(crate) fn wkb(&self, row: usize) -> Result<Option<wkb::reader::Wkb<'_>>> {
        self.values
            .get(row)
            .map(|bytes| geometry::read(bytes).map_err(|error| self.name_function(error)))
            .transpose()
    }

    fn decode(&self, bytes: &[u8]) -> Result<Geometry> {
        geometry::decode(bytes).map_err(|error| self.name_function(error))
    }

    fn name_function(&self, error: twinlake_contracts::Error) -> DataFusionError {
        let message = match error {
            twinlake_contracts::Error::Data { message, .. } => message,
            other => other.to_string(),
        };
        DataFusionError::Execution(format!("{}: {message}", self.name))
    }
}
