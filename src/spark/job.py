"""Batch job of pinpipe on Spark: runs the same SQL as the embedded engine, from a JSON file.

    spark-submit job.py PARAMETERS [RUN]

Reads the raw objects, counts rejected records, cleans the others, drops duplicates and answers the
questions. Writes each answer and the counts as Parquet to the output folder of the parameters, or
to its subfolder RUN.
"""

import json
import re
import sys

from pyspark.sql import SparkSession
from pyspark.sql.types import StringType, StructField, StructType
from pyspark.sql.utils import AnalysisException

# Conditions for a valid value, by column type. The decoder of the embedded engine has the same.
FITS = {
    "integer": "{c} RLIKE '^[+-]?[0-9]+$' AND TRY_CAST({c} AS INT) IS NOT NULL",
    "float": "TRY_CAST({c} AS DOUBLE) IS NOT NULL",
    "date_time": r"{c} RLIKE '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[ T][0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}([.][0-9]+)?$' AND TRY_CAST(replace({c}, 'T', ' ') AS TIMESTAMP) IS NOT NULL",
    "text": "true",
}
# TRY_CAST, because Spark may compute a column before it filters out rejected records.
TYPES = {"integer": "CAST(TRY_CAST(`{c}` AS INT) AS BIGINT)", "float": "TRY_CAST(`{c}` AS DOUBLE)", "date_time": "`{c}`", "text": "`{c}`"}


def read(spark, kind, corrupt="_corrupt_record"):
    """Returns all records of a kind, with each value as its text in the record."""
    names = [column["name"] for column in kind["columns"]]
    schema = StructType([StructField(name, StringType()) for name in [*names, corrupt]])
    frame = spark.createDataFrame([], schema)
    for folder in kind["folders"]:
        # Hadoop reads the path as a pattern.
        path = re.sub(r"([\\{}\[\]*?])", r"\\\1", folder["path"])
        reader = spark.read.schema(schema).option("recursiveFileLookup", True).option("pathGlobFilter", folder["files"])
        try:
            frame = frame.unionByName(reader.option("multiLine", folder["is_one_record"]).json(path))
        except AnalysisException as error:
            if "PATH_NOT_FOUND" not in str(error):
                raise
    return frame, names[0], corrupt


def clean(spark, kind):
    """Creates the clean table of a kind as a view and returns its counts."""
    frame, number, corrupt = read(spark, kind)
    fits = [f"`{corrupt}` IS NULL", f"`{number}` IS NOT NULL"]
    for column in kind["columns"]:
        name = f"`{column['name']}`"
        fits.append(f"({name} IS NULL OR ({FITS[column['type']].format(c=name)}))")
    frame.selectExpr("*", " AND ".join(fits) + " AS fits").createOrReplaceTempView("records")
    counts = spark.sql("SELECT count(*) AS records, count(CASE WHEN NOT fits THEN 1 END) AS rejects FROM records").first()
    columns = ", ".join(TYPES[column["type"]].format(c=column["name"]) + f" AS `{column['name']}`" for column in kind["columns"])
    spark.sql(f"SELECT {columns} FROM records WHERE fits").createOrReplaceTempView(f"raw_{kind['name']}")
    table = spark.sql(f"SELECT DISTINCT * FROM ({kind['clean']}) c").cache()
    table.createOrReplaceTempView(f"clean_{kind['name']}")
    rows = table.count()
    return kind["name"], counts["records"], counts["rejects"], counts["records"] - counts["rejects"] - rows, rows


def main(path, run=""):
    with open(path, encoding="utf-8") as file:
        parameters = json.load(file)
    spark = SparkSession.builder.appName("pinpipe batch").getOrCreate()
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    # The commit protocol of Databricks leaves files of failed attempts in the output folder, and only
    # Databricks can distinguish them from committed ones.
    spark.conf.set("spark.sql.sources.commitProtocolClass", "org.apache.spark.sql.execution.datasources.SQLHadoopMapReduceCommitProtocol")
    counts = []
    for kind in parameters["kinds"]:
        counts.append(clean(spark, kind))
    if not any(records for _, records, *_ in counts):
        folders = ", ".join(folder["path"] for kind in parameters["kinds"] for folder in kind["folders"])
        raise RuntimeError(f"cannot read the lake: Spark found no records in {folders}")
    post = spark.sql(parameters["post"]).cache()
    post.createOrReplaceTempView("post")
    out = f"{parameters['out']}/{run}" if run else parameters["out"]
    for question in parameters["questions"]:
        spark.sql(question["sql"]).coalesce(1).write.mode("overwrite").parquet(f"{out}/{question['name']}")
    # Written last: if the counts exist, all answers exist.
    columns = "kind string, records bigint, rejects bigint, duplicates bigint, rows bigint"
    spark.createDataFrame(counts, columns).coalesce(1).write.mode("overwrite").parquet(f"{out}/counts")
    # The session is not stopped, because other users of a cluster share it.
    post.unpersist()
    for kind in parameters["kinds"]:
        spark.table(f"clean_{kind['name']}").unpersist()


if __name__ == "__main__":
    main(*sys.argv[1:])
