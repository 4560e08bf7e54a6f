"""Reads a table with readers that are not ours and compares it, bit for bit, with what was written.

usage: check_readers.py TABLE EXPECTED.jsonl
TABLE is a folder or s3://bucket/prefix; the latter takes server and keys from the AWS_... variables. Each line of EXPECTED is one float sample: {"tenant", "metric", "labels", "t", "bits"}, bits in hexadecimal.
"""

import json
import os
import pathlib
import sys
import urllib.parse

import deltalake
import duckdb
import numpy
import pyarrow.fs
from fsspec.implementations.arrow import ArrowFSWrapper

STALE = 0x7FF0000000000002


class Bucket(ArrowFSWrapper):
    """S3 for DuckDB, whose own extension for it has to be fetched from elsewhere."""

    protocol = "bucket"

    @classmethod
    def _strip_protocol(cls, path):
        return path.removeprefix("bucket://")

    @classmethod
    def from_variables(cls):
        endpoint = urllib.parse.urlparse(os.environ["AWS_ENDPOINT_URL"])
        return cls(
            pyarrow.fs.S3FileSystem(
                scheme=endpoint.scheme,
                endpoint_override=endpoint.netloc,
                region=os.environ["AWS_REGION"],
                access_key=os.environ["AWS_ACCESS_KEY_ID"],
                secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
            )
        )


def main(table_path, expected_path):
    table = deltalake.DeltaTable(table_path)
    files = table.file_uris()
    print("delta: version", table.version(), "files", len(files))

    want = {}
    for line in open(expected_path, encoding="utf-8"):
        s = json.loads(line)
        key = (s["tenant"], s["metric"], json.dumps(s["labels"], sort_keys=True), s["t"])
        assert key not in want, f"{key} was written twice"
        want[key] = int(s["bits"], 16)

    con = duckdb.connect()
    if table_path.startswith("s3://"):
        con.register_filesystem(Bucket.from_variables())
        # A file of such a file system has one position, which readers in several threads take from each other.
        con.execute("set threads = 1")
        files = ["bucket://" + f.removeprefix("s3://") for f in files]
    quoted = ", ".join("'" + f.removeprefix("file://").replace("'", "''") + "'" for f in files)
    sql = pathlib.Path(__file__).with_name("samples.sql").read_text().replace("{files}", quoted)
    query = f"select tenant, metric, labels::json::varchar labels, time_ms, value, value is null stale from ({sql})"
    columns = con.execute(query).fetchnumpy()
    values = numpy.ma.getdata(columns["value"]).view(numpy.uint64)
    got = {}
    labels_of = {}
    for tenant, metric, labels, t, bits, stale in zip(
        columns["tenant"], columns["metric"], columns["labels"], columns["time_ms"], values, columns["stale"]
    ):
        if labels not in labels_of:
            labels_of[labels] = json.dumps(json.loads(labels), sort_keys=True)
        key = (tenant, metric, labels_of[labels], int(t))
        assert key not in got, f"{key} was read twice"
        got[key] = STALE if stale else int(bits)
    missing = [k for k in want if k not in got]
    extra = [k for k in got if k not in want]
    wrong = [(k, hex(want[k]), hex(got[k])) for k in want if k in got and want[k] != got[k]]
    print("duckdb: wanted", len(want), "got", len(got), "missing", len(missing), "extra", len(extra), "wrong", len(wrong))
    for problem in missing[:3] + extra[:3] + wrong[:3]:
        print("  ", problem)

    # The statistics in the log are true: partition and column filters of a foreign reader find every row.
    dataset = table.to_pyarrow_dataset()
    rows = dataset.count_rows()
    metric = want and next(iter(want))[1]
    filtered = dataset.to_table(filter=deltalake_filter(metric)).num_rows
    direct = con.execute(
        f"select count(*) from read_parquet([{quoted}], union_by_name = true) where metric = ?", [metric]
    ).fetchone()[0]
    print("pyarrow through delta: rows", rows, "of", repr(metric), filtered, "duckdb says", direct)
    return 1 if missing or extra or wrong or filtered != direct else 0


def deltalake_filter(metric):
    import pyarrow.dataset

    return pyarrow.dataset.field("metric") == metric


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
