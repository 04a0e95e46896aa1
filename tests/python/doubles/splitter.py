"""One endpoint in front of two doubles of AWS: ministack answers some services, this double the
others.

The signature of a request names its service. Every request is still validated by the models of AWS
and recorded as a call, so that tests of the one double run on both.
"""

import http.client
import re
import types

import boto3
from werkzeug.wrappers import Request

from doubles.aws import AwsDouble
from doubles.aws.invoke import INVOKE, Answer, Invocation
from doubles.aws.wire import Reply

# Hop-by-hop headers.
HOP = ("connection", "content-length", "keep-alive", "transfer-encoding", "date", "server")
READS = ("Describe", "Get", "List", "Head")
# Commands run on an EC2 instance, and instances are in this double.
HERE = {
    "ssm.SendCommand",
    "ssm.GetCommandInvocation",
    "ssm.ListCommandInvocations",
    "ssm.DescribeInstanceInformation",
}
# How to list each kind of resource: service, operation, member and name.
LISTS = {
    "buckets": ("s3", "list_buckets", "Buckets", "Name"),
    "roles": ("iam", "list_roles", "Roles", "RoleName"),
    "instance profiles": (
        "iam",
        "list_instance_profiles",
        "InstanceProfiles",
        "InstanceProfileName",
    ),
    "streams": ("kinesis", "list_streams", "StreamNames", None),
    "parameters": ("ssm", "describe_parameters", "Parameters", "Name"),
    "groups": ("ec2", "describe_security_groups", "SecurityGroups", "GroupName"),
    "endpoints": ("ec2", "describe_vpc_endpoints", "VpcEndpoints", "ServiceName"),
    "apis": ("apigateway", "get_rest_apis", "items", "name"),
    "keys": ("apigateway", "get_api_keys", "items", "name"),
    "plans": ("apigateway", "get_usage_plans", "items", "name"),
}
# Stands for a healthy proxy where no gateway runs.
NOWHERE = "/proxy-of-the-client"
PROXY = re.compile(rb"http://([\d.]+):8082/")


class Objects:
    """The objects of a bucket at ministack, as the double of MSK Connect reads them."""

    def __init__(self, s3, bucket):
        self.s3, self.bucket = s3, bucket

    def get(self, key):
        try:
            found = self.s3.get_object(Bucket=self.bucket, Key=key)
        except self.s3.exceptions.ClientError:
            return None
        return types.SimpleNamespace(size=found["ContentLength"], value=found["Body"].read())


class Buckets:
    """The buckets at ministack."""

    def __init__(self, s3):
        self.s3 = s3

    def get(self, name):
        names = [bucket["Name"] for bucket in self.s3.list_buckets()["Buckets"]]
        return types.SimpleNamespace(keys=Objects(self.s3, name)) if name in names else None

    def values(self):
        return ()


class Split(AwsDouble):
    """The double, with some of its services played by ministack."""

    def __init__(self, ministack, services, settle_reads=0):
        self.ministack, self.elsewhere = ministack, frozenset(services)
        super().__init__(settle_reads=settle_reads)
        store = self.bridge.store
        self.views = {}
        if "s3" in self.elsewhere:
            self.views["s3"] = types.SimpleNamespace(buckets=Buckets(self.client("s3")))
        self.bridge.store = lambda service, region="us-east-1": (
            self.views.get(service) or store(service, region)
        )

    def client(self, service):
        """Returns a client of ministack itself."""
        return boto3.client(
            service,
            "us-east-1",
            endpoint_url=self.ministack.url,
            aws_access_key_id="other",
            aws_secret_access_key="other",
        )

    def defaults(self):
        super().defaults()
        # Where the API leads instead of to the client machine, which does not exist; and where
        # pinpipe thinks it leads.
        self.gateway = self.proxy = None

    def reset(self):
        super().reset()
        self.ministack.reset()

    def snapshot(self):
        """Returns the snapshot of this double, and the names of the resources at ministack."""
        return {
            **super().snapshot(),
            **{f"{kind} at ministack": names for kind, names in self.names_elsewhere().items()},
        }

    def names_elsewhere(self):
        """Returns the names of the resources that ministack lists."""
        found = {}
        for kind, (service, verb, member, name) in LISTS.items():
            if service in self.elsewhere:
                listed = getattr(self.client(service), verb)()[member]
                found[kind] = sorted(each[name] if name else each for each in listed)
        return found

    def is_elsewhere(self, call):
        return call.service in self.elsewhere and call.name not in HERE

    def send(self, method, path, headers, body):
        """Forwards a request to ministack, returns its unchanged response."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ministack.port, timeout=60)
        try:
            kept = {name: value for name, value in headers if name.lower() not in HOP}
            connection.request(method, path, body, {**kept, "Content-Length": str(len(body))})
            answer = connection.getresponse()
            found = {
                name.lower(): value
                for name, value in answer.getheaders()
                if name.lower() not in HOP or method == "HEAD" and name.lower() == "content-length"
            }
            return answer.status, found, answer.read()
        finally:
            connection.close()

    def decide(self, call, problems):
        # Sequence numbers of ministack begin with zeros, unlike those of AWS.
        return super().decide(
            call,
            [
                text
                for text in problems
                if not (self.is_elsewhere(call) and text.startswith("StartingSequenceNumber: "))
            ],
        )

    def perform(self, call):
        if not self.is_elsewhere(call):
            return super().perform(call)
        self.access.check(call)
        body = self.rewritten(call.body) if call.service == "apigateway" else call.body
        status, headers, body = self.send(
            call.method, call.request.environ["RAW_URI"], call.request.headers, body
        )
        reply = Reply(
            call, status, headers, self.restored(body) if call.service == "apigateway" else body
        )
        if status >= 400:
            call.error = reply.output.get("Error", {}).get("Code") or str(status)
        else:
            self.complete(call)
        return reply

    def complete(self, call):
        """Repeats the effect of a call where the other double needs it."""
        if call.service == "iam" and not call.operation.startswith(READS):
            # Instances, connectors and the API of this double refer to roles by their names.
            here = super().perform(call)
            if here.status >= 400:
                self.problems.append(
                    f"{call.name}: ministack took it, the double here says {here.status} "
                    f"{call.error}: {here.body[:300]}"
                )
        if call.name == "kinesis.CreateStream" and call.parameters.get("Tags"):
            # Ministack ignores the tags of a new stream.
            self.client("kinesis").add_tags_to_stream(
                StreamName=call.parameters["StreamName"], Tags=call.parameters["Tags"]
            )

    # The definition of the API: integrations of the client machine lead to a gateway on loopback.

    @property
    def forwarded(self):
        return f"http://{self.gateway or f'127.0.0.1:{self.server.port}{NOWHERE}'}/".encode()

    def rewritten(self, body):
        """Returns a definition with the address that ministack gets."""
        found = PROXY.search(body)
        if not found:
            return body
        self.proxy = found[0]
        return body.replace(found[0], self.forwarded)

    def restored(self, body):
        """Returns a definition with the address that pinpipe wrote."""
        return body.replace(self.forwarded, self.proxy) if self.proxy else body

    def answer(self, environ):
        request = Request(environ)
        if request.path.startswith(f"{NOWHERE}/"):
            return Answer(200, {"content-type": "application/json"}, b"{}")
        found = INVOKE.fullmatch(request.path)
        if not found or "apigateway" not in self.elsewhere:
            return super().answer(environ)
        status, headers, body = self.send(
            request.method, environ["RAW_URI"], request.headers, request.get_data()
        )
        self.invocations.append(
            Invocation(found[1], found[2], request.method, found[3] or "/", status)
        )
        return Answer(status, headers, body)
