"""`provision` on AWS, with ministack as the double of every service that it has, and posts through
its API.
"""

import json
import re

import pytest
import requests

from doubles.ministack import Ministack
from doubles.splitter import Split
from support.cloud import ip_ranges
from support.faults import BrokenCloud
from support.kafka import consume
from support.lakes import KINDS, records
from support.local_stack import LocalStack
from support.pinpipe import Pinpipe
from support.provisioned import Shared
from support.scenarios import create, drift, security, state, update
from support.scenarios import s3 as s3_scenarios
from support.scenarios.drift_changes import DRIFT as DRIFT_CHANGES

pytestmark = pytest.mark.slow

# Ministack lacks MSK and its topics (no operation since CreateClusterV2), MSK Connect, and EC2
# instances:
# RunInstances drops NetworkInterfaces, so that an instance has no group, and launches a second one
# for the
# same ClientToken; ImportKeyPair drops the tags. Groups and endpoints have a test of their own.
# Its API Gateway forwards HTTP_PROXY integrations without the headers that they add, and so without
# the
# proxy's password; it stores integrations of Kinesis but does not run them.
WHOLE = ("s3", "iam", "sts", "ssm", "kinesis", "apigateway")
NETWORK = ("group-client", "group-cluster", "s3-endpoint")

# Drift of resources at ministack that behaves as on AWS. Left out:
DIFFERS = {
    "encryption gone": (
        "a bucket without rules is encrypted with SSE-S3, as on S3 since 2023, "
        "where the double here says it is not"
    ),
    "stream on demand": "UpdateStreamMode is unknown",
    "api without a key": (
        "UpdateMethod keeps the text `false` as it is, and GetResources answers "
        "with text where a boolean is due"
    ),
    "key off": "so does UpdateApiKey",
    "path gone": "DeleteResource leaves what lies below the resource",
    "key gone": "DeleteApiKey leaves the key in its usage plan",
    "plan without its stage": "UpdateUsagePlan makes a text of `apiStages`, which is a list",
    "stage gone": "DeleteStage leaves the stage in the usage plan",
}
PLAYED = {
    "role-connector",
    "role-kinesis",
    "instance-profile",
    "bucket",
    "plugin-object",
    "stream-geo",
    "api",
    "api-key",
    "usage-plan",
}


def scenario_name(scenario):
    return scenario.__name__


DRIFT = [
    name
    for name, (expected, _) in DRIFT_CHANGES.items()
    if set(expected) <= PLAYED and name not in DIFFERS
]


def played_by(services, settings=None):
    """Returns a fixture: a pipeline on both doubles, with these services at ministack."""

    @pytest.fixture(scope="module")
    def made(tmp_path_factory):
        with (
            Ministack(tmp_path_factory.mktemp("ministack")) as ministack,
            ip_ranges() as url,
            Split(ministack, services) as double,
        ):
            yield Shared(tmp_path_factory, double, url, settings)

    return made


module, network = played_by(WHOLE, {"aws__tags": {"team": "data"}}), played_by(("ec2",))


@pytest.fixture
def cloud(module):
    yield module.applied()
    assert not module.double.problems, module.double.problems


@pytest.fixture
def empty(module):
    yield module.empty()
    assert not module.double.problems, module.double.problems


@pytest.fixture
def broken(module, tmp_path):
    module.is_clean, module.double.settle_reads = False, 1
    cloud = BrokenCloud(tmp_path, module.double, module.url)
    yield cloud
    cloud.aws.settle_reads = 0
    cloud.done()


@pytest.fixture
def gateway(tmp_path):
    """The servers of a local pipeline with the same id, with topics and routes."""
    (tmp_path / "pinpipe.toml").write_text('id = "me"\n')
    stack = LocalStack(Pinpipe(tmp_path))
    stack.pinpipe.run("provision")
    yield stack
    if stack.process.poll() is None:
        stack.process.kill()
        stack.process.wait()


def test_apply_creates_everything_and_the_next_plan_is_empty(empty):
    create.creates_everything_then_plans_nothing(empty)
    assert empty.aws.names_elsewhere() == {
        "buckets": ["user-me-bucket"],
        "roles": ["me-connector-role", "me-ec2-access-role", "me-kinesis-access-role"],
        "instance profiles": ["me-ec2-access-role"],
        "streams": ["streaming-me-geo", "streaming-me-pin", "streaming-me-user"],
        "parameters": ["/pinpipe/me/key-pair", "/pinpipe/me/proxy-password"],
        "apis": ["me-api"],
        "keys": ["me-api-key"],
        "plans": ["me-usage-plan"],
    }


def test_destroy_deletes_everything_and_succeeds_again(empty):
    create.destroys_everything_and_succeeds_again(empty)
    assert not any(empty.aws.snapshot().values())


def read(local, topic, count):
    return sorted(
        json.dumps(json.loads(message.value()), sort_keys=True)
        for message in consume(local.kafka, topic, count)
    )


def test_posts_reach_kafka_through_the_api(empty, gateway):
    """From the rows of the database through key, stage and integration of the API to a Kafka
    consumer.
    """
    empty.aws.gateway = gateway.gateway
    stderr = empty.run("provision", "--yes").stderr
    url = empty.run("api", "url").stdout.strip()
    assert url.startswith(f"{empty.aws.url}/restapis/") and f"the API responds: {url}" in stderr
    assert empty.plan() == {}
    empty.run("seed", "--posts", 60)
    before = len(empty.aws.invocations)
    sent = empty.json("emulate", "--to", "kafka", "--rows", "0-49")
    assert (sent["posts"], sent["delivered"], sent["errors"]) == (50, 150, 0)
    assert [call.status for call in empty.aws.invocations[before:] if call.method == "POST"] == [
        200
    ] * 150
    for kind in KINDS:
        rows = [
            json.dumps(json.loads(row), sort_keys=True)
            for row in records(empty.data / "source.db", kind)
        ][:50]
        assert read(gateway, f"me.{kind}", 50) == sorted(rows)
    # Other callers are rejected.
    post = {"json": {"records": [{"value": {}}]}, "timeout": 20}
    content = {"content-type": "application/vnd.kafka.json.v2+json"}
    assert requests.post(f"{url}/topics/me.pin", headers=content, **post).status_code == 403
    assert (
        requests.post(
            f"{url}/topics/me.pin", headers={**content, "x-api-key": "a" * 40}, **post
        ).status_code
        == 403
    )
    # The response of the proxy is unchanged.
    key = empty.boto("apigateway").get_api_key(
        apiKey=empty.state_value("api-key"), includeValue=True
    )["value"]
    answer = requests.post(f"{url}/topics/nope", headers={**content, "x-api-key": key}, **post)
    assert (answer.status_code, answer.json()["error_code"]) == (404, 40401)


@pytest.mark.parametrize("name", DRIFT)
def test_drift_is_reported_and_repaired(module, cloud, name):
    drift.drift_is_reported_and_repaired(module, cloud, name)


@pytest.mark.parametrize("change", ["changed", "removed"])
def test_tags_are_restored(module, cloud, change):
    """Tags of TagResource are not in GetApiKey and GetUsagePlan of ministack; GetTags returns those
    of the stage.
    """
    drift.tags_are_restored(
        module, cloud, change, [key for key in drift.TAGGED if key not in ("api-key", "usage-plan")]
    )


@pytest.mark.parametrize(
    "scenario",
    [
        drift.machine_gets_its_role_back,
        drift.unmanaged_additions_are_kept,
        drift.lost_password_is_replaced_everywhere,
        drift.lost_key_file_is_restored_from_parameter_store,
        drift.lost_key_parameter_is_restored_from_the_file,
        drift.key_lost_everywhere_is_recreated_with_its_machine,
        update.resharding_at_most_doubles_in_each_step,
    ],
    ids=scenario_name,
)
def test_changes_behave_as_on_the_double(module, cloud, scenario):
    scenario(module, cloud)


@pytest.mark.parametrize("key", ["bucket", "role-client", "stream-pin"])
@pytest.mark.parametrize(
    "scenario",
    [
        update.unmanaged_resource_is_left_alone,
        update.unmanaged_resource_can_be_skipped_as_the_hint_says,
    ],
    ids=scenario_name,
)
def test_unmanaged_resources(empty, scenario, key):
    scenario(empty, key)


def test_destroy_deletes_the_secrets(empty):
    security.destroy_deletes_the_secrets(empty)


@pytest.mark.parametrize("lost", ["state.json", "the folder"])
def test_everything_is_found_again_without_the_state(broken, lost):
    state.everything_is_found_again_without_the_state(broken, lost)


@pytest.mark.parametrize(
    "scenario",
    [
        state.state_is_stored_on_s3,
        state.lock_of_a_killed_run_can_be_removed_as_the_error_says,
        lambda cloud: state.lock_is_held_although_the_response_got_lost(cloud, True),
    ],
    ids=["state", "lock of a killed run", "lost response"],
)
def test_state_and_its_lock_on_s3(broken, scenario):
    """The lock is an object that S3 creates only once (If-None-Match)."""
    broken.s3 = broken.boto("s3")
    broken.s3.create_bucket(Bucket="team")
    broken.configure(provision=state.STATE_ON_S3)
    scenario(broken)


def test_security_groups_and_endpoints(network):
    """The part of EC2 that works without instances."""
    cloud, only = network.empty(), ("--only", ",".join(NETWORK))
    before = cloud.aws.snapshot()
    assert {key: action for key, (action, _) in cloud.plan(*only).items()} == dict.fromkeys(
        NETWORK, "create"
    )
    cloud.apply(*only)
    assert cloud.plan(*only) == {} and "me-cluster-group" in cloud.aws.names_elsewhere()["groups"]
    for name in (
        "cluster rule gone",
        "proxy rule gone",
        "endpoint without a table",
        "endpoint gone",
    ):
        expected, change = DRIFT_CHANGES[name]
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
    """Records of its streams and its bucket are read, and the tables are stored in the bucket."""
    empty.apply("--only", "bucket,stream")
    empty.run("seed", "--posts", 40)
    kinesis, s3 = empty.boto("kinesis"), empty.boto("s3")
    for kind in KINDS:
        rows = [row.encode() for row in records(empty.data / "source.db", kind)]
        answer = kinesis.put_records(
            StreamName=f"streaming-me-{kind}",
            Records=[{"Data": row, "PartitionKey": str(n)} for n, row in enumerate(rows)],
        )
        assert answer["FailedRecordCount"] == 0
        s3.put_object(
            Bucket="user-me-bucket",
            Key=f"topics/me.{kind}/partition=0/me.{kind}+0+0000000000.json",
            Body=b"\n".join(rows),
        )
    assert [table["rows"] for table in empty.json("stream", "--available-now")["tables"]] == [
        40
    ] * 3
    assert [table["rows"] for table in empty.json("stream", "--available-now")["tables"]] == [0] * 3
    assert [each["rows"] for each in empty.json("batch")["inputs"]] == [40] * 3
    assert [each["objects"] for each in empty.json("batch")["inputs"]] == [0] * 3
    stderr = empty.run("destroy", "--yes", code=1).stderr
    assert "user-me-bucket" in stderr and empty.aws.names_elsewhere()["buckets"] == [
        "user-me-bucket"
    ]
    empty.run("destroy", "--yes", "--data")
    assert not any(empty.aws.snapshot().values())


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory):
    with Ministack(tmp_path_factory.mktemp("ministack")) as ministack:
        yield ministack


@pytest.fixture
def s3(s3_server):
    """The address of that server, without buckets."""
    s3_server.reset()
    return s3_server.url


def test_whole_pipeline_on_s3(pinpipe, s3):
    s3_scenarios.whole_pipeline_on_s3(pinpipe, s3)


def test_every_object_is_read_once_and_listed_in_pages_of_1000(pinpipe, s3, s3_proxy):
    s3_scenarios.every_object_is_read_once_and_listed_in_pages_of_1000(pinpipe, s3, s3_proxy)


def test_missing_bucket_is_reported(pinpipe, s3):
    s3_scenarios.missing_bucket_is_reported(pinpipe, s3)
