"""Clients of the AWS test double, and minimal resources for the tests of the double itself."""

import json

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Principal": {"Service": ["kafkaconnect.amazonaws.com", "ec2.amazonaws.com"]},
        }
    ],
}


REPORTS = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": ["ssm:UpdateInstanceInformation", "ssmmessages:*"],
            "Resource": "*",
        }
    ],
}


def client(aws, service, region="us-east-1", attempts=1, validation=True):
    config = Config(
        retries={"total_max_attempts": attempts, "mode": "standard"},
        inject_host_prefix=False,
        parameter_validation=validation,
    )
    return boto3.client(
        service,
        region,
        endpoint_url=aws.url,
        aws_access_key_id="AKID",
        aws_secret_access_key="secret",
        config=config,
    )


def code_of(call, *arguments, **parameters):
    with pytest.raises(ClientError) as caught:
        call(*arguments, **parameters)
    return caught.value.response["Error"]["Code"]


def network(aws, region="us-east-1"):
    ec2 = client(aws, "ec2", region)
    vpc = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0][
        "VpcId"
    ]
    subnets = [
        subnet["SubnetId"]
        for subnet in ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["Subnets"]
    ]
    return ec2, vpc, subnets


def cluster_request(subnets, groups):
    return {
        "ClusterName": "pipe",
        "Tags": {"made-by": "pinpipe"},
        "Provisioned": {
            "KafkaVersion": "2.8.1",
            "NumberOfBrokerNodes": 3,
            "ClientAuthentication": {"Sasl": {"Iam": {"Enabled": True}}},
            "BrokerNodeGroupInfo": {
                "ClientSubnets": subnets[:3],
                "SecurityGroups": groups,
                "InstanceType": "kafka.t3.small",
            },
        },
    }


def active_cluster(aws):
    ec2, vpc, subnets = network(aws)
    group = ec2.create_security_group(GroupName="brokers", Description="brokers", VpcId=vpc)[
        "GroupId"
    ]
    kafka = client(aws, "kafka")
    arn = kafka.create_cluster_v2(**cluster_request(subnets, [group]))["ClusterArn"]
    states = [kafka.describe_cluster_v2(ClusterArn=arn)["ClusterInfo"]["State"] for _ in range(3)]
    return arn, states, subnets, group


def running_connector(aws):
    arn, _, subnets, group = active_cluster(aws)
    role = client(aws, "iam").create_role(
        RoleName="connect", AssumeRolePolicyDocument=json.dumps(TRUST)
    )["Role"]["Arn"]
    s3, connect = client(aws, "s3"), client(aws, "kafkaconnect")
    s3.create_bucket(Bucket="plugins")
    s3.put_object(Bucket="plugins", Key="sink.zip", Body=b"zip")
    plugin = connect.create_custom_plugin(
        name="sink",
        contentType="ZIP",
        location={"s3Location": {"bucketArn": "arn:aws:s3:::plugins", "fileKey": "sink.zip"}},
    )["customPluginArn"]
    servers = client(aws, "kafka").get_bootstrap_brokers(ClusterArn=arn)[
        "BootstrapBrokerStringSaslIam"
    ]
    request = {
        "connectorName": "sink",
        "kafkaConnectVersion": "2.7.1",
        "serviceExecutionRoleArn": role,
        "capacity": {"provisionedCapacity": {"mcuCount": 1, "workerCount": 1}},
        "connectorConfiguration": {
            "connector.class": "io.confluent.connect.s3.S3SinkConnector",
            "tasks.max": "1",
        },
        "kafkaCluster": {
            "apacheKafkaCluster": {
                "bootstrapServers": servers,
                "vpc": {"subnets": subnets[:3], "securityGroups": [group]},
            }
        },
        "kafkaClusterClientAuthentication": {"authenticationType": "IAM"},
        "kafkaClusterEncryptionInTransit": {"encryptionType": "TLS"},
        "plugins": [{"customPlugin": {"customPluginArn": plugin, "revision": 1}}],
    }
    assert code_of(connect.create_connector, **request) == "BadRequestException"
    while connect.describe_custom_plugin(customPluginArn=plugin)["customPluginState"] != "ACTIVE":
        pass
    connector = connect.create_connector(**request)["connectorArn"]
    while connect.describe_connector(connectorArn=connector)["connectorState"] != "RUNNING":
        pass
    return connect, connector, plugin
