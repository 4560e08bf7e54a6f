"""Reads columns of lists with readers that are not ours and compares them, bit for bit, with what was written.

usage: check_lists.py FOLDER
For each NAME.parquet with a column "c", NAME.json has its rows: null or a list, of nulls and of bits in hexadecimal.
"""

import json
import pathlib
import sys

import duckdb
import numpy
import pyarrow.parquet


def by_pyarrow(path):
    return pyarrow.parquet.read_table(path).column("c")


def by_duckdb(path):
    return duckdb.connect().read_parquet(str(path)).to_arrow_table().column("c")


def rows(column):
    found = []
    for lists in column.chunks:
        elements = lists.values
        bits = numpy.frombuffer(elements.buffers()[1] or b"", dtype=numpy.uint64)[elements.offset :]
        filled = elements.is_valid().to_pylist()
        offsets = lists.offsets.to_pylist()
        for i, is_there in enumerate(lists.is_valid().to_pylist()):
            row = [format(int(bits[at]), "x") if filled[at] else None for at in range(offsets[i], offsets[i + 1])]
            found.append(row if is_there else None)
    return found


def main(folder):
    faults, count = 0, 0
    for path in sorted(pathlib.Path(folder).glob("*.parquet")):
        want = json.loads(path.with_suffix(".json").read_text())
        for read in (by_pyarrow, by_duckdb):
            count += 1
            got = rows(read(path))
            if got != want:
                faults += 1
                first = next((i for i, (g, w) in enumerate(zip(got, want)) if g != w), min(len(got), len(want)))
                print(f"{read.__name__} {path.name}: {len(got)} rows of {len(want)}, row {first} is another")
    print(count, "columns read,", faults, "otherwise than written")
    return 1 if faults or not count else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
