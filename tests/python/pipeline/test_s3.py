"""A lake and tables on an S3-compatible server (moto)."""

import subprocess
import sys

import pytest
import requests

from support.ports import free_port
from support.scenarios import objects
from support.scenarios import s3 as scenarios
from support.scenarios.objects import GEO, BucketLake, batch, fill, key
from support.scenarios.s3 import KEYS
from support.wait import wait_until


@pytest.fixture(scope="module")
def server():
    """Yields the address of a server that all tests of this file share."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers():
        try:
            return requests.get(url, timeout=2).status_code == 200
        except requests.ConnectionError:
            return False

    try:
        wait_until(answers, "moto to start", 60)
        yield url
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def s3(server):
    """Returns the address of the server, after all buckets are deleted."""
    requests.post(f"{server}/moto-api/reset", timeout=30).raise_for_status()
    return server


def test_missing_bucket_is_reported_by_every_mode_of_batch(pinpipe, s3):
    (pinpipe.folder / "pinpipe.toml").write_text(
        f'[lake]\nurl = "s3://missing-bucket"\nendpoint_url = "{s3}"\n[tables]\nurl = "s3://missing-bucket/tables"\n'
    )
    for arguments in (["batch"], ["batch", "--no-tables"], ["batch", "--as-of", "1"]):
        stderr = pinpipe.run(*arguments, env=KEYS, code=1).stderr
        assert (
            "NoSuchBucket: " in stderr
            and "`pinpipe provision` creates" in stderr
            and "panicked" not in stderr
            and "<?xml" not in stderr
        ), stderr
    assert "<?xml" not in pinpipe.run("doctor", env=KEYS, code=1).stdout


def test_whole_pipeline_on_s3(pinpipe, s3):
    scenarios.whole_pipeline_on_s3(pinpipe, s3)


def test_every_object_is_read_once_and_listed_in_pages_of_1000(pinpipe, s3, s3_proxy):
    scenarios.every_object_is_read_once_and_listed_in_pages_of_1000(pinpipe, s3, s3_proxy)


def test_missing_bucket_is_reported(pinpipe, s3):
    scenarios.missing_bucket_is_reported(pinpipe, s3)


def test_replaced_object_of_the_same_size_is_read(pinpipe, s3):
    objects.replaced_object_of_the_same_size_is_read(pinpipe, BucketLake(s3))


def test_deletion_of_equal_size_hides_no_late_object(pinpipe, s3):
    objects.deletion_of_equal_size_hides_no_late_object(pinpipe, BucketLake(s3))


def test_prefixes_and_keys_with_unusual_characters(pinpipe, s3):
    lake = BucketLake(s3, prefix="pre~fix%20a/")
    fill(lake)
    folder = "topics/local.geo"
    lake.put(f"{folder}/p=0/a~b%20c d+e.json", {**GEO, "ind": 2})
    for name in ["/x.json", "./y.json"]:
        lake.put(f"{folder}/{name}", {**GEO, "ind": 3})
    counts, _, stderr = batch(pinpipe, lake)
    assert (counts["geo"]["rows"], counts["geo"]["skipped"]) == (2, 2)
    assert "local.geo//x.json`: its key contains" in stderr or "./y.json`" in stderr, stderr
    assert "objects not read in total: 2" in stderr, stderr


def test_unreadable_object_of_a_bucket_is_skipped(pinpipe, s3, s3_proxy):
    url, _, gone = s3_proxy
    lake = BucketLake(s3)
    lake.env["PINPIPE__LAKE__ENDPOINT_URL"] = url
    fill(lake)
    for offset in (1, 2):
        lake.put(key("geo", offset), {**GEO, "ind": 1 + offset})
    gone.add(key("geo", 1))
    skip = {"PINPIPE__BATCH__ON_UNREADABLE": "skip"}
    counts, _, stderr = batch(pinpipe, lake, env=skip)
    found = counts["geo"]
    assert (found["objects"], found["rows"], found["skipped"]) == (2, 2, 1)
    assert f"did not read `{key('geo', 1)}`" in stderr and "NoSuchKey" in stderr, stderr
    gone.clear()
    counts, _, _ = batch(pinpipe, lake, env=skip)
    found = counts["geo"]
    assert (found["objects"], found["rows"], found["skipped"]) == (1, 3, 0)
