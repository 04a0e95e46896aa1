"""Drift: changes made outside pinpipe are in the plan, and an apply repairs them."""

import pytest

from support.scenarios import drift
from support.scenarios import drift_changes as changes

SECTIONS = {"aws__tags": {"team": "data"}}


@pytest.mark.parametrize("name", changes.DRIFT)
def test_drift_is_reported_and_repaired(module, cloud, name):
    drift.drift_is_reported_and_repaired(module, cloud, name)


def test_machine_gets_its_role_back(module, cloud):
    drift.machine_gets_its_role_back(module, cloud)


def test_deleted_api_is_recreated_with_its_usage_plan(module, cloud):
    changes.api_gone(cloud)
    drift.assert_repaired(module, cloud, {"api": ("create", changes.GONE)}, may={"usage-plan"})


def test_deleted_worker_configuration_is_recreated_with_its_connector(module, cloud):
    before = changes.connector(cloud)[1]["connectorArn"]
    cloud.aws_service("kafkaconnect").workers.clear()
    drift.assert_repaired(
        module, cloud, {"worker-configuration": ("create", changes.GONE)}, may={"connector"}
    )
    assert changes.connector(cloud)[1]["connectorArn"] != before


def test_released_address_is_replaced_and_the_api_updated(module, cloud):
    changes.release_address(cloud)
    done = drift.assert_repaired(module, cloud, {"address": ("create", changes.GONE)}, may={"api"})
    assert done["api"] == "update" and len(cloud.boto("ec2").describe_addresses()["Addresses"]) == 1


@pytest.mark.parametrize("broken", ["stopped", "terminated"])
def test_stopped_machine_is_started_and_terminated_one_replaced(module, cloud, broken):
    """Topics, which only the machine can read, do not stop the plan."""
    if broken == "stopped":
        changes.ec2("stop_instances", "InstanceIds", "client")(cloud)
        expected = {"client": ("update", "the instance is stopped")}
    else:
        changes.ec2("terminate_instances", "InstanceIds", "client")(cloud)
        expected = {"client": ("create", changes.GONE)}
    cloud.boto("ec2").describe_instances()
    assert "client" in cloud.run("status").stdout
    drift.assert_repaired(module, cloud, expected, may={*drift.TOPICS, "address"})


@pytest.mark.parametrize("broken", ["stopped", "terminated"])
def test_pipeline_without_a_running_machine_can_be_destroyed(module, cloud, broken):
    changes.ec2(
        "stop_instances" if broken == "stopped" else "terminate_instances", "InstanceIds", "client"
    )(cloud)
    cloud.boto("ec2").describe_instances()
    cloud.run("destroy", "--yes")
    left = {kind: things for kind, things in cloud.aws.snapshot().items() if things}
    assert left == {}


@pytest.mark.parametrize("change", ["changed", "removed"])
def test_tags_are_restored(module, cloud, change):
    drift.tags_are_restored(module, cloud, change)


def test_resource_that_lost_its_tag_is_not_created_twice(module, cloud):
    """The state still holds its id; a second address or machine would cost money."""
    ids = [cloud.state_value("client"), cloud.state_value("address")]
    cloud.boto("ec2").delete_tags(Resources=ids, Tags=[{"Key": "pinpipe:resource"}])
    drift.assert_repaired(
        module,
        cloud,
        {key: ("update", "tag `pinpipe:resource` is missing") for key in ("client", "address")},
    )
    assert [cloud.state_value("client"), cloud.state_value("address")] == ids


def test_unmanaged_additions_are_kept(module, cloud):
    drift.unmanaged_additions_are_kept(module, cloud)


def test_order_of_bootstrap_brokers_is_no_drift(module, cloud):
    """GetBootstrapBrokers returns the brokers in an order that changes from call to call."""
    brokers = cloud.boto("kafka").get_bootstrap_brokers(
        ClusterArn=cloud.state_value("cluster", "arn")
    )["BootstrapBrokerStringSaslIam"]
    cloud.aws.bootstrap = ",".join(reversed(brokers.split(",")))
    assert cloud.plan() == {}
    # Of more than three brokers it returns any three.
    cloud.aws.bootstrap = ",".join(broker.replace("b-2.", "b-5.") for broker in brokers.split(","))
    assert cloud.plan() == {}
    cloud.aws.bootstrap = None
    assert cloud.plan() == {}
    module.mark_clean()


def test_lost_password_is_replaced_everywhere(module, cloud):
    drift.lost_password_is_replaced_everywhere(module, cloud)


def test_lost_key_file_is_restored_from_parameter_store(module, cloud):
    drift.lost_key_file_is_restored_from_parameter_store(module, cloud)


def test_lost_key_parameter_is_restored_from_the_file(module, cloud):
    drift.lost_key_parameter_is_restored_from_the_file(module, cloud)


def test_key_lost_everywhere_is_recreated_with_its_machine(module, cloud):
    drift.key_lost_everywhere_is_recreated_with_its_machine(module, cloud)
