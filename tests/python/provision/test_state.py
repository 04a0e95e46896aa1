"""The state of `provision`: its owner, damage, loss, lock, and its place on S3."""

import pytest

from doubles.aws import AwsDouble
from support.cloud import ip_ranges
from support.faults import BrokenCloud, Point, differences, wait_for_call
from support.scenarios import state
from support.scenarios.state import STATE, STATE_ON_S3, objects, refused_run


@pytest.fixture(scope="module")
def shared():
    with AwsDouble(settle_reads=1) as double, ip_ranges() as url:
        yield double, url


@pytest.fixture
def cloud(shared, tmp_path):
    cloud = BrokenCloud(tmp_path, *shared)
    yield cloud
    cloud.aws.settle_reads = 1
    cloud.done()


@pytest.fixture
def on_s3(cloud):
    cloud.s3 = cloud.boto("s3")
    cloud.s3.create_bucket(Bucket="team")
    cloud.configure(provision=STATE_ON_S3)
    return cloud


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"id": "me"', '"id": "you"'), "belongs to pipeline `you`, not to `me`"),
        (
            ('"region": "us-east-1"', '"region": "eu-west-1"'),
            "belongs to region `eu-west-1`, not to `us-east-1`",
        ),
        (
            ('"account": "123456789012"', '"account": "210987654321"'),
            "belongs to account `210987654321`, not to `123456789012`",
        ),
        (('"version": 1', '"version": 2'), "expected format version 1, got 2"),
        (('"resources": {', '"resources": '), "is damaged"),
    ],
)
def test_state_of_another_pipeline_is_rejected_by_every_command(cloud, change, message):
    cloud.run("provision", "--yes", "--only", "api-key")
    path = cloud.data / "aws" / "state.json"
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change, 1))
    for command in (
        ("provision", "--plan"),
        ("provision", "--yes"),
        ("destroy", "--yes"),
        ("status",),
    ):
        assert message in refused_run(cloud, *command)
    assert path.read_text() != text, "the file is unchanged"
    path.write_text(text)
    cloud.run("destroy", "--yes")


def test_empty_state_file_is_damaged(cloud):
    cloud.run("provision", "--yes", "--only", "api-key")
    (cloud.data / "aws" / "state.json").write_text("")
    assert "is damaged" in refused_run(cloud, "provision", "--yes")


@pytest.mark.parametrize("lost", ["state.json", "the folder"])
def test_everything_is_found_again_without_the_state(cloud, lost):
    state.everything_is_found_again_without_the_state(cloud, lost)


def test_apply_resumes_after_the_state_is_lost_half_way(cloud):
    cloud.run("provision", "--yes")
    wanted = cloud.aws.snapshot()
    for operation in ("kafka.CreateClusterV2", "ec2.AllocateAddress", "apigateway.CreateUsagePlan"):
        cloud.clear()
        cloud.run_killed("provision", "--yes", fits=Point(operation, 1))
        (cloud.data / "aws" / "state.json").unlink()
        cloud.run("provision", "--yes")
        assert not differences(cloud.aws.snapshot(), wanted), operation


def test_deleted_secret_is_recreated_and_does_not_stop_destroy(cloud):
    empty = cloud.aws.snapshot()
    cloud.run("provision", "--yes")
    wanted = cloud.aws.snapshot()

    def delete():
        return cloud.boto("ssm").delete_parameter(Name="/pinpipe/me/proxy-password")

    delete()
    assert cloud.plan()["proxy-secret"][0] == "create"
    cloud.run("provision", "--yes")
    assert not differences(cloud.aws.snapshot(), wanted)
    delete()
    cloud.run("destroy", "--yes")
    assert not differences(cloud.aws.snapshot(), empty)


@pytest.mark.parametrize("place", ["file", "s3"])
def test_concurrent_apply_is_rejected_but_a_plan_is_not(cloud, place, request):
    if place == "s3":
        request.getfixturevalue("on_s3")
    cloud.aws.settle_reads = 10**6
    process = cloud.start("provision", "--yes")
    wait_for_call(cloud.aws, "CreateClusterV2", process)
    for command in (("provision", "--yes"), ("destroy", "--yes"), ("connector", "pause")):
        code, stderr = cloud.run_to_end(*command)
        assert code == 1 and "\nhint: wait until the process exits" in stderr, stderr
        assert "another pinpipe process is using" in stderr
        assert f"process {process.pid} " in stderr or place == "file", stderr
    assert cloud.plan()
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 1
    if place == "s3":
        assert objects(cloud) == [STATE], "the lock is released"
    code, stderr = cloud.run_to_end("provision", "--plan")
    assert code == 0, stderr


def test_state_is_stored_on_s3(on_s3):
    state.state_is_stored_on_s3(on_s3)


def test_lock_of_a_killed_run_can_be_removed_as_the_error_says(on_s3):
    state.lock_of_a_killed_run_can_be_removed_as_the_error_says(on_s3)


@pytest.mark.parametrize("drop", [False, True])
def test_lock_is_held_although_the_response_got_lost(on_s3, drop):
    state.lock_is_held_although_the_response_got_lost(on_s3, drop)


def test_missing_state_bucket_is_reported_with_a_hint(cloud):
    cloud.configure(provision=STATE_ON_S3)
    for command in (("provision", "--plan"), ("provision", "--yes"), ("destroy", "--yes")):
        assert "hint: create the bucket with `aws s3 mb`" in refused_run(cloud, *command)


@pytest.mark.parametrize("when", ["before", "after"])
def test_unwritable_state_stops_the_run_before_any_change(on_s3, when):
    wanted = on_s3.aws.snapshot()
    on_s3.aws.fail_operation(
        "PutObject", skip=1, times=10**6, when=when, status=403, code="AccessDenied", message="no"
    )
    code, stderr = on_s3.run_to_end("provision", "--yes")
    assert (
        code == 1 and "`s3:PutObject` for the state `s3://team/pinpipe/me.json` failed" in stderr
    ), stderr
    found = on_s3.aws.snapshot()
    found["buckets"] = wanted["buckets"]
    assert not differences(found, wanted)
