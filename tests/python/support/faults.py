"""Helpers of the fault tests: a pipeline whose account can be reset, and processes that are killed
at chosen calls.
"""

import collections
import contextlib
import itertools
import json
import re
import shutil
import signal
import threading
import time

import boto3

from doubles.aws import Drop, Fault
from support.cloud import Cloud
from support.wait import wait_until

NUMBERS = itertools.count(1)
READS = ("Describe", "Get", "List", "Head")
# Seconds within which an interrupted run must exit: far more than a run takes on a busy machine,
# and far fewer than the wait that is interrupted.
SOON = 15
# Two parts of an S3 upload, so that a kill can come between them.
LARGE_ZIP = b"PK" + bytes(8 * 1024 * 1024)


def changes(call):
    """Whether a call changes something, judging by its name. A command on a machine is a change."""
    return not call.operation.startswith(READS)


class Point:
    """One call of a run: the k-th call of an operation.

    It is the same call in each run, even if calls of several resources interleave differently.
    """

    def __init__(self, operation, ordinal):
        self.operation, self.ordinal, self.seen = operation, ordinal, 0

    def __call__(self, call):
        self.seen += call.name == self.operation
        return call.name == self.operation and self.seen == self.ordinal

    def copy(self):
        """Returns the same point for another run."""
        return Point(self.operation, self.ordinal)

    def __repr__(self):
        return f"{self.operation} {self.ordinal}"


# Parameters that differ between two attempts of the same call.
ATTEMPT = (
    "ClientToken",
    "UploadId",
    "Body",
    "Value",
    "PublicKeyMaterial",
    "CurrentVersion",
    "currentVersion",
    "MultipartUpload",
    "Tags",
    "Description",
)


def call_identity(call):
    """Returns the identity of a call, which is equal in several runs in one account."""
    return call.name, json.dumps(
        {name: value for name, value in call.parameters.items() if name not in ATTEMPT},
        sort_keys=True,
        default=str,
    )


class Once:
    """Matches each changing call once, and at most `at_most` calls of an operation."""

    def __init__(self, at_most=10**6):
        self.at_most, self.met, self.counts, self.lock = (
            at_most,
            set(),
            collections.Counter(),
            threading.Lock(),
        )

    def __call__(self, call):
        with self.lock:
            if (
                not changes(call)
                or call_identity(call) in self.met
                or self.counts[call.name] == self.at_most
            ):
                return False
            self.met.add(call_identity(call))
            self.counts[call.name] += 1
            return True


class Nth:
    """Matches the n-th changing call of a run."""

    def __init__(self, number):
        self.number, self.seen = number, 0

    def __call__(self, call):
        self.seen += changes(call)
        return changes(call) and self.seen == self.number


def points(calls, of_each=10**6):
    """Returns a point for each changing call of a run, at most `of_each` per operation."""
    counts = collections.Counter(call.name for call in calls if changes(call))
    return [
        Point(name, ordinal)
        for name, count in sorted(counts.items())
        for ordinal in range(1, min(count, of_each) + 1)
    ]


class Kill:
    """A hook that kills a process (SIGKILL) at the first call that matches."""

    def __init__(self, fits, cut_off=None):
        """Adds the access key of the killed process to `cut_off`, a set of the double, if given."""
        self.fits, self.cut_off, self.call, self.process = fits, cut_off, None, None
        self.lock, self.is_started = threading.Lock(), threading.Event()

    def __call__(self, call):
        with self.lock:
            if self.call or not self.fits(call):
                return
            self.call = call
        assert self.is_started.wait(60)
        if self.cut_off is not None:
            self.cut_off.add(call.access_key)
        self.process.kill()
        raise Drop


class BrokenCloud(Cloud):
    """A pipeline whose account can be reset, and whose runs can be killed."""

    def __init__(self, folder, double, ranges_url, settings=""):
        super().__init__(folder, double, ranges_url, settings)
        (self.folder / "sink.zip").write_bytes(b"PK: a zip that never changes")
        self.clear()

    def done(self):
        """Asserts that AWS would accept every call so far, and clears the recorded problems."""
        problems = list(self.aws.problems)
        self.aws.problems.clear()
        assert not problems, problems

    def clear(self):
        """Resets the account and deletes the state."""
        self.done()
        self.aws.reset()
        # No broker listens at this address, so topics are created on the client machine. An IP
        # address avoids waiting for name resolution.
        self.aws.bootstrap = "127.0.0.1:1"
        shutil.rmtree(self.data, ignore_errors=True)

    def run_killed(self, *arguments, fits, when="after", late=True, env=None):
        """Runs a command that is killed before or after the first matching call takes effect.

        Returns this call, or None if the run finished. Concurrent calls still take effect, unless
        `late` is false: the double then processes one call at a time and none after the kill, so
        that the set of calls that took effect is deterministic.
        """
        kill = Kill(fits, None if late else self.aws.cut_off)
        setattr(self.aws, f"{when}_call", kill)
        if not late:
            # The access key distinguishes the calls of the killed process from later calls.
            env = {"AWS_ACCESS_KEY_ID": f"AKIAKILLED{next(NUMBERS):010}", **(env or {})}
            self.aws.guard = threading.RLock()
        kill.process = self.start(*arguments, env=env)
        kill.is_started.set()
        _, stderr = kill.process.communicate(timeout=120)
        self.aws.before_call = self.aws.after_call = None
        self.aws.guard = contextlib.nullcontext()
        assert kill.process.returncode == (-signal.SIGKILL if kill.call else 0), (
            f"{kill.process.returncode} {kill.call}\n{stderr}"
        )
        return kill.call

    def boto(self, service):
        """Returns a client of another user in the same account."""
        return boto3.client(
            service,
            "us-east-1",
            endpoint_url=self.aws.url,
            aws_access_key_id="AKID",
            aws_secret_access_key="secret",
        )

    def run_to_end(self, *arguments, env=None):
        """Runs a command and returns its exit code and stderr. Accepts any exit code."""
        process = self.start(*arguments, env=env)
        _, stderr = process.communicate(timeout=120)
        return process.returncode, stderr

    def calls_of_run(self, *arguments, **options):
        """Returns the calls of a run."""
        before = len(self.aws.calls)
        self.run(*arguments, **options)
        return self.aws.calls[before:]


def wait_for_call(aws, operation, process, seconds=60):
    """Waits until a process has called an operation. Fails if the process exits earlier."""
    wait_until(lambda: aws.count(operation) or process.poll() is not None, operation, seconds)
    assert process.poll() is None, process.stderr.read()


def label_of(thing):
    return str(thing.get("name") or thing.get("service") or thing.get("tags"))


def differences(found, wanted):
    """Returns the differences of two snapshots as text, empty if there are none."""
    lines = []
    # The value of this tag depends on the password of the proxy, which differs between pipelines.
    for instance in (*found.get("instances", ()), *wanted.get("instances", ())):
        if "pinpipe:ready" in instance.get("tags", {}):
            instance["tags"]["pinpipe:ready"] = "<mark>"
    for kind in wanted:
        more = [thing for thing in found[kind] if thing not in wanted[kind]]
        less = [thing for thing in wanted[kind] if thing not in found[kind]]
        for thing in more:
            twin = next((other for other in less if label_of(other) == label_of(thing)), None)
            parts = (
                {
                    part: (thing.get(part), twin.get(part))
                    for part in {**thing, **twin}
                    if thing.get(part) != twin.get(part)
                }
                if twin
                else "not wanted"
            )
            lines.append(f"{kind}: {label_of(thing)}: {parts}"[:600])
            less = [other for other in less if other is not twin]
        lines += [f"{kind}: {label_of(thing)}: missing" for thing in less]
        if len(found[kind]) != len(wanted[kind]):
            lines.append(f"{kind}: {len(found[kind])} of them, not {len(wanted[kind])}")
    return "\n".join(lines)


REFUSAL = re.compile(
    r"`(?P<action>[\w-]+:\w+)` for (?P<what>.+?) failed: (?P<code>\w+): "
    r".*\(request (?P<request>[\w-]+)\)"
)


def failing(fits, fault):
    """Returns a hook that fails the calls that match."""

    def hook(call):
        if fits(call):
            raise fault(call)

    return hook


FAULTS = {
    "error": lambda call: Fault(500, "InternalError", "injected"),
    "drop": lambda call: Drop(),
}


# The program waits for consistency for a fixed time, in which a busy machine makes few reads.
PATIENT = {"PINPIPE__PROVISION__CONSISTENCY_TIMEOUT_MS": "2400"}


# Calls that create another resource if they are repeated.
MAKES = {
    "ec2.AllocateAddress",
    "ec2.RunInstances",
    "ec2.CreateVpcEndpoint",
    "ec2.CreateSecurityGroup",
    "apigateway.CreateRestApi",
    "apigateway.CreateApiKey",
    "apigateway.CreateUsagePlan",
    "kafka.CreateClusterV2",
}


def interrupt(cloud, process):
    """Interrupts a run, which must exit within seconds; returns its stderr."""
    began = time.time()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert time.time() - began < SOON, f"{time.time() - began:.0f} s\n{stderr}"
    assert process.returncode == 1 and "re-run the command to resume" in stderr, stderr
    return stderr


def breaks(kind):
    return lambda broken, name: "the reason of it" if broken == kind else None
