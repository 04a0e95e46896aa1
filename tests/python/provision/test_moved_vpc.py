"""A pipeline that moves to another VPC, or gets other names without a state that holds the old
ones: nothing is left behind.
"""

import base64

import pytest

from support.provisioned import assert_plan, assert_plan_and_apply
from support.renamed import EVERY_NAME, NAMED, TOPICS

GROUP_ELSEWHERE = ("replace", "the security group is in another VPC, vpc-")
# Resources whose VPC differs, and those that are recreated with them.
MOVED = {
    "group-client": GROUP_ELSEWHERE,
    "group-cluster": (
        "replace",
        "`group-client` is replaced|the security group is in another VPC",
    ),
    "s3-endpoint": ("replace", "the endpoint is in another VPC, vpc-"),
    "cluster": ("replace", "`group-cluster` is replaced"),
    "client": ("replace", "`group-client` is replaced"),
    **TOPICS,
    "connector": ("replace", "`cluster` is replaced"),
}
# That the private address changes is visible only once the new machine exists.
MAY = ("address", "api", "usage-plan")


SECTIONS = {"kinesis": {"shards": 1}}


@pytest.fixture
def cloud(empty):
    """Each test begins in an empty account."""
    return empty


def another_vpc(cloud):
    """Creates a VPC with a subnet in each of three zones."""
    ec2 = cloud.boto("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.7.0.0/16")["Vpc"]["VpcId"]
    for number, zone in enumerate("abc"):
        ec2.create_subnet(
            VpcId=vpc, CidrBlock=f"10.7.{number}.0/24", AvailabilityZone=f"us-east-1{zone}"
        )
    return vpc


AIRFLOW = "network,group-airflow,role-airflow,bucket-airflow,airflow-requirements,airflow"


def apply_airflow(cloud, *arguments):
    """Creates Airflow in two subnets of the default VPC."""
    subnets = sorted(
        (each["AvailabilityZone"], each["SubnetId"])
        for each in cloud.boto("ec2").describe_subnets()["Subnets"]
        if each["DefaultForAz"]
    )
    cloud.change(
        airflow={"enabled": True, "subnets": [subnet for _, subnet in subnets[:2]]},
        schedule={"enabled": False},
    )
    cloud.apply(*arguments)


def vpcs_of_ours(cloud):
    """Returns the VPCs of the resources with the pipeline's tags."""
    ec2, ours = cloud.boto("ec2"), [{"Name": "tag:pinpipe:id", "Values": ["me"]}]
    groups = {
        group["VpcId"] for group in ec2.describe_security_groups(Filters=ours)["SecurityGroups"]
    }
    endpoints = {
        endpoint["VpcId"]
        for endpoint in ec2.describe_vpc_endpoints(Filters=ours)["VpcEndpoints"]
        if endpoint["State"] != "deleted"
    }
    machines = [
        machine
        for each in ec2.describe_instances(Filters=ours)["Reservations"]
        for machine in each["Instances"]
    ]
    return (
        groups
        | endpoints
        | {machine["VpcId"] for machine in machines if machine["State"]["Name"] == "running"}
    )


def test_another_vpc_recreates_everything_and_leaves_nothing(cloud):
    vpc = another_vpc(cloud)
    before = cloud.aws.snapshot()
    cloud.apply()
    old = vpcs_of_ours(cloud)
    moved = {"PINPIPE__NETWORK__VPC": vpc}
    assert_plan(cloud, MOVED, MAY, env=moved)
    stderr = cloud.refused("provision", "--yes", env=moved)
    assert "which deletes its data" in stderr and "--allow-replace" in stderr
    assert_plan_and_apply(cloud, MOVED, "--allow-replace", may=MAY, env=moved)
    assert vpcs_of_ours(cloud) == {vpc} and old != {vpc}
    cloud.run("destroy", "--yes", env=moved)
    assert cloud.aws.snapshot() == before


@pytest.mark.parametrize("state", ["known", "lost"])
def test_destroy_covers_the_vpc_of_an_earlier_configuration(cloud, state):
    vpc = another_vpc(cloud)
    before = cloud.aws.snapshot()
    cloud.apply()
    if state == "lost":
        (cloud.data / "aws" / "state.json").unlink()
    cloud.run("destroy", "--yes", env={"PINPIPE__NETWORK__VPC": vpc})
    assert vpcs_of_ours(cloud) == set() and cloud.aws.snapshot() == before


def test_unmanaged_groups_and_endpoints_in_another_vpc_are_kept(cloud):
    ec2, vpc = cloud.boto("ec2"), another_vpc(cloud)
    ec2.create_security_group(GroupName="me-client-group", Description="theirs", VpcId=vpc)
    ec2.create_vpc_endpoint(
        VpcId=vpc, ServiceName="com.amazonaws.us-east-1.s3", VpcEndpointType="Gateway"
    )
    before = cloud.aws.snapshot()
    cloud.apply()
    assert vpc not in vpcs_of_ours(cloud)
    cloud.run("destroy", "--yes")
    assert cloud.aws.snapshot() == before


RENAMED = {
    "cluster": NAMED + "`me-cluster`",
    "connector": NAMED + "`me-connector`|`cluster` is replaced",
    "plugin": NAMED + "`me-plugin`",
    "worker-configuration": NAMED + "`me-confluent-worker`",
    "bucket": NAMED + "`user-me-bucket`",
}


def test_renamed_resources_are_found_by_tags_without_the_state(cloud):
    cloud.apply()
    before = cloud.aws.snapshot()
    cloud.change(**EVERY_NAME)
    (cloud.data / "aws" / "state.json").unlink()
    found = cloud.plan()
    assert {key: found[key][0] for key in RENAMED} == dict.fromkeys(RENAMED, "replace"), found
    assert found["api"][0] == "update"
    cloud.apply("--allow-replace")
    after = cloud.aws.snapshot()
    assert cloud.plan() == {} and {kind: len(things) for kind, things in after.items()} == {
        kind: len(things) for kind, things in before.items()
    }
    for kind in (
        "clusters",
        "connectors",
        "plugins",
        "worker configurations",
        "rest apis",
        "buckets",
    ):
        assert [thing["name"].split("-")[0] for thing in after[kind]] == ["other"], after[kind]


def test_renamed_resources_are_destroyed_without_the_state(cloud):
    before = cloud.aws.snapshot()
    cloud.apply()
    cloud.change(**EVERY_NAME)
    (cloud.data / "aws" / "state.json").unlink()
    cloud.run("destroy", "--yes")
    assert cloud.aws.snapshot() == before


def test_airflow_and_its_bucket_are_found_by_tags(cloud):
    before = cloud.aws.snapshot()
    apply_airflow(cloud, "--only", AIRFLOW)
    cloud.change(airflow={"name": "another", "bucket": "another-airflow"})
    (cloud.data / "aws" / "state.json").unlink()
    found = cloud.plan("--only", "bucket-airflow,airflow")
    assert {key: action for key, (action, _) in found.items()} == {
        "airflow": "replace",
        "bucket-airflow": "replace",
    }, found
    cloud.run("destroy", "--yes")
    assert cloud.aws.snapshot() == before


def test_denied_list_of_buckets_stops_nothing(cloud):
    cloud.aws.deny("s3:ListAllMyBuckets")
    cloud.apply()
    assert cloud.plan() == {}


def test_previous_bucket_name_taken_by_another_account(cloud):
    cloud.apply()
    cloud.change(connector__properties={"s3.bucket.name": "another-bucket"})
    s3 = cloud.boto("s3")
    for each in s3.list_objects_v2(Bucket="user-me-bucket")["Contents"]:
        s3.delete_object(Bucket="user-me-bucket", Key=each["Key"])
    s3.delete_bucket(Bucket="user-me-bucket")
    cloud.aws.taken_buckets.add("user-me-bucket")
    found = cloud.plan()
    assert found["bucket"][0] == "create", found
    cloud.apply()
    assert cloud.plan() == {}


def test_disabled_airflow_is_found_without_the_state(cloud):
    before = cloud.aws.snapshot()
    apply_airflow(cloud, "--only", AIRFLOW)
    cloud.change(airflow={"enabled": False})
    (cloud.data / "aws" / "state.json").unlink()
    found = {key: action for key, (action, _) in cloud.plan().items() if "airflow" in key}
    assert found == dict.fromkeys(
        ("airflow", "airflow-requirements", "bucket-airflow", "group-airflow", "role-airflow"),
        "delete",
    )
    cloud.run("destroy", "--yes")
    assert cloud.aws.snapshot() == before


def test_retry_finds_the_same_resources_without_the_state(cloud):
    before = cloud.aws.snapshot()
    apply_airflow(cloud, "--only", AIRFLOW)
    cloud.boto("s3").put_object(Bucket="user-me-airflow", Key="dags/mine.py", Body=b"pass")
    cloud.change(airflow={"enabled": False})
    (cloud.data / "aws" / "state.json").unlink()
    assert "holds 1 objects" in cloud.refused("destroy", "--yes")
    cloud.run("destroy", "--yes", "--data")
    assert cloud.aws.snapshot() == before


def test_airflow_in_another_vpc_is_found_without_the_state(cloud):
    vpc = another_vpc(cloud)
    before = cloud.aws.snapshot()
    apply_airflow(cloud, "--only", AIRFLOW)
    cloud.change(airflow={"enabled": False})
    (cloud.data / "aws" / "state.json").unlink()
    cloud.run("destroy", "--yes", env={"PINPIPE__NETWORK__VPC": vpc})
    assert cloud.aws.snapshot() == before


def test_orphans_in_another_vpc_are_deleted(cloud):
    ec2, vpc = cloud.boto("ec2"), another_vpc(cloud)
    cloud.apply()
    before = cloud.aws.snapshot()

    def tags(kind, key):
        return [
            {
                "ResourceType": kind,
                "Tags": [
                    {"Key": "pinpipe:id", "Value": "me"},
                    {"Key": "pinpipe:resource", "Value": key},
                ],
            }
        ]

    def group(key):
        return ec2.create_security_group(
            GroupName=f"me-{key}",
            Description="left",
            VpcId=vpc,
            TagSpecifications=tags("security-group", key),
        )["GroupId"]

    client, cluster = group("group-client"), group("group-cluster")
    # A group that a rule refers to cannot be deleted before the rule.
    ec2.authorize_security_group_ingress(
        GroupId=cluster,
        IpPermissions=[{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": client}]}],
    )
    ec2.create_vpc_endpoint(
        VpcId=vpc,
        ServiceName="com.amazonaws.us-east-1.s3",
        VpcEndpointType="Gateway",
        TagSpecifications=tags("vpc-endpoint", "s3-endpoint"),
    )
    group_left = ("update", f"another security group of this pipeline is in {vpc}")
    assert_plan_and_apply(
        cloud,
        {
            "group-client": group_left,
            "group-cluster": group_left,
            "s3-endpoint": ("update", f"another endpoint of this pipeline is in {vpc}"),
        },
    )
    assert cloud.aws.snapshot() == before


def test_group_in_use_in_another_vpc_is_kept(cloud):
    ec2, vpc = cloud.boto("ec2"), another_vpc(cloud)
    cloud.apply()
    tags = [
        {
            "ResourceType": "security-group",
            "Tags": [
                {"Key": "pinpipe:id", "Value": "me"},
                {"Key": "pinpipe:resource", "Value": "group-client"},
            ],
        }
    ]
    group = ec2.create_security_group(
        GroupName="me-group-client", Description="left", VpcId=vpc, TagSpecifications=tags
    )["GroupId"]
    subnet = next(
        each["SubnetId"] for each in ec2.describe_subnets()["Subnets"] if each["VpcId"] == vpc
    )
    interface = ec2.create_network_interface(SubnetId=subnet, Groups=[group])["NetworkInterface"][
        "NetworkInterfaceId"
    ]
    assert cloud.plan()["group-client"] == (
        "update",
        f"another security group of this pipeline is in {vpc}",
    )
    assert (
        f"the security group `{group}` in another VPC is in use: it is kept until `pinpipe destroy`"
        in cloud.run("provision", "--yes").stderr
    )
    assert cloud.plan() == {}
    ec2.delete_network_interface(NetworkInterfaceId=interface)
    cloud.run("destroy", "--yes")
    assert vpcs_of_ours(cloud) == set()


def test_bucket_found_without_the_state_is_recorded(cloud):
    before = cloud.aws.snapshot()
    apply_airflow(cloud)
    (cloud.data / "aws" / "state.json").unlink()
    cloud.apply()
    assert "bucket-airflow" in cloud.state()["resources"] and cloud.state()["is_whole"]
    cloud.change(airflow={"enabled": False})
    cloud.run("destroy", "--yes")
    assert cloud.aws.snapshot() == before


def test_unmanaged_objects_in_the_airflow_bucket_are_kept(cloud):
    apply_airflow(cloud, "--only", AIRFLOW)
    s3 = cloud.boto("s3")
    s3.put_object(Bucket="user-me-airflow", Key="dags/me_dag.py", Body=b"# mine")
    assert "airflow-dag" not in cloud.plan()
    s3.put_object(
        Bucket="user-me-airflow",
        Key="dags/me_dag.py",
        Body=b'"""Runs pinpipe\'s batch on Databricks. And so on."""',
    )
    assert cloud.plan()["airflow-dag"][0] == "delete"


def test_denied_reads_do_not_stop_the_first_run(cloud):
    connect = cloud.boto("kafkaconnect")
    connect.create_worker_configuration(
        name="theirs",
        propertiesFileContent=base64.b64encode(b"key.converter=x\nvalue.converter=x\n").decode(),
    )
    for action, on in [
        ("kafkaconnect:ListTagsForResource", "*/theirs/*"),
        ("iam:GetRole", "*/me-airflow-role"),
        ("s3:ListAllMyBuckets", "*"),
    ]:
        cloud.aws.deny(action, on)
    cloud.apply()
    assert cloud.plan() == {} and not cloud.state()["is_whole"], "who may look finds more"


def test_unused_api_key_is_found_without_the_state(cloud):
    before = cloud.aws.snapshot()
    cloud.apply()
    cloud.change(api={"auth": "none"})
    (cloud.data / "aws" / "state.json").unlink()
    assert {cloud.plan()[key][0] for key in ("api-key", "usage-plan")} == {"delete"}
    cloud.run("destroy", "--yes")
    assert cloud.aws.snapshot() == before


def test_no_airflow_permissions_are_required_without_airflow(cloud):
    cloud.aws.deny("airflow:*")
    cloud.apply()
    assert cloud.plan() == {} and not cloud.aws.calls_of("mwaa.GetEnvironment")
