"""The topic backends, `topics.via`: operations of MSK, Kafka's tool on the client machine, and the
brokers themselves.
"""

import re
import socket
import struct

import pytest
from confluent_kafka.admin import AdminClient

from doubles.aws import AwsDouble
from doubles.aws.shell import statements
from support.cloud import ip_ranges
from support.faults import BrokenCloud, changes
from support.msk_broker import (
    API_VERSIONS,
    SASL_AUTHENTICATE,
    SASL_HANDSHAKE,
    UNSUPPORTED_VERSION,
    VERSIONS,
    Connection,
)

pytestmark = pytest.mark.slow

OWN = {"me.pin": 3, "me.geo": 3, "me.user": 3}
KEYS = {f"topic-{name.removeprefix('me.')}" for name in OWN}
MSK, MACHINE, BROKERS = "MSK", "the client machine", "the brokers"

# `topics.via`, the version of Kafka, whether the brokers are reachable, and the backend that is
# chosen.
WAYS = {
    "msk": ("msk", "3.6.0", True, MSK),
    "ssm": ("ssm", "3.6.0", True, MACHINE),
    "direct": ("direct", "3.6.0", True, BROKERS),
    "auto, where MSK has operations": ("auto", "3.6.0", True, MSK),
    "auto, where it names no patch and no ZooKeeper": ("auto", "4.1.x.kraft", False, MSK),
    "auto, where it has none": ("auto", "3.5.1", True, BROKERS),
    "auto, where it has none and brokers are out of reach": ("auto", "3.5.1", False, MACHINE),
}


class Forwarded(Connection):
    """One client of a broker with TLS and IAM; everything but authentication is forwarded to a
    broker without them.
    """

    def setup(self):
        super().setup()
        self.behind = socket.create_connection(self.server.behind)

    def finish(self):
        self.behind.close()
        super().finish()

    def ask(self, key, version, request):
        """Returns the response of the broker behind it."""
        message = struct.pack(">hhih", key, version, 1, -1) + request
        self.behind.sendall(struct.pack(">i", len(message)) + message)
        size, _ = struct.unpack(">ii", self.read(8))
        return self.read(size - 4)

    def read(self, size):
        """Reads a number of bytes from the broker behind it."""
        found = b""
        while len(found) < size:
            more = self.behind.recv(size - len(found))
            if not more:
                raise OSError("the broker has left")
            found += more
        return found

    def answer(self, key, version, request):
        if key in (SASL_HANDSHAKE, SASL_AUTHENTICATE):
            return super().answer(key, version, request)
        if key != API_VERSIONS:
            # The broker behind it must advertise the address of this one.
            def place(address):
                return struct.pack(">i", address[1])

            host = self.server.server_address[0].encode()
            return self.ask(key, version, request).replace(
                host + place(self.server.behind), host + place(self.server.server_address)
            )
        if version:
            return struct.pack(">hi", UNSUPPORTED_VERSION, 0)
        error, count = struct.unpack_from(">hi", known := self.ask(key, 0, b""))
        log_in = b"".join(
            struct.pack(">hhh", api, VERSIONS[api], VERSIONS[api])
            for api in (SASL_HANDSHAKE, SASL_AUTHENTICATE)
        )
        return struct.pack(">hi", error, count + 2) + known[6 : 6 + 6 * count] + log_in


@pytest.fixture
def brokers(broker, local):
    """A broker like those of MSK, in front of the broker of a local pipeline."""
    host, port = local.kafka.rsplit(":", 1)
    broker.behind, broker.RequestHandlerClass = (host, int(port)), Forwarded
    broker.admin = AdminClient({"bootstrap.servers": local.kafka, "log_level": 0})
    return broker


@pytest.fixture(scope="module")
def shared():
    with AwsDouble(settle_reads=0) as double, ip_ranges() as url:
        yield double, url


class TopicCloud(BrokenCloud):
    """A pipeline that reaches its topics through the backend that a test chooses."""

    given, brokers = {}, None

    def take(self, via, version="3.6.0", brokers=None):
        self.clear()
        self.configure(f'[cluster]\nkafka_version = "{version}"\n')
        self.brokers, self.given = (
            brokers,
            {"PINPIPE__TOPICS__VIA": via, "PINPIPE__KAFKA__TIMEOUT_MS": 3000},
        )
        if brokers:
            self.aws.bootstrap = f"127.0.0.1:{brokers.server_address[1]}"
            # There is only one broker.
            self.given |= {
                "SSL_CERT_FILE": brokers.certificate,
                "PINPIPE__TOPICS__REPLICATION_FACTOR": 1,
            }

    @property
    def environment(self):
        return {**super().environment, **self.given}

    def topics(self, *arguments, **options):
        return self.json("topics", *arguments, **options)

    @property
    def kept(self):
        """The topics of the double."""
        (cluster,) = self.aws.services["kafka"].clusters.values()
        return cluster.topics

    def stands(self, way):
        """Returns the topics and their partitions as this backend stores them."""
        if way != BROKERS:
            return {topic.name: topic.partitions for topic in self.kept.values()}
        return {
            name: len(topic.partitions)
            for name, topic in self.brokers.admin.list_topics(timeout=10).topics.items()
        }

    def lose(self, way, name):
        """Deletes a topic as another user."""
        if way == BROKERS:
            self.brokers.admin.delete_topics([name])[name].result(10)
        else:
            self.kept.pop(name)

    def gone(self):
        """Returns the backends that were used so far."""
        operations = [call for call in self.aws.calls_of("kafka") if "Topic" in call.operation]
        return {
            way
            for way, been in (
                (MSK, operations),
                (MACHINE, self.commands()),
                (BROKERS, self.brokers and self.brokers.logins),
            )
            if been
        }

    def commands(self):
        """Returns the topic commands that the machine was sent."""
        scripts = [
            "\n".join(call.parameters["Parameters"]["commands"])
            for call in self.aws.calls_of("SendCommand")
        ]
        return [
            words
            for script in scripts
            if "kafka-topics.sh" in script
            for words in statements(script)
        ]

    def failing(self, *arguments, code=1):
        """Runs a command that fails with one error and a hint; returns its stderr."""
        stderr = self.run(*arguments, code=code).stderr
        assert (
            len(re.findall("^error: ", stderr, re.M)) == 1
            and "\nhint: " in stderr
            and "panicked" not in stderr
        ), stderr
        return stderr


@pytest.fixture
def cloud(shared, tmp_path):
    cloud = TopicCloud(tmp_path / "pipeline", *shared)
    yield cloud
    cloud.done()


def provision_topics(cloud, request, name):
    """Creates a pipeline through a backend; returns the name of the backend."""
    via, version, is_reached, way = WAYS[name]
    cloud.take(via, version, request.getfixturevalue("brokers") if is_reached else None)
    cloud.run("provision", "--yes")
    return way


@pytest.mark.parametrize("name", WAYS)
def test_topics_are_created_observed_and_recreated_by_each_backend(cloud, request, name):
    way = provision_topics(cloud, request, name)
    assert cloud.stands(way) == OWN and cloud.gone() == {way}
    steps = {step["key"]: step for step in cloud.json("provision", "--plan")["steps"]}
    assert {key: (steps[key]["action"], steps[key]["reasons"]) for key in KEYS} == dict.fromkeys(
        KEYS, ("no-op", [f"3 partitions, read through {way}"])
    )
    cloud.lose(way, "me.geo")
    assert cloud.plan() == {"topic-geo": ("create", "does not exist")}
    cloud.run("provision", "--yes")
    assert cloud.stands(way) == OWN and cloud.plan() == {} and cloud.gone() == {way}


@pytest.mark.parametrize("name", ["msk", "ssm", "direct"])
def test_topic_commands_use_the_chosen_backend(cloud, request, name):
    way = provision_topics(cloud, request, name)
    cloud.aws.page_size = 2
    assert cloud.topics("list") == sorted(OWN)
    cloud.aws.page_size = None

    def made(change):
        return [{"topic": topic, "change": change} for topic in ("more", "most")]

    assert cloud.topics("create", "more", "most", "--partitions", 5) == made("created")
    assert cloud.topics("create", "more", "most", "--partitions", 7) == made("unchanged")
    assert cloud.topics("create") == [{"topic": topic, "change": "unchanged"} for topic in OWN]
    assert cloud.stands(way) == {**OWN, "more": 5, "most": 5}
    assert cloud.topics("describe", "more", "me.pin") == [
        {"name": "more", "partition_count": 5},
        {"name": "me.pin", "partition_count": 3},
    ]
    assert {found["name"] for found in cloud.topics("describe")} == set(OWN)
    assert [found["change"] for found in cloud.topics("delete", "--yes", "more", "me.user")] == [
        "deleted",
        "deleted",
    ]
    assert cloud.topics("delete", "--yes", "more")[0]["change"] == "does not exist"
    assert "topic `more` does not exist" in cloud.failing("topics", "describe", "more")
    assert cloud.topics("list") == ["me.geo", "me.pin", "most"] == sorted(cloud.stands(way))
    assert set(cloud.plan()) == {"topic-user"}
    assert cloud.topics("create") == [
        {"topic": topic, "change": "created" if topic == "me.user" else "unchanged"}
        for topic in OWN
    ]
    assert cloud.plan() == {} and cloud.gone() == {way}


@pytest.mark.parametrize("name", ["msk", "ssm", "direct"])
def test_different_partition_count_is_reported_and_kept(cloud, request, name):
    way = provision_topics(cloud, request, name)
    cloud.given["PINPIPE__TOPICS__PARTITIONS"] = 6
    assert cloud.plan() == {}
    assert "3 partitions (6 in the configuration)" in json_reasons(cloud)
    cloud.run("provision", "--yes")
    assert cloud.stands(way) == OWN


def json_reasons(cloud):
    return "\n".join(
        reason for step in cloud.json("provision", "--plan")["steps"] for reason in step["reasons"]
    )


def test_topics_of_one_backend_are_visible_to_another(cloud):
    cloud.take("msk")
    cloud.run("provision", "--yes")
    cloud.given["PINPIPE__TOPICS__VIA"] = "ssm"
    assert cloud.plan() == {} and cloud.topics("list") == sorted(OWN)
    assert cloud.topics("delete", "--yes", "me.pin") == [{"topic": "me.pin", "change": "deleted"}]
    cloud.given["PINPIPE__TOPICS__VIA"] = "msk"
    assert set(cloud.plan()) == {"topic-pin"} and cloud.topics("list") == ["me.geo", "me.user"]


def test_upgraded_cluster_switches_to_the_msk_backend(cloud):
    cloud.take("auto", "3.5.1")
    cloud.run("provision", "--yes")
    assert cloud.gone() == {MACHINE}
    cloud.configure('[cluster]\nkafka_version = "3.6.0"\n')
    cloud.run("provision", "--yes")
    assert cloud.plan() == {} and f"read through {MSK}" in json_reasons(cloud)


def test_invalid_topic_name_is_rejected(cloud, request):
    way = provision_topics(cloud, request, "msk")
    stderr = cloud.failing("topics", "create", "a/b", code=2)
    assert "a/b" in stderr and cloud.stands(way) == OWN, stderr


@pytest.mark.parametrize("topic", ["x;reboot", "$(reboot)", "x\nreboot", "x y"])
def test_topic_name_is_not_executed_on_the_machine(cloud, topic):
    cloud.take("ssm")
    cloud.run("provision", "--yes")
    for command in ("create", "delete", "describe"):
        cloud.run_to_end("topics", command, topic)
    assert {words[0] for words in cloud.commands()} == {
        ".",
        "/opt/pinpipe/kafka/bin/kafka-topics.sh",
    }
    assert (
        not [words for words in cloud.commands() if "$(reboot)" in words or "y" in words]
        and cloud.stands(MACHINE) == OWN
    )


@pytest.mark.parametrize("via", ["msk", "ssm", "direct", "auto"])
def test_topics_require_a_cluster(cloud, via):
    cloud.take(via)
    assert "the cluster does not exist" in cloud.failing("topics", "list") and not any(
        map(changes, cloud.aws.calls)
    )


@pytest.mark.parametrize("via", ["ssm", "auto"])
def test_stopped_client_machine_is_reported(cloud, via):
    cloud.take(via, "3.5.1")
    cloud.run("provision", "--yes")
    cloud.boto("ec2").stop_instances(
        InstanceIds=[cloud.state()["resources"]["client"]["values"]["id"]]
    )
    for command in (("list",), ("create",), ("delete", "--yes", "me.pin")):
        assert "client machine" in cloud.failing("topics", *command)
    assert len(cloud.kept) == 3


def test_unsupported_topic_operations_hint_at_another_backend(cloud):
    cloud.take("msk", "3.5.1")
    for command in (("provision", "--yes"), ("topics", "list")):
        stderr = cloud.failing(*command, code=2)
        assert "topics.via" in stderr and "cluster.kafka_version" in stderr, stderr
    assert cloud.aws.count("CreateClusterV2") == 0, "reported before anything is created"


def test_unreachable_brokers_hint_at_another_backend(cloud):
    cloud.take("direct")
    for command in (("provision", "--yes"), ("topics", "list")):
        stderr = cloud.failing(*command)
        assert "127.0.0.1:1" in stderr and "topics.via" in stderr, stderr


def test_error_of_the_topic_tool_is_passed_on(cloud):
    cloud.take("ssm")
    shell = cloud.aws.run_command
    refusal = (
        "Error while executing topic command : Replication factor: 3 larger than "
        "available brokers: 2."
    )
    cloud.aws.run_command = lambda commands: (
        (1, f"{refusal}\n", "failed to run commands: exit status 1")
        if any("--create" in line for line in commands)
        else shell(commands)
    )
    assert "larger than available brokers: 2" in cloud.failing("provision", "--yes")
    cloud.aws.run_command = shell
    cloud.run("provision", "--yes")
    assert cloud.stands(MACHINE) == OWN and cloud.aws.count("CreateClusterV2") == 1
