"""Records of every form, with the rows, rejects and tombstones that `docs/records.md` demands.

Each case has row numbers and a partition folder of its own, so that all cases fit in one lake: one
run of an engine reads them all.
"""

import dataclasses
import gzip
import re
import zlib
from collections.abc import Callable

# Row numbers of one case. The first thousand are those of other records.
NUMBERS = 1000

CUT = "broken gzip: the object ends before its compressed data does"
BAD_TIME = "`timestamp` does not fit its column"
BAD_AGE = "`age` does not fit its column"
BAD_LATITUDE = "`latitude` does not fit its column"


def plain(text):
    return text


def unfinished(text):
    """Returns the beginning of a gzip object: all of the text, but not the end of the data."""
    stream = zlib.compressobj(wbits=31)
    return stream.compress(text) + stream.flush(zlib.Z_FULL_FLUSH)


def wrong_checksum(text):
    data = bytearray(gzip.compress(text))
    data[-8] ^= 1
    return bytes(data)


@dataclasses.dataclass
class Object:
    """An object of the lake. In its text, `@1` is the first row number of the case."""

    text: str | bytes
    ending: str = ".json"
    compress: Callable[[bytes], bytes] = plain
    # Path of the older layout, instead of one for the topic.
    path: str | None = None


@dataclasses.dataclass
class Case:
    name: str
    kind: str
    objects: list[Object]
    # Columns of each row of the clean table, by the row number without the `@`. Several rows of one
    # number have a list of values.
    rows: dict[int, dict] = dataclasses.field(default_factory=dict)
    # Line, beginning of the reason, and text of each rejected record.
    rejects: list[tuple[int, str, str]] = dataclasses.field(default_factory=list)
    tombstones: int = 0
    duplicates: int = 0


def geo(name, text, *numbers, ending=".json", compress=plain, **expected):
    """A case of one object whose records have only row numbers."""
    rows = {number: {} for number in numbers}
    return Case(name, "geo", [Object(text, ending, compress)], rows, **expected)


PRETTY = '{\n  "ind": @1,\n  "country": "Peru",\n  "x": [\n    {"ind": 7},\n    {}\n  ]\n}'

CASES = [
    # D1, D2: where a record begins and ends.
    geo("one line", '{"ind":@1}{"ind":@2} {"ind":@3}', 1, 2, 3),
    geo("one line, gzip", '{"ind":@1}{"ind":@2}', 1, 2, ending=".json.gz", compress=gzip.compress),
    geo("array", '[{"ind":@1},{"ind":@2}]\n', 1, 2),
    geo("array of lines", '[\n{"ind":@1},\n{"ind":@2}\n]\n', 1, 2),
    geo("nested arrays", '[[{"ind":@1}],[{"ind":@2}]]', 1, 2),
    geo("open array", '[{"ind":@1},\n{"ind":@2},', 1, 2),
    geo("lines with commas", '{"ind":@1},\n{"ind":@2},\n', 1, 2),
    geo("empty array", "[]\n[\n]\n"),
    geo("pretty", f"{PRETTY}\n{PRETTY.replace('@1', '@2')}\n", 1, 2),
    geo("pretty array", f"[\n{PRETTY},\n{PRETTY.replace('@1', '@2')}\n]\n", 1, 2),
    geo("white space", ' \n{"ind":@1}\r{"ind":@2}\x0b{"ind":@3}\x0c\r\n\t\n{"ind":@4}', 1, 2, 3, 4),
    Case(
        "older layout, pretty",
        "pin",
        [Object('{\n  "index": @1,\n  "title": "x"\n}\n', path="events/event-pretty.json")],
        {1: {"title": "x"}},
    ),
    geo(
        "cut record",
        '{"ind":@1,"country":"Pe\n{"ind":@2}\n',
        2,
        rejects=[(1, "broken JSON: ", '{"ind":@1,"country":"Pe')],
    ),
    geo(
        "cut record of several lines",
        '{\n  "ind": @1,\n  "x": {\n{"ind":@2}\n{"ind":@3}\n',
        2,
        3,
        rejects=[(1, "broken JSON: ", '{\n  "ind": @1,\n  "x": {')],
    ),
    geo(
        "broken element",
        '[\n {\n  "ind": @1,,\n },\n {\n  "ind": @2\n }\n]\n',
        2,
        rejects=[(2, "broken JSON: ", '{\n  "ind": @1,,\n }')],
    ),
    geo(
        "other text",
        'a,b\n[1]\n{"ind":@1}x\n"{"\n',
        1,
        rejects=[
            (1, "broken JSON: ", "a,b"),
            (2, "not a JSON object", "[1]"),
            (3, "broken JSON: ", "x"),
            (4, "not a JSON object", '"{"'),
        ],
    ),
    geo(
        "not UTF-8",
        b'{"ind":@1}\n{"ind":@2,"country":"\xff"}\n{"ind":@3}\n',
        1,
        3,
        rejects=[(2, "broken JSON: not UTF-8", '{"ind":@2,"country":"\ufffd"}')],
    ),
    geo("tombstones", 'null\n{"ind":@1}\n null \n[null]\n', 1, tombstones=3),
    # D3: numbers in text columns.
    Case(
        "numbers as texts",
        "pin",
        [
            Object(
                '{"index":@1,"unique_id":18446744073709551615,"title":1.50}\n'
                '{"index":@1,"unique_id":18446744073709551614,"title":1.50}\n'
                '{"index":@2,"unique_id":1.10,"title":1e20,"description":-0}\n'
                '{"index":@3,"unique_id":1E400,"title":true}\n'
            )
        ],
        {
            1: {
                "unique_id": ["18446744073709551614", "18446744073709551615"],
                "title": ["1.50", "1.50"],
            },
            2: {"unique_id": "1.10", "title": "1e20", "description": "-0"},
            3: {"unique_id": "1E400", "title": "true"},
        },
    ),
    Case(
        "objects as texts",
        "pin",
        [
            Object(
                '{"index":@1,"tag_list":[ "a", "b c" ],"title":{"en": "x", "n": 1.10}}\n'
                '{"index":@2,"title":["\\u00e9\\/","\\u001f"]}\n'
            )
        ],
        {
            1: {"tag_list": '["a","b c"]', "title": '{"en":"x","n":1.10}'},
            2: {"title": '["é/","\\u001f"]'},
        },
    ),
    # D4: times.
    Case(
        "times",
        "geo",
        [
            Object(
                "".join(
                    f'{{"ind":@{number},"timestamp":"{time}"}}\n'
                    for number, time in enumerate(
                        [
                            "9999-12-31 23:59:59",
                            "1600-01-01 00:00:00",
                            "0001-01-01 00:00:00",
                            "2020-05-01T10:00:00Z",
                            "2020-05-01T10:00:00+02:00",
                            "2020-05-01 10:00:00.000Z",
                            "2020-05-01",
                            "2020-05-01t10:00:00.1234567",
                        ],
                        1,
                    )
                )
            )
        ],
        {
            1: {"timestamp": "9999-12-31T23:59:59Z"},
            2: {"timestamp": "1600-01-01T00:00:00Z"},
            3: {"timestamp": "0001-01-01T00:00:00Z"},
            4: {"timestamp": "2020-05-01T10:00:00Z"},
            5: {"timestamp": "2020-05-01T08:00:00Z"},
            6: {"timestamp": "2020-05-01T10:00:00Z"},
            7: {"timestamp": "2020-05-01T00:00:00Z"},
            8: {"timestamp": "2020-05-01T10:00:00.123456Z"},
        },
    ),
    *(
        geo(
            f"time {time}",
            f'{{"ind":@1,"timestamp":{time}}}\n',
            rejects=[(1, BAD_TIME, f'{{"ind":@1,"timestamp":{time}}}')],
        )
        for time in (
            "1588327200",
            '"1588327200"',
            '""',
            '"2020-02-30"',
            '"2020-05-01 24:00:00"',
            '"2020-05-01 10:00"',
            '"2020-05-01T10:00:00+0200"',
            '"0000-01-01"',
            '"0001-01-01T00:00:00+01:00"',
        )
    ),
    # D5: byte order marks.
    geo("mark", '\ufeff{"ind":@1}\n\ufeff{"ind":@2}', 1, 2),
    geo("mark, gzip", '\ufeff{"ind":@1}\n', 1, ending=".json.gz", compress=gzip.compress),
    Case(
        "mark, older layout",
        "pin",
        [Object('\ufeff{"index":@1}', path="events/event-mark.json")],
        {1: {}},
    ),
    # D6, D7: gzip.
    geo(
        "padded gzip",
        '{"ind":@1}\n{"ind":@2}',
        1,
        2,
        ending=".json.gz",
        compress=lambda text: gzip.compress(text) + bytes(1000),
    ),
    geo(
        "members",
        '{"ind":@1}\n{"ind":@2}\n{"ind":@3}',
        1,
        2,
        3,
        ending=".json.gz",
        compress=lambda text: b"\n".join(map(gzip.compress, text.splitlines(True))),
    ),
    geo("gzip without content", "", ending=".json.gz", compress=gzip.compress),
    geo("no bytes", "", ending=".json.gz"),
    geo("gzip with another name", '{"ind":@1}\n', 1, compress=gzip.compress),
    geo("text with another name", '{"ind":@1}\n{"ind":@2}', 1, 2, ending=".json.gz"),
    geo(
        "cut gzip",
        '{"ind":@1}\n{"ind":@2}\n{"ind":@3,"coun',
        1,
        2,
        ending=".json.gz",
        compress=unfinished,
        rejects=[(3, CUT, '{"ind":@3,"coun')],
    ),
    geo(
        "cut gzip after a record",
        '{"ind":@1}\n{"ind":@2}',
        1,
        2,
        ending=".json.gz",
        compress=unfinished,
        rejects=[(2, CUT, "")],
    ),
    geo(
        "damaged gzip",
        '{"ind":@1}\n{"ind":@2}\n{"ind":',
        1,
        2,
        ending=".json.gz",
        compress=lambda text: unfinished(text) + b"\xff" * 50,
        rejects=[(3, "broken gzip: ", '{"ind":')],
    ),
    geo(
        "wrong checksum",
        '{"ind":@1}\n{"ind":@2}',
        1,
        2,
        ending=".json.gz",
        compress=wrong_checksum,
        rejects=[(2, "broken gzip: the checksum does not match", "")],
    ),
    geo(
        "text after gzip",
        '{"ind":@1}\n{"ind":@2}',
        1,
        2,
        ending=".json.gz",
        compress=lambda text: gzip.compress(text) + b'\n{"ind":1}\n',
        rejects=[(2, "broken gzip: the data after the compressed data is not gzip", "")],
    ),
    # Names of objects.
    Case(
        "extensions",
        "geo",
        [
            Object(f'{{"ind":@{number}}}', ending)
            for number, ending in enumerate([".jsonl", ".ndjson", ".JSON"], 1)
        ],
        {1: {}, 2: {}, 3: {}},
    ),
    # Numbers.
    Case(
        "floats without a fraction",
        "user",
        [
            Object(
                '{"ind":@1.0,"age":36.0}\n{"ind":"@2","age":"3.6e1"}\n'
                '{"ind":@3,"age":1.5}\n{"ind":@4,"age":""}\n{"ind":@5,"age":true}\n'
            )
        ],
        {1: {"age": 36}, 2: {"age": 36}},
        [
            (3, BAD_AGE, '{"ind":@3,"age":1.5}'),
            (4, BAD_AGE, '{"ind":@4,"age":""}'),
            (5, BAD_AGE, '{"ind":@5,"age":true}'),
        ],
    ),
    Case(
        "a column that no table has",
        "pin",
        [
            Object(
                "".join(
                    f'{{"index":@{number},"downloaded":{value}}}\n'
                    for number, value in enumerate(["1.0", "true", '""', "[1]", "1e400"], 1)
                )
            )
        ],
        {number: {} for number in range(1, 6)},
    ),
    Case(
        "follower counts",
        "pin",
        [
            Object(
                '{"index":@1,"follower_count":46000.0}\n{"index":@2,"follower_count":"46k"}\n'
                '{"index":@3,"follower_count":46000.5}\n{"index":@4,"follower_count":46000}\n'
            )
        ],
        {
            1: {"follower_count": 46000},
            2: {"follower_count": 46000},
            3: {"follower_count": None},
            4: {"follower_count": 46000},
        },
    ),
    *(
        geo(
            f"latitude {value}",
            f'{{"ind":@1,"latitude":{value}}}\n',
            rejects=[(1, reason, f'{{"ind":@1,"latitude":{value}}}')],
        )
        for value, reason in [
            ("NaN", "broken JSON: "),
            ("Infinity", "broken JSON: "),
            ("01", "broken JSON: "),
            ("'1'", "broken JSON: "),
            ("1e400", BAD_LATITUDE),
            ('"1.5d"', BAD_LATITUDE),
            ('"NaN"', BAD_LATITUDE),
            ('" 1"', BAD_LATITUDE),
            ('"1."', BAD_LATITUDE),
        ]
    ),
    # Texts.
    Case(
        "half a surrogate pair",
        "geo",
        [Object('{"ind":@1,"country":"a\\ud83d"}\n{"ind":@2,"country":"\\ud83d\\ude00"}\n')],
        {1: {"country": "a\ufffd"}, 2: {"country": "\U0001f600"}},
    ),
    Case(
        "names of users",
        "user",
        [
            Object(
                '{"ind":@1,"first_name":"Ada","last_name":"Lee"}\n'
                '{"ind":@2,"first_name":"Ada","last_name":null}\n'
                '{"ind":@3,"first_name":"","last_name":"Lee"}\n'
                '{"ind":@4,"first_name":"Ada","last_name":""}\n'
                '{"ind":@5,"first_name":"","last_name":""}\n{"ind":@6}\n'
            )
        ],
        {
            1: {"user_name": "Ada Lee"},
            2: {"user_name": "Ada"},
            3: {"user_name": "Lee"},
            4: {"user_name": "Ada"},
            5: {"user_name": None},
            6: {"user_name": None},
        },
    ),
    geo(
        "duplicates",
        '{"ind":@1,"timestamp":"2020-05-01"}\n{"timestamp":"2020-05-01T00:00:00Z","ind":@1.0}\n',
        1,
        duplicates=1,
    ),
]


def partition(case):
    """Number of the partition folder of a case."""
    return CASES.index(case)


def numbered(case, text):
    """Replaces `@1` with the first row number of the case, and so on."""
    base = NUMBERS * (1 + partition(case))
    if isinstance(text, str):
        return re.sub(r"@(\d)", lambda digit: str(base + int(digit[1])), text)
    return re.sub(rb"@(\d)", lambda digit: b"%d" % (base + int(digit[1])), text)


def write_cases(lake):
    """Writes the objects of all cases below a folder."""
    for case in CASES:
        for offset, item in enumerate(case.objects):
            number = partition(case)
            name = f"local.{case.kind}+{number}+{offset:010d}{item.ending}"
            path = lake / (item.path or f"topics/local.{case.kind}/partition={number}/{name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            text = item.text.encode() if isinstance(item.text, str) else item.text
            path.write_bytes(item.compress(numbered(case, text)))
