"""kill -9 under load: every acknowledged record is kept."""

import json
import threading
import time

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from support.lakes import lake_lines, wait_for_lake
from support.ports import free_port
from support.wait import wait_until

pytestmark = pytest.mark.slow

# Number of records that must be acknowledged in each round before the kill.
ENOUGH = {"kafka": 400, "kinesis": 200}


def test_no_acknowledged_record_is_lost(provisioned):
    local = provisioned
    acknowledged = {"kafka": set(), "kinesis": set()}
    for round_number in range(3):
        stop = threading.Event()

        def to_kafka():
            def delivered(error, message):
                if error is None:
                    acknowledged["kafka"].add(message.value())

            producer = Producer(
                {"bootstrap.servers": local.kafka, "message.timeout.ms": 3000, "linger.ms": 1}
            )
            i = 0
            while not stop.is_set():
                try:
                    producer.produce(
                        "local.pin",
                        b'{"index":%d}' % (round_number * 10_000_000 + i),
                        on_delivery=delivered,
                    )
                    i += 1
                except BufferError:
                    pass
                producer.poll(0)
            producer.purge()
            producer.flush(5)

        def to_kinesis():
            client = local.boto()
            i = 0
            while not stop.is_set():
                values = [b'{"index":%d}' % (round_number * 10_000_000 + i + k) for k in range(50)]
                i += 50
                try:
                    answer = client.put_records(
                        StreamName="streaming-local-pin",
                        Records=[{"Data": v, "PartitionKey": str(k)} for k, v in enumerate(values)],
                    )
                except Exception:
                    return
                acknowledged["kinesis"].update(
                    v for v, r in zip(values, answer["Records"]) if "SequenceNumber" in r
                )

        threads = [threading.Thread(target=to_kafka), threading.Thread(target=to_kinesis)]
        for thread in threads:
            thread.start()
        # Each round is killed at another time, with requests in flight.
        wait_until(
            lambda: all(
                len(acknowledged[name]) > count * (round_number + 1)
                for name, count in ENOUGH.items()
            ),
            "records to be acknowledged",
            120,
        )
        time.sleep(0.5 + 0.3 * round_number)
        local.kill()
        stop.set()
        for thread in threads:
            thread.join(60)
        local.start()

    assert all(len(acknowledged[name]) > 3 * count for name, count in ENOUGH.items()), {
        k: len(v) for k, v in acknowledged.items()
    }

    consumer = Consumer({"bootstrap.servers": local.kafka, "group.id": "after"})
    found = []
    for partition in range(3):
        low, high = consumer.get_watermark_offsets(TopicPartition("local.pin", partition), 10)
        consumer.assign([TopicPartition("local.pin", partition, low)])
        position = low
        while position < high:
            message = consumer.poll(5)
            assert message is not None, (
                f"partition {partition} returns no record at {position} of {high}"
            )
            assert message.offset() == position
            position += 1
            found.append(message.value())
    consumer.close()
    assert acknowledged["kafka"] <= set(found), "Kafka lost acknowledged records"

    client = local.boto()
    found = []
    for shard in client.list_shards(StreamName="streaming-local-pin")["Shards"]:
        iterator = client.get_shard_iterator(
            StreamName="streaming-local-pin",
            ShardId=shard["ShardId"],
            ShardIteratorType="TRIM_HORIZON",
        )["ShardIterator"]
        behind = 1
        while behind:
            page = client.get_records(ShardIterator=iterator)
            found += [r["Data"] for r in page["Records"]]
            iterator, behind = page["NextShardIterator"], page["MillisBehindLatest"]
    assert acknowledged["kinesis"] <= set(found), "Kinesis lost acknowledged records"


def test_sink_delivers_everything_across_kills(provisioned):
    local, pinpipe = provisioned, provisioned.pinpipe
    pinpipe.run("seed", "--posts", 2000)
    for i in range(4):
        # Each kill interrupts the sink at another time.
        pinpipe.run(
            "emulate", "--to", "kafka", "--batch", 50, "--rows", f"{i * 500}-{i * 500 + 499}"
        )
        time.sleep(0.2 * i)
        local.kill()
        local.start()
    wait_for_lake(pinpipe, 6000)
    assert sorted(r["index"] for r in lake_lines(pinpipe) if "index" in r) == list(range(2000)), (
        "lost or duplicated"
    )


@pytest.mark.parametrize("source", ["kinesis", "kafka"])
def test_stream_and_emulate_survive_a_restart_of_the_stack(pinpipe, source):
    ports = {
        f"PINPIPE__LOCAL__{name}_PORT": free_port()
        for name in ("KAFKA", "GATEWAY", "KINESIS", "CONTROL")
    }

    def start():
        process = pinpipe.start("local", env=ports)
        wait_until(lambda: pinpipe.start("status").wait() == 0, "the stack answers")
        return process

    pinpipe.run("seed", "--posts", 3000)
    stack = start()
    pinpipe.run("provision")
    follower = pinpipe.start("stream", "--interval", "100", "--source", source, "--output", "json")
    posting = pinpipe.start("emulate", "--rows", "0-1499", "--rate", "300", "--output", "json")
    time.sleep(2)
    stack.kill()
    stack.wait()
    time.sleep(5)  # longer than the SDK retries
    stack = start()
    try:
        stdout, stderr = posting.communicate(timeout=60)
        summary = json.loads(stdout)
        assert (summary["posts"], summary["errors"]) == (1500, 0), stderr
        time.sleep(4)
        assert follower.poll() is None, follower.stderr.read()
        follower.terminate()
        stdout, stderr = follower.communicate(timeout=30)
        assert follower.returncode == 0, stderr
        # With Kafka, librdkafka retries long enough itself.
        assert source == "kafka" or "; retrying" in stderr, stderr
        # Each record exactly once, although deliveries were retried and sources were unavailable.
        drained = pinpipe.json("stream", "--available-now", "--source", source)["tables"]
        assert all(table["rejects"] == 0 for table in drained)
        import deltalake

        for kind in ("pin", "geo", "user"):
            rows = (
                deltalake.DeltaTable(pinpipe.data / f"tables/stream/local_{kind}_table")
                .to_pyarrow_table()
                .column("ind")
                .to_pylist()
            )
            assert sorted(rows) == list(range(1500)), f"{kind}: lost or duplicated"
    finally:
        stack.kill()
        stack.wait()


def test_duration_limits_emulate_if_nothing_is_delivered(provisioned):
    pinpipe = provisioned.pinpipe
    pinpipe.run("seed", "--posts", 500)
    posting = pinpipe.start("emulate", "--duration", "4s", "--rate", "50", "--output", "json")
    time.sleep(2)
    started = time.monotonic()
    provisioned.kill()
    stdout, stderr = posting.communicate(timeout=30)
    assert time.monotonic() - started < 15, "emulate ran far longer than its duration"
    summary = json.loads(stdout)
    assert posting.returncode == 1 and summary["errors"] > 0, stderr
    assert summary["delivered"] + summary["errors"] == summary["posts"] * 6
