"""Stop of the local stack while one of its tasks does not respond."""

import contextlib
import signal
import socket
import threading
import time

import pytest
import requests
from confluent_kafka import Producer

from support.kafka import make_topic
from support.local_stack import LocalStack
from support.wait import wait_until

CONNECTOR = {
    "connector.class": "io.confluent.connect.s3.S3SinkConnector",
    "storage.class": "io.confluent.connect.s3.storage.S3Storage",
    "format.class": "io.confluent.connect.s3.format.json.JsonFormat",
    "topics": "t",
    "s3.bucket.name": "silent",
    "flush.size": "1",
}


@contextlib.contextmanager
def silent_server():
    """Yields the address of a server that never responds, and a list of its connections."""
    connections = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    connections.append(server.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", connections
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for connection in connections:
                connection.close()


@pytest.fixture
def stuck(pinpipe):
    """Yields a local stack whose sink task waits for a lake that never responds."""
    with silent_server() as (url, connections):
        (pinpipe.folder / "pinpipe.toml").write_text(
            f'[lake]\nurl = "s3://silent"\nendpoint_url = "{url}"\n'
        )
        (pinpipe.folder / ".env").write_text("AWS_ACCESS_KEY_ID=x\nAWS_SECRET_ACCESS_KEY=x\n")
        stack = LocalStack(pinpipe)
        try:
            make_topic(stack.kafka, "t", 1)
            answer = requests.put(
                f"http://{stack.control}/connectors/c/config", json=CONNECTOR, timeout=30
            )
            assert answer.status_code == 201, answer.text
            producer = Producer({"bootstrap.servers": stack.kafka})
            producer.produce("t", b'{"a": 1}', partition=0)
            assert producer.flush(20) == 0
            wait_until(lambda: connections, "the sink task to write an object")
            yield stack
        finally:
            stack.kill()


def test_delete_of_a_stuck_connector_responds_and_blocks_no_other_request(stuck):
    connectors = f"http://{stuck.control}/connectors"
    deleted = []
    thread = threading.Thread(
        target=lambda: deleted.append(requests.delete(f"{connectors}/c", timeout=60).status_code)
    )
    begin = time.monotonic()
    thread.start()
    assert requests.get(connectors, timeout=4).status_code == 200
    assert requests.get(f"http://{stuck.control}/", timeout=4).status_code == 200
    thread.join(60)
    # The connector waits five seconds for its task. A request to the lake would take longer: its
    # timeout is 30 seconds, and it is retried.
    assert deleted == [204] and time.monotonic() - begin < 20
    assert requests.get(connectors, timeout=4).json() == []


def test_ctrl_c_ends_a_stack_with_a_stuck_connector(stuck):
    begin = time.monotonic()
    stuck.process.send_signal(signal.SIGINT)
    assert stuck.process.wait(timeout=60) == 0
    assert time.monotonic() - begin < 20


def test_second_ctrl_c_ends_the_stack_immediately(stuck):
    stuck.process.send_signal(signal.SIGINT)
    for line in stuck.process.stderr:
        if "Ctrl-C again" in line:
            break
    stuck.process.send_signal(signal.SIGINT)
    # After the first signal, the stack would exit with 0 when the task had been stopped, after five
    # seconds. The exit code 1 shows that the second signal ended it.
    assert stuck.process.wait(timeout=60) == 1
    assert "interrupted before the local stack had stopped" in stuck.process.stderr.read()
