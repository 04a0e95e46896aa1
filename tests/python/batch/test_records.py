"""Records of every form: where they begin and end, what their values mean, and which are rejected.
The rules are in `docs/records.md`.
"""

import gzip
import json

import pytest

from support.pinpipe import Pinpipe
from support.record_cases import CASES, NUMBERS, numbered, partition, write_cases

ENGINES = ["embedded"]
# What a case may say about its rows.
COLUMNS = {
    "pin": ("ind", "unique_id", "title", "description", "follower_count", "tag_list"),
    "geo": ("ind", "country", "timestamp"),
    "user": ("ind", "user_name", "age"),
}


@pytest.fixture(scope="module", params=ENGINES)
def report(request, tmp_path_factory):
    """The report of one run over the objects of all cases, with the rows as answers."""
    pinpipe = Pinpipe(tmp_path_factory.mktemp("records"))
    write_cases(pinpipe.folder / "lake")
    (pinpipe.folder / "questions").mkdir()
    for kind, columns in COLUMNS.items():
        selected = ", ".join(f"c.{column} AS {column}" for column in columns)
        (pinpipe.folder / f"questions/rows_{kind}.sql").write_text(
            f"SELECT {selected} FROM clean_{kind} c"
        )
    (pinpipe.folder / "pinpipe.toml").write_text('[batch]\nquestions = "questions"\n')
    return pinpipe.json("batch", "--lake", "lake", "--engine", request.param)


def found_rows(report, case):
    """Returns the columns of the rows of a case, by the numbers that the case has."""
    answer = next(a for a in report["answers"] if a["name"] == f"rows_{case.kind}")
    first = NUMBERS * (1 + partition(case))
    rows = {}
    for values in answer["rows"]:
        columns = dict(zip(answer["columns"], values))
        number = columns.pop("ind") - first
        if 0 <= number < NUMBERS:
            rows.setdefault(number, []).append(columns)
    return rows


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_records_become_rows_or_rejects(report, case):
    rows = found_rows(report, case)
    assert sorted(rows) == sorted(case.rows)
    for number, columns in case.rows.items():
        for column, expected in columns.items():
            values = [row[column] for row in rows[number]]
            several = expected if isinstance(expected, list) else [expected]
            assert sorted(map(str, values)) == sorted(map(str, several)), f"{number}: {column}"
    paths = [item.path for item in case.objects if item.path]
    ends = tuple(paths or [f"partition={partition(case)}/"])
    rejects = sorted(
        (reject["line"], reject["reason"], reject["raw"])
        for reject in report["rejects"]
        if any(end in reject["origin"] for end in ends)
    )
    assert [(line, text) for line, _, text in rejects] == [
        (line, numbered(case, text)) for line, _, text in case.rejects
    ]
    for (_, reason, _), (_, expected, _) in zip(rejects, case.rejects):
        assert reason.startswith(expected), reason


def test_every_record_is_counted_once(report):
    for counts in report["inputs"]:
        cases = [case for case in CASES if case.kind == counts["kind"]]
        rows = sum(
            len(value) if isinstance(value, list) else 1
            for case in cases
            for value in (columns.get("unique_id", "") for columns in case.rows.values())
        )
        rejects = sum(len(case.rejects) for case in cases)
        duplicates = sum(case.duplicates for case in cases)
        expected = {
            "rows": rows,
            "rejects": rejects,
            "duplicates": duplicates,
            "records": rows + rejects + duplicates,
            "tombstones": sum(case.tombstones for case in cases),
        }
        assert {name: counts[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("ending", "memory"), [(".json", "512MB"), (".json", "16GB"), (".json.gz", "512MB")]
)
def test_large_objects_are_split_between_records(pinpipe, ending, memory):
    """Larger than what is read at once: arrays and a sequence without line breaks."""
    count = 60_000
    records = [{"ind": i, "country": "x" * 600} for i in range(count)]
    texts = [
        json.dumps(records),
        json.dumps(records, indent=1),
        "".join(map(json.dumps, records)),
    ]
    for number, text in enumerate(texts, 1):
        folder = pinpipe.folder / f"lake/topics/local.geo/partition={number}"
        folder.mkdir(parents=True)
        # Other row numbers in each object.
        data = text.replace('"ind": ', f'"ind": {number}0').encode()
        (folder / f"local.geo+{number}+0000000000{ending}").write_bytes(
            gzip.compress(data, 1) if ending == ".json.gz" else data
        )
    report = pinpipe.json("batch", "--lake", "lake", "--memory", memory)
    counts = next(i for i in report["inputs"] if i["kind"] == "geo")
    assert (counts["rows"], counts["records"], counts["rejects"]) == (3 * count, 3 * count, 0)


def test_stream_reads_the_same_records(provisioned):
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": provisioned.kafka})
    for value in (
        None,
        b"",
        b"null",
        b'[{"ind":1},{"ind":2}]',
        b'{"ind":3}\n{"ind":4.0}',
        b'\xef\xbb\xbf{"ind":5}',
        b'{"ind":6,"country":"\\ud83d","timestamp":"2020-05-01T10:00:00+02:00"}',
        b"nonsense",
    ):
        producer.produce("local.geo", value, partition=0)
    producer.flush(10)
    report = provisioned.pinpipe.json("stream", "--source", "kafka", "--available-now")
    counts = next(t for t in report["tables"] if t["kind"] == "geo")
    assert (counts["records"], counts["tombstones"], counts["rejects"], counts["rows"]) == (
        7,
        3,
        1,
        6,
    )
    assert [(r["line"], r["raw"]) for r in report["rejects"]] == [(0, "nonsense")]
