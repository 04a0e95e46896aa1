"""Lakes in the layout of the sink, with posts that `pinpipe seed` generated."""

import csv
import gzip
import json
import pathlib
import sqlite3

from support.paths import REPOSITORY
from support.wait import wait_until

# One answer for each file.
ANSWERS = len(list((REPOSITORY / "src/data/sql/question").glob("*.sql")))

KINDS = {
    "pin": ("pinterest_data", "index"),
    "geo": ("geolocation_data", "ind"),
    "user": ("user_data", "ind"),
}


def records(database, kind):
    """Yields the rows of a source table as JSON lines, in the order of row numbers."""
    table, number = KINDS[kind]
    with sqlite3.connect(database) as connection:
        cursor = connection.execute(f"select * from {table} order by `{number}`")
        names = [column[0] for column in cursor.description]
        for row in cursor:
            yield json.dumps(dict(zip(names, row)), ensure_ascii=False)


def write_lake(database, folder, objects, partitions=3, first=0, last=None):
    """Writes the rows to `objects` objects of each kind. Returns the number of bytes written."""
    written = 0
    for kind in KINDS:
        lines = list(records(database, kind))[first:last]
        per_partition = [lines[p::partitions] for p in range(partitions)]
        each = -(-objects // partitions)
        for partition, own in enumerate(per_partition):
            where = pathlib.Path(folder) / "topics" / f"local.{kind}" / f"partition={partition}"
            where.mkdir(parents=True, exist_ok=True)
            size = -(-len(own) // each)
            for start in range(0, len(own), size):
                text = ("\n".join(own[start : start + size]) + "\n").encode()
                (where / f"local.{kind}+{partition}+{first + start:010d}.json").write_bytes(text)
                written += len(text)
    return written


def lake_objects(pinpipe, bucket="user-local-bucket"):
    root = pinpipe.data / "lake" / bucket
    return sorted(
        str(p.relative_to(root))
        for p in root.rglob("*")
        if p.is_file() and p.suffix in (".json", ".gz")
    )


def lake_lines(pinpipe, bucket="user-local-bucket"):
    root = pinpipe.data / "lake" / bucket

    def read(p):
        return gzip.decompress(p.read_bytes()) if p.suffix == ".gz" else p.read_bytes()

    return [
        json.loads(line)
        for name in lake_objects(pinpipe, bucket)
        for line in read(root / name).splitlines()
    ]


def wait_for_lake(pinpipe, count, bucket="user-local-bucket"):
    wait_until(
        lambda: len(lake_lines(pinpipe, bucket)) >= count, f"{count} records in the lake", 60
    )
    assert len(lake_lines(pinpipe, bucket)) == count


def answers(pinpipe):
    return {
        path.stem: sorted(csv.reader(path.open(encoding="utf-8")))
        for path in (pinpipe.folder / "answers").glob("*.csv")
    }


def put(pinpipe, kind, partition, offset, lines, ending=".json"):
    folder = pinpipe.folder / f"lake/topics/local.{kind}/partition={partition}"
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(line + "\n" for line in lines).encode()
    path = folder / f"local.{kind}+{partition}+{offset:010d}{ending}"
    path.write_bytes(gzip.compress(text) if ending.endswith(".gz") else text)
    return path
