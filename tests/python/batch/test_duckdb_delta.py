"""DuckDB with its Delta extension reads the tables that batch writes."""

import json
import os
import subprocess
import sys

import deltalake
import pytest

from support.cache import CACHE, installing
from support.lakes import write_lake

# The newest version whose extension is available as a Python package. Newer versions download it
# from a server of DuckDB.
DUCKDB = "1.5.5"

PROGRAM = """
import json, pathlib, sys
import duckdb, duckdb_extension_delta
(extension,) = pathlib.Path(duckdb_extension_delta.__file__).parent.rglob("delta.duckdb_extension")
duckdb.execute(f"LOAD '{extension}'")
duckdb.execute("SET TimeZone = 'UTC'")
columns = sys.argv[2:]
found = duckdb.sql(f"SELECT {', '.join(f'{name}::VARCHAR' for name in columns)} FROM delta_scan('{sys.argv[1]}')").fetchall()
print(json.dumps(sorted(found, key=str)))
"""  # noqa: E501


@pytest.fixture(scope="module")
def packages():
    """Returns a folder with this version of DuckDB and its extension."""
    folder = CACHE / f"duckdb-{DUCKDB}-delta"
    with installing(folder.name):
        if not folder.exists():
            partial = folder.with_suffix(".part")
            wanted = [f"duckdb=={DUCKDB}", f"duckdb-extension-delta=={DUCKDB}"]
            subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "pip",
                    "install",
                    "-q",
                    "--disable-pip-version-check",
                    "--no-deps",
                    "--upgrade",
                    "--target",
                    partial,
                    *wanted,
                ],
                check=True,
            )
            partial.rename(folder)
    return folder


def found_by_duckdb(packages, table, columns):
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, table, *columns],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [tuple(row) for row in json.loads(done.stdout)]


def test_duckdb_matches_delta_rs_after_append_and_compaction(pinpipe, packages):
    pinpipe.run("seed", "--posts", 400)
    write_lake(pinpipe.data / "source.db", pinpipe.folder / "lake", 5)
    broken = pinpipe.folder / "lake/topics/local.geo/partition=0/local.geo+0+0000999999.json"
    broken.write_text('{"ind": "none"}\n{"ind": 77777, "country": "Chad"}\n')
    columns = {
        "pin": ["ind", "category", "follower_count"],
        "geo": ["ind", "country"],
        "user": ["ind", "user_name", "age"],
        "rejects": ["kind", "line", "reason"],
    }
    for arguments in (["--lake", "lake"], ["--lake", "lake", "--optimize"]):
        pinpipe.run("batch", *arguments)
        for name, wanted in columns.items():
            table = pinpipe.data / f"tables/batch/local_{name}_table"
            rows = deltalake.DeltaTable(str(table)).to_pyarrow_table(columns=wanted).to_pylist()
            expected = sorted(
                (
                    tuple(None if row[key] is None else str(row[key]) for key in wanted)
                    for row in rows
                ),
                key=str,
            )
            assert found_by_duckdb(packages, table, wanted) == expected and len(expected) == (
                1 if name == "rejects" else 401 if name == "geo" else 400
            ), name
        broken.with_name("local.geo+0+0001999999.json").write_text(
            '{"ind": 77777, "country": "Chad"}\n'
        )
