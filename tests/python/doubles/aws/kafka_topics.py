"""The topics of a cluster, for the operations of MSK and the tools of the brokers."""

import base64
import re

from .lifecycle import Lifecycle
from .service import random_id, refuse

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
# The first version of Kafka with topic operations of MSK.
OPERATIONS_FROM = (3, 6)


class Topic:
    """One topic."""

    def __init__(self, name, partitions, replication, configs=None):
        self.name = name
        self.partitions = partitions
        self.replication = replication
        self.configs = configs or {}
        self.id = random_id(22, LETTERS)
        self.lifecycle = Lifecycle("ACTIVE")


class TopicError(Exception):
    """An error of the brokers about topics."""

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


def create_topic(cluster, name, partitions=1, replication=None, configs=None):
    """Creates a topic in a cluster, as its brokers do."""
    replication = replication or min(3, cluster.brokers)
    if not re.fullmatch(r"[a-zA-Z0-9._-]{1,249}", name) or name in (".", ".."):
        raise TopicError(
            "InvalidTopicException",
            (
                f"Topic name '{name}' is illegal, it contains a character other than "
                "ASCII alphanumerics, '.', '_' and '-'"
            ),
        )
    if name in cluster.topics:
        raise TopicError("TopicExistsException", f"Topic '{name}' already exists.")
    if partitions < 1:
        raise TopicError(
            "InvalidPartitionsException", "Number of partitions must be larger than 0."
        )
    if replication > cluster.brokers:
        raise TopicError(
            "InvalidReplicationFactorException",
            f"Replication factor: {replication} larger than available brokers: {cluster.brokers}.",
        )
    cluster.topics[name] = Topic(name, partitions, replication, configs)
    return cluster.topics[name]


def grow_topic(topic, partitions):
    """Adds partitions to a topic; there cannot be fewer."""
    if partitions < topic.partitions:
        raise TopicError(
            "InvalidPartitionsException",
            (
                f"Topic currently has {topic.partitions} partitions, which is higher than "
                f"the requested {partitions}."
            ),
        )
    if partitions == topic.partitions:
        raise TopicError(
            "InvalidPartitionsException", f"Topic already has {partitions} partitions."
        )
    topic.partitions = partitions


def replicas_of(cluster, topic, partition):
    """Returns the brokers of a partition, its leader first."""
    return [(partition + step) % cluster.brokers + 1 for step in range(topic.replication)]


class KafkaTopics:
    """Topic operations of MSK."""

    def topics_of(self, call):
        """Returns the cluster of a call about topics, if its version and state allow it."""
        cluster = self.find(call.parameters["ClusterArn"], ("ACTIVE", "UPDATING"))
        version = tuple(
            int(part) for part in re.findall(r"\d+", cluster.provisioned["KafkaVersion"])[:2]
        )
        if version < OPERATIONS_FROM:
            raise refuse(
                "BadRequestException",
                "Topic operations need a cluster of Apache Kafka 3.6.0 or later.",
                invalidParameter="clusterArn",
            )
        return cluster

    def topic_of(self, call):
        cluster = self.topics_of(call)
        topic = cluster.topics.get(call.parameters["TopicName"])
        if not topic:
            code = (
                "NotFoundException"
                if call.operation.startswith("Describe")
                else "UnknownTopicOrPartitionException"
            )
            raise refuse(code, f"Topic {call.parameters['TopicName']} doesn't exist.")
        return cluster, topic

    def topic_answer(self, cluster, topic, state):
        return {
            "TopicArn": f"{cluster.arn.replace(':cluster/', ':topic/')}/{topic.name}",
            "TopicName": topic.name,
            "Status": state,
        }

    def configs_of(self, text):
        try:
            lines = base64.b64decode(text or "", validate=True).decode().splitlines()
            return dict(line.split("=", 1) for line in lines if line.strip())
        except ValueError:
            raise refuse(
                "BadRequestException",
                "The configs are not a Base64 string of properties.",
                invalidParameter="configs",
            ) from None

    def do_create_topic(self, call):
        given, cluster = call.parameters, self.topics_of(call)
        try:
            topic = create_topic(
                cluster,
                given["TopicName"],
                given["PartitionCount"],
                given["ReplicationFactor"],
                self.configs_of(given.get("Configs")),
            )
        except TopicError as error:
            raise refuse(
                error.kind if error.kind == "TopicExistsException" else "BadRequestException",
                str(error),
            ) from None
        self.move(topic.lifecycle, "CREATING", "ACTIVE")
        return self.topic_answer(cluster, topic, "CREATING")

    def do_list_topics(self, call):
        given, cluster = call.parameters, self.topics_of(call)
        found = [
            t
            for t in sorted(cluster.topics.values(), key=lambda t: t.name)
            if t.name.startswith(given.get("TopicNameFilter", ""))
        ]
        page, token = self.page(found, given.get("MaxResults"), given.get("NextToken"))
        return {
            "Topics": [
                {
                    "TopicArn": self.topic_answer(cluster, t, t.lifecycle.read())["TopicArn"],
                    "TopicName": t.name,
                    "ReplicationFactor": t.replication,
                    "PartitionCount": t.partitions,
                    "OutOfSyncReplicaCount": 0,
                }
                for t in page
            ],
            "NextToken": token,
        }

    def do_describe_topic(self, call):
        cluster, topic = self.topic_of(call)
        configs = "\n".join(f"{key}={value}" for key, value in sorted(topic.configs.items()))
        return {
            **self.topic_answer(cluster, topic, topic.lifecycle.read()),
            "ReplicationFactor": topic.replication,
            "PartitionCount": topic.partitions,
            "Configs": base64.b64encode(configs.encode()).decode(),
        }

    def do_describe_topic_partitions(self, call):
        cluster, topic = self.topic_of(call)
        page, token = self.page(
            range(topic.partitions),
            call.parameters.get("MaxResults"),
            call.parameters.get("NextToken"),
        )
        shown = [(number, replicas_of(cluster, topic, number)) for number in page]
        return {
            "Partitions": [
                {"Partition": n, "Leader": brokers[0], "Replicas": brokers, "Isr": brokers}
                for n, brokers in shown
            ],
            "NextToken": token,
        }

    def do_update_topic(self, call):
        cluster, topic = self.topic_of(call)
        if "Configs" in call.parameters:
            topic.configs.update(self.configs_of(call.parameters["Configs"]))
        if "PartitionCount" in call.parameters:
            try:
                grow_topic(topic, call.parameters["PartitionCount"])
            except TopicError as error:
                raise refuse(
                    "BadRequestException", str(error), invalidParameter="partitionCount"
                ) from None
        self.move(topic.lifecycle, "UPDATING", "ACTIVE")
        return self.topic_answer(cluster, topic, "UPDATING")

    def do_delete_topic(self, call):
        cluster, topic = self.topic_of(call)
        self.move(topic.lifecycle, "DELETING", None, lambda: cluster.topics.pop(topic.name, None))
        return self.topic_answer(cluster, topic, "DELETING")
