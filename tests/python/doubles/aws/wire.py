"""Parses requests and serializes responses by the service models of botocore."""

import dataclasses
import functools
import io
import re
import uuid
from typing import Any
from urllib.parse import parse_qsl

from botocore.awsrequest import HeadersDict
from botocore.parsers import create_parser
from moto.core.model import OperationModel, ServiceModel
from moto.core.parse import PROTOCOL_PARSERS
from moto.core.request import Request
from moto.core.routing import get_service_router
from moto.core.serialize import SerializationContext, get_serializer_class
from moto.core.utils import get_service_model
from werkzeug.exceptions import NotFound

SERVICE_OF_SIGNING_NAME = {"airflow": "mwaa"}
SCOPE = re.compile(r"Credential=([^/,]+)/\d{8}/([^/]+)/([^/]+)/aws4_request")


@dataclasses.dataclass
class Call:
    """One request and its result."""

    number: int
    service: str
    operation: str
    parameters: dict[str, Any]
    region: str
    method: str
    path: str
    access_key: str
    request_id: str
    status: int | None = None
    error: str | None = None
    injected: bool = False
    request: Request = dataclasses.field(default=None, repr=False)
    body: bytes = dataclasses.field(default=b"", repr=False)
    uri_parameters: dict[str, str] = dataclasses.field(default_factory=dict, repr=False)
    model: ServiceModel | None = dataclasses.field(default=None, repr=False)
    operation_model: OperationModel | None = dataclasses.field(default=None, repr=False)
    unreadable: str | None = dataclasses.field(default=None, repr=False)

    @property
    def name(self):
        """Service and operation, as in `ec2.RunInstances`."""
        return f"{self.service}.{self.operation}"

    @property
    def protocol(self):
        return self.model.protocol if self.model else "rest-json"


class Reply:
    """A response; it is parsed only when its output is read."""

    def __init__(self, call, status, headers, body):
        self.call = call
        self.status = status
        self.headers = headers
        self.body = body.encode() if isinstance(body, str) else body

    @functools.cached_property
    def output(self):
        """The response as a client parses it."""
        parser = response_parser(self.call.protocol)
        raw = {
            "status_code": self.status,
            "headers": HeadersDict(self.headers),
            "body": self.body,
            "context": {},
        }
        return parser.parse(raw, self.call.operation_model.output_shape)


@functools.cache
def response_parser(protocol):
    return create_parser(protocol)


@functools.cache
def request_parser(service, operation):
    model = get_service_model(service)
    return PROTOCOL_PARSERS[model.protocol](model.operation_model(operation))


def scope_of(request):
    """Returns access key, region and service of the signature, which alone names the service."""
    text = request.headers.get("Authorization", "")
    if not text and "X-Amz-Credential" in request.args:
        text = f"Credential={request.args['X-Amz-Credential']}"
    found = SCOPE.search(text)
    if not found:
        return "", "us-east-1", ""
    access_key, region, name = found.groups()
    return access_key, region, SERVICE_OF_SIGNING_NAME.get(name, name)


def read(environ):
    """Returns a request with its operation and parameters, as far as they can be parsed."""
    request = Request(environ)
    body = request.get_data(cache=True, parse_form_data=False)
    access_key, region, service = scope_of(request)
    call = Call(
        0,
        service or "?",
        "?",
        {},
        region,
        request.method,
        request.raw_path,
        access_key,
        str(uuid.uuid4()),
        request=request,
        body=body,
    )
    if not service:
        call.unreadable = (
            f"not signed, or signed in a way that names no service: {request.method} {request.path}"
        )
        return call
    try:
        call.model = get_service_model(service)
    except Exception:
        call.unreadable = f"no service of AWS signs as {service}"
        return call
    try:
        operation_model, uri_parameters = get_service_router(service).match(request)
    except (NotFound, NotImplementedError):
        target = (
            request.headers.get("X-Amz-Target")
            or request.form.get("Action")
            or f"{request.method} {request.raw_path}"
        )
        call.operation = target.rpartition(".")[2]
        call.unreadable = f"no operation of {service} answers to {target}"
        return call
    call.operation = operation_model.name
    call.operation_model = operation_model
    call.uri_parameters = uri_parameters
    return call


def parse_parameters(call):
    """Returns the parameters by their names in the model; raises what the parser raises."""
    request = call.request
    parsed = request_parser(call.service, call.operation).parse(
        {
            "method": request.method,
            "values": request.values,
            "headers": request.headers,
            "body": call.body,
            "url_path": request.path,
            "url_params": call.uri_parameters,
        }
    )
    shape = call.operation_model.input_shape
    if shape is None:
        return {}
    # The parser returns an empty list for a query string member that was not sent.
    for member, member_shape in shape.members.items():
        if (
            member_shape.serialization.get("location")
            in (
                "querystring",
                "headers",
            )
            and not parsed.get(member)
            and member_shape.type_name in ("list", "map")
        ):
            parsed.pop(member, None)
    return {name: value for name, value in parsed.items() if value is not None}


def put_away(call):
    """Frees the request of an answered call, and replaces large bodies by their size."""
    call.parameters = {
        name: f"<{len(value)} bytes>" if isinstance(value, bytes) and len(value) > 512 else value
        for name, value in call.parameters.items()
    }
    call.body, call.request = b"", None


def serialize(call, output):
    """Returns a response in the protocol of its service."""
    serializer = get_serializer_class(call.service, call.protocol)
    context = SerializationContext(call.request_id)
    answer = serializer(call.operation_model, context=context).serialize(output)
    reply = Reply(call, answer["status_code"], dict(answer["headers"]), answer["body"])
    reply.__dict__["output"] = output
    return reply


def query_keys(call):
    """Returns the keys of the query string, without those of the operation's path."""
    pairs = parse_qsl(call.request.query_string.decode(), keep_blank_values=True)
    fixed = call.operation_model.http_trait.query_args
    return [
        name
        for name, _ in pairs
        if name not in fixed and name != "x-id" and not name.startswith("X-Amz-")
    ]


def environ_again(call):
    """Returns the request from its start, for an application that reads the body itself."""
    environ = {
        key: value for key, value in call.request.environ.items() if not key.startswith("werkzeug.")
    }
    environ["wsgi.input"] = io.BytesIO(call.body)
    environ["CONTENT_LENGTH"] = str(len(call.body))
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    environ.pop("wsgi.input_terminated", None)
    return environ
