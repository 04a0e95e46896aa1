"""Managed Airflow: environments, and their REST API through a hook."""

import copy
import re

from .lifecycle import Lifecycle
from .service import Service, now, refuse


class Environment:
    """One environment."""

    def __init__(self, name, arn, settings, tags):
        self.name = name
        self.arn = arn
        self.settings = settings
        self.tags = tags
        self.lifecycle = None
        self.created = now()
        self.paused = {}
        self.runs = {}


class Mwaa(Service):
    """MWAA."""

    name = "mwaa"

    def reset(self):
        self.environments = {}

    def find(self, call, state=None):
        """Returns the environment of a call, if its state allows the call."""
        environment = self.environments.get((call.region, call.parameters["Name"]))
        if not environment:
            raise refuse(
                "ResourceNotFoundException", f"Environment {call.parameters['Name']} not found"
            )
        if state and environment.lifecycle.state not in state:
            raise refuse(
                "ValidationException",
                (
                    f"Environment {environment.name} is {environment.lifecycle.state}; it "
                    f"must be {' or '.join(state)}"
                ),
            )
        return environment

    def do_create_environment(self, call):
        settings = copy.deepcopy(call.parameters)
        name = settings["Name"]
        if (call.region, name) in self.environments:
            raise refuse("ValidationException", f"Environment with name {name} already exists")
        self.check(call, settings)
        network, ec2 = settings["NetworkConfiguration"], self.store(call.region, "ec2")
        subnets = [
            ec2.describe_subnets(filters={"subnet-id": [subnet]})
            for subnet in network.get("SubnetIds", [])
        ]
        if not all(subnets) or len({found[0].availability_zone for found in subnets}) != 2:
            raise refuse("ValidationException", "Two subnets in two Availability Zones are needed")
        for option, value in {
            "AirflowVersion": "2.10.3",
            "EnvironmentClass": "mw1.small",
            "MaxWorkers": 10,
            "MinWorkers": 1,
            "Schedulers": 2,
            "WebserverAccessMode": "PRIVATE_ONLY",
            "EndpointManagement": "SERVICE",
            "WeeklyMaintenanceWindowStart": "SUN:00:00",
            "AirflowConfigurationOptions": {},
        }.items():
            settings.setdefault(option, value)
        environment = Environment(
            name,
            self.arn(call, f"environment/{name}", "airflow"),
            settings,
            settings.pop("Tags", {}),
        )
        self.environments[call.region, name] = environment
        environment.lifecycle = Lifecycle("CREATING")
        self.move(
            environment.lifecycle,
            "CREATING",
            "AVAILABLE",
            lambda: self.settle(environment, "CREATE_FAILED"),
        )
        return {"Arn": environment.arn}

    def settle(self, environment, failed):
        environment.failure = self.aws.outcome("environment", environment.name)
        if environment.failure:
            environment.lifecycle.state = failed

    def check(self, call, settings):
        """Raises the immediate errors of MWAA about role, bucket and groups."""
        role = settings.get("ExecutionRoleArn")
        if role and not self.aws.services["iam"].role(call, role):
            raise refuse(
                "ValidationException",
                f"The execution role {role} does not exist or cannot be assumed",
            )
        if "SourceBucketArn" in settings:
            bucket = self.aws.bridge.store("s3").buckets.get(
                settings["SourceBucketArn"].rpartition(":")[2]
            )
            if not bucket:
                raise refuse(
                    "ValidationException",
                    f"The bucket {settings['SourceBucketArn']} does not exist",
                )
            if bucket.versioning_status != "Enabled":
                raise refuse(
                    "ValidationException", f"The bucket {bucket.name} must have versioning enabled"
                )
            blocked = bucket.public_access_block
            if not blocked or not all(blocked.to_config_dict().values()):
                raise refuse(
                    "ValidationException", f"The bucket {bucket.name} must block all public access"
                )
        for group in settings.get("NetworkConfiguration", {}).get("SecurityGroupIds", []):
            if not self.store(call.region, "ec2").get_security_group_from_id(group):
                raise refuse("ValidationException", f"The security group {group} does not exist")

    def do_get_environment(self, call):
        environment = self.find(call)
        state = environment.lifecycle.read()
        shown = {
            **environment.settings,
            "Arn": environment.arn,
            "Status": state,
            "CreatedAt": environment.created,
            "ServiceRoleArn": "arn:aws:iam::123456789012:role/aws-service-role/airflow.amazonaws.com/AWSServiceRoleForAmazonMWAA",  # noqa: E501
        }
        if state not in ("CREATING", "CREATE_FAILED"):
            shown["WebserverUrl"] = (
                f"https://00000000-0000-0000-0000-000000000000.c1.{call.region}.airflow.amazonaws.com"
            )
        if environment.tags:
            shown["Tags"] = environment.tags
        if getattr(environment, "failure", None):
            shown["LastUpdate"] = {
                "Status": "FAILED",
                "CreatedAt": environment.created,
                "Error": {
                    "ErrorCode": "INCORRECT_CONFIGURATION",
                    "ErrorMessage": environment.failure,
                },
            }
        return {"Environment": shown}

    def do_list_environments(self, call):
        names = sorted(name for region, name in self.environments if region == call.region)
        page, token = self.page(
            names,
            call.parameters.get("MaxResults"),
            call.parameters.get("NextToken"),
            default=25,
            code="ValidationException",
        )
        return {"Environments": page, "NextToken": token}

    def do_update_environment(self, call):
        environment = self.find(call, ("AVAILABLE", "UNAVAILABLE"))
        changes = {
            name: value
            for name, value in copy.deepcopy(call.parameters).items()
            if name not in ("Name", "WorkerReplacementStrategy")
        }
        self.check(call, changes)

        def finish():
            self.settle(environment, "UPDATE_FAILED")
            if not environment.failure:
                network = changes.pop("NetworkConfiguration", {})
                environment.settings.update(changes)
                environment.settings["NetworkConfiguration"].update(network)

        self.move(environment.lifecycle, "UPDATING", "AVAILABLE", finish)
        return {"Arn": environment.arn}

    def do_delete_environment(self, call):
        environment = self.find(
            call, ("AVAILABLE", "CREATE_FAILED", "UPDATE_FAILED", "UNAVAILABLE")
        )
        self.move(
            environment.lifecycle,
            "DELETING",
            "DELETED",
            lambda: self.environments.pop((call.region, environment.name), None),
        )
        return {}

    def tagged(self, call):
        for environment in self.environments.values():
            if environment.arn == call.parameters["ResourceArn"]:
                return environment.tags
        raise refuse("ResourceNotFoundException", f"{call.parameters['ResourceArn']} not found")

    def do_tag_resource(self, call):
        self.tagged(call).update(call.parameters["Tags"])

    def do_untag_resource(self, call):
        tags = self.tagged(call)
        for key in call.parameters["tagKeys"]:
            tags.pop(key, None)

    def do_list_tags_for_resource(self, call):
        tags = self.tagged(call)
        return {"Tags": tags} if tags else {}

    # Airflow itself.

    def do_invoke_rest_api(self, call):
        given, environment = call.parameters, self.find(call, ("AVAILABLE", "UPDATING"))
        answer = self.aws.airflow or (lambda *request: self.airflow(environment, *request[1:]))
        status, body = answer(
            environment.name,
            given["Method"],
            given["Path"],
            given.get("QueryParameters", {}),
            given.get("Body", {}),
        )
        if status >= 400:
            raise refuse(
                "RestApiClientException" if status < 500 else "RestApiServerException",
                "The Airflow REST API answered with an error.",
                RestApiStatusCode=status,
                RestApiResponse=body,
            )
        return {"RestApiStatusCode": status, "RestApiResponse": body}

    def dags(self, environment):
        """Returns the DAGs whose files are in the environment's bucket."""
        bucket = self.aws.bridge.store("s3").buckets.get(
            environment.settings["SourceBucketArn"].rpartition(":")[2]
        )
        prefix, found = environment.settings["DagS3Path"].strip("/") + "/", {}
        for name, key in sorted(bucket.keys.items()) if bucket else ():
            if name.startswith(prefix) and name.endswith(".py"):
                for dag in re.findall(
                    r"(?:dag_id\s*=\s*|\bDAG\(\s*)[\"']([\w.-]+)[\"']",
                    key.value.decode(errors="replace"),
                ):
                    found[dag] = name
        return found

    def airflow(self, environment, method, path, query, body):
        """A part of Airflow's stable REST API: DAGs, pausing them, and their runs."""
        dags = self.dags(environment)

        def dag_shown(dag):
            return {
                "dag_id": dag,
                "is_paused": environment.paused.get(dag, True),
                "is_active": True,
                "fileloc": f"/usr/local/airflow/{dags[dag]}",
            }

        if path == "/dags" and method == "GET":
            return 200, {"dags": [dag_shown(dag) for dag in dags], "total_entries": len(dags)}
        found = re.fullmatch(r"/dags/([\w.-]+)(/dagRuns)?(?:/([^/]+))?", path)
        if not found or found[1] not in dags:
            return 404, {
                "title": "DAG not found",
                "status": 404,
                "type": "about:blank",
                "detail": path,
            }
        dag, runs = found[1], environment.runs.setdefault(found[1], {})
        if not found[2]:
            if method == "PATCH":
                environment.paused[dag] = bool(body.get("is_paused", True))
            return 200, dag_shown(dag)
        if method == "POST":
            name = body.get("dag_run_id") or f"manual__{len(runs) + 1}"
            if name in runs:
                return 409, {"title": "Conflict", "status": 409, "detail": f"{name} already exists"}
            runs[name] = self.lifecycle("running", "success")
        if found[3] and found[3] not in runs:
            return 404, {"title": "DAGRun not found", "status": 404, "detail": path}

        def shown(name):
            return {
                "dag_id": dag,
                "dag_run_id": name,
                "state": runs[name].read() if method == "GET" else "queued",
                "conf": {},
            }

        if method == "POST" or found[3]:
            return 200, shown(found[3] or name)
        return 200, {"dag_runs": [shown(name) for name in runs], "total_entries": len(runs)}
