"""The double of AWS itself: it validates, waits, rejects and fails as the tests on top of it rely on."""

import concurrent.futures
import json

import boto3
import pytest
import requests
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError

from doubles.aws import AwsDouble, Fault

TRUST = {"Version": "2012-10-17", "Statement": [{
    "Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": ["kafkaconnect.amazonaws.com", "ec2.amazonaws.com"]}}]}
REPORTS = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["ssm:UpdateInstanceInformation", "ssmmessages:*"], "Resource": "*"}]}


@pytest.fixture(scope="module")
def shared():
    with AwsDouble() as double:
        yield double


@pytest.fixture
def aws(shared):
    shared.reset()
    yield shared
    shared.reset()


def client(aws, service, region="us-east-1", attempts=1, validation=True):
    config = Config(retries={"total_max_attempts": attempts, "mode": "standard"}, inject_host_prefix=False, parameter_validation=validation)
    return boto3.client(service, region, endpoint_url=aws.url, aws_access_key_id="AKID", aws_secret_access_key="secret", config=config)


def code_of(call, *arguments, **parameters):
    with pytest.raises(ClientError) as caught:
        call(*arguments, **parameters)
    return caught.value.response["Error"]["Code"]


def network(aws, region="us-east-1"):
    ec2 = client(aws, "ec2", region)
    vpc = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
    subnets = [subnet["SubnetId"] for subnet in ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["Subnets"]]
    return ec2, vpc, subnets


def cluster_request(subnets, groups):
    return {"ClusterName": "pipe", "Tags": {"made-by": "pinpipe"}, "Provisioned": {
        "KafkaVersion": "2.8.1", "NumberOfBrokerNodes": 3, "ClientAuthentication": {"Sasl": {"Iam": {"Enabled": True}}},
        "BrokerNodeGroupInfo": {"ClientSubnets": subnets[:3], "SecurityGroups": groups, "InstanceType": "kafka.t3.small"}}}


def active_cluster(aws):
    ec2, vpc, subnets = network(aws)
    group = ec2.create_security_group(GroupName="brokers", Description="brokers", VpcId=vpc)["GroupId"]
    kafka = client(aws, "kafka")
    arn = kafka.create_cluster_v2(**cluster_request(subnets, [group]))["ClusterArn"]
    states = [kafka.describe_cluster_v2(ClusterArn=arn)["ClusterInfo"]["State"] for _ in range(3)]
    return arn, states, subnets, group


def running_connector(aws):
    arn, _, subnets, group = active_cluster(aws)
    role = client(aws, "iam").create_role(RoleName="connect", AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]["Arn"]
    s3, connect = client(aws, "s3"), client(aws, "kafkaconnect")
    s3.create_bucket(Bucket="plugins")
    s3.put_object(Bucket="plugins", Key="sink.zip", Body=b"zip")
    plugin = connect.create_custom_plugin(
        name="sink", contentType="ZIP", location={"s3Location": {"bucketArn": "arn:aws:s3:::plugins", "fileKey": "sink.zip"}})["customPluginArn"]
    servers = client(aws, "kafka").get_bootstrap_brokers(ClusterArn=arn)["BootstrapBrokerStringSaslIam"]
    request = {
        "connectorName": "sink", "kafkaConnectVersion": "2.7.1", "serviceExecutionRoleArn": role,
        "capacity": {"provisionedCapacity": {"mcuCount": 1, "workerCount": 1}},
        "connectorConfiguration": {"connector.class": "io.confluent.connect.s3.S3SinkConnector", "tasks.max": "1"},
        "kafkaCluster": {"apacheKafkaCluster": {"bootstrapServers": servers, "vpc": {"subnets": subnets[:3], "securityGroups": [group]}}},
        "kafkaClusterClientAuthentication": {"authenticationType": "IAM"}, "kafkaClusterEncryptionInTransit": {"encryptionType": "TLS"},
        "plugins": [{"customPlugin": {"customPluginArn": plugin, "revision": 1}}]}
    assert code_of(connect.create_connector, **request) == "BadRequestException"
    while connect.describe_custom_plugin(customPluginArn=plugin)["customPluginState"] != "ACTIVE":
        pass
    connector = connect.create_connector(**request)["connectorArn"]
    while connect.describe_connector(connectorArn=connector)["connectorState"] != "RUNNING":
        pass
    return connect, connector, plugin


@pytest.mark.parametrize("service, operation, parameters, message", [
    ("mwaa", "get_environment", {"Name": "1st"}, "does not match"),
    ("kafka", "create_cluster_v2", {"ClusterName": "x" * 65}, "length 65 is over the maximum 64"),
    ("kafka", "create_cluster_v2", {"ClusterName": "x", "Provisioned": {"StorageMode": "HUGE"}}, "'HUGE' is none of"),
    ("kafka", "create_topic", {"ClusterArn": "arn:x", "TopicName": "t", "PartitionCount": 0, "ReplicationFactor": 1}, "under the minimum 1"),
    ("kafkaconnect", "create_custom_plugin", {"name": "x", "contentType": "ZIP"}, "location: required, and missing"),
    ("kafkaconnect", "list_connectors", {"maxResults": 1000}, "over the maximum 100"),
    ("ec2", "run_instances", {"MinCount": 1, "MaxCount": 1, "InstanceType": "t9.huge"}, "'t9.huge' is none of"),
    ("ec2", "run_instances", {"MinCount": 1}, "MaxCount: required, and missing"),
    ("iam", "create_role", {"RoleName": "a b", "AssumeRolePolicyDocument": "{}"}, "RoleName: 'a b' does not match"),
    ("ssm", "send_command", {"DocumentName": "AWS-RunShellScript", "InstanceIds": ["x"]}, "InstanceIds[0]: 'x' does not match"),
    ("kinesis", "create_stream", {"StreamName": "bad name", "ShardCount": 1}, "does not match"),
    ("kinesis", "create_stream", {"StreamName": "s", "ShardCount": "1"}, "an integer is wanted"),
    ("s3", "put_bucket_versioning", {"Bucket": "abc", "VersioningConfiguration": {"Status": "On"}}, "'On' is none of"),
    ("apigateway", "create_rest_api", {"name": "x", "endpointConfiguration": {"types": ["LOCAL"]}}, "'LOCAL' is none of"),
])
def test_request_outside_the_model_is_rejected_and_recorded(aws, service, operation, parameters, message):
    bad = client(aws, service, validation=False)
    assert code_of(getattr(bad, operation), **parameters) in ("ValidationException", "ValidationError")
    assert len(aws.problems) >= 1 and any(message in problem for problem in aws.problems), aws.problems
    assert aws.calls[-1].status == 400


@pytest.mark.parametrize("service, path, body, headers, message", [
    ("kafka", "/api/v2/clusters", b'{"clusterName": "x", "Tags": {}}', {}, "Tags: unknown member"),
    ("kafka", "/v9/clusters", b"", {}, "no operation"),
    ("kinesis", "/", b'{"StreamName": "x", "Shards": 1}', {"X-Amz-Target": "Kinesis_20131202.CreateStream", "Content-Type": "application/x-amz-json-1.1"}, "Shards: unknown"),
    ("ec2", "/", b"Action=DescribeVpcs&Version=2016-11-15&VpcIds.1=x", {"Content-Type": "application/x-www-form-urlencoded"}, "VpcIds.1: unknown"),
    ("s3", "/abc?versioning", b"<VersioningConfiguration><Stat>x</Stat></VersioningConfiguration>", {"method": "PUT"}, "Stat: unknown element"),
])
def test_unknown_members_on_the_wire_are_found(aws, service, path, body, headers, message):
    signature = f"AWS4-HMAC-SHA256 Credential=AKID/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0"
    sent = {"Authorization": signature, **{name: value for name, value in headers.items() if name != "method"}}
    answer = requests.request(headers.get("method", "POST"), aws.url + path, data=body, headers=sent, timeout=10)
    assert answer.status_code == 400 and any(message in problem for problem in aws.problems), aws.problems


def test_cluster_rejects_calls_until_it_is_active(aws):
    arn, states, subnets, group = active_cluster(aws)
    kafka = client(aws, "kafka")
    assert states == ["CREATING", "CREATING", "ACTIVE"]
    assert code_of(kafka.create_cluster_v2, **cluster_request(subnets, [group])) == "ConflictException"
    grow = {"ClusterArn": arn, "TargetBrokerEBSVolumeInfo": [{"KafkaBrokerNodeId": "All", "VolumeSizeGB": 2000}]}
    assert code_of(kafka.update_broker_storage, CurrentVersion="K3P5ROKL5A1OLE", **grow) == "BadRequestException"
    kafka.update_broker_storage(CurrentVersion=kafka.describe_cluster_v2(ClusterArn=arn)["ClusterInfo"]["CurrentVersion"], **grow)
    assert kafka.describe_cluster_v2(ClusterArn=arn)["ClusterInfo"]["State"] == "UPDATING"
    assert code_of(kafka.delete_cluster, ClusterArn=arn) == "BadRequestException"
    kafka.describe_cluster_v2(ClusterArn=arn)
    kafka.delete_cluster(ClusterArn=arn)
    assert code_of(client(aws, "ec2").delete_security_group, GroupId=group) == "DependencyViolation"
    assert [kafka.list_clusters_v2()["ClusterInfoList"][0]["State"] for _ in range(2)] == ["DELETING", "DELETING"]
    assert code_of(kafka.describe_cluster_v2, ClusterArn=arn) == "NotFoundException"
    client(aws, "ec2").delete_security_group(GroupId=group)
    assert not aws.problems


def test_connector_operations_succeed_and_fail(aws):
    connect, connector, plugin = running_connector(aws)
    assert code_of(connect.delete_custom_plugin, customPluginArn=plugin) == "BadRequestException"
    for failure, ends in ((None, "UPDATE_COMPLETE"), ("a task is broken", "UPDATE_FAILED")):
        aws.outcome = lambda kind, name, reason=failure: reason if kind == "connector-update" else None
        version = connect.describe_connector(connectorArn=connector)["currentVersion"]
        capacity = {"provisionedCapacity": {"mcuCount": 2 if failure is None else 4, "workerCount": 1}}
        operation = connect.update_connector(connectorArn=connector, currentVersion=version, capacity=capacity)["connectorOperationArn"]
        seen = [connect.describe_connector_operation(connectorOperationArn=operation)["connectorOperationState"] for _ in range(3)]
        assert seen == ["UPDATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", ends]
    shown = connect.describe_connector(connectorArn=connector)
    assert shown["connectorState"] == "RUNNING" and shown["capacity"]["provisionedCapacity"]["mcuCount"] == 2
    assert len(connect.list_connector_operations(connectorArn=connector)["connectorOperations"]) == 2
    assert not aws.problems


def test_faults_before_and_after_a_call_takes_effect(aws):
    kinesis = client(aws, "kinesis")
    for when, drop, there in (("before", False, 0), ("after", False, 1), ("before", True, 1), ("after", True, 2)):
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


@pytest.mark.parametrize("service, operation", [
    ("ec2", "describe_vpcs"), ("s3", "list_buckets"), ("iam", "list_roles"), ("ssm", "describe_parameters"), ("kinesis", "list_streams"),
    ("kafka", "list_clusters_v2"), ("kafkaconnect", "list_connectors"), ("apigateway", "get_rest_apis"), ("mwaa", "list_environments")])
def test_throttling_and_denials_have_the_form_of_each_protocol(aws, service, operation):
    aws.throttle(1)
    answer = getattr(client(aws, service, attempts=2), operation)()
    assert answer["ResponseMetadata"]["RetryAttempts"] == 1
    assert [call.injected for call in aws.calls] == [True, False]
    once = getattr(client(aws, service), operation)
    aws.deny("*")
    with pytest.raises(ClientError, match="is not authorized to perform: [a-z0-9-]+:[A-Za-z0-9]+ on resource: "):
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


def launch(aws, region="us-east-1"):
    ec2, vpc, subnets = network(aws, region)
    images = ec2.describe_images(Owners=["amazon"], Filters=[{"Name": "name", "Values": ["amzn2-ami-kernel-5.10-hvm-*-x86_64-gp2"]}])["Images"]
    assert len({image["CreationDate"] for image in images}) >= 2 and len(set(subnets)) >= 3
    return ec2, {
        "ImageId": images[0]["ImageId"], "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1, "ClientToken": "token", "SubnetId": subnets[0],
        "UserData": "#!/bin/sh\n", "IamInstanceProfile": {"Name": "client"},
        "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "client"}]}]}


def make_profile(aws):
    iam = client(aws, "iam")
    iam.create_role(RoleName="client", AssumeRolePolicyDocument=json.dumps(TRUST))
    iam.put_role_policy(RoleName="client", PolicyName="reports", PolicyDocument=json.dumps(REPORTS))
    iam.create_instance_profile(InstanceProfileName="client")
    iam.add_role_to_instance_profile(InstanceProfileName="client", RoleName="client")
    assert code_of(iam.delete_role, RoleName="client") == "DeleteConflict"


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-1"])
def test_instance_is_launched_once_per_token_and_runs_commands(aws, region):
    ec2, request = launch(aws, region)
    assert code_of(ec2.run_instances, **request) == "InvalidParameterValue"
    make_profile(aws)
    aws.profile_delay_calls = 2
    assert code_of(ec2.run_instances, **request) == "InvalidParameterValue"
    aws.profile_delay_calls = 0
    first, second = (ec2.run_instances(**request)["Instances"][0]["InstanceId"] for _ in range(2))
    assert first == second
    assert code_of(ec2.run_instances, **{**request, "InstanceType": "t3.small"}) == "IdempotentParameterMismatch"
    ssm = client(aws, "ssm", region)
    assert ssm.describe_instance_information()["InstanceInformationList"] == []
    script = {"InstanceIds": [first], "DocumentName": "AWS-RunShellScript", "Parameters": {"commands": ["true", "curl -sf http://localhost:8082/topics"]}}
    assert code_of(ssm.send_command, **script) == "InvalidInstanceId"
    ec2.describe_instances()
    assert ssm.describe_instance_information()["InstanceInformationList"][0]["PingStatus"] == "Online"
    command = ssm.send_command(**script)["Command"]["CommandId"]
    assert [ssm.get_command_invocation(CommandId=command, InstanceId=first)["Status"] for _ in range(3)] == ["InProgress", "InProgress", "Success"]
    address = ec2.allocate_address(Domain="vpc")
    name = lambda: ec2.describe_instances(InstanceIds=[first])["Reservations"][0]["Instances"][0]["PublicDnsName"]
    before = name()
    ec2.associate_address(InstanceId=first, AllocationId=address["AllocationId"])
    assert name() != before and address["PublicIp"].replace(".", "-") in name()
    assert code_of(ec2.release_address, AllocationId=address["AllocationId"]) == "InvalidIPAddress.InUse"
    assert not aws.problems


def test_topic_tool_prints_as_kafka_does(aws):
    arn, *_ = active_cluster(aws)
    servers = client(aws, "kafka").get_bootstrap_brokers(ClusterArn=arn)["BootstrapBrokerStringSaslIam"]
    tool = f"kafka/bin/kafka-topics.sh --bootstrap-server {servers} --command-config client.properties"
    create = f"{tool} --create --topic a.pin --partitions 3 --replication-factor 2"
    assert aws.run_command([create])[0] == 0
    assert aws.run_command([create])[1].endswith("Topic 'a.pin' already exists.\n")
    code, out, _ = aws.run_command(["set -e", f"{create} --if-not-exists", f"{tool} --describe --topic a.pin"])
    assert code == 0 and "PartitionCount: 3\tReplicationFactor: 2" in out
    assert aws.snapshot()["topics"] == [{"cluster": "pipe", "name": "a.pin", "partitions": 3, "replication": 2}]


def test_snapshot_is_deterministic(aws):
    def build():
        aws.reset()
        running_connector(aws)
        make_profile(aws)
        ec2, request = launch(aws)
        ec2.run_instances(**request)
        gateway = client(aws, "apigateway")
        api = gateway.create_rest_api(name="api")
        place = {"restApiId": api["id"], "resourceId": api["rootResourceId"], "httpMethod": "ANY"}
        gateway.put_method(authorizationType="NONE", **place)
        gateway.put_integration(type="HTTP_PROXY", integrationHttpMethod="ANY", uri="http://example.com/", **place)
        gateway.create_deployment(restApiId=api["id"], stageName="test")
        plan = gateway.create_usage_plan(name="plan", apiStages=[{"apiId": api["id"], "stage": "test"}])["id"]
        assert code_of(gateway.delete_usage_plan, usagePlanId=plan) == "ConflictException"
        client(aws, "s3").create_multipart_upload(Bucket="plugins", Key="half")
        assert not aws.problems, aws.problems
        return aws.snapshot()
    first = build()
    assert first == build()
    assert first["buckets"][0]["unfinished uploads"] == ["half"] and first["instances"][0]["state"] == "running"
    client(aws, "iam").delete_role_policy(RoleName="client", PolicyName="reports")
    assert aws.snapshot() != first
    aws.reset()
    assert not any(aws.snapshot().values())


def test_eight_concurrent_clients(aws):
    kinesis, seen = client(aws, "kinesis"), []
    aws.on_call(seen.append)
    aws.settle_reads = 0
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: kinesis.create_stream(StreamName=f"s{n}", ShardCount=1), range(24)))
    aws.settle_reads = 2
    assert sorted(call.number for call in aws.calls) == list(range(1, 25)) and len(seen) == 24
    assert aws.count("CreateStream", StreamName="s7") == 1 and len(aws.snapshot()["streams"]) == 24
