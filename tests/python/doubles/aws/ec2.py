"""EC2: network and instances of moto, with the states, errors and idempotency of
the real service.
"""

import base64
import binascii
import json
import secrets

from .ec2_groups import Groups
from .ec2_images import describe_images, images_of
from .lifecycle import Lifecycle
from .service import Service, refuse

CODES = {
    "pending": 0,
    "running": 16,
    "shutting-down": 32,
    "terminated": 48,
    "stopping": 64,
    "stopped": 80,
}


class Ec2(Groups, Service):
    """EC2."""

    name = "ec2"

    def reset(self):
        self.lifecycles = {}
        self.tokens = {}

    # Images.

    def do_describe_images(self, call):
        return describe_images(call.region, call.parameters)

    # Instances.

    def set_state(self, instance, state):
        instance._state.name, instance._state.code = state, CODES[state]

    def shift(self, instance, passing, settled, effect=None):
        """Puts an instance into a transitional state, in moto's own object too."""
        lifecycle = self.lifecycles.setdefault(instance.id, Lifecycle(passing))

        def finish():
            if effect:
                effect()
            self.set_state(instance, settled)

        self.set_state(instance, passing)
        self.move(lifecycle, passing, settled, finish)

    def instances(self, region):
        return self.store(region).all_instances()

    def state_of(self, instance):
        return instance._state.name

    def read(self, instance_id):
        """Counts a read of an instance."""
        if instance_id in self.lifecycles:
            self.lifecycles[instance_id].read()

    def do_run_instances(self, call):
        given = {
            name: value
            for name, value in call.parameters.items()
            if name not in ("ClientToken", "DryRun")
        }
        token = (call.region, call.parameters.get("ClientToken"))
        body = json.dumps(given, sort_keys=True, default=str)
        if token[1] and token in self.tokens:
            return self.repeat(call, token, body)
        self.check_launch(call, given)
        reply = self.forward(call)
        answer = {name: value for name, value in reply.output.items() if name != "ResponseMetadata"}
        store = self.store(call.region)
        for shown in answer["Instances"]:
            instance = store.get_instance(shown["InstanceId"])
            instance.user_data_text = given.get("UserData", "")
            # Moto does not return the groups of an interface.
            instance.security_groups = instance.security_groups or list(instance.nics[0].group_set)
            self.shift(instance, "pending", "running")
            shown["State"] = {"Name": "pending", "Code": 0}
            if token[1]:
                shown["ClientToken"] = token[1]
        if token[1]:
            self.tokens[token] = (body, answer)
        return answer

    def repeat(self, call, token, body):
        """Answers a second request with a token: the same instances, if it is the same request."""
        first, answer = self.tokens[token]
        if first != body:
            raise refuse(
                "IdempotentParameterMismatch",
                (
                    "Arguments on this idempotent request are inconsistent with arguments "
                    f"used in previous request(s) with ClientToken {token[1]}."
                ),
            )
        for shown in answer["Instances"]:
            state = self.state_of(self.store(call.region).get_instance(shown["InstanceId"]))
            shown["State"] = {"Name": state, "Code": CODES[state]}
        return answer

    def check_launch(self, call, given):
        """Raises the errors of EC2 about a launch that moto lacks."""
        if given.get("ImageId") not in {image["ImageId"] for image in images_of(call.region)}:
            raise refuse(
                "InvalidAMIID.NotFound", f"The image id '[{given.get('ImageId')}]' does not exist"
            )
        if "KeyName" in given and given["KeyName"] not in self.store(call.region).key_pairs:
            raise refuse(
                "InvalidKeyPair.NotFound", f"The key pair '{given['KeyName']}' does not exist"
            )
        try:
            text = base64.b64decode(given.get("UserData", ""), validate=True)
        except (binascii.Error, ValueError):
            raise refuse("InvalidParameterValue", "Invalid BASE64 encoding of user data.") from None
        if len(text) > 16384:
            raise refuse("InvalidParameterValue", "User data is limited to 16384 bytes")
        if given.get("NetworkInterfaces") and (
            given.get("SubnetId") or given.get("SecurityGroupIds")
        ):
            raise refuse(
                "InvalidParameterCombination",
                (
                    "Network interfaces and an instance-level subnet ID or security groups "
                    "may not be specified on the same request"
                ),
            )
        self.check_profile(call, given.get("IamInstanceProfile"))

    def check_profile(self, call, wanted):
        """Rejects an instance profile that does not exist, or that EC2 does not see yet."""
        if not wanted:
            return
        name = wanted.get("Name") or wanted.get("Arn", "").rpartition("/")[2]
        member = "name" if "Name" in wanted else "arn"
        iam = self.aws.services["iam"]
        known = name in self.aws.bridge.store("iam").instance_profiles
        if (
            not known
            or call.number - iam.profile_made.get(name, -(10**9)) <= self.aws.profile_delay_calls
        ):
            raise refuse(
                "InvalidParameterValue",
                (
                    f"Value ({wanted.get('Name') or wanted.get('Arn')}) for parameter "
                    f"iamInstanceProfile.{member} is invalid. Invalid IAM Instance Profile "
                    f"{'name' if member == 'name' else 'ARN'}"
                ),
            )

    def do_describe_instances(self, call):
        reply = self.forward(call)
        # Time also passes for an instance that a filter hides: the filter may wait for its next
        # state.
        for instance_id in call.parameters.get("InstanceIds") or [
            each.id for each in self.instances(call.region)
        ]:
            self.read(instance_id)
        return reply

    do_describe_instance_status = do_describe_instances

    def do_describe_instance_attribute(self, call):
        given = call.parameters
        instance = self.instance_of(call, given["InstanceId"])
        if given["Attribute"] == "userData":
            text = getattr(instance, "user_data_text", "")
            return {"InstanceId": instance.id, "UserData": {"Value": text} if text else {}}
        return self.forward(call)

    def instance_of(self, call, instance_id):
        instance = next(
            (each for each in self.instances(call.region) if each.id == instance_id), None
        )
        if not instance:
            raise refuse(
                "InvalidInstanceID.NotFound", f"The instance ID '{instance_id}' does not exist"
            )
        return instance

    def change(self, call, allowed, verb, answer, act):
        """Changes the state of instances; all of them must allow it."""
        instances = [
            self.instance_of(call, instance_id) for instance_id in call.parameters["InstanceIds"]
        ]
        for instance in instances:
            if self.state_of(instance) not in allowed:
                raise refuse(
                    "IncorrectInstanceState",
                    f"The instance '{instance.id}' is not in a state from which it can be {verb}.",
                )
        shown = []
        for instance in instances:
            before = self.state_of(instance)
            act(instance)
            after = self.lifecycles[instance.id].state if instance.id in self.lifecycles else before
            shown.append(
                {
                    "InstanceId": instance.id,
                    "PreviousState": {"Name": before, "Code": CODES[before]},
                    "CurrentState": {"Name": after, "Code": CODES[after]},
                }
            )
        return {answer: shown}

    def do_start_instances(self, call):
        def act(instance):
            if self.state_of(instance) == "stopped":
                instance.start()
                self.shift(instance, "pending", "running")

        return self.change(
            call, ("stopped", "running", "pending"), "started", "StartingInstances", act
        )

    def do_stop_instances(self, call):
        def act(instance):
            if self.state_of(instance) == "running":
                self.shift(instance, "stopping", "stopped", instance.stop)

        return self.change(
            call, ("stopped", "running", "stopping"), "stopped", "StoppingInstances", act
        )

    def do_terminate_instances(self, call):
        store = self.store(call.region)

        def act(instance):
            if self.state_of(instance) in ("shutting-down", "terminated"):
                return

            def end():
                for address in store.addresses:
                    if address.instance is instance:
                        store.disassociate_address(address=address.public_ip)
                instance.terminate()

            self.shift(instance, "shutting-down", "terminated", end)

        return self.change(call, tuple(CODES), "terminated", "TerminatingInstances", act)

    # Endpoints.

    def do_delete_vpc_endpoints(self, call):
        store, failed = self.store(call.region), []
        for endpoint_id in call.parameters["VpcEndpointIds"]:
            endpoint = store.vpc_end_points.get(endpoint_id)
            if endpoint and endpoint.state != "deleted":
                store.delete_vpc_endpoints([endpoint_id])
            else:
                text = f"The Vpc Endpoint Id '{endpoint_id}' does not exist"
                failed.append(
                    {
                        "ResourceId": endpoint_id,
                        "Error": {"Code": "InvalidVpcEndpoint.NotFound", "Message": text},
                    }
                )
        return {"Unsuccessful": failed}

    # Addresses.

    def do_allocate_address(self, call):
        reply = self.forward(call)
        store = self.store(call.region)
        address = next(
            each for each in store.addresses if each.allocation_id == reply.output["AllocationId"]
        )
        # Moto generates any four numbers, and some of those are no public address.
        address.public_ip = (
            f"52.{secrets.randbelow(90) + 10}.{secrets.randbelow(256)}.{secrets.randbelow(254) + 1}"
        )
        return {
            "AllocationId": address.allocation_id,
            "PublicIp": address.public_ip,
            "Domain": "vpc",
            "PublicIpv4Pool": "amazon",
            "NetworkBorderGroup": call.region,
        }

    def do_describe_addresses(self, call):
        shown = self.forward(call).output.get("Addresses", [])
        return {
            "Addresses": [
                {name: value for name, value in address.items() if value not in ("", None)}
                for address in shown
            ]
        }

    def do_associate_address(self, call):
        given = call.parameters
        if "InstanceId" in given:
            state = self.state_of(self.instance_of(call, given["InstanceId"]))
            if state not in ("running", "stopped", "stopping"):
                raise refuse(
                    "InvalidInstanceID",
                    (
                        f"The {state} instance '{given['InstanceId']}' is not in a valid state "
                        "for this operation."
                    ),
                )
        self.address_of(call)
        return self.forward(call)

    def address_of(self, call):
        given = call.parameters.get("AllocationId")
        if not given:
            return None
        for address in self.store(call.region).addresses:
            if address.allocation_id == given:
                return address
        raise refuse("InvalidAllocationID.NotFound", f"The allocation ID '{given}' does not exist")

    def do_release_address(self, call):
        address = self.address_of(call)
        if address and address.association_id:
            raise refuse("InvalidIPAddress.InUse", f"Address {address.public_ip} is in use.")
        return self.forward(call)
