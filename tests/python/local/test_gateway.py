"""The gateway, request by request."""

import base64
import gzip
import socket
import threading
import time
import zlib

import pytest
import requests

JSON = "application/vnd.kafka.json.v2+json"
BINARY = "application/vnd.kafka.binary.v2+json"


@pytest.fixture
def call(provisioned):
    def send(method, path, body=None, content_type=JSON):
        return requests.request(
            method,
            f"http://{provisioned.gateway}{path}",
            json=body,
            headers={"content-type": content_type},
            timeout=20,
        )

    return send


def test_records_are_acknowledged_with_their_offsets(call):
    answer = call(
        "POST",
        "/topics/local.pin",
        {
            "records": [
                {"value": {"index": 1}},
                {"key": "k", "value": [1, "é"]},
                {"value": "text", "partition": 2},
            ]
        },
    )
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/vnd.kafka.v2+json"
    body = answer.json()
    assert body["key_schema_id"] is None and body["value_schema_id"] is None
    assert [o["error_code"] for o in body["offsets"]] == [None] * 3
    assert body["offsets"][2]["partition"] == 2
    first = call(
        "POST",
        "/topics/local.geo/partitions/1",
        {"records": [{"value": {"ind": i}} for i in range(5)]},
    ).json()["offsets"]
    assert [(o["partition"], o["offset"]) for o in first] == [(1, i) for i in range(5)]


def test_binary_records_are_unchanged(call, provisioned):
    from confluent_kafka import Consumer, TopicPartition

    raw = bytes(range(256))
    assert (
        call(
            "POST",
            "/topics/local.pin/partitions/0",
            {
                "records": [
                    {
                        "key": base64.b64encode(b"k").decode(),
                        "value": base64.b64encode(raw).decode(),
                    }
                ]
            },
            BINARY,
        ).status_code
        == 200
    )
    consumer = Consumer({"bootstrap.servers": provisioned.kafka, "group.id": "g"})
    consumer.assign([TopicPartition("local.pin", 0, 0)])
    message = consumer.poll(10)
    consumer.close()
    assert (message.key(), message.value()) == (b"k", raw)


@pytest.mark.parametrize(
    ("path", "body", "content_type", "status", "code"),
    [
        ("/topics/nope", {"records": [{"value": 1}]}, JSON, 404, 40401),
        ("/topics/local.pin/partitions/9", {"records": [{"value": 1}]}, JSON, 404, 40402),
        ("/topics/local.pin", {"records": [{"value": 1, "partition": 9}]}, JSON, 404, 40402),
        ("/topics/local.pin", {"records": [{"value": 1}]}, "text/plain", 415, 415),
        ("/topics/local.pin", {"records": [{"value": 1}]}, "application/json", 415, 415),
        ("/topics/local.pin", {"records": []}, JSON, 422, 422),
        ("/topics/local.pin", {"record": [{"value": 1}]}, JSON, 422, 422),
        ("/topics/local.pin", {"records": [{"valeu": 1}]}, JSON, 422, 422),
        ("/topics/local.pin", {"records": [{"value": "not base64!"}]}, BINARY, 422, 42203),
    ],
)
def test_invalid_requests_get_the_errors_of_the_rest_proxy(
    call, path, body, content_type, status, code
):
    answer = call("POST", path, body, content_type)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code), answer.text
    assert answer.json()["message"]


VALUES = [
    '{"a":18446744073709551615,"b":18446744073709551616}',
    '{"c":123456789012345678901234567890,"g":0.1234567890123456789,"f":1.10}',
    '{"n":1e400}',
    '{"b":1,"a":2}',
]


def test_values_and_keys_are_unchanged(provisioned):
    from confluent_kafka import Consumer, TopicPartition

    body = ",".join(f'{{"key":{value},"value":{value},"partition":0}}' for value in VALUES)
    answer = requests.post(
        f"http://{provisioned.gateway}/topics/local.pin",
        data=f'{{"records":[{body}]}}',
        headers={"content-type": JSON},
        timeout=20,
    )
    assert answer.status_code == 200, answer.text
    consumer = Consumer({"bootstrap.servers": provisioned.kafka, "group.id": "g"})
    consumer.assign([TopicPartition("local.pin", 0, 0)])
    for value in VALUES:
        message = consumer.poll(10)
        assert (message.key(), message.value()) == (value.encode(), value.encode())
    consumer.close()


def test_data_of_streams_is_unchanged(provisioned):
    for value in VALUES:
        answer = requests.put(
            f"http://{provisioned.gateway}/streams/streaming-local-pin/record",
            data=f'{{"Data": {value}, "PartitionKey": "k"}}',
            timeout=20,
        )
        assert answer.status_code == 200, answer.text
    client = provisioned.boto()
    iterator = client.get_shard_iterator(
        StreamName="streaming-local-pin",
        ShardId=answer.json()["ShardId"],
        ShardIteratorType="TRIM_HORIZON",
    )["ShardIterator"]
    records = client.get_records(ShardIterator=iterator)["Records"]
    assert [r["Data"].decode() for r in records] == VALUES


def test_keys_go_to_the_partitions_of_java_clients(call):
    keys = ["alice", "bob", "carol", "dave", "frank"]
    records = [{"key": key, "value": 1} for key in keys]
    answer = call("POST", "/topics/local.pin", {"records": records}).json()
    assert [o["partition"] for o in answer["offsets"]] == [0, 2, 1, 0, 0]


def test_records_of_large_requests_stay_in_order(provisioned):
    from confluent_kafka import Consumer, TopicPartition

    from support.kafka import make_topic

    count, topics = 100_000, [f"ordered-{i}" for i in range(8)]
    body = '{"records":[' + ",".join(f'{{"value":{i}}}' for i in range(count)) + "]}"
    statuses = []

    def post(topic):
        answer = requests.post(
            f"http://{provisioned.gateway}/topics/{topic}",
            data=body,
            headers={"content-type": JSON},
            timeout=300,
        )
        failed = [o for o in answer.json()["offsets"] if o["error_code"] is not None]
        statuses.append((answer.status_code, failed[:1]))

    for topic in topics:
        make_topic(provisioned.kafka, topic, 1)
    threads = [threading.Thread(target=post, args=(topic,)) for topic in topics]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert statuses == [(200, [])] * len(topics)
    for topic in topics:
        consumer = Consumer({"bootstrap.servers": provisioned.kafka, "group.id": "g"})
        consumer.assign([TopicPartition(topic, 0, 0)])
        values = []
        while len(values) < count:
            messages = consumer.consume(10_000, 30)
            assert messages, f"{len(values)} records of {topic}"
            values += [int(m.value()) for m in messages]
        consumer.close()
        assert values == list(range(count)), topic


@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 1)])
def test_partitions_of_a_recreated_topic_are_detected(call, provisioned, before, after):
    from support.kafka import make_topic
    from support.wait import wait_until

    admin = make_topic(provisioned.kafka, "again", before)
    one = {"records": [{"value": 1, "partition": before - 1}]}
    assert call("POST", "/topics/again", one).json()["offsets"][0]["error_code"] is None
    list(admin.delete_topics(["again"]).values())[0].result(10)
    make_topic(provisioned.kafka, "again", after)

    def outcome(partition):
        answer = call("POST", "/topics/again", {"records": [{"value": 1, "partition": partition}]})
        body = answer.json()
        return body["error_code"] if "error_code" in body else body["offsets"][0]["error_code"]

    # Only requests that post records, because other requests read the metadata. librdkafka itself
    # reads it every 10 s.
    wait_until(lambda: outcome(after - 1) is None, "the last partition of the new topic")
    wait_until(lambda: outcome(4) == 40402, "a refusal of a partition of neither topic")
    if after < before:
        wait_until(lambda: outcome(before - 1) == 40402, "the old partitions to disappear")


def test_oversized_or_broken_body_is_rejected(call, provisioned):
    url = f"http://{provisioned.gateway}/topics/local.pin"
    assert (
        requests.post(url, data="{", headers={"content-type": JSON}, timeout=20).status_code == 400
    )
    answer = requests.post(
        url, data=b" " * (11 * 1024 * 1024), headers={"content-type": JSON}, timeout=20
    )
    assert (answer.status_code, answer.json()["error_code"]) == (413, 413)
    answer = requests.get(f"http://{provisioned.gateway}/topics/%FF", timeout=20)
    assert (answer.status_code, answer.json()["error_code"]) == (400, 400)


def test_compressed_bodies_are_supported_and_unknown_encodings_rejected(provisioned):
    body = b'{"records":[{"value":1}]}'
    url = f"http://{provisioned.gateway}/topics/local.pin"
    for encoding, data, status in [
        ("gzip", gzip.compress(body), 200),
        ("deflate", zlib.compress(body), 200),
        ("identity", body, 200),
        ("gzip", body, 400),
        ("br", body, 415),
    ]:
        headers = {"content-type": JSON, "content-encoding": encoding}
        answer = requests.post(url, data=data, headers=headers, timeout=20)
        assert answer.status_code == status, (encoding, answer.text)


def test_stalled_clients_do_not_affect_others(call, provisioned):
    host, port = provisioned.gateway.split(":")
    stalled = []
    # Many requests with a small body, and enough with a large body to exhaust the memory for these.
    for size in [100] * 60 + [9_000_000] * 8:
        connection = socket.create_connection((host, int(port)), 10)
        head = f"POST /topics/local.pin HTTP/1.1\r\nhost: localhost\r\ncontent-type: {JSON}\r\n"
        connection.sendall(f"{head}content-length: {size}\r\n\r\n{{".encode())
        stalled.append(connection)
    begin = time.monotonic()
    assert call("GET", "/topics").status_code == 200
    assert call("POST", "/topics/local.pin", {"records": [{"value": 1}]}).status_code == 200
    assert time.monotonic() - begin < 8, "faster than the timeout of a stalled client"
    for connection in stalled:
        connection.settimeout(120)
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
        connection.close()


def test_metadata_is_returned(call):
    assert call("GET", "/topics").json() == ["local.geo", "local.pin", "local.user"]
    topic = call("GET", "/topics/local.pin").json()
    assert topic["name"] == "local.pin" and len(topic["partitions"]) == 3
    assert call("GET", "/topics/local.pin/partitions/1").json() == topic["partitions"][1]
    call("POST", "/topics/local.pin/partitions/1", {"records": [{"value": 1}]})
    assert call("GET", "/topics/local.pin/partitions/1/offsets").json() == {
        "beginning_offset": 0,
        "end_offset": 1,
    }
    assert call("GET", "/brokers").json() == {"brokers": [1]}
    assert call("GET", "/topics/nope").json()["error_code"] == 40401
    assert call("GET", "/topics/local.pin/partitions/7").json()["error_code"] == 40402
    for path in ("/topics", "/topics/local.pin", "/topics/local.pin/partitions/1", "/brokers"):
        assert call("GET", f"{path}/").json() == call("GET", path).json()
    assert call("GET", "/nothing/here").status_code == 404
    assert call("PATCH", "/topics").status_code == 405


def test_five_routes_reach_the_streams(call, provisioned):
    assert "streaming-local-pin" in call("GET", "/streams").json()["StreamNames"]
    assert call("POST", "/streams/mine", {"ShardCount": 2}).status_code == 200
    assert len(call("GET", "/streams/mine").json()["StreamDescription"]["Shards"]) == 2
    one = call(
        "PUT",
        "/streams/mine/record",
        {"StreamName": "mine", "Data": {"ind": 1, "name": "é"}, "PartitionKey": "k"},
    ).json()
    assert one["SequenceNumber"] and one["ShardId"].startswith("shardId-")
    many = call(
        "PUT",
        "/streams/mine/records",
        {
            "records": [
                {"data": '{"ind": 2}', "partition-key": "k"},
                {"data": {"ind": 3}, "partition-key": "k"},
            ]
        },
    ).json()
    assert many["FailedRecordCount"] == 0 and len(many["Records"]) == 2
    client = provisioned.boto()
    iterator = client.get_shard_iterator(
        StreamName="mine", ShardId=one["ShardId"], ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    data = [r["Data"].decode() for r in client.get_records(ShardIterator=iterator)["Records"]]
    assert data == ['{"ind":1,"name":"é"}', '{"ind": 2}', '{"ind":3}'], (
        "JSON text, encoded exactly once"
    )
    assert call("DELETE", "/streams/mine").status_code == 200
    gone = call("PUT", "/streams/mine/record", {"Data": {}, "PartitionKey": "k"})
    assert (gone.status_code, gone.json()["__type"]) == (400, "ResourceNotFoundException")
    assert (
        call("PUT", "/streams/streaming-local-pin/record", {"PartitionKey": "k"}).status_code == 400
    )


def test_routes_are_served_only_while_deployed(local):
    url = f"http://{local.gateway}/topics"
    refused = requests.get(url, timeout=10)
    assert refused.status_code == 403 and "pinpipe api deploy" in refused.json()["message"]
    local.pinpipe.run("api", "status", code=1)
    assert len(local.pinpipe.json("api", "deploy")["routes"]) == 7
    assert local.pinpipe.json("api", "url")["url"] == f"http://{local.gateway}"
    assert requests.get(url, timeout=10).status_code == 200
    assert local.pinpipe.json("api", "delete")["deleted"]
    assert requests.get(url, timeout=10).status_code == 403
