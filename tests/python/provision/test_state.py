"""The state of `provision`: whose it is, what damages it, what its loss means, its lock, and its place on S3."""

import pytest

from doubles.aws import AwsDouble
from support.cloud import ip_ranges
from support.faults import BrokenCloud, Point, differences, hanging
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


@pytest.mark.parametrize("change, said", [
    (('"id": "me"', '"id": "you"'), "belongs to pipeline `you`, not to `me`"),
    (('"region": "us-east-1"', '"region": "eu-west-1"'), "belongs to region `eu-west-1`, not to `us-east-1`"),
    (('"account": "123456789012"', '"account": "210987654321"'), "belongs to account `210987654321`, not to `123456789012`"),
    (('"version": 1', '"version": 2'), "written by another version of pinpipe"),
    (('"resources": {', '"resources": '), "is damaged"),
])
def test_a_state_that_is_not_this_pipelines_is_refused_by_every_command(cloud, change, said):
    cloud.run("provision", "--yes", "--only", "api-key")
    path = cloud.data / "aws" / "state.json"
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change, 1))
    for command in (("provision", "--plan"), ("provision", "--yes"), ("destroy", "--yes"), ("status",)):
        assert said in refused_run(cloud, *command)
    assert path.read_text() != text, "it is left as it was found"
    path.write_text(text)
    cloud.run("destroy", "--yes")


def test_an_empty_state_file_is_damaged_too(cloud):
    cloud.run("provision", "--yes", "--only", "api-key")
    (cloud.data / "aws" / "state.json").write_text("")
    assert "is damaged" in refused_run(cloud, "provision", "--yes")


@pytest.mark.parametrize("lost", ["state.json", "the folder"])
def test_everything_is_found_again_without_the_state(cloud, lost):
    state.everything_is_found_again_without_the_state(cloud, lost)


def test_a_state_lost_half_way_is_gone_on_without(cloud):
    cloud.run("provision", "--yes")
    wanted = cloud.aws.snapshot()
    for operation in ("kafka.CreateClusterV2", "ec2.AllocateAddress", "apigateway.CreateUsagePlan"):
        cloud.clear()
        cloud.killed("provision", "--yes", fits=Point(operation, 1))
        (cloud.data / "aws" / "state.json").unlink()
        cloud.run("provision", "--yes")
        assert not differences(cloud.aws.snapshot(), wanted), operation


def test_a_secret_deleted_by_hand_is_planned_made_again_and_does_not_stop_destroy(cloud):
    empty = cloud.aws.snapshot()
    cloud.run("provision", "--yes")
    wanted = cloud.aws.snapshot()
    delete = lambda: cloud.boto("ssm").delete_parameter(Name="/pinpipe/me/proxy-password")
    delete()
    assert cloud.plan()["proxy-secret"][0] == "create"
    cloud.run("provision", "--yes")
    assert not differences(cloud.aws.snapshot(), wanted)
    delete()
    cloud.run("destroy", "--yes")
    assert not differences(cloud.aws.snapshot(), empty)


@pytest.mark.parametrize("place", ["file", "s3"])
def test_a_second_run_is_refused_while_one_works_and_a_look_is_not(cloud, place, request):
    if place == "s3":
        request.getfixturevalue("on_s3")
    cloud.aws.settle_reads = 10**6
    process = cloud.start("provision", "--yes")
    hanging(cloud.aws, "CreateClusterV2", process)
    for command in (("provision", "--yes"), ("destroy", "--yes"), ("connector", "pause")):
        code, said = cloud.ends(*command)
        assert code == 1 and "\nhint: wait until it is done" in said, said
        assert "another pinpipe is working with" in said
        assert f"process {process.pid} " in said or place == "file", said
    assert cloud.plan()
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 1
    if place == "s3":
        assert objects(cloud) == [STATE], "the lock is gone"
    code, said = cloud.ends("provision", "--plan")
    assert code == 0, said


def test_state_is_stored_on_s3(on_s3):
    state.state_is_stored_on_s3(on_s3)


def test_lock_of_a_killed_run_can_be_removed_as_the_error_says(on_s3):
    state.lock_of_a_killed_run_can_be_removed_as_the_error_says(on_s3)


@pytest.mark.parametrize("drop", [False, True])
def test_lock_is_held_although_the_response_got_lost(on_s3, drop):
    state.lock_is_held_although_the_response_got_lost(on_s3, drop)


def test_a_bucket_for_the_state_that_is_not_there_is_said_with_what_to_do(cloud):
    cloud.configure(provision=STATE_ON_S3)
    for command in (("provision", "--plan"), ("provision", "--yes"), ("destroy", "--yes")):
        assert "hint: make it first" in refused_run(cloud, *command)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_state_that_cannot_be_written_stops_the_run_before_anything_is_made(on_s3, when):
    wanted = on_s3.aws.snapshot()
    on_s3.aws.fail_operation("PutObject", skip=1, times=10**6, when=when, status=403, code="AccessDenied", message="no")
    code, said = on_s3.ends("provision", "--yes")
    assert code == 1 and "`s3:PutObject` for the state `s3://team/pinpipe/me.json` failed" in said, said
    found = on_s3.aws.snapshot()
    found["buckets"] = wanted["buckets"]
    assert not differences(found, wanted)
