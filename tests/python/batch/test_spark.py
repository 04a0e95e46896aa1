"""The Spark engine: Apache Spark runs the same SQL and returns the same answers, row by row."""

import json
import pathlib
import sys

import pytest

from support.lakes import ANSWERS, answers, put, records, write_lake

pytestmark = pytest.mark.java

SPARK_SUBMIT = pathlib.Path(sys.executable).with_name("spark-submit")


def both(pinpipe, *arguments):
    """Returns answers and counts of both engines over the same lake."""
    found = {}
    for engine in ("embedded", "spark"):
        report = pinpipe.json(
            "batch",
            "--lake",
            "lake",
            "--out",
            "answers",
            "--engine",
            engine,
            *arguments,
            env={"PINPIPE__SPARK__SUBMIT": SPARK_SUBMIT, "PYSPARK_PYTHON": sys.executable},
            timeout=3600,
        )
        counts = {
            i["kind"]: tuple(i[k] for k in ("objects", "records", "rejects", "duplicates", "rows"))
            for i in report["inputs"]
        }
        found[engine] = (
            counts,
            {a["name"]: a["rows"] for a in report["answers"]},
            answers(pinpipe),
        )
    return found["embedded"], found["spark"]


def test_both_engines_give_the_same_rows_over_a_dirty_lake(pinpipe):
    pinpipe.run("seed", "--posts", 3000)
    source = pinpipe.data / "source.db"
    write_lake(source, pinpipe.folder / "lake", 6)
    pins, geos = list(records(source, "pin")), list(records(source, "geo"))
    # Duplicates, the other time format, compressed objects, broken records of every kind, the older
    # layout, and unusual values.
    put(pinpipe, "pin", 0, 90_000, pins[:300], ".json.gz")
    put(
        pinpipe,
        "geo",
        0,
        90_000,
        [
            json.dumps({**(r := json.loads(line)), "timestamp": r["timestamp"].replace(" ", "T")})
            for line in geos[:300]
        ],
    )
    odd = [
        {**json.loads(line), **change}
        for line, change in zip(
            pins[300:],
            [
                {"title": None},
                {"follower_count": "1.5M"},
                {"follower_count": 12},
                {"title": ""},
                {"description": 'a "quote", a\nline and ünïcode \U0001f600'},
            ],
        )
    ]
    put(
        pinpipe,
        "pin",
        1,
        90_000,
        [
            *map(json.dumps, odd),
            '{"index": 1, "title": "cut o',
            '{"title": "no number"}',
            '{"index": "many"}',
            '{"index": 3000000000}',
            "",
            "[1]",
        ],
    )
    put(
        pinpipe,
        "user",
        1,
        90_000,
        [
            '{"ind": "7", "first_name": "A", "last_name": null, "age": "33", "date_joined": null}',
            '{"ind": 8, "date_joined": "yesterday"}',
            '{"ind": 9, "age": 3.5}',
        ],
    )
    (pinpipe.folder / "lake/events").mkdir()
    (pinpipe.folder / "lake/events/event-x.json").write_text(
        json.dumps({**json.loads(pins[0]), "index": 2999, "unique_id": "x"}, indent=2)
    )
    (pinpipe.folder / "mine").mkdir()
    (pinpipe.folder / "mine/posters.sql").write_text(
        "-- posters by country\nSELECT country, count(DISTINCT poster_name) AS "
        "posters FROM post GROUP BY country ORDER BY country"
    )
    (pinpipe.folder / "pinpipe.toml").write_text('[batch]\nquestions = "mine"\n')
    for median in ("interpolated", "lower"):
        embedded, spark = both(pinpipe, "--median", median)
        assert len(embedded[1]) == ANSWERS + 1
        for name, rows in embedded[1].items():
            assert spark[1][name] == rows, f"{name} with the {median} median"
        assert embedded[2] == spark[2], "the CSV files"
        if median == "interpolated":
            assert embedded[0] == spark[0], "the counts"
            assert (
                embedded[0]["pin"][2:4] == (5, 300)
                and embedded[0]["geo"][3] == 300
                and embedded[0]["user"][2] == 2
            )


def test_missing_or_failing_spark_is_one_error(pinpipe):
    pinpipe.run("seed", "--posts", 30)
    write_lake(pinpipe.data / "source.db", pinpipe.folder / "lake", 3)
    done = pinpipe.run(
        "batch",
        "--lake",
        "lake",
        "--engine",
        "spark",
        code=1,
        env={"PINPIPE__SPARK__SUBMIT": "no-such-program"},
    )
    assert "cannot start `no-such-program`" in done.stderr and "hint:" in done.stderr
    done = pinpipe.run(
        "batch",
        "--lake",
        "lake",
        "--engine",
        "spark",
        code=1,
        env={
            "PINPIPE__SPARK__SUBMIT": SPARK_SUBMIT,
            "PINPIPE__SPARK__MASTER": "nonsense",
            "PYSPARK_PYTHON": sys.executable,
        },
    )
    assert (
        "Spark failed with" in done.stderr
        and "Master must" in done.stderr
        and "hint:" in done.stderr
    )
    (pinpipe.folder / "empty").mkdir()
    assert (
        "holds no records"
        in pinpipe.run("batch", "--lake", "empty", "--engine", "spark", code=1).stderr
    )
    assert (
        "--full"
        in pinpipe.run("batch", "--lake", "lake", "--engine", "spark", "--full", code=2).stderr
    )
    assert (
        "--memory"
        in pinpipe.run(
            "batch", "--lake", "lake", "--engine", "spark", "--memory", "1GB", code=2
        ).stderr
    )
    assert (
        "hint: add `--engine spark`"
        in pinpipe.run("batch", "--lake", "lake", "--on", "spark-submit", code=2).stderr
    )
