"""Changes of the configuration that replace resources: the connector's zip, names, and zones that
cannot share the brokers.
"""

import base64
import contextlib
import hashlib
import http.server
import io
import threading
import zipfile

import pytest

from support.provisioned import assert_plan, assert_plan_and_apply
from support.renamed import EVERY_NAME, NAMED, TOPICS

BUCKET, OBJECT = "user-me-bucket", "kafka-connect-s3/sink.zip"


SECTIONS = {"kinesis": {"shards": 1}}


# The connector's zip.


def zip_with_manifest(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as plugin:
        plugin.writestr("manifest.json", content)
    return file.getvalue()


def connector_and_plugin_md5(cloud):
    """Returns the ARN of the connector, and the MD5 of the zip that its plugin is a copy of."""
    connect = cloud.boto("kafkaconnect")
    connector, plugin = (
        connect.list_connectors()["connectors"][0],
        connect.list_custom_plugins()["customPlugins"][0],
    )
    described = connect.describe_custom_plugin(customPluginArn=plugin["customPluginArn"])
    assert connector["plugins"][0]["customPlugin"]["customPluginArn"] == plugin["customPluginArn"]
    return connector["connectorArn"], described["latestRevision"]["fileDescription"]["fileMd5"]


def md5(content):
    return hashlib.md5(content).hexdigest()


CONTENT = {
    "plugin-object": ("update", "the object differs from `sink.zip`"),
    "plugin": ("replace", "created from a zip with other content"),
    "connector": ("replace", "`plugin` is replaced"),
}


def test_new_release_under_the_same_name_replaces_the_connector(module, cloud):
    before, release = connector_and_plugin_md5(cloud), zip_with_manifest('{"version": "2"}')
    (cloud.folder / "sink.zip").write_bytes(release)
    assert_plan_and_apply(cloud, CONTENT)
    after = connector_and_plugin_md5(cloud)
    assert after[0] != before[0] and after[1] == md5(release) != before[1]
    module.mark_clean()


def test_multipart_upload_is_compared_by_its_full_checksum(module, cloud):
    release = b"PK" + bytes(9 * 1024 * 1024)
    (cloud.folder / "sink.zip").write_bytes(release)
    assert_plan_and_apply(cloud, CONTENT)
    assert (
        connector_and_plugin_md5(cloud)[1] == md5(release)
        and "-" in cloud.boto("s3").head_object(Bucket=BUCKET, Key=OBJECT)["ETag"]
    )
    (cloud.folder / "sink.zip").write_bytes(zip_with_manifest("small again"))
    cloud.apply()
    module.mark_clean()


def test_outdated_plugin_is_detected_after_a_partial_apply(module, cloud):
    """The object alone does not tell which zip the plugin was created from."""
    (cloud.folder / "sink.zip").write_bytes(zip_with_manifest("uploaded alone"))
    cloud.apply("--only", "plugin-object")
    assert_plan_and_apply(cloud, {key: CONTENT[key] for key in ("plugin", "connector")})
    module.mark_clean()


def test_missing_object_with_a_new_zip_is_uploaded(module, cloud):
    (cloud.folder / "sink.zip").write_bytes(zip_with_manifest("another one"))
    cloud.boto("s3").delete_object(Bucket=BUCKET, Key=OBJECT)
    assert_plan_and_apply(cloud, {**CONTENT, "plugin-object": ("create", "does not exist")})
    module.mark_clean()


@contextlib.contextmanager
def serve(contents):
    """Serves zips by their paths; yields the URL and the list of requested paths."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = contents[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()


def test_zip_from_another_url_is_downloaded_once(module, cloud):
    contents = {"/1/sink.zip": zip_with_manifest("one"), "/2/sink.zip": zip_with_manifest("two")}
    moved = {
        **CONTENT,
        "plugin-object": ("update", "the object was uploaded from another URL"),
        "plugin": ("replace", "the URL of the zip has changed"),
    }
    with serve(contents) as (url, asked):
        for path, content in contents.items():
            asked.clear()
            env = {"PINPIPE__CONNECTOR__PLUGIN": url + path}
            assert_plan(cloud, moved, env=env)
            assert asked == []
            cloud.apply(env=env)
            assert (
                cloud.plan(env=env) == {}
                and asked == [path]
                and connector_and_plugin_md5(cloud)[1] == md5(content)
            )
        # An object that another user uploaded is not the zip of the plugin.
        cloud.boto("s3").put_object(Bucket=BUCKET, Key=OBJECT, Body=b"PK another")
        connector = connector_and_plugin_md5(cloud)[0]
        assert_plan_and_apply(
            cloud,
            {
                "plugin-object": (
                    "update",
                    "was uploaded from another URL; the object has no checksum",
                )
            },
            env=env,
        )
        assert connector_and_plugin_md5(cloud)[0] == connector
    cloud.apply()
    assert cloud.plan() == {}
    module.mark_clean()


def test_unreachable_plugin_url_keeps_the_connector(module, cloud):
    connector = connector_and_plugin_md5(cloud)
    stderr = cloud.refused(
        "provision", "--yes", env={"PINPIPE__CONNECTOR__PLUGIN": "http://127.0.0.1:1/2/sink.zip"}
    )
    assert (
        "cannot download `http://127.0.0.1:1/2/sink.zip`" in stderr
        and connector_and_plugin_md5(cloud) == connector
    )


def test_missing_zip_stops_apply_but_not_status_or_destroy(empty):
    before = empty.aws.snapshot()
    empty.apply()
    zipped = empty.folder / "sink.zip"
    content = zipped.read_bytes()
    zipped.unlink()
    for arguments in (("provision", "--plan"), ("provision", "--yes")):
        assert "cannot read the connector's zip `sink.zip`" in empty.refused(*arguments)
    assert empty.json("status")
    empty.run("destroy", "--yes")
    assert empty.aws.snapshot() == before
    zipped.write_bytes(content)


def test_renamed_zip_deletes_the_previous_object(module, cloud):
    (cloud.folder / "sink-2.zip").write_bytes(zip_with_manifest("2"))
    env = {"PINPIPE__CONNECTOR__PLUGIN": "sink-2.zip"}
    named = {
        "plugin-object": ("replace", NAMED + f"`s3://{BUCKET}/{OBJECT}`"),
        "plugin": ("replace", "created from another object"),
        "connector": CONTENT["connector"],
    }
    assert_plan_and_apply(cloud, named, env=env)
    assert [
        each["Key"] for each in cloud.boto("s3").list_objects_v2(Bucket=BUCKET)["Contents"]
    ] == ["kafka-connect-s3/sink-2.zip"]
    cloud.apply()
    assert cloud.plan() == {}
    module.mark_clean()


# Names.

CONNECTOR = ("replace", "`(cluster|plugin|worker-configuration)` is replaced")
ROLE = ("update", "policy `pinpipe` differs|trust policy differs")
# Each is renamed once; the tests build on each other.
NAMES = {
    "connector": (
        {"connector": {"name": "another"}},
        {"connector": ("replace", NAMED + "`me-connector`"), "role-connector": ROLE},
    ),
    "plugin": (
        {"connector": {"plugin_name": "another"}},
        {"plugin": ("replace", NAMED + "`me-plugin`"), "connector": CONNECTOR},
    ),
    "worker configuration": (
        {"connector": {"worker_name": "another"}},
        {
            "worker-configuration": ("replace", NAMED + "`me-confluent-worker`"),
            "connector": CONNECTOR,
        },
    ),
    "api": ({"api": {"name": "another"}}, {"api": ("update", "the API is named `me-api`")}),
    "bucket": (
        {"connector__properties": {"s3.bucket.name": "another-bucket"}},
        {
            "bucket": ("replace", NAMED + f"`{BUCKET}`"),
            "plugin-object": ("replace", NAMED),
            "plugin": ("replace", "created from another object"),
            "connector": CONNECTOR,
            "role-connector": ROLE,
        },
    ),
    "cluster": (
        {"cluster": {"name": "another"}},
        {
            "cluster": ("replace", NAMED + "`me-cluster`"),
            **TOPICS,
            "connector": CONNECTOR,
            "role-client": ROLE,
            "role-connector": ROLE,
        },
    ),
}
HOLDING = {"bucket", "cluster"}
KINDS = {
    "connector": "connectors",
    "plugin": "plugins",
    "worker configuration": "worker configurations",
    "api": "rest apis",
    "bucket": "buckets",
    "cluster": "clusters",
}


@pytest.mark.parametrize("name", NAMES)
def test_renamed_resource_is_not_left_behind(module, cloud, name):
    change, expected = NAMES[name]
    before = cloud.aws.snapshot()
    cloud.change(**change)
    if name in HOLDING:
        assert_plan(cloud, expected)
        stderr = cloud.refused("provision", "--yes")
        assert "which deletes its data" in stderr and "--allow-replace" in stderr
    ids = cloud.state_value("api")
    assert_plan_and_apply(cloud, expected, *(["--allow-replace"] if name in HOLDING else []))
    after = cloud.aws.snapshot()
    assert [thing["name"] for thing in after[KINDS[name]]] == [
        "another-bucket" if name == "bucket" else "another"
    ]
    assert {kind: len(things) for kind, things in after.items()} == {
        kind: len(things) for kind, things in before.items()
    }
    assert cloud.state_value("api") == ids, "callers go on calling the same address"
    module.mark_clean()


def test_renaming_a_bucket_with_records_requires_a_flag(module, cloud):
    bucket = cloud.boto("s3").list_buckets()["Buckets"][0]["Name"]
    cloud.boto("s3").put_object(Bucket=bucket, Key="topics/me.pin/partition=0/x.json", Body=b"{}")
    cloud.change(connector__properties={"s3.bucket.name": "yet-another-bucket"})
    assert "which deletes its data" in cloud.refused("provision", "--yes")
    stderr = cloud.run("provision", "--yes", "--allow-replace").stderr
    assert f"deleted bucket {bucket} " in stderr and "replaced bucket yet-another-bucket " in stderr
    assert [each["Name"] for each in cloud.boto("s3").list_buckets()["Buckets"]] == [
        "yet-another-bucket"
    ] and cloud.plan() == {}
    module.mark_clean()


def test_renamed_cluster_is_found_without_the_state(module, cloud):
    name = cloud.boto("kafka").list_clusters_v2()["ClusterInfoList"][0]["ClusterName"]
    (cloud.data / "aws" / "state.json").unlink()
    cloud.change(cluster={"name": "the-next"})
    assert cloud.plan()["cluster"] == ("replace", NAMED + f"`{name}`")
    assert "which deletes its data" in cloud.refused("provision", "--yes")
    cloud.change(cluster={"name": name})
    cloud.apply()
    assert cloud.plan() == {}
    module.mark_clean()


@pytest.mark.parametrize("how", ["destroyed", "applied and destroyed"])
def test_destroy_deletes_resources_of_an_earlier_configuration(empty, how):
    before = empty.aws.snapshot()
    empty.apply()
    empty.change(**EVERY_NAME)
    if how != "destroyed":
        empty.apply("--allow-replace")
        assert empty.plan() == {}
    stderr = empty.run("destroy", "--yes").stderr
    assert empty.aws.snapshot() == before and not (empty.data / "aws" / "state.json").exists()
    names = (
        ("me-cluster", "me-connector", BUCKET)
        if how == "destroyed"
        else ("other", "other", "other-bucket")
    )
    for kind, name in zip(("cluster", "connector", "bucket"), names):
        assert f"deleted {kind} {name}\n" in stderr, stderr


def test_new_name_that_is_unmanaged_is_rejected(empty):
    connect = empty.boto("kafkaconnect")
    properties = base64.b64encode(b"key.converter=x\nvalue.converter=x\n").decode()
    connect.create_worker_configuration(name="theirs", propertiesFileContent=properties)
    before = empty.aws.snapshot()
    empty.apply()
    empty.change(connector={"worker_name": "theirs"})
    assert empty.plan()["worker-configuration"][0] == "unmanaged"
    stderr = empty.refused("provision", "--yes")
    assert "worker-configuration `theirs` already exists and is not managed by pinpipe" in stderr
    empty.run("destroy", "--yes")
    assert empty.aws.snapshot() == before


def test_renamed_airflow_is_recreated(empty):
    subnets = sorted(
        empty.boto("ec2").describe_subnets()["Subnets"],
        key=lambda subnet: subnet["AvailabilityZone"],
    )
    empty.change(
        airflow={"enabled": True, "subnets": [subnet["SubnetId"] for subnet in subnets[:2]]},
        schedule={"enabled": False},
    )
    only = (
        "--only",
        "network,group-airflow,role-airflow,bucket-airflow,airflow-requirements,airflow",
    )
    empty.apply(*only)
    empty.change(airflow={"name": "another", "bucket": "another-airflow"})
    found = {key: action for key, (action, _) in empty.plan(*only).items()}
    assert found == {
        "airflow": "replace",
        "bucket-airflow": "replace",
        "airflow-requirements": "create",
        "role-airflow": "update",
    }
    empty.apply(*only, "--allow-replace")
    assert empty.plan(*only) == {}
    after = empty.aws.snapshot()
    assert [each["name"] for each in after["environments"]] == ["another"] and [
        each["name"] for each in after["buckets"]
    ] == ["another-airflow"]
    # Disabled and renamed at once.
    empty.change(airflow={"name": "a-third", "enabled": False})
    empty.apply(*only)
    after = empty.aws.snapshot()
    assert empty.plan(*only) == {} and not after["environments"] and not after["buckets"]


# Zones.

CLUSTER = ("--only", "network,group-client,group-cluster,cluster")


def spread(cloud):
    """Returns the numbers of brokers and zones of the cluster."""
    found = cloud.boto("kafka").list_clusters_v2()["ClusterInfoList"][0]["Provisioned"]
    return found["NumberOfBrokerNodes"], len(found["BrokerNodeGroupInfo"]["ClientSubnets"])


def brokers_planned(cloud, brokers):
    cloud.change(cluster={"brokers": brokers})
    found = cloud.plan(*CLUSTER)
    assert set(found) <= {"cluster"}, found
    return found.get("cluster", ("no-op", ""))


def test_brokers_are_added_in_the_existing_zones(empty):
    empty.change(cluster={"brokers": 4})
    empty.apply(*CLUSTER)
    assert spread(empty) == (4, 2)
    # A new cluster would spread six and twelve brokers over three zones.
    for brokers in (6, 8, 12):
        action, reason = brokers_planned(empty, brokers)
        assert action == "update" and reason.endswith(f" → {brokers}") and "brokers: " in reason
        empty.apply(*CLUSTER)
        assert spread(empty) == (brokers, 2) and empty.plan(*CLUSTER) == {}


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (3, 4, "brokers: 3 → 4; 4 brokers cannot be spread evenly over 3 zones"),
        (4, 9, "brokers: 4 → 9; 9 brokers cannot be spread evenly over 2 zones"),
        (6, 3, "brokers: 6 → 3 (brokers cannot be removed)"),
    ],
)
def test_broker_changes_that_require_a_new_cluster_require_a_flag(empty, before, after, reason):
    empty.change(cluster={"brokers": before})
    empty.apply(*CLUSTER)
    assert brokers_planned(empty, after) == ("replace", reason)
    stderr = empty.refused("provision", "--yes", *CLUSTER)
    assert reason in stderr and "--allow-replace" in stderr
    empty.apply(*CLUSTER, "--allow-replace")
    assert spread(empty) == (after, 2 if after == 4 else 3) and empty.plan(*CLUSTER) == {}


@pytest.mark.parametrize("brokers", [1, 5, 7, 16])
def test_invalid_number_of_brokers_is_rejected_before_any_call(empty, brokers):
    empty.change(cluster={"brokers": brokers})
    calls = len(empty.aws.calls)
    stderr = empty.refused("provision", "--yes", code=2)
    assert (
        "`cluster.brokers`: expected 2 to 15 and a multiple of 2 or 3" in stderr
        and len(empty.aws.calls) == calls
    )


def test_three_brokers_in_a_region_of_two_zones(empty):
    ec2 = empty.boto("ec2")
    zones = sorted({subnet["AvailabilityZone"] for subnet in ec2.describe_subnets()["Subnets"]})
    for subnet in ec2.describe_subnets()["Subnets"]:
        if subnet["AvailabilityZone"] not in zones[:2]:
            ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    assert "cannot spread 3 brokers evenly over 2 subnets" in empty.refused("provision", "--yes")
    empty.change(cluster={"brokers": 2})
    empty.apply(*CLUSTER)
    assert spread(empty) == (2, 2)
