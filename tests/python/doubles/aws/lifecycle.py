"""States that take time, measured in how often somebody looked rather than in seconds."""


class Lifecycle:
    """A state, and the one it turns into after a number of reads."""

    def __init__(self, state):
        self.state = state
        self.remaining = 0
        self.following = None
        self.effect = None

    def begin(self, passing, settled, reads, effect=None):
        """Enters a passing state; without any reads to wait for it is over at once."""
        self.state = passing
        self.following = settled
        self.effect = effect
        self.remaining = reads
        if reads <= 0:
            self.finish()

    def read(self):
        """The state somebody sees now, who thereby lets time pass."""
        shown = self.state
        if self.remaining > 0:
            self.remaining -= 1
            if self.remaining == 0:
                self.finish()
        return shown

    def finish(self):
        """Ends the passing state."""
        self.remaining = 0
        following, effect = self.following, self.effect
        self.following = self.effect = None
        if following is not None:
            self.state = following
        if effect:
            effect()

    @property
    def moving(self):
        return self.remaining > 0
