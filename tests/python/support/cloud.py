"""A pipeline on AWS for tests: the program in a folder, connected to the AWS test double."""

import contextlib
import http.server
import json
import threading
import zipfile

from support.pinpipe import Pinpipe

IP_RANGES = {
    "syncToken": "1",
    "createDate": "2026-01-01-00-00-00",
    "prefixes": [
        {
            "ip_prefix": "3.216.135.0/24",
            "region": "us-east-1",
            "service": "API_GATEWAY",
            "network_border_group": "us-east-1",
        },
        {
            "ip_prefix": "44.206.4.0/22",
            "region": "us-east-1",
            "service": "API_GATEWAY",
            "network_border_group": "us-east-1",
        },
        {
            "ip_prefix": "44.206.4.0/22",
            "region": "us-east-1",
            "service": "AMAZON",
            "network_border_group": "us-east-1",
        },
        {
            "ip_prefix": "18.200.0.0/24",
            "region": "eu-west-1",
            "service": "API_GATEWAY",
            "network_border_group": "eu-west-1",
        },
    ],
    "ipv6_prefixes": [],
}

SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


@contextlib.contextmanager
def ip_ranges():
    """Serves the address ranges that AWS publishes; yields their URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps(IP_RANGES).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/ip-ranges.json"
    server.shutdown()


class Cloud(Pinpipe):
    """The program, configured for AWS and connected to the double."""

    def __init__(self, folder, double, ranges_url, settings=""):
        super().__init__(folder)
        self.aws = double
        self.ranges_url = ranges_url
        self.folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(self.folder / "sink.zip", "w") as plugin:
            plugin.writestr("manifest.json", "{}")
        self.configure(settings)

    def configure(self, settings="", **sections):
        """Writes the configuration: the settings of all tests, and additional TOML sections."""
        text = f"""target = "aws"
id = "me"
[provision]
poll_interval_ms = 16
consistency_timeout_ms = 160
{sections.get("provision", "")}
[network]
ip_ranges_url = "{self.ranges_url}"
[topics]
replication_factor = 3
[kafka]
auth = "iam"
[connector]
plugin = "sink.zip"
{sections.get("connector", "")}
{settings}
"""
        (self.folder / "pinpipe.toml").write_text(text)

    @property
    def environment(self):
        return dict(self.aws.environment)

    def run(self, *arguments, env=None, **options):
        return super().run(*arguments, env={**self.environment, **(env or {})}, **options)

    def start(self, *arguments, env=None):
        return super().start(*arguments, env={**self.environment, **(env or {})})

    def apply(self, *arguments, **options):
        return self.json("provision", "--yes", *arguments, **options)

    def whole_plan(self, *arguments, env=None):
        """Returns the plan. Asserts that the exit code is 1 exactly if the plan has refusals."""
        command = ("provision", "--plan", *arguments, "--output", "json")
        process = self.start(*command, env=env)
        stdout, stderr = process.communicate(timeout=180)
        assert stdout, stderr
        plan = json.loads(stdout)
        assert process.returncode == (1 if plan["refusals"] else 0), stderr
        return plan

    def plan(self, *arguments, **options):
        """Returns action and reasons of each planned change, by key."""
        steps = self.whole_plan(*arguments, **options)["steps"]
        return {
            step["key"]: (step["action"], "; ".join(step["reasons"]))
            for step in steps
            if step["action"] != "no-op"
        }

    def state(self):
        return json.loads((self.data / "aws" / "state.json").read_text())
