"""Fixtures of the tests of the double of AWS."""

import pytest

from doubles.aws import AwsDouble


@pytest.fixture(scope="module")
def shared():
    with AwsDouble() as double:
        yield double


@pytest.fixture
def aws(shared):
    shared.reset()
    yield shared
    shared.reset()
