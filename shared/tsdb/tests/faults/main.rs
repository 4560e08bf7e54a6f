//! What the storage engine promises, held against a process that is killed at every place where something becomes
//! durable, visible or gone, and against a simulation in which everything goes wrong that can.
//!
//! Needs the feature `planted-faults`, without which the places have no names: see `src/faults.rs`.

mod crash;
#[expect(dead_code, reason = "the other binary uses the rest")]
#[path = "../it/gated.rs"]
mod gated;
mod link;
mod power;
mod simulation;
mod sites;
#[expect(dead_code, reason = "the other binary uses the rest")]
#[path = "../it/support.rs"]
mod support;
#[expect(dead_code, unused_macros, unused_imports, reason = "the other binary uses the rest")]
#[path = "../../src/testing.rs"]
mod testing;

/// Whether the long forms are asked for: `make soak`.
#[expect(clippy::disallowed_methods, reason = "how the tests are run is said by who runs them")]
fn is_soak() -> bool {
    std::env::var("TRIBUTARY_SOAK").as_deref() == Ok("true")
}

/// Counts the samples in the live files of a table, as they stand there: one that is there twice counts twice.
async fn count_in_files(table: &tsdb::table::Table, store: &dyn object_store::ObjectStore) -> usize {
    use arrow::array::{Array as _, AsArray as _};
    use arrow::datatypes::Int32Type;
    use object_store::ObjectStoreExt as _;
    use parquet::arrow::ProjectionMask;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    let snapshot = table.snapshot(None).await.expect("a snapshot");
    let mut count = 0;
    for file in snapshot.files(&model::Tenant::default()) {
        let path = object_store::path::Path::parse(format!("metrics/{}", file.path)).expect("a path");
        let bytes = store.get(&path).await.expect("a live file").bytes().await.expect("readable");
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("Parquet");
        let mask = ProjectionMask::columns(builder.parquet_schema(), ["metric", "count"]);
        for batch in builder.with_projection(mask).build().expect("readable") {
            let batch = batch.expect("readable");
            let metrics = batch.column_by_name("metric").expect("the column").as_string::<i32>();
            let counts = batch.column_by_name("count").expect("the column").as_primitive::<Int32Type>();
            // Rows of timelines have no metric.
            let rows =
                (0..batch.num_rows()).filter(|i| metrics.is_valid(*i) && !metrics.value(*i).is_empty());
            count += rows.map(|i| usize::try_from(counts.value(i)).expect("a count")).sum::<usize>();
        }
    }
    count
}
