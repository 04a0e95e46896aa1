"""The current version reads a data folder that an earlier version wrote (commit 3874ce0:
`seed --posts 40`, then `demo --posts 30 --seed 1`): topics, streams, connector, routes, lake, Delta
tables with their checkpoint, and the checkpoints of stream."""

import pathlib
import tarfile

import pytest

from support.local_stack import LocalStack
from support.paths import TESTS
from support.pinpipe import Pinpipe

FOLDER = TESTS.parent / "fixtures" / "data-folder-2026-11.tar.gz"
# Original path of the folder. A table records the path of the lake from which it was filled.
WRITTEN_IN = "/tmp/fix/.pinpipe"


@pytest.fixture
def earlier(tmp_path):
    with tarfile.open(FOLDER) as archive:
        archive.extractall(tmp_path, filter="data")
    data = tmp_path / ".pinpipe"
    for commit in data.glob("tables/batch/*/_delta_log/*.json"):
        commit.write_text(commit.read_text().replace(WRITTEN_IN, str(pathlib.Path(data).resolve())))
    return Pinpipe(tmp_path)


def test_batch_continues_from_the_checkpoint_of_an_earlier_version(earlier):
    # Rows of an object that is no longer in the lake are kept.
    (deleted,) = (earlier.data / "lake/user-local-bucket/topics/local.geo").rglob("*+1+*.json")
    deleted.unlink()
    report = earlier.json("batch")
    counts = [(i["objects_in_lake"], i["objects"], i["rows"]) for i in report["inputs"]]
    # Its checkpoint does not identify objects exactly, so that all are read again, once.
    assert [(new == objects > 0, rows) for objects, new, rows in counts] == [(True, 30)] * 3
    assert [i["new_rows"] for i in report["inputs"]] == [0] * 3
    assert [i["records"] - i["duplicates"] for i in report["inputs"]] == [0] * 3
    assert len(report["notes"]) == 3 and "another version of pinpipe" in report["notes"][0]
    report = earlier.json("batch")
    assert [(i["objects"], i["rows"]) for i in report["inputs"]] == [(0, 30)] * 3
    assert "notes" not in report


def test_data_folder_of_an_earlier_version_is_destroyed(earlier):
    # Without source.db, the lock and the streams still identify the data folder.
    (earlier.data / "source.db").unlink()
    earlier.run("destroy", "--data", "--yes")
    assert not earlier.data.exists()


def test_seeded_folder_of_an_earlier_version_is_destroyed(earlier):
    for name in ("local.lock", "kinesis.db"):
        (earlier.data / name).unlink()
    earlier.run("destroy", "--data", "--yes")
    assert not earlier.data.exists()


@pytest.fixture
def running(earlier):
    stack = LocalStack(earlier)
    yield earlier
    stack.stop()


def test_local_stack_and_stream_continue_from_an_earlier_version(running):
    plan = running.json("provision", "--plan")
    assert [step["action"] for step in plan["steps"]] == ["no-op"] * 8
    streamed = running.json("stream", "--available-now")["tables"]
    assert [table["records"] for table in streamed] == [0, 0, 0]
    running.run("emulate", "--rows", "1-3", "--to", "kinesis")
    streamed = running.json("stream", "--available-now")["tables"]
    assert [(t["records"], t["duplicates"] + t["rows"]) for t in streamed] == [(3, 3)] * 3


def test_former_names_of_keys_work_with_a_warning(earlier):
    (earlier.folder / "pinpipe.toml").write_text("[provision]\nparallel = 2\nwait_minutes = 5\n")
    former = {"PINPIPE__DATABRICKS__POLL_MS": "7"}
    stderr = earlier.run("batch", "--no-tables", env=former).stderr
    for name in ("max_concurrency", "operation_timeout_minutes", "databricks.poll_interval_ms"):
        assert f"{name}`" in stderr and "is deprecated: use" in stderr, stderr


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("0", "`provision.parallel`: expected 1 to 64, got `0`"),
        ('"x"', "`pinpipe.toml` line 2: `provision.parallel`: expected a whole number"),
    ],
)
def test_invalid_value_of_a_former_name_is_reported_under_that_name(earlier, value, problem):
    (earlier.folder / "pinpipe.toml").write_text(f"[provision]\nparallel = {value}\n")
    stderr = earlier.run("status", code=2).stderr
    assert problem in stderr and "max_concurrency" not in stderr, stderr


def test_former_name_of_a_flag_works_with_a_warning(running):
    stderr = running.run("provision", "--yes", "--allow-recreate").stderr
    assert "`--allow-recreate` is deprecated: use `--allow-replace`" in stderr


def test_misspelled_variable_is_reported(earlier):
    stderr = earlier.run("batch", "--no-tables", env={"PINPIPE_BATCH_MEMORY": "1GB"}).stderr
    assert (
        "unknown environment variable `PINPIPE_BATCH_MEMORY`, did you mean "
        "`PINPIPE__BATCH__MEMORY`?" in stderr
    )
