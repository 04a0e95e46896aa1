"""`provision` on AWS once more, with each service that ministack has played by ministack, and posts through its API."""

import json
import re

import pytest
import requests
import test_provision
import test_provision_changes as changes
import test_provision_drift as drift
import test_provision_security as security
import test_provision_state as state
import test_s3
from cloud import ip_ranges
from conftest import LocalStack, Pinpipe
from faults import BrokenCloud
from lakes import KINDS, records
from ministack import Ministack
from provisioned import Shared
from splitter import Split
from test_kafka_clients import consume
from test_s3 import watched

# Not there: MSK and its topics (it has none of the operations since CreateClusterV2), MSK Connect (nothing
# of it), EC2 with its machines: RunInstances drops NetworkInterfaces, so that a machine is in no group, launches
# another one for the same ClientToken, and ImportKeyPair drops the tags. Groups and endpoints have a test of their own.
# Its API forwards HTTP_PROXY integrations without the headers they add, and so without the proxy's password; what
# leads to Kinesis it keeps and does not run.
WHOLE = ("s3", "iam", "sts", "ssm", "kinesis", "apigateway")
NETWORK = ("group-client", "group-cluster", "s3-endpoint")

# Of what others change, that which is at ministack and behaves there as on AWS. Left out:
DIFFERS = {
    "encryption gone": "a bucket without rules is encrypted with SSE-S3, as on S3 since 2023, where the double here says it is not",
    "stream on demand": "UpdateStreamMode is unknown",
    "api without a key": "UpdateMethod keeps the text `false` as it is, and GetResources answers with text where a boolean is due",
    "key off": "so does UpdateApiKey",
    "path gone": "DeleteResource leaves what lies below the resource",
    "key gone": "DeleteApiKey leaves the key in its usage plan",
    "plan without its stage": "UpdateUsagePlan makes a text of `apiStages`, which is a list",
    "stage gone": "DeleteStage leaves the stage in the usage plan",
}
PLAYED = {
    "role-connector", "role-kinesis", "instance-profile", "bucket", "plugin-object", "stream-geo", "api", "api-key", "usage-plan"}
called = lambda test: test.__name__
DRIFT = [name for name, (expected, _) in drift.DRIFT.items() if set(expected) <= PLAYED and name not in DIFFERS]


def played_by(services, settings=None):
    """A pipeline on both doubles, with these services at ministack."""

    @pytest.fixture(scope="module")
    def made(tmp_path_factory):
        with Ministack(tmp_path_factory.mktemp("ministack")) as ministack, ip_ranges() as url, Split(ministack, services) as double:
            yield Shared(tmp_path_factory, double, url, settings)

    return made


module, network = played_by(WHOLE, {"aws__tags": {"team": "data"}}), played_by(("ec2",))


@pytest.fixture
def cloud(module):
    yield module.whole()
    assert not module.double.problems, module.double.problems


@pytest.fixture
def empty(module):
    yield module.empty()
    assert not module.double.problems, module.double.problems


@pytest.fixture
def broken(module, tmp_path):
    module.is_whole, module.double.settle_reads = False, 1
    cloud = BrokenCloud(tmp_path, module.double, module.url)
    yield cloud
    cloud.aws.settle_reads = 0
    cloud.done()


@pytest.fixture
def gateway(tmp_path):
    """The servers of a local pipeline of the same id, with topics and routes."""
    (tmp_path / "pinpipe.toml").write_text('id = "me"\n')
    stack = LocalStack(Pinpipe(tmp_path))
    stack.pinpipe.run("provision")
    yield stack
    if stack.process.poll() is None:
        stack.process.kill()
        stack.process.wait()


def test_an_apply_makes_everything_and_the_plan_after_it_is_empty(empty):
    test_provision.test_an_apply_makes_everything_and_the_plan_after_it_is_empty(empty)
    assert empty.aws.names_elsewhere() == {
        "buckets": ["user-me-bucket"], "roles": ["me-connector-role", "me-ec2-access-role", "me-kinesis-access-role"],
        "instance profiles": ["me-ec2-access-role"], "streams": ["streaming-me-geo", "streaming-me-pin", "streaming-me-user"],
        "parameters": ["/pinpipe/me/key-pair", "/pinpipe/me/proxy-password"], "apis": ["me-api"], "keys": ["me-api-key"], "plans": ["me-usage-plan"]}


def test_destroy_leaves_nothing_behind_and_succeeds_when_nothing_is_there(empty):
    test_provision.test_destroy_leaves_nothing_behind_and_succeeds_when_nothing_is_there(empty)
    assert not any(empty.aws.snapshot().values())


def read(local, topic, count):
    return sorted(json.dumps(json.loads(message.value()), sort_keys=True) for message in consume(local.kafka, topic, count))


def test_posts_go_through_the_api_into_kafka(empty, gateway):
    """From the rows of the database through API key, stage and forwarding of the API to a Kafka consumer."""
    empty.aws.gateway = gateway.gateway
    said = empty.run("provision", "--yes").stderr
    url = empty.run("api", "url").stdout.strip()
    assert url.startswith(f"{empty.aws.url}/restapis/") and f"the API answers: {url}" in said
    assert empty.plan() == {}
    empty.run("seed", "--posts", 60)
    before = len(empty.aws.invocations)
    sent = empty.json("emulate", "--to", "kafka", "--rows", "0-49")
    assert (sent["posts"], sent["delivered"], sent["errors"]) == (50, 150, 0)
    assert [call.status for call in empty.aws.invocations[before:] if call.method == "POST"] == [200] * 150
    for kind in KINDS:
        rows = [json.dumps(json.loads(row), sort_keys=True) for row in records(empty.data / "source.db", kind)][:50]
        assert read(gateway, f"me.{kind}", 50) == sorted(rows)
    # Nobody else gets in.
    post = {"json": {"records": [{"value": {}}]}, "timeout": 20}
    content = {"content-type": "application/vnd.kafka.json.v2+json"}
    assert requests.post(f"{url}/topics/me.pin", headers=content, **post).status_code == 403
    assert requests.post(f"{url}/topics/me.pin", headers={**content, "x-api-key": "a" * 40}, **post).status_code == 403
    # What the proxy says comes back as it is.
    key = empty.boto("apigateway").get_api_key(apiKey=empty.known("api-key"), includeValue=True)["value"]
    answer = requests.post(f"{url}/topics/nope", headers={**content, "x-api-key": key}, **post)
    assert (answer.status_code, answer.json()["error_code"]) == (404, 40401)


@pytest.mark.parametrize("name", DRIFT)
def test_what_others_changed_is_named_and_mended(module, cloud, name):
    drift.test_what_others_changed_is_named_and_mended(module, cloud, name)


@pytest.mark.parametrize("change", ["changed", "removed"])
def test_tags_are_put_back(module, cloud, change, monkeypatch):
    """TagResource of its API Gateway keeps tags that GetApiKey and GetUsagePlan do not show; those of the stage GetTags does."""
    monkeypatch.setattr(drift, "TAGGED", [key for key in drift.TAGGED if key not in ("api-key", "usage-plan")])
    drift.test_tags_are_put_back_on_everything_that_can_have_tags(module, cloud, change)


@pytest.mark.parametrize("same", [
    drift.test_a_machine_without_its_role_gets_it_back, drift.test_what_others_added_stays, drift.test_a_lost_password_is_replaced_everywhere,
    drift.test_a_lost_key_file_comes_back_from_parameter_store, drift.test_a_lost_key_parameter_comes_back_from_the_file,
    drift.test_a_key_that_is_lost_everywhere_is_made_anew_with_its_machine, changes.test_shards_are_doubled_at_most_in_each_step], ids=called)
def test_changes_as_on_the_double(module, cloud, same):
    same(module, cloud)


@pytest.mark.parametrize("key", ["bucket", "role-client", "stream-pin"])
@pytest.mark.parametrize("same", [
    changes.test_what_others_made_under_our_name_is_left_alone, changes.test_what_others_made_can_be_used_as_the_hint_says], ids=called)
def test_what_others_made(empty, same, key):
    same(empty, key)


def test_destroying_takes_the_secrets_away(empty):
    security.test_destroying_takes_the_secrets_away(empty)


@pytest.mark.parametrize("lost", ["state.json", "the folder"])
def test_without_its_state_everything_is_found_again(broken, lost):
    state.test_without_its_state_everything_is_found_again(broken, lost)


@pytest.mark.parametrize("same", [
    state.test_the_state_lies_on_s3, state.test_the_lock_of_a_killed_run_says_how_to_be_removed, state.test_a_lock_whose_answer_got_lost_is_ones_own],
    ids=called)
def test_the_state_and_its_lock_on_s3(broken, same):
    """The lock is an object that S3 takes only once (If-None-Match)."""
    broken.s3 = broken.boto("s3")
    broken.s3.create_bucket(Bucket="team")
    broken.configure(provision=state.PLACE)
    same(broken, *((True,) if same is state.test_a_lock_whose_answer_got_lost_is_ones_own else ()))


def test_groups_and_endpoints(network):
    """The part of EC2 that can stand alone."""
    cloud, only = network.empty(), ("--only", ",".join(NETWORK))
    before = cloud.aws.snapshot()
    assert {key: action for key, (action, _) in cloud.plan(*only).items()} == dict.fromkeys(NETWORK, "create")
    cloud.apply(*only)
    assert cloud.plan(*only) == {} and "me-cluster-group" in cloud.aws.names_elsewhere()["groups"]
    for name in ("cluster rule gone", "proxy rule gone", "endpoint without a table", "endpoint gone"):
        expected, change = drift.DRIFT[name]
        change(cloud)
        found = cloud.plan(*only)
        assert set(found) == set(expected), found
        for key, (action, reason) in expected.items():
            assert found[key][0] == action and re.search(reason, found[key][1]), found
        cloud.apply(*only)
        assert cloud.plan(*only) == {}, name
    cloud.run("destroy", "--yes")
    assert cloud.aws.snapshot() == before and not cloud.aws.problems


def test_streams_and_lake_of_a_pipeline(empty):
    """What arrived in its streams and its bucket is read from there, and the tables lie in the bucket."""
    empty.apply("--only", "bucket,stream")
    empty.run("seed", "--posts", 40)
    kinesis, s3 = empty.boto("kinesis"), empty.boto("s3")
    for kind in KINDS:
        rows = [row.encode() for row in records(empty.data / "source.db", kind)]
        answer = kinesis.put_records(StreamName=f"streaming-me-{kind}", Records=[{"Data": row, "PartitionKey": str(n)} for n, row in enumerate(rows)])
        assert answer["FailedRecordCount"] == 0
        s3.put_object(Bucket="user-me-bucket", Key=f"topics/me.{kind}/partition=0/me.{kind}+0+0000000000.json", Body=b"\n".join(rows))
    assert [table["rows"] for table in empty.json("stream", "--available-now")["tables"]] == [40] * 3
    assert [table["rows"] for table in empty.json("stream", "--available-now")["tables"]] == [0] * 3
    assert [each["rows"] for each in empty.json("batch")["inputs"]] == [40] * 3
    assert [each["objects"] for each in empty.json("batch")["inputs"]] == [0] * 3
    said = empty.run("destroy", "--yes", code=1).stderr
    assert "user-me-bucket" in said and empty.aws.names_elsewhere()["buckets"] == ["user-me-bucket"]
    empty.run("destroy", "--yes", "--data")
    assert not any(empty.aws.snapshot().values())


@pytest.fixture
def s3(tmp_path_factory):
    with Ministack(tmp_path_factory.mktemp("ministack")) as ministack:
        yield ministack.url


def test_the_whole_way_over_s3(pinpipe, s3, monkeypatch):
    test_s3.test_the_whole_way_over_s3(pinpipe, s3, monkeypatch)


def test_every_object_is_read_once_and_a_page_lists_a_thousand(pinpipe, s3, watched):
    test_s3.test_every_object_is_read_once_and_a_page_lists_a_thousand(pinpipe, s3, watched)


def test_a_bucket_that_is_not_there_is_told(pinpipe, s3):
    test_s3.test_a_bucket_that_is_not_there_is_told(pinpipe, s3)
