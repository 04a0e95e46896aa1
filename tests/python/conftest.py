"""Runs the built binary the way a person does, and keeps what it said for the failure message."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import time

import pytest

BINARY = pathlib.Path(os.environ["PINPIPE_BIN"]).resolve()
SHARED_DATA = pathlib.Path(os.environ.get("PINPIPE_REAL_DATA", "/nonexistent"))


def clean_environment(**more):
    """The environment without anything that would change the configuration."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PINPIPE", "AWS_"))}
    return {**kept, "NO_COLOR": "1", **{k: str(v) for k, v in more.items()}}


class Pinpipe:
    """The program in a folder of its own."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)

    @property
    def data(self):
        return self.folder / ".pinpipe"

    def run(self, *arguments, code=0, timeout=180, env=None):
        done = subprocess.run([BINARY, *map(str, arguments)], cwd=self.folder, env=clean_environment(**(env or {})), capture_output=True, text=True, timeout=timeout)
        assert done.returncode == code, f"pinpipe {arguments} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments, **options):
        return json.loads(self.run(*arguments, "--output", "json", **options).stdout)

    def start(self, *arguments, env=None):
        return subprocess.Popen([BINARY, *map(str, arguments)], cwd=self.folder, env=clean_environment(**(env or {})), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class LocalStack:
    """A running `pinpipe local`."""

    def __init__(self, pinpipe, *arguments):
        self.pinpipe = pinpipe
        self.arguments = arguments
        self.process = None
        self.start()

    def start(self):
        self.process = self.pinpipe.start("local", "--any-port", "--output", "json", *self.arguments)
        text = ""
        for line in self.process.stdout:
            text += line
            if line.startswith("}"):
                break
        assert text, f"local did not start: {self.process.stderr.read()}"
        addresses = json.loads(text)["addresses"]
        self.kafka, self.gateway, self.kinesis, self.control = (addresses[k] for k in ("kafka", "gateway", "kinesis", "control"))

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(timeout=20) == 0, self.process.stderr.read()

    def boto(self, service="kinesis"):
        import boto3

        return boto3.client(service, endpoint_url=f"http://{self.kinesis}", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until(condition, what, seconds=30):
    end = time.time() + seconds
    while time.time() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {what}")


@pytest.fixture
def pinpipe(tmp_path):
    return Pinpipe(tmp_path)


@pytest.fixture
def local(pinpipe):
    stack = LocalStack(pinpipe)
    yield stack
    if stack.process.poll() is None:
        stack.process.kill()
        stack.process.wait()


@pytest.fixture
def provisioned(local):
    local.pinpipe.run("provision")
    return local


@pytest.fixture
def real_data():
    if not SHARED_DATA.is_dir():
        pytest.skip("LEFT OUT: the real records do not lie beside the checkout")
    return SHARED_DATA


@pytest.fixture(scope="module")
def module(request, tmp_path_factory):
    """A pipeline on AWS's double for the tests of a file, which says its configuration in `SECTIONS`."""
    from provisioned import shared

    with shared(tmp_path_factory, **request.module.SECTIONS) as made:
        yield made


@pytest.fixture
def cloud(module):
    """That pipeline as it should be."""
    yield module.whole()
    assert not module.double.problems, module.double.problems


@pytest.fixture
def empty(module):
    """That pipeline, of which nothing is made yet."""
    yield module.empty()
    assert not module.double.problems, module.double.problems
