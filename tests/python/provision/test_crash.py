"""`provision` and `destroy` killed with SIGKILL: the next run resumes, creates nothing twice and
leaves nothing.

A kill after a read is a kill before the next call, so only changing calls are killed: right after
their effect, and right before it. PINPIPE_FAULTS=all also kills at each of them from an empty
account on, which takes eight minutes more.
"""

import os

import pytest

from doubles.aws import AwsDouble
from support.cloud import ip_ranges
from support.faults import (
    LARGE_ZIP,
    BrokenCloud,
    Nth,
    Once,
    call_identity,
    changes,
    differences,
    points,
)

pytestmark = pytest.mark.slow

ALL = os.environ.get("PINPIPE_FAULTS") == "all"
# Files that a destroyed pipeline may leave in its folder.
HARMLESS = {"sink.zip", "pinpipe.toml", "state.lock", "provisioned.json"}


@pytest.fixture(scope="module")
def shared():
    with AwsDouble(settle_reads=1) as double, ip_ranges() as url:
        yield double, url


@pytest.fixture
def cloud(shared, tmp_path):
    cloud = BrokenCloud(tmp_path, *shared)
    yield cloud
    cloud.done()


def undisturbed_run(cloud):
    """Returns the snapshot after an undisturbed run, and its calls."""
    calls = cloud.calls_of_run("provision", "--yes")
    return cloud.aws.snapshot(), calls


def left_on_disk(cloud):
    return {path.name for path in cloud.folder.rglob("*") if path.is_file()} - HARMLESS


@pytest.mark.parametrize("when", ["after", "before"])
def test_apply_killed_at_every_call_converges(cloud, when):
    (cloud.folder / "sink.zip").write_bytes(LARGE_ZIP)
    wanted, calls = undisturbed_run(cloud)
    cloud.clear()
    fits, kills = Once(), 0
    while cloud.run_killed("provision", "--yes", fits=fits, when=when, late=False):
        kills += 1
        assert kills < 2 * len(calls), "no run makes progress"
    assert kills >= 0.9 * len({call_identity(call) for call in calls if changes(call)})
    assert not differences(cloud.aws.snapshot(), wanted) and cloud.plan() == {}


@pytest.mark.parametrize("stride", [13, 21])
def test_apply_killed_every_few_calls_converges(cloud, stride):
    # A route of the API takes ten calls, which are repeated as a whole: with a smaller stride no
    # run would make progress.
    wanted, calls = undisturbed_run(cloud)
    cloud.clear()
    kills = 0
    while cloud.run_killed("provision", "--yes", fits=Nth(stride)):
        kills += 1
        assert kills < len(calls), "no run makes progress"
    assert kills > 3 and not differences(cloud.aws.snapshot(), wanted)
    assert cloud.plan() == {}


def test_apply_killed_once_converges(cloud):
    wanted, calls = undisturbed_run(cloud)
    failed = []
    for point in points(calls, of_each=10**6 if ALL else 1):
        for when in ("after", "before") if ALL else ("after",):
            cloud.clear()
            assert cloud.run_killed("provision", "--yes", fits=point.copy(), when=when), point
            code, stderr = cloud.run_to_end("provision", "--yes")
            wrong = differences(cloud.aws.snapshot(), wanted)
            failed += [f"killed {when} {point}: {stderr[-600:]}\n{wrong}"] if code or wrong else []
    assert not failed, "\n\n".join(failed)


def test_destroy_after_a_killed_apply_leaves_nothing(cloud):
    empty, (_, calls) = cloud.aws.snapshot(), undisturbed_run(cloud)
    failed = []
    for point in points(calls, of_each=10**6 if ALL else 2):
        if point.ordinal > 1 and point.operation.startswith("apigateway") and not ALL:
            continue
        cloud.clear()
        assert cloud.run_killed("provision", "--yes", fits=point), point
        code, stderr = cloud.run_to_end("destroy", "--yes")
        wrong, left = differences(cloud.aws.snapshot(), empty), left_on_disk(cloud)
        failed += (
            [f"killed after {point}: {stderr[-600:]}\n{wrong} {left}"]
            if code or wrong or left
            else []
        )
    assert not failed, "\n\n".join(failed)


@pytest.mark.parametrize("when", ["after", "before"])
def test_destroy_killed_at_every_call_leaves_nothing(cloud, when):
    empty = cloud.aws.snapshot()
    undisturbed_run(cloud)
    fits, kills = Once(), 0
    while cloud.run_killed("destroy", "--yes", fits=fits, when=when, late=False):
        kills += 1
        assert kills < 200, "no run makes progress"
    assert kills > 20 and not differences(cloud.aws.snapshot(), empty) and not left_on_disk(cloud)
    cloud.run("destroy", "--yes")


def test_destroy_killed_once_is_resumed(cloud):
    empty, (wanted, _) = cloud.aws.snapshot(), undisturbed_run(cloud)
    calls = cloud.calls_of_run("destroy", "--yes")
    failed = []
    for turn, point in enumerate(points(calls, of_each=10**6 if ALL else 1)):
        cloud.clear()
        cloud.run("provision", "--yes")
        assert cloud.run_killed("destroy", "--yes", fits=point), point
        # Every second killed destroy is resumed by another destroy, the others by an apply.
        command, after = (("destroy", empty), ("provision", wanted))[turn % 2]
        code, stderr = (
            cloud.run_to_end(command, "--yes", "--allow-replace")
            if command == "provision"
            else cloud.run_to_end(command, "--yes")
        )
        wrong = differences(cloud.aws.snapshot(), after)
        failed += (
            [f"{command} after a destroy killed at {point}: {stderr[-900:]}\n{wrong}"]
            if code or wrong
            else []
        )
    assert not failed, "\n\n".join(failed)


def test_update_killed_at_every_call_in_turn_converges(cloud):
    settings = """[cluster]
volume_gib = 200
brokers = 6
[kinesis]
shards = 8
retention_hours = 48
[client]
ssh_from = ["10.0.0.0/8"]
proxy_from = ["10.1.0.0/16"]
[aws.tags]
team = "data"
"""
    undisturbed_run(cloud)
    cloud.configure(settings, connector="mcu = 2")
    wanted, calls = undisturbed_run(cloud)
    assert len(points(calls)) > 40
    cloud.configure()
    cloud.clear()
    cloud.run("provision", "--yes")
    cloud.configure(settings, connector="mcu = 2")
    fits, kills = Once(), 0
    while cloud.run_killed("provision", "--yes", fits=fits, late=False):
        kills += 1
    assert kills > 30 and not differences(cloud.aws.snapshot(), wanted)
    assert cloud.plan() == {}
