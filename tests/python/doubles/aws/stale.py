"""Stale reads, as of an eventually consistent service."""

import dataclasses
from collections.abc import Callable

from .errors import Fault, refuse
from .wire import serialize


def at(path):
    """Returns a nested value of a response, `A.B.C`; lists on the path are flattened."""

    def find(value, steps):
        if value is None:
            return []
        if not steps:
            return value if isinstance(value, list) else [value]
        if isinstance(value, list):
            return [found for item in value for found in find(item, steps)]
        return find(value.get(steps[0]), steps[1:])

    return lambda value: find(value, path.split("."))


@dataclasses.dataclass
class Read:
    """How an operation reads resources: requested ids, and list and member in the response."""

    kind: str
    asked: Callable
    listed: str | None
    member: str | None
    missing: Callable


def gone(code, text):
    return lambda name: refuse(code, text.format(name))


def no_ids(parameters):
    return []


GROUP = gone("InvalidGroup.NotFound", "The security group '{}' does not exist")
INSTANCE = gone("InvalidInstanceID.NotFound", "The instance ID '{}' does not exist")
ADDRESS = gone("InvalidAllocationID.NotFound", "The allocation ID '{}' does not exist")
PAIR = gone("InvalidKeyPair.NotFound", "The key pair '{}' does not exist")
ENDPOINT = gone("InvalidVpcEndpointId.NotFound", "The Vpc Endpoint Id '{}' does not exist")
PARAMETER = gone("ParameterNotFound", "")
ROLE = gone("NoSuchEntity", "The role with name {} cannot be found.")
PROFILE = gone("NoSuchEntity", "Instance Profile {} cannot be found.")
API = gone("NotFoundException", "Invalid API identifier specified 123456789012:{}")
KEY = gone("NotFoundException", "Invalid API Key identifier specified")
PLAN = gone("NotFoundException", "Invalid Usage Plan ID specified")
KAFKA = gone("NotFoundException", "The requested resource {} doesn't exist.")
BROKERS = gone("BadRequestException", "The requested resource {} doesn't exist.")
STREAM = gone("ResourceNotFoundException", "Stream {} under account 123456789012 not found.")
BUCKET = gone("NoSuchBucket", "The specified bucket does not exist")
ENVIRONMENT = gone("ResourceNotFoundException", "Environment {} not found")

CREATES = {
    "ec2.CreateSecurityGroup": ("group", None, at("GroupId")),
    "ec2.RunInstances": ("instance", None, at("Instances.InstanceId")),
    "ec2.AllocateAddress": ("address", None, at("AllocationId")),
    "ec2.ImportKeyPair": ("pair", at("KeyName"), None),
    "ec2.CreateVpcEndpoint": ("endpoint", None, at("VpcEndpoint.VpcEndpointId")),
    "ssm.PutParameter": ("parameter", at("Name"), None),
    "iam.CreateRole": ("role", at("RoleName"), None),
    "iam.CreateInstanceProfile": ("profile", at("InstanceProfileName"), None),
    "apigateway.CreateRestApi": ("api", None, at("id")),
    "apigateway.CreateApiKey": ("key", None, at("id")),
    "apigateway.CreateUsagePlan": ("plan", None, at("id")),
    "kafka.CreateClusterV2": ("cluster", None, at("ClusterArn")),
    "kafkaconnect.CreateConnector": ("connector", None, at("connectorArn")),
    "kafkaconnect.CreateCustomPlugin": ("plugin", None, at("customPluginArn")),
    "kafkaconnect.CreateWorkerConfiguration": ("worker", None, at("workerConfigurationArn")),
    "kinesis.CreateStream": ("stream", at("StreamName"), None),
    "s3.CreateBucket": ("bucket", at("Bucket"), None),
    "mwaa.CreateEnvironment": ("environment", at("Name"), None),
}
READS = {
    "ec2.DescribeSecurityGroups": Read("group", at("GroupIds"), "SecurityGroups", "GroupId", GROUP),
    "ec2.DescribeSecurityGroupRules": Read("group", no_ids, "SecurityGroupRules", "GroupId", GROUP),
    "ec2.DescribeInstances": Read(
        "instance", at("InstanceIds"), "Reservations.Instances", "InstanceId", INSTANCE
    ),
    "ec2.DescribeInstanceStatus": Read(
        "instance", at("InstanceIds"), "InstanceStatuses", "InstanceId", INSTANCE
    ),
    "ec2.DescribeInstanceAttribute": Read("instance", at("InstanceId"), None, None, INSTANCE),
    "ec2.DescribeAddresses": Read(
        "address", at("AllocationIds"), "Addresses", "AllocationId", ADDRESS
    ),
    "ec2.DescribeKeyPairs": Read("pair", at("KeyNames"), "KeyPairs", "KeyName", PAIR),
    "ec2.DescribeVpcEndpoints": Read(
        "endpoint", at("VpcEndpointIds"), "VpcEndpoints", "VpcEndpointId", ENDPOINT
    ),
    "ssm.DescribeParameters": Read("parameter", no_ids, "Parameters", "Name", PARAMETER),
    "iam.GetRole": Read("role", at("RoleName"), None, None, ROLE),
    "iam.ListRoles": Read("role", no_ids, "Roles", "RoleName", ROLE),
    "iam.GetRolePolicy": Read("role", at("RoleName"), None, None, ROLE),
    "iam.ListRolePolicies": Read("role", at("RoleName"), None, None, ROLE),
    "iam.ListRoleTags": Read("role", at("RoleName"), None, None, ROLE),
    "iam.GetInstanceProfile": Read("profile", at("InstanceProfileName"), None, None, PROFILE),
    "iam.ListInstanceProfiles": Read(
        "profile", no_ids, "InstanceProfiles", "InstanceProfileName", PROFILE
    ),
    "apigateway.GetRestApi": Read("api", at("restApiId"), None, None, API),
    "apigateway.GetRestApis": Read("api", no_ids, "items", "id", API),
    "apigateway.GetResources": Read("api", at("restApiId"), None, None, API),
    "apigateway.GetApiKey": Read("key", at("apiKey"), None, None, KEY),
    "apigateway.GetApiKeys": Read("key", no_ids, "items", "id", KEY),
    "apigateway.GetUsagePlan": Read("plan", at("usagePlanId"), None, None, PLAN),
    "apigateway.GetUsagePlans": Read("plan", no_ids, "items", "id", PLAN),
    "kafka.DescribeClusterV2": Read("cluster", at("ClusterArn"), None, None, KAFKA),
    "kafka.ListClustersV2": Read("cluster", no_ids, "ClusterInfoList", "ClusterArn", KAFKA),
    "kafka.GetBootstrapBrokers": Read("cluster", at("ClusterArn"), None, None, BROKERS),
    "kafkaconnect.DescribeConnector": Read("connector", at("connectorArn"), None, None, KAFKA),
    "kafkaconnect.ListConnectors": Read("connector", no_ids, "connectors", "connectorArn", KAFKA),
    "kafkaconnect.DescribeCustomPlugin": Read("plugin", at("customPluginArn"), None, None, KAFKA),
    "kafkaconnect.ListCustomPlugins": Read(
        "plugin", no_ids, "customPlugins", "customPluginArn", KAFKA
    ),
    "kafkaconnect.DescribeWorkerConfiguration": Read(
        "worker", at("workerConfigurationArn"), None, None, KAFKA
    ),
    "kafkaconnect.ListWorkerConfigurations": Read(
        "worker", no_ids, "workerConfigurations", "workerConfigurationArn", KAFKA
    ),
    "kinesis.DescribeStreamSummary": Read("stream", at("StreamName"), None, None, STREAM),
    "kinesis.DescribeStream": Read("stream", at("StreamName"), None, None, STREAM),
    "kinesis.ListTagsForStream": Read("stream", at("StreamName"), None, None, STREAM),
    "kinesis.ListStreams": Read("stream", no_ids, "StreamNames", None, STREAM),
    "s3.HeadBucket": Read("bucket", at("Bucket"), None, None, BUCKET),
    "s3.ListBuckets": Read("bucket", no_ids, "Buckets", "Name", BUCKET),
    "s3.GetBucketTagging": Read("bucket", at("Bucket"), None, None, BUCKET),
    "s3.GetBucketLocation": Read("bucket", at("Bucket"), None, None, BUCKET),
    "s3.ListObjectsV2": Read("bucket", at("Bucket"), None, None, BUCKET),
    "mwaa.GetEnvironment": Read("environment", at("Name"), None, None, ENVIRONMENT),
    "mwaa.ListEnvironments": Read("environment", no_ids, "Environments", None, ENVIRONMENT),
}


class Stale:
    """The number of reads that still do not see each new resource."""

    def __init__(self):
        self.reads = 0
        self.hidden = {}

    def clear(self):
        self.reads = 0
        self.hidden.clear()

    def created(self, call, reply):
        """Records what a call has created."""
        if self.reads <= 0 or call.name not in CREATES or reply.status >= 300:
            return
        kind, in_parameters, in_answer = CREATES[call.name]
        for name in in_parameters(call.parameters) if in_parameters else in_answer(reply.output):
            self.hidden[kind, name] = self.reads

    def use(self, kind, name):
        """Whether a resource is still hidden; counts the read."""
        left = self.hidden.get((kind, name), 0)
        if left == 1:
            del self.hidden[kind, name]
        elif left:
            self.hidden[kind, name] = left - 1
        return left > 0

    def before(self, call):
        """Answers a read of one hidden resource."""
        read = READS.get(call.name) if self.hidden else None
        for name in read.asked(call.parameters) if read else ():
            if self.use(read.kind, name):
                fault = read.missing(name)
                raise Fault(404, "404", "") if call.method == "HEAD" else fault

    def after(self, call, reply):
        """Removes hidden resources from a list."""
        read = READS.get(call.name) if self.hidden else None
        if not read or not read.listed or reply.status >= 300:
            return reply
        unseen = {}
        output = {name: value for name, value in reply.output.items() if name != "ResponseMetadata"}

        def hidden(item):
            name = item if read.member is None else item.get(read.member)
            if name not in unseen:
                unseen[name] = self.use(read.kind, name)
            return unseen[name]

        first, _, second = read.listed.partition(".")
        if second:
            kept = [
                {**outer, second: [item for item in outer.get(second, []) if not hidden(item)]}
                for outer in output.get(first, [])
            ]
            output[first] = [outer for outer in kept if outer[second]]
        else:
            output[first] = [item for item in output.get(first) or [] if not hidden(item)]
        return serialize(call, output) if any(unseen.values()) else reply
