//! The columns of a file by name and type, how each is encoded, and the same as a Delta schema.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

/// The version of the schema that this crate writes, and the newest it reads.
pub(crate) const SCHEMA_VERSION: &str = "1";
/// The key under which a file names its schema version.
pub(crate) const SCHEMA_VERSION_KEY: &str = "tributary.schema_version";
/// What stands before a label's name in the name of its column.
pub(crate) const LABEL_PREFIX: &str = "label_";

/// Samples in a page of a list column, about, 16 series of 2 h at 15 s: small pages make scattered reads cheap and cost 1
/// to 4 % in size.
pub(crate) const LIST_PAGE_SAMPLES: usize = 16 * 480;
/// Rows of a page of a map of labels: the dictionary makes them small, so that pages of 16 would be mostly header.
const LABELS_PAGE_ROWS: usize = 128;
/// Rows of a page of any other column.
pub(crate) const PAGE_ROWS: usize = 1_024;
/// Rows of a row group.
pub(crate) const ROW_GROUP_ROWS: usize = 16_384;
/// Values between two looks at whether the page is full.
const WRITE_BATCH_SIZE: usize = 256;
/// A level beyond 3 gains nothing on most columns.
const ZSTD_LEVEL: i32 = 3;
/// Lists of samples gain 2 %.
const LISTS_ZSTD_LEVEL: i32 = 5;

pub(crate) mod name {
    //! The names of the columns.
    pub(crate) const METRIC: &str = "metric";
    pub(crate) const LABELS: &str = "labels";
    pub(crate) const TYPE: &str = "type";
    pub(crate) const UNIT: &str = "unit";
    pub(crate) const HELP: &str = "help";
    pub(crate) const SERIES_ID: &str = "series_id";
    pub(crate) const MIN_TIME: &str = "min_time";
    pub(crate) const MAX_TIME: &str = "max_time";
    pub(crate) const TIMELINE: &str = "timeline";
    pub(crate) const OFFSET: &str = "offset";
    pub(crate) const COUNT: &str = "count";
    pub(crate) const TIMESTAMPS: &str = "timestamps";
    pub(crate) const INTS: &str = "ints";
    pub(crate) const SCALE: &str = "scale";
    pub(crate) const FLOATS: &str = "floats";
    pub(crate) const HISTOGRAMS: &str = "histograms";
    pub(crate) const START_TIMESTAMPS: &str = "start_timestamps";
    pub(crate) const EXEMPLARS: &str = "exemplars";
}

fn nullable(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

/// The element field of a list; the name is the one that the Parquet specification asks for.
pub(crate) fn element(data_type: DataType) -> Arc<Field> {
    Arc::new(nullable("element", data_type))
}

fn list(data_type: DataType) -> DataType {
    DataType::List(element(data_type))
}

/// The fields of a map's entries.
pub(crate) fn map_fields() -> Fields {
    // A map's keys are never null, in Parquet's own definition.
    Fields::from(vec![Field::new("key", DataType::Utf8, false), nullable("value", DataType::Utf8)])
}

/// The entry field of a map.
pub(crate) fn map_entries() -> Arc<Field> {
    Arc::new(Field::new("key_value", DataType::Struct(map_fields()), false))
}

fn map() -> DataType {
    DataType::Map(map_entries(), false)
}

/// The fields of a histogram's span.
pub(crate) fn span_fields() -> Fields {
    Fields::from(vec![nullable("offset", DataType::Int32), nullable("length", DataType::Int32)])
}

/// The fields of a native histogram, in the order in which `histograms.rs` builds and reads them.
pub(crate) fn histogram_fields() -> Fields {
    let spans = || list(DataType::Struct(span_fields()));
    Fields::from(vec![
        nullable("timestamp", DataType::Int64),
        nullable("reset_hint", DataType::Utf8),
        nullable("schema", DataType::Int32),
        nullable("zero_threshold", DataType::Float64),
        nullable("sum", DataType::Float64),
        nullable("count", DataType::Int64),
        nullable("zero_count", DataType::Int64),
        nullable("positive_counts", list(DataType::Int64)),
        nullable("negative_counts", list(DataType::Int64)),
        nullable("float_count", DataType::Float64),
        nullable("float_zero_count", DataType::Float64),
        nullable("positive_floats", list(DataType::Float64)),
        nullable("negative_floats", list(DataType::Float64)),
        nullable("positive_spans", spans()),
        nullable("negative_spans", spans()),
        nullable("custom_values", list(DataType::Float64)),
    ])
}

/// The fields of a start time.
pub(crate) fn start_fields() -> Fields {
    Fields::from(vec![nullable("timestamp", DataType::Int64), nullable("start", DataType::Int64)])
}

/// The fields of an exemplar.
pub(crate) fn exemplar_fields() -> Fields {
    Fields::from(vec![
        nullable("labels", map()),
        nullable("value", DataType::Float64),
        nullable("timestamp", DataType::Int64),
    ])
}

/// The schema of a file that has a column for each of these labels.
///
/// What a query reads at one time stands together: what series there are, then how their values are stored. Between the
/// two is what is large or for other readers only.
pub(crate) fn arrow_schema(label_columns: &[String]) -> Arc<Schema> {
    let mut fields = vec![
        nullable(name::METRIC, DataType::Utf8),
        nullable(name::LABELS, map()),
        nullable(name::TYPE, DataType::Utf8),
        nullable(name::UNIT, DataType::Utf8),
        nullable(name::HELP, DataType::Utf8),
        nullable(name::MIN_TIME, DataType::Int64),
        nullable(name::MAX_TIME, DataType::Int64),
        nullable(name::TIMELINE, DataType::Int32),
        nullable(name::OFFSET, DataType::Int32),
        nullable(name::COUNT, DataType::Int32),
    ];
    fields.extend(label_columns.iter().map(|l| nullable(&format!("{LABEL_PREFIX}{l}"), DataType::Utf8)));
    fields.extend([
        nullable(name::SERIES_ID, DataType::Int64),
        nullable(name::TIMESTAMPS, list(DataType::Int64)),
        nullable(name::INTS, list(DataType::Int64)),
        nullable(name::FLOATS, list(DataType::Float64)),
        nullable(name::SCALE, DataType::Int32),
        nullable(name::HISTOGRAMS, list(DataType::Struct(histogram_fields()))),
        nullable(name::START_TIMESTAMPS, list(DataType::Struct(start_fields()))),
        nullable(name::EXEMPLARS, list(DataType::Struct(exemplar_fields()))),
    ]);
    Arc::new(Schema::new(fields))
}

/// How many rows of a file have something in the columns that most rows leave empty.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filled {
    /// Rows in all.
    pub rows: usize,
    /// Samples in all of them.
    pub samples: usize,
    /// Rows with histograms.
    pub histograms: usize,
    /// Rows with start times.
    pub starts: usize,
    /// Rows with exemplars.
    pub exemplars: usize,
}

impl Filled {
    /// Rows of a page of a list column. Where few rows have anything, a page is longer, so that about as many rows of
    /// it are filled: an empty page costs as much as a full one.
    fn page_rows(&self, column: &str) -> usize {
        let filled = match column {
            name::HISTOGRAMS => self.histograms,
            name::START_TIMESTAMPS => self.starts,
            name::EXEMPLARS => self.exemplars,
            _ => self.rows,
        };
        let rows = (LIST_PAGE_SAMPLES * self.rows).checked_div(self.samples).unwrap_or(PAGE_ROWS);
        let rows = rows.clamp(1, PAGE_ROWS);
        (rows * self.rows).checked_div(filled).unwrap_or(PAGE_ROWS).clamp(rows, PAGE_ROWS)
    }
}

/// How hard lists of numbers are compressed.
pub(crate) fn lists_level() -> ZstdLevel {
    ZstdLevel::try_new(LISTS_ZSTD_LEVEL).expect("5 is a level of zstd")
}

/// Encodings, page sizes and statistics, leaf by leaf.
pub(crate) fn writer_properties(schema: &Schema, filled: &Filled) -> WriterProperties {
    let zstd = ZstdLevel::try_new(ZSTD_LEVEL).expect("3 is a level of zstd");
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(zstd))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(WRITE_BATCH_SIZE)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_created_by(concat!("tributary ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_key_value_metadata(Some(vec![KeyValue::new(
            SCHEMA_VERSION_KEY.to_owned(),
            SCHEMA_VERSION.to_owned(),
        )]));
    for field in schema.fields() {
        let list_page_rows = filled.page_rows(field.name());
        let mut path = vec![field.name().clone()];
        builder = leaf_properties(builder, &mut path, field.data_type(), list_page_rows, false);
    }
    builder.build()
}

fn leaf_properties(
    mut builder: WriterPropertiesBuilder,
    path: &mut Vec<String>,
    data_type: &DataType,
    list_page_rows: usize,
    is_repeated: bool,
) -> WriterPropertiesBuilder {
    let mut descend = |builder, names: &[&str], data_type: &DataType, is_repeated| {
        path.extend(names.iter().map(|n| (*n).to_owned()));
        let builder = leaf_properties(builder, path, data_type, list_page_rows, is_repeated);
        path.truncate(path.len() - names.len());
        builder
    };
    match data_type {
        DataType::List(element) => descend(builder, &["list", "element"], element.data_type(), true),
        DataType::Map(entries, _) => descend(builder, &["key_value"], entries.data_type(), true),
        DataType::Struct(fields) => {
            for field in fields {
                builder = descend(builder, &[field.name()], field.data_type(), is_repeated);
            }
            builder
        }
        leaf => {
            let column = ColumnPath::from(path.clone());
            let encoding = match leaf {
                DataType::Int64 | DataType::Int32 => Some(Encoding::DELTA_BINARY_PACKED),
                DataType::Float64 => Some(Encoding::BYTE_STREAM_SPLIT),
                _ => None,
            };
            if let Some(encoding) = encoding {
                builder = builder
                    .set_column_dictionary_enabled(column.clone(), false)
                    .set_column_encoding(column.clone(), encoding);
            }
            if is_repeated {
                let page_rows = if *leaf == DataType::Utf8 {
                    list_page_rows.max(LABELS_PAGE_ROWS)
                } else {
                    list_page_rows
                };
                builder = builder
                    .set_column_statistics_enabled(column.clone(), EnabledStatistics::None)
                    .set_column_data_page_row_count_limit(column, page_rows);
            }
            builder
        }
    }
}

/// The schema as the Delta log states it: the fixed columns and the partition columns.
///
/// Columns of labels are left out, since they differ from file to file and `labels` holds the same.
pub(crate) fn delta_schema() -> String {
    let schema = arrow_schema(&[]);
    let mut fields: Vec<serde_json::Value> = schema.fields().iter().map(|f| delta_field(f)).collect();
    fields.push(delta_field(&nullable("tenant", DataType::Utf8)));
    fields.push(delta_field(&nullable("day", DataType::Date32)));
    serde_json::json!({"type": "struct", "fields": fields}).to_string()
}

fn delta_field(field: &Field) -> serde_json::Value {
    let data_type = delta_type(field.data_type());
    serde_json::json!({"name": field.name(), "type": data_type, "nullable": true, "metadata": {}})
}

fn delta_type(data_type: &DataType) -> serde_json::Value {
    match data_type {
        DataType::Int32 => "integer".into(),
        DataType::Int64 => "long".into(),
        DataType::Float64 => "double".into(),
        DataType::Date32 => "date".into(),
        DataType::List(element) => serde_json::json!({
            "type": "array", "elementType": delta_type(element.data_type()), "containsNull": true
        }),
        DataType::Map(..) => serde_json::json!({
            "type": "map", "keyType": "string", "valueType": "string", "valueContainsNull": true
        }),
        DataType::Struct(fields) => {
            let fields: Vec<serde_json::Value> = fields.iter().map(|f| delta_field(f)).collect();
            serde_json::json!({"type": "struct", "fields": fields})
        }
        // The only other type in `arrow_schema`.
        _ => "string".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_sparse_columns_hold_about_as_many_filled_rows() {
        let filled = Filled { rows: 1_000, samples: 480_000, histograms: 0, starts: 500, exemplars: 1 };
        for (column, want) in [
            (name::INTS, 16),
            (name::HISTOGRAMS, 1_024),
            (name::START_TIMESTAMPS, 32),
            (name::EXEMPLARS, 1_024),
        ] {
            assert_eq!(filled.page_rows(column), want, "{column}");
        }
        assert_eq!(Filled { histograms: 1_000, ..filled }.page_rows(name::HISTOGRAMS), 16);
        let long = Filled { samples: 4 * 480_000, ..filled };
        assert_eq!((long.page_rows(name::INTS), long.page_rows(name::START_TIMESTAMPS)), (4, 8));
        let short = Filled { samples: 60_000, ..filled };
        assert_eq!((short.page_rows(name::INTS), short.page_rows(name::START_TIMESTAMPS)), (128, 256));
    }
}
