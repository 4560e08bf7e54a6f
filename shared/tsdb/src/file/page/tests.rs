//! Our decoder against the `parquet` crate: what its writer wrote and its reader reads.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float64Array, Float64Builder, Int32Array, Int64Array, Int64Builder, ListArray,
    ListBuilder, RecordBatch, StringArray,
};
use arrow::datatypes::{Field, Schema};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::WriterProperties;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use super::*;
use crate::file::list_writer::ListWriter;
use crate::file::lists::{Form, ListPage};

/// A file of one column.
struct Written {
    bytes: Bytes,
    metadata: ParquetMetaData,
    /// As the `parquet` crate reads it.
    read: Vec<ArrayRef>,
}

/// How a file is written.
#[derive(Debug, Clone, Copy)]
struct Shape {
    is_zstd: bool,
    page_rows: usize,
    has_dictionary: bool,
}

fn shapes() -> impl Strategy<Value = Shape> {
    (any::<bool>(), 1_usize..40, any::<bool>()).prop_map(|(is_zstd, page_rows, has_dictionary)| Shape {
        is_zstd,
        page_rows,
        has_dictionary,
    })
}

fn write(array: ArrayRef, encoding: Option<Encoding>, shape: Shape) -> Written {
    let schema = Arc::new(Schema::new(vec![Field::new("c", array.data_type().clone(), true)]));
    let zstd = Compression::ZSTD(ZstdLevel::try_new(3).expect("a level"));
    let mut properties = WriterProperties::builder()
        .set_compression(if shape.is_zstd { zstd } else { Compression::UNCOMPRESSED })
        .set_data_page_row_count_limit(shape.page_rows)
        .set_write_batch_size(shape.page_rows)
        .set_dictionary_enabled(shape.has_dictionary && encoding.is_none());
    if let Some(encoding) = encoding {
        properties = properties.set_encoding(encoding);
    }
    let mut writer =
        ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties.build())).expect("opens");
    writer.write(&RecordBatch::try_new(schema, vec![array]).expect("a batch")).expect("written");
    read(writer.into_inner().expect("finished").into())
}

/// The same with our own writer of lists.
fn write_lists(array: ArrayRef, page_elements: usize) -> Written {
    let schema = Arc::new(Schema::new(vec![Field::new("c", array.data_type().clone(), true)]));
    let writer = ArrowWriter::try_new(Vec::new(), schema, None).expect("opens");
    let (mut file, _) = writer.into_serialized_writer().expect("is open");
    let leaf = &file.schema_descr().columns()[0];
    assert!(ListWriter::takes(leaf));
    let level = ZstdLevel::try_new(3).expect("a level");
    let mut lists = ListWriter::new(Arc::clone(leaf), page_elements, level).expect("begins");
    lists.write(array.as_any().downcast_ref().expect("lists")).expect("written");
    let (pages, close) = lists.finish().expect("finished");
    let mut group = file.next_row_group().expect("begins");
    group.append_column(&pages, close).expect("written");
    group.close().expect("finished");
    read(file.into_inner().expect("finished").into())
}

fn read(bytes: Bytes) -> Written {
    let mut reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required);
    reader.try_parse(&bytes).expect("parses");
    let metadata = reader.finish().expect("metadata");
    let batches =
        ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).expect("opens").build().expect("builds");
    let read = batches.map(|b| Arc::clone(b.expect("decodes").column(0))).collect();
    Written { bytes, metadata, read }
}

impl Written {
    fn chunk(&self) -> Chunk {
        Chunk::new(self.metadata.row_group(0).column(0)).expect("known")
    }

    fn slice(&self, start: i64, length: usize) -> &[u8] {
        let start = usize::try_from(start).expect("positive");
        &self.bytes[start..start + length]
    }

    /// The pages with the rows of each.
    fn pages(&self) -> Vec<(Range<usize>, &[u8])> {
        let index = self.metadata.page_index().expect("an index");
        let pages = index.page_locations(0, 0).expect("pages");
        let rows = usize::try_from(self.metadata.row_group(0).num_rows()).expect("few");
        let row = |i: usize| pages.get(i).map_or(rows, |p| usize::try_from(p.first_row_index).expect("few"));
        let page = |(i, p): (usize, &parquet::file::page_index::offset_index::PageLocation)| {
            let length = usize::try_from(p.compressed_page_size).expect("small");
            (row(i)..row(i + 1), self.slice(p.offset, length))
        };
        pages.iter().enumerate().map(page).collect()
    }

    fn dictionary(&self) -> Option<Dictionary> {
        let column = self.metadata.row_group(0).column(0);
        let start = column.dictionary_page_offset()?;
        let length = usize::try_from(column.data_page_offset() - start).expect("ascending");
        Some(self.chunk().dictionary(self.slice(start, length)).expect("decodes"))
    }
}

fn spread<T>(defs: &[u8], values: Vec<T>) -> Vec<Option<T>> {
    let mut values = values.into_iter();
    defs.iter().map(|d| if *d > 0 { values.next() } else { None }).collect()
}

/// Numbers that lie close together, far apart, and at the ends.
fn numbers() -> impl Strategy<Value = i64> + Clone {
    prop_oneof![
        6 => -1_000_i64..1_000,
        2 => any::<i32>().prop_map(i64::from),
        2 => any::<i64>(),
        1 => prop::sample::select(vec![i64::MIN, i64::MAX, 0]),
    ]
}

/// Mostly short lists, and now and then one of more than a block of numbers.
fn lists<T: Clone + std::fmt::Debug + 'static>(
    value: impl Strategy<Value = T> + Clone + 'static,
) -> impl Strategy<Value = Vec<Option<Vec<Option<T>>>>> {
    let element = option::weighted(0.95, value);
    let list = prop_oneof![8 => vec(element.clone(), 0..8), 1 => vec(element, 250..600)];
    vec(option::weighted(0.8, list), 1..40)
}

proptest! {
    #[test]
    fn numbers_are_those_that_parquet_reads(values in vec(option::weighted(0.9, numbers()), 1..900), shape in shapes()) {
        let array: Int64Array = values.iter().copied().collect();
        let file = write(Arc::new(array), Some(Encoding::DELTA_BINARY_PACKED), shape);
        let mut got = Vec::new();
        for (rows, bytes) in file.pages() {
            let page = file.chunk().data_page(bytes).expect("decodes");
            prop_assert_eq!(page.values, rows.len());
            let defs = page.defs.clone();
            got.extend(spread(&defs, page.into_numbers().expect("numbers").to_vec()));
        }
        let want: Vec<Option<i64>> = file
            .read
            .iter()
            .flat_map(|a| a.as_any().downcast_ref::<Int64Array>().expect("numbers").iter().collect::<Vec<_>>())
            .collect();
        prop_assert_eq!(&want, &values);
        prop_assert_eq!(got, want);
    }

    #[test]
    fn short_numbers_wrap_as_parquet_has_them(values in vec(any::<i32>(), 1..400), shape in shapes()) {
        let file = write(Arc::new(Int32Array::from(values.clone())), Some(Encoding::DELTA_BINARY_PACKED), shape);
        let mut got = Vec::new();
        for (_, bytes) in file.pages() {
            let page = file.chunk().data_page(bytes).expect("decodes");
            got.extend(page.into_numbers().expect("numbers").to_vec().into_iter().map(|n| n as i32));
        }
        prop_assert_eq!(got, values);
    }

    #[test]
    fn any_run_of_numbers_is_found(values in vec(numbers(), 1..1_500), from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>()) {
        let shape = Shape { is_zstd: false, page_rows: 2_000, has_dictionary: false };
        let file = write(Arc::new(Int64Array::from(values.clone())), Some(Encoding::DELTA_BINARY_PACKED), shape);
        let (_, bytes) = file.pages()[0];
        let numbers = file.chunk().data_page(bytes).expect("decodes").into_numbers().expect("numbers");
        let (a, b) = (from.index(values.len() + 1), to.index(values.len() + 1));
        let range = a.min(b)..a.max(b);
        let mut got = Vec::new();
        numbers.each(range.clone(), |n| got.push(n));
        prop_assert_eq!(&got, &values[range]);
    }

    #[test]
    fn strings_are_those_that_parquet_reads(values in vec(option::weighted(0.9, "[a-cé]{0,3}"), 1..300), shape in shapes()) {
        let array: StringArray = values.iter().map(Option::as_deref).collect();
        let file = write(Arc::new(array), None, shape);
        let dictionary = file.dictionary();
        prop_assert_eq!(dictionary.is_some(), shape.has_dictionary);
        let (mut got, mut texts) = (Vec::new(), Vec::new());
        for (_, bytes) in file.pages() {
            let page = file.chunk().data_page(bytes).expect("decodes");
            let codes = page.codes(dictionary.as_ref(), |text| {
                texts.push(String::from_utf8(text.bytes.to_vec()).expect("text"));
                Ok(texts.len() as u32 - 1)
            });
            got.extend(spread(&page.defs, codes.expect("codes")));
        }
        let got: Vec<Option<String>> = got.into_iter().map(|c| c.map(|c| texts[c as usize].clone())).collect();
        prop_assert_eq!(got, values);
    }

    #[test]
    fn lists_of_decimals_are_those_that_parquet_reads(rows in lists(-1_000_000_i64..1_000_000), scale in 0_u8..=9, shape in shapes()) {
        let mut builder = ListBuilder::new(Int64Builder::new());
        rows.iter().for_each(|row| builder.append_option(row.clone()));
        let file = write(Arc::new(builder.finish()), Some(Encoding::DELTA_BINARY_PACKED), shape);
        let value = |i: i64| i as f64 / 10_f64.powi(i32::from(scale));
        check_lists(&file, &rows, Form::Decimal(scale), ListPage::of_ints, |v| value(*v))?;
        // The same from the other reader.
        let mut row = 0;
        for array in &file.read {
            let lists = array.as_any().downcast_ref::<ListArray>().expect("lists");
            for list in lists.iter() {
                let list = list.map(|l| l.as_any().downcast_ref::<Int64Array>().expect("numbers").iter().collect());
                prop_assert_eq!(&list, &rows[row]);
                row += 1;
            }
        }
    }

    #[test]
    fn lists_of_doubles_are_those_that_parquet_reads(rows in lists(any::<u64>().prop_map(f64::from_bits)), shape in shapes()) {
        let mut builder = ListBuilder::new(Float64Builder::new());
        rows.iter().for_each(|row| builder.append_option(row.clone()));
        let array: ArrayRef = Arc::new(builder.finish());
        let encodings = [Encoding::BYTE_STREAM_SPLIT, Encoding::PLAIN];
        let ours = write_lists(Arc::clone(&array), shape.page_rows);
        let theirs = encodings.map(|e| write(Arc::clone(&array), Some(e), Shape { has_dictionary: false, ..shape }));
        for file in theirs.iter().chain([&ours]) {
            check_lists(file, &rows, Form::Double, ListPage::of_doubles, |v| *v)?;
            let bits = |x: &Option<f64>| x.map(f64::to_bits);
            let mut row = 0;
            for array in &file.read {
                let lists = array.as_any().downcast_ref::<ListArray>().expect("lists");
                for list in lists.iter() {
                    let list = list.map(|l| {
                        l.as_any().downcast_ref::<Float64Array>().expect("doubles").iter().map(|x| bits(&x)).collect::<Vec<_>>()
                    });
                    prop_assert_eq!(list, rows[row].as_ref().map(|r| r.iter().map(bits).collect::<Vec<_>>()));
                    row += 1;
                }
            }
        }
    }

    #[test]
    fn lists_that_we_write_are_those_that_parquet_reads(rows in lists(numbers()), page_elements in 1_usize..700) {
        let mut builder = ListBuilder::new(Int64Builder::new());
        rows.iter().for_each(|row| builder.append_option(row.clone()));
        let file = write_lists(Arc::new(builder.finish()), page_elements);
        let mut ours = Vec::new();
        for (range, bytes) in file.pages() {
            let elements = |range: Range<usize>| rows[range].iter().flatten().map(Vec::len).sum::<usize>();
            prop_assert!(elements(range.start..range.end - 1) < page_elements);
            prop_assert!(range.end == rows.len() || elements(range.clone()) >= page_elements);
            let page = file.chunk().data_page(bytes).expect("decodes");
            ours.extend(page.into_numbers().expect("numbers").to_vec());
        }
        let want: Vec<i64> = rows.iter().flatten().flatten().flatten().copied().collect();
        prop_assert_eq!(ours, want);
        let list = |array: ArrayRef| array.as_any().downcast_ref::<Int64Array>().expect("numbers").iter().collect();
        let lists = |array: &ArrayRef| -> Vec<Option<Vec<Option<i64>>>> {
            array.as_any().downcast_ref::<ListArray>().expect("lists").iter().map(|l| l.map(list)).collect()
        };
        let theirs: Vec<_> = file.read.iter().flat_map(lists).collect();
        prop_assert_eq!(theirs, rows);
    }

    /// Pages without compression, so that damage reaches every decoder.
    #[test]
    fn damage_never_panics(values in vec(option::weighted(0.9, numbers()), 1..300), rows in lists(-9_i64..9), flips in vec((any::<prop::sample::Index>(), 0_u8..8), 1..4)) {
        let shape = Shape { is_zstd: false, page_rows: 400, has_dictionary: true };
        let damage = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let length = bytes.len();
            flips.iter().for_each(|(at, bit)| bytes[at.index(length)] ^= 1 << bit);
            bytes
        };
        let file = write(Arc::new(values.iter().copied().collect::<Int64Array>()), Some(Encoding::DELTA_BINARY_PACKED), shape);
        for (_, bytes) in file.pages() {
            let numbers = file.chunk().data_page(&damage(bytes)).and_then(DataPage::into_numbers);
            drop(numbers.map(|n| n.to_vec()));
        }
        let texts: StringArray = values.iter().map(|v| v.map(|v| v.to_string())).collect();
        let file = write(Arc::new(texts), None, shape);
        let dictionary = file.dictionary();
        for (_, bytes) in file.pages() {
            let page = file.chunk().data_page(&damage(bytes));
            drop(page.and_then(|p| p.codes(dictionary.as_ref(), |t| Ok(t.bytes.len() as u32))));
        }
        let mut builder = ListBuilder::new(Int64Builder::new());
        rows.iter().for_each(|row| builder.append_option(row.clone()));
        let file = write(Arc::new(builder.finish()), Some(Encoding::DELTA_BINARY_PACKED), shape);
        for (range, bytes) in file.pages() {
            let page = file.chunk().data_page(&damage(bytes));
            let Ok(list) = page.and_then(|p| ListPage::of_ints(range.clone(), p)) else { continue };
            for row in range {
                let count = rows[row].as_ref().map_or(0, Vec::len);
                let mut into = Vec::new();
                drop(list.read_samples(row, Form::Decimal(0), count, 0..count, &mut into));
                drop(list.times(row));
            }
        }
    }
}

/// Every run of samples of every row is what was written.
fn check_lists<T>(
    file: &Written,
    rows: &[Option<Vec<Option<T>>>],
    form: Form,
    of: fn(Range<usize>, DataPage) -> std::result::Result<ListPage, ShapeError>,
    value: impl Fn(&T) -> f64,
) -> std::result::Result<(), TestCaseError> {
    for (range, bytes) in file.pages() {
        let page = of(range.clone(), file.chunk().data_page(bytes).expect("decodes")).expect("lists");
        for row in range {
            let empty = Vec::new();
            let want = rows[row].as_ref().unwrap_or(&empty);
            let want: Vec<u64> =
                want.iter().map(|v| v.as_ref().map_or_else(model::stale_nan, &value).to_bits()).collect();
            for (start, end) in [(0, want.len()), (want.len() / 3, want.len()), (0, want.len() / 2)] {
                let mut got = Vec::new();
                page.read_samples(row, form, want.len(), start..end, &mut got).expect("samples");
                let got: Vec<u64> = got.into_iter().map(f64::to_bits).collect();
                prop_assert_eq!(&got, &want[start..end]);
            }
            let mut none = Vec::new();
            prop_assert!(page.read_samples(row, form, want.len() + 1, 0..0, &mut none).is_err());
        }
    }
    Ok(())
}

/// Lists of numbers whose differences take up to so many bits, up and down, and the odd ones of a part, a block and a page.
fn lists_of_every_width() -> Vec<Option<Vec<Option<i64>>>> {
    let zigzag = |bits: u32, length: i64| {
        let far = u64::MAX.checked_shr(64 - bits).unwrap_or(0).cast_signed();
        let up_and_down = move |i: i64| if i % 2 == 0 { 0 } else { far };
        Some((0..length).map(|i| Some(up_and_down(i))).collect())
    };
    let mut rows: Vec<_> = (0..=64).map(|bits| zigzag(bits, 40)).collect();
    rows.extend((0..=64).map(|bits| zigzag(bits, 1)));
    rows.extend([31, 32, 33, 34, 127, 128, 129, 130].map(|length| zigzag(9, length)));
    let ends = [i64::MIN, i64::MAX, 0, i64::MAX, i64::MIN, i64::MIN, -1, 1];
    rows.push(Some(ends.into_iter().map(Some).collect()));
    rows.extend([None, Some(vec![]), Some(vec![None; 40]), Some(vec![None, Some(i64::MIN), None]), None]);
    rows
}

#[test]
fn lists_that_we_write_are_those_that_others_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let doubles = || {
        prop_oneof![any::<u64>(), prop::sample::select(vec![0, 1 << 63, 0x7ff8 << 48, 0xfff0_0000_0000_0001])]
    };
    for case in 0..40 {
        let page_elements = [1, 30, 700][case % 3];
        let ints = match case {
            0..3 => lists_of_every_width(),
            3 => vec![None; 20],
            _ => lists(numbers()).new_tree(&mut runner).expect("generates").current(),
        };
        let mut builder = ListBuilder::new(Int64Builder::new());
        ints.iter().for_each(|row| builder.append_option(row.clone()));
        let bits = |n: &i64| n.cast_unsigned();
        keep_for_others(
            folder.path(),
            &format!("ints-{case:02}"),
            builder.finish(),
            page_elements,
            &ints,
            bits,
        );

        let floats =
            lists(doubles().prop_map(f64::from_bits)).new_tree(&mut runner).expect("generates").current();
        let mut builder = ListBuilder::new(Float64Builder::new());
        floats.iter().for_each(|row| builder.append_option(row.clone()));
        let name = format!("doubles-{case:02}");
        keep_for_others(folder.path(), &name, builder.finish(), page_elements, &floats, |x| x.to_bits());
    }
    let output = std::process::Command::new(test_kit::part("venv/bin/python"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/check_lists.py"))
        .arg(folder.path())
        .output()
        .expect("runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

/// Writes a column for `check_lists.py`, and what it holds.
fn keep_for_others<T>(
    folder: &std::path::Path,
    name: &str,
    array: ListArray,
    page_elements: usize,
    rows: &[Option<Vec<Option<T>>>],
    bits: impl Fn(&T) -> u64,
) {
    let file = write_lists(Arc::new(array), page_elements);
    std::fs::write(folder.join(format!("{name}.parquet")), &file.bytes).expect("written");
    let hex = |element: &Option<T>| element.as_ref().map(|n| format!("{:x}", bits(n)));
    let rows: Vec<_> =
        rows.iter().map(|row| row.as_ref().map(|row| row.iter().map(hex).collect::<Vec<_>>())).collect();
    std::fs::write(folder.join(format!("{name}.json")), serde_json::json!(rows).to_string())
        .expect("written");
}

#[test]
fn doubles_take_the_encoding_that_makes_them_small() {
    let mixed = |i: u64| {
        let x = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    };
    let noise: Vec<f64> = (0..512).map(|i| f64::from_bits((0x3ff << 52) | (mixed(i) >> 12))).collect();
    // The same few values again and again, in no order.
    let few: Vec<f64> = (0..512).map(|i| noise[(mixed(i) >> 59) as usize]).collect();
    for (values, encoding) in [(noise, Encoding::BYTE_STREAM_SPLIT), (few, Encoding::PLAIN)] {
        let mut builder = ListBuilder::new(Float64Builder::new());
        builder.append_value(values.iter().copied().map(Some));
        let file = write_lists(Arc::new(builder.finish()), 1);
        let encodings: Vec<Encoding> = file.metadata.row_group(0).column(0).encodings().collect();
        assert!(encodings.contains(&encoding), "{encodings:?}");
        assert_eq!(encodings.len(), 2, "that one and the one of levels");
    }
}

#[test]
fn what_we_do_not_write_is_refused_by_name() {
    let shape = Shape { is_zstd: false, page_rows: 10, has_dictionary: false };
    let file = write(Arc::new(Int64Array::from(vec![1, 2, 3])), Some(Encoding::PLAIN), shape);
    let page = file.chunk().data_page(file.pages()[0].1).expect("decodes");
    assert_eq!(page.into_numbers().expect_err("refused"), "encoding 0 is not supported here");
}
