"""Scripts in a mount namespace of their own, such as those that fill a small disk."""

import os
import subprocess

from support.pinpipe import BINARY, clean_environment


def in_a_namespace(script, folder):
    """Runs a script in a new mount namespace, without root too."""
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
