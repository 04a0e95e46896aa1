"""Ctrl-C in the middle of `provision` and `destroy`: they end soon and say so, nothing is orphaned, and the next run goes on."""

import os
import pty
import signal
import subprocess
import threading
import time

import pytest

from doubles.aws import Fault
from doubles.aws.invoke import INVOKE
from support.faults import (
    LARGE_ZIP,
    MAKES,
    BrokenCloud,
    Kill,
    Nth,
    Point,
    changes,
    differences,
    hanging,
    interrupted,
)
from support.pinpipe import BINARY, clean_environment
from support.wait import wait_until

pytestmark = pytest.mark.slow

SOON = 6

# Calls of an apply, from its first change to its last.
CALLS = [
    "ec2.CreateSecurityGroup", "iam.PutRolePolicy", "s3.CreateBucket", "ec2.AllocateAddress", "kafka.CreateClusterV2", "ec2.RunInstances",
    "ssm.SendCommand", "kafkaconnect.CreateConnector", "apigateway.PutIntegration", "apigateway.CreateUsagePlanKey"]


@pytest.fixture
def cloud(broken_cloud):
    return broken_cloud


@pytest.fixture(scope="module")
def wanted(account, tmp_path_factory):
    """What an apply makes that nothing disturbs."""
    cloud = BrokenCloud(tmp_path_factory.mktemp("wanted"), *account)
    cloud.run("provision", "--yes")
    return cloud.aws.snapshot()


class Interrupt(Kill):
    """A hook that sends a process Ctrl-C at the first call that fits; the call goes on."""

    def __call__(self, call):
        with self.lock:
            if self.call or not self.fits(call):
                return
            self.call = call
        assert self.is_started.wait(10)
        self.began = time.time()
        self.process.send_signal(signal.SIGINT)


def interrupted_at(cloud, fits, *arguments, when="after"):
    """Runs until a call fits, and is interrupted there. Returns what it says; nothing: it came to its end."""
    hook = Interrupt(fits)
    setattr(cloud.aws, f"{when}_call", hook)
    hook.process = cloud.start(*arguments)
    hook.is_started.set()
    _, said = hook.process.communicate(timeout=60)
    cloud.aws.before_call = cloud.aws.after_call = None
    if hook.call is None:
        assert hook.process.returncode == 0, said
        return None
    assert time.time() - hook.began < SOON, said
    assert hook.process.returncode == 1 and said.count("error: ") == 1 and "panicked" not in said, said
    assert "error: stopped" in said and "hint: " in said and "the same command goes on from here" in said, said
    return said


@pytest.mark.parametrize("operation", CALLS)
def test_ctrl_c_at_a_call_of_an_apply_ends_it_and_the_next_one_goes_on(cloud, wanted, operation):
    cloud.clear()
    said = interrupted_at(cloud, Point(operation, 1), "provision", "--yes")
    assert said, f"nobody calls {operation}"
    cloud.run("provision", "--yes")
    assert not differences(cloud.aws.snapshot(), wanted) and cloud.plan() == {}
    assert {name: cloud.aws.count(name) for name in MAKES} == {**dict.fromkeys(MAKES, 1), "ec2.CreateSecurityGroup": 2}


@pytest.mark.parametrize("operation", CALLS[::3])
def test_ctrl_c_at_a_call_of_an_apply_leaves_nothing_that_destroy_does_not_find(cloud, operation):
    cloud.clear()
    empty = cloud.aws.snapshot()
    assert interrupted_at(cloud, Point(operation, 1), "provision", "--yes", when="before")
    cloud.run("destroy", "--yes")
    assert not differences(cloud.aws.snapshot(), empty)


def test_an_apply_interrupted_every_few_changes_ends_as_one_undisturbed(cloud, wanted):
    cloud.clear()
    times = 0
    while interrupted_at(cloud, Nth(6), "provision", "--yes"):
        times += 1
        assert times < 60, "no run makes progress"
    assert times > 2 and not differences(cloud.aws.snapshot(), wanted) and cloud.plan() == {}


@pytest.mark.parametrize("operation", ["kafka.DeleteCluster", "ec2.TerminateInstances", "apigateway.DeleteRestApi"])
def test_ctrl_c_at_a_call_of_destroy_ends_it_and_the_next_one_goes_on(cloud, operation):
    cloud.clear()
    empty = cloud.aws.snapshot()
    cloud.run("provision", "--yes")
    assert interrupted_at(cloud, Point(operation, 1), "destroy", "--yes"), f"nobody calls {operation}"
    cloud.run("destroy", "--yes")
    assert not differences(cloud.aws.snapshot(), empty) and cloud.aws.count("DeleteCluster") == 1


# What is waited for, by the call after which it takes for ever, and what is then said of it.
WAITS = {
    "kafka.CreateClusterV2": ("cluster `me-cluster`", lambda aws: aws.services["kafka"].clusters),
    "kafkaconnect.CreateCustomPlugin": ("plugin `me-plugin`", lambda aws: aws.services["kafkaconnect"].plugins),
    "kafkaconnect.CreateConnector": ("connector `me-connector`", lambda aws: aws.services["kafkaconnect"].connectors),
    "ssm.SendCommand": ("a command on the machine `i-", lambda aws: aws.services["ssm"].commands),
}


def test_a_stop_hides_nothing_that_failed_before_it(cloud):
    cloud.clear()

    def refuse(call):
        if call.operation == "CreateStream":
            raise Fault(400, "AccessDeniedException", "not allowed to you")

    def hold(call):
        if call.name == "kafka.CreateClusterV2":
            for thing in cloud.aws.services["kafka"].clusters.values():
                thing.lifecycle.remaining = 10**6

    cloud.aws.before_call, cloud.aws.after_call = refuse, hold
    process = cloud.start("provision", "--yes")
    hanging(cloud.aws, "kafka.CreateClusterV2", process)
    wait_until(lambda: len(cloud.aws.calls) > 40 and not any(map(changes, cloud.aws.calls[-12:])), "nothing but waiting")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and "stopped: cluster `me-cluster` is still CREATING" in said, said
    assert "AccessDeniedException: not allowed to you" in said and said.count("stopped") == 1, said


@pytest.mark.parametrize("operation, how", [*((operation, signal.SIGINT) for operation in WAITS), ("kafka.CreateClusterV2", signal.SIGTERM)])
def test_a_stop_ends_any_wait_at_once_and_names_what_was_waited_for(cloud, wanted, operation, how):
    called, things = WAITS[operation]
    cloud.clear()

    def hold(call):
        if call.name == operation:
            for thing in things(cloud.aws).values():
                thing.lifecycle.remaining = 10**6

    cloud.aws.after_call = hold
    process = cloud.start("provision", "--yes")
    hanging(cloud.aws, operation, process)
    wait_until(lambda: len(cloud.aws.calls) > 40 and not any(map(changes, cloud.aws.calls[-12:])), "nothing but waiting")
    began = time.time()
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    assert time.time() - began < 1.5 and process.returncode == 1, said
    assert f"stopped: {called}" in said and " is still " in said and "the same command goes on from here" in said, said
    cloud.aws.after_call = None
    for thing in things(cloud.aws).values():
        thing.lifecycle.remaining = min(thing.lifecycle.remaining, 1)
    cloud.run("provision", "--yes")
    assert not differences(cloud.aws.snapshot(), wanted) and cloud.plan() == {}
    assert operation == "ssm.SendCommand" or cloud.aws.count(operation) == 1


@pytest.mark.parametrize("operation", ["ec2.AllocateAddress", "ec2.RunInstances", "apigateway.CreateRestApi"])
def test_what_was_made_by_a_call_whose_answer_was_not_awaited_is_found_by_the_next_run(cloud, wanted, operation):
    cloud.clear()
    answered = threading.Event()

    def hang(call):
        if call.name == operation:
            answered.wait(20)

    cloud.aws.after_call = hang
    process = cloud.start("provision", "--yes")
    hanging(cloud.aws, operation, process)
    wait_until(lambda: cloud.aws.count(operation), operation)
    interrupted(cloud, process)
    answered.set()
    cloud.aws.after_call = None
    cloud.run("provision", "--yes")
    assert cloud.aws.count(operation) == 1 and not differences(cloud.aws.snapshot(), wanted)


def unavailable(cloud, operation, *arguments):
    """What a run says that is interrupted while AWS answers an operation with nothing but errors."""
    before = cloud.aws.count(operation)
    cloud.aws.fail_operation(operation, times=10**6, status=503, code="ServiceUnavailable")
    process = cloud.start(*arguments)
    # By then it is between two attempts that are far apart.
    wait_until(lambda: cloud.aws.count(operation) > before + 1 or process.poll() is not None, operation)
    began = time.time()
    process.send_signal(signal.SIGINT)
    try:
        _, said = process.communicate(timeout=SOON)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"{arguments} goes on {SOON} s after Ctrl-C: {process.communicate()[1]}") from None
    finally:
        cloud.aws.faults.clear()
    assert process.returncode == 1 and said.count("error: ") == 1 and "error: stopped" in said, f"{time.time() - began:.1f} s\n{said}"
    return said


@pytest.mark.parametrize("operation", ["GetCallerIdentity", "ListKafkaVersions", "DescribeRouteTables", "UploadPart"])
def test_ctrl_c_ends_an_apply_whatever_call_aws_has_no_answer_to(cloud, wanted, operation):
    cloud.clear()
    if operation == "UploadPart":
        (cloud.folder / "sink.zip").write_bytes(LARGE_ZIP)
    unavailable(cloud, operation, "provision", "--yes")
    (cloud.folder / "sink.zip").write_bytes(b"PK: a zip that never changes")
    cloud.run("provision", "--yes")
    assert not differences(cloud.aws.snapshot(), wanted)


@pytest.mark.parametrize("operation", ["GetCallerIdentity", "DeleteConnector", "DeleteRole"])
def test_ctrl_c_ends_a_destroy_whatever_call_aws_has_no_answer_to(cloud, operation):
    cloud.clear()
    empty = cloud.aws.snapshot()
    cloud.run("provision", "--yes")
    unavailable(cloud, operation, "destroy", "--yes")
    cloud.run("destroy", "--yes")
    assert not differences(cloud.aws.snapshot(), empty)


def test_ctrl_c_ends_an_apply_that_first_removes_what_is_not_wanted_any_more(cloud):
    cloud.clear()
    cloud.run("provision", "--yes")
    cloud.configure('[api]\nauth = "none"\n')
    unavailable(cloud, "DeleteApiKey", "provision", "--yes")
    cloud.run("provision", "--yes")
    assert cloud.plan() == {} and cloud.aws.snapshot()["api keys"] == []


def test_ctrl_c_ends_a_command_for_topics_that_waits_for_the_machine(cloud):
    cloud.clear()
    cloud.run("provision", "--yes")
    before, commands = cloud.aws.count("SendCommand"), cloud.aws.services["ssm"].commands

    def hold(call):
        if call.operation == "SendCommand":
            list(commands.values())[-1].lifecycle.remaining = 10**6

    cloud.aws.after_call = hold
    process = cloud.start("topics", "list")
    wait_until(lambda: cloud.aws.count("SendCommand") > before or process.poll() is not None, "the command")
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    try:
        process.wait(SOON)
    finally:
        process.kill()
        said = process.communicate()[1]
        cloud.aws.after_call = None
    assert process.returncode != 0 and "panicked" not in said, said


def test_ctrl_c_ends_the_last_look_at_an_api_that_does_not_answer(cloud, monkeypatch):
    cloud.clear()
    invoker, asked, answered = cloud.aws.invoker, threading.Event(), threading.Event()

    class Hanging:
        def answer(self, environ):
            if INVOKE.fullmatch(environ["PATH_INFO"]):
                asked.set()
                answered.wait(30)
            return invoker.answer(environ)

    monkeypatch.setattr(cloud.aws, "invoker", Hanging())
    process = cloud.start("provision", "--yes")
    try:
        assert asked.wait(60), "nobody looks at the API"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        process.wait(SOON)
    finally:
        answered.set()
        process.kill()
        process.communicate()
    # All has been made before.
    assert cloud.plan() == {}


@pytest.mark.parametrize("arguments", [("provision", "--plan"), ("provision", "--yes"), ("status",), ("destroy", "--yes")])
def test_ctrl_c_while_everything_is_looked_at_changes_nothing(cloud, arguments):
    cloud.clear()
    cloud.run("provision", "--yes", "--only", "api-key,stream")
    before, since = cloud.aws.snapshot(), len(cloud.aws.calls)
    hook = Interrupt(lambda call: call.operation in ("DescribeVpcs", "DescribeSecurityGroups", "GetApiKeys", "GetApiKey"))
    cloud.aws.before_call = hook
    hook.process = cloud.start(*arguments)
    hook.is_started.set()
    out, said = hook.process.communicate(timeout=60)
    cloud.aws.before_call = None
    assert hook.call and time.time() - hook.began < SOON and hook.process.returncode == 1, said
    assert out == "" and "error: stopped" in said and said.count("error: ") == 1, said
    assert not [call.name for call in cloud.aws.calls[since:] if changes(call)] and not differences(cloud.aws.snapshot(), before)


@pytest.mark.parametrize("command", ["provision", "destroy"])
def test_ctrl_c_at_the_question_ends_it_and_changes_nothing(cloud, command):
    cloud.clear()
    cloud.run("provision", "--yes", "--only", "api-key")
    before = cloud.aws.snapshot()
    terminal, theirs = pty.openpty()
    process = subprocess.Popen([BINARY, command], cwd=cloud.folder, env=clean_environment(**cloud.environment), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    said = b""
    try:
        while b"Type yes to go on" not in said:
            said += os.read(terminal, 4096)
        process.send_signal(signal.SIGINT)
        assert process.wait(SOON) != 0
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
        os.close(theirs)
    assert not differences(cloud.aws.snapshot(), before)
    # Nothing holds up the next run.
    cloud.run("destroy", "--yes")
