"""The part of AWS that moto simulates: calls go to its server application, and its stores can be
read.
"""

import re

from moto import backends
from moto.core.base_backend import BackendDict
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from .wire import Reply, environ_again

# Moto puts another request id in the body, or none.
REQUEST_ID = re.compile(rb"(<[rR]equestI[dD]>)[^<]*(</[rR]equestI[dD]>)")
ACCOUNT = "123456789012"
GLOBAL = ("iam", "s3", "sts")


class Bridge:
    """Moto, as an application to call and stores to read."""

    def __init__(self):
        self.application = DomainDispatcherApplication(create_backend_app)

    def forward(self, call):
        """Returns the response of moto to a call."""
        answer = {}

        def start_response(status, headers, _=None):
            answer["status"] = int(status.split()[0])
            answer["headers"] = {name.lower(): value for name, value in headers}

        body = b"".join(self.application(environ_again(call), start_response))
        headers = answer["headers"]
        headers.pop("content-length", None) if call.method != "HEAD" else None
        headers.pop("x-amzn-requestid", None)
        headers["x-amz-request-id" if call.service == "s3" else "x-amzn-requestid"] = (
            call.request_id
        )
        return Reply(
            call,
            answer["status"],
            headers,
            REQUEST_ID.sub(rb"\g<1>%s\g<2>" % call.request_id.encode(), body),
        )

    def store(self, service, region="us-east-1"):
        """Returns moto's objects of a service in a region."""
        return backends.get_backend(service)[ACCOUNT]["aws" if service in GLOBAL else region]

    def regions(self, service):
        """Returns the regions of a service that were used, with their stores."""
        return sorted(backends.get_backend(service)[ACCOUNT].items())

    def reset(self):
        """Deletes everything."""
        BackendDict.reset()
