"""`batch --memory`: a lake larger than memory gives the same answers, and no spill
files are left.
"""

import gzip
import json
import os
import subprocess
import sys

import deltalake
import pytest

from support.lakes import ANSWERS
from support.namespace import in_a_namespace
from support.pinpipe import BINARY, Pinpipe, clean_environment

pytestmark = pytest.mark.slow

POSTS = 1_000_000
MAX_KIB = 512_000_000 // 1024


def write(folder, first, last, objects=8):
    """Writes many posts with short values. Every hundredth is duplicated; users are compressed."""
    step = (last - first) // objects
    for number in range(objects):
        rows = range(first + number * step, first + (number + 1) * step)
        texts = {"pin": [], "geo": [], "user": []}
        for i in [*rows, *rows[::100]]:
            texts["pin"].append(
                f'{{"index": {i}, "unique_id": "u{i}", "follower_count": "{i % 997}k", "poster_name": "p{i % 5003}", "category": "c{i % 16}"}}'  # noqa: E501
            )
            texts["geo"].append(
                f'{{"ind": {i}, "timestamp": "20{18 + i % 5}-03-0{1 + i % 9}T10:00:00", "latitude": 1.5, "longitude": {i % 180}.25, "country": "land {i % 200}"}}'  # noqa: E501
            )
            texts["user"].append(
                f'{{"ind": {i}, "first_name": "f{i % 50021}", "last_name": "l", "age": {13 + i % 60}, "date_joined": "20{15 + i % 6}-01-02 03:04:05"}}'  # noqa: E501
            )
        for kind, lines in texts.items():
            where = folder / "topics" / f"local.{kind}" / "partition=0"
            where.mkdir(parents=True, exist_ok=True)
            name, text = f"local.{kind}+0+{rows[0]:010d}.json", "\n".join(lines) + "\n"
            if kind == "user":
                (where / f"{name}.gz").write_bytes(gzip.compress(text.encode(), 1))
            else:
                (where / name).write_text(text)


# A process inherits the peak memory of its parent. Therefore a small process starts the program,
# and not pytest, whose memory is large.
MEASURED = (
    "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:]); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, "
    "file=sys.stderr); sys.exit(done.returncode)"
)


def batch(folder, *arguments):
    """Returns the report and the peak memory of the process, in KiB."""
    command = [
        sys.executable,
        "-c",
        MEASURED,
        BINARY,
        "batch",
        "--lake",
        "../lake",
        "--output",
        "json",
        "--quiet",
        *arguments,
    ]
    done = subprocess.run(
        command, cwd=folder, env=clean_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), int(done.stderr.split()[-1])


def counts(report):
    return [(i["records"], i["duplicates"], i["new_rows"], i["rows"]) for i in report["inputs"]]


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory")
    # Two objects of each kind, each many times larger than a chunk.
    write(folder / "lake", 0, POSTS, objects=2)
    return folder


def new_folder(lake, name):
    (lake / name).mkdir()
    return lake / name


def test_lake_larger_than_memory_gives_the_same_answers(lake):
    roomy, roomy_kib = batch(new_folder(lake, "roomy"), "--memory", "16GB")
    tight, peak_kib = batch(new_folder(lake, "tight"), "--memory", "512MB")
    assert counts(roomy) == [(POSTS + POSTS // 100, POSTS // 100, POSTS, POSTS)] * 3
    assert counts(tight) == counts(roomy) and tight["answers"] == roomy["answers"]
    assert len(tight["answers"]) == ANSWERS and all(answer["rows"] for answer in tight["answers"])
    assert peak_kib < min(MAX_KIB, roomy_kib), (
        f"{peak_kib} KiB, and {roomy_kib} KiB without a bound"
    )
    assert not list((lake / "tight/.pinpipe").rglob("*spill*/*/*")), "no spill files are left"
    # More duplicates than fit in memory, and some new records. Duplicates are found in the table.
    (lake / "more").mkdir()
    more = lake / "lake/topics"
    for path in sorted(more.rglob("*.json*")):
        path.rename(path.with_name(path.name.replace("+0+0", "+0+1")))
    write(lake / "lake", POSTS, POSTS + 8_000)
    again, peak_kib = batch(lake / "tight", "--memory", "512MB")
    assert [i["new_rows"] for i in again["inputs"]] == [8_000] * 3 and [
        i["rows"] for i in again["inputs"]
    ] == [POSTS + 8_000] * 3
    assert peak_kib < MAX_KIB, f"{peak_kib} KiB"


def test_line_numbers_continue_across_chunks(pinpipe):
    lines = [f'{{"ind": {i}, "country": "{"x" * 900}"}}' for i in range(1, 30_001)]
    lines[22_221] = '{"ind": "none"}'
    lines[28_887] = "x" * 17_000_000
    where = pinpipe.folder / "lake/topics/local.geo/partition=0"
    where.mkdir(parents=True)
    text = "\n".join(lines).encode()
    (where / "local.geo+0+0000000000.json").write_bytes(text)
    compressed = gzip.compress(text, 1)
    (where / "local.geo+0+0000030000.json.gz").write_bytes(compressed)
    (where / "local.geo+0+0000060000.json.gz").write_bytes(compressed[: len(compressed) // 2])
    report = pinpipe.json("batch", "--lake", "lake")
    geo = next(i for i in report["inputs"] if i["kind"] == "geo")
    found = sorted(
        (reject["origin"].rpartition("+")[2], reject["line"], reject["reason"])
        for reject in report["rejects"]
    )
    whole = [(22_222, "`ind` does not fit its column"), (28_888, "longer than 16 MiB")]
    assert found[:4] == [
        (name, line, reason)
        for name in ("0000000000.json", "0000030000.json.gz")
        for line, reason in whole
    ]
    # The third object has half of its compressed bytes. Records before the damage are read.
    *before, (name, line, reason) = found[4:]
    assert name == "0000060000.json.gz" and line > 10_000 and reason.startswith("broken gzip"), (
        found[4:]
    )
    assert before == [(name, at, reason) for at, reason in whole if at < line]
    assert geo["rows"] == 29_998 and geo["objects"] == 3 and geo["records"] == 2 * 30_000 + line, (
        geo
    )
    assert report["quality"], "quality is counted over all chunks"


def test_rejects_do_not_increase_memory_and_are_written_once(pinpipe):
    """A reject is larger than its record, because it has object, line, reason and text."""

    def garbage(name, lines):
        where = pinpipe.folder / "lake/topics/local.geo" / f"partition={name[0]}"
        where.mkdir(parents=True, exist_ok=True)
        text = b"1\n" * lines
        (where / f"local.geo+{name}").write_bytes(
            gzip.compress(text) if name.endswith(".gz") else text
        )

    def written():
        rejects = deltalake.DeltaTable(
            str(pinpipe.data / "tables/batch/local_rejects_table")
        ).to_pyarrow_table(columns=["object", "line"])
        return rejects.num_rows, rejects.group_by(["object", "line"]).aggregate([]).num_rows

    for name, lines in [
        ("0+0000000000.json", 2_600_000),
        ("0+0002600000.json", 2_600_000),
        ("0+0005200000.json.gz", 5_000_000),
        ("1+0000000001.json", 3),
        ("1+0000000009.json", 700_000),
    ]:
        garbage(name, lines)
    (pinpipe.folder / "at").mkdir()
    command = ["--memory", "512MB", "--data-dir", str(pinpipe.data)]
    report, peak_kib = batch(pinpipe.folder / "at", *command)
    assert [i["rejects"] for i in report["inputs"] if i["kind"] == "geo"] == [10_900_003] and len(
        report["rejects"]
    ) == 1_000
    assert written() == (10_900_003, 10_900_003)
    assert peak_kib < MAX_KIB, f"{peak_kib} KiB"
    # A late object: its range is read again, with more stored rejects than one lookup batch.
    garbage("1+0000000005.json", 27)
    report, peak_kib = batch(pinpipe.folder / "at", *command)
    assert [i["rejects"] for i in report["inputs"] if i["kind"] == "geo"] == [700_030]
    assert written() == (10_900_030, 10_900_030)
    assert peak_kib < MAX_KIB, f"{peak_kib} KiB"


def test_small_compressed_object_may_contain_many_rows(pinpipe):
    where = pinpipe.folder / "lake/topics/local.geo/partition=0"
    where.mkdir(parents=True)
    # Objects that compress to less than a thousandth of their size.
    for number in range(2):
        compressed = gzip.compress(b'{"ind":%d}\n' % number * 8_000_000, 9)
        assert len(compressed) < 160_000
        (where / f"local.geo+0+{number:010d}.json.gz").write_bytes(compressed)
    # Objects with few long lines, which require much memory.
    texts = {
        "records": b'{"ind":%d,"country":"%s"}\n' % (7, b"x" * 60_000),
        "junk": b"x" * 60_000 + b"\n",
    }
    for number, text in enumerate(texts.values()):
        for again in range(3):
            compressed = gzip.compress(text * 2_000, 9)
            assert len(compressed) < 160_000
            (where / f"local.geo+0+{100 + 10 * number + again:010d}.json.gz").write_bytes(
                compressed
            )
    (pinpipe.folder / "at").mkdir()
    report, peak_kib = batch(pinpipe.folder / "at", "--memory", "512MB")
    assert counts(report)[1] == (16_012_000, 16_005_997, 3, 3)
    assert peak_kib < MAX_KIB, f"{peak_kib} KiB"


def test_number_of_objects_does_not_increase_memory(pinpipe):
    """Many objects contain the same few records, as hard links to the same files."""

    def grow(first, last):
        for number in range(first, last):
            where = pinpipe.folder / (
                "lake/topics/local.geo/country=of a long name that tells little "
                f"{number // 30_000:04d}"
            )
            source = where / "local.geo+0+0000000000.json"
            if not source.exists():
                where.mkdir(parents=True, exist_ok=True)
                source.write_text(f'{{"ind": {number}, "country": "Chad"}}\n')
            os.link(source, where / f"local.geo+0+{number + 1:010d}.json")

    (pinpipe.folder / "at").mkdir()
    grow(0, 60_000)
    few, few_kib = batch(pinpipe.folder / "at", "--memory", "512MB")
    grow(60_000, 300_000)
    (pinpipe.folder / "again").mkdir()
    many, many_kib = batch(pinpipe.folder / "again", "--memory", "512MB")
    geo = [next(i for i in report["inputs"] if i["kind"] == "geo") for report in (few, many)]
    assert [(i["objects"], i["rows"]) for i in geo] == [(60_002, 2), (300_010, 10)]
    # A list of objects would take 600 bytes per object, or 140 MiB for 240,000 more objects.
    assert many_kib - few_kib < 30_000, f"{few_kib} KiB, then {many_kib} KiB"


def test_no_tables_gives_the_same_answers_and_writes_nothing(pinpipe):
    write(pinpipe.folder / "lake", 0, 4_000)
    (pinpipe.folder / "lake/topics/local.pin/partition=0/local.pin+0+0000999999.json").write_text(
        '{"index": "no"}\n'
    )
    whole = pinpipe.json("batch", "--lake", "lake")
    (pinpipe.folder / "empty").mkdir()
    other = Pinpipe(pinpipe.folder / "empty")
    done = other.run("batch", "--lake", "../lake", "--no-tables", "--output", "json")
    report = json.loads(done.stdout)
    assert (
        counts(report) == counts(whole)
        and report["answers"] == whole["answers"]
        and report["quality"] == whole["quality"]
    )
    assert "rejected records in total: 1; not stored" in done.stderr
    assert "without `--no-tables`" in done.stderr
    assert not other.data.exists() or not list(other.data.rglob("*.parquet"))
    assert "cannot be used with" in other.run("batch", "--no-tables", "--full", code=2).stderr
    stderr = other.run("batch", "--lake", "../lake", "--memory", "12", code=2).stderr
    assert (
        "invalid size `12`: expected a number with a unit" in stderr
        and "hint: write 512MB" in stderr
    )
    assert (
        "invalid size `1MB`: expected at least 512MB of memory"
        in other.run(
            "batch", "--lake", "../lake", env={"PINPIPE__BATCH__MEMORY": "1MB"}, code=2
        ).stderr
    )


def test_spill_files_of_a_killed_run_are_deleted(pinpipe):
    write(pinpipe.folder / "lake", 0, 800)
    left = pinpipe.data / "spill" / "999999999"
    left.mkdir(parents=True)
    (left / "post.parquet").write_text("half")
    pinpipe.run("batch", "--lake", "lake")
    assert not left.exists()


def test_lake_larger_than_memory_is_rejected_without_tables(lake):
    done = subprocess.run(
        [BINARY, "batch", "--lake", "lake", "--no-tables", "--memory", "512MB"],
        cwd=lake,
        env=clean_environment(),
        capture_output=True,
        text=True,
    )
    assert (
        done.returncode == 1
        and "cannot answer from memory alone: the rows of the lake exceed" in done.stderr
        and "hint: run without `--no-tables`" in done.stderr
    ), done.stderr


def test_full_disk_is_reported_and_the_next_run_succeeds(pinpipe):
    write(pinpipe.folder / "lake", 0, 80_000)
    script = """
mkdir -p small && mount -t tmpfs -o size=2m tmpfs small
"$PINPIPE" batch --lake lake --data-dir small --quiet; echo "code $?"
mount -o remount,size=200m small
"$PINPIPE" batch --lake lake --data-dir small --output json
"""
    done = in_a_namespace(script, pinpipe.folder)
    code, _, report = done.stdout.partition("\n")
    assert (
        code == "code 1"
        and "No space left" in done.stderr
        and "hint: the disk is full" in done.stderr
    ), done.stderr
    assert [i["rows"] for i in json.loads(report)["inputs"]] == [80_000] * 3
