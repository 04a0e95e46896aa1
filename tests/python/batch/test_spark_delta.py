"""Spark with Delta's own library reads the tables that batch writes, at every state.

The library comes from Maven Central, which is not reachable everywhere: then this is left out, and said.
"""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request

import deltalake
import pytest

from support.cache import CACHE
from support.lakes import write_lake

# The newest Delta is made for this Spark, which is not the newest.
SPARK, DELTA = "4.2.0", "4.4.0"
MAVEN = "https://repo1.maven.org/maven2/io/delta"

PROGRAM = """
import json, sys
from pyspark.sql import SparkSession
folder, table, version = sys.argv[1:]
jars = ",".join(f"{folder}/{name}" for name in ("delta-spark_2.13.jar", "delta-storage.jar"))
builder = SparkSession.builder.master("local[2]").config("spark.jars", jars).config("spark.ui.enabled", "false").config("spark.sql.session.timeZone", "UTC")
builder = builder.config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension").config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
spark = builder.config("spark.databricks.delta.snapshotPartitions", "1").getOrCreate()
reader = spark.read.format("delta")
frame = (reader.option("versionAsOf", version) if version != "-" else reader).load(table)
columns = [f"CAST({name} AS STRING)" for name in frame.columns]
print("ROWS " + json.dumps(sorted([list(row) for row in frame.selectExpr(*columns).collect()], key=str)))
"""


@pytest.fixture(scope="module")
def spark_with_delta():
    """A folder with that Spark and the library's jars."""
    folder = CACHE / f"spark-{SPARK}-delta-{DELTA}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for name in ("delta-spark_2.13", "delta-storage"):
            jar = folder / f"{name}.jar"
            if not jar.exists():
                with urllib.request.urlopen(f"{MAVEN}/{name}/{DELTA}/{name}-{DELTA}.jar", timeout=60) as answer:
                    draft = jar.with_suffix(".part")
                    draft.write_bytes(answer.read())
                    draft.rename(jar)
    except (urllib.error.URLError, TimeoutError) as error:
        pytest.skip(f"LEFT OUT: reading tables with Spark, since Maven Central is not reachable ({error})")
    if not (folder / "python").exists():
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--target", folder / "draft", f"pyspark=={SPARK}"], check=True)
        (folder / "draft").rename(folder / "python")
    return folder


def rows(folder, table, version="-"):
    """What Spark finds, every value as text."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "python"), "SPARK_HOME": str(folder / "python/pyspark"), "PYSPARK_PYTHON": sys.executable}
    done = subprocess.run([sys.executable, "-c", PROGRAM, folder, table, str(version)], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("ROWS ")]
    return json.loads(line[5:])


def test_spark_reads_every_state_of_the_tables(pinpipe, spark_with_delta):
    pinpipe.run("seed", "--posts", 300)
    source, lake = pinpipe.data / "source.db", pinpipe.folder / "lake"
    write_lake(source, lake, 3, last=200)
    pinpipe.run("batch", "--lake", "lake")
    before = pinpipe.json("batch", "--lake", "lake")["inputs"][2]["version"]
    write_lake(source, lake, 3, first=200)
    pinpipe.run("batch", "--lake", "lake", "--optimize")
    table = pinpipe.data / "tables/batch/local_user_table"
    found = rows(spark_with_delta, table)
    assert len(found) == 300 and len({row[0] for row in found}) == 300
    ours = deltalake.DeltaTable(str(table)).to_pyarrow_table().to_pylist()
    by_number = {str(row["ind"]): row for row in ours}
    for number, name, age, joined in found:
        own = by_number[number]
        assert (name, age) == (own["user_name"], str(own["age"])) and joined[:19] == own["date_joined"].strftime("%Y-%m-%d %H:%M:%S")
    assert {row[0] for row in rows(spark_with_delta, table, before)} == {str(number) for number in range(200)}
    assert len(rows(spark_with_delta, pinpipe.data / "tables/batch/local_pin_table")) == 300
