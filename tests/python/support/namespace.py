"""Scripts in a separate mount namespace, such as scripts that fill a small disk."""

import os
import subprocess

from support.pinpipe import BINARY, clean_environment


def in_a_namespace(script, folder):
    """Runs a script in a new mount namespace. Root permissions are not required."""
    return subprocess.run(
        [
            "unshare",
            "--mount",
            *([] if os.getuid() == 0 else ["--map-root-user"]),
            "bash",
            "-c",
            script,
        ],
        cwd=folder,
        env=clean_environment(PINPIPE=BINARY),
        capture_output=True,
        text=True,
        timeout=120,
    )
