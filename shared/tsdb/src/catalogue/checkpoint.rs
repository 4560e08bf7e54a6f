//! Checkpoints: the whole table at one version as a Parquet file, so that nobody has to read every commit.
//!
//! `_delta_log/<version, 20 digits>.checkpoint.parquet` has a column for each kind of action and sets one of them in
//! each row. `_delta_log/_last_checkpoint` names the newest; it is a hint: without it a table is read
//! from its first commit on, or from what a LIST finds.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::builder::{ListBuilder, MapBuilder, MapFieldNames, StringBuilder};
use arrow::array::{
    Array, ArrayRef, BooleanArray, Int32Array, Int64Array, ListArray, MapArray, RecordBatch, StringArray,
    StructArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Fields, Schema};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};

use super::action::{Add, Format, Line, Protocol, Remove, TableMetadata, Transaction};
use super::log::{Entry, get, is_taken};
use super::state::State;
use crate::faults::site;
use crate::file::arrays::{ShapeError, column, downcast, list_range};
use crate::table::{Error, Result};

/// What `_last_checkpoint` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Hint {
    version: u64,
    /// How many actions the checkpoint has.
    size: usize,
}

pub(super) fn checkpoint_path(directory: &Path, version: u64) -> Path {
    directory.clone().join(format!("{version:020}.checkpoint.parquet"))
}

fn hint_path(directory: &Path) -> Path {
    directory.clone().join("_last_checkpoint")
}

/// Writes a checkpoint, then the hint that names it. Whoever is later by a little finds the same there already.
pub(super) async fn write(
    store: &dyn ObjectStore,
    directory: &Path,
    version: u64,
    size: usize,
    bytes: Vec<u8>,
) -> Result<()> {
    let path = checkpoint_path(directory, version);
    let put = store.put_opts(&path, PutPayload::from(bytes), PutMode::Create.into());
    match site!("checkpoint: put", put.await) {
        Ok(_) => {}
        Err(error) if is_taken(&error) => {}
        Err(error) => return Err(Error::store(format!("write {path}"))(error)),
    }
    if named(store, directory).await?.is_some_and(|known| known >= version) {
        return Ok(());
    }
    let hint = serde_json::to_vec(&Hint { version, size }).map_err(|e| Error::Encode(e.to_string()))?;
    let path = hint_path(directory);
    let put = store.put(&path, PutPayload::from(hint));
    site!("checkpoint hint: put", put.await).map_err(Error::store(format!("write {path}"))).map(drop)
}

/// The version that the hint names.
pub(super) async fn named(store: &dyn ObjectStore, directory: &Path) -> Result<Option<u64>> {
    let path = hint_path(directory);
    let Some(bytes) = get(store, &path).await? else { return Ok(None) };
    match serde_json::from_slice::<Hint>(&bytes) {
        Ok(hint) => Ok(Some(hint.version)),
        Err(error) => {
            tracing::warn!(%error, %path, "pass over a hint that cannot be read");
            Ok(None)
        }
    }
}

/// Reads the checkpoint that the hint names; `None` when there is no hint, or no such checkpoint.
pub(super) async fn named_state(store: &dyn ObjectStore, directory: &Path) -> Result<Option<State>> {
    match named(store, directory).await? {
        Some(version) => load(store, directory, version).await,
        None => Ok(None),
    }
}

/// Reads the newest checkpoint; `None` when the table has none.
pub(super) async fn newest(store: &dyn ObjectStore, directory: &Path) -> Result<Option<State>> {
    if let Some(state) = named_state(store, directory).await? {
        return Ok(Some(state));
    }
    let mut entries = store.list(Some(directory));
    let mut newest = None;
    while let Some(entry) = entries.try_next().await.map_err(Error::store(format!("list {directory}")))? {
        if let Entry::Checkpoint(version) = Entry::of(&entry.location) {
            newest = newest.max(Some(version));
        }
    }
    match newest {
        Some(version) => load(store, directory, version).await,
        None => Ok(None),
    }
}

async fn load(store: &dyn ObjectStore, directory: &Path, version: u64) -> Result<Option<State>> {
    let path = checkpoint_path(directory, version);
    let Some(bytes) = get(store, &path).await? else { return Ok(None) };
    let lines =
        from_parquet(bytes).map_err(|reason| Error::CorruptCommit { path: path.to_string(), reason })?;
    State::at(version, path.as_ref(), lines).map(Some)
}

/// One kind of action as a column: a struct in the rows that have one, null in the others.
struct Kind<'a, T> {
    rows: Vec<Option<&'a T>>,
    fields: Vec<Field>,
    columns: Vec<ArrayRef>,
}

impl<'a, T> Kind<'a, T> {
    fn new(rows: Vec<Option<&'a T>>) -> Self {
        Self { rows, fields: Vec::new(), columns: Vec::new() }
    }

    fn with(mut self, name: &str, column: ArrayRef) -> Self {
        self.fields.push(Field::new(name, column.data_type().clone(), true));
        self.columns.push(column);
        self
    }

    fn each<V, C: FromIterator<Option<V>> + Array + 'static>(
        self,
        name: &str,
        value: impl Fn(&'a T) -> Option<V>,
    ) -> Self {
        let column: C = self.rows.iter().map(|row| row.and_then(&value)).collect();
        self.with(name, Arc::new(column))
    }

    fn text(self, name: &str, value: impl Fn(&'a T) -> Option<&'a str>) -> Self {
        self.each::<&str, StringArray>(name, value)
    }

    fn long(self, name: &str, value: impl Fn(&'a T) -> Option<i64>) -> Self {
        self.each::<i64, Int64Array>(name, value)
    }

    fn int(self, name: &str, value: impl Fn(&'a T) -> u32) -> Self {
        self.each::<i32, Int32Array>(name, |row| i32::try_from(value(row)).ok())
    }

    fn flag(self, name: &str, value: impl Fn(&'a T) -> bool) -> Self {
        self.each::<bool, BooleanArray>(name, |row| Some(value(row)))
    }

    fn map(self, name: &str, value: impl Fn(&'a T) -> Option<Vec<(&'a str, Option<&'a str>)>>) -> Self {
        let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
        let mut maps = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
        for row in &self.rows {
            let entries = row.and_then(&value);
            for (key, value) in entries.iter().flatten() {
                maps.keys().append_value(key);
                maps.values().append_option(*value);
            }
            maps.append(entries.is_some()).expect("as many keys as values");
        }
        self.with(name, Arc::new(maps.finish()))
    }

    fn list(self, name: &str, value: impl Fn(&'a T) -> &'a [String]) -> Self {
        let element = Field::new("element", DataType::Utf8, true);
        let mut lists = ListBuilder::new(StringBuilder::new()).with_field(element);
        for row in &self.rows {
            row.map(&value).into_iter().flatten().for_each(|text| lists.values().append_value(text));
            lists.append(row.is_some());
        }
        self.with(name, Arc::new(lists.finish()))
    }

    fn finish(self) -> ArrayRef {
        let is_set: NullBuffer = self.rows.iter().map(Option::is_some).collect::<Vec<bool>>().into();
        Arc::new(StructArray::new(Fields::from(self.fields), self.columns, Some(is_set)))
    }
}

fn pairs(map: &BTreeMap<String, String>) -> Vec<(&str, Option<&str>)> {
    map.iter().map(|(key, value)| (key.as_str(), Some(value.as_str()))).collect()
}

fn optional_pairs(map: &BTreeMap<String, Option<String>>) -> Vec<(&str, Option<&str>)> {
    map.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect()
}

/// Encodes actions. Synchronous: run it off the async threads.
pub(crate) fn to_parquet(lines: &[Line]) -> Result<Vec<u8>> {
    fn of<'a, T>(lines: &'a [Line], pick: impl Fn(&'a Line) -> Option<&'a T>) -> Kind<'a, T> {
        Kind::new(lines.iter().map(pick).collect())
    }
    let txn = of(lines, |l| l.txn.as_ref())
        .text("appId", |t| Some(&t.app_id))
        .long("version", |t| Some(t.version))
        .long("lastUpdated", |t| t.last_updated);
    let add = of(lines, |l| l.add.as_ref())
        .text("path", |a| Some(&a.path))
        .map("partitionValues", |a| Some(optional_pairs(&a.partition_values)))
        .long("size", |a| i64::try_from(a.size).ok())
        .long("modificationTime", |a| Some(a.modification_time))
        .flag("dataChange", |a| a.data_change)
        .text("stats", |a| a.stats.as_deref())
        .map("tags", |a| a.tags.as_ref().map(optional_pairs));
    let remove = of(lines, |l| l.remove.as_ref())
        .text("path", |r| Some(&r.path))
        .long("deletionTimestamp", |r| r.deletion_timestamp)
        .flag("dataChange", |r| r.data_change);
    let format = of(lines, |l| l.meta_data.as_ref().map(|m| &m.format))
        .text("provider", |f| Some(&f.provider))
        .map("options", |f| Some(pairs(&f.options)));
    let metadata = of(lines, |l| l.meta_data.as_ref())
        .text("id", |m| Some(&m.id))
        .with("format", format.finish())
        .text("schemaString", |m| Some(&m.schema_string))
        .list("partitionColumns", |m| &m.partition_columns)
        .map("configuration", |m| Some(pairs(&m.configuration)))
        .long("createdTime", |m| m.created_time);
    let protocol = of(lines, |l| l.protocol.as_ref())
        .int("minReaderVersion", |p| p.min_reader_version)
        .int("minWriterVersion", |p| p.min_writer_version);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("txn", txn.finish()),
        ("add", add.finish()),
        ("remove", remove.finish()),
        ("metaData", metadata.finish()),
        ("protocol", protocol.finish()),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let write = || {
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns.into_iter().map(|c| c.1).collect())?;
        let mut writer = ArrowWriter::try_new_with_options(Vec::new(), schema, options)?;
        writer.write(&batch)?;
        writer.into_inner()
    };
    write().map_err(|e: parquet::errors::ParquetError| Error::Encode(e.to_string()))
}

/// Decodes a checkpoint.
fn from_parquet(bytes: Bytes) -> Result<Vec<Line>, String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|b| b.build());
    let mut lines = Vec::new();
    for batch in reader.map_err(|e| text(&e))? {
        let batch = batch.map_err(|e| text(&e))?;
        let kind = |name: &str| column::<StructArray>(&batch, name);
        let (txn, add, remove, metadata, protocol) =
            (kind("txn")?, kind("add")?, kind("remove")?, kind("metaData")?, kind("protocol")?);
        for row in 0..batch.num_rows() {
            let at = |kind: &StructArray| kind.is_valid(row);
            lines.push(Line {
                commit_info: None,
                txn: at(txn).then(|| read_transaction(txn, row)).transpose()?,
                add: at(add).then(|| read_add(add, row)).transpose()?,
                remove: at(remove).then(|| read_remove(remove, row)).transpose()?,
                meta_data: at(metadata).then(|| read_metadata(metadata, row)).transpose()?,
                protocol: at(protocol).then(|| read_protocol(protocol, row)).transpose()?,
            });
        }
    }
    Ok(lines)
}

/// A field of one row; `None` where the row or the whole file has it not.
fn value<'a, A: Array + 'static, V>(
    kind: &'a StructArray,
    name: &str,
    row: usize,
    read: impl FnOnce(&'a A, usize) -> Result<V, ShapeError>,
) -> Result<Option<V>, ShapeError> {
    let Some(array) = kind.column_by_name(name) else { return Ok(None) };
    let array: &A = downcast(array, name)?;
    if array.is_null(row) { Ok(None) } else { read(array, row).map(Some) }
}

fn needed<V>(value: Option<V>, name: &str) -> Result<V, ShapeError> {
    value.ok_or_else(|| format!("field {name} is missing"))
}

fn text(kind: &StructArray, name: &str, row: usize) -> Result<Option<String>, ShapeError> {
    value(kind, name, row, |a: &StringArray, row| Ok(a.value(row).to_owned()))
}

fn long(kind: &StructArray, name: &str, row: usize) -> Result<Option<i64>, ShapeError> {
    value(kind, name, row, |a: &Int64Array, row| Ok(a.value(row)))
}

fn flag(kind: &StructArray, name: &str, row: usize) -> Result<bool, ShapeError> {
    value(kind, name, row, |a: &BooleanArray, row| Ok(a.value(row))).map(Option::unwrap_or_default)
}

type OptionalTexts = BTreeMap<String, Option<String>>;

fn map(kind: &StructArray, name: &str, row: usize) -> Result<Option<OptionalTexts>, ShapeError> {
    value(kind, name, row, |maps: &MapArray, row| {
        let (keys, values): (&StringArray, &StringArray) =
            (downcast(maps.keys(), name)?, downcast(maps.values(), name)?);
        let length = usize::try_from(maps.value_length(row)).map_err(|e| e.to_string())?;
        let start = usize::try_from(maps.value_offsets()[row]).map_err(|e| e.to_string())?;
        let value = |i: usize| values.is_valid(i).then(|| values.value(i).to_owned());
        Ok((start..start + length).map(|i| (keys.value(i).to_owned(), value(i))).collect())
    })
}

fn plain_map(kind: &StructArray, name: &str, row: usize) -> Result<BTreeMap<String, String>, ShapeError> {
    let map = map(kind, name, row)?.unwrap_or_default();
    Ok(map.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect())
}

fn read_transaction(kind: &StructArray, row: usize) -> Result<Transaction, ShapeError> {
    Ok(Transaction {
        app_id: needed(text(kind, "appId", row)?, "appId")?,
        version: needed(long(kind, "version", row)?, "version")?,
        last_updated: long(kind, "lastUpdated", row)?,
    })
}

fn read_add(kind: &StructArray, row: usize) -> Result<Add, ShapeError> {
    let size = needed(long(kind, "size", row)?, "size")?;
    Ok(Add {
        path: needed(text(kind, "path", row)?, "path")?,
        partition_values: needed(map(kind, "partitionValues", row)?, "partitionValues")?,
        size: u64::try_from(size).map_err(|_| format!("size {size}"))?,
        modification_time: needed(long(kind, "modificationTime", row)?, "modificationTime")?,
        data_change: flag(kind, "dataChange", row)?,
        stats: text(kind, "stats", row)?,
        tags: map(kind, "tags", row)?,
    })
}

fn read_remove(kind: &StructArray, row: usize) -> Result<Remove, ShapeError> {
    Ok(Remove {
        path: needed(text(kind, "path", row)?, "path")?,
        data_change: flag(kind, "dataChange", row)?,
        deletion_timestamp: long(kind, "deletionTimestamp", row)?,
    })
}

fn read_metadata(kind: &StructArray, row: usize) -> Result<TableMetadata, ShapeError> {
    let format = value(kind, "format", row, |format: &StructArray, row| {
        let provider = needed(text(format, "provider", row)?, "provider")?;
        Ok(Format { provider, options: plain_map(format, "options", row)? })
    })?;
    let columns = value(kind, "partitionColumns", row, |lists: &ListArray, row| {
        let texts: &StringArray = downcast(lists.values(), "partitionColumns")?;
        Ok(list_range(lists, row).map(|i| texts.value(i).to_owned()).collect())
    })?;
    Ok(TableMetadata {
        id: needed(text(kind, "id", row)?, "id")?,
        format: needed(format, "format")?,
        schema_string: needed(text(kind, "schemaString", row)?, "schemaString")?,
        partition_columns: needed(columns, "partitionColumns")?,
        configuration: plain_map(kind, "configuration", row)?,
        created_time: long(kind, "createdTime", row)?,
    })
}

fn read_protocol(kind: &StructArray, row: usize) -> Result<Protocol, ShapeError> {
    let version = |name: &str| {
        let number = value(kind, name, row, |a: &Int32Array, row| Ok(a.value(row)))?;
        u32::try_from(needed(number, name)?).map_err(|e| format!("{name}: {e}"))
    };
    Ok(Protocol {
        min_reader_version: version("minReaderVersion")?,
        min_writer_version: version("minWriterVersion")?,
    })
}
