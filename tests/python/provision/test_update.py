"""`provision` and `destroy` with a changed configuration, with selected resources, and with
unmanaged resources.
"""

import pytest

from support.provisioned import assert_plan_and_apply
from support.scenarios import update
from support.scenarios.update import UNMANAGED

ROUTES = "has a different authorization"
STREAMS = ("stream-pin", "stream-geo", "stream-user")
AIRFLOW = {"group-airflow", "role-airflow", "bucket-airflow", "airflow-requirements", "airflow"}
RECREATED = {
    "worker-configuration": ("replace", "properties differ: offset.flush.interval.ms"),
    "connector": ("replace", "`worker-configuration` is replaced"),
}
ANOTHER = {
    "api": ("update", "has a different request mapping"),
    **{key: ("update", "shards: 1 → 3") for key in STREAMS},
}
OPEN = {
    "api": ("update", ROUTES),
    "api-key": ("delete", "no longer in the configuration"),
    "usage-plan": ("delete", "no longer in the configuration"),
}
CLOSED = {
    "api": ("update", ROUTES),
    "api-key": ("create", "does not exist"),
    "usage-plan": ("create", "does not exist"),
}
RENAMED = {
    "api": ("update", "not deployed to the stage `live`"),
    "usage-plan": ("update", "stage is not in the usage plan"),
}

# The changes build on each other; each that can be reverted is.
CHANGES = {
    "more brokers": ({"cluster": {"brokers": 6}}, {"cluster": ("update", "brokers: 3 → 6")}),
    "larger disks": (
        {"cluster": {"volume_gib": 200}},
        {"cluster": ("update", "volume_gib: 100 → 200")},
    ),
    "larger brokers": (
        {"cluster": {"instance_type": "kafka.m5.xlarge"}},
        {"cluster": ("update", "instance_type: kafka.m5.large → kafka.m5.xlarge")},
    ),
    "newer Kafka": (
        {"cluster": {"kafka_version": "3.5.1"}},
        {"cluster": ("update", "kafka_version: 2.8.1 → 3.5.1")},
    ),
    "Kafka with operations for topics": (
        {"cluster": {"kafka_version": "3.6.0"}},
        {"cluster": ("update", "kafka_version: .* → 3.6.0")},
    ),
    "all of it at once": (
        {
            "cluster": {
                "kafka_version": "3.7.x",
                "volume_gib": 300,
                "brokers": 9,
                "instance_type": "kafka.m5.2xlarge",
            }
        },
        {"cluster": ("update", "volume_gib.*brokers.*kafka.m5.*kafka_version")},
    ),
    "more shards": ({"kinesis": {"shards": 3}}, ANOTHER),
    "longer retention": (
        {"kinesis": {"retention_hours": 48}},
        {key: ("update", "retention_hours: 24 → 48") for key in STREAMS},
    ),
    "shorter retention": (
        {"kinesis": {"retention_hours": 24}},
        {key: ("update", "retention_hours: 48 → 24") for key in STREAMS},
    ),
    "streams on demand": (
        {"kinesis": {"mode": "on-demand"}},
        {key: ("update", "not ON_DEMAND") for key in STREAMS},
    ),
    "streams by shards": (
        {"kinesis": {"mode": "provisioned"}},
        {key: ("update", "not PROVISIONED") for key in STREAMS},
    ),
    "flush size": (
        {"connector__properties": {"flush.size": "500"}},
        {"connector": ("update", "properties differ: flush.size$")},
    ),
    "units": (
        {"connector": {"mcu": 2}},
        {"connector": ("update", "1 workers of 1 MCU → 1 of 2")},
    ),
    "workers and properties": (
        {"connector": {"workers": 3}, "connector__properties": {"flush.size": "9"}},
        {"connector": ("update", "flush.size; capacity: 1 workers")},
    ),
    "worker properties": (
        {"connector__worker_properties": {"offset.flush.interval.ms": "5000"}},
        RECREATED,
    ),
    "open to everybody": ({"api": {"auth": "none"}}, OPEN),
    "signed": ({"api": {"auth": "iam"}}, {"api": ("update", ROUTES)}),
    "a key again": ({"api": {"auth": "key"}}, CLOSED),
    "another stage": ({"api": {"stage": "live"}}, RENAMED),
    "ssh from somewhere": (
        {"client": {"ssh_from": ["203.0.113.7/32"]}},
        {"group-client": ("update", "rule `port 22 from 203.0.113.7/32` is missing")},
    ),
    "ssh from nowhere": (
        {"client": {"ssh_from": []}},
        {
            "group-client": (
                "update",
                "rule `port 22 from 203.0.113.7/32` is no longer in the configuration",
            )
        },
    ),
    "another machine": (
        {"client": {"instance_type": "t3.small"}},
        {"client": ("replace", "instance_type: t2.micro → t3.small")},
    ),
}


SECTIONS = {"kinesis": {"shards": 1}}


@pytest.mark.parametrize("name", CHANGES)
def test_configuration_change_is_planned_and_applied(module, cloud, name):
    change, expected = CHANGES[name]
    cloud.change(**change)
    assert_plan_and_apply(cloud, expected)
    module.mark_clean()


def test_resharding_at_most_doubles_in_each_step(module, cloud):
    update.resharding_at_most_doubles_in_each_step(module, cloud)


def test_renamed_stage_replaces_the_previous_one(module, cloud):
    cloud.change(api={"stage": "another"})
    cloud.apply()
    gateway = cloud.boto("apigateway")
    assert [
        stage["stageName"]
        for stage in gateway.get_stages(restApiId=cloud.state_value("api"))["item"]
    ] == ["another"]
    plan = gateway.get_usage_plan(usagePlanId=cloud.state_value("usage-plan"))
    assert [stage["stage"] for stage in plan["apiStages"]] == ["another"]
    module.mark_clean()


def test_open_api_is_warned_about(module, cloud):
    cloud.change(api={"auth": "none"})
    stderr = cloud.run("provision", "--yes").stderr
    assert "warning: the API accepts requests without authentication" in stderr
    snapshot = cloud.aws.snapshot()
    assert snapshot["api keys"] == [] and snapshot["usage plans"] == []
    cloud.change(api={"auth": "key"})
    cloud.apply()
    assert cloud.plan() == {}
    module.mark_clean()


def test_added_tags_are_put_on_everything(module, cloud):
    """Parameters have tags too, although nothing else of them can drift."""
    cloud.change(aws__tags={"team": "data"})
    cloud.apply()
    assert cloud.plan() == {}
    without = {
        kind: [
            thing.get("name")
            for thing in things
            if "tags" in thing and thing["tags"].get("team") != "data"
        ]
        for kind, things in cloud.aws.snapshot().items()
    }
    assert {kind: names for kind, names in without.items() if names} == {}
    module.mark_clean()


def test_smaller_disks_require_a_flag(module, cloud):
    size = cloud.boto("kafka").list_clusters_v2()["ClusterInfoList"][0]["Provisioned"][
        "BrokerNodeGroupInfo"
    ]["StorageInfo"]["EbsStorageInfo"]["VolumeSize"]
    cloud.change(cluster={"volume_gib": size - 1})
    action, reason = cloud.plan()["cluster"]
    assert action == "replace" and (
        f"volume_gib: {size} → {size - 1} (volumes cannot shrink)" in reason
    )
    stderr = cloud.refused("provision", "--yes")
    assert "which deletes its data" in stderr and "--allow-replace" in stderr
    cloud.apply("--allow-replace")
    assert cloud.plan() == {}
    assert {topic["name"] for topic in cloud.aws.snapshot()["topics"]} == {
        "me.pin",
        "me.geo",
        "me.user",
    }
    module.mark_clean()


def test_airflow_is_enabled_and_disabled(empty):
    empty.apply()
    before = empty.aws.snapshot()
    subnets = sorted(
        empty.boto("ec2").describe_subnets()["Subnets"],
        key=lambda subnet: subnet["AvailabilityZone"],
    )
    empty.change(
        airflow={"enabled": True, "subnets": [subnet["SubnetId"] for subnet in subnets[:2]]},
        schedule={"enabled": False},
    )
    assert_plan_and_apply(empty, {key: ("create", "does not exist") for key in AIRFLOW})
    assert len(empty.aws.snapshot()["environments"]) == 1
    empty.change(airflow={"requirements": ["apache-airflow-providers-databricks", "pandas"]})
    assert_plan_and_apply(
        empty, {"airflow-requirements": ("update", "lists other packages")}, may={"airflow"}
    )
    empty.change(airflow={"enabled": False})
    # Objects of other users in its bucket are not deleted.
    others = {"Bucket": "user-me-airflow", "Key": "dags/of_somebody.py"}
    empty.boto("s3").put_object(**others, Body=b"")
    assert (
        "bucket `user-me-airflow` is no longer in the configuration but still holds 1 objects"
        in empty.refused("provision", "--yes")
    )
    empty.boto("s3").delete_object(**others)
    planned = empty.plan()
    assert {key: action for key, (action, _) in planned.items()} == dict.fromkeys(AIRFLOW, "delete")
    # A resource is deleted before its dependencies.
    empty.apply(timeout=30)
    assert empty.plan() == {} and empty.aws.snapshot() == before


# Selected resources.


def test_only_selected_resources_are_created(empty):
    done = empty.apply("--only", "role", "--only", "stream-pin,bucket")
    assert {step["key"] for step in done["steps"]} == {
        "role-client",
        "role-connector",
        "role-kinesis",
        "stream-pin",
        "bucket",
    }
    made = {kind: len(things) for kind, things in empty.aws.snapshot().items() if things}
    assert made == {"roles": 3, "streams": 1, "buckets": 1}
    empty.run("destroy", "--yes", "--only", "role")
    assert {kind for kind, things in empty.aws.snapshot().items() if things} == {
        "streams",
        "buckets",
    }
    done = empty.apply("--skip", "connector,api,usage-plan")
    assert {step["key"] for step in done["steps"]}.isdisjoint({"connector", "api", "usage-plan"})
    assert {step for step, (action, _) in empty.plan().items() if action == "create"} == {
        "connector",
        "api",
        "usage-plan",
    }


def test_selection_requires_its_dependencies(empty):
    stderr = empty.refused("provision", "--yes", "--only", "cluster")
    assert (
        "`cluster` depends on `group-cluster`, which does not exist" in stderr
        and "--only group-cluster" in stderr
    )


def test_unknown_resource_in_a_selection_is_rejected(empty):
    stderr = empty.run("provision", "--plan", "--only", "conector", code=2).stderr
    assert (
        "resource `conector` does not exist, did you mean `connector`?" in stderr
        and "resources and types: " in stderr
    )
    assert (
        "did you mean `stream-geo`"
        in empty.run("destroy", "--yes", "--skip", "streamgeo", code=2).stderr
    )


def test_detailed_exit_code_reports_pending_changes(module, cloud):
    cloud.run("provision", "--plan", "--detailed-exit-code")
    cloud.boto("kinesis").add_tags_to_stream(
        StreamName="streaming-me-pin", Tags={"pinpipe:resource": "x"}
    )
    calls = len(cloud.aws.calls)
    cloud.run("provision", "--plan", "--detailed-exit-code", code=3)
    assert cloud.writes(calls) == []
    cloud.run("provision", "--plan")
    assert "--plan" in cloud.run("provision", "--detailed-exit-code", code=2).stderr
    assert "add `--yes`" in cloud.refused("provision", code=2)
    cloud.apply()
    module.mark_clean()


def test_plan_changes_nothing(empty):
    before = empty.aws.snapshot()
    empty.plan()
    assert empty.aws.snapshot() == before and empty.writes() == []
    assert not empty.data.exists() or not [path for path in empty.data.rglob("*") if path.is_file()]


# Accounts and regions that cannot work.


def test_region_without_api_gateway_is_reported(empty):
    empty.change(aws={"region": "ap-south-2"})
    assert (
        "lists no address ranges of API Gateway in ap-south-2"
        in empty.run("provision", "--yes", "--only", "network,group-client", code=1).stderr
    )


def test_state_of_another_region_is_rejected(module, cloud):
    cloud.change(aws={"region": "eu-west-1"})
    stderr = cloud.refused("provision", "--yes")
    assert "belongs to region `us-east-1`, not to `eu-west-1`" in stderr
    assert "belongs to region" in cloud.refused("destroy", "--yes")
    cloud.change(aws={"region": "us-east-1"})
    module.mark_clean()


def test_missing_default_vpc_is_reported(empty):
    ec2 = empty.boto("ec2")
    for subnet in ec2.describe_subnets()["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    for vpc in ec2.describe_vpcs()["Vpcs"]:
        ec2.delete_vpc(VpcId=vpc["VpcId"])
    stderr = empty.refused("provision", "--yes")
    assert "the default VPC does not exist in us-east-1" in stderr and "[network]" in stderr
    stderr = empty.refused("provision", "--yes", env={"PINPIPE__NETWORK__VPC": "vpc-12345678"})
    assert "VPC `vpc-12345678` does not exist" in stderr


# Unmanaged resources.


@pytest.mark.parametrize("key", UNMANAGED)
def test_unmanaged_resource_is_left_alone(empty, key):
    update.unmanaged_resource_is_left_alone(empty, key)


@pytest.mark.parametrize("key", ["bucket", "role-client", "group-client", "cluster", "stream-pin"])
def test_unmanaged_resource_can_be_skipped_as_the_hint_says(empty, key):
    update.unmanaged_resource_can_be_skipped_as_the_hint_says(empty, key)


def test_bucket_name_taken_by_another_account_is_reported(empty):
    empty.aws.taken_buckets = {"user-me-bucket"}
    stderr = empty.run("provision", "--yes", code=1).stderr
    assert "user-me-bucket" in stderr and "choose another `id`" in stderr


# Destroy.


def test_bucket_with_records_is_destroyed_only_with_data(module, cloud):
    cloud.boto("s3").put_object(
        Bucket="user-me-bucket", Key="topics/me.pin/partition=0/x.json", Body=b"{}"
    )
    stderr = cloud.refused("destroy", "--yes")
    assert (
        "bucket `user-me-bucket` still holds 1 objects" in stderr
        and "`--data`" in stderr
        and "`--skip bucket`" in stderr
    )
    cloud.run("destroy", "--yes", "--skip", "bucket")
    left = {kind: things for kind, things in cloud.aws.snapshot().items() if things}
    assert (
        set(left) == {"buckets"}
        and "topics/me.pin/partition=0/x.json" in left["buckets"][0]["objects"]
    )
    cloud.apply()
    assert cloud.plan() == {}
    cloud.run("destroy", "--yes", "--data")
    assert not any(cloud.aws.snapshot().values())
    assert not (cloud.data / "aws" / "state.json").exists()


def test_skipped_resource_keeps_its_dependencies(module, cloud):
    stderr = cloud.refused("destroy", "--yes", "--only", "cluster")
    assert (
        "cannot delete `cluster`: `" in stderr
        and "depends on it and is not selected" in stderr
        and "--skip cluster" in stderr
    )
    assert "depends on it and is not selected" in cloud.refused(
        "destroy", "--yes", "--skip", "connector"
    )
    module.mark_clean()


def test_destroy_asks_for_confirmation(module, cloud):
    assert "delete 26 resources of account 123456789012" in cloud.refused("destroy", code=2)
    module.mark_clean()
