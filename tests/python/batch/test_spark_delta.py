"""Spark with the Delta Lake library reads the tables that batch writes, at every version.

Maven fetches the library. If that is impossible, the test is skipped, and the summary lists it.
"""

import json
import os
import subprocess
import sys

import deltalake
import pytest

from support.cache import CACHE, installing
from support.lakes import write_lake
from support.maven import fetch_jar

pytestmark = pytest.mark.java

# The newest Spark version that the newest Delta Lake release supports.
SPARK, DELTA = "4.2.0", "4.4.0"
LIBRARIES = ("delta-spark_2.13", "delta-storage")

# One session reads all tables, because starting a session takes longer than reading.
PROGRAM = """
import json, sys
from pyspark.sql import SparkSession
jars, reads = sys.argv[1], json.loads(sys.argv[2])
settings = {
    "spark.jars": jars, "spark.ui.enabled": "false", "spark.sql.session.timeZone": "UTC",
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.databricks.delta.snapshotPartitions": "1"}
builder = SparkSession.builder.master("local[2]")
for name, value in settings.items():
    builder = builder.config(name, value)
spark = builder.getOrCreate()
for table, version in reads:
    reader = spark.read.format("delta")
    frame = (reader if version is None else reader.option("versionAsOf", version)).load(table)
    columns = [f"CAST({name} AS STRING)" for name in frame.columns]
    print("ROWS " + json.dumps(sorted([list(row) for row in frame.selectExpr(*columns).collect()], key=str)))
"""  # noqa: E501


@pytest.fixture(scope="module")
def spark_with_delta():
    """Returns a folder with these versions of Spark and of the library."""
    folder = CACHE / f"spark-{SPARK}-delta-{DELTA}"
    with installing(folder.name):
        folder.mkdir(exist_ok=True)
        for library in LIBRARIES:
            fetch_jar(f"io.delta:{library}:{DELTA}", folder)
        if not (folder / "python").exists():
            pip = [
                sys.executable,
                "-m",
                "pip",
                "install",
                "-q",
                "--disable-pip-version-check",
                "--no-deps",
                "--upgrade",
            ]
            subprocess.run([*pip, "--target", folder / "partial", f"pyspark=={SPARK}"], check=True)
            (folder / "partial").rename(folder / "python")
    return folder


def rows_by_spark(folder, *reads):
    """Returns the rows of each table at its version (None: the newest), every value as text."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder / "python"),
        "SPARK_HOME": str(folder / "python/pyspark"),
        "PYSPARK_PYTHON": sys.executable,
    }
    jars = ",".join(str(folder / f"{library}.jar") for library in LIBRARIES)
    given = json.dumps([(str(table), version) for table, version in reads])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, jars, given],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line[5:]) for line in done.stdout.splitlines() if line.startswith("ROWS ")]
    assert len(found) == len(reads), done.stdout
    return found


def test_spark_reads_every_version_of_the_tables(pinpipe, spark_with_delta):
    pinpipe.run("seed", "--posts", 300)
    source, lake = pinpipe.data / "source.db", pinpipe.folder / "lake"
    write_lake(source, lake, 3, last=200)
    pinpipe.run("batch", "--lake", "lake")
    before = pinpipe.json("batch", "--lake", "lake")["inputs"][2]["version"]
    write_lake(source, lake, 3, first=200)
    pinpipe.run("batch", "--lake", "lake", "--optimize")
    table = pinpipe.data / "tables/batch/local_user_table"
    pins = pinpipe.data / "tables/batch/local_pin_table"
    found, earlier, found_pins = rows_by_spark(
        spark_with_delta, (table, None), (table, before), (pins, None)
    )
    assert len(found) == 300 and len({row[0] for row in found}) == 300
    ours = deltalake.DeltaTable(str(table)).to_pyarrow_table().to_pylist()
    by_number = {str(row["ind"]): row for row in ours}
    for number, name, age, joined in found:
        own = by_number[number]
        assert (name, age) == (own["user_name"], str(own["age"])) and joined[:19] == own[
            "date_joined"
        ].strftime("%Y-%m-%d %H:%M:%S")
    assert {row[0] for row in earlier} == {str(number) for number in range(200)}
    assert len(found_pins) == 300
