"""The REST API of the workspace, on loopback."""

import dataclasses
import http.server
import json
import pathlib
import re
import socket
import threading
from urllib.parse import parse_qs, urlsplit

from .cluster import Clusters
from .description import ENDPOINTS, members_of, numbered_members, problems_of
from .errors import Refused
from .runs import Runs
from .workspace import Workspace

PATH = re.compile(r"/api/(2\.\d)/(.+)")
FAULTS = {
    429: (
        "REQUEST_LIMIT_EXCEEDED",
        (
            "Your request was rejected since your organization has exceeded the rate "
            "limit. Please retry your request later."
        ),
    ),
    500: ("INTERNAL_ERROR", "An internal error happened."),
    503: (
        "TEMPORARILY_UNAVAILABLE",
        "The service at /api/2.2/jobs/runs is temporarily unavailable. Please try again later.",
    ),
}


@dataclasses.dataclass
class Request:
    """A request and its response; status None: there was none."""

    method: str
    path: str
    endpoint: str
    version: str
    query: dict
    body: object
    headers: dict
    status: int = None
    answer: object = None


@dataclasses.dataclass
class Fault:
    """A fault of one endpoint."""

    endpoint: str
    answer: object
    first: int
    times: int
    after: bool
    headers: dict
    seen: int = 0

    def strikes(self, endpoint):
        if endpoint != self.endpoint:
            return False
        self.seen += 1
        return self.first <= self.seen < self.first + self.times


class Databricks:
    """A workspace: `with Databricks(folder, s3=boto3_client) as databricks`."""

    def __init__(
        self, folder, s3=None, user="me@example.com", token="dapi0123456789abcdef", secrets=None
    ):
        self.folder, self.user, self.token = pathlib.Path(folder), user, token
        self.organisation = 1234567890123456
        # (scope, key) to value.
        self.secrets = secrets if secrets is not None else {}
        self.workspace = Workspace(self.folder / "workspace", user)
        self.clusters = Clusters(self.folder / "clusters", s3, self.secrets)
        self.runs = Runs(self)
        self.seconds_to_end = 0.1
        self.requests, self.violations, self.faults = [], [], []
        self.server = None

    def __enter__(self):
        databricks = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                databricks.handle(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = handle_any

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.runs.stop()
        self.server.shutdown()
        self.server.server_close()

    def fail(self, endpoint, answer, first=1, times=1, after=False, headers=None):
        """Fails a number of calls of an endpoint (`jobs/runs/submit`), from the `first` on.

        `answer` is a status, (status, body) or "drop", which closes the connection; with `after`
        the
        call takes effect before.
        """
        self.faults.append(Fault(endpoint, answer, first, times, after, headers or {}))

    def calls(self, endpoint):
        return [request for request in self.requests if request.endpoint == endpoint]

    def handle(self, http_request):
        url = urlsplit(http_request.path)
        raw = http_request.rfile.read(int(http_request.headers.get("Content-Length") or 0))
        found = PATH.fullmatch(url.path)
        if not found:
            self.send(
                http_request,
                404,
                {
                    "error_code": "ENDPOINT_NOT_FOUND",
                    "message": f"No API found for '{http_request.command} {url.path}'",
                },
            )
            return
        try:
            body = json.loads(raw) if raw else {}
        except ValueError:
            body = raw
        request = Request(
            http_request.command,
            url.path,
            found[2],
            found[1],
            parse_qs(url.query, keep_blank_values=True),
            body,
            {name.lower(): value for name, value in http_request.headers.items()},
        )
        self.requests.append(request)
        fault = next((fault for fault in self.faults if fault.strikes(request.endpoint)), None)
        headers = {}
        if not fault or fault.after:
            try:
                request.status, request.answer = 200, self.answer(request)
            except Refused as refused:
                request.status, request.answer = refused.status, refused.body
        if fault:
            if fault.answer == "drop":
                request.status = None
                http_request.close_connection = True
                http_request.connection.shutdown(socket.SHUT_RDWR)
                return
            request.status, request.answer = (
                fault.answer
                if isinstance(fault.answer, tuple)
                else (fault.answer, dict(zip(("error_code", "message"), FAULTS[fault.answer])))
            )
            headers = fault.headers
        self.send(http_request, request.status, request.answer, headers)

    def send(self, http_request, status, answer, headers=None):
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        http_request.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "X-Databricks-Org-Id": str(self.organisation),
            **(headers or {}),
        }.items():
            http_request.send_header(name, value)
        http_request.end_headers()
        if http_request.command != "HEAD":
            http_request.wfile.write(body)

    def answer(self, request):
        authorization = request.headers.get("authorization", "")
        # Only here the error code is a number.
        if not authorization.startswith("Bearer "):
            raise Refused(
                401, 401, "Credential was not sent or was of an unsupported type for this API."
            )
        if authorization != f"Bearer {self.token}":
            raise Refused(403, 403, "Invalid access token.")
        if (request.method, request.endpoint) not in ENDPOINTS:
            self.violations.append(f"{request.method} {request.path}: no such endpoint")
            raise Refused(
                404, "ENDPOINT_NOT_FOUND", f"No API found for '{request.method} {request.path}'"
            )
        body = request.body
        if "databricks-airflow" in request.headers.get("user-agent", "") and isinstance(body, dict):
            body = numbered_members(members_of(request.method, request.endpoint), body)
        problems = problems_of(
            request.method, request.version, request.endpoint, request.query, body
        )
        if problems:
            self.violations += [
                f"{request.method} {request.path}: {problem}" for problem in problems
            ]
            raise Refused(
                400, "MALFORMED_REQUEST", "Could not parse request object: " + "; ".join(problems)
            )
        # A member that is null counts as missing.
        given = {name: value for name, value in body.items() if value is not None}
        if request.method == "GET":
            given = {
                name: int(value[0])
                if name == "run_id"
                else value[0] == "true"
                if value[0] in ("true", "false")
                else value[0]
                for name, value in request.query.items()
            }
        return self.actions[request.endpoint](self, **given)

    def me(self, **_):
        emails = [{"type": "work", "value": self.user, "primary": True}]
        return {
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
            "id": "7000000000000001",
            "userName": self.user,
            "displayName": self.user,
            "active": True,
            "emails": emails,
        }

    def list_scopes(self):
        return {
            "scopes": [
                {"name": name, "backend_type": "DATABRICKS"}
                for name in sorted({scope for scope, _ in self.secrets})
            ]
        }

    def list_secrets(self, scope):
        found = [key for name, key in self.secrets if name == scope]
        if not found:
            raise Refused(404, "RESOURCE_DOES_NOT_EXIST", f"Scope {scope} does not exist!")
        return {
            "secrets": [
                {"key": key, "last_updated_timestamp": 1700000000000} for key in sorted(found)
            ]
        }

    def put_secret(self, scope, key, string_value="", **_):
        self.secrets[scope, key] = string_value
        return {}

    actions = {
        "preview/scim/v2/Me": me,
        "workspace/mkdirs": lambda self, **given: self.workspace.mkdirs(**given),
        "workspace/import": lambda self, **given: self.workspace.import_(**given),
        "workspace/delete": lambda self, **given: self.workspace.delete(**given),
        "workspace/get-status": lambda self, **given: self.workspace.get_status(**given),
        "workspace/list": lambda self, **given: self.workspace.list(**given),
        "workspace/export": lambda self, **given: self.workspace.export(**given),
        "secrets/scopes/list": list_scopes,
        "secrets/list": list_secrets,
        "secrets/scopes/create": lambda self, **_: {},
        "secrets/put": put_secret,
        "clusters/get": lambda self, **given: self.runs.cluster(**given),
        "clusters/list-node-types": lambda self: {
            "node_types": [
                {
                    "node_type_id": "m5.large",
                    "memory_mb": 8192,
                    "num_cores": 2.0,
                    "description": "m5.large",
                    "instance_type_id": "m5.large",
                    "category": "General Purpose",
                }
            ]
        },
        "clusters/spark-versions": lambda self: {
            "versions": [
                {
                    "key": "16.4.x-scala2.12",
                    "name": "16.4 LTS (includes Apache Spark 3.5.2, Scala 2.12)",
                }
            ]
        },
        "jobs/runs/submit": lambda self, **given: self.runs.submit(**given),
        "jobs/runs/get": lambda self, **given: self.runs.get(**given),
        "jobs/runs/get-output": lambda self, **given: self.runs.get_output(**given),
        "jobs/runs/cancel": lambda self, **given: self.runs.cancel(**given),
        "jobs/runs/list": lambda self, **given: self.runs.list(**given),
        "jobs/runs/delete": lambda self, **given: self.runs.delete(**given),
    }
