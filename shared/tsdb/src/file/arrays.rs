//! Lists, maps and structs as Arrow arrays: building them by appending, reading them row by row.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ListArray, MapArray, RecordBatch, StringArray, StringBuilder, StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Fields};
use model::{Labels, labels::METRIC_NAME};

use super::schema;

/// What an array of an unexpected shape is described as.
pub(crate) type ShapeError = String;

/// Where the lists of a list column end, and which of them are null.
#[derive(Debug, Default)]
pub(crate) struct ListShape {
    lengths: Vec<usize>,
    valid: Vec<bool>,
}

impl ListShape {
    /// Adds a list of this many elements.
    pub(crate) fn push(&mut self, length: usize) {
        self.lengths.push(length);
        self.valid.push(true);
    }

    /// Adds a null.
    pub(crate) fn push_null(&mut self) {
        self.lengths.push(0);
        self.valid.push(false);
    }

    /// Adds a list, or a null when it would be empty.
    pub(crate) fn push_or_null(&mut self, length: usize) {
        if length == 0 { self.push_null() } else { self.push(length) }
    }

    /// Makes the list array over its elements.
    pub(crate) fn finish(self, values: ArrayRef) -> ArrayRef {
        let field = schema::element(values.data_type().clone());
        let offsets = OffsetBuffer::from_lengths(self.lengths);
        Arc::new(ListArray::new(field, offsets, values, Some(NullBuffer::from(self.valid))))
    }
}

/// Makes a struct array without nulls of its own.
pub(crate) fn struct_array(fields: Fields, columns: Vec<ArrayRef>) -> ArrayRef {
    Arc::new(StructArray::new(fields, columns, None))
}

/// Builds a column of label maps.
#[derive(Debug, Default)]
pub(crate) struct LabelMaps {
    keys: StringBuilder,
    values: StringBuilder,
    shape: ListShape,
}

impl LabelMaps {
    /// Adds the labels that the predicate keeps.
    pub(crate) fn push(&mut self, labels: &Labels, keep: impl Fn(&str) -> bool) {
        let mut count = 0;
        for (name, value) in labels.iter().filter(|(n, _)| keep(n)) {
            self.keys.append_value(name);
            self.values.append_value(value);
            count += 1;
        }
        self.shape.push(count);
    }

    /// Makes the map array.
    pub(crate) fn finish(mut self) -> ArrayRef {
        let columns: Vec<ArrayRef> = vec![Arc::new(self.keys.finish()), Arc::new(self.values.finish())];
        let entries = StructArray::new(schema::map_fields(), columns, None);
        let offsets = OffsetBuffer::from_lengths(self.shape.lengths);
        let nulls = NullBuffer::from(self.shape.valid);
        Arc::new(MapArray::new(schema::map_entries(), offsets, entries, Some(nulls), false))
    }
}

/// Reads a column of label maps.
#[derive(Debug)]
pub(crate) struct LabelMapsReader<'a> {
    map: &'a MapArray,
    keys: &'a StringArray,
    values: &'a StringArray,
}

impl<'a> LabelMapsReader<'a> {
    /// Takes the array apart.
    pub(crate) fn new(map: &'a MapArray) -> Result<Self, ShapeError> {
        Ok(Self { map, keys: downcast(map.keys(), "key")?, values: downcast(map.values(), "value")? })
    }

    fn pairs(&self, row: usize) -> impl Iterator<Item = (&'a str, &'a str)> + '_ {
        let range = index_range(self.map.value_offsets(), row);
        range.map(|i| (self.keys.value(i), if self.values.is_null(i) { "" } else { self.values.value(i) }))
    }

    /// Reads one row's labels, with the metric name added where it is not empty.
    pub(crate) fn labels(&self, row: usize, metric: &str) -> Labels {
        // The map is written in name order; the metric name has to be put where it belongs.
        let mut pairs: Vec<(&str, &str)> = self.pairs(row).collect();
        if !metric.is_empty() {
            let at = pairs.partition_point(|(n, _)| *n < METRIC_NAME);
            pairs.insert(at, (METRIC_NAME, metric));
        }
        Labels::from_sorted(pairs.iter().copied()).unwrap_or_else(|| Labels::from_pairs(pairs))
    }
}

/// Returns the column of a batch by name and type.
pub(crate) fn column<'a, T: Array + 'static>(
    batch: &'a RecordBatch,
    name: &str,
) -> Result<&'a T, ShapeError> {
    let array = batch.column_by_name(name).ok_or_else(|| format!("column {name} is missing"))?;
    downcast(array, name)
}

/// Returns the field of a struct by name and type.
pub(crate) fn field<'a, T: Array + 'static>(array: &'a StructArray, name: &str) -> Result<&'a T, ShapeError> {
    let field = array.column_by_name(name).ok_or_else(|| format!("field {name} is missing"))?;
    downcast(field, name)
}

/// Returns an array as what it should be.
pub(crate) fn downcast<'a, T: Array + 'static>(array: &'a ArrayRef, name: &str) -> Result<&'a T, ShapeError> {
    array
        .as_any()
        .downcast_ref()
        .ok_or_else(|| format!("column {name} has the unexpected type {}", type_name(array.data_type())))
}

fn type_name(data_type: &DataType) -> String {
    data_type.to_string()
}

/// Returns where one row's elements are.
pub(crate) fn list_range(list: &ListArray, row: usize) -> Range<usize> {
    index_range(list.value_offsets(), row)
}

fn index_range(offsets: &[i32], row: usize) -> Range<usize> {
    let at = |i: i32| usize::try_from(i).expect("Arrow checks that offsets are not negative");
    at(offsets[row])..at(offsets[row + 1])
}
