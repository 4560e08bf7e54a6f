"""Prints every sample of a table, one JSON object a line: DuckDB reads the files that deltalake calls live.

usage: read_table.py TABLE SAMPLES.SQL
A float: {"tenant", "labels", "t", "bits"}, bits in hexadecimal, null for a staleness marker. A native histogram has
"histogram" in place of "bits", its floats as hexadecimal bits. The metric's name is among the labels.
"""

import json
import pathlib
import struct
import sys

import deltalake
import duckdb
import numpy

FLOATS = "select tenant, metric, labels::json::varchar, time_ms, value, value is null from ({sql})"
HISTOGRAMS = """
select tenant, metric, labels::json::varchar, unnest(histograms)
from read_parquet([{files}], union_by_name = true, hive_partitioning = true,
                  hive_types = {{'tenant': VARCHAR, 'day': DATE}})
where metric is not null and histograms is not null
"""


def main(table_path, sql_path):
    files = deltalake.DeltaTable(table_path).file_uris()
    if not files:
        return
    quoted = ", ".join("'" + f.removeprefix("file://").replace("'", "''") + "'" for f in files)
    sql = pathlib.Path(sql_path).read_text(encoding="utf-8").replace("{files}", quoted)
    connection = duckdb.connect()

    # Through numpy, since a NaN's bits do not survive Python's floats.
    columns = list(connection.execute(FLOATS.format(sql=sql)).fetchnumpy().values())
    bits = numpy.ma.getdata(columns[4]).view(numpy.uint64)
    for tenant, metric, labels, time, value, is_stale in zip(*columns[:4], bits, columns[5]):
        write(tenant, metric, labels, time, bits=None if is_stale else format(int(value), "x"))

    for tenant, metric, labels, histogram in connection.execute(HISTOGRAMS.format(files=quoted)).fetchall():
        time = histogram.pop("timestamp")
        write(tenant, metric, labels, time, histogram=plain(histogram))


def write(tenant, metric, labels, time, **what):
    labels = json.loads(labels)
    if metric:
        labels["__name__"] = metric
    print(json.dumps({"tenant": tenant, "labels": labels, "t": int(time), **what}))


def plain(value):
    if isinstance(value, float):
        return format(struct.unpack("<Q", struct.pack("<d", value))[0], "x")
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


if __name__ == "__main__":
    main(*sys.argv[1:])
