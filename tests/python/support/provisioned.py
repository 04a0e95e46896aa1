"""A pipeline that stands on the double and is used by many tests, made anew only after one that failed."""

import contextlib
import json
import re

import boto3
from botocore.config import Config

from doubles.aws import AwsDouble
from support.cloud import Cloud, ip_ranges

READS = ("Describe", "Get", "List", "Head")


def client(aws, service, region="us-east-1"):
    """Somebody else in the account."""
    config = Config(retries={"total_max_attempts": 1}, inject_host_prefix=False)
    return boto3.client(service, region, endpoint_url=aws.url, aws_access_key_id="AKIAI44QH8DHBEXAMPLE", aws_secret_access_key="other", config=config)


def lines(members):
    """Keys and values as lines of TOML."""
    return "".join(f"{json.dumps(key)} = {json.dumps(value)}\n" for key, value in members.items())


def toml(sections):
    """Sections of keys and values as TOML."""
    return "\n".join(f"[{name}]\n{lines(members)}" for name, members in sections.items())


class Provisioned(Cloud):
    """The program with its configuration as sections, and what it has made within reach."""

    def __init__(self, folder, double, ranges_url, sections=None):
        self.sections = {}
        super().__init__(folder, double, ranges_url)
        self.change(**(sections or {}))

    def change(self, **sections):
        """Changes the configuration; `aws__tags` stands for `[aws.tags]`. A value of None takes a key out."""
        for name, members in sections.items():
            kept = {**self.sections.get(name.replace("__", "."), {}), **members}
            self.sections[name.replace("__", ".")] = {key: value for key, value in kept.items() if value is not None}
        others = dict(self.sections)
        own, of_run = lines(others.pop("connector", {})), lines({"wait_minutes": 1, **others.pop("provision", {})})
        # What hangs shall not hang for long.
        self.configure(toml(others), connector=own, provision=of_run)

    def boto(self, service):
        return client(self.aws, service)

    def known(self, key, field="id"):
        """What the state knows of a resource."""
        return self.state()["resources"][key]["values"][field]

    def part(self, service):
        """A service of the double, to look into."""
        return self.aws.services[service]

    def writes(self, since=0):
        """What was called since then that changes anything."""
        return [call.name for call in self.aws.calls[since:] if not call.operation.startswith(READS) and call.name != "ssm.SendCommand"]

    def refused(self, *arguments, code=1, **options):
        """What the program says when it refuses, and that it has changed nothing."""
        before, calls = self.aws.snapshot(), len(self.aws.calls)
        said = self.run(*arguments, code=code, **options).stderr
        assert self.writes(calls) == [] and self.aws.snapshot() == before, f"{said}\n{self.writes(calls)}"
        assert "error: " in said and "hint: " in said, said
        return said


class Shared:
    """One double for the tests of a file, and one pipeline on it."""

    def __init__(self, folders, double, url, sections):
        self.folders, self.double, self.url, self.sections = folders, double, url, sections
        self.pipeline = None
        self.is_whole = False

    def empty(self):
        """A pipeline of which nothing is made yet, in an empty account."""
        self.double.reset()
        self.is_whole = False
        return Provisioned(self.folders.mktemp("pipeline"), self.double, self.url, self.sections)

    def whole(self):
        """The pipeline as it should be, made anew if a test left it in another way."""
        if not self.is_whole:
            self.pipeline = self.empty()
            self.pipeline.apply()
        self.is_whole = False
        return self.pipeline

    def mended(self):
        """A test is through: the next one may use the pipeline as it is."""
        self.is_whole = True


@contextlib.contextmanager
def shared(folders, settle_reads=0, **sections):
    with AwsDouble(settle_reads=settle_reads) as double, ip_ranges() as url:
        yield Shared(folders, double, url, sections)


def planned(cloud, expected, may=(), **options):
    """The plan has just this."""
    found = cloud.plan(**options)
    assert set(found) - set(may) == set(expected), found
    for key, (action, reason) in expected.items():
        assert found[key][0] == action and re.search(reason, found[key][1]), (key, found[key])


def planned_and_done(cloud, expected, *arguments, may=(), **options):
    """The plan has just this, an apply does it, and the plan after it is empty."""
    planned(cloud, expected, may, **options)
    done = cloud.apply(*arguments, **options)
    assert cloud.plan(**options) == {}
    return done
