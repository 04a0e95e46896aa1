"""`provision` and `destroy` where AWS takes longer than `provision.wait_minutes`: what they say, and how the next run goes on."""

import re

import pytest

from doubles.aws import AwsDouble
from support.broken_schedule import two_subnets
from support.clock import Clock
from support.cloud import ip_ranges
from support.faults import BrokenCloud, differences, hanging
from support.provisioned import toml
from support.wait import wait_until

AIRFLOW = ("--only", "group-airflow,role-airflow,bucket-airflow,airflow-requirements,airflow")
CLUSTERS = lambda aws: aws.services["kafka"].clusters
CONNECTORS = lambda aws: aws.services["kafkaconnect"].connectors
ENVIRONMENTS = lambda aws: aws.services["mwaa"].environments

# By key: the call that begins it, what it is called, where the double keeps it, what is provisioned, and what has to wait for it.
SLOW = {
    "cluster": ("CreateClusterV2", "cluster `me-cluster`", CLUSTERS, (), {"topic-pin", "topic-geo", "topic-user", "connector"}),
    "connector": ("CreateConnector", "connector `me-connector`", CONNECTORS, (), set()),
    "airflow": ("CreateEnvironment", "Airflow environment `me-airflow`", ENVIRONMENTS, AIRFLOW, set()),
}


@pytest.fixture(scope="module")
def shared():
    with AwsDouble(settle_reads=1) as double, ip_ranges() as url:
        yield double, url


@pytest.fixture
def clock(tmp_path):
    return Clock(tmp_path)


@pytest.fixture
def cloud(shared, tmp_path):
    cloud = BrokenCloud(tmp_path / "pipeline", *shared)
    yield cloud
    cloud.done()


def begin(cloud, key):
    """An empty account, and the configuration of a pipeline with what is to be slow."""
    cloud.clear()
    sections = {"airflow": {"enabled": True, "subnets": two_subnets(cloud)}, "schedule": {"enabled": False}} if key == "airflow" else {}
    cloud.configure(toml(sections), provision="wait_minutes = 1")


def hold(cloud, operation, things):
    """What a call begins comes to no end by itself; returns what ends it."""
    def keep(call):
        if call.operation == operation:
            for thing in things(cloud.aws).values():
                thing.lifecycle.remaining = 10**6

    def release():
        cloud.aws.after_call = None
        for thing in things(cloud.aws).values():
            thing.lifecycle.remaining = min(thing.lifecycle.remaining, 2)

    cloud.aws.after_call = keep
    return release


def is_waiting(calls):
    """Whether nothing is asked any more but how one thing stands: by its list, and by its name."""
    return len(calls) > 20 and len({call.operation for call in calls[-20:]}) <= 2


def outlived(cloud, clock, operation, *arguments):
    """What a run says for which something takes too long that a call began."""
    clock.back()
    before = len(cloud.aws.calls)
    process = cloud.start(*arguments, env=clock.environment)
    hanging(cloud.aws, operation, process)
    wait_until(lambda: process.poll() is not None or is_waiting(cloud.aws.calls[before:]), "nothing but waiting")
    assert process.poll() is None, process.stderr.read()
    clock.forward()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and said.count("error: ") == 1 and "panicked" not in said, said
    return said


def snapshot(cloud):
    found = cloud.aws.snapshot()
    for environment in found["environments"]:
        # S3 makes it up; that it is the right one is what an empty plan says.
        assert environment["settings"].pop("RequirementsS3ObjectVersion")
    return found


@pytest.mark.parametrize("key", SLOW)
def test_what_is_not_up_in_time_is_waited_for_by_the_next_run_and_not_made_again(cloud, clock, key):
    makes, called, things, arguments, waiting = SLOW[key]
    begin(cloud, key)
    cloud.run("provision", "--yes", *arguments)
    wanted = snapshot(cloud)
    begin(cloud, key)
    release = hold(cloud, makes, things)
    said = outlived(cloud, clock, makes, "provision", "--yes", *arguments)
    assert re.search(rf"^error: {called} is still CREATING after \d+ min \d+ s$", said, re.M), said
    assert re.search(r"^hint: .*the same command waits for it again.*`provision.wait_minutes`", said, re.M), said
    left = re.search(r"left, since they wait for it: (.*)", said)
    assert waiting <= set(left[1].split(", ") if left else ()), said
    arn = cloud.state()["resources"][key]["values"]["arn"]
    assert [thing.arn for thing in things(cloud.aws).values()] == [arn]
    assert cloud.plan(*arguments)[key] == ("wait", "CREATING")
    release()
    cloud.run("provision", "--yes", *arguments)
    assert cloud.aws.count(makes) == 1 and cloud.state()["resources"][key]["values"]["arn"] == arn
    assert not differences(snapshot(cloud), wanted) and cloud.plan(*arguments) == {}


def test_a_cluster_that_is_never_up_in_time_is_the_same_one_after_three_runs(cloud, clock):
    begin(cloud, "cluster")
    release = hold(cloud, "CreateClusterV2", CLUSTERS)
    for _ in range(3):
        assert "cluster `me-cluster` is still CREATING" in outlived(cloud, clock, "CreateClusterV2", "provision", "--yes")
    release()
    cloud.run("provision", "--yes")
    assert cloud.aws.count("CreateClusterV2") == 1 and cloud.plan() == {}


@pytest.mark.parametrize("key, operation, things, settings", [
    ("cluster", "UpdateBrokerStorage", CLUSTERS, {"settings": "[cluster]\nvolume_gib = 200\n"}),
    ("connector", "UpdateConnector", CONNECTORS, {"connector": "mcu = 2"})])
def test_a_change_that_is_not_done_in_time_is_waited_for_and_not_asked_for_again(cloud, clock, key, operation, things, settings):
    begin(cloud, key)
    cloud.run("provision", "--yes")
    cloud.configure(**settings, provision="wait_minutes = 1")
    release = hold(cloud, operation, things)
    said = outlived(cloud, clock, operation, "provision", "--yes")
    assert re.search(rf"^error: {SLOW[key][1]} is still UPDAT\w+ after \d+ min \d+ s$", said, re.M) and "\nhint: " in said, said
    assert cloud.plan()[key] == ("wait", "UPDATING")
    release()
    cloud.run("provision", "--yes")
    assert cloud.aws.count(operation) == 1 and cloud.plan() == {}


@pytest.mark.parametrize("key, operation", [("cluster", "DeleteCluster"), ("connector", "DeleteConnector"), ("airflow", "DeleteEnvironment")])
def test_what_is_not_gone_in_time_is_gone_after_the_next_destroy(cloud, clock, key, operation):
    _, called, things, arguments, _ = SLOW[key]
    begin(cloud, key)
    empty = cloud.aws.snapshot()
    cloud.run("provision", "--yes", *arguments)
    release = hold(cloud, operation, things)
    said = outlived(cloud, clock, operation, "destroy", "--yes")
    assert re.search(rf"^error: {called} is still \w+ after \d+ min \d+ s$", said, re.M), said
    release()
    cloud.run("destroy", "--yes")
    assert cloud.aws.count(operation) == 1 and not differences(cloud.aws.snapshot(), empty)


def test_who_follows_the_hint_to_what_is_not_gone_in_time_gets_rid_of_it(cloud, clock):
    begin(cloud, "cluster")
    cloud.run("provision", "--yes")
    release = hold(cloud, "DeleteCluster", CLUSTERS)
    hint = re.search(r"^hint: (.*)", outlived(cloud, clock, "DeleteCluster", "destroy", "--yes"), re.M)[1]
    release()
    assert "the same command waits" in hint and "`pinpipe provision`" not in hint and "being made" not in hint, hint


@pytest.mark.parametrize("key", ["cluster", "airflow"])
def test_what_is_still_being_made_when_it_is_to_go_says_so_and_goes_later(cloud, clock, key):
    makes, called, things, arguments, _ = SLOW[key]
    begin(cloud, key)
    empty = cloud.aws.snapshot()
    release = hold(cloud, makes, things)
    outlived(cloud, clock, makes, "provision", "--yes", *arguments)
    said = outlived(cloud, clock, makes, "destroy", "--yes")
    assert called in said and "CREATING" in said and "\nhint: " in said, said
    assert len(things(cloud.aws)) == 1 and cloud.state()["resources"][key]["values"]["arn"]
    release()
    cloud.run("destroy", "--yes")
    assert not differences(cloud.aws.snapshot(), empty) and not (cloud.data / "aws" / "state.json").exists()
