"""The mapping templates of the Kinesis routes: Kinesis gets what a client sent, encoded once."""

import base64
import json

import botocore.loaders
import botocore.model
import botocore.validate
import pytest

from support.mapping_template import KINESIS, OPERATIONS, POST, apply
from support.templates import render, template_names

# As a client sends them, and as they must arrive.
DATA = [
    (POST, POST),
    ([1, {"a": "it's"}], [1, {"a": "it's"}]),
    (17, 17),
    (False, False),
]
TEXTS = ['{"index": 1}', 'it\'s "plain" $text #end', "\\'", " ", "😀"]
KEYS = [
    ("partition-1", "partition-1"),
    ('it\'s "q" \\ /', 'it\'s "q" \\ /'),
    ("\\'", "\\'"),
    ("$key ${key} #end ## é 😀\n", "$key ${key} #end ## é 😀\n"),
    ("17", "17"),
    (17, "17"),
    (2.5, "2.5"),
    (True, "true"),
    ({"k": "it's"}, '{"k":"it\'s"}'),
]


def sent(name, body="", **parameters):
    """Returns the valid request that Kinesis gets, with Data decoded once."""
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    request = json.loads(apply(render(f"mapping/{name}"), text, **parameters))
    for record in [request, *request.get("Records", [])]:
        if "Data" in record:
            record["Data"] = base64.b64decode(record["Data"], validate=True)
    return request


def validation_errors(name, request):
    shape = KINESIS.operation_model(OPERATIONS[name]).input_shape
    unknown = set(request) - set(shape.members)
    return "\n".join(
        [
            *sorted(unknown),
            botocore.validate.ParamValidator().validate(request, shape).generate_report(),
        ]
    ).strip()


def taken(name, body="", **parameters):
    request = sent(name, body, **parameters)
    assert validation_errors(name, request) == ""
    return request


def test_every_template_belongs_to_an_operation():
    assert template_names("mapping", ".vtl") == sorted(OPERATIONS)


@pytest.mark.parametrize(("data", "arriving"), DATA)
@pytest.mark.parametrize(
    "names", [("Data", "PartitionKey"), ("data", "partition-key"), ("Data", "partition-key")]
)
def test_object_is_encoded_as_json_once(data, arriving, names):
    body = {"StreamName": "another", names[0]: data, names[1]: "partition-1"}
    request = taken("put_record.vtl", body, stream_name="streaming-abc-pin")
    assert json.loads(request["Data"]) == arriving
    assert (request["StreamName"], request["PartitionKey"]) == ("streaming-abc-pin", "partition-1")


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_unchanged(text):
    request = taken("put_record.vtl", {"Data": text, "PartitionKey": "k"}, stream_name="s")
    assert request["Data"].decode() == text
    request = taken(
        "put_records.vtl", {"records": [{"data": text, "partition-key": "k"}]}, stream_name="s"
    )
    assert request["Records"][0]["Data"].decode() == text


@pytest.mark.parametrize(("key", "arriving"), KEYS)
def test_partition_key_becomes_text(key, arriving):
    assert (
        taken("put_record.vtl", {"Data": 1, "PartitionKey": key}, stream_name="s")["PartitionKey"]
        == arriving
    )
    request = taken(
        "put_records.vtl", {"records": [{"data": 1, "partition-key": key}]}, stream_name="s"
    )
    assert request["Records"][0]["PartitionKey"] == arriving


@pytest.mark.parametrize(
    ("records", "data", "key"),
    [("records", "data", "partition-key"), ("Records", "Data", "PartitionKey")],
)
def test_records_keep_their_order(records, data, key):
    body = {records: [{data: {**POST, "index": n}, key: f"partition-{n}"} for n in range(12)]}
    request = taken("put_records.vtl", body, stream_name="streaming-abc-pin")
    assert request["StreamName"] == "streaming-abc-pin"
    assert [json.loads(record["Data"]) for record in request["Records"]] == [
        {**POST, "index": n} for n in range(12)
    ]
    assert [record["PartitionKey"] for record in request["Records"]] == [
        f"partition-{n}" for n in range(12)
    ]


def test_both_spellings_may_be_mixed():
    body = {
        "records": [{"Data": {"a": 1}, "partition-key": "x"}, {"data": "text", "PartitionKey": 2}]
    }
    assert taken("put_records.vtl", body, stream_name="s")["Records"] == [
        {"Data": b'{"a":1}', "PartitionKey": "x"},
        {"Data": b"text", "PartitionKey": "2"},
    ]


@pytest.mark.parametrize(
    ("body", "arriving"),
    [
        ({"PartitionKey": "k"}, {"PartitionKey": "k"}),
        ({"Data": None, "PartitionKey": "k"}, {"PartitionKey": "k"}),
        ({"Data": {"a": 1}}, {"Data": b'{"a":1}'}),
        ({"Data": {"a": 1}, "PartitionKey": None}, {"Data": b'{"a":1}'}),
        ({}, {}),
        ("", {}),
    ],
)
def test_missing_members_are_left_for_kinesis_to_reject(body, arriving):
    assert sent("put_record.vtl", body, stream_name="s") == {"StreamName": "s", **arriving}
    # It does not inherit members of the record before it.
    whole = {"data": {"b": 2}, "partition-key": "l"}
    request = sent("put_records.vtl", {"records": [whole, body, whole]}, stream_name="s")
    assert request["Records"] == [
        {"Data": b'{"b":2}', "PartitionKey": "l"},
        arriving,
        {"Data": b'{"b":2}', "PartitionKey": "l"},
    ]


@pytest.mark.parametrize("body", ["", {}, {"records": []}, {"records": None}])
def test_empty_list_of_records_is_rejected_by_kinesis(body):
    assert sent("put_records.vtl", body, stream_name="s") == {"StreamName": "s", "Records": []}


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"list_streams.vtl"}))
@pytest.mark.parametrize("stream", ["streaming-abc-pin", 'x", "StreamName": "other', "it's\\"])
def test_stream_of_the_path_wins_and_stays_text(name, stream):
    assert (
        sent(name, {"StreamName": "another", "records": []}, stream_name=stream)["StreamName"]
        == stream
    )


@pytest.mark.parametrize(
    ("body", "shards"),
    [
        ("", 4),
        ({}, 4),
        ({"ShardCount": 1}, 1),
        ({"ShardCount": 12}, 12),
        ({"ShardCount": "2"}, 4),
        ({"ShardCount": None}, 4),
    ],
)
def test_stream_gets_requested_or_default_shards(body, shards):
    assert taken("create_stream.vtl", body, stream_name="s") == {
        "StreamName": "s",
        "ShardCount": shards,
    }


@pytest.mark.parametrize("name", ["describe_stream.vtl", "delete_stream.vtl"])
def test_stream_is_named_by_the_path_alone(name):
    assert taken(name, stream_name="s") == {"StreamName": "s"}


@pytest.mark.parametrize(
    ("parameters", "request_"),
    [
        ({}, {}),
        ({"Limit": "7"}, {"Limit": 7}),
        (
            {"ExclusiveStartStreamName": "streaming-abc-pin"},
            {"ExclusiveStartStreamName": "streaming-abc-pin"},
        ),
        (
            {"Limit": "7", "ExclusiveStartStreamName": "a.b_c-D"},
            {"Limit": 7, "ExclusiveStartStreamName": "a.b_c-D"},
        ),
        ({"Limit": '7, "x": 1', "ExclusiveStartStreamName": 'a", "x": "'}, {}),
    ],
)
def test_list_continues_from_the_query(parameters, request_):
    assert taken("list_streams.vtl", **parameters) == request_
