"""The state of `provision`: whose it is, what damages it, what its loss means, its lock, and its place on S3."""

import shutil

import pytest
from cloud import ip_ranges
from double import AwsDouble
from faults import BrokenCloud, Point, differences, hanging

PLACE = 'state = "s3://team/pinpipe/me.json"'
STATE, LOCK = "pinpipe/me.json", "pinpipe/me.json.lock"


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
    cloud.configure(provision=PLACE)
    return cloud


def objects(cloud):
    return [found["Key"] for found in cloud.s3.list_objects_v2(Bucket="team").get("Contents", [])]


def refused(cloud, *arguments):
    """What is said of a run that changes nothing."""
    before = cloud.aws.snapshot()
    code, said = cloud.ends(*arguments)
    assert code == 1 and "error: " in said and "\nhint: " in said, said
    assert not differences(cloud.aws.snapshot(), before)
    return said


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
        assert said in refused(cloud, *command)
    assert path.read_text() != text, "it is left as it was found"
    path.write_text(text)
    cloud.run("destroy", "--yes")


def test_an_empty_state_file_is_damaged_too(cloud):
    cloud.run("provision", "--yes", "--only", "api-key")
    (cloud.data / "aws" / "state.json").write_text("")
    assert "is damaged" in refused(cloud, "provision", "--yes")


@pytest.mark.parametrize("lost", ["state.json", "the folder"])
def test_without_its_state_everything_is_found_again(cloud, lost):
    empty = cloud.aws.snapshot()
    cloud.run("provision", "--yes")
    wanted = cloud.aws.snapshot()

    def lose():
        shutil.rmtree(cloud.data) if lost == "the folder" else (cloud.data / "aws" / "state.json").unlink()

    lose()
    # The key's private half is no part of the state: where it is lost, it comes back from Parameter Store.
    assert set(cloud.plan()) == ({"key-pair"} if lost == "the folder" else set())
    cloud.run("provision", "--yes")
    assert not differences(cloud.aws.snapshot(), wanted) and cloud.plan() == {}
    lose()
    cloud.run("destroy", "--yes")
    assert not differences(cloud.aws.snapshot(), empty)


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


def test_the_state_lies_on_s3(on_s3):
    on_s3.run("provision", "--yes")
    assert objects(on_s3) == [STATE] and not (on_s3.data / "aws" / "state.json").exists()
    shutil.rmtree(on_s3.data)
    assert set(on_s3.plan()) == {"key-pair"}, "another machine finds everything there"
    on_s3.run("provision", "--yes")
    assert on_s3.plan() == {} and objects(on_s3) == [STATE]
    text = on_s3.s3.get_object(Bucket="team", Key=STATE)["Body"].read()
    on_s3.s3.put_object(Bucket="team", Key=STATE, Body=text[:200])
    assert "is damaged" in refused(on_s3, "provision", "--yes")
    assert objects(on_s3) == [STATE], "no lock stays after an error"
    on_s3.s3.put_object(Bucket="team", Key=STATE, Body=text)
    on_s3.run("destroy", "--yes")
    assert objects(on_s3) == []


def test_the_lock_of_a_killed_run_says_how_to_be_removed(on_s3):
    assert on_s3.killed("provision", "--yes", fits=Point("kafka.CreateClusterV2", 1))
    assert sorted(objects(on_s3)) == [STATE, LOCK]
    assert f"`aws s3 rm s3://team/{LOCK}`" in refused(on_s3, "provision", "--yes")
    on_s3.s3.delete_object(Bucket="team", Key=LOCK)
    on_s3.run("provision", "--yes")
    assert on_s3.plan() == {} and on_s3.aws.count("CreateClusterV2") == 1


@pytest.mark.parametrize("drop", [False, True])
def test_a_lock_whose_answer_got_lost_is_ones_own(on_s3, drop):
    on_s3.aws.fail_operation("PutObject", when="after", drop=drop)
    on_s3.run("provision", "--yes", "--only", "api-key")
    assert objects(on_s3) == [STATE]


def test_a_bucket_for_the_state_that_is_not_there_is_said_with_what_to_do(cloud):
    cloud.configure(provision=PLACE)
    for command in (("provision", "--plan"), ("provision", "--yes"), ("destroy", "--yes")):
        assert "hint: make it first" in refused(cloud, *command)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_state_that_cannot_be_written_stops_the_run_before_anything_is_made(on_s3, when):
    wanted = on_s3.aws.snapshot()
    on_s3.aws.fail_operation("PutObject", skip=1, times=10**6, when=when, status=403, code="AccessDenied", message="no")
    code, said = on_s3.ends("provision", "--yes")
    assert code == 1 and "`s3:PutObject` for the state `s3://team/pinpipe/me.json` failed" in said, said
    found = on_s3.aws.snapshot()
    found["buckets"] = wanted["buckets"]
    assert not differences(found, wanted)
