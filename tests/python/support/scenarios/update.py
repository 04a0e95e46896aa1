"""Changes of streams, and unmanaged resources under names of the pipeline."""

import json


def resharding_at_most_doubles_in_each_step(module, cloud):
    calls = len(cloud.aws.calls)
    cloud.change(kinesis={"shards": 7, "mode": "provisioned"})
    cloud.apply("--only", "stream-pin")
    before = 3 if cloud.sections["kinesis"].get("shards") == 3 else None
    steps = [
        call.parameters["TargetShardCount"]
        for call in cloud.aws.calls[calls:]
        if call.operation == "UpdateShardCount"
    ]
    assert steps[-1] == 7 and all(
        after <= 2 * (earlier or after) for earlier, after in zip([before, *steps], steps)
    )


def create_unmanaged_bucket(cloud):
    cloud.boto("s3").create_bucket(Bucket="user-me-bucket")
    cloud.boto("s3").put_object(Bucket="user-me-bucket", Key="theirs", Body=b"x")


def create_unmanaged_role(cloud):
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "sts:AssumeRole",
                "Principal": {"Service": "ec2.amazonaws.com"},
            }
        ],
    }
    cloud.boto("iam").create_role(
        RoleName="me-ec2-access-role", AssumeRolePolicyDocument=json.dumps(trust)
    )
    cloud.boto("iam").attach_role_policy(
        RoleName="me-ec2-access-role",
        PolicyArn="arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore",
    )


def create_unmanaged_group(cloud):
    vpc = cloud.boto("ec2").describe_vpcs()["Vpcs"][0]["VpcId"]
    return cloud.boto("ec2").create_security_group(
        GroupName="me-client-group", Description="theirs", VpcId=vpc
    )["GroupId"]


def create_unmanaged_cluster(cloud):
    ec2 = cloud.boto("ec2")
    subnets = [subnet["SubnetId"] for subnet in ec2.describe_subnets()["Subnets"]][:3]
    group = ec2.create_security_group(
        GroupName="theirs", Description="theirs", VpcId=ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    )["GroupId"]
    nodes = {"ClientSubnets": subnets, "SecurityGroups": [group], "InstanceType": "kafka.m5.large"}
    provisioned = {
        "KafkaVersion": "2.8.1",
        "NumberOfBrokerNodes": 3,
        "BrokerNodeGroupInfo": nodes,
        "ClientAuthentication": {"Sasl": {"Iam": {"Enabled": True}}},
    }
    cloud.boto("kafka").create_cluster_v2(ClusterName="me-cluster", Provisioned=provisioned)


def create_unmanaged_key_pair(cloud):
    cloud.boto("ec2").create_key_pair(KeyName="me-key")


def create_unmanaged_stream(cloud):
    cloud.boto("kinesis").create_stream(StreamName="streaming-me-pin", ShardCount=1)


UNMANAGED = {
    "bucket": create_unmanaged_bucket,
    "role-client": create_unmanaged_role,
    "group-client": create_unmanaged_group,
    "cluster": create_unmanaged_cluster,
    "key-pair": create_unmanaged_key_pair,
    "stream-pin": create_unmanaged_stream,
}


def unmanaged_resource_is_left_alone(empty, key):
    UNMANAGED[key](empty)
    before = empty.aws.snapshot()
    assert empty.plan()[key] == ("unmanaged", "already exists, not managed by pinpipe")
    # Reported before the creation of resources that cost money.
    stderr = empty.refused("provision", "--yes")
    assert "already exists and is not managed by pinpipe" in stderr and f"--skip {key}" in stderr
    empty.run("destroy", "--yes", "--data")
    assert empty.aws.snapshot() == before


def unmanaged_resource_can_be_skipped_as_the_hint_says(empty, key):
    UNMANAGED[key](empty)
    before = json.dumps(empty.aws.snapshot(), sort_keys=True)
    empty.apply("--skip", key)
    assert empty.plan("--skip", key) == {}
    empty.run("destroy", "--yes", "--data", "--skip", key)
    if key != "bucket":
        assert json.dumps(empty.aws.snapshot(), sort_keys=True) == before
        return
    # The bucket still contains the object of its owner, and no other.
    listed = empty.boto("s3").list_objects_v2(Bucket="user-me-bucket").get("Contents", [])
    assert [each["Key"] for each in listed] == ["theirs"]
