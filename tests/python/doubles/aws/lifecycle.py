"""Transitional states, whose duration is a number of reads instead of seconds."""


class Lifecycle:
    """A state, and the next one after a number of reads."""

    def __init__(self, state):
        self.state = state
        self.remaining = 0
        self.following = None
        self.effect = None

    def begin(self, passing, settled, reads, effect=None):
        """Enters a transitional state; with no reads to wait for it is over at once."""
        self.state = passing
        self.following = settled
        self.effect = effect
        self.remaining = reads
        if reads <= 0:
            self.finish()

    def read(self):
        """Returns the current state, and counts the read."""
        shown = self.state
        if self.remaining > 0:
            self.remaining -= 1
            if self.remaining == 0:
                self.finish()
        return shown

    def finish(self):
        """Ends the transitional state."""
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
