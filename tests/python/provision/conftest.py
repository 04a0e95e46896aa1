"""Fixtures of the tests that break `provision`."""

import pytest

from doubles.aws import AwsDouble
from support.cloud import ip_ranges
from support.faults import BrokenCloud


@pytest.fixture(scope="module")
def account():
    """The double of AWS that the tests of a file share, and the address of its IP ranges."""
    with AwsDouble(settle_reads=2) as double, ip_ranges() as url:
        yield double, url


@pytest.fixture
def broken_cloud(account, tmp_path):
    """A pipeline on that double; a test may break either."""
    double, url = account
    cloud = BrokenCloud(tmp_path, double, url)
    yield cloud
    double.settle_reads = 2
    cloud.done()
