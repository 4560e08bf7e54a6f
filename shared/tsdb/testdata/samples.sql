-- Every float sample of the table, one a row, for DuckDB: put the live files' paths, quoted and separated by commas,
-- in place of {files}. `value` is NULL where a series ended (a staleness marker); NaN is a NaN that was measured.
-- A list of files is needed since a folder may also hold files that are not live: with Python,
-- deltalake.DeltaTable(path).file_uris() gives it.
WITH file_rows AS (
    SELECT * FROM read_parquet(
        [{files}],
        union_by_name = true, filename = true,
        hive_partitioning = true, hive_types = {'tenant': VARCHAR, 'day': DATE}
    )
),
timelines AS (
    SELECT filename, timeline, timestamps FROM file_rows WHERE metric IS NULL
),
series AS (
    SELECT s.tenant, s.metric, s.labels, s.type, s.unit, s.scale,
           coalesce(s.timestamps, t.timestamps[s."offset" + 1 : s."offset" + s."count"]) AS times,
           s.ints, s.floats
    FROM file_rows s LEFT JOIN timelines t USING (filename, timeline)
    WHERE s.metric IS NOT NULL AND s."count" > 0
)
SELECT tenant, metric, labels,
       unnest(times) AS time_ms,
       unnest(coalesce(list_transform(ints, lambda i: i::DOUBLE / pow(10, scale)), floats)) AS value
FROM series
