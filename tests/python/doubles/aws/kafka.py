"""MSK clusters: lifecycle, settings, updates and addresses."""

import copy
import re
import uuid

from .kafka_topics import KafkaTopics
from .kafka_updates import ClusterUpdates
from .kafka_versions import BROKER_TYPES, VERSIONS, version_of
from .lifecycle import Lifecycle
from .service import Service, now, random_id, refuse

PORTS = {
    "BootstrapBrokerString": 9092,
    "BootstrapBrokerStringTls": 9094,
    "BootstrapBrokerStringSaslScram": 9096,
    "BootstrapBrokerStringSaslIam": 9098,
}


class Cluster:
    """One MSK cluster."""

    def __init__(self, name, arn, provisioned, tags, lifecycle):
        self.name = name
        self.arn = arn
        self.provisioned = provisioned
        self.tags = tags
        self.lifecycle = lifecycle
        self.version = version_of()
        self.created = now()
        self.topics = {}
        self.failure = None
        self.operation = None
        self.mark = random_id(6, "abcdefghijklmnopqrstuvwxyz0123456789")

    @property
    def brokers(self):
        return self.provisioned["NumberOfBrokerNodes"]

    def host(self, number, region):
        return f"b-{number}.{self.name.lower()}.{self.mark}.c2.kafka.{region}.amazonaws.com"


class Kafka(ClusterUpdates, KafkaTopics, Service):
    """MSK."""

    name = "kafka"

    def reset(self):
        self.clusters = {}
        self.operations = {}

    def in_region(self, region):
        """Returns the clusters of a region that still exist."""
        return [
            cluster for cluster in self.clusters.values() if cluster.arn.split(":")[3] == region
        ]

    def find(self, arn, state=None):
        """Returns the cluster of an ARN; raises an error if its state does not allow the call."""
        if not arn.startswith("arn:"):
            raise refuse(
                "BadRequestException",
                "One or more of the parameters are not valid.",
                invalidParameter="clusterArn",
            )
        cluster = self.clusters.get(arn)
        if not cluster:
            raise refuse(
                "NotFoundException",
                f"The requested resource {arn} doesn't exist.",
                invalidParameter="clusterArn",
            )
        if state and cluster.lifecycle.state not in state:
            raise refuse(
                "BadRequestException",
                (
                    "The cluster isn't in a valid state for this operation: it is "
                    f"{cluster.lifecycle.state}."
                ),
                invalidParameter="clusterArn",
            )
        return cluster

    def do_create_cluster_v2(self, call):
        given = call.parameters
        name, provisioned = given["ClusterName"], given.get("Provisioned")
        if bool(provisioned) == bool(given.get("Serverless")):
            raise refuse(
                "BadRequestException", "Exactly one of provisioned and serverless must be given."
            )
        if not provisioned:
            raise refuse("BadRequestException", "The double has no serverless clusters.")
        if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z-]*", name):
            raise refuse(
                "BadRequestException",
                "The parameter value contains one or more characters that are not valid.",
                invalidParameter="clusterName",
            )
        if any(cluster.name == name for cluster in self.in_region(call.region)):
            raise refuse(
                "ConflictException",
                "A resource with this name already exists. Names must be unique.",
                invalidParameter="clusterName",
            )
        settings = self.with_defaults(call, copy.deepcopy(provisioned))
        arn = self.arn(call, f"cluster/{name}/{uuid.uuid4()}-{random_id(1, '123456789')}")
        cluster = Cluster(name, arn, settings, dict(given.get("Tags", {})), None)
        cluster.lifecycle = Lifecycle("CREATING")
        self.move(cluster.lifecycle, "CREATING", "ACTIVE", lambda: self.settle(cluster))
        self.clusters[arn] = cluster
        return {
            "ClusterArn": arn,
            "ClusterName": name,
            "State": "CREATING",
            "ClusterType": "PROVISIONED",
        }

    def settle(self, cluster):
        cluster.failure = self.aws.outcome("cluster", cluster.name)
        if cluster.failure:
            cluster.lifecycle.state = "FAILED"

    def with_defaults(self, call, settings):
        """Returns the settings with the defaults of MSK, after its immediate checks."""
        nodes = settings["BrokerNodeGroupInfo"]
        ec2 = self.store(call.region, "ec2")
        zones = []
        for subnet in nodes["ClientSubnets"]:
            found = ec2.describe_subnets(filters={"subnet-id": [subnet]})
            if not found:
                raise refuse(
                    "BadRequestException",
                    f"One or more subnets are not valid: {subnet}",
                    invalidParameter="clientSubnets",
                )
            zones.append(found[0].availability_zone)
        if len(zones) not in (2, 3) or len(set(zones)) != len(zones):
            raise refuse(
                "BadRequestException",
                "Specify either two or three client subnets, each in its own Availability Zone.",
                invalidParameter="clientSubnets",
            )
        for group in nodes.get("SecurityGroups", []):
            if not ec2.get_security_group_from_id(group):
                raise refuse(
                    "BadRequestException",
                    f"The specified security group doesn't exist: {group}",
                    invalidParameter="securityGroups",
                )
        self.check_type(nodes["InstanceType"])
        self.check_version(settings["KafkaVersion"])
        self.check_count(settings["NumberOfBrokerNodes"], len(zones))
        nodes.setdefault("BrokerAZDistribution", "DEFAULT")
        nodes.setdefault("SecurityGroups", [ec2.get_default_security_group().id])
        nodes.setdefault("StorageInfo", {}).setdefault("EbsStorageInfo", {}).setdefault(
            "VolumeSize", 1000
        )
        nodes.setdefault("ConnectivityInfo", {"PublicAccess": {"Type": "DISABLED"}})
        settings.setdefault("EnhancedMonitoring", "DEFAULT")
        settings.setdefault("StorageMode", "LOCAL")
        encryption = settings.setdefault("EncryptionInfo", {})
        transit = encryption.setdefault("EncryptionInTransit", {})
        transit.setdefault("ClientBroker", "TLS")
        transit.setdefault("InCluster", True)
        encryption.setdefault(
            "EncryptionAtRest",
            {
                "DataVolumeKMSKeyId": f"arn:aws:kms:{call.region}:123456789012:key/00000000-0000-0000-0000-000000000001"  # noqa: E501
            },
        )
        asked = settings.setdefault("ClientAuthentication", {})
        sasl = asked.setdefault("Sasl", {})
        sasl.setdefault("Iam", {}).setdefault("Enabled", False)
        sasl.setdefault("Scram", {}).setdefault("Enabled", False)
        asked.setdefault("Tls", {}).setdefault("Enabled", False)
        chosen = sasl["Iam"]["Enabled"] or sasl["Scram"]["Enabled"] or asked["Tls"]["Enabled"]
        asked.setdefault("Unauthenticated", {}).setdefault("Enabled", not chosen)
        if chosen and transit["ClientBroker"] == "PLAINTEXT":
            raise refuse(
                "BadRequestException",
                "Client authentication needs TLS between clients and brokers.",
                invalidParameter="encryptionInTransit",
            )
        if not chosen and not asked["Unauthenticated"]["Enabled"]:
            raise refuse(
                "BadRequestException",
                "At least one way of client authentication must be enabled.",
                invalidParameter="clientAuthentication",
            )
        return settings

    def check_type(self, kind):
        if kind not in BROKER_TYPES:
            raise refuse(
                "BadRequestException",
                f"Unsupported InstanceType [{kind}]. Valid values: {sorted(BROKER_TYPES)}",
                invalidParameter="instanceType",
            )

    def check_version(self, version):
        if version not in VERSIONS:
            raise refuse(
                "BadRequestException",
                f"Unsupported KafkaVersion [{version}]. Valid values: {list(VERSIONS)}",
                invalidParameter="kafkaVersion",
            )

    def check_count(self, count, zones):
        if count % zones:
            raise refuse(
                "BadRequestException",
                (
                    "The number of broker nodes must be a multiple of the number of "
                    "Availability Zones in the Client Subnets parameter."
                ),
                invalidParameter="numberOfBrokerNodes",
            )

    def read(self, cluster):
        """Counts a read of a cluster: time passes for it, and a deletion may finish."""
        return cluster.lifecycle.read()

    def shown(self, cluster, state):
        info = {
            "ClusterArn": cluster.arn,
            "ClusterName": cluster.name,
            "ClusterType": "PROVISIONED",
            "CreationTime": cluster.created,
            "CurrentVersion": cluster.version,
            "State": state,
            "Tags": cluster.tags,
        }
        if cluster.operation and state == "UPDATING":
            info["ActiveOperationArn"] = cluster.operation
        if state == "FAILED":
            info["StateInfo"] = {"Code": "InternalError", "Message": cluster.failure}
        settings = copy.deepcopy(cluster.provisioned)
        software = {"KafkaVersion": settings.pop("KafkaVersion")}
        configuration = settings.pop("ConfigurationInfo", None)
        if configuration:
            software |= {
                "ConfigurationArn": configuration["Arn"],
                "ConfigurationRevision": configuration["Revision"],
            }
        settings |= {"CurrentBrokerSoftwareInfo": software, "CustomerActionStatus": "NONE"}
        if "kraft" not in software["KafkaVersion"] and state != "CREATING":
            settings["ZookeeperConnectString"] = ",".join(
                f"z-{n}.{cluster.name}.{cluster.mark}.c2.kafka.amazonaws.com:2181"
                for n in (1, 2, 3)
            )
        return {**info, "Provisioned": settings}

    def do_describe_cluster_v2(self, call):
        cluster = self.find(call.parameters["ClusterArn"])
        return {"ClusterInfo": self.shown(cluster, self.read(cluster))}

    def do_list_clusters_v2(self, call):
        given = call.parameters
        prefix, kind = (
            given.get("ClusterNameFilter", ""),
            given.get("ClusterTypeFilter", "PROVISIONED"),
        )
        found = [
            c
            for c in self.in_region(call.region)
            if c.name.startswith(prefix) and kind in ("PROVISIONED", "ALL")
        ]
        page, token = self.page(
            sorted(found, key=lambda c: c.name), given.get("MaxResults"), given.get("NextToken")
        )
        return {"ClusterInfoList": [self.shown(c, self.read(c)) for c in page], "NextToken": token}

    def addresses(self, cluster, region):
        """Returns the bootstrap strings of a cluster, by its client authentication."""
        if self.aws.bootstrap:

            def hosts(port):
                return self.aws.bootstrap
        else:

            def hosts(port):
                return ",".join(
                    f"{cluster.host(n, region)}:{port}"
                    for n in range(1, min(cluster.brokers, 3) + 1)
                )

        settings = cluster.provisioned
        transit, who = (
            settings["EncryptionInfo"]["EncryptionInTransit"]["ClientBroker"],
            settings["ClientAuthentication"],
        )
        open_to_all = who["Unauthenticated"]["Enabled"]
        enabled = {
            "BootstrapBrokerString": open_to_all and transit != "TLS",
            "BootstrapBrokerStringTls": (open_to_all and transit != "PLAINTEXT")
            or who["Tls"]["Enabled"],
            "BootstrapBrokerStringSaslScram": who["Sasl"]["Scram"]["Enabled"],
            "BootstrapBrokerStringSaslIam": who["Sasl"]["Iam"]["Enabled"],
        }
        return {name: hosts(PORTS[name]) for name, on in enabled.items() if on}

    def do_list_kafka_versions(self, call):
        page, token = self.page(
            [{"Version": version, "Status": "ACTIVE"} for version in VERSIONS],
            call.parameters.get("MaxResults"),
            call.parameters.get("NextToken"),
        )
        return {"KafkaVersions": page, "NextToken": token}

    def do_get_bootstrap_brokers(self, call):
        cluster = self.clusters.get(call.parameters["ClusterArn"])
        if not cluster:
            raise refuse(
                "BadRequestException",
                f"The requested resource {call.parameters['ClusterArn']} doesn't exist.",
                invalidParameter="clusterArn",
            )
        self.find(cluster.arn, ("ACTIVE", "UPDATING", "HEALING", "MAINTENANCE", "REBOOTING_BROKER"))
        return self.addresses(cluster, call.region)

    def do_delete_cluster(self, call):
        given = call.parameters
        cluster = self.find(given["ClusterArn"], ("ACTIVE", "FAILED"))
        self.check_current(cluster, given.get("CurrentVersion", cluster.version))

        def remove():
            self.clusters.pop(cluster.arn, None)

        self.move(cluster.lifecycle, "DELETING", None, remove)
        return {"ClusterArn": cluster.arn, "State": "DELETING"}

    def do_tag_resource(self, call):
        self.find(call.parameters["ResourceArn"]).tags.update(call.parameters["Tags"])

    def do_untag_resource(self, call):
        cluster = self.find(call.parameters["ResourceArn"])
        for key in call.parameters["TagKeys"]:
            cluster.tags.pop(key, None)

    def do_list_tags_for_resource(self, call):
        return {"Tags": self.find(call.parameters["ResourceArn"]).tags}
