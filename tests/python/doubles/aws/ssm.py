"""Systems Manager: parameters of moto; Run Command through the test's hook, on instances that
report.
"""

import json
import uuid

from .ec2_images import latest_image
from .lifecycle import Lifecycle
from .service import ACCOUNT, Service, now, refuse

IMAGES = "/aws/service/ami-amazon-linux-latest/"
REACHES = ("ssm:updateinstanceinformation", "ssm:*", '"*"')


class Command:
    """One command on one instance."""

    def __init__(self, command_id, instance_id, given, lifecycle, code, out, err):
        self.id = command_id
        self.instance_id = instance_id
        self.given = given
        self.lifecycle = lifecycle
        self.code = code
        self.out = out
        self.err = err
        self.requested = now()


class Ssm(Service):
    """Systems Manager."""

    name = "ssm"

    def reset(self):
        self.commands = {}

    def managed(self, region):
        """Returns the instances whose agent has reported."""
        ec2 = self.aws.services["ec2"]
        return [
            instance
            for instance in ec2.instances(region)
            if ec2.state_of(instance) == "running" and self.may_report(instance)
        ]

    def may_report(self, instance):
        """Whether an instance's role lets its agent report."""
        association = instance.ec2_backend.iam_instance_profile_associations.get(instance.id)
        for role in association.iam_instance_profile.roles if association else ():
            if any("SSM" in arn for arn in role.managed_policies):
                return True
            if any(
                reach in json.dumps(document).lower().replace("\\", "")
                for document in role.policies.values()
                for reach in REACHES
            ):
                return True
        return False

    def do_describe_instance_information(self, call):
        given, ec2 = call.parameters, self.aws.services["ec2"]
        online = self.managed(call.region)
        for instance in ec2.instances(call.region):
            ec2.read(instance.id)
        wanted = {"InstanceIds": None, "PingStatus": None, "PlatformTypes": None}
        for each in given.get("Filters", []):
            wanted[each["Key"]] = each["Values"]
        for each in given.get("InstanceInformationFilterList", []):
            wanted[each["key"]] = each["valueSet"]
        shown = [
            {
                "InstanceId": instance.id,
                "PingStatus": "Online",
                "LastPingDateTime": now(),
                "AgentVersion": "3.3.2299.0",
                "IsLatestVersion": True,
                "PlatformType": "Linux",
                "PlatformName": "Amazon Linux",
                "PlatformVersion": "2",
                "ResourceType": "EC2Instance",
                "IPAddress": instance.private_ip,
                "ComputerName": instance.private_dns_name,
            }
            for instance in online
            if not wanted["InstanceIds"] or instance.id in wanted["InstanceIds"]
        ]
        if wanted["PingStatus"] and "Online" not in wanted["PingStatus"]:
            shown = []
        page, token = self.page(
            shown,
            given.get("MaxResults"),
            given.get("NextToken"),
            default=50,
            code="InvalidNextToken",
        )
        return {"InstanceInformationList": page, "NextToken": token}

    def do_get_parameter(self, call):
        name = call.parameters["Name"]
        if not name.startswith(IMAGES):
            return self.forward(call)
        image = latest_image(call.region, name.removeprefix(IMAGES))
        if not image:
            raise refuse("ParameterNotFound", "")
        return {
            "Parameter": {
                "Name": name,
                "Type": "String",
                "Value": image,
                "Version": 1,
                "DataType": "text",
                "LastModifiedDate": now(),
                "ARN": f"arn:aws:ssm:{call.region}::parameter{name}",
            }
        }

    def do_send_command(self, call):
        given = call.parameters
        if given.get("DocumentName") not in (
            "AWS-RunShellScript",
            "arn:aws:ssm:::document/AWS-RunShellScript",
        ):
            raise refuse(
                "InvalidDocument", f"The document {given.get('DocumentName')} does not exist."
            )
        parameters = given.get("Parameters", {})
        unknown = set(parameters) - {"commands", "workingDirectory", "executionTimeout"}
        if unknown or not parameters.get("commands"):
            raise refuse(
                "InvalidParameters",
                f"The parameters are not those of AWS-RunShellScript: {sorted(parameters)}",
            )
        reachable = {instance.id for instance in self.managed(call.region)}
        wanted = given.get("InstanceIds") or []
        if not wanted or set(wanted) - reachable:
            raise refuse(
                "InvalidInstanceId",
                (
                    f"Instances [[{', '.join(sorted(set(wanted) - reachable))}]] not in a "
                    f"valid state for account {ACCOUNT}"
                ),
            )
        command_id = str(uuid.uuid4())
        for instance_id in wanted:
            code, out, err = self.aws.run_command(list(parameters["commands"]))
            lifecycle = Lifecycle("InProgress")
            self.move(lifecycle, "InProgress", "Failed" if code else "Success")
            self.commands[command_id, instance_id] = Command(
                command_id, instance_id, dict(given), lifecycle, code, out, err
            )
        return {
            "Command": {
                "CommandId": command_id,
                "DocumentName": "AWS-RunShellScript",
                "DocumentVersion": "$DEFAULT",
                "Comment": given.get("Comment", ""),
                "Parameters": parameters,
                "InstanceIds": wanted,
                "Targets": [],
                "RequestedDateTime": now(),
                "Status": "Pending",
                "StatusDetails": "Pending",
                "TargetCount": len(wanted),
                "CompletedCount": 0,
                "ErrorCount": 0,
                "DeliveryTimedOutCount": 0,
                "TimeoutSeconds": given.get("TimeoutSeconds", 3600),
            }
        }

    def do_get_command_invocation(self, call):
        given = call.parameters
        command = self.commands.get((given["CommandId"], given["InstanceId"]))
        if not command:
            raise refuse("InvocationDoesNotExist", "")
        state = command.lifecycle.read()
        done = state != "InProgress"
        return {
            "CommandId": command.id,
            "InstanceId": command.instance_id,
            "Comment": command.given.get("Comment", ""),
            "DocumentName": "AWS-RunShellScript",
            "DocumentVersion": "$DEFAULT",
            "PluginName": "aws:runShellScript",
            "ResponseCode": command.code if done else -1,
            "ExecutionStartDateTime": command.requested.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "Status": state,
            "StatusDetails": state,
            "StandardOutputContent": command.out[:24000] if done else "",
            "StandardErrorContent": command.err[:8000] if done else "",
        }

    def do_list_command_invocations(self, call):
        given = call.parameters
        found = [
            command
            for (command_id, instance_id), command in self.commands.items()
            if given.get("CommandId") in (None, command_id)
            and given.get("InstanceId") in (None, instance_id)
        ]
        return {
            "CommandInvocations": [
                {
                    "CommandId": command.id,
                    "InstanceId": command.instance_id,
                    "DocumentName": "AWS-RunShellScript",
                    "RequestedDateTime": command.requested,
                    "Status": state,
                    "StatusDetails": state,
                }
                for command in found
                for state in [command.lifecycle.read()]
            ]
        }
