"""Which objects of the lake batch reads: replaced, late and unreadable ones, and odd names."""

import datetime
import json
import os

import pytest

from support.scenarios import objects as scenarios
from support.scenarios.objects import GEO, FolderLake, batch, fill, key, nothing_new

GEO_FOLDER = "topics/local.geo/partition=0"


@pytest.fixture
def lake(pinpipe):
    return FolderLake(pinpipe.folder / "lake")


def test_replaced_object_of_the_same_size_is_read(pinpipe, lake):
    scenarios.replaced_object_of_the_same_size_is_read(pinpipe, lake)


def test_deletion_of_equal_size_hides_no_late_object(pinpipe, lake):
    scenarios.deletion_of_equal_size_hides_no_late_object(pinpipe, lake)


def test_object_of_the_future_without_an_offset_hides_no_correction(pinpipe, lake):
    fill(lake)
    future = datetime.datetime(2040, 1, 1, tzinfo=datetime.UTC).timestamp()
    lake.put(f"{GEO_FOLDER}/future.json", {**GEO, "ind": 2}, written=future)
    lake.put(f"{GEO_FOLDER}/by-hand.json", {**GEO, "ind": 3})
    counts, _, _ = batch(pinpipe, lake)
    assert counts["geo"]["rows"] == 3
    for number, country in enumerate(["Chad", "Cuba", "Iran"]):
        lake.put(f"{GEO_FOLDER}/by-hand.json", {**GEO, "ind": 3, "country": country})
        counts, _, _ = batch(pinpipe, lake)
        assert (counts["geo"]["new_rows"], counts["geo"]["rows"]) == (1, 4 + number)
    lake.put(f"{GEO_FOLDER}/later.json", {**GEO, "ind": 4})
    counts, _, _ = batch(pinpipe, lake)
    assert counts["geo"]["new_rows"] == 1
    assert nothing_new(pinpipe, lake)


def test_replaced_event_without_an_offset_is_read(pinpipe, lake):
    fill(lake)
    for number in range(5):
        event = {**scenarios.PIN, "index": 10 + number, "unique_id": f"e{number}"}
        lake.put(f"events/event-e{number}.json", event)
    batch(pinpipe, lake)
    assert nothing_new(pinpipe, lake)
    lake.put("events/event-e2.json", {**scenarios.PIN, "index": 12, "unique_id": "f2"})
    lake.delete("events/event-e4.json")
    counts, _, _ = batch(pinpipe, lake)
    assert counts["pin"]["new_rows"] == 1
    assert nothing_new(pinpipe, lake)


def test_extensions_of_other_tools_are_read_and_hidden_names_ignored(pinpipe, lake):
    fill(lake)
    for number, name in enumerate(["a.ndjson", "b.jsonl", "c.JSON", "_k=v/d.json"]):
        lake.put(f"{GEO_FOLDER}/{name}", {**GEO, "ind": 10 + number})
    for number, name in enumerate(["_temporary/0/e.json", ".f.json", "_g.json", ".h/i.json"]):
        lake.put(f"{GEO_FOLDER}/{name}", {**GEO, "ind": 20 + number})
    counts, _, stderr = batch(pinpipe, lake)
    found = counts["geo"]
    assert (found["objects_in_lake"], found["rows"], found["skipped"]) == (5, 5, 0)
    assert "warning:" not in stderr, stderr


def test_object_that_cannot_be_read_by_its_name_is_named_and_counted(pinpipe, lake):
    fill(lake)
    folder = lake.folder / GEO_FOLDER
    for name in ["x.json.zst", "y.json.zst", "z.avro"]:
        lake.put(f"{GEO_FOLDER}/{name}", GEO)
    with open(os.path.join(os.fsencode(folder), b"latin-\xe9.json"), "w") as file:
        json.dump(GEO, file)
    (folder / "loop").symlink_to(lake.folder)
    (folder / "broken.json").symlink_to(folder / "nowhere.json")
    counts, report, stderr = batch(pinpipe, lake)
    assert (counts["geo"]["rows"], counts["geo"]["skipped"]) == (1, 6)
    # The two objects with the same extension are named once.
    assert stderr.count("warning: did not read `") == 5, stderr
    assert stderr.count("`.json.zst` is not supported") == 1, stderr
    for part in [
        "`.avro` is not supported",
        "its name is not UTF-8",
        "loop`: it is a symbolic link to a folder that contains it",
        "broken.json`: it is a symbolic link that cannot be followed",
        "objects not read in total: 6",
    ]:
        assert part in stderr, stderr
    assert len(report["skipped"]) == 5 and report["skipped"][0]["object"].startswith("/")
    # A run without new objects reports them too.
    counts, _, stderr = batch(pinpipe, lake)
    assert counts["geo"]["skipped"] == 6 and "objects not read in total: 6" in stderr


def test_unreadable_object_fails_the_run_or_is_skipped(pinpipe, lake):
    fill(lake)
    lake.put(key("geo", 1), {**GEO, "ind": 2})
    # Reading this file fails, as from a damaged disk.
    unreadable = lake.folder / key("geo", 2)
    unreadable.symlink_to("/proc/self/mem")
    lake.put(key("geo", 3), {**GEO, "ind": 4})
    stderr = pinpipe.run("batch", "--lake", "lake", code=1).stderr
    assert "geo+0+0000000002.json" in stderr and "batch.on_unreadable" in stderr, stderr
    skip = {"PINPIPE__BATCH__ON_UNREADABLE": "skip"}
    counts, _, stderr = batch(pinpipe, lake, env=skip)
    found = counts["geo"]
    assert (found["objects"], found["rows"], found["skipped"]) == (3, 3, 1)
    assert "geo+0+0000000002.json`: cannot read" in stderr, stderr
    # It is tried again, alone.
    counts, _, stderr = batch(pinpipe, lake, env=skip)
    assert (counts["geo"]["objects"], counts["geo"]["skipped"]) == (0, 1)
    assert "geo+0+0000000002.json" in stderr, stderr
    unreadable.unlink()
    lake.put(key("geo", 2), {**GEO, "ind": 3})
    counts, _, stderr = batch(pinpipe, lake, env=skip)
    found = counts["geo"]
    assert (found["objects"], found["rows"], found["skipped"]) == (1, 4, 0)
    assert "warning:" not in stderr, stderr
    assert nothing_new(pinpipe, lake)


def test_unknown_value_of_on_unreadable_is_refused(pinpipe, lake):
    fill(lake)
    env = {"PINPIPE__BATCH__ON_UNREADABLE": "ignore"}
    stderr = pinpipe.run("batch", "--lake", "lake", code=2, env=env).stderr
    assert "batch.on_unreadable" in stderr and "skip" in stderr, stderr
