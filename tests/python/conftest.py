"""Fixtures that several packages of tests share."""

import json
import subprocess
import threading

import pytest

pytest_plugins = ["support.plugin"]
pytest.register_assert_rewrite("support")

from support.local_stack import LocalStack  # noqa: E402
from support.msk_broker import Broker  # noqa: E402
from support.pinpipe import SHARED_DATA, Pinpipe  # noqa: E402
from support.provisioned import shared  # noqa: E402
from support.scenarios.s3 import recording_proxy  # noqa: E402


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
        pytest.skip("SKIPPED: the real records are not beside the checkout")
    return SHARED_DATA


@pytest.fixture(scope="module")
def module(request, tmp_path_factory):
    """The double of AWS and the pipeline on it that the tests of a file share; its configuration is
    the file's `SECTIONS`.
    """
    with shared(tmp_path_factory, **request.module.SECTIONS) as made:
        yield made


@pytest.fixture
def cloud(module):
    """That pipeline, applied and without drift."""
    yield module.applied()
    assert not module.double.problems, module.double.problems


@pytest.fixture
def empty(module):
    """That pipeline before its first apply, in an empty account."""
    yield module.empty()
    assert not module.double.problems, module.double.problems


@pytest.fixture
def golden(real_data):
    """The published run that the real records give."""
    return json.loads((real_data / "golden" / "run_224_posts.json").read_text())


@pytest.fixture
def broker(tmp_path):
    certificate, private_key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    kind = [
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    subprocess.run(
        ["openssl", "req", *kind, *names, "-keyout", private_key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    with Broker(certificate, private_key) as server:
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
        yield server
        server.shutdown()


@pytest.fixture
def s3_proxy(s3):
    """A proxy in front of the module's S3 server: its address, the requests so far, and keys it
    reports as missing.
    """
    with recording_proxy(s3) as (url, requests, missing):
        yield url, requests, missing
