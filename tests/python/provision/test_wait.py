"""`provision` and `destroy` when AWS takes longer than `provision.operation_timeout_minutes`: their
errors, and how the next run resumes.
"""

import re

import pytest

from doubles.aws import AwsDouble
from support.broken_schedule import two_subnets
from support.clock import Clock
from support.cloud import ip_ranges
from support.faults import BrokenCloud, differences, wait_for_call
from support.provisioned import toml
from support.wait import wait_until

pytestmark = pytest.mark.slow

AIRFLOW = ("--only", "group-airflow,role-airflow,bucket-airflow,airflow-requirements,airflow")


def clusters_of(aws):
    return aws.services["kafka"].clusters


def connectors_of(aws):
    return aws.services["kafkaconnect"].connectors


def environments_of(aws):
    return aws.services["mwaa"].environments


# By key: the call that creates it, its name in errors, its place in the double, the selection to
# apply, and its dependents.
SLOW = {
    "cluster": (
        "CreateClusterV2",
        "cluster `me-cluster`",
        clusters_of,
        (),
        {"topic-pin", "topic-geo", "topic-user", "connector"},
    ),
    "connector": ("CreateConnector", "connector `me-connector`", connectors_of, (), set()),
    "airflow": (
        "CreateEnvironment",
        "Airflow environment `me-airflow`",
        environments_of,
        AIRFLOW,
        set(),
    ),
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
    """Empties the account and configures a pipeline with the slow resource."""
    cloud.clear()
    sections = (
        {
            "airflow": {"enabled": True, "subnets": two_subnets(cloud)},
            "schedule": {"enabled": False},
        }
        if key == "airflow"
        else {}
    )
    cloud.configure(toml(sections), provision="operation_timeout_minutes = 1")


def hold(cloud, operation, things):
    """Keeps what a call starts from ever finishing; returns a function that releases it."""

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
    """Whether the last calls only poll one resource, by its list and by its name."""
    return len(calls) > 20 and len({call.operation for call in calls[-20:]}) <= 2


def run_into_timeout(cloud, clock, operation, *arguments):
    """Runs into the timeout of a call that never finishes; returns stderr."""
    clock.back()
    before = len(cloud.aws.calls)
    process = cloud.start(*arguments, env=clock.environment)
    wait_for_call(cloud.aws, operation, process)
    wait_until(
        lambda: process.poll() is not None or is_waiting(cloud.aws.calls[before:]),
        "nothing but waiting",
    )
    assert process.poll() is None, process.stderr.read()
    clock.forward()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1 and stderr.count("error: ") == 1 and "panicked" not in stderr, (
        stderr
    )
    return stderr


def snapshot(cloud):
    found = cloud.aws.snapshot()
    for environment in found["environments"]:
        # S3 generates the version; an empty plan shows that it is the right one.
        assert environment["settings"].pop("RequirementsS3ObjectVersion")
    return found


@pytest.mark.parametrize("key", SLOW)
def test_creation_timeout_is_resumed_by_the_next_run(cloud, clock, key):
    makes, label, things, arguments, waiting = SLOW[key]
    begin(cloud, key)
    cloud.run("provision", "--yes", *arguments)
    wanted = snapshot(cloud)
    begin(cloud, key)
    release = hold(cloud, makes, things)
    stderr = run_into_timeout(cloud, clock, makes, "provision", "--yes", *arguments)
    assert re.search(rf"^error: {label} is still CREATING after \d+ min \d+ s$", stderr, re.M), (
        stderr
    )
    assert re.search(
        r"^hint: .*re-run the command to wait again.*`provision.operation_timeout_minutes`",
        stderr,
        re.M,
    ), stderr
    left = re.search(r"skipped, because they depend on it: (.*)", stderr)
    assert waiting <= set(left[1].split(", ") if left else ()), stderr
    arn = cloud.state()["resources"][key]["values"]["arn"]
    assert [thing.arn for thing in things(cloud.aws).values()] == [arn]
    assert cloud.plan(*arguments)[key] == ("pending", "CREATING")
    release()
    cloud.run("provision", "--yes", *arguments)
    assert cloud.aws.count(makes) == 1 and cloud.state()["resources"][key]["values"]["arn"] == arn
    assert not differences(snapshot(cloud), wanted) and cloud.plan(*arguments) == {}


def test_cluster_is_created_once_across_three_timeouts(cloud, clock):
    begin(cloud, "cluster")
    release = hold(cloud, "CreateClusterV2", clusters_of)
    for _ in range(3):
        assert "cluster `me-cluster` is still CREATING" in run_into_timeout(
            cloud, clock, "CreateClusterV2", "provision", "--yes"
        )
    release()
    cloud.run("provision", "--yes")
    assert cloud.aws.count("CreateClusterV2") == 1 and cloud.plan() == {}


@pytest.mark.parametrize(
    ("key", "operation", "things", "settings"),
    [
        (
            "cluster",
            "UpdateBrokerStorage",
            clusters_of,
            {"settings": "[cluster]\nvolume_gib = 200\n"},
        ),
        ("connector", "UpdateConnector", connectors_of, {"connector": "mcu = 2"}),
    ],
)
def test_update_timeout_is_resumed_by_the_next_run(cloud, clock, key, operation, things, settings):
    begin(cloud, key)
    cloud.run("provision", "--yes")
    cloud.configure(**settings, provision="operation_timeout_minutes = 1")
    release = hold(cloud, operation, things)
    stderr = run_into_timeout(cloud, clock, operation, "provision", "--yes")
    assert (
        re.search(rf"^error: {SLOW[key][1]} is still UPDAT\w+ after \d+ min \d+ s$", stderr, re.M)
        and "\nhint: " in stderr
    ), stderr
    assert cloud.plan()[key] == ("pending", "UPDATING")
    release()
    cloud.run("provision", "--yes")
    assert cloud.aws.count(operation) == 1 and cloud.plan() == {}


@pytest.mark.parametrize(
    ("key", "operation"),
    [
        ("cluster", "DeleteCluster"),
        ("connector", "DeleteConnector"),
        ("airflow", "DeleteEnvironment"),
    ],
)
def test_deletion_timeout_is_resumed_by_the_next_destroy(cloud, clock, key, operation):
    _, label, things, arguments, _ = SLOW[key]
    begin(cloud, key)
    empty = cloud.aws.snapshot()
    cloud.run("provision", "--yes", *arguments)
    release = hold(cloud, operation, things)
    stderr = run_into_timeout(cloud, clock, operation, "destroy", "--yes")
    assert re.search(rf"^error: {label} is still \w+ after \d+ min \d+ s$", stderr, re.M), stderr
    release()
    cloud.run("destroy", "--yes")
    assert cloud.aws.count(operation) == 1 and not differences(cloud.aws.snapshot(), empty)


def test_deletion_timeout_hints_at_the_same_command(cloud, clock):
    begin(cloud, "cluster")
    cloud.run("provision", "--yes")
    release = hold(cloud, "DeleteCluster", clusters_of)
    hint = re.search(
        r"^hint: (.*)", run_into_timeout(cloud, clock, "DeleteCluster", "destroy", "--yes"), re.M
    )[1]
    release()
    assert (
        "re-run the command to wait again" in hint
        and "`pinpipe provision`" not in hint
        and "being created" not in hint
    ), hint


@pytest.mark.parametrize("key", ["cluster", "airflow"])
def test_destroy_waits_for_a_resource_under_creation(cloud, clock, key):
    makes, label, things, arguments, _ = SLOW[key]
    begin(cloud, key)
    empty = cloud.aws.snapshot()
    release = hold(cloud, makes, things)
    run_into_timeout(cloud, clock, makes, "provision", "--yes", *arguments)
    stderr = run_into_timeout(cloud, clock, makes, "destroy", "--yes")
    assert label in stderr and "CREATING" in stderr and "\nhint: " in stderr, stderr
    assert len(things(cloud.aws)) == 1 and cloud.state()["resources"][key]["values"]["arn"]
    release()
    cloud.run("destroy", "--yes")
    assert (
        not differences(cloud.aws.snapshot(), empty)
        and not (cloud.data / "aws" / "state.json").exists()
    )
