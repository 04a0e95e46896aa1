"""Batch as a whole process beside DuckDB, Polars and Spark: the same lake, the same ten answers,
taking turns.

Each figure is minimum, median and maximum over the runs; memory is the peak of the process and
its children. pinpipe runs twice: answering only, as the others do, and writing its clean Delta
tables too.
"""

import csv
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from support.lakes import write_lake
from support.pinpipe import Pinpipe, clean_environment

RUNS = int(sys.argv[1]) if len(sys.argv) > 1 else 5
PEERS = pathlib.Path(__file__).with_name("peers")
BINARY = os.environ["PINPIPE_BIN"]
# Without tables it does the same as the others; with them it also writes all clean rows.
OWN = {"pinpipe --no-tables": ["--no-tables"], "pinpipe": []}


def family_mib(pid):
    """Returns the resident memory of a process and all its children, in MiB."""
    children, resident = {}, {}
    for status in pathlib.Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        except OSError:
            continue
        own = int(status.parent.name)
        children.setdefault(int(fields["PPid"]), []).append(own)
        resident[own] = int(fields.get("VmRSS", "0 kB").split()[0]) / 1024
    waiting, total = [pid], 0
    while waiting:
        own = waiting.pop()
        total += resident.get(own, 0)
        waiting += children.get(own, [])
    return total


def run(command):
    """Returns seconds, CPU seconds and peak MiB of a command."""
    # Earlier writes must reach the disk before the measurement.
    os.sync()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    process = subprocess.Popen(
        list(map(str, command)),
        env=clean_environment(PYSPARK_PYTHON=sys.executable),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    peak = [0.0]

    def watch():
        while process.poll() is None:
            peak[0] = max(peak[0], family_mib(process.pid))
            time.sleep(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    stderr = process.stderr.read()
    process.wait()
    # Taken before the watcher notices the exit, which it does within a tenth of a second.
    seconds = time.perf_counter() - started
    watcher.join()
    assert process.returncode == 0, stderr.decode()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime), peak[0]


def answers(folder):
    def cell(text):
        try:
            return float(text)
        except ValueError:
            return text

    return {
        path.stem: sorted(
            [cell(c) for c in row] for row in list(csv.reader(path.open(encoding="utf-8")))[1:]
        )
        for path in pathlib.Path(folder).glob("*.csv")
    }


def compare(title, lake, runs, peers):
    print(f"\n{title}: {'':34} {'min':>8} {'median':>8} {'max':>8} s   CPU s   MiB", flush=True)
    figures, found = {}, {}
    for number in range(runs):
        for name in [*OWN, *peers]:
            with tempfile.TemporaryDirectory() as folder:
                out = pathlib.Path(folder) / "out"
                if name in OWN:
                    command = [
                        BINARY,
                        "batch",
                        "--lake",
                        lake,
                        "--data-dir",
                        f"{folder}/data",
                        "--out",
                        out,
                        "--format",
                        "csv",
                        "--quiet",
                        *OWN[name],
                    ]
                else:
                    out.mkdir()
                    command = [sys.executable, PEERS / f"{name}_batch.py", lake, out]
                if name == "spark" and number:
                    continue  # One run of a minute tells enough.
                figures.setdefault(name, []).append(run(command))
                found.setdefault(name, answers(out))
    for name, own in figures.items():
        seconds = [figure[0] for figure in own]
        print(
            (
                f"  {name:46} {min(seconds):8.2f} {statistics.median(seconds):8.2f} "
                f"{max(seconds):8.2f}   {statistics.median(f[1] for f in own):7.2f} "
                f"{max(f[2] for f in own):5.0f}"
            ),
            flush=True,
        )
        assert found[name] == found["pinpipe"], f"{name} answers otherwise"
    median = {name: statistics.median(figure[0] for figure in own) for name, own in figures.items()}
    best = min(peers, key=median.get)
    for name in OWN:
        print(
            f"  {name} takes {median[name] / median[best]:.2f} times the time of "
            f"{best}, the fastest of the others: it is "
            f"{median[best] / median[name]:.2f} times as fast"
        )


def incremental(pinpipe, lake, source, posts, runs):
    """A run over 1 % new data, and one over none, beside a full one."""
    seconds = {"full": [], "1 % new": [], "nothing new": []}
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            command = [BINARY, "batch", "--lake", lake, "--data-dir", folder, "--quiet"]
            seconds["full"].append(run(command)[0])
            before = set(lake.rglob("*.json"))
            write_lake(source, lake, 3, first=posts, last=posts + posts // 100)
            seconds["1 % new"].append(run(command)[0])
            seconds["nothing new"].append(run(command)[0])
            for path in set(lake.rglob("*.json")) - before:
                path.unlink()
    print("\nincremental:")
    for name, own in seconds.items():
        print(f"  {name:46} {min(own):8.2f} {statistics.median(own):8.2f} {max(own):8.2f}")


def main():
    print(f"{os.cpu_count()} cores, {RUNS} runs in turn")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for name, posts, objects in [("large", 500_000, 27), ("small", 10_000, 10_000)]:
            pinpipe = Pinpipe(folder)
            pinpipe.run(
                "seed", "--posts", posts + posts // 100, "--replace", "--quiet", timeout=600
            )
            lake, source = folder / name, pinpipe.data / "source.db"
            megabytes = write_lake(source, lake, objects, last=posts) / 1e6
            count = sum(1 for _ in lake.rglob("*.json"))
            compare(
                f"{posts:,} posts, {megabytes:.0f} MB in {count:,} objects",
                lake,
                RUNS,
                ["duckdb", "polars", "spark"],
            )
            if name == "large":
                incremental(pinpipe, lake, source, posts, RUNS)


if __name__ == "__main__":
    main()
