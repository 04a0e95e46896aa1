"""`provision` and `destroy` killed with SIGKILL at their calls: the next run goes on, and nothing is made twice or left.

A kill after a call that only reads is a kill before the next call, so that calls that change something are all there are
to be killed at: right after their effect, and right before it. PINPIPE_FAULTS=all also kills at each of them from an
empty account on, which takes eight minutes more.
"""

import os

import pytest

from doubles.aws import AwsDouble
from support.cloud import ip_ranges
from support.faults import LARGE_ZIP, BrokenCloud, Nth, Once, changes, differences, points, same

pytestmark = pytest.mark.slow

ALL = os.environ.get("PINPIPE_FAULTS") == "all"
# What a destroyed pipeline may leave in its folder.
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


def whole(cloud):
    """What an undisturbed run makes, and the calls it makes for it."""
    calls = cloud.calls_of_run("provision", "--yes")
    return cloud.aws.snapshot(), calls


def left_on_disk(cloud):
    return {path.name for path in cloud.folder.rglob("*") if path.is_file()} - HARMLESS


@pytest.mark.parametrize("when", ["after", "before"])
def test_an_apply_killed_at_every_change_in_turn_ends_as_one_undisturbed(cloud, when):
    (cloud.folder / "sink.zip").write_bytes(LARGE_ZIP)
    wanted, calls = whole(cloud)
    cloud.clear()
    fits, kills = Once(), 0
    while cloud.killed("provision", "--yes", fits=fits, when=when, late=False):
        kills += 1
        assert kills < 2 * len(calls), "no run makes progress"
    assert kills >= 0.9 * len({same(call) for call in calls if changes(call)})
    assert not differences(cloud.aws.snapshot(), wanted) and cloud.plan() == {}


@pytest.mark.parametrize("stride", [13, 21])
def test_an_apply_killed_every_few_changes_ends_as_one_undisturbed(cloud, stride):
    # A route of the API is put as a whole, by ten calls: with fewer to each run there would be no end.
    wanted, calls = whole(cloud)
    cloud.clear()
    kills = 0
    while cloud.killed("provision", "--yes", fits=Nth(stride)):
        kills += 1
        assert kills < len(calls), "no run makes progress"
    assert kills > 3 and not differences(cloud.aws.snapshot(), wanted)
    assert cloud.plan() == {}


def test_an_apply_killed_once_anywhere_ends_as_one_undisturbed(cloud):
    wanted, calls = whole(cloud)
    failed = []
    for point in points(calls, of_each=10**6 if ALL else 1):
        for when in ("after", "before") if ALL else ("after",):
            cloud.clear()
            assert cloud.killed("provision", "--yes", fits=point.anew(), when=when), point
            code, said = cloud.ends("provision", "--yes")
            wrong = differences(cloud.aws.snapshot(), wanted)
            failed += [f"killed {when} {point}: {said[-600:]}\n{wrong}"] if code or wrong else []
    assert not failed, "\n\n".join(failed)


def test_destroy_after_an_apply_killed_anywhere_leaves_nothing(cloud):
    empty, (_, calls) = cloud.aws.snapshot(), whole(cloud)
    failed = []
    for point in points(calls, of_each=10**6 if ALL else 2):
        if point.ordinal > 1 and point.operation.startswith("apigateway") and not ALL:
            continue
        cloud.clear()
        assert cloud.killed("provision", "--yes", fits=point), point
        code, said = cloud.ends("destroy", "--yes")
        wrong, left = differences(cloud.aws.snapshot(), empty), left_on_disk(cloud)
        failed += [f"killed after {point}: {said[-600:]}\n{wrong} {left}"] if code or wrong or left else []
    assert not failed, "\n\n".join(failed)


@pytest.mark.parametrize("when", ["after", "before"])
def test_a_destroy_killed_at_every_change_in_turn_leaves_nothing(cloud, when):
    empty = cloud.aws.snapshot()
    whole(cloud)
    fits, kills = Once(), 0
    while cloud.killed("destroy", "--yes", fits=fits, when=when, late=False):
        kills += 1
        assert kills < 200, "no run makes progress"
    assert kills > 20 and not differences(cloud.aws.snapshot(), empty) and not left_on_disk(cloud)
    cloud.run("destroy", "--yes")


def test_a_destroy_killed_once_anywhere_is_gone_on_from(cloud):
    empty, (wanted, _) = cloud.aws.snapshot(), whole(cloud)
    calls = cloud.calls_of_run("destroy", "--yes")
    failed = []
    for turn, point in enumerate(points(calls, of_each=10**6 if ALL else 1)):
        cloud.clear()
        cloud.run("provision", "--yes")
        assert cloud.killed("destroy", "--yes", fits=point), point
        # Half of what is half gone is removed, the other half made whole again.
        command, after = (("destroy", empty), ("provision", wanted))[turn % 2]
        code, said = cloud.ends(command, "--yes", "--allow-recreate") if command == "provision" else cloud.ends(command, "--yes")
        wrong = differences(cloud.aws.snapshot(), after)
        failed += [f"{command} after a destroy killed at {point}: {said[-900:]}\n{wrong}"] if code or wrong else []
    assert not failed, "\n\n".join(failed)


def test_a_change_killed_at_every_call_in_turn_is_made_whole(cloud):
    settings = '''[cluster]
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
'''
    whole(cloud)
    cloud.configure(settings, connector="mcu = 2")
    wanted, calls = whole(cloud)
    assert len(points(calls)) > 40
    cloud.configure()
    cloud.clear()
    cloud.run("provision", "--yes")
    cloud.configure(settings, connector="mcu = 2")
    fits, kills = Once(), 0
    while cloud.killed("provision", "--yes", fits=fits, late=False):
        kills += 1
    assert kills > 30 and not differences(cloud.aws.snapshot(), wanted)
    assert cloud.plan() == {}
