"""`provision` and `destroy` with Airflow and a schedule, when AWS, Airflow or Databricks fail or
the program is killed.

Only faults of the resources that Airflow adds; test_faults.py and test_crash.py cover the others.
"""

import threading

import pytest

from doubles.aws import AwsDouble, Drop
from doubles.aws.access import action_of, resource_of
from doubles.databricks import Databricks
from doubles.databricks.errors import Refused
from support.broken_schedule import ONLY, BrokenSchedule
from support.cloud import ip_ranges
from support.faults import (
    FAULTS,
    PATIENT,
    REFUSAL,
    Kill,
    Once,
    breaks,
    changes,
    differences,
    failing,
)
from support.scheduled import LAKE

pytestmark = pytest.mark.slow

PROVISION, DESTROY = ("provision", "--yes", *ONLY), ("destroy", "--yes", "--data")
UPDATES = {
    "airflow": {
        "class": "mw1.medium",
        "requirements": ["apache-airflow-providers-databricks", "humanize"],
    },
    "aws__tags": {"team": "data"},
    "schedule": {"cron": "0 6 * * *"},
    "databricks": {"node_type": "i3.xlarge"},
}
# Resources created at Databricks: a folder and two files.
MADE_AT_DATABRICKS = 3


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with (
        AwsDouble(settle_reads=1) as double,
        ip_ranges() as url,
        Databricks(tmp_path_factory.mktemp("databricks")) as databricks,
    ):
        yield double, url, databricks


@pytest.fixture(scope="module")
def wanted(shared, tmp_path_factory):
    """The snapshot after an undisturbed apply."""
    cloud = BrokenSchedule(tmp_path_factory.mktemp("wanted"), *shared)
    cloud.run(*PROVISION)
    made = cloud.everything()
    assert len(made["environments"]) == len(made["connections"]) == 1 and len(made["files"]) == 2
    return made


@pytest.fixture
def cloud(shared, wanted, tmp_path):
    cloud = BrokenSchedule(tmp_path, *shared)
    yield cloud
    cloud.aws.settle_reads = 1
    cloud.clear()


@pytest.fixture
def empty(cloud):
    return cloud.everything()


class OnceOfAirflow(Once):
    """Matches each changing call that Airflow adds once."""

    def __call__(self, call):
        return call.parameters.get("Bucket") != LAKE and super().__call__(call)

    @property
    def operations(self):
        return {name.partition(".")[2] for name, _ in self.met}


MAKES = {
    "CreateSecurityGroup",
    "CreateRole",
    "PutRolePolicy",
    "CreateBucket",
    "PutBucketVersioning",
    "PutPublicAccessBlock",
    "PutObject",
    "CreateEnvironment",
    "InvokeRestApi",
}
TAKES = {
    "DeleteSecurityGroup",
    "DeleteRole",
    "DeleteRolePolicy",
    "DeleteBucket",
    "DeleteObject",
    "DeleteEnvironment",
    "InvokeRestApi",
}


def inject_faults(cloud, when, kind):
    """Fails each changing call once, at AWS and at Databricks; returns the matcher of the calls to
    AWS.
    """
    fits = OnceOfAirflow()
    setattr(cloud.aws, f"{when}_call", failing(fits, FAULTS[kind]))
    cloud.databricks.faults.clear()
    answer = {"error": 503, "drop": "drop"}[kind]
    for endpoint, first in (
        ("workspace/mkdirs", 1),
        ("workspace/import", 1),
        ("workspace/import", 2),
        ("workspace/delete", 1),
    ):
        cloud.databricks.fail(endpoint, answer, first=first, after=when == "after")
    return fits


def stop_faults(cloud):
    cloud.aws.before_call = cloud.aws.after_call = None
    cloud.databricks.faults.clear()


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_airflow_calls_failing_once_are_retried_in_the_same_run(cloud, empty, wanted, when, kind):
    fits = inject_faults(cloud, when, kind)
    code, stderr = cloud.run_to_end(*PROVISION)
    assert code == 0, stderr
    assert fits.operations >= MAKES and not differences(cloud.everything(), wanted)
    assert all(fault.seen >= fault.first for fault in cloud.databricks.faults[:MADE_AT_DATABRICKS])
    stop_faults(cloud)
    assert cloud.plan(*ONLY) == {}
    fits = inject_faults(cloud, when, kind)
    code, stderr = cloud.run_to_end(*DESTROY)
    assert code == 0, stderr
    assert fits.operations >= TAKES and not differences(cloud.everything(), empty)
    assert cloud.databricks.faults[-1].seen >= 1


def test_airflow_updates_survive_lost_responses(cloud):
    cloud.run(*PROVISION)
    cloud.change(**UPDATES)
    cloud.run(*PROVISION)
    wanted = cloud.everything()
    cloud.change(
        airflow={"class": None, "requirements": None},
        aws__tags={"team": None},
        schedule={"cron": "0 0 29 2 *"},
        databricks={"node_type": None},
    )
    cloud.clear()
    cloud.run(*PROVISION)
    cloud.change(**UPDATES)
    fits = inject_faults(cloud, "after", "drop")
    code, stderr = cloud.run_to_end(*PROVISION)
    assert code == 0, stderr
    assert {"PutObject", "UpdateEnvironment", "TagResource"} <= fits.operations and not differences(
        cloud.everything(), wanted
    )
    stop_faults(cloud)
    assert cloud.plan(*ONLY) == {}


def test_objects_of_provision_do_not_stop_destroy(cloud, empty):
    cloud.run(*PROVISION)
    cloud.run("destroy", "--yes")
    assert not differences(cloud.everything(), empty)


@pytest.mark.parametrize("when", ["after", "before"])
def test_run_killed_at_every_airflow_call_converges(cloud, empty, wanted, when):
    fits, kills = OnceOfAirflow(), 0
    while cloud.run_killed(*PROVISION, fits=fits, when=when, late=False):
        kills += 1
        assert kills < 60, f"no run makes progress: {fits.met}"
    assert fits.operations >= MAKES and kills == len(fits.met) > 10
    assert not differences(cloud.everything(), wanted) and cloud.plan(*ONLY) == {}
    fits = OnceOfAirflow()
    while cloud.run_killed(*DESTROY, fits=fits, when=when, late=False):
        assert len(fits.met) < 60, f"no run makes progress: {fits.met}"
    assert fits.operations >= TAKES and not differences(cloud.everything(), empty)


@pytest.mark.parametrize("when", ["after", "before"])
def test_update_killed_at_every_call_converges(cloud, when):
    cloud.run(*PROVISION)
    cloud.change(**UPDATES)
    fits = OnceOfAirflow()
    while cloud.run_killed(*PROVISION, fits=fits, when=when, late=False):
        assert len(fits.met) < 60, f"no run makes progress: {fits.met}"
    assert {"PutObject", "UpdateEnvironment", "TagResource"} <= fits.operations and cloud.plan(
        *ONLY
    ) == {}
    (environment,) = cloud.everything()["environments"]
    assert (
        environment["settings"]["EnvironmentClass"],
        environment["settings"]["requirements"],
    ) == ("mw1.medium", "as they are in the bucket")


class OnceAtDatabricks:
    """Matches each changing request to the workspace once."""

    def __init__(self):
        self.met = set()

    def __call__(self, request):
        key = request.endpoint, isinstance(request.body, dict) and request.body.get("path")
        if request.method == "GET" or key in self.met:
            return False
        self.met.add(key)
        return True


def killed_at_databricks(cloud, arguments, fits, when):
    """Runs and is killed before or after the effect of the first request that matches; returns
    whether it was killed.
    """
    kill, answer, one_at_a_time = Kill(fits), cloud.databricks.answer, threading.Lock()

    def answered(request):
        try:
            with one_at_a_time:
                if kill.call:
                    raise Drop
                if when == "before":
                    kill(request)
                reply = answer(request)
                if when == "after":
                    kill(request)
                return reply
        except Drop:
            raise Refused(503, "TEMPORARILY_UNAVAILABLE", "the caller was killed") from None

    cloud.databricks.answer = answered
    try:
        kill.process = cloud.start(*arguments)
        kill.is_started.set()
        _, stderr = kill.process.communicate(timeout=60)
    finally:
        del cloud.databricks.answer
    assert kill.process.returncode == (-9 if kill.call else 0), stderr
    return bool(kill.call)


@pytest.mark.parametrize("when", ["after", "before"])
def test_run_killed_at_every_databricks_request_converges(cloud, empty, wanted, when):
    fits = OnceAtDatabricks()
    while killed_at_databricks(cloud, PROVISION, fits, when):
        pass
    assert (
        len(fits.met) == MADE_AT_DATABRICKS
        and not differences(cloud.everything(), wanted)
        and cloud.plan(*ONLY) == {}
    )
    while killed_at_databricks(cloud, DESTROY, fits, when):
        pass
    assert len(fits.met) == MADE_AT_DATABRICKS + 1 and not differences(cloud.everything(), empty)


def test_denied_airflow_calls_name_the_action_to_allow(cloud, wanted):
    fits, refused, code, runs = OnceOfAirflow(), [], 1, 0

    def refuse(call):
        if fits(call):
            refused.append(call)
            raise cloud.aws.access.error(
                call, action_of(call), resource_of(call, cloud.aws.account)
            )

    cloud.aws.before_call = refuse
    while code:
        refused.clear()
        code, stderr = cloud.run_to_end(*PROVISION)
        runs += 1
        assert runs < 60 and bool(code) == bool(refused) and code in (0, 1), f"{fits.met}\n{stderr}"
        reported = {found["request"]: found["action"] for found in REFUSAL.finditer(stderr)}
        assert {call.request_id: action_of(call) for call in refused} == reported, stderr
        assert not code or "\nhint: allow the action `" in stderr, stderr
    assert fits.operations >= MAKES and not differences(cloud.everything(), wanted)


@pytest.mark.parametrize("endpoint", ["workspace/mkdirs", "workspace/import", "workspace/export"])
def test_denied_workspace_call_is_reported_and_resumed(cloud, wanted, endpoint):
    cloud.databricks.fail(
        endpoint,
        (
            403,
            {
                "error_code": "PERMISSION_DENIED",
                "message": "me@example.com does not have Manage permissions",
            },
        ),
        times=10**6,
    )
    stderr = cloud.failing(*PROVISION)
    assert "does not have Manage permissions" in stderr
    cloud.databricks.faults.clear()
    cloud.run(*PROVISION)
    assert not differences(cloud.everything(), wanted)


def test_eventually_consistent_reads_create_nothing_twice(cloud, wanted):
    cloud.aws.stale_reads(4)
    cloud.run(*PROVISION, env=PATIENT)
    cloud.aws.stale_reads(0)
    assert not differences(cloud.everything(), wanted) and cloud.plan(*ONLY) == {}


@pytest.mark.parametrize("settle_reads", [0, 4])
def test_failed_environment_reports_its_reason_and_is_recreated(cloud, wanted, settle_reads):
    cloud.aws.settle_reads = settle_reads
    cloud.aws.outcome = breaks("environment")
    stderr = cloud.failing(*PROVISION)
    assert (
        "`me-airflow`" in stderr
        and "the reason of it" in stderr
        and cloud.aws.count("CreateEnvironment") == 1
    ), stderr
    assert cloud.plan(*ONLY)["airflow"][0] == "replace"
    cloud.aws.outcome = lambda *_: None
    cloud.run(*PROVISION)
    assert not differences(cloud.everything(), wanted) and cloud.aws.count("CreateEnvironment") == 2


def test_role_that_airflow_sees_late_is_waited_for(cloud, wanted):
    iam = cloud.aws.services["iam"]

    def delay(call):
        if call.operation == "CreateEnvironment" and not cloud.aws.role_delay_calls:
            cloud.aws.role_delay_calls = call.number - max(iam.role_made.values()) + 4

    cloud.aws.before_call = delay
    cloud.run(*PROVISION, env=PATIENT)
    assert cloud.aws.count("CreateEnvironment") > 1 and not differences(cloud.everything(), wanted)


def test_throttled_airflow_calls_are_retried(cloud, wanted):
    begun = set()

    def burst(call):
        if changes(call) and call.service not in begun:
            begun.add(call.service)
            cloud.aws.throttle(2, call.service)

    cloud.aws.before_call = burst
    for endpoint in ("workspace/mkdirs", "workspace/import"):
        cloud.databricks.fail(endpoint, 429)
    cloud.run(*PROVISION)
    assert begun == {"ec2", "iam", "s3", "mwaa"} and not differences(cloud.everything(), wanted)
