"""Connectors of MSK Connect and their operations."""

import copy
import json
import uuid

from .kafka_versions import version_of
from .lifecycle import Lifecycle
from .service import now, refuse

CONNECT_VERSIONS = ("2.7.1", "3.7.x")
WORKER_SETTINGS = ("capacity", "plugins", "workerConfiguration", "useDefaultWorkerConfiguration")


class Thing:
    """A plugin, worker configuration or connector."""

    def __init__(self, name, arn, settings, tags, lifecycle):
        self.name = name
        self.arn = arn
        self.settings = settings
        self.tags = tags
        self.lifecycle = lifecycle
        self.created = now()
        self.version = version_of()
        self.failure = None
        self.operations = []


class Connectors:
    """Operations on connectors."""

    def do_create_connector(self, call):
        given = call.parameters
        self.check_name(call, self.connectors, given["connectorName"])
        self.check_connector(call, given)
        arn = self.new_arn(call, "connector", given["connectorName"])
        settings = copy.deepcopy(given)
        connector = Thing(given["connectorName"], arn, settings, settings.pop("tags", {}), None)
        connector.lifecycle = Lifecycle("CREATING")
        self.move(
            connector.lifecycle,
            "CREATING",
            "RUNNING",
            lambda: self.settle(connector, "connector", "FAILED"),
        )
        self.connectors[arn] = connector
        return {"connectorArn": arn, "connectorName": connector.name, "connectorState": "CREATING"}

    def check_connector(self, call, given):
        """Raises the immediate errors of MSK Connect."""
        self.check_settings(given)
        self.check_parts(given)
        if given["kafkaConnectVersion"] not in CONNECT_VERSIONS:
            raise refuse(
                "BadRequestException",
                (
                    f"Unsupported kafkaConnectVersion {given['kafkaConnectVersion']}. Valid "
                    f"values: {list(CONNECT_VERSIONS)}"
                ),
            )
        if len(given["plugins"]) != 1:
            raise refuse("BadRequestException", "Exactly one plugin must be given.")
        self.check_role(call, given["serviceExecutionRoleArn"])
        ec2, kafka = self.store(call.region, "ec2"), given["kafkaCluster"]["apacheKafkaCluster"]
        for subnet in kafka["vpc"]["subnets"]:
            if not ec2.describe_subnets(filters={"subnet-id": [subnet]}):
                raise refuse("BadRequestException", f"The subnet {subnet} doesn't exist.")
        for group in kafka["vpc"].get("securityGroups", []):
            if not ec2.get_security_group_from_id(group):
                raise refuse("BadRequestException", f"The security group {group} doesn't exist.")
        self.check_cluster(call, given, kafka["bootstrapServers"])

    def check_settings(self, given):
        capacity = given.get("capacity")
        if capacity is not None:
            if len(capacity) != 1:
                raise refuse(
                    "BadRequestException",
                    "Exactly one of autoScaling and provisionedCapacity must be given.",
                )
            scaling, provisioned = capacity.get("autoScaling"), capacity.get("provisionedCapacity")
            counts = (
                [scaling["minWorkerCount"], scaling["maxWorkerCount"]]
                if scaling
                else [provisioned["workerCount"]]
            )
            if (scaling or provisioned)["mcuCount"] not in (1, 2, 4, 8):
                raise refuse("BadRequestException", "The mcuCount must be 1, 2, 4 or 8.")
            if counts != sorted(counts) or not all(1 <= count <= 10 for count in counts):
                raise refuse(
                    "BadRequestException",
                    "Worker counts go from 1 to 10, and the minimum is not over the maximum.",
                )
        configuration = given.get("connectorConfiguration")
        missing = [
            name
            for name in ("connector.class", "tasks.max")
            if configuration is not None and name not in configuration
        ]
        if missing:
            raise refuse(
                "BadRequestException", f"The connector configuration lacks {', '.join(missing)}."
            )

    def check_parts(self, given):
        """Checks plugins and worker configuration of a connector."""
        for entry in given.get("plugins", []):
            plugin = self.find(
                self.plugins, entry["customPlugin"]["customPluginArn"], "custom plugin"
            )
            if plugin.lifecycle.state != "ACTIVE" or entry["customPlugin"]["revision"] != 1:
                raise refuse(
                    "BadRequestException",
                    (
                        f"The custom plugin {plugin.arn} isn't active in this revision: it is "
                        f"{plugin.lifecycle.state}."
                    ),
                )
        worker = given.get("workerConfiguration")
        if worker:
            found = self.find(
                self.workers, worker["workerConfigurationArn"], "worker configuration"
            )
            if found.lifecycle.state != "ACTIVE" or worker["revision"] != 1:
                raise refuse(
                    "BadRequestException",
                    f"The worker configuration {found.arn} isn't active in this revision.",
                )

    def check_role(self, call, arn):
        role = self.aws.services["iam"].role(call, arn)
        if not role:
            raise refuse(
                "BadRequestException",
                f"The service execution role {arn} doesn't exist or can't be assumed.",
            )
        trusted = json.dumps(json.loads(role.assume_role_policy_document))
        if "kafkaconnect.amazonaws.com" not in trusted:
            raise refuse(
                "BadRequestException",
                f"The service execution role {arn} can't be assumed by kafkaconnect.amazonaws.com.",
            )

    def check_cluster(self, call, given, servers):
        authentication = given["kafkaClusterClientAuthentication"]["authenticationType"]
        encryption = given["kafkaClusterEncryptionInTransit"]["encryptionType"]
        if authentication == "IAM" and encryption != "TLS":
            raise refuse(
                "BadRequestException", "IAM authentication needs TLS encryption in transit."
            )
        wanted = (
            "BootstrapBrokerStringSaslIam"
            if authentication == "IAM"
            else "BootstrapBrokerStringTls"
            if encryption == "TLS"
            else "BootstrapBrokerString"
        )
        kafka, hosts = self.aws.services["kafka"], set(servers.split(","))
        for cluster in kafka.in_region(call.region):
            if cluster.lifecycle.state in ("ACTIVE", "UPDATING") and hosts & set(
                kafka.addresses(cluster, call.region).get(wanted, "").split(",")
            ):
                return
        raise refuse(
            "BadRequestException",
            f"No cluster could be reached at {servers} with {authentication} over {encryption}.",
        )

    def connector_shown(self, connector, state, full=False):
        kept = (
            "capacity",
            "connectorDescription",
            "kafkaCluster",
            "kafkaClusterClientAuthentication",
            "kafkaClusterEncryptionInTransit",
            "kafkaConnectVersion",
            "logDelivery",
            "plugins",
            "serviceExecutionRoleArn",
            "workerConfiguration",
        )
        shown = {name: connector.settings[name] for name in kept if name in connector.settings}
        if full:
            shown["connectorConfiguration"] = connector.settings["connectorConfiguration"]
            if state == "FAILED" and connector.failure:
                shown["stateDescription"] = {
                    "code": "UnknownError.Unknown",
                    "message": connector.failure,
                }
        return {
            **shown,
            "connectorArn": connector.arn,
            "connectorName": connector.name,
            "connectorState": state,
            "creationTime": connector.created,
            "currentVersion": connector.version,
            "networkType": connector.settings.get("networkType", "IPV4"),
        }

    def connector_of(self, call):
        return self.find(self.connectors, call.parameters["connectorArn"], "connector")

    def do_describe_connector(self, call):
        connector = self.connector_of(call)
        return self.connector_shown(connector, connector.lifecycle.read(), full=True)

    def do_list_connectors(self, call):
        page, token = self.listed(call, self.connectors, call.parameters.get("connectorNamePrefix"))
        return {
            "connectors": [self.connector_shown(c, c.lifecycle.read()) for c in page],
            "nextToken": token,
        }

    def check_current(self, call, connector):
        if call.parameters.get("currentVersion", connector.version) != connector.version:
            raise refuse(
                "BadRequestException",
                "The current version you gave is not the connector's current version.",
            )

    def do_delete_connector(self, call):
        connector = self.connector_of(call)
        self.check_current(call, connector)
        if connector.lifecycle.moving:
            raise refuse(
                "BadRequestException",
                f"The connector is in the {connector.lifecycle.state} state and can't be deleted.",
            )
        self.move(
            connector.lifecycle, "DELETING", None, lambda: self.connectors.pop(connector.arn, None)
        )
        return {"connectorArn": connector.arn, "connectorState": "DELETING"}

    def do_update_connector(self, call):
        given, connector = call.parameters, self.connector_of(call)
        self.check_current(call, connector)
        workers = {name: copy.deepcopy(given[name]) for name in WORKER_SETTINGS if name in given}
        configuration = copy.deepcopy(given.get("connectorConfiguration"))
        if bool(workers) == bool(configuration):
            raise refuse(
                "BadRequestException",
                (
                    "Update either the worker setting or the connector configuration, not "
                    "both and not neither."
                ),
            )
        if "workerConfiguration" in workers and workers.get("useDefaultWorkerConfiguration"):
            raise refuse(
                "BadRequestException",
                "Both workerConfiguration and useDefaultWorkerConfiguration are given.",
            )
        if connector.lifecycle.state != "RUNNING":
            raise refuse(
                "BadRequestException",
                f"The connector is {connector.lifecycle.state}; only a running one can be updated.",
            )
        self.check_settings(given)
        self.check_parts(given)
        if (
            configuration
            and configuration.get("connector.class")
            != connector.settings["connectorConfiguration"]["connector.class"]
        ):
            raise refuse(
                "BadRequestException", "The connector.class of a connector can't be changed."
            )
        operation = self.start_operation(connector, workers, configuration)
        return {
            "connectorArn": connector.arn,
            "connectorState": "UPDATING",
            "connectorOperationArn": operation["arn"],
        }

    def start_operation(self, connector, workers, configuration):
        """Starts an update, which takes effect at its end, unless the test's hook fails it."""
        arn = connector.arn.replace(":connector/", ":connector-operation/") + f"/{uuid.uuid4()}"
        operation = {
            "arn": arn,
            "connector": connector,
            "state": "UPDATE_IN_PROGRESS",
            "started": now(),
            "ended": None,
            "error": None,
            "type": "UPDATE_WORKER_SETTING" if workers else "UPDATE_CONNECTOR_CONFIGURATION",
            "workers": workers,
            "configuration": configuration,
            "origin": copy.deepcopy(
                {
                    name: connector.settings.get(name)
                    for name in (*WORKER_SETTINGS, "connectorConfiguration")
                }
            ),
        }
        self.operations[arn] = operation
        connector.operations.append(operation)

        def finish():
            operation["error"] = self.aws.outcome("connector-update", connector.name)
            operation["state"] = "UPDATE_FAILED" if operation["error"] else "UPDATE_COMPLETE"
            operation["ended"] = now()
            connector.version = version_of()
            if not operation["error"]:
                if workers.pop("useDefaultWorkerConfiguration", None):
                    connector.settings.pop("workerConfiguration", None)
                connector.settings.update(workers or {"connectorConfiguration": configuration})

        self.move(connector.lifecycle, "UPDATING", "RUNNING", finish)
        return operation

    def steer(self, call, allowed, passing, settled):
        """Pauses, resumes or restarts a connector, unless the test's hook fails it."""
        kind, connector = call.operation.removesuffix("Connector").upper(), self.connector_of(call)
        if connector.lifecycle.state not in allowed:
            raise refuse(
                "BadRequestException",
                (
                    f"The connector is {connector.lifecycle.state}; this takes one that is "
                    f"{' or '.join(allowed)}."
                ),
            )
        arn = connector.arn.replace(":connector/", ":connector-operation/") + f"/{uuid.uuid4()}"
        operation = {
            "arn": arn,
            "connector": connector,
            "state": f"{kind}_IN_PROGRESS",
            "started": now(),
            "ended": None,
            "error": None,
            "type": f"{kind}_CONNECTOR",
            "workers": {},
            "configuration": None,
            "origin": {},
        }
        self.operations[arn] = operation
        connector.operations.append(operation)
        before = connector.lifecycle.state

        def finish():
            operation["error"] = self.aws.outcome(f"connector-{kind.lower()}", connector.name)
            operation["state"] = f"{kind}_FAILED" if operation["error"] else f"{kind}_COMPLETE"
            operation["ended"] = now()
            connector.version = version_of()
            if operation["error"]:
                connector.lifecycle.state = before

        self.move(connector.lifecycle, passing, settled, finish)
        return {"connectorArn": connector.arn, "connectorOperationArn": arn}

    def do_pause_connector(self, call):
        return self.steer(call, ("RUNNING",), "PAUSING", "PAUSED")

    def do_resume_connector(self, call):
        return self.steer(call, ("PAUSED",), "RESUMING", "RUNNING")

    def do_restart_connector(self, call):
        return self.steer(call, ("RUNNING", "FAILED"), "RESTARTING", "RUNNING")

    def do_describe_connector_operation(self, call):
        operation = self.operations.get(call.parameters["connectorOperationArn"])
        if not operation:
            raise refuse("NotFoundException", "The connector operation doesn't exist.")
        shown = self.operation_shown(operation)
        operation["connector"].lifecycle.read()
        if operation["error"] and shown["connectorOperationState"].endswith("FAILED"):
            shown["errorInfo"] = {"code": "UnknownError.Unknown", "message": operation["error"]}
        if not operation["type"].startswith("UPDATE"):
            return shown

        def setting(values):
            return {name: values[name] for name in WORKER_SETTINGS if values.get(name) is not None}

        origin, target = operation["origin"], {**operation["origin"], **operation["workers"]}
        if operation["configuration"]:
            shown |= {
                "originConnectorConfiguration": origin["connectorConfiguration"],
                "targetConnectorConfiguration": operation["configuration"],
            }
        else:
            shown |= {
                "originWorkerSetting": setting(origin),
                "targetWorkerSetting": setting(target),
            }
        state = shown["connectorOperationState"]
        done = {"UPDATE_COMPLETE": "COMPLETED", "UPDATE_FAILED": "FAILED"}.get(state, "IN_PROGRESS")
        return {
            **shown,
            "operationSteps": [
                {"stepType": "INITIALIZE_UPDATE", "stepState": "COMPLETED"},
                {"stepType": operation["type"], "stepState": done},
            ],
        }

    def operation_shown(self, operation):
        shown = {
            "connectorOperationArn": operation["arn"],
            "connectorOperationType": operation["type"],
            "connectorOperationState": operation["state"],
            "creationTime": operation["started"],
            "endTime": operation["ended"],
            "connectorArn": operation["connector"].arn,
        }
        return {name: value for name, value in shown.items() if value is not None}

    def do_list_connector_operations(self, call):
        connector = self.connector_of(call)
        page, token = self.page(
            connector.operations[::-1],
            call.parameters.get("maxResults"),
            call.parameters.get("nextToken"),
        )
        shown = [self.operation_shown(operation) for operation in page]
        connector.lifecycle.read()
        for each in shown:
            each.pop("connectorArn")
        return {"connectorOperations": shown, "nextToken": token}
