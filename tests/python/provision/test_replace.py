"""What a change of the configuration replaces: the connector's zip, what has another name now, and zones that cannot share the brokers."""

import base64
import contextlib
import hashlib
import http.server
import io
import threading
import zipfile

import pytest

from support.provisioned import planned, planned_and_done
from support.renamed import EVERY_NAME, NAMED, TOPICS

BUCKET, OBJECT = "user-me-bucket", "kafka-connect-s3/sink.zip"


SECTIONS = {"kinesis": {"shards": 1}}


# The connector's zip.

def a_zip(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as plugin:
        plugin.writestr("manifest.json", content)
    return file.getvalue()


def copied(cloud):
    """ARN of the connector, and the MD5 of what its plugin is a copy of."""
    connect = cloud.boto("kafkaconnect")
    connector, plugin = connect.list_connectors()["connectors"][0], connect.list_custom_plugins()["customPlugins"][0]
    described = connect.describe_custom_plugin(customPluginArn=plugin["customPluginArn"])
    assert connector["plugins"][0]["customPlugin"]["customPluginArn"] == plugin["customPluginArn"]
    return connector["connectorArn"], described["latestRevision"]["fileDescription"]["fileMd5"]


def md5(content):
    return hashlib.md5(content).hexdigest()


CONTENT = {
    "plugin-object": ("update", "`sink.zip` has another content"), "plugin": ("recreate", "its zip had another content"),
    "connector": ("recreate", "`plugin` is made anew")}


def test_a_new_release_under_the_same_name_comes_to_the_connector(module, cloud):
    before, release = copied(cloud), a_zip('{"version": "2"}')
    (cloud.folder / "sink.zip").write_bytes(release)
    planned_and_done(cloud, CONTENT)
    after = copied(cloud)
    assert after[0] != before[0] and after[1] == md5(release) != before[1]
    module.mended()


def test_a_zip_that_is_uploaded_in_parts_is_compared_as_a_whole(module, cloud):
    release = b"PK" + bytes(9 * 1024 * 1024)
    (cloud.folder / "sink.zip").write_bytes(release)
    planned_and_done(cloud, CONTENT)
    assert copied(cloud)[1] == md5(release) and "-" in cloud.boto("s3").head_object(Bucket=BUCKET, Key=OBJECT)["ETag"]
    (cloud.folder / "sink.zip").write_bytes(a_zip("small again"))
    cloud.apply()
    module.mended()


def test_a_plugin_that_was_left_out_is_still_seen_to_be_old(module, cloud):
    """The object alone says nothing of what the plugin was made of."""
    (cloud.folder / "sink.zip").write_bytes(a_zip("uploaded alone"))
    cloud.apply("--only", "plugin-object")
    planned_and_done(cloud, {key: CONTENT[key] for key in ("plugin", "connector")})
    module.mended()


def test_an_object_that_is_gone_and_whose_zip_is_a_new_one(module, cloud):
    (cloud.folder / "sink.zip").write_bytes(a_zip("another one"))
    cloud.boto("s3").delete_object(Bucket=BUCKET, Key=OBJECT)
    planned_and_done(cloud, {**CONTENT, "plugin-object": ("create", "not there")})
    module.mended()


@contextlib.contextmanager
def served(contents):
    """Serves zips by their paths, and counts who asks."""
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


def test_a_zip_from_another_address_is_downloaded_once_and_comes_to_the_connector(module, cloud):
    contents = {"/1/sink.zip": a_zip("one"), "/2/sink.zip": a_zip("two")}
    moved = {**CONTENT, "plugin-object": ("update", "came from another address"), "plugin": ("recreate", "is to come from another address")}
    with served(contents) as (url, asked):
        for path, content in contents.items():
            asked.clear()
            env = {"PINPIPE__CONNECTOR__PLUGIN": url + path}
            planned(cloud, moved, env=env)
            assert asked == []
            cloud.apply(env=env)
            assert cloud.plan(env=env) == {} and asked == [path] and copied(cloud)[1] == md5(content)
        # What others put there is not what the plugin was made of.
        cloud.boto("s3").put_object(Bucket=BUCKET, Key=OBJECT, Body=b"PK another")
        connector = copied(cloud)[0]
        planned_and_done(cloud, {"plugin-object": ("update", "came from another address; it has no checksum")}, env=env)
        assert copied(cloud)[0] == connector
    cloud.apply()
    assert cloud.plan() == {}
    module.mended()


def test_an_address_where_nobody_answers_costs_no_connector(module, cloud):
    connector = copied(cloud)
    said = cloud.refused("provision", "--yes", env={"PINPIPE__CONNECTOR__PLUGIN": "http://127.0.0.1:1/2/sink.zip"})
    assert "cannot download `http://127.0.0.1:1/2/sink.zip`" in said and copied(cloud) == connector


def test_a_zip_that_is_gone_stops_an_apply_but_neither_a_look_nor_a_destroy(empty):
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


def test_a_zip_of_another_name_leaves_the_old_one_nowhere(module, cloud):
    (cloud.folder / "sink-2.zip").write_bytes(a_zip("2"))
    env = {"PINPIPE__CONNECTOR__PLUGIN": "sink-2.zip"}
    named = {
        "plugin-object": ("recreate", NAMED + f"`s3://{BUCKET}/{OBJECT}`"), "plugin": ("recreate", "made of another object"),
        "connector": CONTENT["connector"]}
    planned_and_done(cloud, named, env=env)
    assert [each["Key"] for each in cloud.boto("s3").list_objects_v2(Bucket=BUCKET)["Contents"]] == ["kafka-connect-s3/sink-2.zip"]
    cloud.apply()
    assert cloud.plan() == {}
    module.mended()


# Names.

CONNECTOR = ("recreate", "`(cluster|plugin|worker-configuration)` is made anew")
ROLE = ("update", "allows something else|assumed by others")
# Each is renamed once: they build on each other.
NAMES = {
    "connector": ({"connector": {"name": "another"}}, {"connector": ("recreate", NAMED + "`me-connector`"), "role-connector": ROLE}),
    "plugin": ({"connector": {"plugin_name": "another"}}, {"plugin": ("recreate", NAMED + "`me-plugin`"), "connector": CONNECTOR}),
    "worker configuration": ({"connector": {"worker_name": "another"}}, {"worker-configuration": ("recreate", NAMED + "`me-confluent-worker`"), "connector": CONNECTOR}),
    "api": ({"api": {"name": "another"}}, {"api": ("update", "its name is `me-api`")}),
    "bucket": ({"connector__properties": {"s3.bucket.name": "another-bucket"}}, {
        "bucket": ("recreate", NAMED + f"`{BUCKET}`"), "plugin-object": ("recreate", NAMED), "plugin": ("recreate", "made of another object"),
        "connector": CONNECTOR, "role-connector": ROLE}),
    "cluster": ({"cluster": {"name": "another"}}, {
        "cluster": ("recreate", NAMED + "`me-cluster`"), **TOPICS, "connector": CONNECTOR, "role-client": ROLE, "role-connector": ROLE}),
}
HOLDING = {"bucket", "cluster"}
KINDS = {"connector": "connectors", "plugin": "plugins", "worker configuration": "worker configurations", "api": "rest apis", "bucket": "buckets", "cluster": "clusters"}


@pytest.mark.parametrize("name", NAMES)
def test_what_has_another_name_now_is_not_left_behind(module, cloud, name):
    change, expected = NAMES[name]
    before = cloud.aws.snapshot()
    cloud.change(**change)
    if name in HOLDING:
        planned(cloud, expected)
        said = cloud.refused("provision", "--yes")
        assert "loses what it holds" in said and "--allow-recreate" in said
    ids = cloud.known("api")
    planned_and_done(cloud, expected, *(["--allow-recreate"] if name in HOLDING else []))
    after = cloud.aws.snapshot()
    assert [thing["name"] for thing in after[KINDS[name]]] == ["another-bucket" if name == "bucket" else "another"]
    assert {kind: len(things) for kind, things in after.items()} == {kind: len(things) for kind, things in before.items()}
    assert cloud.known("api") == ids, "callers go on calling the same address"
    module.mended()


def test_a_bucket_is_renamed_with_its_records_only_where_that_is_said(module, cloud):
    bucket = cloud.boto("s3").list_buckets()["Buckets"][0]["Name"]
    cloud.boto("s3").put_object(Bucket=bucket, Key="topics/me.pin/partition=0/x.json", Body=b"{}")
    cloud.change(connector__properties={"s3.bucket.name": "yet-another-bucket"})
    assert "loses what it holds" in cloud.refused("provision", "--yes")
    said = cloud.run("provision", "--yes", "--allow-recreate").stderr
    assert f"deleted bucket {bucket} " in said and "recreated bucket yet-another-bucket " in said
    assert [each["Name"] for each in cloud.boto("s3").list_buckets()["Buckets"]] == ["yet-another-bucket"] and cloud.plan() == {}
    module.mended()


def test_a_cluster_of_another_name_is_known_without_the_state(module, cloud):
    name = cloud.boto("kafka").list_clusters_v2()["ClusterInfoList"][0]["ClusterName"]
    (cloud.data / "aws" / "state.json").unlink()
    cloud.change(cluster={"name": "the-next"})
    assert cloud.plan()["cluster"] == ("recreate", NAMED + f"`{name}`")
    assert "loses what it holds" in cloud.refused("provision", "--yes")
    cloud.change(cluster={"name": name})
    cloud.apply()
    assert cloud.plan() == {}
    module.mended()


@pytest.mark.parametrize("how", ["destroyed", "applied and destroyed"])
def test_all_that_an_earlier_configuration_named_is_destroyed(empty, how):
    before = empty.aws.snapshot()
    empty.apply()
    empty.change(**EVERY_NAME)
    if how != "destroyed":
        empty.apply("--allow-recreate")
        assert empty.plan() == {}
    said = empty.run("destroy", "--yes").stderr
    assert empty.aws.snapshot() == before and not (empty.data / "aws" / "state.json").exists()
    names = ("me-cluster", "me-connector", BUCKET) if how == "destroyed" else ("other", "other", "other-bucket")
    for kind, name in zip(("cluster", "connector", "bucket"), names):
        assert f"deleted {kind} {name}\n" in said, said


def test_the_new_name_is_somebody_elses(empty):
    connect = empty.boto("kafkaconnect")
    properties = base64.b64encode(b"key.converter=x\nvalue.converter=x\n").decode()
    connect.create_worker_configuration(name="theirs", propertiesFileContent=properties)
    before = empty.aws.snapshot()
    empty.apply()
    empty.change(connector={"worker_name": "theirs"})
    assert empty.plan()["worker-configuration"][0] == "foreign"
    said = empty.refused("provision", "--yes")
    assert "worker-configuration `theirs` is there already, and pinpipe did not make it" in said
    empty.run("destroy", "--yes")
    assert empty.aws.snapshot() == before


def test_airflow_under_another_name(empty):
    subnets = sorted(empty.boto("ec2").describe_subnets()["Subnets"], key=lambda subnet: subnet["AvailabilityZone"])
    empty.change(airflow={"enabled": True, "subnets": [subnet["SubnetId"] for subnet in subnets[:2]]}, schedule={"enabled": False})
    only = ("--only", "network,group-airflow,role-airflow,bucket-airflow,airflow-requirements,airflow")
    empty.apply(*only)
    empty.change(airflow={"name": "another", "bucket": "another-airflow"})
    found = {key: action for key, (action, _) in empty.plan(*only).items()}
    assert found == {"airflow": "recreate", "bucket-airflow": "recreate", "airflow-requirements": "create", "role-airflow": "update"}
    empty.apply(*only, "--allow-recreate")
    assert empty.plan(*only) == {}
    after = empty.aws.snapshot()
    assert [each["name"] for each in after["environments"]] == ["another"] and [each["name"] for each in after["buckets"]] == ["another-airflow"]
    # Not wanted and of another name at once.
    empty.change(airflow={"name": "a-third", "enabled": False})
    empty.apply(*only)
    after = empty.aws.snapshot()
    assert empty.plan(*only) == {} and not after["environments"] and not after["buckets"]


# Zones.

CLUSTER = ("--only", "network,group-client,group-cluster,cluster")


def spread(cloud):
    """Brokers and zones of the cluster."""
    found = cloud.boto("kafka").list_clusters_v2()["ClusterInfoList"][0]["Provisioned"]
    return found["NumberOfBrokerNodes"], len(found["BrokerNodeGroupInfo"]["ClientSubnets"])


def brokers_planned(cloud, brokers):
    cloud.change(cluster={"brokers": brokers})
    found = cloud.plan(*CLUSTER)
    assert set(found) <= {"cluster"}, found
    return found.get("cluster", ("keep", ""))


def test_brokers_are_added_in_the_zones_there_are(empty):
    empty.change(cluster={"brokers": 4})
    empty.apply(*CLUSTER)
    assert spread(empty) == (4, 2)
    # Six and twelve could be spread over three zones, too, if they were made anew.
    for brokers in (6, 8, 12):
        action, reason = brokers_planned(empty, brokers)
        assert action == "update" and reason.endswith(f"brokers, not {brokers}")
        empty.apply(*CLUSTER)
        assert spread(empty) == (brokers, 2) and empty.plan(*CLUSTER) == {}


@pytest.mark.parametrize("before, after, reason", [
    (3, 4, "it has 3 brokers, not 4; its 3 zones cannot share 4 brokers evenly"),
    (4, 9, "it has 4 brokers, not 9; its 2 zones cannot share 9 brokers evenly"),
    (6, 3, "it has 6 brokers and cannot lose any"),
])
def test_what_msk_cannot_do_with_brokers_is_done_only_where_that_is_said(empty, before, after, reason):
    empty.change(cluster={"brokers": before})
    empty.apply(*CLUSTER)
    assert brokers_planned(empty, after) == ("recreate", reason)
    said = empty.refused("provision", "--yes", *CLUSTER)
    assert reason in said and "--allow-recreate" in said
    empty.apply(*CLUSTER, "--allow-recreate")
    assert spread(empty) == (after, 2 if after == 4 else 3) and empty.plan(*CLUSTER) == {}


@pytest.mark.parametrize("brokers", [1, 5, 7, 16])
def test_brokers_that_no_zones_can_share_are_refused_before_anybody_is_asked(empty, brokers):
    empty.change(cluster={"brokers": brokers})
    calls = len(empty.aws.calls)
    said = empty.refused("provision", "--yes", code=2)
    assert "`cluster.brokers` must be 2 to 15 and a multiple of 2 or 3" in said and len(empty.aws.calls) == calls


def test_three_brokers_in_a_region_of_two_zones(empty):
    ec2 = empty.boto("ec2")
    zones = sorted({subnet["AvailabilityZone"] for subnet in ec2.describe_subnets()["Subnets"]})
    for subnet in ec2.describe_subnets()["Subnets"]:
        if subnet["AvailabilityZone"] not in zones[:2]:
            ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    assert "3 brokers cannot be spread evenly over 2 subnets" in empty.refused("provision", "--yes")
    empty.change(cluster={"brokers": 2})
    empty.apply(*CLUSTER)
    assert spread(empty) == (2, 2)
