"""Runs ministack, a double of AWS by other authors, in a virtual environment of its own."""

import pathlib
import shutil
import subprocess
import sys
import venv

import requests

from support.cache import CACHE, installing
from support.pinpipe import clean_environment
from support.ports import free_port
from support.wait import wait_until

# It pins another botocore than the clients of the tests: one environment cannot hold both.
VERSION = "1.5.33"
ACCOUNT = "123456789012"


def installed():
    """Returns the path of the program, installed at first use."""
    folder = CACHE / f"ministack-{VERSION}"
    done = folder / "installed.txt"
    with installing(folder.name):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            venv.create(folder, with_pip=True)
            subprocess.run(
                [
                    folder / "bin" / "python",
                    "-m",
                    "pip",
                    "install",
                    "-q",
                    "--disable-pip-version-check",
                    f"ministack=={VERSION}",
                ],
                check=True,
                stdout=sys.stderr,
            )
            done.write_text(VERSION)
    return folder / "bin" / "ministack"


class Ministack:
    """A running ministack on loopback, without persistence."""

    def __init__(self, folder):
        program, self.port = installed(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = pathlib.Path(folder) / "ministack.log"
        settings = {
            "GATEWAY_PORT": self.port,
            "BIND_HOST": "127.0.0.1",
            "MINISTACK_ACCOUNT_ID": ACCOUNT,
            "LOG_LEVEL": "WARNING",
            "TMPDIR": folder,
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [program],
                cwd=folder,
                env=clean_environment(**settings),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(self.is_up, "ministack to answer", 60)
        except AssertionError as error:
            self.stop()
            raise AssertionError(f"{error}\n{self.log.read_text()}") from None

    def is_up(self):
        assert self.process.poll() is None, self.log.read_text()
        try:
            return requests.get(f"{self.url}/_ministack/health", timeout=5).ok
        except requests.ConnectionError:
            return False

    def reset(self):
        """Empties the account."""
        requests.post(f"{self.url}/_ministack/reset", timeout=30).raise_for_status()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
