"""The built program, run from the command line. Failures show its output."""

import json
import os
import pathlib
import subprocess

BINARY = pathlib.Path(os.environ["PINPIPE_BIN"]).resolve()


SHARED_DATA = pathlib.Path(os.environ.get("PINPIPE_REAL_DATA", "/nonexistent"))


def clean_environment(**more):
    """Returns the environment without variables that would change the configuration."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PINPIPE", "AWS_"))}
    return {**kept, "NO_COLOR": "1", **{k: str(v) for k, v in more.items()}}


class Pinpipe:
    """The program, run in a separate folder."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)

    @property
    def data(self):
        return self.folder / ".pinpipe"

    def run(self, *arguments, code=0, timeout=180, env=None):
        done = subprocess.run(
            [BINARY, *map(str, arguments)],
            cwd=self.folder,
            env=clean_environment(**(env or {})),
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == code, (
            f"pinpipe {arguments} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done

    def json(self, *arguments, **options):
        return json.loads(self.run(*arguments, "--output", "json", **options).stdout)

    def start(self, *arguments, env=None):
        return subprocess.Popen(
            [BINARY, *map(str, arguments)],
            cwd=self.folder,
            env=clean_environment(**(env or {})),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
