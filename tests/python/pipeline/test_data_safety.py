"""Failures that must never occur: deleted tables or files of the user, skipped records, exposed
secrets."""

import contextlib
import os
import signal
import sqlite3
import subprocess

import pytest
from confluent_kafka import Consumer, Producer

from support.kafka import make_topic
from support.lakes import lake_lines, lake_objects
from support.pinpipe import BINARY, Pinpipe, clean_environment
from support.wait import wait_until


def test_demo_and_seed_keep_tables_they_did_not_fill(pinpipe):
    pinpipe.run("seed", "--posts", 30)
    with sqlite3.connect(pinpipe.data / "source.db") as database:
        database.execute("drop table geolocation_data")
        database.execute("update pinterest_data set title = 'mine'")
    assert "geolocation_data" in pinpipe.run("demo", "--posts", 5, code=1).stderr
    pinpipe.run("seed", code=1)
    with sqlite3.connect(pinpipe.data / "source.db") as database:
        assert database.execute(
            "select distinct title, count(*) from pinterest_data"
        ).fetchall() == [("mine", 30)]


def test_renamed_column_is_an_error(pinpipe):
    pinpipe.run("seed", "--posts", 5)
    with sqlite3.connect(pinpipe.data / "source.db") as database:
        database.execute("alter table geolocation_data rename column country to nation")
    done = pinpipe.run(
        "emulate", "--posts", "1", code=1, env={"PINPIPE__GATEWAY__URL": "http://127.0.0.1:1"}
    )
    assert "country" in done.stderr and "geolocation_data" in done.stderr


def test_destroy_deletes_only_files_of_pinpipe(pinpipe):
    pinpipe.run("seed", "--posts", 5)
    (pinpipe.data / "thesis.txt").write_text("mine")
    stdout = pinpipe.run("destroy", "--data", "--yes").stdout
    assert "the folder is kept because it contains other files: thesis.txt" in stdout
    assert [p.name for p in pinpipe.data.iterdir()] == ["thesis.txt"]
    # User files with names that pinpipe uses: a run does not mark this folder as a data folder.
    unmarked = pinpipe.folder / "src"
    (unmarked / "kafka").mkdir(parents=True)
    for name in ("source.db", "local.lock"):
        (unmarked / name).write_text("mine")
    pinpipe.run("batch", "--lake", "nowhere", "--data-dir", "src", code=1)
    stderr = pinpipe.run("destroy", "--data", "--yes", "--data-dir", "src", code=1).stderr
    assert "is not a data folder of pinpipe" in stderr
    assert (unmarked / "kafka").is_dir() and (unmarked / "source.db").read_text() == "mine"


def test_demo_does_not_seed_a_folder_in_use(local):
    stderr = local.pinpipe.run("demo", "--posts", 5, code=1).stderr
    assert "another local stack is already running" in stderr
    assert not (local.pinpipe.data / "source.db").exists()


def test_interrupted_seed_keeps_the_rows(pinpipe):
    pinpipe.run("seed", "--posts", 30)
    rows = "select * from pinterest_data order by 1"
    with contextlib.closing(sqlite3.connect(pinpipe.data / "source.db")) as database:
        before = database.execute(rows).fetchall()
        # The lock of another writer makes seed wait before its first change.
        database.execute("begin immediate")
        env = {"PINPIPE__DATABASE__CONNECT_TIMEOUT_MS": 60_000}
        running = pinpipe.start("seed", "--replace", "--seed", "7", "-v", env=env)
        for line in running.stderr:
            if "filling the tables" in line:
                break
        running.send_signal(signal.SIGINT)
        stderr = running.communicate(timeout=60)[1]
        database.rollback()
        assert running.returncode == 1 and (
            "error: interrupted: the tables of the database are unchanged\nhint: " in stderr
        ), stderr
        assert database.execute(rows).fetchall() == before and len(before) == 30


def test_doctor_leaves_no_files(pinpipe):
    assert "✔ data" in pinpipe.run("doctor", code=1).stdout
    assert not pinpipe.data.exists()
    pinpipe.run("seed", "--posts", 5)
    files = sorted(path.name for path in pinpipe.data.iterdir())
    assert "5 posts" in pinpipe.run("doctor", code=1).stdout
    assert sorted(path.name for path in pinpipe.data.iterdir()) == files


@pytest.mark.skipif(os.getuid() == 0, reason="root reads every file")
def test_doctor_reports_unreadable_files(pinpipe):
    pinpipe.run("seed", "--posts", 5)
    lake = pinpipe.data / "lake" / "user-local-bucket"
    lake.mkdir(parents=True)
    (pinpipe.data / "source.db").chmod(0)
    lake.parent.chmod(0)
    stdout = pinpipe.run("doctor", code=1).stdout
    lake.parent.chmod(0o755)
    assert stdout.count("cannot read") == 2 and "does not exist" not in stdout, stdout


@pytest.mark.parametrize("name", ["a~b {c} 100%", "Ünïcode #1"])
def test_folder_names_may_contain_special_characters(tmp_path, name):
    (tmp_path / name).mkdir()
    pinpipe = Pinpipe(tmp_path / name)
    report = pinpipe.json("demo", "--posts", 20)
    assert all(c["expected"] == c["found"] for c in report["claims"]), report["claims"]
    assert lake_objects(pinpipe) and [p.name for p in tmp_path.iterdir()] == [name]


def test_folder_name_that_delta_rejects_is_reported(tmp_path):
    (tmp_path / "[x]").mkdir()
    done = Pinpipe(tmp_path / "[x]").run("demo", "--posts", 20, code=1)
    assert "`[`" in done.stderr and "hint:" in done.stderr and "panicked" not in done.stderr


def test_second_stream_on_the_same_tables_is_rejected(provisioned):
    pinpipe = provisioned.pinpipe
    pinpipe.run("seed", "--posts", 20)
    pinpipe.run("emulate", "--to", "kinesis", "--rows", "0-19")
    first = pinpipe.start("stream", "--interval", "50")
    # The first stream writes after it has locked the tables. Testing the lock itself could prevent
    # the first stream from locking.
    wait_until(
        lambda: list((pinpipe.data / "tables" / "stream").rglob("_delta_log/*.json")),
        "the first stream to write",
    )
    refused = pinpipe.run("stream", "--available-now", code=1)
    assert "another `pinpipe stream`" in refused.stderr and "hint:" in refused.stderr
    first.terminate()
    assert first.wait(20) == 0
    pinpipe.run("stream", "--available-now")


@pytest.mark.parametrize(
    "record", ['{"index": 3000000000}', '{"index": "x"}', "[1]", "nonsense", '{"index": null}']
)
def test_invalid_record_stops_neither_batch_nor_stream(provisioned, record):
    pinpipe = provisioned.pinpipe
    pinpipe.run("seed", "--posts", 20)
    pinpipe.run("emulate", "--to", "both", "--rows", "0-19")
    provisioned.boto().put_record(
        StreamName="streaming-local-pin", Data=record.encode(), PartitionKey="k"
    )
    pin = pinpipe.json("stream", "--available-now")["tables"][0]
    assert (pin["records"], pin["rejects"], pin["rows"]) == (21, 1, 20)
    wait_until(lambda: pinpipe.json("connector", "status")["lag"] == 0, "the sink")
    folder = pinpipe.data / "lake/user-local-bucket/topics/local.pin/partition=0"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "local.pin+0+0000099999.json").write_text(record + "\n")
    (folder / "local.pin+0+0000099998.json.gz").write_bytes(b"\x1f\x8b\x08\x00 cut off")
    pin = pinpipe.json("batch")["inputs"][0]
    assert (pin["records"], pin["rejects"], pin["rows"]) == (22, 2, 20)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://me:hunt/er2@127.0.0.1:1/x",
        "mysql://me:hunt#er2@127.0.0.1:1/x",
        "postgres://me@127.0.0.1:1/x?password=hunter2&x=hunter2",
        "mysql://me:p@ss:hunter2@127.0.0.1:1/x",
    ],
)
def test_passwords_in_urls_are_never_shown(pinpipe, url):
    for command in (["seed"], ["emulate", "-vvv"], ["doctor", "--output", "json"]):
        done = pinpipe.run(*command, code=1, env={"PINPIPE__DATABASE__URL": url})
        assert "er2" not in done.stdout + done.stderr, done.stdout + done.stderr
    (pinpipe.folder / "pinpipe.toml").write_text(f'[database]\nurl = "{url}"\n')
    done = pinpipe.run("seed", code=2)
    assert "PINPIPE_DATABASE_PASSWORD" in done.stderr and "er2" not in done.stderr


def test_unusual_environment_does_not_panic(pinpipe):
    env = {**clean_environment(), "STRANGE": "x"}
    done = subprocess.run(
        ["env", b"STRANGE=\xff\xfe", str(BINARY), "doctor"],
        cwd=pinpipe.folder,
        env=env,
        capture_output=True,
    )
    assert b"panicked" not in done.stderr and done.returncode == 1
    for rate in ("1e-30", "nan", "inf", "-1"):
        assert "--rate" in pinpipe.run("emulate", f"--rate={rate}", code=2).stderr


def test_recreated_topic_is_read_from_its_start(provisioned):
    pinpipe = provisioned.pinpipe
    producer = Producer({"bootstrap.servers": provisioned.kafka})
    for i in range(5):
        producer.produce("local.pin", b'{"index": %d}' % i, partition=0)
    producer.flush(10)
    wait_until(lambda: pinpipe.json("connector", "status")["lag"] == 0, "the sink")
    pinpipe.run("topics", "delete", "--yes", "local.pin")
    pinpipe.run("topics", "create", "local.pin")
    for i in range(2):
        producer = Producer({"bootstrap.servers": provisioned.kafka})
        producer.produce("local.pin", b'{"index": %d}' % (100 + i), partition=0)
        producer.flush(10)
    wait_until(lambda: pinpipe.json("connector", "status")["lag"] == 0, "the sink")
    # The offsets of the new topic continue after those of the deleted topic, so that no object of
    # the lake is overwritten.
    assert [r["index"] for r in lake_lines(pinpipe)] == [0, 1, 2, 3, 4, 100, 101]


def test_killed_stack_does_not_redirect_to_another_one(local, tmp_path):
    env = {
        f"PINPIPE__LOCAL__{k}_PORT": address.split(":")[1]
        for k, address in [
            ("KAFKA", local.kafka),
            ("GATEWAY", local.gateway),
            ("KINESIS", local.kinesis),
            ("CONTROL", local.control),
        ]
    }
    local.kill()
    other = Pinpipe(tmp_path / "other")
    other.folder.mkdir()
    process = other.start("local", env=env)
    try:
        wait_until(lambda: (other.data / "local.json").exists(), "the other stack")
        other.run("topics", "create")
        for command in (
            ["topics", "list"],
            ["topics", "delete", "--yes", "local.pin"],
            ["status"],
            ["api", "url"],
        ):
            assert "not running" in local.pinpipe.run(*command, code=1).stderr
        assert other.json("topics", "list") == ["local.geo", "local.pin", "local.user"]
    finally:
        process.kill()
        process.wait()


def test_unwritable_stdout_is_a_failure(pinpipe):
    pinpipe.run("seed", "--posts", 5)
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [BINARY, "seed"],
            cwd=pinpipe.folder,
            env=clean_environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1 and "stdout" in done.stderr


def test_static_members_fence_each_other(local):
    make_topic(local.kafka, "t", 2)
    errors = []
    config = {
        "bootstrap.servers": local.kafka,
        "group.id": "g",
        "group.instance.id": "one",
        "session.timeout.ms": 6000,
        "error_cb": lambda e: errors.append(e),
    }
    first, second = Consumer(config), Consumer(config)
    first.subscribe(["t"])
    wait_until(lambda: first.poll(0.1) or len(first.assignment()) == 2, "the first to join")
    second.subscribe(["t"])

    def fenced():
        second.poll(0.1)
        message = first.poll(0.1)
        if message is not None and message.error():
            errors.append(message.error())
        return any("fenced" in str(e).lower() for e in errors) and len(second.assignment()) == 2

    wait_until(fenced, "the first to be fenced and the second to own the topic")
    second.close()
