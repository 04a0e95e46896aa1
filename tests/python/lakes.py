"""Lakes for benchmarks, as the sink writes them, from posts that `pinpipe seed` generates."""

import json
import pathlib
import sqlite3

KINDS = {"pin": ("pinterest_data", "index"), "geo": ("geolocation_data", "ind"), "user": ("user_data", "ind")}


def records(database, kind):
    """The rows of a source table as JSON lines, in their order."""
    table, number = KINDS[kind]
    with sqlite3.connect(database) as connection:
        cursor = connection.execute(f"select * from {table} order by `{number}`")
        names = [column[0] for column in cursor.description]
        for row in cursor:
            yield json.dumps(dict(zip(names, row)), ensure_ascii=False)


def write_lake(database, folder, objects, partitions=3, first=0, last=None):
    """Spreads the rows over so many objects of each kind; the bytes written."""
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
