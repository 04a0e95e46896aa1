"""Batch over lakes of all layouts: only new objects are read, duplicates are dropped, rejected
records are stored.
"""

import datetime
import json
import re
import shutil
import subprocess
import time

import deltalake
import pytest

from support.lakes import ANSWERS, KINDS, answers, put, records, write_lake
from support.pinpipe import BINARY, clean_environment


@pytest.fixture
def source(pinpipe):
    pinpipe.run("seed", "--posts", 600)
    return pinpipe.data / "source.db"


def batch(pinpipe, *arguments):
    report = pinpipe.json("batch", "--lake", "lake", "--out", "answers", *arguments)
    return {i["kind"]: i for i in report["inputs"]}, answers(pinpipe), report


def table(pinpipe, name):
    return deltalake.DeltaTable(pinpipe.data / "tables/batch" / f"local_{name}_table")


def rows(pinpipe, kind):
    return sorted(table(pinpipe, kind).to_pyarrow_table().column("ind").to_pylist())


def test_only_new_objects_are_read_and_answers_match_a_full_run(pinpipe, source):
    write_lake(source, pinpipe.folder / "lake", 12, last=500)
    counts, _, _ = batch(pinpipe)
    assert {
        k: (c["objects"], c["records"], c["new_rows"], c["rows"]) for k, c in counts.items()
    } == {k: (12, 500, 500, 500) for k in KINDS}
    counts, _, _ = batch(pinpipe)
    assert {
        k: (c["objects_in_lake"], c["objects"], c["records"], c["rows"]) for k, c in counts.items()
    } == {k: (12, 0, 0, 500) for k in KINDS}
    write_lake(source, pinpipe.folder / "lake", 3, first=500)
    counts, incremental, _ = batch(pinpipe)
    assert {
        k: (c["objects"], c["records"], c["new_rows"], c["rows"]) for k, c in counts.items()
    } == {k: (3, 100, 100, 600) for k in KINDS}
    counts, full, _ = batch(pinpipe, "--full")
    assert {
        k: (c["objects"], c["records"], c["new_rows"], c["rows"]) for k, c in counts.items()
    } == {k: (15, 600, 600, 600) for k in KINDS}
    assert incremental == full and len(full) == ANSWERS
    assert rows(pinpipe, "pin") == list(range(600))


def test_late_duplicate_and_rewritten_objects_add_only_new_rows(pinpipe, source):
    write_lake(source, pinpipe.folder / "lake", 6, last=500)
    pins = list(records(source, "pin"))
    batch(pinpipe)
    before = answers(pinpipe)
    # Duplicates under later offsets, compressed or with the other time format.
    put(pinpipe, "pin", 0, 9000, pins[:200], ".json.gz")
    put(
        pinpipe,
        "geo",
        1,
        9000,
        [
            json.dumps({**(r := json.loads(line)), "timestamp": r["timestamp"].replace(" ", "T")})
            for line in list(records(source, "geo"))[:200]
        ],
    )
    counts, after, _ = batch(pinpipe)
    assert (counts["pin"]["objects"], counts["pin"]["duplicates"], counts["pin"]["new_rows"]) == (
        1,
        200,
        0,
    )
    assert (counts["geo"]["objects"], counts["geo"]["duplicates"], counts["geo"]["new_rows"]) == (
        1,
        200,
        0,
    )
    assert after == before
    # Late: between objects that were read.
    late = put(pinpipe, "pin", 0, 1, pins[500:520])
    counts, _, _ = batch(pinpipe)
    assert counts["pin"]["new_rows"] == 20 and counts["pin"]["rows"] == 520
    # An object rewritten with more records, as by a sink that was killed before its commit.
    late.write_text("".join(line + "\n" for line in pins[500:530]))
    counts, _, _ = batch(pinpipe)
    assert counts["pin"]["new_rows"] == 10 and counts["pin"]["rows"] == 530
    assert rows(pinpipe, "pin") == list(range(530))


def test_same_index_with_other_values_is_another_row(pinpipe, source):
    write_lake(source, pinpipe.folder / "lake", 3, last=100)
    batch(pinpipe)
    user = json.loads(next(records(source, "user")))
    put(
        pinpipe,
        "user",
        0,
        5000,
        [
            json.dumps({**user, "age": user["age"] + 1}),
            json.dumps({**user, "age": None}),
            json.dumps(user),
        ],
    )
    counts, _, _ = batch(pinpipe)
    assert (counts["user"]["new_rows"], counts["user"]["duplicates"]) == (2, 1)


def test_older_layout_of_one_record_per_object_is_read(pinpipe, source):
    folder = pinpipe.folder / "lake/events"
    folder.mkdir(parents=True)
    for line in list(records(source, "pin"))[:50]:
        record = json.loads(line)
        (folder / f"event-{record['unique_id']}.json").write_text(json.dumps(record, indent=4))
    counts, _, _ = batch(pinpipe)
    assert (
        counts["pin"]["objects"],
        counts["pin"]["records"],
        counts["pin"]["rows"],
        counts["pin"]["rejects"],
    ) == (50, 50, 50, 0)
    assert batch(pinpipe)[0]["pin"]["objects"] == 0
    record["unique_id"], record["index"] = "another", 599
    (folder / "event-another.json").write_text(json.dumps(record))
    (folder / "event-broken.json").write_text('{"index": 1,\n "unique_id"')
    counts, _, _ = batch(pinpipe)
    assert (counts["pin"]["objects"], counts["pin"]["new_rows"], counts["pin"]["rejects"]) == (
        2,
        1,
        1,
    )


def test_other_partitioners_are_tracked_per_partition(pinpipe, source):
    lines = list(records(source, "geo"))
    for number, line in enumerate(lines[:300]):
        country = json.loads(line)["country"]
        folder = pinpipe.folder / f"lake/topics/local.geo/country={country}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"local.geo+0+{number:010d}.json").write_text(line + "\n")
    counts, _, _ = batch(pinpipe)
    assert (counts["geo"]["objects"], counts["geo"]["rows"]) == (300, 300)
    folder = pinpipe.folder / "lake/topics/local.geo/year=2022/month=10/day=05/hour=03"
    folder.mkdir(parents=True)
    (folder / "local.geo+1+0000000007.json").write_text("\n".join(lines[300:310]) + "\n")
    counts, _, _ = batch(pinpipe)
    assert (counts["geo"]["objects"], counts["geo"]["new_rows"], counts["geo"]["rows"]) == (
        1,
        10,
        310,
    )


def test_rejected_records_are_stored_with_origin_reason_and_text(pinpipe, source):
    write_lake(source, pinpipe.folder / "lake", 3, last=30)
    bad = ['{"index": 1, "title": "cut o', '{"title": "no number"}', "[1]", '{"index": "many"}']
    path = put(pinpipe, "pin", 0, 7000, [*bad[:2], "", *bad[2:]])
    put(pinpipe, "user", 0, 7000, ['{"ind": 3, "date_joined": "yesterday"}'])
    counts, _, report = batch(pinpipe)
    assert (counts["pin"]["rejects"], counts["user"]["rejects"], counts["pin"]["rows"]) == (
        4,
        1,
        30,
    )
    assert report["rejects"][0]["origin"] == str(path)

    def found():
        return sorted(
            (r["kind"], r["object"], r["line"], r["reason"], r["raw"])
            for r in table(pinpipe, "rejects").to_pyarrow_table().to_pylist()
        )

    first = found()
    assert [(r[0], r[2], r[4]) for r in first] == [
        ("pin", 1, bad[0]),
        ("pin", 2, bad[1]),
        ("pin", 4, bad[2]),
        ("pin", 5, bad[3]),
        ("user", 1, '{"ind": 3, "date_joined": "yesterday"}'),
    ]
    assert [r[3].split(":")[0] for r in first] == [
        "broken JSON",
        "no row number `index`",
        "not a JSON object",
        "`index` does not fit its column",
        "`date_joined` does not fit its column",
    ]
    # A late object makes batch read its range again, which finds the same rejects and stores them
    # once.
    put(pinpipe, "pin", 0, 3, ["nonsense"])
    batch(pinpipe)
    assert len(found()) == 6
    batch(pinpipe, "--full")
    assert len(found()) == 6
    path.unlink()
    batch(pinpipe, "--full")
    assert [(r[0], r[4]) for r in found()] == [
        ("pin", "nonsense"),
        ("user", '{"ind": 3, "date_joined": "yesterday"}'),
    ]


def test_another_lake_replaces_the_tables(pinpipe, source):
    write_lake(source, pinpipe.folder / "lake", 3, last=100)
    batch(pinpipe)
    write_lake(source, pinpipe.folder / "other", 3, first=100, last=150)
    report = pinpipe.json("batch", "--lake", "other")
    assert {i["kind"]: (i["objects"], i["rows"]) for i in report["inputs"]} == {
        k: (3, 50) for k in KINDS
    }
    assert rows(pinpipe, "pin") == list(range(100, 150))


def test_quality_is_counted_per_column(pinpipe, source):
    write_lake(source, pinpipe.folder / "lake", 3)
    _, _, report = batch(pinpipe)
    found = {(q["kind"], q["column"]): q for q in report["quality"]}
    pins = [json.loads(line) for line in records(source, "pin")]
    unknown = {
        "title": ["No Title Data Available", ""],
        "poster_name": ["User Info Error", ""],
        "image_src": ["Image src error.", ""],
        "follower_count": ["User Info Error"],
    }
    for column, marks in unknown.items():
        assert found["pin", column]["marked"] == sum(p[column] in marks for p in pins) > 0, column
    assert found["pin", "follower_count"]["changed"] == sum(
        p["follower_count"][-1] in "kM" for p in pins
    )
    assert found["pin", "save_location"]["changed"] == 600
    assert all(q["values"] == 600 for q in found.values())
    assert found["geo", "country"] == {
        "kind": "geo",
        "column": "country",
        "values": 600,
        "nulls": 0,
        "marked": 0,
        "changed": 0,
    }


def test_concurrent_runs_leave_consistent_tables(pinpipe, source):
    write_lake(source, pinpipe.folder / "lake", 30)
    runs = [
        subprocess.Popen(
            [BINARY, "batch", "--lake", "lake", "--full", "-q"],
            cwd=pinpipe.folder,
            env=clean_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    stderr = [run.communicate(timeout=120)[1] for run in runs]
    for run, text in zip(runs, stderr):
        assert run.returncode == 0 or ("at the same time" in text and "hint:" in text), text
    assert any(run.returncode == 0 for run in runs), stderr
    assert {kind: rows(pinpipe, kind) for kind in KINDS} == {
        kind: list(range(600)) for kind in KINDS
    }


def test_answers_agree_in_every_format(pinpipe, source):
    import duckdb

    write_lake(source, pinpipe.folder / "lake", 3)
    _, found, _ = batch(pinpipe, "--format", "csv,json,parquet,delta,html")
    assert len(found) == ANSWERS
    for name, lines in found.items():
        folder = pinpipe.folder / "answers"
        # DuckDB refers to this variable by its name.
        delta = deltalake.DeltaTable(  # noqa: F841
            pinpipe.data / f"tables/answers/local_{name}"
        ).to_pyarrow_table()
        frames = [
            duckdb.sql(f"from '{folder}/{name}.{ending}'") for ending in ("parquet", "csv")
        ] + [duckdb.sql(f"from read_json('{folder}/{name}.jsonl')"), duckdb.sql("from delta")]
        first, *others = [
            sorted(tuple(map(str, row)) for row in frame.fetchall()) for frame in frames
        ]
        assert all(other == first for other in others) and len(first) == len(lines) - 1, name
    assert (
        "`--format` requires an output folder"
        in pinpipe.run("batch", "--lake", "lake", "--format", "csv", code=2).stderr
    )
    pinpipe.run("batch", "--lake", "lake", "--format", "delta")


def test_questions_of_the_user_are_answered(pinpipe, source):
    write_lake(source, pinpipe.folder / "lake", 3)
    (pinpipe.folder / "mine").mkdir()
    (pinpipe.folder / "mine/busiest_country.sql").write_text(
        "-- where most posts come from\nSELECT country, count(*) AS posts FROM "
        "post GROUP BY country ORDER BY posts DESC, country LIMIT 1;\n"
    )
    (pinpipe.folder / "pinpipe.toml").write_text('[batch]\nquestions = "mine"\n')
    _, found, report = batch(pinpipe)
    assert report["answers"][-1]["title"] == "where most posts come from"
    countries = [json.loads(line)["country"] for line in records(source, "geo")]
    assert found["busiest_country"][1][1:] == ["posts"] and int(
        found["busiest_country"][0][1]
    ) == max(map(countries.count, countries))
    (pinpipe.folder / "mine/broken.sql").write_text("SELECT nonsense FROM post")
    done = pinpipe.run("batch", "--lake", "lake", code=1)
    assert "broken" in done.stderr and "nonsense" in done.stderr
    (pinpipe.folder / "pinpipe.toml").write_text('[batch]\nquestions = "nowhere"\n')
    assert "hint:" in pinpipe.run("batch", "--lake", "lake", code=1).stderr


def test_as_of_answers_earlier_versions_and_maintenance_keeps_rows(pinpipe, source):
    write_lake(source, pinpipe.folder / "lake", 3, last=100)
    before_all = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=1)
    first = batch(pinpipe)[1]
    time.sleep(1.1)
    between = datetime.datetime.now(datetime.UTC).isoformat()
    for part in range(1, 6):
        write_lake(source, pinpipe.folder / "lake", 3, first=100 * part, last=100 * part + 100)
        last = batch(pinpipe)[1]
    version = batch(pinpipe)[0]["pin"]["version"]

    def as_of(when):
        report = pinpipe.json("batch", "--as-of", when, "--out", "answers")
        return [i["rows"] for i in report["inputs"]], answers(pinpipe)

    assert as_of(between) == ([100] * 3, first)
    assert as_of(1) == ([100] * 3, first)
    assert as_of(version) == ([600] * 3, last)
    done = pinpipe.run("batch", "--as-of", before_all.isoformat(), code=1)
    assert "its first version is later" in done.stderr and "hint:" in done.stderr, (
        "no version exists before the first commit"
    )
    done = pinpipe.run("batch", "--as-of", "99", code=1)
    assert "version 99" in done.stderr and "hint:" in done.stderr
    assert "expected a version" in pinpipe.run("batch", "--as-of", "yesterday", code=2).stderr

    # Each table has its own version numbers.
    write_lake(source, pinpipe.folder / "one", 3, first=570, last=600)
    shutil.copytree(
        pinpipe.folder / "one/topics/local.pin",
        pinpipe.folder / "lake/topics/local.pin",
        dirs_exist_ok=True,
    )
    counts, last, _ = batch(pinpipe)
    assert [counts[kind]["version"] for kind in KINDS] == [version + 1, version, version]
    assert as_of(version + 1) == as_of(version) == ([600] * 3, last)

    before = len(table(pinpipe, "pin").file_uris())
    report = pinpipe.json(
        "batch", "--lake", "lake", "--optimize", env={"PINPIPE__BATCH__RETENTION_HOURS": 0}
    )
    assert before > 5 and len(table(pinpipe, "pin").file_uris()) == 1
    pins = report["maintained"][0]
    assert pins["files_compacted"] == before and pins["files_removed"] >= before
    counts, again, _ = batch(pinpipe)
    assert {k: (c["objects"], c["rows"]) for k, c in counts.items()} == {
        k: (0, 600) for k in KINDS
    } and again == last
    assert rows(pinpipe, "pin") == list(range(600))
    # A vacuumed version is an error, not a wrong answer.
    pinpipe.run("batch", "--as-of", "1", code=1)


def test_empty_lake_keeps_the_tables(pinpipe, source):
    write_lake(source, pinpipe.folder / "lake", 3, last=90)
    batch(pinpipe)
    (pinpipe.folder / "wrong").mkdir()
    for arguments in (["--lake", "wrong"], ["--lake", "wrong", "--full"]):
        done = pinpipe.run("batch", *arguments, code=1)
        assert "holds no records of `local`" in done.stderr and "hint:" in done.stderr
    assert rows(pinpipe, "pin") == rows(pinpipe, "user") == list(range(90))
    counts, _, _ = batch(pinpipe)
    assert {kind: (counts[kind]["objects"], counts[kind]["rows"]) for kind in KINDS} == {
        kind: (0, 90) for kind in KINDS
    }, "no object is re-read"


@pytest.mark.browser
def test_report_is_one_offline_page_with_charts(pinpipe, source, tmp_path):
    write_lake(source, pinpipe.folder / "lake", 3)
    (pinpipe.folder / "lake/topics/local.pin/partition=0/local.pin+0+0000099999.json").write_text(
        "broken\n"
    )
    _, found, _ = batch(pinpipe)
    page = pinpipe.folder / "answers/report.html"
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=|@import|url\(|<script", text), "external content"
    chromium = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    assert chromium, "tests/setup installs Chromium"
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path}/profile",
    ]
    shot = pinpipe.folder / "shot.png"
    subprocess.run(
        [chromium, *options, "--window-size=1100,1600", f"--screenshot={shot}", page.as_uri()],
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert shot.stat().st_size > 20_000
    seen = subprocess.run(
        [chromium, *options, "--dump-dom", page.as_uri()],
        check=True,
        capture_output=True,
        timeout=120,
        text=True,
    ).stdout
    assert seen.count("<svg") == 3 and seen.count("<polyline") == len(
        {row[1] for row in found["posts_by_category_and_year"]} - {"category"}
    )
    assert seen.count("<details>") == 10 and "follower_count" in seen
    assert "rejected records" in seen
