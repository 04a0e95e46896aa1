"""The double of AWS itself: instances, topics, snapshots and concurrent clients."""

import concurrent.futures
import json

import pytest

from support.aws_clients import (
    REPORTS,
    TRUST,
    active_cluster,
    client,
    code_of,
    network,
    running_connector,
)


def launch(aws, region="us-east-1"):
    ec2, vpc, subnets = network(aws, region)
    images = ec2.describe_images(
        Owners=["amazon"],
        Filters=[{"Name": "name", "Values": ["amzn2-ami-kernel-5.10-hvm-*-x86_64-gp2"]}],
    )["Images"]
    assert len({image["CreationDate"] for image in images}) >= 2 and len(set(subnets)) >= 3
    return ec2, {
        "ImageId": images[0]["ImageId"],
        "InstanceType": "t3.micro",
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": "token",
        "SubnetId": subnets[0],
        "UserData": "#!/bin/sh\n",
        "IamInstanceProfile": {"Name": "client"},
        "TagSpecifications": [
            {"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "client"}]}
        ],
    }


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
    assert (
        code_of(ec2.run_instances, **{**request, "InstanceType": "t3.small"})
        == "IdempotentParameterMismatch"
    )
    ssm = client(aws, "ssm", region)
    assert ssm.describe_instance_information()["InstanceInformationList"] == []
    script = {
        "InstanceIds": [first],
        "DocumentName": "AWS-RunShellScript",
        "Parameters": {"commands": ["true", "curl -sf http://localhost:8082/topics"]},
    }
    assert code_of(ssm.send_command, **script) == "InvalidInstanceId"
    ec2.describe_instances()
    assert (
        ssm.describe_instance_information()["InstanceInformationList"][0]["PingStatus"] == "Online"
    )
    command = ssm.send_command(**script)["Command"]["CommandId"]
    assert [
        ssm.get_command_invocation(CommandId=command, InstanceId=first)["Status"] for _ in range(3)
    ] == ["InProgress", "InProgress", "Success"]
    address = ec2.allocate_address(Domain="vpc")

    def name():
        return ec2.describe_instances(InstanceIds=[first])["Reservations"][0]["Instances"][0][
            "PublicDnsName"
        ]

    before = name()
    ec2.associate_address(InstanceId=first, AllocationId=address["AllocationId"])
    assert name() != before and address["PublicIp"].replace(".", "-") in name()
    assert (
        code_of(ec2.release_address, AllocationId=address["AllocationId"])
        == "InvalidIPAddress.InUse"
    )
    assert not aws.problems


def test_topic_tool_prints_as_kafka_does(aws):
    arn, *_ = active_cluster(aws)
    servers = client(aws, "kafka").get_bootstrap_brokers(ClusterArn=arn)[
        "BootstrapBrokerStringSaslIam"
    ]
    tool = (
        f"kafka/bin/kafka-topics.sh --bootstrap-server {servers} --command-config client.properties"
    )
    create = f"{tool} --create --topic a.pin --partitions 3 --replication-factor 2"
    assert aws.run_command([create])[0] == 0
    assert aws.run_command([create])[1].endswith("Topic 'a.pin' already exists.\n")
    code, out, _ = aws.run_command(
        ["set -e", f"{create} --if-not-exists", f"{tool} --describe --topic a.pin"]
    )
    assert code == 0 and "PartitionCount: 3\tReplicationFactor: 2" in out
    assert aws.snapshot()["topics"] == [
        {"cluster": "pipe", "name": "a.pin", "partitions": 3, "replication": 2}
    ]


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
        gateway.put_integration(
            type="HTTP_PROXY", integrationHttpMethod="ANY", uri="http://example.com/", **place
        )
        gateway.create_deployment(restApiId=api["id"], stageName="test")
        plan = gateway.create_usage_plan(
            name="plan", apiStages=[{"apiId": api["id"], "stage": "test"}]
        )["id"]
        assert code_of(gateway.delete_usage_plan, usagePlanId=plan) == "ConflictException"
        client(aws, "s3").create_multipart_upload(Bucket="plugins", Key="half")
        assert not aws.problems, aws.problems
        return aws.snapshot()

    first = build()
    assert first == build()
    assert (
        first["buckets"][0]["unfinished uploads"] == ["half"]
        and first["instances"][0]["state"] == "running"
    )
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
