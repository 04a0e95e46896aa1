"""A pipeline on the AWS test double that tests share; it is recreated only after a failed test."""

import contextlib
import json
import re

import boto3
from botocore.config import Config

from doubles.aws import AwsDouble
from support.cloud import Cloud, ip_ranges

READS = ("Describe", "Get", "List", "Head")


def client(aws, service, region="us-east-1"):
    """Returns a client of another user in the account."""
    config = Config(retries={"total_max_attempts": 1}, inject_host_prefix=False)
    return boto3.client(
        service,
        region,
        endpoint_url=aws.url,
        aws_access_key_id="AKIAI44QH8DHBEXAMPLE",
        aws_secret_access_key="other",
        config=config,
    )


def lines(members):
    """Returns keys and values as lines of TOML."""
    return "".join(f"{json.dumps(key)} = {json.dumps(value)}\n" for key, value in members.items())


def toml(sections):
    """Returns sections of keys and values as TOML."""
    return "\n".join(f"[{name}]\n{lines(members)}" for name, members in sections.items())


class Provisioned(Cloud):
    """The program, with its configuration as sections and access to its state and its double."""

    def __init__(self, folder, double, ranges_url, sections=None):
        self.sections = {}
        super().__init__(folder, double, ranges_url)
        self.change(**(sections or {}))

    def change(self, **sections):
        """Changes the configuration; `aws__tags` stands for `[aws.tags]`.

        A value of None removes a key.
        """
        for name, members in sections.items():
            kept = {**self.sections.get(name.replace("__", "."), {}), **members}
            self.sections[name.replace("__", ".")] = {
                key: value for key, value in kept.items() if value is not None
            }
        others = dict(self.sections)
        own, of_run = (
            lines(others.pop("connector", {})),
            lines({"wait_minutes": 1, **others.pop("provision", {})}),
        )
        # A run that hangs must time out soon.
        self.configure(toml(others), connector=own, provision=of_run)

    def boto(self, service):
        return client(self.aws, service)

    def state_value(self, key, field="id"):
        """Returns a value of a resource in the state."""
        return self.state()["resources"][key]["values"][field]

    def aws_service(self, service):
        """Returns a service of the double."""
        return self.aws.services[service]

    def writes(self, since=0):
        """Returns the changing calls from position `since` of the list of calls on."""
        return [
            call.name
            for call in self.aws.calls[since:]
            if not call.operation.startswith(READS) and call.name != "ssm.SendCommand"
        ]

    def refused(self, *arguments, code=1, **options):
        """Runs a command that must fail without changing anything. Returns its stderr."""
        before, calls = self.aws.snapshot(), len(self.aws.calls)
        stderr = self.run(*arguments, code=code, **options).stderr
        assert self.writes(calls) == [] and self.aws.snapshot() == before, (
            f"{stderr}\n{self.writes(calls)}"
        )
        assert "error: " in stderr and "hint: " in stderr, stderr
        return stderr


class Shared:
    """One AWS test double with one pipeline, shared by the tests of a file."""

    def __init__(self, folders, double, url, sections):
        self.folders, self.double, self.url, self.sections = folders, double, url, sections
        self.pipeline = None
        self.is_clean = False

    def empty(self):
        """Returns a pipeline before its first apply, in an empty account."""
        self.double.reset()
        self.is_clean = False
        return Provisioned(self.folders.mktemp("pipeline"), self.double, self.url, self.sections)

    def applied(self):
        """Returns a pipeline without drift; recreates it unless the last test marked it clean."""
        if not self.is_clean:
            self.pipeline = self.empty()
            self.pipeline.apply()
        self.is_clean = False
        return self.pipeline

    def mark_clean(self):
        """Declares that the pipeline has no drift, so that the next test can use it."""
        self.is_clean = True


@contextlib.contextmanager
def shared(folders, settle_reads=0, **sections):
    with AwsDouble(settle_reads=settle_reads) as double, ip_ranges() as url:
        yield Shared(folders, double, url, sections)


def assert_plan(cloud, expected, may=(), **options):
    """Asserts that the plan has the changes `expected`, and no others except those in `may`."""
    found = cloud.plan(**options)
    assert set(found) - set(may) == set(expected), found
    for key, (action, reason) in expected.items():
        assert found[key][0] == action and re.search(reason, found[key][1]), (key, found[key])


def assert_plan_and_apply(cloud, expected, *arguments, may=(), **options):
    """Asserts that the plan is as expected, applies it, and asserts that the next plan is empty."""
    assert_plan(cloud, expected, may, **options)
    done = cloud.apply(*arguments, **options)
    assert cloud.plan(**options) == {}
    return done
