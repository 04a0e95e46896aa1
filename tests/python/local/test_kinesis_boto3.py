"""boto3 against the local Kinesis endpoint, and the CBOR protocols of the Java SDK."""

import datetime
import hashlib
import time

import botocore
import cbor2
import pytest
import requests


def read_all(client, stream, shard, **start):
    iterator = client.get_shard_iterator(StreamName=stream, ShardId=shard, **start)["ShardIterator"]
    records = []
    while True:
        page = client.get_records(ShardIterator=iterator)
        records += page["Records"]
        iterator = page["NextShardIterator"]
        if page["MillisBehindLatest"] == 0:
            return records


def error_of(call):
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call()
    return caught.value.response["Error"]["Code"]


@pytest.fixture
def client(local):
    return local.boto()


def test_streams_are_created_described_listed_and_deleted(client):
    client.create_stream(StreamName="a", ShardCount=3)
    client.get_waiter("stream_exists").wait(StreamName="a")
    described = client.describe_stream(StreamName="a")["StreamDescription"]
    assert described["StreamStatus"] == "ACTIVE"
    assert described["RetentionPeriodHours"] == 24
    ranges = [
        (int(s["HashKeyRange"]["StartingHashKey"]), int(s["HashKeyRange"]["EndingHashKey"]))
        for s in described["Shards"]
    ]
    assert ranges[0][0] == 0 and ranges[-1][1] == 2**128 - 1
    assert all(ranges[i][1] + 1 == ranges[i + 1][0] for i in range(2))
    summary = client.describe_stream_summary(StreamARN=described["StreamARN"])[
        "StreamDescriptionSummary"
    ]
    assert summary["OpenShardCount"] == 3
    assert (
        abs(
            (
                datetime.datetime.now(datetime.UTC) - summary["StreamCreationTimestamp"]
            ).total_seconds()
        )
        < 60
    )
    client.create_stream(StreamName="b", StreamModeDetails={"StreamMode": "ON_DEMAND"})
    assert client.list_streams()["StreamNames"] == ["a", "b"]
    first = client.list_streams(Limit=1)
    assert first["HasMoreStreams"] and client.list_streams(NextToken=first["NextToken"])[
        "StreamNames"
    ] == ["b"]
    shards = client.list_shards(StreamName="b", MaxResults=3)
    assert len(client.list_shards(NextToken=shards["NextToken"])["Shards"]) == 1
    page = client.describe_stream(StreamName="a", Limit=2)["StreamDescription"]
    assert (
        page["HasMoreShards"]
        and len(
            client.describe_stream(
                StreamName="a", ExclusiveStartShardId=page["Shards"][-1]["ShardId"]
            )["StreamDescription"]["Shards"]
        )
        == 1
    )
    client.delete_stream(StreamName="a")
    client.get_waiter("stream_not_exists").wait(StreamName="a")
    assert client.list_streams()["StreamNames"] == ["b"]


def test_errors_match_the_service(client):
    client.create_stream(StreamName="a", ShardCount=1)
    assert (
        error_of(lambda: client.create_stream(StreamName="a", ShardCount=1))
        == "ResourceInUseException"
    )
    assert (
        error_of(lambda: client.create_stream(StreamName="no spaces", ShardCount=1))
        == "ValidationException"
    )
    assert error_of(lambda: client.describe_stream(StreamName="z")) == "ResourceNotFoundException"
    assert error_of(lambda: client.delete_stream(StreamName="z")) == "ResourceNotFoundException"
    assert (
        error_of(
            lambda: client.put_record(
                StreamName="a", Data=b"x" * (1024 * 1024 + 1), PartitionKey="k"
            )
        )
        == "ValidationException"
    )
    assert (
        error_of(
            lambda: client.put_record(
                StreamName="a", Data=b"x", PartitionKey="k", ExplicitHashKey=str(2**128)
            )
        )
        == "InvalidArgumentException"
    )
    assert (
        error_of(
            lambda: client.put_records(
                StreamName="a", Records=[{"Data": b"x", "PartitionKey": "k"}] * 501
            )
        )
        == "ValidationException"
    )
    assert (
        error_of(
            lambda: client.get_shard_iterator(
                StreamName="a", ShardId="shardId-000000000009", ShardIteratorType="LATEST"
            )
        )
        == "ResourceNotFoundException"
    )
    assert (
        error_of(
            lambda: client.get_shard_iterator(
                StreamName="a",
                ShardId="shardId-000000000000",
                ShardIteratorType="AFTER_SEQUENCE_NUMBER",
                StartingSequenceNumber="5",
            )
        )
        == "InvalidArgumentException"
    )
    assert (
        error_of(lambda: client.get_records(ShardIterator="nonsense")) == "InvalidArgumentException"
    )
    assert (
        error_of(
            lambda: client.merge_shards(StreamName="a", ShardToMerge="x", AdjacentShardToMerge="y")
        )
        == "UnknownOperationException"
    )


def test_shards_are_listed_by_filter(client):
    before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    client.create_stream(StreamName="a", ShardCount=3)
    ids = [f"shardId-{i:012}" for i in range(3)]
    after = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=1)

    def listed(**more):
        return [s["ShardId"] for s in client.list_shards(StreamName="a", **more)["Shards"]]

    for kind in ("AT_TRIM_HORIZON", "FROM_TRIM_HORIZON", "AT_LATEST"):
        assert listed(ShardFilter={"Type": kind}) == ids
    assert listed(ShardFilter={"Type": "AFTER_SHARD_ID", "ShardId": ids[0]}) == ids[1:]
    assert listed(ShardFilter={"Type": "FROM_TIMESTAMP", "Timestamp": before}) == ids
    assert listed(ShardFilter={"Type": "AT_TIMESTAMP", "Timestamp": after}) == ids
    assert listed(ShardFilter={"Type": "AT_TIMESTAMP", "Timestamp": before}) == []
    for wrong in (
        {"Type": "AFTER_SHARD_ID"},
        {"Type": "AT_TIMESTAMP"},
        {"Type": "FROM_TIMESTAMP"},
        {"Type": "AT_LATEST", "ShardId": ids[0]},
        {"Type": "AT_TIMESTAMP", "ShardId": ids[0], "Timestamp": after},
        {"Type": "AFTER_SHARD_ID", "ShardId": ids[0], "Timestamp": after},
        {"Type": "AT_TRIM_HORIZON", "Timestamp": after},
        {"Type": "AT_NOON"},
    ):
        assert error_of(lambda wrong=wrong: listed(ShardFilter=wrong)) == (
            "InvalidArgumentException"
        ), wrong


def test_parameters_are_checked_as_by_the_service(client):
    for name in ("a", "b"):
        client.create_stream(StreamName=name, ShardCount=3)
    arn = client.describe_stream(StreamName="a")["StreamDescription"]["StreamARN"]
    client.put_record(StreamName="a", StreamARN=arn, Data=b"x", PartitionKey="k")
    contradiction = {"StreamName": "b", "StreamARN": arn}
    assert error_of(lambda: client.list_shards(**contradiction)) == "InvalidArgumentException"
    token = client.list_shards(StreamName="a", MaxResults=1)["NextToken"]
    assert (
        error_of(lambda: client.list_shards(StreamName="a", NextToken=token))
        == "InvalidArgumentException"
    )
    for key in ("+5", "007", "", " 5", "1e3"):
        assert (
            error_of(
                lambda key=key: client.put_record(
                    StreamName="a", Data=b"x", PartitionKey="k", ExplicitHashKey=key
                )
            )
            == "ValidationException"
        ), key
    client.get_shard_iterator(StreamName="a", ShardId="shardId-1", ShardIteratorType="LATEST")


def test_records_go_to_the_shard_of_their_hash_in_order(client):
    client.create_stream(StreamName="a", ShardCount=4)
    sent = {}
    for i in range(200):
        answer = client.put_record(StreamName="a", Data=b"%d" % i, PartitionKey=f"key{i}")
        hash_key = int(hashlib.md5(f"key{i}".encode()).hexdigest(), 16)
        assert answer["ShardId"] == f"shardId-{hash_key * 4 // 2**128:012}"
        sent.setdefault(answer["ShardId"], []).append((b"%d" % i, answer["SequenceNumber"]))
    assert len(sent) == 4
    for shard, records in sent.items():
        got = [
            (r["Data"], r["SequenceNumber"])
            for r in read_all(client, "a", shard, ShardIteratorType="TRIM_HORIZON")
        ]
        assert got == records
        numbers = [int(number) for _, number in got]
        assert numbers == sorted(numbers) and len(set(numbers)) == len(numbers)
    explicit = client.put_record(
        StreamName="a", Data=b"x", PartitionKey="k", ExplicitHashKey=str(2**128 - 1)
    )
    assert explicit["ShardId"] == "shardId-000000000003"


def test_five_iterator_types_start_at_their_position(client):
    client.create_stream(StreamName="a", ShardCount=1)
    shard = "shardId-000000000000"
    numbers = [
        client.put_record(StreamName="a", Data=b"%d" % i, PartitionKey="k")["SequenceNumber"]
        for i in range(3)
    ]
    time.sleep(0.05)
    middle = datetime.datetime.now(datetime.UTC)
    time.sleep(0.05)
    latest = client.get_shard_iterator(StreamName="a", ShardId=shard, ShardIteratorType="LATEST")[
        "ShardIterator"
    ]
    result = client.put_records(
        StreamName="a", Records=[{"Data": b"%d" % i, "PartitionKey": "k"} for i in range(3, 6)]
    )
    assert result["FailedRecordCount"] == 0

    def data(**start):
        return [r["Data"] for r in read_all(client, "a", shard, **start)]

    assert data(ShardIteratorType="TRIM_HORIZON") == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert data(ShardIteratorType="AT_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[1]) == [
        b"1",
        b"2",
        b"3",
        b"4",
        b"5",
    ]
    assert data(ShardIteratorType="AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[1]) == [
        b"2",
        b"3",
        b"4",
        b"5",
    ]
    assert data(ShardIteratorType="AT_TIMESTAMP", Timestamp=middle) == [b"3", b"4", b"5"]
    assert [r["Data"] for r in client.get_records(ShardIterator=latest)["Records"]] == [
        b"3",
        b"4",
        b"5",
    ]
    page = client.get_records(
        ShardIterator=client.get_shard_iterator(
            StreamName="a", ShardId=shard, ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"],
        Limit=2,
    )
    assert len(page["Records"]) == 2 and page["MillisBehindLatest"] > 0
    assert page["Records"][0]["PartitionKey"] == "k"


def test_large_records_are_paged(client):
    client.create_stream(StreamName="a", ShardCount=1)
    for _ in range(3):
        client.put_records(
            StreamName="a", Records=[{"Data": b"x" * 1_000_000, "PartitionKey": "k"}] * 5
        )
    iterator = client.get_shard_iterator(
        StreamName="a", ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    first = client.get_records(ShardIterator=iterator)
    assert 0 < len(first["Records"]) <= 10
    assert (
        len(first["Records"])
        + len(client.get_records(ShardIterator=first["NextShardIterator"])["Records"])
        == 15
    )


@pytest.mark.parametrize("protocol", ["cbor", "rpc-v2-cbor"])
def test_cbor_protocols_are_supported(local, client, protocol):
    client.create_stream(StreamName="a", ShardCount=1)

    def call(operation, body):
        if protocol == "cbor":
            url, headers = (
                f"http://{local.kinesis}/",
                {
                    "x-amz-target": f"Kinesis_20131202.{operation}",
                    "content-type": "application/x-amz-cbor-1.1",
                },
            )
        else:
            url, headers = (
                f"http://{local.kinesis}/service/Kinesis_20131202/operation/{operation}",
                {"smithy-protocol": "rpc-v2-cbor", "content-type": "application/cbor"},
            )
        answer = requests.post(url, data=cbor2.dumps(body), headers=headers, timeout=10)
        # The older protocol encodes milliseconds with the CBOR tag of a time. cbor2 would read them
        # as seconds, so the tag is removed.
        content = (
            answer.content.replace(b"\xc1\x1b", b"\x1b") if protocol == "cbor" else answer.content
        )
        return answer.status_code, cbor2.loads(content)

    status, put = call(
        "PutRecord", {"StreamName": "a", "Data": b"\x00\xffraw", "PartitionKey": "k"}
    )
    assert status == 200 and put["ShardId"] == "shardId-000000000000"
    _, iterator = call(
        "GetShardIterator",
        {"StreamName": "a", "ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON"},
    )
    _, page = call("GetRecords", iterator | {"Limit": 5})
    assert page["Records"][0]["Data"] == b"\x00\xffraw"
    status, error = call("DescribeStream", {"StreamName": "z"})
    assert status == 400 and error["__type"] == "ResourceNotFoundException"
