"""`provision` and `destroy` when AWS fails: errors, lost responses, denials, throttling, stale
reads, failed resources, Ctrl-C.
"""

import re
import time

import pytest

from doubles.aws import Fault
from doubles.aws.access import action_of, resource_of
from support.faults import (
    FAULTS,
    MAKES,
    PATIENT,
    REFUSAL,
    BrokenCloud,
    Once,
    breaks,
    changes,
    differences,
    failing,
    interrupt,
    wait_for_call,
)

pytestmark = pytest.mark.slow

UPDATES = """[cluster]
volume_gib = 200
brokers = 6
kafka_version = "3.5.1"
[kinesis]
shards = 8
retention_hours = 48
[client]
ssh_from = ["10.0.0.0/8"]
proxy_from = ["10.1.0.0/16"]
[aws.tags]
team = "data"
"""


@pytest.fixture
def cloud(broken_cloud):
    return broken_cloud


@pytest.fixture
def wanted(account, tmp_path_factory):
    """The snapshot after an undisturbed apply."""
    cloud = BrokenCloud(tmp_path_factory.mktemp("wanted"), *account)
    cloud.run("provision", "--yes")
    return cloud.aws.snapshot()


# At most three calls of an operation: the routes of the API alone take fifty.
@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_calls_failing_once_are_retried_in_the_same_run(cloud, wanted, when, kind):
    empty = (cloud.clear(), cloud.aws.snapshot())[1]
    fits = Once(at_most=3)
    setattr(cloud.aws, f"{when}_call", failing(fits, FAULTS[kind]))
    code, stderr = cloud.run_to_end("provision", "--yes")
    assert code == 0, stderr
    assert len(fits.met) > 50 and not differences(cloud.aws.snapshot(), wanted)
    fits = Once(at_most=3)
    setattr(cloud.aws, f"{when}_call", failing(fits, FAULTS[kind]))
    code, stderr = cloud.run_to_end("destroy", "--yes")
    assert code == 0, stderr
    assert len(fits.met) > 25 and not differences(cloud.aws.snapshot(), empty)


@pytest.mark.parametrize("kind", FAULTS)
def test_updates_survive_lost_responses(cloud, kind):
    cloud.run("provision", "--yes")
    cloud.configure(UPDATES, connector="mcu = 2")
    cloud.run("provision", "--yes")
    wanted = cloud.aws.snapshot()
    cloud.configure()
    cloud.clear()
    cloud.run("provision", "--yes")
    cloud.configure(UPDATES, connector="mcu = 2")
    fits = Once(at_most=3)
    cloud.aws.after_call = failing(fits, FAULTS[kind])
    code, stderr = cloud.run_to_end("provision", "--yes")
    assert code == 0, stderr
    assert (
        len(fits.met) > 30 and not differences(cloud.aws.snapshot(), wanted) and cloud.plan() == {}
    )


def test_four_cluster_updates_are_applied_in_one_run(cloud):
    cloud.run("provision", "--yes")
    cloud.configure(
        UPDATES.replace("brokers = 6", 'brokers = 6\ninstance_type = "kafka.m5.xlarge"')
    )
    cloud.run("provision", "--yes")
    assert cloud.plan() == {}


def test_denied_calls_name_the_action_to_allow(cloud, wanted):
    cloud.clear()
    fits, refused, runs = Once(), [], 0

    def refuse(call):
        if fits(call):
            refused.append(call)
            raise cloud.aws.access.error(
                call, action_of(call), resource_of(call, cloud.aws.account)
            )

    cloud.aws.before_call = refuse
    code = 1
    while code:
        refused.clear()
        code, stderr = cloud.run_to_end("provision", "--yes")
        runs += 1
        assert runs < 100, f"no run makes progress: {fits.met}"
        assert bool(code) == bool(refused) and code in (0, 1), stderr
        reported = {found["request"]: found for found in REFUSAL.finditer(stderr)}
        for call in refused:
            assert call.request_id in reported, f"{call.name} is not reported of: {stderr}"
            assert (
                reported[call.request_id]["action"] == action_of(call)
                and reported[call.request_id]["what"]
            ), stderr
            assert reported[call.request_id]["code"] in (
                "AccessDenied",
                "AccessDeniedException",
                "UnauthorizedOperation",
            ), stderr
        assert not code or "\nhint: allow the action `" in stderr, stderr
    assert runs > 20 and len(fits.met) > 90 and not differences(cloud.aws.snapshot(), wanted)


@pytest.mark.parametrize("reads", [2, 5])
def test_eventually_consistent_reads_create_nothing_twice(cloud, wanted, reads):
    cloud.clear()
    cloud.aws.stale_reads(reads)
    cloud.run("provision", "--yes", env=PATIENT)
    assert not differences(cloud.aws.snapshot(), wanted) and cloud.plan() == {}


def test_eventually_consistent_reads_and_lost_responses_create_nothing_twice(cloud, wanted):
    cloud.clear()
    cloud.aws.stale_reads(3)
    fits = Once()
    cloud.aws.after_call = failing(lambda call: call.name in MAKES and fits(call), FAULTS["drop"])
    cloud.run("provision", "--yes", env=PATIENT)
    assert {name for name, _ in fits.met} == MAKES and not differences(cloud.aws.snapshot(), wanted)


def test_eventually_consistent_reads_and_kills_create_nothing_twice(cloud, wanted):
    cloud.clear()
    cloud.aws.stale_reads(3)
    fits = Once()
    while cloud.run_killed(
        "provision",
        "--yes",
        fits=lambda call: call.name in MAKES and fits(call),
        late=False,
        env=PATIENT,
    ):
        pass
    assert {name for name, _ in fits.met} == MAKES and not differences(cloud.aws.snapshot(), wanted)


def test_throttled_calls_are_retried(cloud, wanted):
    cloud.clear()
    begun = set()

    def burst(call):
        if changes(call) and call.service not in begun:
            begun.add(call.service)
            cloud.aws.throttle(3, call.service)
            if len(begun) == 3:
                cloud.aws.throttle(6)

    cloud.aws.before_call = burst
    cloud.run("provision", "--yes")
    assert len(begun) == 8 and sum(call.injected for call in cloud.aws.calls) == 30
    assert not differences(cloud.aws.snapshot(), wanted)


def test_expired_credentials_are_reported_and_new_ones_resume(cloud, wanted):
    cloud.clear()

    def expire(call):
        if call.operation == "CreateClusterV2":
            cloud.aws.expired_credentials()

    cloud.aws.after_call = expire
    code, stderr = cloud.run_to_end("provision", "--yes")
    assert code == 1 and "hint: the credentials are expired or invalid" in stderr, stderr
    code, stderr = cloud.run_to_end("provision", "--plan")
    assert code == 1 and "hint: the credentials are expired or invalid" in stderr, stderr
    cloud.aws.expired_credentials(False)
    cloud.run("provision", "--yes")
    assert not differences(cloud.aws.snapshot(), wanted)


# Error codes from the references of the services.
QUOTAS = [
    ("AllocateAddress", "AddressLimitExceeded"),
    ("RunInstances", "VcpuLimitExceeded"),
    ("CreateSecurityGroup", "SecurityGroupLimitExceeded"),
    ("CreateRole", "LimitExceeded"),
    ("CreateBucket", "TooManyBuckets"),
    ("CreateStream", "LimitExceededException"),
    ("CreateRestApi", "LimitExceededException"),
    ("PutParameter", "ParameterLimitExceeded"),
]


@pytest.mark.parametrize(("operation", "quota"), QUOTAS)
def test_exceeded_quota_is_reported_and_resumed(cloud, wanted, operation, quota):
    cloud.clear()
    cloud.aws.before_call = failing(
        lambda call: call.operation == operation,
        lambda call: Fault(400, quota, "you have reached your limit"),
    )
    code, stderr = cloud.run_to_end("provision", "--yes")
    assert code == 1 and re.search(
        rf"{quota}: you have reached your limit \(request [\w-]+\)", stderr
    ), stderr
    assert "hint: a quota of the account is exhausted" in stderr, stderr
    cloud.aws.before_call = None
    cloud.run("provision", "--yes")
    assert not differences(cloud.aws.snapshot(), wanted)


def test_profiles_and_roles_seen_late_are_waited_for(cloud, wanted):
    cloud.clear()
    iam = cloud.aws.services["iam"]

    def delay(call):
        if call.operation == "RunInstances" and not cloud.aws.profile_delay_calls:
            cloud.aws.profile_delay_calls = call.number - max(iam.profile_made.values()) + 8
        if call.operation == "CreateConnector" and not cloud.aws.role_delay_calls:
            cloud.aws.role_delay_calls = call.number - max(iam.role_made.values()) + 10

    cloud.aws.before_call = delay
    cloud.run("provision", "--yes", env=PATIENT)
    assert cloud.aws.count("RunInstances") > 1 and cloud.aws.count("CreateConnector") > 1
    assert not differences(cloud.aws.snapshot(), wanted)


def test_interrupted_wait_is_resumed(cloud, wanted):
    cloud.clear()
    cloud.aws.settle_reads = 60
    process = cloud.start("provision", "--yes")
    wait_for_call(cloud.aws, "CreateClusterV2", process)
    time.sleep(0.2)
    assert "cluster `me-cluster` is still CREATING" in interrupt(cloud, process)
    cloud.aws.settle_reads = 1
    cloud.run("provision", "--yes")
    assert cloud.aws.count("CreateClusterV2") == 1 and not differences(cloud.aws.snapshot(), wanted)


@pytest.mark.parametrize("operation", ["DescribeVpcs", "CreateSecurityGroup", "CreateClusterV2"])
def test_interrupt_ends_a_throttled_run(cloud, wanted, operation):
    cloud.clear()
    cloud.aws.fail_operation(operation, times=10**6, status=503, code="ServiceUnavailable")
    process = cloud.start("provision", "--yes")
    wait_for_call(cloud.aws, operation, process)
    time.sleep(4)
    interrupt(cloud, process)
    cloud.clear()


# It fails before the first read, or while it is waited for.
@pytest.mark.parametrize("settle_reads", [0, 4])
@pytest.mark.parametrize(
    ("kind", "makes", "flags"),
    [
        ("cluster", "CreateClusterV2", ("--allow-replace",)),
        ("connector", "CreateConnector", ()),
        ("plugin", "CreateCustomPlugin", ()),
    ],
)
def test_failed_resource_reports_its_reason_and_is_recreated(
    cloud, wanted, kind, makes, flags, settle_reads
):
    cloud.clear()
    cloud.aws.settle_reads = settle_reads
    cloud.aws.outcome = breaks(kind)
    code, stderr = cloud.run_to_end("provision", "--yes")
    named = re.search(rf"^error: (cannot create )?{kind} `me-{kind}`", stderr, re.M)
    assert code == 1 and named and "\nhint: " in stderr, stderr
    # MSK Connect returns no reason for a failed plugin; the hint names the possible ones.
    assert "the reason of it" in stderr or kind == "plugin", stderr
    assert cloud.aws.count(makes) == 1, "what has failed is made again only by another run"
    assert cloud.plan()[kind][0] == "replace"
    cloud.aws.outcome = lambda *_: None
    cloud.run("provision", "--yes", *flags)
    assert not differences(cloud.aws.snapshot(), wanted)


@pytest.mark.parametrize(
    ("kind", "settings", "calls"),
    [
        ("cluster", {"settings": "[cluster]\nvolume_gib = 200\n"}, "UpdateBrokerStorage"),
        ("connector", {"connector": "mcu = 2"}, "UpdateConnector"),
    ],
)
def test_failed_update_reports_its_reason(cloud, kind, settings, calls):
    cloud.run("provision", "--yes")
    cloud.configure(**settings)
    cloud.aws.outcome = breaks(f"{kind}-update")
    code, stderr = cloud.run_to_end("provision", "--yes")
    assert code == 1 and "the reason of it" in stderr and "\nhint: " in stderr, stderr
    assert cloud.aws.count(calls) == 1
    assert cloud.plan()[kind][0] == "update"
    cloud.aws.outcome = lambda *_: None
    cloud.run("provision", "--yes")
    assert cloud.plan() == {}


def test_failing_cluster_does_not_stop_destroy(cloud):
    empty = cloud.aws.snapshot()
    cloud.aws.settle_reads = 100
    process = cloud.start("provision", "--yes")
    wait_for_call(cloud.aws, "CreateClusterV2", process)
    interrupt(cloud, process)
    cloud.aws.settle_reads = 1
    cloud.aws.outcome = breaks("cluster")
    cloud.run("destroy", "--yes")
    assert not differences(cloud.aws.snapshot(), empty)


def test_machine_that_terminates_after_launch_is_replaced(cloud, wanted):
    cloud.clear()
    ec2 = cloud.aws.services["ec2"]

    def end(call):
        if call.operation == "RunInstances" and cloud.aws.count("RunInstances") == 1:
            for instance in ec2.instances("us-east-1"):
                ec2.lifecycles.pop(instance.id, None)
                ec2.set_state(instance, "terminated")

    cloud.aws.after_call = end
    cloud.run_to_end("provision", "--yes")
    cloud.run("provision", "--yes")
    assert not differences(cloud.aws.snapshot(), wanted)


@pytest.mark.parametrize("how", ["stop_instances", "terminate_instances"])
def test_stopped_machine_is_observed_restored_and_deleted(cloud, wanted, how):
    cloud.clear()
    empty = cloud.aws.snapshot()
    ec2 = cloud.boto("ec2")

    def down():
        cloud.run("provision", "--yes")
        found = [
            instance
            for reservation in ec2.describe_instances()["Reservations"]
            for instance in reservation["Instances"]
        ]
        getattr(ec2, how)(
            InstanceIds=[
                instance["InstanceId"]
                for instance in found
                if instance["State"]["Name"] == "running"
            ]
        )
        for _ in range(3):
            ec2.describe_instances()

    down()
    assert cloud.plan()["client"][0] == ("update" if how == "stop_instances" else "create")
    cloud.run("status")
    cloud.run("provision", "--yes")
    assert not differences(cloud.aws.snapshot(), wanted) and cloud.plan() == {}
    down()
    cloud.run("destroy", "--yes")
    assert not differences(cloud.aws.snapshot(), empty)
