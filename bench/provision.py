"""How long `provision` takes of its own: on the double, which answers at once, and with calls as
slow as real ones.

    PINPIPE_BIN=target/release/pinpipe PYTHONPATH=tests/python python bench/provision.py
"""

import pathlib
import statistics
import tempfile
import time

from support.provisioned import shared

LATENCY = 0.05


class Folders:
    """Creates folders like the factory of pytest."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.count = 0

    def mktemp(self, name):
        self.count += 1
        folder = self.root / f"{name}{self.count}"
        folder.mkdir()
        return folder


def timed(cloud, run):
    """Returns seconds and calls of a run."""
    calls, began = len(cloud.aws.calls), time.perf_counter()
    run()
    return time.perf_counter() - began, len(cloud.aws.calls) - calls


def with_airflow(module):
    cloud = module.empty()
    subnets = sorted(
        cloud.boto("ec2").describe_subnets()["Subnets"],
        key=lambda subnet: subnet["AvailabilityZone"],
    )
    cloud.change(
        airflow={"enabled": True, "subnets": [subnet["SubnetId"] for subnet in subnets[:2]]},
        schedule={"enabled": False},
    )
    return cloud


def round_of(module, latency=0.0, parallel=8, plans=5):
    """Applies, plans and destroys once; prints a line."""
    cloud = with_airflow(module)
    cloud.change(provision={"max_concurrency": parallel})
    if latency:
        cloud.aws.before_call = lambda call: time.sleep(latency)
    made = timed(cloud, cloud.apply)
    steps = cloud.json("provision", "--plan")["steps"]
    assert len(steps) >= 30 and all(step["action"] == "no-op" for step in steps), [
        step["key"] for step in steps if step["action"] != "no-op"
    ]
    looked = [timed(cloud, lambda: cloud.run("provision", "--plan")) for _ in range(plans)]
    gone = timed(cloud, lambda: cloud.run("destroy", "--yes", "--data"))
    assert not any(cloud.aws.snapshot().values())
    plan = statistics.median(seconds for seconds, _ in looked)
    print(
        f"{len(steps)} resources, {latency * 1000:.0f} ms a call, {parallel} at a time: "
        f"plan {plan * 1000:.0f} ms ({looked[0][1]} calls), apply {made[0]:.2f} s "
        f"({made[1]} calls), destroy {gone[0]:.2f} s ({gone[1]} calls)",
        flush=True,
    )
    return plan


def main():
    with tempfile.TemporaryDirectory() as root, shared(Folders(root)) as module:
        round_of(module)
        one, eight = (round_of(module, LATENCY, parallel, plans=3) for parallel in (1, 8))
        print(f"eight at a time plan {one / eight:.1f} times as fast as one")


if __name__ == "__main__":
    main()
