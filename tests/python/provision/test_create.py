"""`provision` on AWS, against a double that validates each request by the service models of AWS."""

import pytest

from doubles.aws import AwsDouble
from support.cloud import Cloud, ip_ranges
from support.scenarios import create


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


def test_apply_creates_everything_and_the_next_plan_is_empty(cloud):
    create.creates_everything_then_plans_nothing(cloud)


def test_destroy_deletes_everything_and_succeeds_again(cloud):
    create.destroys_everything_and_succeeds_again(cloud)
