"""Requests that a web page makes a browser send to the local servers: all are refused."""

import contextlib
import http.server
import json
import threading

import pytest
import requests
from confluent_kafka import Producer

from support.kafka import make_topic
from support.local_stack import LocalStack
from support.wait import wait_until

BUCKET = "user-local-bucket"
PROPERTIES = {
    "connector.class": "io.confluent.connect.s3.S3SinkConnector",
    "storage.class": "io.confluent.connect.s3.storage.S3Storage",
    "format.class": "io.confluent.connect.s3.format.json.JsonFormat",
    "topics.regex": ".*",
    "s3.bucket.name": BUCKET,
    "flush.size": "1",
}
# Nothing listens there.
LAKE = "http://127.0.0.1:9"
RECORDS = "application/vnd.kafka.json.v2+json"
# What a browser adds to a request of a page, and the status that refuses it.
FORGED = {
    "another origin": ({"Origin": "https://evil.example"}, 403),
    "an origin without a name": ({"Origin": "null"}, 403),
    "another port of this machine": ({"Origin": "http://127.0.0.1:1"}, 403),
    "an image or a script": ({"Sec-Fetch-Site": "cross-site"}, 403),
    "a page of the same site": ({"Sec-Fetch-Site": "same-site"}, 403),
    "a name pointed to this machine": ({"Host": "evil.example:8083"}, 421),
}


def requests_of(stack):
    """Returns a request of each kind: method, URL, headers, body."""
    control, gateway = f"http://{stack.control}", f"http://{stack.gateway}"
    connector = {"name": "evil", "config": PROPERTIES}
    kinesis = {"X-Amz-Target": "Kinesis_20131202.CreateStream"}
    return [
        ("GET", f"{control}/connectors", {}, None),
        ("POST", f"{control}/connectors", {}, connector),
        ("PUT", f"{control}/connectors/evil/config", {}, PROPERTIES),
        ("POST", f"{control}/connectors/mine/restart", {}, None),
        ("PUT", f"{control}/connectors/mine/pause", {}, None),
        ("DELETE", f"{control}/connectors/mine", {}, None),
        ("DELETE", f"{control}/api", {}, None),
        ("GET", f"{control}/none", {}, None),
        ("GET", f"{gateway}/topics", {}, None),
        ("POST", f"{gateway}/topics/local.pin", {"Content-Type": RECORDS}, {"records": [{}]}),
        ("POST", f"{gateway}/streams/evil", {}, {"ShardCount": 1}),
        ("DELETE", f"{gateway}/streams/streaming-local-pin", {}, None),
        ("GET", f"{gateway}/none", {}, None),
        ("POST", f"http://{stack.kinesis}/", kinesis, {"StreamName": "evil", "ShardCount": 1}),
    ]


def state_of(stack):
    """Returns what the forged requests try to change."""
    topic = f"http://{stack.gateway}/topics/local.pin/partitions"
    return {
        "connectors": requests.get(
            f"http://{stack.control}/connectors?expand=info&expand=status", timeout=20
        ).json(),
        "routes": requests.get(f"http://{stack.control}/api", timeout=20).json(),
        "streams": stack.boto().list_streams()["StreamNames"],
        "records": [
            requests.get(f"{topic}/{partition}/offsets", timeout=20).json()
            for partition in range(3)
        ],
    }


@pytest.fixture
def stack(provisioned):
    config = PROPERTIES | {"topics.regex": "none"}
    answer = requests.post(
        f"http://{provisioned.control}/connectors",
        json={"name": "mine", "config": config},
        timeout=20,
    )
    assert answer.status_code == 201, answer.text
    return provisioned


def test_requests_of_pages_are_refused_and_change_nothing(stack):
    before = state_of(stack)
    for what, (marks, status) in FORGED.items():
        for method, url, headers, body in requests_of(stack):
            answer = requests.request(
                method, url, headers={**headers, **marks}, json=body, timeout=20
            )
            assert answer.status_code == status, (what, method, url, answer.text)
            message = answer.json()["message"]
            assert message.startswith("cannot accept ") and "; hint: " in message
            assert "access-control-allow-origin" not in answer.headers
    assert state_of(stack) == before


def test_refusals_have_the_format_of_each_api(stack):
    def refused(method, url, **headers):
        headers = {"Origin": "https://evil.example", **headers}
        return requests.request(method, f"http://{url}", headers=headers, timeout=20)

    assert refused("GET", f"{stack.control}/connectors").json()["error_code"] == 403
    topics = refused("GET", f"{stack.gateway}/topics")
    assert topics.json()["error_code"] == 403
    assert topics.headers["content-type"] == "application/vnd.kafka.v2+json"
    assert list(refused("GET", f"{stack.gateway}/streams").json()) == ["message"]
    kinesis = refused("POST", f"{stack.kinesis}/")
    assert kinesis.json()["__type"] == "AccessDeniedException"
    assert kinesis.headers["x-amzn-errortype"] == "AccessDeniedException"
    cbor = refused("POST", f"{stack.kinesis}/", **{"Content-Type": "application/x-amz-cbor-1.1"})
    assert cbor.headers["content-type"] == "application/x-amz-cbor-1.1"
    assert b"AccessDeniedException" in cbor.content


@pytest.mark.parametrize("content_type", ["text/plain", "multipart/form-data; boundary=x"])
def test_bodies_of_forms_are_refused(stack, content_type):
    before = state_of(stack)
    for method, url, headers, body in requests_of(stack):
        if method in ("POST", "PUT"):
            answer = requests.request(
                method,
                url,
                headers={**headers, "Content-Type": content_type},
                data=json.dumps(body),
                timeout=20,
            )
            assert answer.status_code == 415, (method, url, answer.text)
    assert state_of(stack) == before


def test_other_clients_are_accepted(stack):
    port = stack.control.rsplit(":", 1)[1]
    own = f"http://{stack.control}"
    for url, headers in [
        (f"http://127.0.0.1:{port}", {}),
        (f"http://localhost:{port}", {}),
        (own, {"Host": "localhost"}),
        (own, {"Host": "[::1]:8083"}),
        (own, {"Origin": own}),
        (own, {"Sec-Fetch-Site": "same-origin"}),
        # The user entered the address.
        (own, {"Sec-Fetch-Site": "none"}),
    ]:
        answer = requests.get(f"{url}/connectors", headers=headers, timeout=20)
        assert answer.status_code == 200, (url, headers, answer.text)
    # What `curl -d` sends without `-H`.
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    stream = requests.post(
        f"http://{stack.gateway}/streams/mine", headers=form, data='{"ShardCount": 1}', timeout=20
    )
    assert stream.status_code == 200, stream.text
    connector = requests.post(
        f"{own}/connectors",
        headers=form,
        data=json.dumps({"name": "curl", "config": PROPERTIES}),
        timeout=20,
    )
    assert connector.status_code == 201, connector.text


@contextlib.contextmanager
def attacker():
    """Yields the address of a server, and the first lines of the requests to it."""
    lines = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def handle_one_request(self):
            lines.append(self.rfile.readline())
            self.close_connection = True

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", lines
        finally:
            server.shutdown()


@pytest.fixture
def on_s3(pinpipe):
    """A local stack whose lake is a bucket on a server that does not run."""
    (pinpipe.folder / "pinpipe.toml").write_text(
        f'[lake]\nurl = "s3://{BUCKET}"\nendpoint_url = "{LAKE}"\n'
    )
    (pinpipe.folder / ".env").write_text("AWS_ACCESS_KEY_ID=x\nAWS_SECRET_ACCESS_KEY=x\n")
    stack = LocalStack(pinpipe)
    yield stack
    if stack.process.poll() is None:
        stack.kill()


def test_a_connector_cannot_name_another_server_of_the_lake(on_s3):
    connectors = f"http://{on_s3.control}/connectors"
    for method, url, body in [
        ("POST", connectors, lambda config: {"name": "evil", "config": config}),
        ("PUT", f"{connectors}/evil/config", lambda config: config),
    ]:
        config = PROPERTIES | {"store.url": "http://evil.example"}
        refused = requests.request(method, url, json=body(config), timeout=20)
        assert refused.status_code == 400, refused.text
        assert f"`store.url`: expected `{LAKE}`" in refused.json()["message"]
    assert requests.get(connectors, timeout=20).json() == []
    config = PROPERTIES | {"store.url": LAKE}
    accepted = requests.put(f"{connectors}/mine/config", json=config, timeout=20)
    assert accepted.status_code == 201, accepted.text


def test_a_stored_connector_with_another_server_sends_nothing(on_s3):
    make_topic(on_s3.kafka, "t", 1)
    answer = requests.put(
        f"http://{on_s3.control}/connectors/c/config", json=PROPERTIES, timeout=20
    )
    assert answer.status_code == 201, answer.text
    on_s3.kill()
    path = on_s3.pinpipe.data / "connectors.json"
    with attacker() as (url, lines):
        definitions = json.loads(path.read_text())
        definitions["c"]["config"]["store.url"] = url
        path.write_text(json.dumps(definitions))
        on_s3.start()
        producer = Producer({"bootstrap.servers": on_s3.kafka})
        producer.produce("t", b'{"first_name": "private"}', partition=0)
        assert producer.flush(20) == 0
        status = f"http://{on_s3.control}/connectors/c/status"
        wait_until(
            lambda: requests.get(status, timeout=20).json()["tasks"][0]["state"] == "FAILED",
            "the connector to fail",
        )
        assert "`store.url`" in requests.get(status, timeout=20).json()["tasks"][0]["trace"]
        assert lines == []
