"""Versions and types of brokers of MSK."""

from .service import random_id

BROKER_TYPES = {
    f"kafka.{family}.{size}"
    for family, sizes in {
        "t3": ("small",),
        "m5": (
            "large",
            "xlarge",
            "2xlarge",
            "4xlarge",
            "8xlarge",
            "12xlarge",
            "16xlarge",
            "24xlarge",
        ),
        "m7g": ("large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge", "16xlarge"),
    }.items()
    for size in sizes
}


VERSIONS = (
    "2.2.1",
    "2.3.1",
    "2.4.1",
    "2.4.1.1",
    "2.5.1",
    "2.6.0",
    "2.6.1",
    "2.6.2",
    "2.6.3",
    "2.7.0",
    "2.7.1",
    "2.7.2",
    "2.8.0",
    "2.8.1",
    "2.8.2.tiered",
    "3.1.1",
    "3.2.0",
    "3.3.1",
    "3.3.2",
    "3.4.0",
    "3.5.1",
    "3.6.0",
    "3.7.x",
    "3.7.x.kraft",
    "3.8.x",
    "3.8.x.kraft",
    "3.9.x",
    "3.9.x.kraft",
    "4.0.x.kraft",
    "4.1.x.kraft",
)


def version_of():
    """Returns a version of a cluster or connector: opaque, and new after every change."""
    return "K" + random_id(13, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def number_of(version):
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))
