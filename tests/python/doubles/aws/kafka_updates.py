"""Updates of MSK clusters, and the operations that report them."""

import uuid

from .kafka_versions import number_of, version_of
from .service import now, refuse


class ClusterUpdates:
    """Operations that update clusters."""

    def check_current(self, cluster, version):
        if version != cluster.version:
            raise refuse(
                "BadRequestException",
                (
                    "This operation is only valid for resources in their current version. "
                    "The version you gave is not the current one."
                ),
                invalidParameter="currentVersion",
            )

    def update(self, call, kind, change):
        """Starts an update of a cluster, which takes effect at its end."""
        cluster = self.find(call.parameters["ClusterArn"], ("ACTIVE",))
        self.check_current(cluster, call.parameters["CurrentVersion"])
        effect = change(cluster)
        arn = cluster.arn.replace(":cluster/", ":cluster-operation/") + f"/{uuid.uuid4()}"
        operation = {
            "arn": arn,
            "cluster": cluster,
            "type": kind,
            "state": "UPDATE_IN_PROGRESS",
            "created": now(),
            "error": {},
        }
        cluster.operation = arn
        self.operations[arn] = operation

        def finish():
            failure = self.aws.outcome("cluster-update", cluster.name)
            operation["state"] = "UPDATE_FAILED" if failure else "UPDATE_COMPLETE"
            operation["error"] = (
                {"ErrorInfo": {"ErrorCode": "InternalError", "ErrorString": failure}}
                if failure
                else {}
            )
            if not failure:
                effect()
            cluster.version = version_of()

        self.move(cluster.lifecycle, "UPDATING", "ACTIVE", finish)
        return {"ClusterArn": cluster.arn, "ClusterOperationArn": arn}

    def do_update_broker_storage(self, call):
        def change(cluster):
            volume = cluster.provisioned["BrokerNodeGroupInfo"]["StorageInfo"]["EbsStorageInfo"]
            targets = call.parameters["TargetBrokerEBSVolumeInfo"]
            if [target["KafkaBrokerNodeId"].upper() for target in targets] != ["ALL"]:
                raise refuse(
                    "BadRequestException",
                    (
                        "The storage of all brokers is updated together: kafkaBrokerNodeId must "
                        "be All."
                    ),
                    invalidParameter="kafkaBrokerNodeId",
                )
            size = targets[0].get("VolumeSizeGB", volume["VolumeSize"])
            if size <= volume["VolumeSize"] or size > 16384:
                raise refuse(
                    "BadRequestException",
                    (
                        "The storage of a broker can only grow, to at most 16384 GiB: it is "
                        f"{volume['VolumeSize']}, and {size} is asked for."
                    ),
                    invalidParameter="volumeSizeGB",
                )
            return lambda: volume.update(VolumeSize=size)

        return self.update(call, "INCREASE_BROKER_STORAGE", change)

    def do_update_broker_count(self, call):
        def change(cluster):
            count = call.parameters["TargetNumberOfBrokerNodes"]
            self.check_count(
                count, len(cluster.provisioned["BrokerNodeGroupInfo"]["ClientSubnets"])
            )
            if count <= cluster.brokers:
                raise refuse(
                    "BadRequestException",
                    f"The cluster has {cluster.brokers} brokers; the target must be more.",
                    invalidParameter="targetNumberOfBrokerNodes",
                )
            return lambda: cluster.provisioned.update(NumberOfBrokerNodes=count)

        return self.update(call, "INCREASE_BROKER_COUNT", change)

    def do_update_broker_type(self, call):
        def change(cluster):
            kind, nodes = (
                call.parameters["TargetInstanceType"],
                cluster.provisioned["BrokerNodeGroupInfo"],
            )
            self.check_type(kind)
            if kind == nodes["InstanceType"]:
                raise refuse(
                    "BadRequestException",
                    f"The cluster's brokers are {kind} already.",
                    invalidParameter="targetInstanceType",
                )
            return lambda: nodes.update(InstanceType=kind)

        return self.update(call, "UPDATE_BROKER_TYPE", change)

    def do_update_cluster_kafka_version(self, call):
        def change(cluster):
            version = call.parameters["TargetKafkaVersion"]
            self.check_version(version)
            if number_of(version) <= number_of(cluster.provisioned["KafkaVersion"]):
                raise refuse(
                    "BadRequestException",
                    (
                        f"A cluster of {cluster.provisioned['KafkaVersion']} cannot be updated to "
                        f"{version}."
                    ),
                    invalidParameter="targetKafkaVersion",
                )
            return lambda: cluster.provisioned.update(KafkaVersion=version)

        return self.update(call, "UPDATE_CLUSTER_KAFKA_VERSION", change)

    def operation_of(self, call):
        operation = self.operations.get(call.parameters["ClusterOperationArn"])
        if not operation:
            raise refuse("NotFoundException", "The cluster operation doesn't exist.")
        state = operation["state"]
        self.read(operation["cluster"])
        return operation, state

    def do_describe_cluster_operation(self, call):
        operation, state = self.operation_of(call)
        return {
            "ClusterOperationInfo": {
                "ClusterArn": operation["cluster"].arn,
                "OperationArn": operation["arn"],
                "OperationState": state,
                "OperationType": operation["type"],
                "CreationTime": operation["created"],
                **(operation["error"] if state == "UPDATE_FAILED" else {}),
            }
        }

    def do_describe_cluster_operation_v2(self, call):
        operation, state = self.operation_of(call)
        return {
            "ClusterOperationInfo": {
                "ClusterArn": operation["cluster"].arn,
                "OperationArn": operation["arn"],
                "OperationState": state,
                "ClusterType": "PROVISIONED",
                "OperationType": operation["type"],
                "StartTime": operation["created"],
                **(operation["error"] if state == "UPDATE_FAILED" else {}),
            }
        }
