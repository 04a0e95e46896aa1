"""The double of AWS itself: it validates, waits, rejects and fails as the tests on top of it rely
on.
"""

import json

import pytest
import requests
from botocore.exceptions import ClientError, ConnectionClosedError

from doubles.aws import Fault
from support.aws_clients import (
    TRUST,
    active_cluster,
    client,
    cluster_request,
    code_of,
    network,
    running_connector,
)


@pytest.mark.parametrize(
    ("service", "operation", "parameters", "message"),
    [
        ("mwaa", "get_environment", {"Name": "1st"}, "does not match"),
        (
            "kafka",
            "create_cluster_v2",
            {"ClusterName": "x" * 65},
            "length 65 is over the maximum 64",
        ),
        (
            "kafka",
            "create_cluster_v2",
            {"ClusterName": "x", "Provisioned": {"StorageMode": "HUGE"}},
            "'HUGE' is none of",
        ),
        (
            "kafka",
            "create_topic",
            {"ClusterArn": "arn:x", "TopicName": "t", "PartitionCount": 0, "ReplicationFactor": 1},
            "under the minimum 1",
        ),
        (
            "kafkaconnect",
            "create_custom_plugin",
            {"name": "x", "contentType": "ZIP"},
            "location: required, and missing",
        ),
        ("kafkaconnect", "list_connectors", {"maxResults": 1000}, "over the maximum 100"),
        (
            "ec2",
            "run_instances",
            {"MinCount": 1, "MaxCount": 1, "InstanceType": "t9.huge"},
            "'t9.huge' is none of",
        ),
        ("ec2", "run_instances", {"MinCount": 1}, "MaxCount: required, and missing"),
        (
            "iam",
            "create_role",
            {"RoleName": "a b", "AssumeRolePolicyDocument": "{}"},
            "RoleName: 'a b' does not match",
        ),
        (
            "ssm",
            "send_command",
            {"DocumentName": "AWS-RunShellScript", "InstanceIds": ["x"]},
            "InstanceIds[0]: 'x' does not match",
        ),
        ("kinesis", "create_stream", {"StreamName": "bad name", "ShardCount": 1}, "does not match"),
        (
            "kinesis",
            "create_stream",
            {"StreamName": "s", "ShardCount": "1"},
            "an integer is wanted",
        ),
        (
            "s3",
            "put_bucket_versioning",
            {"Bucket": "abc", "VersioningConfiguration": {"Status": "On"}},
            "'On' is none of",
        ),
        (
            "apigateway",
            "create_rest_api",
            {"name": "x", "endpointConfiguration": {"types": ["LOCAL"]}},
            "'LOCAL' is none of",
        ),
    ],
)
def test_request_outside_the_model_is_rejected_and_recorded(
    aws, service, operation, parameters, message
):
    bad = client(aws, service, validation=False)
    assert code_of(getattr(bad, operation), **parameters) in (
        "ValidationException",
        "ValidationError",
    )
    assert len(aws.problems) >= 1 and any(message in problem for problem in aws.problems), (
        aws.problems
    )
    assert aws.calls[-1].status == 400


@pytest.mark.parametrize(
    ("service", "path", "body", "headers", "message"),
    [
        (
            "kafka",
            "/api/v2/clusters",
            b'{"clusterName": "x", "Tags": {}}',
            {},
            "Tags: unknown member",
        ),
        ("kafka", "/v9/clusters", b"", {}, "no operation"),
        (
            "kinesis",
            "/",
            b'{"StreamName": "x", "Shards": 1}',
            {
                "X-Amz-Target": "Kinesis_20131202.CreateStream",
                "Content-Type": "application/x-amz-json-1.1",
            },
            "Shards: unknown",
        ),
        (
            "ec2",
            "/",
            b"Action=DescribeVpcs&Version=2016-11-15&VpcIds.1=x",
            {"Content-Type": "application/x-www-form-urlencoded"},
            "VpcIds.1: unknown",
        ),
        (
            "s3",
            "/abc?versioning",
            b"<VersioningConfiguration><Stat>x</Stat></VersioningConfiguration>",
            {"method": "PUT"},
            "Stat: unknown element",
        ),
    ],
)
def test_unknown_members_on_the_wire_are_found(aws, service, path, body, headers, message):
    signature = (
        "AWS4-HMAC-SHA256 "
        f"Credential=AKID/20260101/us-east-1/{service}/aws4_request, "
        "SignedHeaders=host, Signature=0"
    )
    sent = {
        "Authorization": signature,
        **{name: value for name, value in headers.items() if name != "method"},
    }
    answer = requests.request(
        headers.get("method", "POST"), aws.url + path, data=body, headers=sent, timeout=10
    )
    assert answer.status_code == 400 and any(message in problem for problem in aws.problems), (
        aws.problems
    )


def test_cluster_rejects_calls_until_it_is_active(aws):
    arn, states, subnets, group = active_cluster(aws)
    kafka = client(aws, "kafka")
    assert states == ["CREATING", "CREATING", "ACTIVE"]
    assert (
        code_of(kafka.create_cluster_v2, **cluster_request(subnets, [group])) == "ConflictException"
    )
    grow = {
        "ClusterArn": arn,
        "TargetBrokerEBSVolumeInfo": [{"KafkaBrokerNodeId": "All", "VolumeSizeGB": 2000}],
    }
    assert (
        code_of(kafka.update_broker_storage, CurrentVersion="K3P5ROKL5A1OLE", **grow)
        == "BadRequestException"
    )
    kafka.update_broker_storage(
        CurrentVersion=kafka.describe_cluster_v2(ClusterArn=arn)["ClusterInfo"]["CurrentVersion"],
        **grow,
    )
    assert kafka.describe_cluster_v2(ClusterArn=arn)["ClusterInfo"]["State"] == "UPDATING"
    assert code_of(kafka.delete_cluster, ClusterArn=arn) == "BadRequestException"
    kafka.describe_cluster_v2(ClusterArn=arn)
    kafka.delete_cluster(ClusterArn=arn)
    assert code_of(client(aws, "ec2").delete_security_group, GroupId=group) == "DependencyViolation"
    assert [kafka.list_clusters_v2()["ClusterInfoList"][0]["State"] for _ in range(2)] == [
        "DELETING",
        "DELETING",
    ]
    assert code_of(kafka.describe_cluster_v2, ClusterArn=arn) == "NotFoundException"
    client(aws, "ec2").delete_security_group(GroupId=group)
    assert not aws.problems


def test_connector_operations_succeed_and_fail(aws):
    connect, connector, plugin = running_connector(aws)
    assert code_of(connect.delete_custom_plugin, customPluginArn=plugin) == "BadRequestException"
    for failure, ends in ((None, "UPDATE_COMPLETE"), ("a task is broken", "UPDATE_FAILED")):
        aws.outcome = lambda kind, name, reason=failure: (
            reason if kind == "connector-update" else None
        )
        version = connect.describe_connector(connectorArn=connector)["currentVersion"]
        capacity = {
            "provisionedCapacity": {"mcuCount": 2 if failure is None else 4, "workerCount": 1}
        }
        operation = connect.update_connector(
            connectorArn=connector, currentVersion=version, capacity=capacity
        )["connectorOperationArn"]
        seen = [
            connect.describe_connector_operation(connectorOperationArn=operation)[
                "connectorOperationState"
            ]
            for _ in range(3)
        ]
        assert seen == ["UPDATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", ends]
    shown = connect.describe_connector(connectorArn=connector)
    assert (
        shown["connectorState"] == "RUNNING"
        and shown["capacity"]["provisionedCapacity"]["mcuCount"] == 2
    )
    assert (
        len(connect.list_connector_operations(connectorArn=connector)["connectorOperations"]) == 2
    )
    assert not aws.problems


def test_faults_before_and_after_a_call_takes_effect(aws):
    kinesis = client(aws, "kinesis")
    for when, drop, there in (
        ("before", False, 0),
        ("after", False, 1),
        ("before", True, 1),
        ("after", True, 2),
    ):
        aws.fail_operation("CreateStream", when=when, drop=drop)
        with pytest.raises(ConnectionClosedError if drop else ClientError):
            kinesis.create_stream(StreamName=f"s-{when}-{drop}".lower(), ShardCount=1)
        assert len(kinesis.list_streams()["StreamNames"]) == there
    assert [call.injected for call in aws.calls_of("CreateStream")] == [True] * 4
    aws.fail(len(aws.calls) + 1, status=403, code="AccessDeniedException", message="no")
    assert code_of(kinesis.list_streams) == "AccessDeniedException"

    def veto(call):
        if call.operation == "DeleteStream":
            raise Fault(400, "LimitExceededException", "slowly")

    aws.before_call = veto
    assert code_of(kinesis.delete_stream, StreamName="s-after-false") == "LimitExceededException"


@pytest.mark.parametrize(
    ("service", "operation"),
    [
        ("ec2", "describe_vpcs"),
        ("s3", "list_buckets"),
        ("iam", "list_roles"),
        ("ssm", "describe_parameters"),
        ("kinesis", "list_streams"),
        ("kafka", "list_clusters_v2"),
        ("kafkaconnect", "list_connectors"),
        ("apigateway", "get_rest_apis"),
        ("mwaa", "list_environments"),
    ],
)
def test_throttling_and_denials_have_the_form_of_each_protocol(aws, service, operation):
    aws.throttle(1)
    answer = getattr(client(aws, service, attempts=2), operation)()
    assert answer["ResponseMetadata"]["RetryAttempts"] == 1
    assert [call.injected for call in aws.calls] == [True, False]
    once = getattr(client(aws, service), operation)
    aws.deny("*")
    with pytest.raises(
        ClientError, match="is not authorized to perform: [a-z0-9-]+:[A-Za-z0-9]+ on resource: "
    ):
        once()
    aws.expired_credentials()
    assert code_of(once) in ("ExpiredToken", "ExpiredTokenException", "RequestExpired")


def test_created_resources_are_visible_only_later(aws):
    ec2, vpc, _ = network(aws)
    iam, s3, gateway = client(aws, "iam"), client(aws, "s3"), client(aws, "apigateway")
    aws.stale_reads(1)
    group = ec2.create_security_group(GroupName="new", Description="new", VpcId=vpc)["GroupId"]
    named = [{"Name": "group-name", "Values": ["new"]}]
    assert ec2.describe_security_groups(Filters=named)["SecurityGroups"] == []
    assert len(ec2.describe_security_groups(Filters=named)["SecurityGroups"]) == 1
    other = ec2.create_security_group(GroupName="other", Description="new", VpcId=vpc)["GroupId"]
    assert code_of(ec2.describe_security_groups, GroupIds=[other, group]) == "InvalidGroup.NotFound"
    iam.create_role(RoleName="new", AssumeRolePolicyDocument=json.dumps(TRUST))
    assert code_of(iam.get_role, RoleName="new") == "NoSuchEntity"
    assert iam.get_role(RoleName="new")["Role"]["RoleName"] == "new"
    s3.create_bucket(Bucket="new-bucket")
    assert code_of(s3.head_bucket, Bucket="new-bucket") == "404"
    api = gateway.create_rest_api(name="new")["id"]
    assert gateway.get_rest_apis()["items"] == []
    assert gateway.get_rest_api(restApiId=api)["name"] == "new"
