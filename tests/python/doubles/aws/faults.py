"""Errors, throttling and dropped connections for chosen calls."""

import dataclasses

from .errors import Drop, Fault

THROTTLES = {
    "ec2": (503, "RequestLimitExceeded", "Request limit exceeded."),
    "s3": (503, "SlowDown", "Please reduce your request rate."),
    "query": (400, "Throttling", "Rate exceeded"),
    "json": (400, "ThrottlingException", "Rate exceeded"),
    "rest-json": (429, "TooManyRequestsException", "Too Many Requests"),
}
EXPIRED = {
    "ec2": (400, "RequestExpired", "Request has expired."),
    "s3": (400, "ExpiredToken", "The provided token has expired."),
    "query": (403, "ExpiredToken", "The security token included in the request is expired"),
    "json": (400, "ExpiredTokenException", "The security token included in the request is expired"),
    "rest-json": (
        403,
        "ExpiredTokenException",
        "The security token included in the request is expired",
    ),
}


def of_protocol(table, call):
    """Returns the entry of a service, or of its protocol."""
    return Fault(*table.get(call.service, table.get(call.protocol, table["rest-json"])))


@dataclasses.dataclass
class Rule:
    """A fault for the calls that match, a number of times."""

    when: str
    times: int
    fits: callable
    make: callable


class Faults:
    """The active rules, and the hooks of the test."""

    def __init__(self):
        self.rules = []
        self.expired = False

    def add(self, when, times, fits, make):
        if when not in ("before", "after"):
            raise ValueError("when is 'before' or 'after'")
        self.rules.append(Rule(when, times, fits, make))

    def clear(self):
        self.rules.clear()
        self.expired = False

    def raise_for(self, when, call):
        """Raises the fault of the first rule that matches, and counts its use."""
        if when == "before" and self.expired:
            raise of_protocol(EXPIRED, call)
        for rule in self.rules:
            if rule.when == when and rule.times > 0 and rule.fits(call):
                rule.times -= 1
                raise rule.make(call)


class FaultControls:
    """The methods with which tests inject faults; a mixin of the double."""

    def fail(
        self,
        n,
        when="before",
        status=500,
        code="InternalError",
        message="injected",
        drop=False,
        times=1,
    ):
        """Fails `times` calls from the n-th overall on, counted from 1; with `drop` they get no
        response.
        """
        self.faults.add(
            when,
            times,
            lambda call: n <= call.number < n + times,
            lambda call: Drop() if drop else Fault(status, code, message),
        )

    def fail_operation(
        self,
        operation,
        times=1,
        when="before",
        status=500,
        code="InternalError",
        message="injected",
        drop=False,
        skip=0,
    ):
        """Fails the next calls of an operation (`RunInstances` or `ec2.RunInstances`), after `skip`
        of them.
        """
        seen = iter(range(1_000_000))

        def fits(call):
            return operation in (call.operation, call.name) and next(seen) >= skip

        self.faults.add(
            when, times, fits, lambda call: Drop() if drop else Fault(status, code, message)
        )

    def throttle(self, times=1, service=None):
        """Throttles the next calls, of all services or of one, with the error of their service."""
        self.faults.add(
            "before",
            times,
            lambda call: service in (None, call.service),
            lambda call: of_protocol(THROTTLES, call),
        )

    def expired_credentials(self, expired=True):
        """Answers every call as with expired credentials."""
        self.faults.expired = expired

    def stale_reads(self, reads):
        """Hides resources that are created from now on from their first reads."""
        self.stale.reads = reads

    def deny(self, action, resource="*"):
        """Denies an action, such as `kafka:CreateClusterV2` or `s3:*`."""
        self.access.denied.append((action, resource))
