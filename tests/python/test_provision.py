"""`provision` on AWS, against a double that checks each request by AWS's own models."""

import pytest
from cloud import Cloud, ip_ranges
from double import AwsDouble


@pytest.fixture(scope="module")
def shared():
    with AwsDouble(settle_reads=1) as double, ip_ranges() as url:
        yield double, url


@pytest.fixture
def cloud(shared, tmp_path):
    double, url = shared
    double.reset()
    yield Cloud(tmp_path, double, url)
    assert not double.problems, double.problems


def test_an_apply_makes_everything_and_the_plan_after_it_is_empty(cloud):
    planned = cloud.plan()
    assert {action for action, _ in planned.values()} == {"create"} and len(planned) == 26
    assert not cloud.aws.snapshot().get("clusters")
    applied = cloud.apply()
    assert applied["applied"] and len([s for s in applied["steps"] if s["action"] == "create"]) == 26
    assert cloud.plan() == {}
    again = cloud.apply()
    assert [s["action"] for s in again["steps"] if s["action"] != "keep"] == []


def test_destroy_leaves_nothing_behind_and_succeeds_when_nothing_is_there(cloud):
    before = cloud.aws.snapshot()
    cloud.apply()
    cloud.run("destroy", "--yes")
    assert cloud.aws.snapshot() == before
    cloud.run("destroy", "--yes")
