"""Third-party Kafka clients against the local broker."""

import contextlib
import pathlib
import threading

import pytest
import requests
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from support.kafka import consume, make_topic
from support.wait import wait_until


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_confluent_kafka_round_trip(local, codec):
    make_topic(local.kafka, "t")
    producer = Producer(
        {"bootstrap.servers": local.kafka, "compression.type": codec, "enable.idempotence": True}
    )
    sent = {f"value {i}".encode() * 5 for i in range(2000)}
    for value in sent:
        producer.produce("t", value, key=value[:8], headers={"h": b"1"})
    assert producer.flush(20) == 0
    got = consume(local.kafka, "t", len(sent))
    assert {m.value() for m in got} == sent
    assert len(got) == len(sent)
    assert got[0].headers() == [("h", b"1")]


def test_kafka_python_round_trip(local):
    from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
    from kafka.admin import NewTopic as New

    admin = KafkaAdminClient(bootstrap_servers=local.kafka)
    admin.create_topics([New("t", 2, 1)])
    assert "t" in admin.list_topics()
    producer = KafkaProducer(bootstrap_servers=local.kafka, acks="all")
    for i in range(500):
        producer.send("t", b"%d" % i)
    producer.flush(20)
    consumer = KafkaConsumer(
        "t",
        bootstrap_servers=local.kafka,
        group_id="g",
        auto_offset_reset="earliest",
        consumer_timeout_ms=5000,
    )
    got = []
    for message in consumer:
        got.append(int(message.value))
        if len(got) == 500:
            break
    consumer.commit()
    consumer.close()
    assert sorted(got) == list(range(500))
    listed = (
        admin.list_consumer_groups()
        if hasattr(admin, "list_consumer_groups")
        else admin.list_groups()
    )
    assert "g" in str(listed)


def test_kafka_python_works_with_the_versions_of_kafka_3_0(local):
    from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
    from kafka.admin import NewTopic as New

    pinned = {"bootstrap_servers": local.kafka, "api_version": (3, 0)}
    admin = KafkaAdminClient(**pinned)
    admin.create_topics([New("t", 1, 1)])
    producer = KafkaProducer(**pinned, acks="all")
    producer.send("t", b"x").get(20)
    producer.close()
    consumer = KafkaConsumer(
        "t", **pinned, group_id="g", auto_offset_reset="earliest", consumer_timeout_ms=20_000
    )
    assert next(consumer).value == b"x"
    consumer.close()
    admin.delete_topics(["t"])
    assert "t" not in admin.list_topics()
    admin.close()


def test_consumer_resumes_inside_a_batch(local):
    make_topic(local.kafka, "t", 1)
    producer = Producer({"bootstrap.servers": local.kafka, "linger.ms": 500})
    for i in range(100):
        producer.produce("t", b"%d" % i, partition=0)
    producer.flush(20)
    consumer = Consumer(
        {"bootstrap.servers": local.kafka, "group.id": "g", "enable.auto.commit": False}
    )
    consumer.commit(offsets=[TopicPartition("t", 0, 37)], asynchronous=False)
    consumer.close()
    got = consume(local.kafka, "t", 63)
    assert [int(m.value()) for m in got] == list(range(37, 100))


def test_offset_past_the_end_is_reset(local):
    make_topic(local.kafka, "t", 1)
    producer = Producer({"bootstrap.servers": local.kafka})
    producer.produce("t", b"only", partition=0)
    producer.flush(10)
    consumer = Consumer(
        {"bootstrap.servers": local.kafka, "group.id": "g", "auto.offset.reset": "earliest"}
    )
    consumer.assign([TopicPartition("t", 0, 999)])
    message = wait_until(lambda: consumer.poll(0.5), "the reset")
    consumer.close()
    assert message.value() == b"only"


def test_consumers_share_a_topic_and_rebalance(local):
    make_topic(local.kafka, "t", 4)
    producer = Producer({"bootstrap.servers": local.kafka})
    config = {
        "bootstrap.servers": local.kafka,
        "group.id": "g",
        "auto.offset.reset": "earliest",
        "session.timeout.ms": 6000,
    }
    owned = {"a": set(), "b": set()}
    seen, stop = [], {"a": False, "b": False}

    def run(name):
        consumer = Consumer(config)
        consumer.subscribe(["t"])
        while not stop[name]:
            message = consumer.poll(0.2)
            owned[name] = {p.partition for p in consumer.assignment()}
            if message is not None and message.error() is None:
                seen.append(message.value())
        consumer.close()
        owned[name] = set()

    threads = {name: threading.Thread(target=run, args=(name,)) for name in owned}
    for thread in threads.values():
        thread.start()
    try:
        wait_until(
            lambda: (
                len(owned["a"]) == 2
                and len(owned["b"]) == 2
                and owned["a"] | owned["b"] == {0, 1, 2, 3}
            ),
            "an even share",
            60,
        )
        stop["a"] = True
        threads["a"].join(20)
        wait_until(lambda: owned["b"] == {0, 1, 2, 3}, "b to take over", 60)
        for i in range(40):
            producer.produce("t", b"%d" % i, partition=i % 4)
        producer.flush(10)
        wait_until(lambda: len(set(seen)) == 40, "all 40 records")
    finally:
        stop.update(a=True, b=True)
        for thread in threads.values():
            thread.join(20)
    assert len(seen) == 40


def test_offsets_are_found_by_timestamp(local):
    make_topic(local.kafka, "t", 1)
    producer = Producer({"bootstrap.servers": local.kafka})
    for i, timestamp in enumerate([1_000_000, 2_000_000, 3_000_000]):
        producer.produce("t", b"%d" % i, partition=0, timestamp=timestamp)
        producer.flush(10)
    consumer = Consumer({"bootstrap.servers": local.kafka, "group.id": "g"})
    for timestamp, offset in [(1, 0), (1_500_000, 1), (3_000_000, 2)]:
        assert (
            consumer.offsets_for_times([TopicPartition("t", 0, timestamp)], 10)[0].offset == offset
        )
    assert consumer.get_watermark_offsets(TopicPartition("t", 0), 10) == (0, 3)
    consumer.close()


def test_records_within_a_batch_are_found_by_timestamp(local):
    make_topic(local.kafka, "t", 1)
    producer = Producer({"bootstrap.servers": local.kafka, "linger.ms": 1000})
    for i, timestamp in enumerate([1_000_000, 2_000_000, 3_000_000, 4_000_000]):
        producer.produce("t", b"%d" % i, partition=0, timestamp=timestamp)
    producer.flush(10)
    consumer = Consumer({"bootstrap.servers": local.kafka, "group.id": "g"})
    expected = {1: 0, 1_500_000: 1, 2_000_000: 1, 2_500_000: 2, 4_000_000: 3}
    for timestamp, offset in expected.items():
        found = consumer.offsets_for_times([TopicPartition("t", 0, timestamp)], 10)
        assert found[0].offset == offset, timestamp
    consumer.close()


def test_topics_and_groups_are_administered(local):
    admin = make_topic(local.kafka, "t", 5)
    assert len(admin.list_topics(timeout=10).topics["t"].partitions) == 5
    with pytest.raises(KafkaException, match="TOPIC_ALREADY_EXISTS"):
        list(admin.create_topics([NewTopic("t", 1, 1)]).values())[0].result(10)
    for wrong, error in [
        (NewTopic("no spaces allowed", 1, 1), "TOPIC_EXCEPTION"),
        (NewTopic("x", 0, 1), "INVALID_PARTITIONS"),
        (NewTopic("y", 1, 3), "INVALID_REPLICATION_FACTOR"),
    ]:
        with pytest.raises((KafkaException, ValueError), match=error):
            list(admin.create_topics([wrong]).values())[0].result(10)
    producer = Producer({"bootstrap.servers": local.kafka})
    producer.produce("t", b"x", partition=0)
    producer.flush(10)
    consume(local.kafka, "t", 1, group="readers")
    groups = admin.list_consumer_groups().result(10).valid
    assert "readers" in [g.group_id for g in groups]
    list(admin.delete_topics(["t"]).values())[0].result(10)
    wait_until(lambda: "t" not in admin.list_topics(timeout=10).topics, "the topic to be gone")
    make_topic(local.kafka, "t", 1)
    consumer = Consumer({"bootstrap.servers": local.kafka, "group.id": "readers"})
    assert consumer.committed([TopicPartition("t", 0)], 10)[0].offset < 0, (
        "a new topic must not inherit old commits"
    )
    consumer.close()


@pytest.mark.parametrize("name", ["{}", "t{}", "a-topic-with-a-name-of-usual-length-{}"])
def test_clients_read_the_metadata_of_any_number_of_topics(provisioned, name):
    from kafka import KafkaAdminClient

    admin = AdminClient({"bootstrap.servers": provisioned.kafka})
    made = 0
    for count in (1, 5, 11, 100, 1000, 5000):
        new = [NewTopic(name.format(i), 1, 1) for i in range(made, count)]
        for future in admin.create_topics(new, request_timeout=60).values():
            future.result(60)
        made = count
        # New clients each time, because a client caches metadata.
        fresh = AdminClient({"bootstrap.servers": provisioned.kafka})
        assert len(fresh.list_topics(timeout=30).topics) == count + 3
        other = KafkaAdminClient(bootstrap_servers=provisioned.kafka)
        assert len(other.list_topics()) == count + 3
        other.close()
        answer = requests.get(f"http://{provisioned.gateway}/topics", timeout=30)
        assert answer.status_code == 200 and len(answer.json()) == count + 3, answer.text
    provisioned.pinpipe.run("topics", "list")


def test_stages_work_with_several_short_topic_names(provisioned):
    pinpipe = provisioned.pinpipe
    for i in range(11):
        make_topic(provisioned.kafka, f"t{i}", 1)
    pinpipe.run("seed", "--posts", 20)
    assert pinpipe.json("emulate", "--to", "kafka", "--posts", 20)["errors"] == 0
    pinpipe.run("provision")
    pinpipe.run("doctor")
    wait_until(lambda: pinpipe.json("connector", "status")["lag"] == 0, "the sink")
    assert [i["rows"] for i in pinpipe.json("batch")["inputs"]] == [20] * 3
    rows = pinpipe.json("stream", "--source", "kafka", "--available-now")["tables"]
    assert [t["rows"] for t in rows] == [20] * 3


def test_transactions_are_refused_immediately(local):
    make_topic(local.kafka, "t", 1)
    producer = Producer({"bootstrap.servers": local.kafka, "transactional.id": "x"})
    with pytest.raises(KafkaException, match="TRANSACTIONAL_ID_AUTHORIZATION_FAILED"):
        producer.init_transactions(60)


def test_garbage_requests_do_not_harm_the_broker(local):
    import socket

    host, port = local.kafka.split(":")
    for garbage in [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00\x00\x00\x10" + b"\xff" * 16,
        b"\x7f\xff\xff\xff",
        # Metadata versions 1 and 9 with 2^31 - 1 topics, which exceed the memory of the machine.
        bytes.fromhex("0000000f 0003 0001 00000007 0001 78 7fffffff"),
        bytes.fromhex("00000011 0003 0009 00000007 0001 78 00 ffffffff0f"),
    ]:
        with socket.create_connection((host, int(port)), 5) as connection:
            connection.sendall(garbage)
            connection.settimeout(5)
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(100) == b""
    make_topic(local.kafka, "t", 1)


def test_memory_of_unfinished_requests_is_limited_and_blocks_no_client(local):
    import socket

    def resident_mb():
        status = pathlib.Path(f"/proc/{local.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    before = resident_mb()
    host, port = local.kafka.split(":")
    size, part = 64 * 1024 * 1024, bytes(1024 * 1024)
    connections = []
    for _ in range(12):
        connection = socket.create_connection((host, int(port)), 5)
        connection.settimeout(0.5)
        connection.sendall(size.to_bytes(4, "big"))
        # The broker stops reading requests that exceed its memory limit for requests.
        with contextlib.suppress(TimeoutError):
            for _ in range(63):
                connection.sendall(part)
        connections.append(connection)
    make_topic(local.kafka, "t", 1)
    assert resident_mb() - before < 400, (
        "two requests of 64 MiB, and copies while their buffers grow"
    )
    for connection in connections:
        connection.close()
