"""Bounds on what one record or one request makes the local stack create."""

import json

import pytest
import requests
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from support.kafka import make_topic
from support.lakes import lake_lines, wait_for_lake
from support.wait import wait_until

PROPERTIES = {
    "connector.class": "io.confluent.connect.s3.S3SinkConnector",
    "storage.class": "io.confluent.connect.s3.storage.S3Storage",
    "format.class": "io.confluent.connect.s3.format.json.JsonFormat",
    "partitioner.class": "io.confluent.connect.storage.partitioner.FieldPartitioner",
    "partition.field.name": "country",
    "topics": "t",
    "s3.bucket.name": "b",
}


def create_connector(local, **more):
    return requests.put(
        f"http://{local.control}/connectors/c/config", json=PROPERTIES | more, timeout=20
    )


def task_of(local):
    status = requests.get(f"http://{local.control}/connectors/c/status", timeout=20).json()
    return status["tasks"][0]


def produce(local, countries):
    producer = Producer({"bootstrap.servers": local.kafka})
    for country in countries:
        producer.produce("t", json.dumps({"country": country}).encode(), partition=0)
    assert producer.flush(20) == 0


def test_the_width_of_offsets_is_limited(local):
    refused = create_connector(
        local, **{"flush.size": "1", "filename.offset.zero.pad.width": "100000"}
    )
    assert refused.status_code == 400, refused.text
    assert "pad.width`: expected at most 20, got 100000" in refused.json()["message"]


@pytest.mark.parametrize("tolerance", ["none", "all"])
def test_a_value_too_long_for_a_name_is_an_error_of_its_record(local, tolerance):
    make_topic(local.kafka, "t", 1)
    created = create_connector(local, **{"flush.size": "1", "errors.tolerance": tolerance})
    assert created.status_code == 201, created.text
    produce(local, ["Peru", "x" * 300, "Fiji"])
    if tolerance == "none":
        wait_until(lambda: task_of(local)["state"] == "FAILED", "the task to fail")
        trace = task_of(local)["trace"]
        assert "offset 1 belongs in a folder whose name is too long" in trace, trace
    else:
        wait_for_lake(local.pinpipe, 2, "b")
        countries = [line["country"] for line in lake_lines(local.pinpipe, "b")]
        assert sorted(countries) == ["Fiji", "Peru"]
        assert task_of(local)["state"] == "RUNNING"


def test_objects_are_closed_before_too_many_are_open(local):
    make_topic(local.kafka, "t", 1)
    created = create_connector(local, **{"flush.size": "1000000"})
    assert created.status_code == 201, created.text
    # No other rotation closes objects. The last 100 stay open.
    produce(local, [str(number) for number in range(600)])
    wait_for_lake(local.pinpipe, 500, "b")


@pytest.mark.nightly
def test_the_number_of_partitions_of_all_topics_is_limited(local):
    admin = AdminClient({"bootstrap.servers": local.kafka})
    topics = [NewTopic(f"t{number}", 10_000, 1) for number in range(6)]
    refused = []
    for future in admin.create_topics(topics, request_timeout=900).values():
        try:
            future.result(900)
        except KafkaException as error:
            refused.append(error.args[0])
    assert [error.name() for error in refused] == ["POLICY_VIOLATION"]
    assert "at most 50000 partitions" in refused[0].str()
    # Deleted topics do not count. Their folders would fill the disk of the tests.
    names = [f"t{number}" for number in range(5)]
    for future in admin.delete_topics(names, request_timeout=900).values():
        future.result(900)
    make_topic(local.kafka, "small", 3)
