"""The base of every service of the double: operations as methods, stores per region, pages of
lists.
"""

import functools
import secrets
from datetime import UTC, datetime

from botocore import xform_name

from .bridge import ACCOUNT
from .errors import Fault, refuse
from .lifecycle import Lifecycle


def now():
    return datetime.now(UTC).replace(microsecond=0)


def random_id(length, alphabet="0123456789abcdef"):
    """Returns a random id, long enough that no text holds it by chance."""
    while True:
        made = "".join(secrets.choice(alphabet) for _ in range(length))
        if length < 5 or (
            sum(letter.isdigit() for letter in made) >= 2
            and sum(letter.isalpha() for letter in made) >= 2
        ):
            return made


@functools.cache
def method_of(operation):
    return xform_name(operation)


def tags_of(pairs):
    """Returns a list of keys and values as a dictionary."""
    return {pair["Key"]: pair["Value"] for pair in pairs or []}


def plain_tags(thing):
    """Returns the tags of an IAM object of moto, which stores them as a list or as a dictionary."""
    kept = getattr(thing, "tags", None) or []
    return (
        [
            {"Key": key, "Value": value if isinstance(value, str) else value["Value"]}
            for key, value in kept.items()
        ]
        if isinstance(kept, dict)
        else kept
    )


class Service:
    """The operations of the double; those without a method go to moto."""

    name = ""

    def __init__(self, aws):
        self.aws = aws
        self.reset()

    def reset(self):
        """Deletes everything."""

    def handler(self, operation):
        """Returns the method of an operation, if there is one."""
        return getattr(self, f"do_{method_of(operation)}", None)

    def forward(self, call):
        """Returns the response of moto; raises its error."""
        return self.aws.forward(call)

    def store(self, region, service=None):
        """Returns moto's objects of this service in a region."""
        return self.aws.bridge.store(service or self.name, region)

    def lifecycle(self, passing, settled, effect=None):
        """Returns the lifecycle of a new resource."""
        lifecycle = Lifecycle(passing)
        lifecycle.begin(passing, settled, self.aws.settle_reads, effect)
        return lifecycle

    def move(self, lifecycle, passing, settled, effect=None):
        lifecycle.begin(passing, settled, self.aws.settle_reads, effect)

    def arn(self, call, rest, service=None):
        return f"arn:aws:{service or self.name}:{call.region}:{ACCOUNT}:{rest}"

    def page(self, items, limit, token, default=100, code="BadRequestException"):
        """Returns one page of a list, and the token of the next."""
        try:
            start = int(token.removeprefix("page-")) if token else 0
        except ValueError:
            raise refuse(code, "The nextToken is invalid.") from None
        size = min(limit or default, self.aws.page_size or limit or default)
        end = start + size
        return items[start:end], f"page-{end}" if end < len(items) else None


__all__ = [
    "ACCOUNT",
    "Fault",
    "Lifecycle",
    "Service",
    "now",
    "plain_tags",
    "random_id",
    "refuse",
    "tags_of",
]
