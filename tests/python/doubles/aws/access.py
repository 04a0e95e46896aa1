"""The IAM action that an operation requires, and the error of a caller without it."""

import fnmatch
import re

from .errors import Fault

PREFIX = {"mwaa": "airflow"}
ACTION_OF_OPERATION = {
    "s3.HeadBucket": "ListBucket",
    "s3.ListObjectsV2": "ListBucket",
    "s3.ListObjects": "ListBucket",
    "s3.HeadObject": "GetObject",
    "s3.CreateMultipartUpload": "PutObject",
    "s3.UploadPart": "PutObject",
    "s3.CompleteMultipartUpload": "PutObject",
    "s3.ListMultipartUploads": "ListBucketMultipartUploads",
    "s3.ListParts": "ListMultipartUploadParts",
    "s3.DeleteObjects": "DeleteObject",
    "s3.ListBuckets": "ListAllMyBuckets",
    "s3.PutBucketEncryption": "PutEncryptionConfiguration",
    "s3.GetBucketEncryption": "GetEncryptionConfiguration",
    "s3.PutPublicAccessBlock": "PutBucketPublicAccessBlock",
    "s3.GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "s3.PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
    "s3.GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
}
NAMES = (
    "ClusterArn",
    "connectorArn",
    "customPluginArn",
    "workerConfigurationArn",
    "resourceArn",
    "ResourceArn",
    "StreamARN",
)


def action_of(call):
    """Returns the action that IAM decides on."""
    if call.service == "apigateway":
        return f"apigateway:{call.method}"
    return f"{PREFIX.get(call.service, call.service)}:{ACTION_OF_OPERATION.get(call.name, call.operation)}"  # noqa: E501


def resource_of(call, account):
    """Returns the resource as the error names it."""
    given = call.parameters
    for name in NAMES:
        if given.get(name):
            return given[name]
    if call.service == "s3":
        return (
            f"arn:aws:s3:::{given['Bucket']}" + (f"/{given['Key']}" if "Key" in given else "")
            if "Bucket" in given
            else "*"
        )
    if call.service == "iam":
        for member, kind in (
            ("RoleName", "role"),
            ("InstanceProfileName", "instance-profile"),
            ("PolicyArn", "policy"),
        ):
            if member in given:
                return f"arn:aws:iam::{account}:{kind}/{given[member]}"
    if call.service == "apigateway":
        return f"arn:aws:apigateway:{call.region}::{call.path}"
    if call.service == "kinesis" and "StreamName" in given:
        return f"arn:aws:kinesis:{call.region}:{account}:stream/{given['StreamName']}"
    kinds = {"kafka": "/*", "kafkaconnect": "/*", "mwaa": f"environment/{given.get('Name', '*')}"}
    name = PREFIX.get(call.service, call.service)
    return f"arn:aws:{name}:{call.region}:{account}:{kinds.get(call.service, '*')}"


class Access:
    """The actions that are denied to the caller."""

    def __init__(self, account):
        self.account = account
        self.denied = []

    def check(self, call):
        """Raises the service's error if the call is denied."""
        action, resource = action_of(call), resource_of(call, self.account)
        if any(
            fnmatch.fnmatchcase(action.lower(), wanted.lower())
            and fnmatch.fnmatchcase(resource, on)
            for wanted, on in self.denied
        ):
            raise self.error(call, action, resource)

    def error(self, call, action, resource):
        user = f"arn:aws:iam::{self.account}:user/pinpipe"
        text = (
            f"User: {user} is not authorized to perform: {action} on resource: "
            f"{resource} because no identity-based policy allows the {action} action"
        )
        if call.service == "ec2":
            return Fault(
                403,
                "UnauthorizedOperation",
                f"You are not authorized to perform this operation. {text}",
            )
        if call.service == "s3":
            return Fault(
                403, "AccessDenied", re.sub(r"on resource: (\S+)", r'on resource: "\1"', text)
            )
        if call.protocol == "query":
            return Fault(403, "AccessDenied", text)
        return Fault(400 if call.protocol == "json" else 403, "AccessDeniedException", text)
