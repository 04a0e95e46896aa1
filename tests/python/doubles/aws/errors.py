"""Error responses of AWS, in the form of each protocol."""

import functools
import json
from xml.sax.saxutils import escape

from .wire import Reply

STATUS_OF_CODE = {
    "NoSuchBucket": 404,
    "NoSuchKey": 404,
    "NoSuchUpload": 404,
    "BucketNotEmpty": 409,
    "BucketAlreadyOwnedByYou": 409,
    "BucketAlreadyExists": 409,
    "AccessDenied": 403,
    "UnauthorizedOperation": 403,
    "AccessDeniedException": 403,
    "InternalError": 500,
    "InternalFailure": 500,
    "ServiceUnavailable": 503,
    "SlowDown": 503,
    "RequestLimitExceeded": 503,
    "TooManyRequestsException": 429,
    "ForbiddenException": 403,
}


class Fault(Exception):
    """An error response; without a status, that of its code in the service's model."""

    def __init__(self, status=None, code="InternalError", message="", **members):
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.members = members


class Drop(Exception):
    """The connection is closed without a response."""


def refuse(code, message, **members):
    """Returns an error whose status is in the service's model."""
    return Fault(None, code, message, **members)


@functools.cache
def status_of(model, code):
    """Returns the HTTP status of an error code in the model."""
    for shape in model.error_shapes if model else ():
        error = shape.metadata.get("error", {})
        if code in (shape.name, error.get("code")) and "httpStatusCode" in error:
            return error["httpStatusCode"]
    return STATUS_OF_CODE.get(code, 400)


def render(call, fault):
    """Returns the response of a fault."""
    status = fault.status or status_of(call.model, fault.code)
    code, message, request_id = fault.code, fault.message, call.request_id
    headers = {"x-amzn-requestid": request_id}
    protocol = call.protocol
    if protocol == "ec2":
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error>'
            f"<Code>{escape(code)}</Code><Message>{escape(message)}"
            f"</Message></Error></Errors><RequestID>{request_id}</RequestID></Response>"
        )
    elif protocol == "query":
        side = "Receiver" if status >= 500 else "Sender"
        namespace = call.model.metadata.get("xmlNamespace", "")
        body = (
            f'<ErrorResponse xmlns="{namespace}"><Error><Type>{side}</Type>'
            f"<Code>{escape(code)}</Code><Message>{escape(message)}"
            f"</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
        )
    elif protocol == "rest-xml":
        headers = {"x-amz-request-id": request_id, "x-amz-id-2": "double"}
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n<Error>'
            f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
            f"<RequestId>{request_id}</RequestId><HostId>double</HostId></Error>"
        )
        if call.method == "HEAD":
            body = ""
    elif protocol == "json":
        body = json.dumps({"__type": code, "message": message, **fault.members})
    else:
        headers["x-amzn-errortype"] = code
        body = json.dumps({"message": message, **fault.members})
    content = {
        "json": "application/x-amz-json-1.1",
        "rest-json": "application/json",
        "rest-xml": "application/xml",
    }
    headers["content-type"] = content.get(protocol, "text/xml;charset=UTF-8")
    call.error = code
    return Reply(call, status, headers, body)
