"""A pipeline that is to stand in another VPC, or under other names while nobody remembers the old ones: nothing stays behind."""

import base64

import pytest

from support.provisioned import planned, planned_and_done
from support.renamed import EVERY_NAME, NAMED, TOPICS

ELSEWHERE = ("recreate", "it is in another VPC, vpc-")
# Those that are noticed by themselves, and those that fall with them.
MOVED = {
    "group-client": ELSEWHERE, "group-cluster": ("recreate", "`group-client` is made anew|it is in another VPC"), "s3-endpoint": ELSEWHERE,
    "cluster": ("recreate", "`group-cluster` is made anew"), "client": ("recreate", "`group-client` is made anew"), **TOPICS,
    "connector": ("recreate", "`cluster` is made anew")}
# Nobody sees before the new machine is there that it has another address inside.
MAY = ("address", "api", "usage-plan")


SECTIONS = {"kinesis": {"shards": 1}}


@pytest.fixture
def cloud(empty):
    """Each begins in an empty account."""
    return empty


def another_vpc(cloud):
    """A VPC with a subnet in each of three zones."""
    ec2 = cloud.boto("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.7.0.0/16")["Vpc"]["VpcId"]
    for number, zone in enumerate("abc"):
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.7.{number}.0/24", AvailabilityZone=f"us-east-1{zone}")
    return vpc


AIRFLOW = "network,group-airflow,role-airflow,bucket-airflow,airflow-requirements,airflow"


def apply_airflow(cloud, *arguments):
    """Makes Airflow, in two subnets of the default VPC."""
    subnets = sorted((each["AvailabilityZone"], each["SubnetId"]) for each in cloud.boto("ec2").describe_subnets()["Subnets"] if each["DefaultForAz"])
    cloud.change(airflow={"enabled": True, "subnets": [subnet for _, subnet in subnets[:2]]}, schedule={"enabled": False})
    cloud.apply(*arguments)


def vpcs_of_ours(cloud):
    """Where what carries the pipeline's tags lies."""
    ec2, ours = cloud.boto("ec2"), [{"Name": "tag:pinpipe:id", "Values": ["me"]}]
    groups = {group["VpcId"] for group in ec2.describe_security_groups(Filters=ours)["SecurityGroups"]}
    endpoints = {endpoint["VpcId"] for endpoint in ec2.describe_vpc_endpoints(Filters=ours)["VpcEndpoints"] if endpoint["State"] != "deleted"}
    machines = [machine for each in ec2.describe_instances(Filters=ours)["Reservations"] for machine in each["Instances"]]
    return groups | endpoints | {machine["VpcId"] for machine in machines if machine["State"]["Name"] == "running"}


def test_in_another_vpc_all_of_it_is_made_anew_and_nothing_stays_in_the_old_one(cloud):
    vpc = another_vpc(cloud)
    before = cloud.aws.snapshot()
    cloud.apply()
    old = vpcs_of_ours(cloud)
    moved = {"PINPIPE__NETWORK__VPC": vpc}
    planned(cloud, MOVED, MAY, env=moved)
    said = cloud.refused("provision", "--yes", env=moved)
    assert "loses what it holds" in said and "--allow-recreate" in said
    planned_and_done(cloud, MOVED, "--allow-recreate", may=MAY, env=moved)
    assert vpcs_of_ours(cloud) == {vpc} and old != {vpc}
    cloud.run("destroy", "--yes", env=moved)
    assert cloud.aws.snapshot() == before


@pytest.mark.parametrize("state", ["known", "lost"])
def test_what_stands_in_the_vpc_of_an_earlier_configuration_is_destroyed(cloud, state):
    vpc = another_vpc(cloud)
    before = cloud.aws.snapshot()
    cloud.apply()
    if state == "lost":
        (cloud.data / "aws" / "state.json").unlink()
    cloud.run("destroy", "--yes", env={"PINPIPE__NETWORK__VPC": vpc})
    assert vpcs_of_ours(cloud) == set() and cloud.aws.snapshot() == before


def test_somebody_elses_groups_and_endpoints_in_another_vpc_stay(cloud):
    ec2, vpc = cloud.boto("ec2"), another_vpc(cloud)
    ec2.create_security_group(GroupName="me-client-group", Description="theirs", VpcId=vpc)
    ec2.create_vpc_endpoint(VpcId=vpc, ServiceName="com.amazonaws.us-east-1.s3", VpcEndpointType="Gateway")
    before = cloud.aws.snapshot()
    cloud.apply()
    assert vpc not in vpcs_of_ours(cloud)
    cloud.run("destroy", "--yes")
    assert cloud.aws.snapshot() == before


RENAMED = {
    "cluster": NAMED + "`me-cluster`", "connector": NAMED + "`me-connector`|`cluster` is made anew", "plugin": NAMED + "`me-plugin`",
    "worker-configuration": NAMED + "`me-confluent-worker`", "bucket": NAMED + "`user-me-bucket`"}


def test_what_has_other_names_is_found_by_its_tags_where_the_state_is_lost_too(cloud):
    cloud.apply()
    before = cloud.aws.snapshot()
    cloud.change(**EVERY_NAME)
    (cloud.data / "aws" / "state.json").unlink()
    found = cloud.plan()
    assert {key: found[key][0] for key in RENAMED} == dict.fromkeys(RENAMED, "recreate"), found
    assert found["api"][0] == "update"
    cloud.apply("--allow-recreate")
    after = cloud.aws.snapshot()
    assert cloud.plan() == {} and {kind: len(things) for kind, things in after.items()} == {kind: len(things) for kind, things in before.items()}
    for kind in ("clusters", "connectors", "plugins", "worker configurations", "rest apis", "buckets"):
        assert [thing["name"].split("-")[0] for thing in after[kind]] == ["other"], after[kind]


def test_it_is_destroyed_too(cloud):
    before = cloud.aws.snapshot()
    cloud.apply()
    cloud.change(**EVERY_NAME)
    (cloud.data / "aws" / "state.json").unlink()
    cloud.run("destroy", "--yes")
    assert cloud.aws.snapshot() == before


def test_airflow_and_its_bucket_are_found_by_their_tags(cloud):
    before = cloud.aws.snapshot()
    apply_airflow(cloud, "--only", AIRFLOW)
    cloud.change(airflow={"name": "another", "bucket": "another-airflow"})
    (cloud.data / "aws" / "state.json").unlink()
    found = cloud.plan("--only", "bucket-airflow,airflow")
    assert {key: action for key, (action, _) in found.items()} == {"airflow": "recreate", "bucket-airflow": "recreate"}, found
    cloud.run("destroy", "--yes")
    assert cloud.aws.snapshot() == before


def test_who_may_not_list_buckets_is_not_stopped_by_it(cloud):
    cloud.aws.deny("s3:ListAllMyBuckets")
    cloud.apply()
    assert cloud.plan() == {}


def test_the_former_name_of_a_bucket_is_somebody_elses_by_now(cloud):
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


def test_airflow_that_is_not_asked_for_any_more_is_found_without_the_state(cloud):
    before = cloud.aws.snapshot()
    apply_airflow(cloud, "--only", AIRFLOW)
    cloud.change(airflow={"enabled": False})
    (cloud.data / "aws" / "state.json").unlink()
    found = {key: action for key, (action, _) in cloud.plan().items() if "airflow" in key}
    assert found == dict.fromkeys(("airflow", "airflow-requirements", "bucket-airflow", "group-airflow", "role-airflow"), "delete")
    cloud.run("destroy", "--yes")
    assert cloud.aws.snapshot() == before


def test_what_is_found_without_the_state_is_found_again_by_the_next_attempt(cloud):
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


def test_what_an_earlier_run_left_in_another_vpc_goes_without_anything_else(cloud):
    ec2, vpc = cloud.boto("ec2"), another_vpc(cloud)
    cloud.apply()
    before = cloud.aws.snapshot()
    tags = lambda kind, key: [{"ResourceType": kind, "Tags": [{"Key": "pinpipe:id", "Value": "me"}, {"Key": "pinpipe:resource", "Value": key}]}]
    group = lambda key: ec2.create_security_group(GroupName=f"me-{key}", Description="left", VpcId=vpc, TagSpecifications=tags("security-group", key))["GroupId"]
    client, cluster = group("group-client"), group("group-cluster")
    # Who is named by a rule cannot go before it.
    ec2.authorize_security_group_ingress(GroupId=cluster, IpPermissions=[{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": client}]}])
    ec2.create_vpc_endpoint(VpcId=vpc, ServiceName="com.amazonaws.us-east-1.s3", VpcEndpointType="Gateway", TagSpecifications=tags("vpc-endpoint", "s3-endpoint"))
    left = ("update", f"another of ours is in {vpc}")
    planned_and_done(cloud, dict.fromkeys(("group-client", "group-cluster", "s3-endpoint"), left))
    assert cloud.aws.snapshot() == before


def test_a_group_in_another_vpc_that_somebody_is_in_stays_and_stops_nothing(cloud):
    ec2, vpc = cloud.boto("ec2"), another_vpc(cloud)
    cloud.apply()
    tags = [{"ResourceType": "security-group", "Tags": [{"Key": "pinpipe:id", "Value": "me"}, {"Key": "pinpipe:resource", "Value": "group-client"}]}]
    group = ec2.create_security_group(GroupName="me-group-client", Description="left", VpcId=vpc, TagSpecifications=tags)["GroupId"]
    subnet = next(each["SubnetId"] for each in ec2.describe_subnets()["Subnets"] if each["VpcId"] == vpc)
    interface = ec2.create_network_interface(SubnetId=subnet, Groups=[group])["NetworkInterface"]["NetworkInterfaceId"]
    assert cloud.plan()["group-client"] == ("update", f"another of ours is in {vpc}")
    assert f"the security group `{group}` in another VPC is in use: it stays until `pinpipe destroy`" in cloud.run("provision", "--yes").stderr
    assert cloud.plan() == {}
    ec2.delete_network_interface(NetworkInterfaceId=interface)
    cloud.run("destroy", "--yes")
    assert vpcs_of_ours(cloud) == set()


def test_a_bucket_that_was_found_without_the_state_is_remembered(cloud):
    before = cloud.aws.snapshot()
    apply_airflow(cloud)
    (cloud.data / "aws" / "state.json").unlink()
    cloud.apply()
    assert "bucket-airflow" in cloud.state()["resources"] and cloud.state()["is_whole"]
    cloud.change(airflow={"enabled": False})
    cloud.run("destroy", "--yes")
    assert cloud.aws.snapshot() == before


def test_what_lies_under_names_of_ours_in_airflows_bucket_and_is_not_ours_stays(cloud):
    apply_airflow(cloud, "--only", AIRFLOW)
    s3 = cloud.boto("s3")
    s3.put_object(Bucket="user-me-airflow", Key="dags/me_dag.py", Body=b"# mine")
    assert "airflow-dag" not in cloud.plan()
    s3.put_object(Bucket="user-me-airflow", Key="dags/me_dag.py", Body=b"\"\"\"Runs pinpipe's batch on Databricks. And so on.\"\"\"")
    assert cloud.plan()["airflow-dag"][0] == "delete"


def test_what_may_not_be_looked_at_does_not_stop_the_first_run(cloud):
    connect = cloud.boto("kafkaconnect")
    connect.create_worker_configuration(name="theirs", propertiesFileContent=base64.b64encode(b"key.converter=x\nvalue.converter=x\n").decode())
    for action, on in [("kafkaconnect:ListTagsForResource", "*/theirs/*"), ("iam:GetRole", "*/me-airflow-role"), ("s3:ListAllMyBuckets", "*")]:
        cloud.aws.deny(action, on)
    cloud.apply()
    assert cloud.plan() == {} and not cloud.state()["is_whole"], "who may look finds more"


def test_an_api_key_that_is_not_asked_for_any_more_is_found_without_the_state(cloud):
    before = cloud.aws.snapshot()
    cloud.apply()
    cloud.change(api={"auth": "none"})
    (cloud.data / "aws" / "state.json").unlink()
    assert {cloud.plan()[key][0] for key in ("api-key", "usage-plan")} == {"delete"}
    cloud.run("destroy", "--yes")
    assert cloud.aws.snapshot() == before


def test_who_has_no_permission_for_airflow_needs_none(cloud):
    cloud.aws.deny("airflow:*")
    cloud.apply()
    assert cloud.plan() == {} and not cloud.aws.calls_of("mwaa.GetEnvironment")
