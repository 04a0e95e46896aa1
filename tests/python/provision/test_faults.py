"""`provision` and `destroy` where AWS fails: errors, lost answers, refusals, throttling, late sight, failed resources, Ctrl-C."""

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
    hanging,
    interrupted,
)

pytestmark = pytest.mark.slow

UPDATES = '''[cluster]
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
'''


@pytest.fixture
def cloud(broken_cloud):
    return broken_cloud


@pytest.fixture
def wanted(account, tmp_path_factory):
    """What an apply makes that nothing disturbs."""
    cloud = BrokenCloud(tmp_path_factory.mktemp("wanted"), *account)
    cloud.run("provision", "--yes")
    return cloud.aws.snapshot()


# Of calls that differ in nothing but the route they are for, two of each kind: there are fifty.
@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_every_change_fails_once_and_the_same_run_still_makes_everything(cloud, wanted, when, kind):
    empty = (cloud.clear(), cloud.aws.snapshot())[1]
    fits = Once(at_most=3)
    setattr(cloud.aws, f"{when}_call", failing(fits, FAULTS[kind]))
    code, said = cloud.ends("provision", "--yes")
    assert code == 0, said
    assert len(fits.met) > 50 and not differences(cloud.aws.snapshot(), wanted)
    fits = Once(at_most=3)
    setattr(cloud.aws, f"{when}_call", failing(fits, FAULTS[kind]))
    code, said = cloud.ends("destroy", "--yes")
    assert code == 0, said
    assert len(fits.met) > 25 and not differences(cloud.aws.snapshot(), empty)


@pytest.mark.parametrize("kind", FAULTS)
def test_every_answer_to_a_change_of_settings_gets_lost_once_and_the_same_run_still_changes_everything(cloud, kind):
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
    code, said = cloud.ends("provision", "--yes")
    assert code == 0, said
    assert len(fits.met) > 30 and not differences(cloud.aws.snapshot(), wanted) and cloud.plan() == {}


def test_four_changes_of_the_cluster_are_made_in_one_run(cloud):
    cloud.run("provision", "--yes")
    cloud.configure(UPDATES.replace("brokers = 6", 'brokers = 6\ninstance_type = "kafka.m5.xlarge"'))
    cloud.run("provision", "--yes")
    assert cloud.plan() == {}


def test_every_change_is_refused_once_and_each_refusal_says_what_to_allow(cloud, wanted):
    cloud.clear()
    fits, refused, runs = Once(), [], 0

    def refuse(call):
        if fits(call):
            refused.append(call)
            raise cloud.aws.access.error(call, action_of(call), resource_of(call, cloud.aws.account))

    cloud.aws.before_call = refuse
    code = 1
    while code:
        refused.clear()
        code, said = cloud.ends("provision", "--yes")
        runs += 1
        assert runs < 100, f"no run makes progress: {fits.met}"
        assert bool(code) == bool(refused) and code in (0, 1), said
        told = {found["request"]: found for found in REFUSAL.finditer(said)}
        for call in refused:
            assert call.request_id in told, f"{call.name} is not told of: {said}"
            assert told[call.request_id]["action"] == action_of(call) and told[call.request_id]["what"], said
            assert told[call.request_id]["code"] in ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation"), said
        assert not code or "\nhint: allow the action `" in said, said
    assert runs > 20 and len(fits.met) > 90 and not differences(cloud.aws.snapshot(), wanted)


@pytest.mark.parametrize("reads", [2, 5])
def test_what_is_seen_late_is_not_made_twice(cloud, wanted, reads):
    cloud.clear()
    cloud.aws.stale_reads(reads)
    cloud.run("provision", "--yes", env=PATIENT)
    assert not differences(cloud.aws.snapshot(), wanted) and cloud.plan() == {}


def test_what_is_seen_late_is_not_made_twice_when_answers_get_lost(cloud, wanted):
    cloud.clear()
    cloud.aws.stale_reads(3)
    fits = Once()
    cloud.aws.after_call = failing(lambda call: call.name in MAKES and fits(call), FAULTS["drop"])
    cloud.run("provision", "--yes", env=PATIENT)
    assert {name for name, _ in fits.met} == MAKES and not differences(cloud.aws.snapshot(), wanted)


def test_what_is_seen_late_is_not_made_twice_by_the_runs_after_kills(cloud, wanted):
    cloud.clear()
    cloud.aws.stale_reads(3)
    fits = Once()
    while cloud.killed("provision", "--yes", fits=lambda call: call.name in MAKES and fits(call), late=False, env=PATIENT):
        pass
    assert {name for name, _ in fits.met} == MAKES and not differences(cloud.aws.snapshot(), wanted)


def test_throttled_services_only_slow_an_apply_down(cloud, wanted):
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


def test_credentials_that_expire_are_told_of_and_new_ones_go_on(cloud, wanted):
    cloud.clear()

    def expire(call):
        if call.operation == "CreateClusterV2":
            cloud.aws.expired_credentials()

    cloud.aws.after_call = expire
    code, said = cloud.ends("provision", "--yes")
    assert code == 1 and "hint: the credentials have expired or are wrong" in said, said
    code, said = cloud.ends("provision", "--plan")
    assert code == 1 and "hint: the credentials have expired or are wrong" in said, said
    cloud.aws.expired_credentials(False)
    cloud.run("provision", "--yes")
    assert not differences(cloud.aws.snapshot(), wanted)


# The codes that the services' own references give.
QUOTAS = [
    ("AllocateAddress", "AddressLimitExceeded"), ("RunInstances", "VcpuLimitExceeded"), ("CreateSecurityGroup", "SecurityGroupLimitExceeded"),
    ("CreateRole", "LimitExceeded"), ("CreateBucket", "TooManyBuckets"), ("CreateStream", "LimitExceededException"),
    ("CreateRestApi", "LimitExceededException"), ("PutParameter", "ParameterLimitExceeded"),
]


@pytest.mark.parametrize("operation, quota", QUOTAS)
def test_a_quota_that_is_used_up_is_told_of_and_the_run_goes_on_once_there_is_more(cloud, wanted, operation, quota):
    cloud.clear()
    cloud.aws.before_call = failing(lambda call: call.operation == operation, lambda call: Fault(400, quota, "you have reached your limit"))
    code, said = cloud.ends("provision", "--yes")
    assert code == 1 and re.search(rf"{quota}: you have reached your limit \(request [\w-]+\)", said), said
    assert "hint: a quota of the account is used up" in said, said
    cloud.aws.before_call = None
    cloud.run("provision", "--yes")
    assert not differences(cloud.aws.snapshot(), wanted)


def test_profiles_and_roles_that_other_services_hear_of_late_are_waited_for(cloud, wanted):
    cloud.clear()
    iam = cloud.aws.services["iam"]

    def delay(call):
        if call.operation == "RunInstances" and not cloud.aws.profile_delay_calls:
            cloud.aws.profile_delay_calls = call.number - max(iam.profile_made.values()) + 8
        if call.operation == "CreateConnector" and not cloud.aws.role_delay_calls:
            cloud.aws.role_delay_calls = call.number - max(iam.role_made.values()) + 10

    cloud.aws.before_call = delay
    cloud.run("provision", "--yes")
    assert cloud.aws.count("RunInstances") > 1 and cloud.aws.count("CreateConnector") > 1
    assert not differences(cloud.aws.snapshot(), wanted)


def test_ctrl_c_ends_a_wait_and_the_next_run_goes_on(cloud, wanted):
    cloud.clear()
    cloud.aws.settle_reads = 60
    process = cloud.start("provision", "--yes")
    hanging(cloud.aws, "CreateClusterV2", process)
    time.sleep(0.2)
    assert "cluster `me-cluster` is still CREATING" in interrupted(cloud, process)
    cloud.aws.settle_reads = 1
    cloud.run("provision", "--yes")
    assert cloud.aws.count("CreateClusterV2") == 1 and not differences(cloud.aws.snapshot(), wanted)


@pytest.mark.parametrize("operation", ["DescribeVpcs", "CreateSecurityGroup", "CreateClusterV2"])
def test_ctrl_c_ends_a_run_that_is_throttled(cloud, wanted, operation):
    cloud.clear()
    cloud.aws.fail_operation(operation, times=10**6, status=503, code="ServiceUnavailable")
    process = cloud.start("provision", "--yes")
    hanging(cloud.aws, operation, process)
    time.sleep(4)
    interrupted(cloud, process)
    cloud.clear()


# How soon it fails: before anybody looks, or while it is waited for.
@pytest.mark.parametrize("settle_reads", [0, 4])
@pytest.mark.parametrize("kind, makes, flags", [
    ("cluster", "CreateClusterV2", ("--allow-recreate",)), ("connector", "CreateConnector", ()), ("plugin", "CreateCustomPlugin", ())])
def test_what_fails_to_come_up_says_why_and_is_made_anew_by_the_next_run(cloud, wanted, kind, makes, flags, settle_reads):
    cloud.clear()
    cloud.aws.settle_reads = settle_reads
    cloud.aws.outcome = breaks(kind)
    code, said = cloud.ends("provision", "--yes")
    assert code == 1 and f"error: {kind} `me-{kind}`" in said and "\nhint: " in said, said
    # MSK Connect gives no reason in the list of plugins; the hint says what it can be.
    assert "the reason of it" in said or kind == "plugin", said
    assert cloud.aws.count(makes) == 1, "what has failed is made again only by another run"
    assert cloud.plan()[kind][0] == "recreate"
    cloud.aws.outcome = lambda *_: None
    cloud.run("provision", "--yes", *flags)
    assert not differences(cloud.aws.snapshot(), wanted)


@pytest.mark.parametrize("kind, settings, calls", [
    ("cluster", {"settings": "[cluster]\nvolume_gib = 200\n"}, "UpdateBrokerStorage"), ("connector", {"connector": "mcu = 2"}, "UpdateConnector")])
def test_a_change_that_fails_says_why_although_the_resource_works_again(cloud, kind, settings, calls):
    cloud.run("provision", "--yes")
    cloud.configure(**settings)
    cloud.aws.outcome = breaks(f"{kind}-update")
    code, said = cloud.ends("provision", "--yes")
    assert code == 1 and "the reason of it" in said and "\nhint: " in said, said
    assert cloud.aws.count(calls) == 1
    assert cloud.plan()[kind][0] == "update"
    cloud.aws.outcome = lambda *_: None
    cloud.run("provision", "--yes")
    assert cloud.plan() == {}


def test_a_cluster_that_fails_while_it_is_waited_for_does_not_stop_destroy(cloud):
    empty = cloud.aws.snapshot()
    cloud.aws.settle_reads = 100
    process = cloud.start("provision", "--yes")
    hanging(cloud.aws, "CreateClusterV2", process)
    interrupted(cloud, process)
    cloud.aws.settle_reads = 1
    cloud.aws.outcome = breaks("cluster")
    cloud.run("destroy", "--yes")
    assert not differences(cloud.aws.snapshot(), empty)


def test_a_machine_that_ends_right_after_its_launch_is_launched_again_by_the_next_run(cloud, wanted):
    cloud.clear()
    ec2 = cloud.aws.services["ec2"]

    def end(call):
        if call.operation == "RunInstances" and cloud.aws.count("RunInstances") == 1:
            for instance in ec2.instances("us-east-1"):
                ec2.lifecycles.pop(instance.id, None)
                ec2.set_state(instance, "terminated")

    cloud.aws.after_call = end
    cloud.ends("provision", "--yes")
    cloud.run("provision", "--yes")
    assert not differences(cloud.aws.snapshot(), wanted)


@pytest.mark.parametrize("how", ["stop_instances", "terminate_instances"])
def test_a_machine_that_is_down_is_seen_brought_back_and_removed(cloud, wanted, how):
    cloud.clear()
    empty = cloud.aws.snapshot()
    ec2 = cloud.boto("ec2")

    def down():
        cloud.run("provision", "--yes")
        found = [instance for reservation in ec2.describe_instances()["Reservations"] for instance in reservation["Instances"]]
        getattr(ec2, how)(InstanceIds=[instance["InstanceId"] for instance in found if instance["State"]["Name"] == "running"])
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
