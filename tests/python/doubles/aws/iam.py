"""IAM: moto's, which also records when each role and instance profile was created."""

from datetime import datetime

from moto.iam.models import AWSManagedPolicy

from .service import Service, plain_tags, refuse

# Moto's own list of these takes seconds to load.
MANAGED = {
    "AmazonSSMManagedInstanceCore",
    "AmazonMSKReadOnlyAccess",
    "AmazonMSKFullAccess",
    "AmazonS3ReadOnlyAccess",
    "AmazonS3FullAccess",
    "AmazonKinesisFullAccess",
    "AmazonKinesisReadOnlyAccess",
    "CloudWatchLogsFullAccess",
    "service-role/AmazonAPIGatewayPushToCloudWatchLogs",
}
DOCUMENT = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}


class Iam(Service):
    """IAM."""

    name = "iam"

    def reset(self):
        self.profile_made = {}
        self.role_made = {}

    def do_create_role(self, call):
        reply = self.forward(call)
        self.role_made[reply.output["Role"]["Arn"]] = call.number
        return reply

    def role(self, call, arn):
        """Returns the role of an ARN, once other services see it."""
        if call.number - self.role_made.get(arn, -(10**9)) <= self.aws.role_delay_calls:
            return None
        return next(
            (role for role in self.store(call.region).roles.values() if role.arn == arn), None
        )

    def do_create_instance_profile(self, call):
        reply = self.forward(call)
        self.profile_made[call.parameters["InstanceProfileName"]] = call.number
        return reply

    def do_add_role_to_instance_profile(self, call):
        reply = self.forward(call)
        self.profile_made[call.parameters["InstanceProfileName"]] = call.number
        return reply

    def do_remove_role_from_instance_profile(self, call):
        profile, role = (call.parameters[name] for name in ("InstanceProfileName", "RoleName"))
        found = self.store(call.region).instance_profiles.get(profile)
        if found and all(each.name != role for each in found.roles):
            raise refuse(
                "NoSuchEntity", f"Role {role} in Instance Profile {profile} cannot be found."
            )
        return self.forward(call)

    def do_list_instance_profile_tags(self, call):
        profile = self.store(call.region).instance_profiles.get(
            call.parameters["InstanceProfileName"]
        )
        if not profile:
            raise refuse(
                "NoSuchEntity",
                f"Instance Profile {call.parameters['InstanceProfileName']} cannot be found.",
            )
        return {"Tags": plain_tags(profile), "IsTruncated": False}

    def do_attach_role_policy(self, call):
        arn, store = call.parameters["PolicyArn"], self.store(call.region)
        prefix = "arn:aws:iam::aws:policy/"
        if arn.startswith(prefix) and arn not in store.managed_policies:
            if arn.removeprefix(prefix) not in MANAGED:
                raise refuse("NoSuchEntity", f"Policy {arn} does not exist or is not attachable.")
            path, _, name = arn.removeprefix(prefix).rpartition("/")
            date = datetime(2020, 1, 1).isoformat()
            data = {
                "DefaultVersionId": "v1",
                "Path": f"/{path}/" if path else "/",
                "Document": DOCUMENT,
                "CreateDate": date,
                "UpdateDate": date,
            }
            store.managed_policies[arn] = AWSManagedPolicy.from_data(
                name, store.account_id, store.region_name, data
            )
        return self.forward(call)
