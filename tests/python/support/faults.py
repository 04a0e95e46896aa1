"""What the fault tests share: a cloud to be broken, and processes that are killed at chosen calls."""

import collections
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

READS = ("Describe", "Get", "List", "Head")
# Two parts on S3, so that an upload can end between them.
LARGE_ZIP = b"PK" + bytes(8 * 1024 * 1024)


def changes(call):
    """Whether a call changes something, as far as its name says so: commands on a machine count too."""
    return not call.operation.startswith(READS)


class Point:
    """One call of a run: the k-th of its operation, which is the same one in each run however calls of several resources interleave."""

    def __init__(self, operation, ordinal):
        self.operation, self.ordinal, self.seen = operation, ordinal, 0

    def __call__(self, call):
        self.seen += call.name == self.operation
        return call.name == self.operation and self.seen == self.ordinal

    def anew(self):
        """The same point of another run."""
        return Point(self.operation, self.ordinal)

    def __repr__(self):
        return f"{self.operation} {self.ordinal}"


# What differs between two attempts of the same call.
ATTEMPT = ("ClientToken", "UploadId", "Body", "Value", "PublicKeyMaterial", "CurrentVersion", "currentVersion", "MultipartUpload", "Tags", "Description")


def same(call):
    """What makes a call the same one in several runs over one account."""
    return call.name, json.dumps({name: value for name, value in call.parameters.items() if name not in ATTEMPT}, sort_keys=True, default=str)


class Once:
    """Fits each changing call the first time that it is made, and with `at_most` no more calls of an operation than that."""

    def __init__(self, at_most=10**6):
        self.at_most, self.met, self.counts, self.lock = at_most, set(), collections.Counter(), threading.Lock()

    def __call__(self, call):
        with self.lock:
            if not changes(call) or same(call) in self.met or self.counts[call.name] == self.at_most:
                return False
            self.met.add(same(call))
            self.counts[call.name] += 1
            return True


class Nth:
    """The n-th changing call of a run, whichever it is."""

    def __init__(self, number):
        self.number, self.seen = number, 0

    def __call__(self, call):
        self.seen += changes(call)
        return changes(call) and self.seen == self.number


def points(calls, of_each=10**6):
    """A point for each changing call of a run; with `of_each` for no more of an operation than that."""
    counts = collections.Counter(call.name for call in calls if changes(call))
    return [Point(name, ordinal) for name, count in sorted(counts.items()) for ordinal in range(1, min(count, of_each) + 1)]


class Kill:
    """A hook that ends a process at the first call that fits, with no chance to say or do anything."""

    def __init__(self, fits):
        self.fits, self.call, self.process = fits, None, None
        self.lock, self.is_started = threading.Lock(), threading.Event()

    def shut(self, _):
        if self.call:
            raise Drop

    def __call__(self, call):
        with self.lock:
            if self.call or not self.fits(call):
                return
            self.call = call
        assert self.is_started.wait(10)
        self.process.kill()
        raise Drop


class BrokenCloud(Cloud):
    """A cloud whose account may be emptied, and whose runs may be killed."""

    def __init__(self, folder, double, ranges_url, settings=""):
        super().__init__(folder, double, ranges_url, settings)
        (self.folder / "sink.zip").write_bytes(b"PK: a zip that never changes")
        self.clear()

    def done(self):
        """Whether every call so far was one that AWS takes. The next test begins without any."""
        problems = list(self.aws.problems)
        self.aws.problems.clear()
        assert not problems, problems

    def clear(self):
        """An empty account and no state, as at first."""
        self.done()
        self.aws.reset()
        # Nobody listens there: topics are made on the client machine, without a wait for names to resolve.
        self.aws.bootstrap = "127.0.0.1:1"
        shutil.rmtree(self.data, ignore_errors=True)

    def killed(self, *arguments, fits, when="after", late=True, env=None):
        """Runs until a call fits, and is killed before or after its effect. Returns that call; none: the run came to its end.
        Calls under way beside it still have their effect, but not with `late` off."""
        kill = Kill(fits)
        if not late:
            self.aws.before_call = kill.shut
        setattr(self.aws, f"{when}_call", kill)
        kill.process = self.start(*arguments, env=env)
        kill.is_started.set()
        _, said = kill.process.communicate(timeout=60)
        self.aws.before_call = self.aws.after_call = None
        assert kill.process.returncode == (-signal.SIGKILL if kill.call else 0), f"{kill.process.returncode} {kill.call}\n{said}"
        return kill.call

    def boto(self, service):
        """A client of somebody else's, in the same account."""
        return boto3.client(service, "us-east-1", endpoint_url=self.aws.url, aws_access_key_id="AKID", aws_secret_access_key="secret")

    def ends(self, *arguments, env=None):
        """Runs to whatever end, and returns code and stderr."""
        process = self.start(*arguments, env=env)
        _, said = process.communicate(timeout=120)
        return process.returncode, said

    def calls_of_run(self, *arguments, **options):
        """What a run calls."""
        before = len(self.aws.calls)
        self.run(*arguments, **options)
        return self.aws.calls[before:]


def hanging(aws, operation, process, seconds=20):
    """Waits until a process has made a call of an operation."""
    wait_until(lambda: aws.count(operation) or process.poll() is not None, operation, seconds)
    assert process.poll() is None, process.stderr.read()


def called(thing):
    return str(thing.get("name") or thing.get("service") or thing.get("tags"))


def differences(found, wanted):
    """What a snapshot has and another has not, in words short enough to read."""
    said = []
    # The mark of the proxy's password is another one in each pipeline.
    for instance in (*found.get("instances", ()), *wanted.get("instances", ())):
        if "pinpipe:ready" in instance.get("tags", {}):
            instance["tags"]["pinpipe:ready"] = "<mark>"
    for kind in wanted:
        more = [thing for thing in found[kind] if thing not in wanted[kind]]
        less = [thing for thing in wanted[kind] if thing not in found[kind]]
        for thing in more:
            twin = next((other for other in less if called(other) == called(thing)), None)
            parts = {part: (thing.get(part), twin.get(part)) for part in {**thing, **twin} if thing.get(part) != twin.get(part)} if twin else "not wanted"
            said.append(f"{kind}: {called(thing)}: {parts}"[:600])
            less = [other for other in less if other is not twin]
        said += [f"{kind}: {called(thing)}: missing" for thing in less]
        if len(found[kind]) != len(wanted[kind]):
            said.append(f"{kind}: {len(found[kind])} of them, not {len(wanted[kind])}")
    return "\n".join(said)


REFUSAL = re.compile(r"`(?P<action>[\w-]+:\w+)` for (?P<what>.+?) failed: (?P<code>\w+): .*\(request (?P<request>[\w-]+)\)")


def failing(fits, fault):
    """A hook that fails the calls that fit."""
    def hook(call):
        if fits(call):
            raise fault(call)
    return hook


FAULTS = {"error": lambda call: Fault(500, "InternalError", "injected"), "drop": lambda call: Drop()}


# What is seen late is looked for by the clock, and a busy machine reads seldom.
PATIENT = {"PINPIPE__PROVISION__PATIENCE_MS": "800"}


# What AWS makes twice where it is asked twice, or names by ids of its own.
MAKES = {
    "ec2.AllocateAddress", "ec2.RunInstances", "ec2.CreateVpcEndpoint", "ec2.CreateSecurityGroup", "apigateway.CreateRestApi",
    "apigateway.CreateApiKey", "apigateway.CreateUsagePlan", "kafka.CreateClusterV2"}


def interrupted(cloud, process):
    """What a run says that is interrupted now, and does so within seconds."""
    began = time.time()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert time.time() - began < 6, f"{time.time() - began:.0f} s\n{said}"
    assert process.returncode == 1 and "the same command goes on from here" in said, said
    return said


def breaks(kind):
    return lambda broken, name: "the reason of it" if broken == kind else None
