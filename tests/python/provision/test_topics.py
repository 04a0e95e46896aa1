"""The ways to the topics of a cluster, `topics.via`: MSK's own operations, Kafka's tool on the client machine, and the brokers themselves."""

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

OWN = {"me.pin": 3, "me.geo": 3, "me.user": 3}
KEYS = {f"topic-{name.removeprefix('me.')}" for name in OWN}
MSK, MACHINE, BROKERS = "MSK", "the client machine", "the brokers"

# What `topics.via` says, the version of Kafka, whether the brokers can be reached from here, and the way that is taken.
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
    """One client of a broker that asks for TLS and IAM; all but the log-in goes on to a broker that does not."""

    def setup(self):
        super().setup()
        self.behind = socket.create_connection(self.server.behind)

    def finish(self):
        self.behind.close()
        super().finish()

    def ask(self, key, version, request):
        """What the broker behind it answers."""
        message = struct.pack(">hhih", key, version, 1, -1) + request
        self.behind.sendall(struct.pack(">i", len(message)) + message)
        size, _ = struct.unpack(">ii", self.read(8))
        return self.read(size - 4)

    def read(self, size):
        """So many bytes from the broker behind it."""
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
            # It says of itself that it is where this one is.
            place = lambda address: struct.pack(">i", address[1])
            host = self.server.server_address[0].encode()
            return self.ask(key, version, request).replace(host + place(self.server.behind), host + place(self.server.server_address))
        if version:
            return struct.pack(">hi", UNSUPPORTED_VERSION, 0)
        error, count = struct.unpack_from(">hi", known := self.ask(key, 0, b""))
        log_in = b"".join(struct.pack(">hhh", api, VERSIONS[api], VERSIONS[api]) for api in (SASL_HANDSHAKE, SASL_AUTHENTICATE))
        return struct.pack(">hi", error, count + 2) + known[6 : 6 + 6 * count] + log_in


@pytest.fixture
def brokers(broker, local):  # noqa: F811
    """A broker as MSK has them, in front of that of a local pipeline."""
    host, port = local.kafka.rsplit(":", 1)
    broker.behind, broker.RequestHandlerClass = (host, int(port)), Forwarded
    broker.admin = AdminClient({"bootstrap.servers": local.kafka, "log_level": 0})
    return broker


@pytest.fixture(scope="module")
def shared():
    with AwsDouble(settle_reads=0) as double, ip_ranges() as url:
        yield double, url


class TopicCloud(BrokenCloud):
    """A cloud whose topics are reached by a way of the test's choice."""

    given, brokers = {}, None

    def take(self, via, version="3.6.0", brokers=None):
        self.clear()
        self.configure(f'[cluster]\nkafka_version = "{version}"\n')
        self.brokers, self.given = brokers, {"PINPIPE__TOPICS__VIA": via, "PINPIPE__KAFKA__TIMEOUT_MS": 3000}
        if brokers:
            self.aws.bootstrap = f"127.0.0.1:{brokers.server_address[1]}"
            # There is but one of them.
            self.given |= {"SSL_CERT_FILE": brokers.certificate, "PINPIPE__TOPICS__REPLICATION_FACTOR": 1}

    @property
    def environment(self):
        return {**super().environment, **self.given}

    def topics(self, *arguments, **options):
        return self.json("topics", *arguments, **options)

    @property
    def kept(self):
        """The topics that the double has."""
        (cluster,) = self.aws.services["kafka"].clusters.values()
        return cluster.topics

    def stands(self, way):
        """Topics and their partitions, where they are by this way."""
        if way != BROKERS:
            return {topic.name: topic.partitions for topic in self.kept.values()}
        return {name: len(topic.partitions) for name, topic in self.brokers.admin.list_topics(timeout=10).topics.items()}

    def lose(self, way, name):
        """Somebody else deletes a topic."""
        if way == BROKERS:
            self.brokers.admin.delete_topics([name])[name].result(10)
        else:
            self.kept.pop(name)

    def gone(self):
        """The ways that have been gone so far."""
        operations = [call for call in self.aws.calls_of("kafka") if "Topic" in call.operation]
        return {way for way, been in ((MSK, operations), (MACHINE, self.commands()), (BROKERS, self.brokers and self.brokers.logins)) if been}

    def commands(self):
        """Commands for topics that the machine was sent."""
        scripts = ["\n".join(call.parameters["Parameters"]["commands"]) for call in self.aws.calls_of("SendCommand")]
        return [words for script in scripts if "kafka-topics.sh" in script for words in statements(script)]

    def failing(self, *arguments, code=1):
        """What is said of a command that fails: one error, with a hint."""
        said = self.run(*arguments, code=code).stderr
        assert len(re.findall("^error: ", said, re.M)) == 1 and "\nhint: " in said and "panicked" not in said, said
        return said


@pytest.fixture
def cloud(shared, tmp_path):
    cloud = TopicCloud(tmp_path / "pipeline", *shared)
    yield cloud
    cloud.done()


def standing(cloud, request, name):
    """A pipeline made by a way, and the way's name."""
    via, version, is_reached, way = WAYS[name]
    cloud.take(via, version, request.getfixturevalue("brokers") if is_reached else None)
    cloud.run("provision", "--yes")
    return way


@pytest.mark.parametrize("name", WAYS)
def test_topics_are_made_seen_and_made_again_by_the_way_that_is_chosen(cloud, request, name):
    way = standing(cloud, request, name)
    assert cloud.stands(way) == OWN and cloud.gone() == {way}
    steps = {step["key"]: step for step in cloud.json("provision", "--plan")["steps"]}
    assert {key: (steps[key]["action"], steps[key]["reasons"]) for key in KEYS} == dict.fromkeys(KEYS, ("keep", [f"3 partitions, seen through {way}"]))
    cloud.lose(way, "me.geo")
    assert cloud.plan() == {"topic-geo": ("create", "it is not there")}
    cloud.run("provision", "--yes")
    assert cloud.stands(way) == OWN and cloud.plan() == {} and cloud.gone() == {way}


@pytest.mark.parametrize("name", ["msk", "ssm", "direct"])
def test_the_commands_for_topics_go_the_way_that_is_chosen(cloud, request, name):
    way = standing(cloud, request, name)
    cloud.aws.page_size = 2
    assert cloud.topics("list") == sorted(OWN)
    cloud.aws.page_size = None
    made = lambda change: [{"topic": topic, "change": change} for topic in ("more", "most")]
    assert cloud.topics("create", "more", "most", "--partitions", 5) == made("created")
    assert cloud.topics("create", "more", "most", "--partitions", 7) == made("kept")
    assert cloud.topics("create") == [{"topic": topic, "change": "kept"} for topic in OWN]
    assert cloud.stands(way) == {**OWN, "more": 5, "most": 5}
    assert cloud.topics("describe", "more", "me.pin") == [{"name": "more", "partition_count": 5}, {"name": "me.pin", "partition_count": 3}]
    assert {found["name"] for found in cloud.topics("describe")} == set(OWN)
    assert [found["change"] for found in cloud.topics("delete", "more", "me.user")] == ["deleted", "deleted"]
    assert cloud.topics("delete", "more")[0]["change"] != "deleted"
    assert "there is no topic `more`" in cloud.failing("topics", "describe", "more")
    assert cloud.topics("list") == ["me.geo", "me.pin", "most"] == sorted(cloud.stands(way))
    assert set(cloud.plan()) == {"topic-user"}
    assert cloud.topics("create") == [{"topic": topic, "change": "created" if topic == "me.user" else "kept"} for topic in OWN]
    assert cloud.plan() == {} and cloud.gone() == {way}


@pytest.mark.parametrize("name", ["msk", "ssm", "direct"])
def test_other_partitions_than_configured_are_told_and_left_alone(cloud, request, name):
    way = standing(cloud, request, name)
    cloud.given["PINPIPE__TOPICS__PARTITIONS"] = 6
    assert cloud.plan() == {}
    assert "3 partitions (the configuration says 6)" in json_reasons(cloud)
    cloud.run("provision", "--yes")
    assert cloud.stands(way) == OWN


def json_reasons(cloud):
    return "\n".join(reason for step in cloud.json("provision", "--plan")["steps"] for reason in step["reasons"])


def test_what_one_way_made_another_one_sees_and_removes(cloud):
    cloud.take("msk")
    cloud.run("provision", "--yes")
    cloud.given["PINPIPE__TOPICS__VIA"] = "ssm"
    assert cloud.plan() == {} and cloud.topics("list") == sorted(OWN)
    assert cloud.topics("delete", "me.pin") == [{"topic": "me.pin", "change": "deleted"}]
    cloud.given["PINPIPE__TOPICS__VIA"] = "msk"
    assert set(cloud.plan()) == {"topic-pin"} and cloud.topics("list") == ["me.geo", "me.user"]


def test_a_cluster_that_is_brought_to_a_newer_kafka_is_asked_by_msk_from_then_on(cloud):
    cloud.take("auto", "3.5.1")
    cloud.run("provision", "--yes")
    assert cloud.gone() == {MACHINE}
    cloud.configure('[cluster]\nkafka_version = "3.6.0"\n')
    cloud.run("provision", "--yes")
    assert cloud.plan() == {} and f"seen through {MSK}" in json_reasons(cloud)


def test_a_name_that_no_topic_can_have_is_refused(cloud, request):
    way = standing(cloud, request, "msk")
    said = cloud.failing("topics", "create", "a/b", code=2)
    assert "a/b" in said and cloud.stands(way) == OWN, said


@pytest.mark.parametrize("topic", ["x;reboot", "$(reboot)", "x\nreboot", "x y"])
def test_a_name_of_a_topic_is_no_command_on_the_machine(cloud, topic):
    cloud.take("ssm")
    cloud.run("provision", "--yes")
    for command in ("create", "delete", "describe"):
        cloud.ends("topics", command, topic)
    assert {words[0] for words in cloud.commands()} == {".", "/opt/pinpipe/kafka/bin/kafka-topics.sh"}
    assert not [words for words in cloud.commands() if "$(reboot)" in words or "y" in words] and cloud.stands(MACHINE) == OWN


@pytest.mark.parametrize("via", ["msk", "ssm", "direct", "auto"])
def test_without_a_cluster_there_are_no_topics(cloud, via):
    cloud.take(via)
    assert "there is no cluster yet" in cloud.failing("topics", "list") and not any(map(changes, cloud.aws.calls))


@pytest.mark.parametrize("via", ["ssm", "auto"])
def test_a_machine_that_is_down_is_said_to_be_what_is_missing(cloud, via):
    cloud.take(via, "3.5.1")
    cloud.run("provision", "--yes")
    cloud.boto("ec2").stop_instances(InstanceIds=[cloud.state()["resources"]["client"]["values"]["id"]])
    for command in (("list",), ("create",), ("delete", "me.pin")):
        assert "client machine" in cloud.failing("topics", *command)
    assert len(cloud.kept) == 3


def test_operations_that_an_older_cluster_has_not_are_said_with_what_to_change(cloud):
    cloud.take("msk", "3.5.1")
    for command in (("provision", "--yes"), ("topics", "list")):
        said = cloud.failing(*command, code=2)
        assert "topics.via" in said and "cluster.kafka_version" in said, said
    assert cloud.aws.count("CreateClusterV2") == 0, "said before anything is made"


def test_brokers_that_cannot_be_reached_are_said_with_what_to_change(cloud):
    cloud.take("direct")
    for command in (("provision", "--yes"), ("topics", "list")):
        said = cloud.failing(*command)
        assert "127.0.0.1:1" in said and "topics.via" in said, said


def test_what_kafkas_tool_says_on_the_machine_is_passed_on(cloud):
    cloud.take("ssm")
    shell = cloud.aws.run_command
    refusal = "Error while executing topic command : Replication factor: 3 larger than available brokers: 2."
    cloud.aws.run_command = lambda commands: (1, f"{refusal}\n", "failed to run commands: exit status 1") if any("--create" in line for line in commands) else shell(commands)
    assert "larger than available brokers: 2" in cloud.failing("provision", "--yes")
    cloud.aws.run_command = shell
    cloud.run("provision", "--yes")
    assert cloud.stands(MACHINE) == OWN and cloud.aws.count("CreateClusterV2") == 1
