"""The cache folder of software for tests, shared by `tests/setup` and `tests/run`."""

import contextlib
import fcntl
import os
import pathlib

_BASE = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
CACHE = pathlib.Path(os.environ.get("PINPIPE_TEST_CACHE") or pathlib.Path(_BASE) / "pinpipe")


@contextlib.contextmanager
def installing(name):
    """Holds the lock of an installation, so that parallel test processes install it once."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
