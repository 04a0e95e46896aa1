"""The state of `provision`: recovery after its loss, storage on S3, and the lock on S3."""

import shutil

from support.faults import Point, differences

STATE_ON_S3 = 'state = "s3://team/pinpipe/me.json"'


STATE, LOCK = "pinpipe/me.json", "pinpipe/me.json.lock"


def objects(cloud):
    return [found["Key"] for found in cloud.s3.list_objects_v2(Bucket="team").get("Contents", [])]


def refused_run(cloud, *arguments):
    """Runs a command that must fail without changing anything. Returns its stderr."""
    before = cloud.aws.snapshot()
    code, stderr = cloud.run_to_end(*arguments)
    assert code == 1 and "error: " in stderr and "\nhint: " in stderr, stderr
    assert not differences(cloud.aws.snapshot(), before)
    return stderr


def everything_is_found_again_without_the_state(cloud, lost):
    empty = cloud.aws.snapshot()
    cloud.run("provision", "--yes")
    wanted = cloud.aws.snapshot()

    def lose():
        shutil.rmtree(cloud.data) if lost == "the folder" else (
            cloud.data / "aws" / "state.json"
        ).unlink()

    lose()
    # The private key is not in the state: a lost key file is restored from Parameter Store.
    assert set(cloud.plan()) == ({"key-pair"} if lost == "the folder" else set())
    cloud.run("provision", "--yes")
    assert not differences(cloud.aws.snapshot(), wanted) and cloud.plan() == {}
    lose()
    cloud.run("destroy", "--yes")
    assert not differences(cloud.aws.snapshot(), empty)


def state_is_stored_on_s3(on_s3):
    on_s3.run("provision", "--yes")
    assert objects(on_s3) == [STATE] and not (on_s3.data / "aws" / "state.json").exists()
    shutil.rmtree(on_s3.data)
    assert set(on_s3.plan()) == {"key-pair"}, "another machine reads the state from S3"
    on_s3.run("provision", "--yes")
    assert on_s3.plan() == {} and objects(on_s3) == [STATE]
    text = on_s3.s3.get_object(Bucket="team", Key=STATE)["Body"].read()
    on_s3.s3.put_object(Bucket="team", Key=STATE, Body=text[:200])
    assert "is damaged" in refused_run(on_s3, "provision", "--yes")
    assert objects(on_s3) == [STATE], "the lock is released after an error"
    on_s3.s3.put_object(Bucket="team", Key=STATE, Body=text)
    on_s3.run("destroy", "--yes")
    assert objects(on_s3) == []


def lock_of_a_killed_run_can_be_removed_as_the_error_says(on_s3):
    assert on_s3.run_killed("provision", "--yes", fits=Point("kafka.CreateClusterV2", 1))
    assert sorted(objects(on_s3)) == [STATE, LOCK]
    assert f"`aws s3 rm s3://team/{LOCK}`" in refused_run(on_s3, "provision", "--yes")
    on_s3.s3.delete_object(Bucket="team", Key=LOCK)
    on_s3.run("provision", "--yes")
    assert on_s3.plan() == {} and on_s3.aws.count("CreateClusterV2") == 1


def lock_is_held_although_the_response_got_lost(on_s3, drop):
    on_s3.aws.fail_operation("PutObject", when="after", drop=drop)
    on_s3.run("provision", "--yes", "--only", "api-key")
    assert objects(on_s3) == [STATE]
