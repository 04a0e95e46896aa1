"""A clock that a test puts forward: the program's own, by a small library in front of the C library."""

import subprocess

# Only what waits are measured by: the time of day, which signatures bear, stays as it is.
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
    """The clock of the programs that are started with its environment."""

    def __init__(self, folder):
        self.mark, self.library = folder / "a-minute-later", folder / "clock.so"
        source = SOURCE.replace("MARK", str(self.mark))
        subprocess.run(["cc", "-shared", "-fPIC", "-D_GNU_SOURCE", "-o", self.library, "-x", "c", "-"], input=source, text=True, check=True, capture_output=True)
        self.environment = {"LD_PRELOAD": self.library}

    def forward(self):
        """A little more than a minute passes at once."""
        self.mark.touch()

    def back(self):
        """As nothing had happened, for the next program."""
        self.mark.unlink(missing_ok=True)
