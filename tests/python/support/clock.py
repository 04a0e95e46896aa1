"""A clock that a test can advance, through a small library that is preloaded (LD_PRELOAD)."""

import subprocess

# Advances only the monotonic clock, which timeouts use. The time of day, which signatures contain,
# is unchanged.
SOURCE = """
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (clock == CLOCK_MONOTONIC && access("MARK", F_OK) == 0)
        now->tv_sec += 61;
    return failed;
}
"""


class Clock:
    """The clock of programs that are started with `environment`."""

    def __init__(self, folder):
        self.mark, self.library = folder / "a-minute-later", folder / "clock.so"
        source = SOURCE.replace("MARK", str(self.mark))
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-D_GNU_SOURCE", "-o", self.library, "-x", "c", "-"],
            input=source,
            text=True,
            check=True,
            capture_output=True,
        )
        self.environment = {"LD_PRELOAD": self.library}

    def forward(self):
        """Advances the clock by a little more than a minute."""
        self.mark.touch()

    def back(self):
        """Resets the clock, for the next program."""
        self.mark.unlink(missing_ok=True)
