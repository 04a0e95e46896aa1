"""User mistakes and machine failures: one error with a hint, exit code 1 or 2, no data loss."""

import shutil
import signal
import socket
import subprocess
import time

import pytest

from support.namespace import in_a_namespace
from support.pinpipe import Pinpipe


def test_second_local_on_the_same_folder_is_rejected(local):
    done = local.pinpipe.run("local", "--any-port", code=1)
    assert (
        "is already running" in done.stderr
        and f"process {local.process.pid}" in done.stderr
        and "hint:" in done.stderr
    )


def test_port_in_use_is_named(local, tmp_path):
    port = local.gateway.split(":")[1]
    other = Pinpipe(tmp_path / "other")
    other.folder.mkdir()
    done = other.run(
        "local",
        code=1,
        env={
            "PINPIPE__LOCAL__GATEWAY_PORT": port,
            "PINPIPE__LOCAL__KAFKA_PORT": 0,
            "PINPIPE__LOCAL__KINESIS_PORT": 0,
            "PINPIPE__LOCAL__CONTROL_PORT": 0,
        },
    )
    assert f"127.0.0.1:{port}" in done.stderr and "gateway_port" in done.stderr


def test_servers_listen_on_loopback_only(local):
    listening = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True)
    own = [
        line.split()[3]
        for line in listening.stdout.splitlines()
        if f"pid={local.process.pid}," in line
    ]
    assert len(own) == 4 and all(address.startswith("127.0.0.1:") for address in own), own
    assert all(
        address.startswith("127.0.0.1:")
        for address in (local.kafka, local.gateway, local.kinesis, local.control)
    )


@pytest.mark.parametrize(
    "command",
    [
        ["emulate", "--posts", "1"],
        ["stream", "--available-now"],
        ["stream", "--available-now", "--source", "kafka"],
        ["topics", "list"],
        ["connector", "status"],
        ["api", "status"],
        ["provision"],
        ["status"],
    ],
)
def test_every_stage_without_a_stack_hints_at_pinpipe_local(pinpipe, command):
    pinpipe.run("seed", "--posts", 5)
    done = pinpipe.run(*command, code=1)
    assert "pinpipe local" in done.stderr and "hint:" in done.stderr
    assert "Traceback" not in done.stderr and "panicked" not in done.stderr


@pytest.mark.parametrize(
    ("command", "env"),
    [
        (["emulate", "--posts", "1"], {"PINPIPE__GATEWAY__URL": "http://127.0.0.1:1"}),
        (["topics", "list"], {"PINPIPE__KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}),
        (["stream", "--available-now"], {"PINPIPE__KINESIS__ENDPOINT_URL": "http://127.0.0.1:1"}),
        (
            ["stream", "--available-now", "--source", "kafka"],
            {"PINPIPE__KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"},
        ),
        (
            ["batch"],
            {
                "PINPIPE__LAKE__URL": "s3://b",
                "PINPIPE__LAKE__ENDPOINT_URL": "http://127.0.0.1:1",
                "AWS_ACCESS_KEY_ID": "x",
                "AWS_SECRET_ACCESS_KEY": "x",
            },
        ),
        (["seed"], {"PINPIPE__DATABASE__URL": "postgres://x@127.0.0.1:1/x"}),
        (["seed"], {"PINPIPE__DATABASE__URL": "mysql://x@127.0.0.1:1/x"}),
    ],
)
def test_unreachable_endpoint_is_one_error_with_a_hint(pinpipe, command, env):
    if command[0] == "emulate":
        pinpipe.run("seed", "--posts", 5)
    done = pinpipe.run(*command, code=1, env={"PINPIPE__KAFKA__TIMEOUT_MS": 3000, **env})
    lines = done.stderr.splitlines()
    assert [line.split(":")[0] for line in lines] == ["error", "hint"], done.stderr
    assert len(lines[0]) < 500, "an error is a sentence, not a dump"


def test_doctor_lists_failures_with_hints(provisioned):
    pinpipe = provisioned.pinpipe
    done = pinpipe.run("doctor", code=1)
    assert "✖ database" in done.stdout and "pinpipe seed" in done.stdout
    pinpipe.run("seed", "--posts", 5)
    done = pinpipe.run("doctor")
    assert done.stdout.count("✔") == 8 and "✖" not in done.stdout
    provisioned.stop()
    done = pinpipe.run("doctor", code=1)
    assert done.stdout.count("✖") == 4, done.stdout


def test_empty_and_missing_lakes_are_reported(pinpipe):
    assert "hint:" in pinpipe.run("batch", code=1).stderr
    (pinpipe.folder / "empty").mkdir()
    done = pinpipe.run("batch", "--lake", "empty", code=1)
    assert "holds no records of `local`" in done.stderr and "--user-id" in done.stderr


def test_missing_and_broken_tables_are_reported(pinpipe):
    assert (
        "pinpipe seed"
        in pinpipe.run(
            "emulate", "--posts", "1", code=1, env={"PINPIPE__GATEWAY__URL": "http://127.0.0.1:1"}
        ).stderr
    )
    import sqlite3

    pinpipe.run("seed", "--posts", 5)
    with sqlite3.connect(pinpipe.data / "source.db") as database:
        database.execute("drop table geolocation_data")
    done = pinpipe.run(
        "emulate", "--posts", "1", code=1, env={"PINPIPE__GATEWAY__URL": "http://127.0.0.1:1"}
    )
    assert "geolocation_data" in done.stderr and "pinpipe seed" in done.stderr
    (pinpipe.data / "source.db").write_bytes(b"this is no database" * 1000)
    assert "hint:" in pinpipe.run("emulate", "--posts", "1", code=1).stderr


def test_invalid_table_to_load_is_reported_with_file_and_line(pinpipe):
    folder = pinpipe.folder / "tables"
    folder.mkdir()
    assert "pinterest_data.csv" in pinpipe.run("seed", "--from", "tables", code=1).stderr
    (folder / "geolocation_data.csv").write_text(
        "ind,timestamp,latitude,longitude,country\n1,2020-01-01 00:00:00,1.5,2,Peru\n"
    )
    (folder / "user_data.jsonl").write_text(
        '{"ind": 1, "first_name": "A", "last_name": "B", "age": 20, '
        '"date_joined": "2016-01-01T00:00:00"}\n'
    )
    pin = (
        '{"index": %s, "unique_id": "u", "title": "t", "description": null, '
        '"poster_name": "p", "follower_count": "1k", "tag_list": "", '
        '"is_image_or_video": "image", "image_src": "s", "downloaded": 1, '
        '"save_location": "l", "category": "art"}\n'
    )
    (folder / "pinterest_data.jsonl").write_text(pin % 1 + pin % '"x"')
    done = pinpipe.run("seed", "--from", "tables", code=1)
    assert (
        "pinterest_data.jsonl`, line 2" in done.stderr and not (pinpipe.data / "source.db").exists()
    )
    (folder / "pinterest_data.jsonl").write_text(pin % 1 + "{\n")
    stderr = pinpipe.run("seed", "--from", "tables", code=1).stderr
    assert "pinterest_data.jsonl`, line 2: expected a JSON object, see column " in stderr, stderr
    (folder / "pinterest_data.jsonl").write_text(pin % 1)
    geo = folder / "geolocation_data.csv"
    text = geo.read_text()
    geo.write_text(text + "2,2020-01-01 00:00:00\n")
    stderr = pinpipe.run("seed", "--from", "tables", code=1).stderr
    assert "geolocation_data.csv`, line 3: expected 5 columns, got 2\n" in stderr, stderr
    geo.write_text(text)
    (folder / "pinterest_data.jsonl").write_text(pin % 1 + pin % 1)
    assert "duplicate row number 1" in pinpipe.run("seed", "--from", "tables", code=1).stderr
    (folder / "pinterest_data.jsonl").write_text(pin % 1 + pin % 2)
    assert pinpipe.json("seed", "--from", "tables")["posts"] == 1


def test_read_only_data_folder_is_one_error(tmp_path):
    (tmp_path / "ro").mkdir()
    script = (
        "set -e; mount -t tmpfs tmpfs ro; mount -o remount,ro ro; set +e; for "
        'command in "seed --posts 5" "local --any-port"; do $PINPIPE $command '
        '--data-dir ro/data; echo "code $?"; done'
    )
    done = in_a_namespace(script, tmp_path)
    assert done.stdout.count("code 1") == 2, done.stdout + done.stderr
    assert done.stderr.count("error:") == 2 and done.stderr.count("hint:") == 2, done.stderr
    assert "ead-only" in done.stderr


def test_full_disk_is_reported_and_acknowledged_records_are_kept(tmp_path):
    (tmp_path / "small").mkdir()
    script = """
set -e
mount -t tmpfs -o size=6m tmpfs small
export PINPIPE__EMULATE__RETRIES=1 PINPIPE__KAFKA__TIMEOUT_MS=3000
$PINPIPE seed --posts 400 --data-dir small/data -q
$PINPIPE local --any-port --data-dir small/data > address 2> log & pid=$!
until grep -q control address; do sleep 0.1; done
$PINPIPE provision --data-dir small/data > /dev/null
set +e
$PINPIPE emulate --to kafka --posts 20000 --batch 50 --data-dir small/data --output json > summary 2> errors; echo "emulate $?"
kill -9 $pid; wait $pid 2> /dev/null
rm -rf small/data/dead-letters small/data/lake
$PINPIPE seed --posts 100000 --replace --data-dir small/data; echo "seed $?"
mount -o remount,size=64m small
$PINPIPE local --any-port --data-dir small/data > address2 2>> log & pid=$!
until grep -q control address2; do sleep 0.1; done
$PINPIPE topics describe --data-dir small/data --output json > topics
kill $pid; wait $pid
"""  # noqa: E501
    import json

    done = in_a_namespace(script, tmp_path)
    assert "emulate 1" in done.stdout and "seed 1" in done.stdout, done.stdout + done.stderr
    assert "full" in done.stderr and "hint:" in done.stderr, done.stderr
    topics = json.loads((tmp_path / "topics").read_text())
    kept = sum(p["end_offset"] for t in topics for p in t["partitions"])
    summary = (tmp_path / "summary").read_text()
    if summary:
        assert kept >= json.loads(summary)["delivered"]
    assert kept > 0


@pytest.mark.parametrize(
    "damaged", ["connectors.json", "api.json", "kafka/topics/local.pin/topic.json"]
)
def test_damaged_file_of_the_stack_is_named_with_a_hint(provisioned, damaged):
    provisioned.stop()
    path = provisioned.pinpipe.data / damaged
    path.write_bytes(path.read_bytes()[:-5])
    if damaged == "api.json":
        store = provisioned.pinpipe.data / "kinesis.db"
        whole = store.read_bytes()
        # SQLite could restore the store from its WAL.
        for log in store.parent.glob("kinesis.db-*"):
            log.unlink()
        store.write_bytes(b"no database" * 1000)
        done = provisioned.pinpipe.run("local", "--any-port", code=1)
        assert "cannot open the Kinesis store" in done.stderr and "hint:" in done.stderr
        store.write_bytes(whole)
    done = provisioned.pinpipe.run("local", "--any-port", code=1)
    assert f"{path.name}` is damaged" in done.stderr and "hint:" in done.stderr
    assert path.exists(), "the damaged file is kept"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[lake]\nurl = "gs://bucket"\n', "`lake.url`: expected a folder or s3://BUCKET, got `gs:"),
        ('[local]\nhost = "somewhere"\n', "`local.host`: expected an IP address or localhost"),
        ('[kafka]\nbootstrap_servers = "<b-1>:9098"\n', "still contains a <placeholder>"),
        ('id = "x"\n\n[emulate]\nrate = "fast"\n', "`pinpipe.toml` line 4"),
    ],
)
def test_invalid_configuration_is_rejected_with_key_or_line(pinpipe, text, message):
    (pinpipe.folder / "pinpipe.toml").write_text(text)
    done = pinpipe.run("status", code=2)
    assert message in done.stderr and "hint:" in done.stderr, done.stderr


def test_empty_configuration_variable_counts_as_not_set(pinpipe):
    assert pinpipe.json("seed", "--posts", 3, env={"PINPIPE_CONFIG": ""})["posts"] == 3


def test_local_stack_refuses_configured_brokers(pinpipe):
    env = {"PINPIPE__KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9"}
    stderr = pinpipe.run("local", "--any-port", env=env, code=2).stderr
    assert "the local stack has its own broker" in stderr and "hint:" in stderr, stderr


@pytest.mark.parametrize("lake", ["", "gs://bucket", "ftp://x/y"])
def test_invalid_lake_is_a_usage_error(pinpipe, lake):
    stderr = pinpipe.run("batch", "--lake", lake, code=2).stderr
    assert f"expected a folder or s3://BUCKET[/PREFIX], got `{lake}`" in stderr


def test_demo_rejects_an_unsuitable_folder_before_it_posts(tmp_path):
    pinpipe = Pinpipe(tmp_path / "odd[folder]")
    pinpipe.folder.mkdir()
    done = pinpipe.run("demo", "--posts", 5, code=1)
    assert "cannot store Delta tables in" in done.stderr and "hint:" in done.stderr
    assert not (pinpipe.data / "source.db").exists()


def test_ctrl_c_interrupts_a_waiting_batch_immediately(pinpipe):
    with socket.create_server(("127.0.0.1", 0)) as server:
        env = {
            "PINPIPE__LAKE__ENDPOINT_URL": f"http://127.0.0.1:{server.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "y",
        }
        running = pinpipe.start("batch", "--lake", "s3://bucket", env=env)
        connection, _ = server.accept()
        connection.recv(1)
        began = time.monotonic()
        running.send_signal(signal.SIGINT)
        stderr = running.communicate(timeout=20)[1]
        took = time.monotonic() - began
    assert (
        running.returncode == 1
        and "error: interrupted before all questions were answered" in stderr
        and "hint: re-run the command to resume; committed rows are kept" in stderr
    ), stderr
    assert took < 15 and not list(pinpipe.data.rglob("spill/*/*")), took


def test_data_folder_of_a_failed_batch_can_be_destroyed(pinpipe):
    pinpipe.run("batch", "--lake", "nowhere", code=1)
    assert pinpipe.data.is_dir()
    pinpipe.run("destroy", "--data", "--yes")
    assert not pinpipe.data.exists()
    pinpipe.data.mkdir()
    (pinpipe.data / "mine.txt").write_text("not pinpipe's")
    stderr = pinpipe.run("destroy", "--data", "--yes", code=1).stderr
    assert "is not a data folder of pinpipe" in stderr and (pinpipe.data / "mine.txt").exists()


def test_table_with_a_damaged_log_is_named_with_a_hint(pinpipe):
    write_lake_of_one(pinpipe)
    pinpipe.run("batch", "--lake", "lake")
    log = sorted((pinpipe.data / "tables/batch/local_geo_table/_delta_log").glob("*.json"))[-1]
    log.write_text("garbage")
    stderr = pinpipe.run("batch", "--lake", "lake", code=1, env={"RUST_BACKTRACE": "0"}).stderr
    assert (
        "cannot read the Delta table" in stderr
        and "local_geo_table" in stderr
        and "hint: " in stderr
        and "move it away" in stderr
    ), stderr
    shutil.move(log.parent.parent, pinpipe.folder / "away")
    assert [i["rows"] for i in pinpipe.json("batch", "--lake", "lake")["inputs"]] == [0, 1, 0]


def test_invalid_sql_of_a_question_is_named(pinpipe):
    write_lake_of_one(pinpipe)
    (pinpipe.folder / "questions").mkdir()
    (pinpipe.folder / "questions/bad.sql").write_text("SELEC 1")
    stderr = pinpipe.run(
        "batch", "--lake", "lake", code=2, env={"PINPIPE__BATCH__QUESTIONS": "questions"}
    ).stderr
    assert (
        "bad" in stderr and "SELEC" in stderr and "hint: correct the question's file" in stderr
    ), stderr


def write_lake_of_one(pinpipe):
    where = pinpipe.folder / "lake/topics/local.geo/partition=0"
    where.mkdir(parents=True)
    (where / "local.geo+0+0000000000.json").write_text('{"ind": 1, "country": "Chad"}\n')
