"""Ctrl-C during `provision` and `destroy`: they exit soon with an error, leave no orphans, and the
next run resumes.
"""

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
    SOON,
    BrokenCloud,
    Kill,
    Nth,
    Point,
    changes,
    differences,
    interrupt,
    wait_for_call,
)
from support.pinpipe import BINARY, clean_environment
from support.wait import wait_until

pytestmark = pytest.mark.slow

# Calls of an apply, from its first change to its last.
CALLS = [
    "ec2.CreateSecurityGroup",
    "iam.PutRolePolicy",
    "s3.CreateBucket",
    "ec2.AllocateAddress",
    "kafka.CreateClusterV2",
    "ec2.RunInstances",
    "ssm.SendCommand",
    "kafkaconnect.CreateConnector",
    "apigateway.PutIntegration",
    "apigateway.CreateUsagePlanKey",
]


@pytest.fixture
def cloud(broken_cloud):
    return broken_cloud


@pytest.fixture(scope="module")
def wanted(account, tmp_path_factory):
    """The snapshot after an undisturbed apply."""
    cloud = BrokenCloud(tmp_path_factory.mktemp("wanted"), *account)
    cloud.run("provision", "--yes")
    return cloud.aws.snapshot()


class Interrupt(Kill):
    """A hook that sends a process SIGINT at the first call that matches; the call continues."""

    def __call__(self, call):
        with self.lock:
            if self.call or not self.fits(call):
                return
            self.call = call
        assert self.is_started.wait(10)
        self.began = time.time()
        self.process.send_signal(signal.SIGINT)


def interrupted_at(cloud, fits, *arguments, when="after"):
    """Runs and is interrupted at the first call that matches; returns stderr, or None if the run
    finished.
    """
    hook = Interrupt(fits)
    setattr(cloud.aws, f"{when}_call", hook)
    hook.process = cloud.start(*arguments)
    hook.is_started.set()
    _, stderr = hook.process.communicate(timeout=60)
    cloud.aws.before_call = cloud.aws.after_call = None
    if hook.call is None:
        assert hook.process.returncode == 0, stderr
        return None
    assert time.time() - hook.began < SOON, stderr
    assert (
        hook.process.returncode == 1 and stderr.count("error: ") == 1 and "panicked" not in stderr
    ), stderr
    assert (
        "error: interrupted" in stderr
        and "hint: " in stderr
        and "re-run the command to resume" in stderr
    ), stderr
    return stderr


@pytest.mark.parametrize("operation", CALLS)
def test_interrupted_apply_is_resumed(cloud, wanted, operation):
    cloud.clear()
    stderr = interrupted_at(cloud, Point(operation, 1), "provision", "--yes")
    assert stderr, f"{operation} was not called"
    cloud.run("provision", "--yes")
    assert not differences(cloud.aws.snapshot(), wanted) and cloud.plan() == {}
    assert {name: cloud.aws.count(name) for name in MAKES} == {
        **dict.fromkeys(MAKES, 1),
        "ec2.CreateSecurityGroup": 2,
    }


@pytest.mark.parametrize("operation", CALLS[::3])
def test_destroy_after_an_interrupted_apply_leaves_nothing(cloud, operation):
    cloud.clear()
    empty = cloud.aws.snapshot()
    assert interrupted_at(cloud, Point(operation, 1), "provision", "--yes", when="before")
    cloud.run("destroy", "--yes")
    assert not differences(cloud.aws.snapshot(), empty)


def test_apply_interrupted_every_few_calls_converges(cloud, wanted):
    cloud.clear()
    times = 0
    while interrupted_at(cloud, Nth(6), "provision", "--yes"):
        times += 1
        assert times < 60, "no run makes progress"
    assert times > 2 and not differences(cloud.aws.snapshot(), wanted) and cloud.plan() == {}


@pytest.mark.parametrize(
    "operation", ["kafka.DeleteCluster", "ec2.TerminateInstances", "apigateway.DeleteRestApi"]
)
def test_interrupted_destroy_is_resumed(cloud, operation):
    cloud.clear()
    empty = cloud.aws.snapshot()
    cloud.run("provision", "--yes")
    assert interrupted_at(cloud, Point(operation, 1), "destroy", "--yes"), (
        f"{operation} was not called"
    )
    cloud.run("destroy", "--yes")
    assert not differences(cloud.aws.snapshot(), empty) and cloud.aws.count("DeleteCluster") == 1


# By the call after which a resource never becomes ready: its name in the error, and its place in
# the double.
WAITS = {
    "kafka.CreateClusterV2": ("cluster `me-cluster`", lambda aws: aws.services["kafka"].clusters),
    "kafkaconnect.CreateCustomPlugin": (
        "plugin `me-plugin`",
        lambda aws: aws.services["kafkaconnect"].plugins,
    ),
    "kafkaconnect.CreateConnector": (
        "connector `me-connector`",
        lambda aws: aws.services["kafkaconnect"].connectors,
    ),
    "ssm.SendCommand": ("a command on the machine `i-", lambda aws: aws.services["ssm"].commands),
}


def test_interrupt_does_not_hide_an_earlier_failure(cloud):
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
    wait_for_call(cloud.aws, "kafka.CreateClusterV2", process)
    wait_until(
        lambda: len(cloud.aws.calls) > 40 and not any(map(changes, cloud.aws.calls[-12:])),
        "nothing but waiting",
    )
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (
        process.returncode == 1 and "interrupted: cluster `me-cluster` is still CREATING" in stderr
    ), stderr
    assert (
        "AccessDeniedException: not allowed to you" in stderr and stderr.count("interrupted") == 1
    ), stderr


@pytest.mark.parametrize(
    ("operation", "how"),
    [
        *((operation, signal.SIGINT) for operation in WAITS),
        ("kafka.CreateClusterV2", signal.SIGTERM),
    ],
)
def test_interrupt_ends_any_wait_and_names_the_resource(cloud, wanted, operation, how):
    label, things = WAITS[operation]
    cloud.clear()

    def hold(call):
        if call.name == operation:
            for thing in things(cloud.aws).values():
                thing.lifecycle.remaining = 10**6

    cloud.aws.after_call = hold
    process = cloud.start("provision", "--yes")
    wait_for_call(cloud.aws, operation, process)
    wait_until(
        lambda: len(cloud.aws.calls) > 40 and not any(map(changes, cloud.aws.calls[-12:])),
        "nothing but waiting",
    )
    calls = len(cloud.aws.calls)
    process.send_signal(how)
    _, stderr = process.communicate(timeout=SOON)
    # At once: within fewer polls than a second and a half has.
    assert len(cloud.aws.calls) - calls < 90 and process.returncode == 1, stderr
    assert (
        f"interrupted: {label}" in stderr
        and " is still " in stderr
        and "re-run the command to resume" in stderr
    ), stderr
    cloud.aws.after_call = None
    for thing in things(cloud.aws).values():
        thing.lifecycle.remaining = min(thing.lifecycle.remaining, 1)
    cloud.run("provision", "--yes")
    assert not differences(cloud.aws.snapshot(), wanted) and cloud.plan() == {}
    assert operation == "ssm.SendCommand" or cloud.aws.count(operation) == 1


@pytest.mark.parametrize(
    "operation", ["ec2.AllocateAddress", "ec2.RunInstances", "apigateway.CreateRestApi"]
)
def test_resource_of_an_interrupted_call_is_adopted(cloud, wanted, operation):
    cloud.clear()
    answered = threading.Event()

    def hang(call):
        if call.name == operation:
            answered.wait(20)

    cloud.aws.after_call = hang
    process = cloud.start("provision", "--yes")
    wait_for_call(cloud.aws, operation, process)
    wait_until(lambda: cloud.aws.count(operation), operation)
    interrupt(cloud, process)
    answered.set()
    cloud.aws.after_call = None
    cloud.run("provision", "--yes")
    assert cloud.aws.count(operation) == 1 and not differences(cloud.aws.snapshot(), wanted)


def unavailable(cloud, operation, *arguments):
    """Interrupts a run while AWS answers an operation with errors only; returns its stderr."""
    before = cloud.aws.count(operation)
    cloud.aws.fail_operation(operation, times=10**6, status=503, code="ServiceUnavailable")
    process = cloud.start(*arguments)
    # It is now between two attempts that are seconds apart.
    wait_until(
        lambda: cloud.aws.count(operation) > before + 1 or process.poll() is not None, operation
    )
    began = time.time()
    process.send_signal(signal.SIGINT)
    try:
        _, stderr = process.communicate(timeout=SOON)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(
            f"{arguments} still runs {SOON} s after Ctrl-C: {process.communicate()[1]}"
        ) from None
    finally:
        cloud.aws.faults.clear()
    assert (
        process.returncode == 1 and stderr.count("error: ") == 1 and "error: interrupted" in stderr
    ), f"{time.time() - began:.1f} s\n{stderr}"
    return stderr


@pytest.mark.parametrize(
    "operation", ["GetCallerIdentity", "ListKafkaVersions", "DescribeRouteTables", "UploadPart"]
)
def test_interrupt_ends_an_apply_while_aws_is_unavailable(cloud, wanted, operation):
    cloud.clear()
    if operation == "UploadPart":
        (cloud.folder / "sink.zip").write_bytes(LARGE_ZIP)
    unavailable(cloud, operation, "provision", "--yes")
    (cloud.folder / "sink.zip").write_bytes(b"PK: a zip that never changes")
    cloud.run("provision", "--yes")
    assert not differences(cloud.aws.snapshot(), wanted)


@pytest.mark.parametrize("operation", ["GetCallerIdentity", "DeleteConnector", "DeleteRole"])
def test_interrupt_ends_a_destroy_while_aws_is_unavailable(cloud, operation):
    cloud.clear()
    empty = cloud.aws.snapshot()
    cloud.run("provision", "--yes")
    unavailable(cloud, operation, "destroy", "--yes")
    cloud.run("destroy", "--yes")
    assert not differences(cloud.aws.snapshot(), empty)


def test_interrupt_ends_an_apply_that_deletes_first(cloud):
    cloud.clear()
    cloud.run("provision", "--yes")
    cloud.configure('[api]\nauth = "none"\n')
    unavailable(cloud, "DeleteApiKey", "provision", "--yes")
    cloud.run("provision", "--yes")
    assert cloud.plan() == {} and cloud.aws.snapshot()["api keys"] == []


def test_interrupt_ends_a_topic_command_on_the_machine(cloud):
    cloud.clear()
    cloud.run("provision", "--yes")
    before, commands = cloud.aws.count("SendCommand"), cloud.aws.services["ssm"].commands

    def hold(call):
        if call.operation == "SendCommand":
            list(commands.values())[-1].lifecycle.remaining = 10**6

    cloud.aws.after_call = hold
    process = cloud.start("topics", "list")
    wait_until(
        lambda: cloud.aws.count("SendCommand") > before or process.poll() is not None, "the command"
    )
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    try:
        process.wait(SOON)
    finally:
        process.kill()
        stderr = process.communicate()[1]
        cloud.aws.after_call = None
    assert process.returncode != 0 and "panicked" not in stderr, stderr


def test_interrupt_ends_the_check_of_an_unresponsive_api(cloud, monkeypatch):
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
        assert asked.wait(60), "the API is not checked"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        process.wait(SOON)
    finally:
        answered.set()
        process.kill()
        process.communicate()
    # Everything was created before.
    assert cloud.plan() == {}


@pytest.mark.parametrize(
    "arguments",
    [("provision", "--plan"), ("provision", "--yes"), ("status",), ("destroy", "--yes")],
)
def test_interrupt_while_observing_changes_nothing(cloud, arguments):
    cloud.clear()
    cloud.run("provision", "--yes", "--only", "api-key,stream")
    before, since = cloud.aws.snapshot(), len(cloud.aws.calls)
    hook = Interrupt(
        lambda call: (
            call.operation in ("DescribeVpcs", "DescribeSecurityGroups", "GetApiKeys", "GetApiKey")
        )
    )
    cloud.aws.before_call = hook
    hook.process = cloud.start(*arguments)
    hook.is_started.set()
    stdout, stderr = hook.process.communicate(timeout=60)
    cloud.aws.before_call = None
    assert hook.call and time.time() - hook.began < SOON and hook.process.returncode == 1, stderr
    assert stdout == "" and "error: interrupted" in stderr and stderr.count("error: ") == 1, stderr
    assert not [call.name for call in cloud.aws.calls[since:] if changes(call)] and not differences(
        cloud.aws.snapshot(), before
    )


@pytest.mark.parametrize("command", ["provision", "destroy"])
def test_interrupt_at_the_prompt_changes_nothing(cloud, command):
    cloud.clear()
    cloud.run("provision", "--yes", "--only", "api-key")
    before = cloud.aws.snapshot()
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        [BINARY, command],
        cwd=cloud.folder,
        env=clean_environment(**cloud.environment),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    output = b""
    try:
        while b"Type yes to continue" not in output:
            output += os.read(terminal, 4096)
        process.send_signal(signal.SIGINT)
        assert process.wait(SOON) != 0
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
        os.close(theirs)
    assert not differences(cloud.aws.snapshot(), before)
    # No lock stops the next run.
    cloud.run("destroy", "--yes")
