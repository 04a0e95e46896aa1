"""The Spark job alone: which objects and records it reads, and what their values become."""

import datetime
import gzip
import json

import pytest

from support.record_cases import CASES, NUMBERS, partition, write_cases
from support.spark_job import run_jobs

# One session plans some hundred queries, which takes about ten minutes.
pytestmark = [pytest.mark.java, pytest.mark.nightly]

TOPIC = "topics/local.{}/partition=0/local.{}+0+{:010d}{}"
# Characters that a pattern of Hadoop, a list of paths or a URL contains.
PATTERN = "a[1]{b,c}*?\\d%20e"
MARK = b"\xef\xbb\xbf"
KINDS = ("pin", "geo", "user")
UTC = datetime.UTC


def geo(number, **changes):
    """The text of a record of a geolocation."""
    record = {
        "ind": number,
        "timestamp": "2020-05-01 10:00:00",
        "latitude": 1.5,
        "longitude": 2.5,
        "country": "Peru",
    }
    return json.dumps({**record, **changes})


def value(column, text):
    """The text of a geolocation with one value as it is written in JSON."""
    return f'{{"ind": 1, "{column}": {text}}}'


def lines(*records):
    return "".join(f"{record}\n" for record in records).encode()


def damaged(content, position):
    """A content with another byte at a position."""
    changed = bytearray(content)
    changed[position] ^= 1
    return bytes(changed)


def many():
    """Many records that gzip compresses little."""
    return lines(*(geo(number, latitude=number**0.5) for number in range(4000)))


BASE, MANY = lines(geo(1), geo(2)), gzip.compress(many())

# Objects by case: the extension and content of each, the row numbers that are read (`None`: the
# test looks at them), and the number of rejects.
OBJECTS = {
    # One record per line is the usual form; it is not the only one.
    "records without lines": ([(".json", (geo(1) + geo(2) + " " + geo(3)).encode())], [1, 2, 3], 0),
    "array in one line": ([(".json", f"[{geo(1)}, {geo(2)}]".encode())], [1, 2], 0),
    "array of lines": ([(".json", f"[\n{geo(1)},\n{geo(2)}\n]\n".encode())], [1, 2], 0),
    "indented array": (
        [(".json", json.dumps([json.loads(geo(1)), json.loads(geo(2))], indent=2).encode())],
        [1, 2],
        0,
    ),
    "indented records": (
        [(".json", lines(*(json.dumps(json.loads(geo(n)), indent=2) for n in (1, 2))))],
        [1, 2],
        0,
    ),
    "other separators": (
        [(".json", "\r".join([geo(1), "\v" + geo(2), "\f" + geo(3), "\n\n \t"]).encode())],
        [1, 2, 3],
        0,
    ),
    "byte order marks": (
        [
            (".json", MARK + BASE),
            (".json.gz", gzip.compress(MARK + lines(geo(3)))),
            (".jsonl", MARK),
        ],
        [1, 2, 3],
        0,
    ),
    "tombstones": ([(".json", lines("null", geo(1), "null, null", "null"))], [1], 0),
    "broken lines": (
        [
            (
                ".json",
                lines(
                    geo(1),
                    '{"ind": 7, "country": "cut o',
                    geo(2),
                    geo(3) + " trailing",
                    "rubbish",
                    '"text"',
                    "{'ind': 8}",
                    '{"ind": 9]}',
                    geo(4) + ',"country":"x"',
                    "nullable",
                    geo(5),
                ),
            )
        ],
        [1, 2, 3, 4, 5],
        8,
    ),
    "not UTF-8": (
        [(".json", lines(geo(1)) + b'{"ind": 2, "country": "\xff"}\n' + lines(geo(3)))],
        [1, 3],
        1,
    ),
    "depth": (
        [
            (
                ".json",
                lines(geo(1), value("x", "[" * 5000 + "]" * 5000), value("x", "[" * 9), geo(2)),
            )
        ],
        [1, 2],
        2,
    ),
    "names": (
        [
            (".JSON", lines(geo(1))),
            (".ndjson", lines(geo(2))),
            (".Jsonl.GZ", gzip.compress(lines(geo(3)))),
            (".json.part", lines(geo(4))),
        ],
        [1, 2, 3],
        0,
    ),
    # The first bytes of an object decide about its compression.
    "gzip by its bytes": (
        [(".json", gzip.compress(BASE)), (".json.gz", lines(geo(3)))],
        [1, 2, 3],
        0,
    ),
    "padded gzip": (
        [(".json.gz", gzip.compress(lines(geo(1)) + geo(2).encode()) + bytes(512))],
        [1, 2],
        0,
    ),
    "gzip members": (
        [(".json.gz", gzip.compress(lines(geo(1))) + b"\n" + gzip.compress(lines(geo(2))))],
        [1, 2],
        0,
    ),
    "empty objects": (
        [(".json.gz", b""), (".jsonl.gz", gzip.compress(b"")), (".json", b""), (".jsonl", BASE)],
        [1, 2],
        0,
    ),
    "cut gzip": ([(".json.gz", MANY[:3000]), (".json", lines(geo(5000)))], None, 1),
    "gzip checksum": ([(".json.gz", damaged(gzip.compress(BASE), -8))], [1, 2], 1),
    "rubbish after gzip": ([(".json.gz", gzip.compress(BASE) + b"rubbish")], [1, 2], 1),
}


def time(*parts):
    return datetime.datetime(*parts, tzinfo=UTC)


# A value of a geolocation as it is written in JSON, and what it becomes.
ACCEPTED = [
    ("ind", "7", 7),
    ("ind", "3.0", 3),
    ("ind", "3.6e1", 36),
    ("ind", '"36"', 36),
    ("ind", '"+36.0"', 36),
    ("ind", "-2147483648", -2147483648),
    ("latitude", "2", 2.0),
    ("latitude", "1e2", 100.0),
    ("latitude", '"+1.5"', 1.5),
    ("latitude", "null", None),
    ("country", "1.10", "1.10"),
    ("country", "1e20", "1e20"),
    ("country", "18446744073709551615", "18446744073709551615"),
    ("country", "true", "true"),
    ("country", '""', ""),
    ("country", "null", None),
    ("country", '["a" , {"x" : 1e20, "y": "\\u00e9\\u001f"}]', '["a",{"x":1e20,"y":"é\\u001f"}]'),
    ("country", '{"en": "x", "en": null}', '{"en":"x","en":null}'),
    ("country", '"a\\ud83db"', "a\ufffdb"),
    ("country", '"\\ud83d\\ude00 \\ufffd"', "\U0001f600 \ufffd"),
    ("country", '"x", "country": "y"', "y"),
    ("timestamp", '"2020-05-01 10:00:00"', time(2020, 5, 1, 10)),
    ("timestamp", '"2020-05-01T10:00:00Z"', time(2020, 5, 1, 10)),
    ("timestamp", '"2020-05-01T10:00:00+02:00"', time(2020, 5, 1, 8)),
    ("timestamp", '"2020-05-01t10:00:00.000z"', time(2020, 5, 1, 10)),
    ("timestamp", '"2020-05-01 10:00:00.1234569"', time(2020, 5, 1, 10, 0, 0, 123456)),
    ("timestamp", '"2020-05-01"', time(2020, 5, 1)),
    ("timestamp", '"9999-12-31 23:59:59"', time(9999, 12, 31, 23, 59, 59)),
    ("timestamp", '"1600-01-01 00:00:00"', time(1600, 1, 1)),
    ("timestamp", '"0001-01-01 00:00:00"', time(1, 1, 1)),
]
# A value of a geolocation that rejects its record.
REJECTED = [
    ("ind", "1.5"),
    ("ind", "2147483648"),
    ("ind", "1e99999"),
    ("ind", '" 1"'),
    ("ind", '""'),
    ("ind", "true"),
    ("ind", "null"),
    ("ind", "01"),
    ("latitude", "NaN"),
    ("latitude", "Infinity"),
    ("latitude", '"NaN"'),
    ("latitude", "1e400"),
    ("latitude", '"1.5d"'),
    ("latitude", '" 1.5 "'),
    ("latitude", '""'),
    ("latitude", "[1]"),
    ("country", "'x'"),
    ("country", '"a\tb"'),
    ("timestamp", "1588327200"),
    ("timestamp", '"1588327200"'),
    ("timestamp", '"0000-01-01 00:00:00"'),
    ("timestamp", '"0001-01-01T00:00:00+01:00"'),
    ("timestamp", '"2019-02-29 00:00:00"'),
    ("timestamp", '"2020-05-01 24:00:00"'),
    ("timestamp", '"2020-05-01T10:00:00+24:00"'),
    ("timestamp", '"yesterday"'),
    ("timestamp", '""'),
]
PINS = lines(
    '{"index": 1, "unique_id": 18446744073709551615, "downloaded": 1.0}',
    '{"index": 2, "unique_id": 18446744073709551614, "downloaded": true}',
    '{"index": 3, "title": 1.50, "downloaded": ""}',
)
EVENTS = {
    "events/event-a.json": json.dumps({"index": 4, "title": "t"}, indent=2).encode(),
    "events/event-b.json.gz": gzip.compress(b'{"index": 5,\n"title": 1.0}'),
    "events/event-c.json": MARK + b'{"index": 6}',
    "events/event-d.json": b'{"index": 7,\n "title',
    "events/event-e.json": b'{"index": 8}\n{"index": 9}',
    "events/notes.json": b'{"index": 10}',
}


def values_lake(pairs):
    """An object of which each line has one of the values."""
    texts = []
    for number, (column, text) in enumerate(pairs):
        row_number = "" if column == "ind" else '"ind": 1, '
        texts.append(f'{{{row_number}"longitude": {number}, "{column}": {text}}}')
    return {TOPIC.format("geo", "geo", 0, ".json"): lines(*texts)}


def lakes():
    """All lakes: by name, the kind of records, the objects, and the questions."""
    found = {}
    for name, (objects, _, _) in OBJECTS.items():
        paths = (TOPIC.format("geo", "geo", n, ending) for n, (ending, _) in enumerate(objects))
        found[name] = "geo", dict(zip(paths, (content for _, content in objects))), {}
    found["accepted values"] = (
        "geo",
        values_lake([(column, text) for column, text, _ in ACCEPTED]),
        {"newest": "SELECT max(timestamp) AS newest, min(timestamp) AS oldest FROM clean_geo"},
    )
    found["rejected values"] = "geo", values_lake(REJECTED), {}
    found["damaged gzip"] = (
        "geo",
        {TOPIC.format("geo", "geo", 0, ".json.gz"): damaged(MANY, len(MANY) // 2)},
        {},
    )
    found["pins"] = "pin", {TOPIC.format("pin", "pin", 0, ".json"): PINS, **EVENTS}, {}
    found["hidden objects"] = (
        "geo",
        {
            TOPIC.format("geo", "geo", 0, ".json"): BASE,
            "topics/local.geo/_temporary/0/x.json": lines(geo(3)),
            "topics/local.geo/partition=0/.x.json": lines(geo(4)),
        },
        {},
    )
    found[PATTERN] = (
        "geo",
        {
            TOPIC.format("geo", "geo", 0, ".json"): BASE,
            TOPIC.format("geo", "geo", 1, ".json"): f"[{geo(3)},{geo(4)}]".encode(),
        },
        {},
    )
    found["no objects"] = "geo", {}, {}
    return found


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """The outcome of the job over each lake."""
    folder = tmp_path_factory.mktemp("spark_records")
    jobs = {}
    for name, (kind, objects, questions) in lakes().items():
        lake = folder / name
        lake.mkdir()
        for path, content in objects.items():
            (lake / path).parent.mkdir(parents=True, exist_ok=True)
            (lake / path).write_bytes(content)
        jobs[name] = lake, kind, questions
    write_cases(folder / "cases")
    for kind in KINDS:
        jobs[f"cases of {kind}"] = (
            folder / "cases",
            kind,
            {"clean": f"SELECT * FROM clean_{kind}"},
        )
    return run_jobs(folder, jobs)


def in_text(value):
    """A value as the JSON of an answer has it."""
    if isinstance(value, datetime.datetime):
        return value.isoformat().replace("+00:00", "Z")
    return str(value)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_records_become_rows_or_rejects(outcomes, case):
    first = NUMBERS * (1 + partition(case))
    rows = {}
    for row in outcomes[f"cases of {case.kind}"].rows("clean"):
        if first <= row["ind"] < first + NUMBERS:
            rows.setdefault(row["ind"] - first, []).append(row)
    assert sorted(rows) == sorted(case.rows)
    for number, columns in case.rows.items():
        for column, expected in columns.items():
            several = expected if isinstance(expected, list) else [expected]
            found = sorted(in_text(row[column]) for row in rows[number])
            assert found == sorted(map(str, several)), f"{number}: {column}"


@pytest.mark.parametrize("kind", KINDS)
def test_every_record_is_counted_once(outcomes, kind):
    cases = [case for case in CASES if case.kind == kind]
    rejects = sum(len(case.rejects) for case in cases)
    duplicates = sum(case.duplicates for case in cases)
    rows = len(outcomes[f"cases of {kind}"].rows("clean"))
    assert outcomes[f"cases of {kind}"].counts == (
        rejects + duplicates + rows,
        rejects,
        duplicates,
        rows,
    )


@pytest.mark.parametrize("name", OBJECTS)
def test_records_are_found_in_every_form_of_object(outcomes, name):
    _, expected, rejects = OBJECTS[name]
    numbers = sorted(row["ind"] for row in outcomes[name].rows("raw"))
    if expected is not None:
        assert numbers == expected
    assert outcomes[name].counts[:2] == (len(numbers) + rejects, rejects)


def test_records_before_the_end_of_a_cut_object_count(outcomes):
    numbers = sorted(row["ind"] for row in outcomes["cut gzip"].rows("raw"))
    assert len(numbers) > 50 and numbers == [*range(len(numbers) - 1), 5000]


def test_records_before_damage_count(outcomes):
    numbers = [row["ind"] for row in outcomes["damaged gzip"].rows("raw")]
    # A changed bit changes records after it before the decoder notices the damage.
    assert set(range(40)) <= set(numbers) and outcomes["damaged gzip"].counts[1] > 0


def test_accepted_values(outcomes):
    rows = {int(row["longitude"]): row for row in outcomes["accepted values"].rows("raw")}
    found = [
        (column, text, rows[number][column] if number in rows else "rejected")
        for number, (column, text, _) in enumerate(ACCEPTED)
    ]
    assert found == ACCEPTED


def test_rejected_values(outcomes):
    rows = outcomes["rejected values"].rows("raw")
    assert [REJECTED[int(row["longitude"])] for row in rows] == []
    assert outcomes["rejected values"].counts == (len(REJECTED), len(REJECTED), 0, 0)


def test_times_of_answers_are_not_limited(outcomes):
    (row,) = outcomes["accepted values"].rows("newest")
    assert row == {"newest": time(9999, 12, 31, 23, 59, 59), "oldest": time(1, 1, 1)}


def test_pins_of_both_layouts(outcomes):
    rows = {row["index"]: (row["unique_id"], row["title"]) for row in outcomes["pins"].rows("raw")}
    assert rows == {
        1: ("18446744073709551615", None),
        2: ("18446744073709551614", None),
        3: (None, "1.50"),
        4: (None, "t"),
        5: (None, "1.0"),
        6: (None, None),
        8: (None, None),
        9: (None, None),
    }
    assert outcomes["pins"].counts[:2] == (9, 1)


def test_hidden_objects_are_ignored(outcomes):
    assert outcomes["hidden objects"].counts[:2] == (2, 0)


def test_the_folder_of_the_lake_is_not_a_pattern(outcomes):
    assert outcomes[PATTERN].counts[:2] == (4, 0)


def test_a_lake_without_objects_is_an_error(outcomes):
    assert "cannot read the lake: Spark found no objects in" in outcomes["no objects"].error
