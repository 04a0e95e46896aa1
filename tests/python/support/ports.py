"""TCP ports on loopback for the servers that tests start."""

import fcntl
import pathlib
import random
import socket
import tempfile

# Below the ephemeral port range of Linux, so that no other process is given a port between its
# choice here and the start of the server.
FIRST, LAST = 15_000, 32_000
LOCKS = pathlib.Path(tempfile.gettempdir()) / "pinpipe-test-ports"
_held = []


def free_port():
    """Returns a free port, reserved among test processes until this process exits."""
    LOCKS.mkdir(exist_ok=True)
    for port in random.sample(range(FIRST, LAST), 1000):
        lock = open(LOCKS / str(port), "w")  # noqa: SIM115 - the open file holds the lock
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as server:
                server.bind(("127.0.0.1", port))
        except OSError:
            lock.close()
            continue
        _held.append(lock)
        return port
    raise AssertionError("none of 1,000 ports is free")
