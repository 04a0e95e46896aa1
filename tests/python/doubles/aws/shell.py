"""Runs scripts of Run Command: Kafka's topic tool and the health of the proxy, as far as tests need
them.
"""

import re
import shlex

from .kafka_topics import TopicError, create_topic, grow_topic, replicas_of

COLLIDES = (
    "WARNING: Due to limitations in metric names, topics with a period ('.') "
    "or underscore ('_') could collide. "
    "To avoid issues it is best to use either, but not both."
)
INTERNAL = ("__amazon_msk_canary", "__consumer_offsets")
FLAGS = {
    "--create",
    "--list",
    "--describe",
    "--delete",
    "--alter",
    "--if-not-exists",
    "--if-exists",
    "--exclude-internal",
}


def statements(script):
    """Returns the commands of a script as words, with simple variables expanded."""
    values = {}
    script = re.sub(r"\\\n", " ", script)
    for line in script.splitlines():
        line = re.sub(r"\$\{?(\w+)\}?", lambda found: values.get(found[1], found[0]), line)
        assigned = re.fullmatch(
            r"\s*(?:export\s+|readonly\s+|local\s+)?(\w+)=(\S*|\"[^\"]*\"|'[^']*')\s*;?", line
        )
        if assigned:
            values[assigned[1]] = assigned[2].strip("\"'")
            continue
        try:
            lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&<>()")
            lexer.whitespace_split = True
            words = list(lexer)
        except ValueError:
            words = line.split()
        current = []
        for word in words:
            if word and set(word) <= set(";|&<>()"):
                if current:
                    yield current
                current = []
            else:
                current.append(word)
        if current:
            yield current


class Shell:
    """Runs scripts; returns exit code, standard output and standard error."""

    def __init__(self, aws):
        self.aws = aws

    def __call__(self, commands):
        script = "\n".join(commands)
        code, out, err = 0, [], []
        for words in statements(script):
            here = self.run(words)
            if here is None:
                continue
            code = here[0]
            out.append(here[1])
            err.append(here[2])
            if code and re.search(r"^\s*set\s+-\w*e", script, re.MULTILINE):
                break
        return code, "".join(out), "".join(err)

    def run(self, words):
        """Runs one command; ignores commands that the double does not know."""
        for position, word in enumerate(words):
            tool = word.rpartition("/")[2]
            if tool in ("kafka-topics.sh", "kafka-topics"):
                return self.kafka_topics(words[position + 1 :])
            if tool == "curl" and any(re.search(r":8082\b", other) for other in words):
                return self.proxy(words[position + 1 :])
        return None

    def proxy(self, words):
        """A healthy Kafka REST proxy."""
        topics = sorted(
            name
            for cluster in self.aws.services["kafka"].clusters.values()
            for name in cluster.topics
        )
        listed = "[" + ",".join(f'"{name}"' for name in topics) + "]"
        silent = any(word == "/dev/null" for word in words)
        form = next(
            (words[i + 1] for i, word in enumerate(words[:-1]) if word in ("-w", "--write-out")), ""
        )
        return (
            0,
            ("" if silent else listed) + form.replace("%{http_code}", "200").replace("\\n", "\n"),
            "",
        )

    def cluster_of(self, address):
        """Returns the cluster with a broker of this address."""
        kafka = self.aws.services["kafka"]
        wanted = {part.rpartition(":")[0] or part for part in (address or "").split(",")}
        for cluster in kafka.clusters.values():
            if cluster.lifecycle.state in ("ACTIVE", "UPDATING"):
                known = ",".join(
                    kafka.addresses(cluster, cluster.arn.split(":")[3]).values()
                ).split(",")
                if wanted & {part.rpartition(":")[0] for part in known} or any(
                    part.startswith("z-") and cluster.mark in part for part in wanted
                ):
                    return cluster
        return None

    def kafka_topics(self, words):
        """kafka-topics.sh of Kafka 2.8."""
        options, position = {}, 0
        while position < len(words):
            word, _, value = words[position].partition("=")
            if word in FLAGS:
                options[word] = True
            elif word.startswith("--"):
                if not value and position + 1 < len(words):
                    position += 1
                    value = words[position]
                options.setdefault(word, []).append(value)
            position += 1

        def one(name):
            return options.get(name, [None])[-1]

        cluster = self.cluster_of(one("--bootstrap-server") or one("--zookeeper"))
        if not cluster:
            return self.failed(
                "TimeoutException", "Timed out waiting for a node assignment. Call: listTopics"
            )
        try:
            return 0, self.topic_command(cluster, options, one), ""
        except TopicError as error:
            return self.failed(error.kind, str(error))

    def failed(self, kind, message):
        log = (
            f"[2024-01-01 00:00:00,000] ERROR org.apache.kafka.common.errors.{kind}: "
            f"{message}\n (kafka.admin.TopicCommand$)\n"
        )
        return 1, f"Error while executing topic command : {message}\n", log

    def topic_command(self, cluster, options, one):
        name = one("--topic")
        if "--list" in options:
            names = sorted(
                [*cluster.topics, *(() if "--exclude-internal" in options else INTERNAL)]
            )
            return "".join(f"{each}\n" for each in names if name in (None, each))
        if "--create" in options:
            stderr = f"{COLLIDES}\n" if re.search(r"[._]", name) else ""
            if name in cluster.topics and "--if-not-exists" in options:
                return stderr
            configs = dict(pair.split("=", 1) for pair in options.get("--config", []))
            replication = one("--replication-factor")
            create_topic(
                cluster,
                name,
                int(one("--partitions") or 1),
                int(replication) if replication else None,
                configs,
            )
            return f"{stderr}Created topic {name}.\n"
        found = [cluster.topics[name]] if name in cluster.topics else []
        if name is None:
            found = [cluster.topics[each] for each in sorted(cluster.topics)]
        elif not found:
            if "--if-exists" in options:
                return ""
            raise TopicError(
                "UnknownTopicOrPartitionException", f"Topic '{name}' does not exist as expected"
            )
        if "--describe" in options:
            return "".join(self.described(cluster, topic) for topic in found)
        if "--delete" in options:
            cluster.topics.pop(name)
            return ""
        if "--alter" in options:
            grow_topic(found[0], int(one("--partitions")))
            return ""
        raise TopicError(
            "IllegalArgumentException",
            (
                "Command must include exactly one action: --list, --describe, --create, "
                "--alter or --delete"
            ),
        )

    def described(self, cluster, topic):
        configs = {
            "min.insync.replicas": "2",
            "message.format.version": "2.8-IV1",
            "unclean.leader.election.enable": "true",
            **topic.configs,
        }
        text = ",".join(f"{key}={value}" for key, value in configs.items())
        lines = [
            (
                f"Topic: {topic.name}\tTopicId: {topic.id}\tPartitionCount: "
                f"{topic.partitions}\tReplicationFactor: {topic.replication}\tConfigs: "
                f"{text}"
            )
        ]
        for partition in range(topic.partitions):
            brokers = replicas_of(cluster, topic, partition)
            listed = ",".join(map(str, brokers))
            lines.append(
                f"\tTopic: {topic.name}\tPartition: {partition}\tLeader: "
                f"{brokers[0]}\tReplicas: {listed}\tIsr: {listed}"
            )
        return "".join(f"{line}\n" for line in lines)
