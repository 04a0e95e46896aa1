"""Calls of deployed APIs, answered as by API Gateway: keys, routes of the stage,
and integrations.
"""

import base64
import dataclasses
import json
import re

from werkzeug.wrappers import Request

INVOKE = re.compile(r"/restapis/([^/]+)/([^/]+)/_user_request_(/.*)?")
PROXY = re.compile(r"http://([\d.]+):8082/")
BASIC = re.compile(r"'Basic ([A-Za-z0-9+/=]+)'")


@dataclasses.dataclass
class Invocation:
    """One request to a stage, and its response."""

    api: str
    stage: str
    method: str
    path: str
    status: int = 0
    body: dict = dataclasses.field(default_factory=dict)

    @property
    def headers(self):
        return {"content-type": "application/json"}


@dataclasses.dataclass
class Answer:
    """A response in the form of the server."""

    status: int
    headers: dict
    body: bytes


def matches(path, route):
    """Whether the path of a resource matches that of a request."""
    parts = [
        ".+" if part.endswith("+}") else "[^/]+" if part.startswith("{") else re.escape(part)
        for part in route.strip("/").split("/")
    ]
    return re.fullmatch("/".join(parts), path.strip("/")) is not None


class Invoker:
    """The deployed APIs of the double."""

    def __init__(self, aws):
        self.aws = aws

    def answer(self, environ):
        """Returns the response to a request to a stage; None for another request."""
        request = Request(environ)
        found = INVOKE.fullmatch(request.path)
        if not found:
            return None
        invocation = Invocation(found[1], found[2], request.method, found[3] or "/")
        with self.aws.lock:
            invocation.status, invocation.body = self.decide(invocation, request)
            self.aws.invocations.append(invocation)
        return Answer(invocation.status, invocation.headers, json.dumps(invocation.body).encode())

    def decide(self, invocation, request):
        api = self.aws.services["apigateway"].apis.get(invocation.api)
        stage = api.stages.get(invocation.stage) if api else None
        if not stage:
            return 403, {"message": "Forbidden"}
        method = self.method_of(api.deployments[stage["deploymentId"]][1], invocation)
        signed = request.headers.get("Authorization", "").startswith("AWS4-HMAC-SHA256")
        if not method or method["authorizationType"] == "AWS_IAM" and not signed:
            return 403, {"message": "Missing Authentication Token"}
        if method["apiKeyRequired"] and not self.is_let_in(
            request.headers.get("x-api-key"), invocation
        ):
            return 403, {"message": "Forbidden"}
        integration = method["methodIntegration"]
        return self.proxy(integration) if integration["type"] == "HTTP_PROXY" else (200, {})

    def method_of(self, tree, invocation):
        """Returns the method of the most specific route."""
        fitting = [route for route in tree if matches(invocation.path, route)]
        for route in sorted(fitting, key=lambda route: (route.count("{"), -len(route))):
            return tree[route].get(invocation.method) or tree[route].get("ANY")
        return None

    def is_let_in(self, value, invocation):
        stage = {"apiId": invocation.api, "stage": invocation.stage}
        plans = [
            plan
            for plan in self.aws.services["apigateway"].plans.values()
            if stage in plan.settings.get("apiStages", [])
        ]
        return any(
            key.value == value and key.settings["enabled"] for plan in plans for key in plan.keys
        )

    def proxy(self, integration):
        """Returns the response of the proxy on an instance, if the integration leads to a running
        one.
        """
        address = PROXY.match(integration["uri"])
        ec2 = self.aws.services["ec2"]
        for _, store in self.aws.bridge.regions("ec2"):
            for each in store.addresses:
                if (
                    address
                    and each.public_ip == address[1]
                    and each.instance
                    and ec2.state_of(each.instance) == "running"
                ):
                    return (
                        (200, {})
                        if self.is_password(integration)
                        else (401, {"error_code": 401, "message": "Unauthorized"})
                    )
        return 504, {"message": "Endpoint request timed out"}

    def is_password(self, integration):
        """Whether the integration sends a password that is in a parameter."""
        sent = BASIC.fullmatch(
            integration.get("requestParameters", {}).get(
                "integration.request.header.Authorization", ""
            )
        )
        password = base64.b64decode(sent[1]).decode().partition(":")[2] if sent else None
        kept = [
            versions[-1].value
            for _, store in self.aws.bridge.regions("ssm")
            for versions in store._parameters.values()
            if versions
        ]
        return password in [value.removeprefix("kms:alias/aws/ssm:") for value in kept]
