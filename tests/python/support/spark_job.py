"""Runs `src/spark/job.py` alone, with parameters as `src/spark/job.rs` writes them."""

import json
import os
import subprocess
import sys

import pyarrow.parquet

from support.paths import REPOSITORY

JOB = REPOSITORY / "src/spark/job.py"
CLEAN = REPOSITORY / "src/data/sql/clean"

COLUMNS = {
    "pin": {
        "index": "integer",
        "unique_id": "text",
        "title": "text",
        "description": "text",
        "poster_name": "text",
        "follower_count": "text",
        "tag_list": "text",
        "is_image_or_video": "text",
        "image_src": "text",
        "save_location": "text",
        "category": "text",
    },
    "geo": {
        "ind": "integer",
        "timestamp": "date_time",
        "latitude": "float",
        "longitude": "float",
        "country": "text",
    },
    "user": {
        "ind": "integer",
        "first_name": "text",
        "last_name": "text",
        "age": "integer",
        "date_joined": "date_time",
    },
}
# The names of objects: `.json`, `.jsonl` and `.ndjson` in any letter case, without and with `.gz`.
NAMES = "{[jJ][sS][oO][nN],[jJ][sS][oO][nN][lL],[nN][dD][jJ][sS][oO][nN]}"
ENDINGS = (f".{NAMES}", f".{NAMES}.[gG][zZ]")

# One session runs all jobs, as a Databricks cluster does: to start it takes longer than to run one.
PROGRAM = """
import json, sys, traceback
from pyspark.sql import SparkSession
builder = SparkSession.builder.master("local[1]")
for name, value in {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "1"}.items():
    builder = builder.config(name, value)
builder.getOrCreate()
with open(sys.argv[1], encoding="utf-8") as file:
    code = compile(file.read(), sys.argv[1], "exec")
for parameters in sys.argv[2:]:
    error = ""
    sys.argv[1:] = [parameters]
    try:
        exec(code, {"__name__": "__main__"})
    except Exception:
        error = traceback.format_exc()
    print("OUTCOME " + json.dumps(error), flush=True)
"""


def parameters(lake, kinds, questions, out):
    """The parameters of a job over some kinds of records."""

    def folders(kind):
        for ending in ENDINGS:
            yield {
                "path": f"{lake}/topics/local.{kind}",
                "files": f"*{ending}",
                "is_one_record": False,
            }
            if kind == "pin":
                yield {
                    "path": f"{lake}/events",
                    "files": f"event-*{ending}",
                    "is_one_record": True,
                }

    described = [
        {
            "name": kind,
            "folders": list(folders(kind)),
            "columns": [
                {"name": name, "type": column_type} for name, column_type in COLUMNS[kind].items()
            ],
            "clean": (CLEAN / f"{kind}.sql").read_text(),
        }
        for kind in kinds
    ]
    return {
        "kinds": described,
        "post": "SELECT 1 AS one",
        "questions": [{"name": name, "sql": sql} for name, sql in questions.items()],
        "out": str(out),
    }


def run_jobs(folder, jobs):
    """Runs the job over several lakes in one session. `jobs` maps a name to the lake's folder, its
    kind of records and more questions. Returns for each name an error, or the counts (records,
    rejects, duplicates, rows) and the rows of the questions; the question `raw` returns the records
    before cleaning.
    """
    files = []
    for number, (lake, kind, questions) in enumerate(jobs.values()):
        out = folder / f"out-{number}"
        questions = {"raw": f"SELECT * FROM raw_{kind}", **questions}
        path = folder / f"parameters-{number}.json"
        path.write_text(json.dumps(parameters(lake, [kind], questions, out)))
        files.append(str(path))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(JOB), *files],
        env={**os.environ, "PYSPARK_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("OUTCOME ")]
    errors = [json.loads(line.removeprefix("OUTCOME ")) for line in lines]
    assert len(errors) == len(files), done.stderr[-3000:]
    outcomes = {}
    for number, (name, error) in enumerate(zip(jobs, errors)):
        outcomes[name] = Outcome(folder / f"out-{number}", error)
    return outcomes


class Outcome:
    """The result of one job."""

    def __init__(self, out, error):
        self.out, self.error = out, error

    def rows(self, table):
        assert not self.error, self.error
        return pyarrow.parquet.read_table(self.out / table).to_pylist()

    @property
    def counts(self):
        (row,) = self.rows("counts")
        return tuple(row[name] for name in ("records", "rejects", "duplicates", "rows"))
