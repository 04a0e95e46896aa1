"""All stages together: demo, sink, batch and stream, also when they are interrupted."""

import json
import re
import signal
import time

import pytest
import requests

from support.lakes import ANSWERS, lake_lines, lake_objects, wait_for_lake
from support.wait import wait_until

PROPERTIES = {
    "connector.class": "io.confluent.connect.s3.S3SinkConnector",
    "s3.bucket.name": "b",
    "s3.region": "us-east-1",
    "storage.class": "io.confluent.connect.s3.storage.S3Storage",
    "format.class": "io.confluent.connect.s3.format.json.JsonFormat",
    "value.converter": "org.apache.kafka.connect.json.JsonConverter",
    "value.converter.schemas.enable": "false",
    "topics.regex": "local.*",
}


def delta_rows(pinpipe, layer, table):
    import deltalake

    return (
        deltalake.DeltaTable(pinpipe.data / "tables" / layer / table).to_pyarrow_table().to_pylist()
    )


def end_offsets(pinpipe):
    """Returns the number of records in the topics."""
    return sum(
        partition["end_offset"]
        for topic in pinpipe.json("topics", "describe")
        for partition in topic["partitions"]
    )


def kinesis_records(local, stream):
    """Returns the number of records in a stream."""
    client, count = local.boto(), 0
    for shard in client.list_shards(StreamName=stream)["Shards"]:
        page = {
            "NextShardIterator": client.get_shard_iterator(
                StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )["ShardIterator"]
        }
        while page.get("MillisBehindLatest", 1):
            page = client.get_records(ShardIterator=page["NextShardIterator"])
            count += len(page["Records"])
    return count


def test_demo_runs_twice_in_the_same_folder(pinpipe):
    first = pinpipe.json("demo", "--posts", 300, "--seed", 1)
    assert all(c["expected"] == c["found"] for c in first["claims"]), first["claims"]
    assert [s["name"] for s in first["stages"]] == [
        "seed",
        "local",
        "provision",
        "emulate",
        "sink",
        "stream",
        "batch",
    ]
    assert len(first["answers"]) == ANSWERS and all(a["rows"] for a in first["answers"])
    second = pinpipe.json("demo", "--posts", 200, "--seed", 2)
    assert all(c["expected"] == c["found"] for c in second["claims"]), second["claims"]
    assert len(list((pinpipe.data / "answers").glob("*.csv"))) == ANSWERS
    posts = {r["ind"] for r in delta_rows(pinpipe, "stream", "local_pin_table")}
    assert 300 < len(posts) <= 500
    assert posts == {r["ind"] for r in delta_rows(pinpipe, "batch", "local_pin_table")}


def test_provision_plans_applies_and_is_idempotent(local):
    pinpipe = local.pinpipe
    planned = pinpipe.json("provision", "--plan")
    assert not planned["applied"] and [s["action"] for s in planned["steps"]] == ["create"] * 8
    assert [s["action"] for s in pinpipe.json("provision")["steps"]] == ["create"] * 8
    assert [s["action"] for s in pinpipe.json("provision", "--plan")["steps"]] == ["no-op"] * 8
    pinpipe.run("topics", "delete", "--yes", "local.geo")
    requests.put(
        f"http://{local.control}/connectors/local-connector/config",
        json=PROPERTIES | {"flush.size": 7},
        timeout=10,
    )
    drift = {
        s["name"]: s for s in pinpipe.json("provision", "--plan")["steps"] if s["action"] != "no-op"
    }
    assert (
        set(drift) == {"local.geo", "local-connector"}
        and drift["local-connector"]["action"] == "update"
    )
    assert "flush.size" in drift["local-connector"]["reasons"][0]
    pinpipe.run("provision")
    assert all(r["exists"] for r in pinpipe.json("status")["resources"])
    pinpipe.run("destroy", code=2)
    assert all(r["removed"] for r in pinpipe.json("destroy", "--yes")["resources"])
    assert not any(r["removed"] for r in pinpipe.json("destroy", "--yes")["resources"])
    assert not any(r["exists"] for r in pinpipe.json("status")["resources"])
    pinpipe.run("destroy", "--data", "--yes", code=1)
    local.stop()
    pinpipe.run("destroy", "--data", "--yes")
    assert not pinpipe.data.exists()
    pinpipe.run("destroy", "--data", "--yes")


def test_object_names_match_the_confluent_sink(local):
    pinpipe = local.pinpipe
    pinpipe.run("topics", "create", "--partitions", "1")
    requests.put(
        f"http://{local.control}/connectors/c/config",
        json=PROPERTIES | {"flush.size": "3"},
        timeout=10,
    )
    pinpipe.run("api", "deploy")
    for i in range(7):
        requests.post(
            f"http://{local.gateway}/topics/local.pin",
            json={"records": [{"value": {"index": i}}]},
            headers={"content-type": "application/vnd.kafka.json.v2+json"},
            timeout=10,
        )
    wait_for_lake(pinpipe, 6, "b")
    assert lake_objects(pinpipe, "b") == [
        f"topics/local.pin/partition=0/local.pin+0+000000000{o}.json" for o in (0, 3)
    ]
    assert [r["index"] for r in lake_lines(pinpipe, "b")] == list(range(6))
    # The sink holds the seventh record until two more arrive, across a pause and a restart.
    for action, state in [("pause", "PAUSED"), ("resume", "RUNNING")]:
        assert (
            requests.put(f"http://{local.control}/connectors/c/{action}", timeout=10).status_code
            == 202
        )
        assert (
            requests.get(f"http://{local.control}/connectors/c/status", timeout=10).json()["tasks"][
                0
            ]["state"]
            == state
        )
    for i in (7, 8):
        requests.post(
            f"http://{local.gateway}/topics/local.pin",
            json={"records": [{"value": {"index": i}}]},
            headers={"content-type": "application/vnd.kafka.json.v2+json"},
            timeout=10,
        )
    wait_for_lake(pinpipe, 9, "b")
    assert [r["index"] for r in lake_lines(pinpipe, "b")] == list(range(9))
    assert requests.delete(f"http://{local.control}/connectors/c", timeout=10).status_code == 204
    assert (
        requests.get(f"http://{local.control}/connectors/c/status", timeout=10).status_code == 404
    )


@pytest.mark.parametrize(
    ("more", "folder"),
    [
        (
            {
                "partitioner.class": "io.confluent.connect.storage.partitioner.FieldPartitioner",
                "partition.field.name": "country",
                "s3.compression.type": "gzip",
            },
            "country=Peru",
        ),
        (
            {
                "partitioner.class": "io.confluent.connect.storage.partitioner.TimeBasedPartitioner",  # noqa: E501
                "path.format": "'year'=YYYY/'month'=MM",
                "partition.duration.ms": "3600000",
                "locale": "en-US",
                "timezone": "UTC",
                "timestamp.extractor": "RecordField",
                "timestamp.field": "timestamp",
            },
            "year=2022/month=05",
        ),
    ],
)
def test_batch_reads_other_partitioners_and_gzip(local, more, folder):
    pinpipe = local.pinpipe
    pinpipe.run("topics", "create", "--partitions", "1")
    requests.put(
        f"http://{local.control}/connectors/c/config",
        json=PROPERTIES | {"flush.size": "2", "topics.regex": "local\\.geo"} | more,
        timeout=10,
    )
    pinpipe.run("api", "deploy")
    records = [
        {
            "value": {
                "ind": i,
                "timestamp": "2022-05-27 11:30:59",
                "latitude": 1.5,
                "longitude": 2,
                "country": "Peru",
            }
        }
        for i in range(4)
    ]
    requests.post(
        f"http://{local.gateway}/topics/local.geo",
        json={"records": records},
        headers={"content-type": "application/vnd.kafka.json.v2+json"},
        timeout=10,
    )
    wait_for_lake(pinpipe, 4, "b")
    assert all(
        name.startswith(f"topics/local.geo/{folder}/local.geo+0+")
        for name in lake_objects(pinpipe, "b")
    ), lake_objects(pinpipe, "b")
    inputs = pinpipe.json("batch", "--lake", pinpipe.data / "lake" / "b")["inputs"]
    assert [i["rows"] for i in inputs] == [0, 4, 0]


def test_unsupported_connector_property_is_rejected(local):
    answer = requests.put(
        f"http://{local.control}/connectors/c/config",
        json=PROPERTIES | {"flush.size": "2", "s3.acl.canned": "private"},
        timeout=10,
    )
    assert answer.status_code == 400 and "s3.acl.canned" in answer.json()["message"]
    (local.pinpipe.folder / "pinpipe.toml").write_text(
        '[connector.properties]\n"s3.acl.canned" = "private"\n'
    )
    assert "s3.acl.canned" in local.pinpipe.run("connector", "create", code=2).stderr


def test_invalid_json_fails_the_task_with_its_offset(provisioned):
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": provisioned.kafka})
    producer.produce("local.pin", b"not json", partition=1)
    producer.flush(10)

    def failed():
        return requests.get(
            f"http://{provisioned.control}/connectors/local-connector/status", timeout=10
        ).json()["tasks"][0]

    wait_until(lambda: failed()["state"] == "FAILED", "the task to fail")
    assert "`local.pin`, partition 1, offset 0 is not JSON" in failed()["trace"]
    assert "not JSON" in provisioned.pinpipe.run("connector", "status", code=1).stdout
    assert "✖ control" in provisioned.pinpipe.run("doctor", code=1).stdout


def test_broken_object_is_reported_and_the_rest_processed(provisioned):
    pinpipe = provisioned.pinpipe
    pinpipe.run("seed", "--posts", 50)
    pinpipe.run("emulate", "--to", "kafka", "--rows", "0-49")
    wait_for_lake(pinpipe, 150)
    folder = pinpipe.data / "lake/user-local-bucket/topics/local.pin/partition=0"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "local.pin+0+0000099999.json").write_text(
        '{"index": 77, "follower_count": "5k"}\n{"index": 7, "titl\n[1]\n{"title": "no number"}\n'
    )
    done = pinpipe.run("batch", "--output", "json")
    report = json.loads(done.stdout)
    assert [i["rejects"] for i in report["inputs"]] == [3, 0, 0]
    assert [i["rows"] for i in report["inputs"]] == [51, 50, 50]
    assert "local.pin+0+0000099999.json`, line 2: broken JSON" in done.stderr
    assert [r["line"] for r in report["rejects"]] == [2, 3, 4]


@pytest.mark.parametrize("source", ["kinesis", "kafka"])
def test_stream_resumes_after_kills(provisioned, source):
    pinpipe = provisioned.pinpipe
    pinpipe.run("seed", "--posts", 3000)
    total = 0
    for i in range(6):
        pinpipe.run(
            "emulate", "--to", source, "--batch", 100, "--rows", f"{i * 500}-{i * 500 + 499}"
        )
        total += 500
        running = pinpipe.start("stream", "--source", source, "--interval", "50")
        time.sleep(0.15 + 0.12 * i)
        running.send_signal(signal.SIGKILL)
        running.wait()
    done = pinpipe.json("stream", "--source", source, "--available-now")
    assert all(t["rejects"] == 0 for t in done["tables"])
    for kind in ("pin", "geo", "user"):
        rows = delta_rows(pinpipe, "stream", f"local_{kind}_table")
        assert sorted(r["ind"] for r in rows) == list(range(total)), f"{kind}: lost or duplicated"
    again = pinpipe.json("stream", "--source", source, "--available-now")
    assert all(t["records"] == 0 for t in again["tables"])
    # A post that is sent again is read and counted as a duplicate.
    pinpipe.run("emulate", "--to", source, "--rows", "0-99")
    repeated = pinpipe.json("stream", "--source", source, "--available-now")
    assert [(t["records"], t["duplicates"], t["rows"]) for t in repeated["tables"]] == [
        (100, 100, 0)
    ] * 3


def test_stream_follows_until_ctrl_c(provisioned):
    pinpipe = provisioned.pinpipe
    pinpipe.run("seed", "--posts", 100)
    running = pinpipe.start("stream", "--interval", "50", "--output", "json")
    pinpipe.run("emulate", "--to", "kinesis", "--rows", "0-99")

    def rows():
        try:
            return len(delta_rows(pinpipe, "stream", "local_user_table"))
        except Exception:
            return 0

    wait_until(lambda: rows() == 100, "100 rows")
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=20)
    assert running.returncode == 0, err
    assert [t["rows"] for t in json.loads(out)["tables"]] == [100] * 3


def test_emulate_writes_undelivered_records_to_dead_letters(provisioned):
    pinpipe = provisioned.pinpipe
    pinpipe.run("seed", "--posts", 100)
    (pinpipe.folder / "pinpipe.toml").write_text("[emulate]\nretries = 1\ntimeout_ms = 2000\n")
    running = pinpipe.start(
        "emulate", "--to", "kafka", "--rate", "100", "--posts", "3000", "--output", "json"
    )
    wait_until(lambda: end_offsets(pinpipe) > 0, "records to be delivered")
    provisioned.kill()
    out, err = running.communicate(timeout=60)
    assert running.returncode == 1, err
    summary = json.loads(out)
    assert summary["errors"] > 0 and summary["delivered"] > 0
    letters = [
        json.loads(line)
        for line in (pinpipe.folder / summary["dead_letters"]).read_text().splitlines()
    ]
    assert len(letters) == summary["errors"] and all(
        letter["reason"] and letter["record"] for letter in letters
    )
    assert (
        summary["first_reason"] == letters[0]["reason"]
        and f"were not delivered: the first: {letters[0]['reason']}" in err
    ), err
    assert summary["delivered"] + summary["errors"] == summary["posts"] * 3


def test_interrupted_demo_stops_without_errors_of_its_sink(pinpipe):
    running = pinpipe.start("demo", "--posts", 100_000)
    wait_until(lambda: lake_objects(pinpipe), "the sink to write")
    running.send_signal(signal.SIGINT)
    err = running.communicate(timeout=60)[1]
    assert running.returncode == 1, err
    assert "error: interrupted before the last stage\nhint: " in err and "ERROR" not in err, err
    assert not (pinpipe.data / "local.json").exists()


def test_emulate_reports_retries(provisioned):
    pinpipe = provisioned.pinpipe
    pinpipe.run("seed", "--posts", 100)
    # The pauses before six retries add up to more than six seconds.
    (pinpipe.folder / "pinpipe.toml").write_text("[emulate]\nretries = 6\ntimeout_ms = 2000\n")
    running = pinpipe.start("emulate", "--to", "kafka", "--rate", "100", "--posts", "3000")
    wait_until(lambda: end_offsets(pinpipe) > 0, "records to be delivered")
    provisioned.kill()
    err = running.communicate(timeout=120)[1]
    assert running.returncode == 1, err
    reports = re.findall(
        r"^warning: cannot reach the gateway at http://\S+: "
        r"Connection refused \(os error 111\); retrying \(\d of 6\)$",
        err,
        re.MULTILINE,
    )
    assert reports, err


def test_emulate_respects_rate_order_and_stop(provisioned):
    pinpipe = provisioned.pinpipe
    pinpipe.run("seed", "--posts", 50)
    summary = pinpipe.json("emulate", "--to", "kafka", "--posts", 20, "--rate", 20)
    assert 0.8 < summary["seconds"] < 10
    assert summary["latency_p50_ms"] <= summary["latency_p95_ms"] <= summary["latency_p99_ms"]
    assert (
        pinpipe.json("emulate", "--to", "kafka", "--rate", 2, "--duration", "2500ms")["posts"] == 5
    )
    running = pinpipe.start("emulate", "--to", "kinesis", "--output", "json", "--concurrency", "2")
    wait_until(
        lambda: kinesis_records(provisioned, "streaming-local-pin") > 60,
        "more posts than there are rows",
    )
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=20)
    assert running.returncode == 0, err
    assert json.loads(out)["posts"] > 50, "rows are repeated after all rows have been posted"
    missing = pinpipe.run("emulate", "--rows", "7,5000", code=1)
    assert "row number 5000" in missing.stderr
