"""Figures of the local stack, each several times, with the median; peers run beside it in the same
minutes.
"""

import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import boto3
from botocore.config import Config
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from support.local_stack import LocalStack
from support.pinpipe import Pinpipe
from support.ports import free_port

RUNS = int(sys.argv[1]) if len(sys.argv) > 1 else 3
RECORD = json.dumps(
    {
        "index": 7528,
        "title": "x" * 60,
        "description": "y" * 140,
        "tag_list": "z" * 150,
        "category": "mens-fashion",
    }
).encode()


def show(name, values, unit):
    print(
        (
            f"{name:58} {min(values):>10,.1f} {statistics.median(values):>10,.1f} "
            f"{max(values):>10,.1f} {unit}"
        ),
        flush=True,
    )


def peak_mib(pid):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) / 1024


def demo():
    seconds, peaks = [], []
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            process = Pinpipe(folder).start("demo", "--quiet", "--output", "json")
            highest = 0
            reader = threading.Thread(target=process.stdout.read)
            reader.start()
            while process.poll() is None:
                with contextlib.suppress(FileNotFoundError, IndexError):
                    highest = max(highest, peak_mib(process.pid))
                time.sleep(0.05)
            reader.join()
            assert process.returncode == 0, process.stderr.read()
            seconds.append(time.perf_counter() - started)
            peaks.append(highest)
    show("demo, 2,000 posts, whole process", seconds, "s")
    show("demo, peak memory", peaks, "MiB")


def make_topic(servers):
    admin = AdminClient({"bootstrap.servers": servers})
    list(admin.create_topics([NewTopic("bench", 3, 1)]).values())[0].result(10)


def produce(servers, count, **config):
    producer = Producer(
        {
            "bootstrap.servers": servers,
            "linger.ms": 5,
            "acks": "all",
            "queue.buffering.max.messages": 500_000,
            **config,
        }
    )
    if "test.mock.num.brokers" in config:
        producer.list_topics("bench", timeout=10)
    failed = []
    started = time.perf_counter()
    for _ in range(count):
        while True:
            try:
                producer.produce(
                    "bench", RECORD, on_delivery=lambda error, _: error and failed.append(error)
                )
                break
            except BufferError:
                producer.poll(0.05)
        producer.poll(0)
    producer.flush(60)
    assert not failed, failed[0]
    return count / (time.perf_counter() - started)


def broker():
    """librdkafka's own mock broker keeps 5 MiB a partition in memory and writes nothing: an upper
    bound.
    """
    own, mock = [], []
    with tempfile.TemporaryDirectory() as folder:
        local = LocalStack(Pinpipe(folder))
        make_topic(local.kafka)
        for _ in range(RUNS):
            own.append(produce(local.kafka, 200_000))
            mock.append(produce("", 200_000, **{"test.mock.num.brokers": 1}))
        local.stop()
    show("Kafka: acknowledged records a second, pinpipe", own, "/s")
    show("Kafka: the same, librdkafka's in-memory mock", mock, "/s")
    show("Kafka: ratio pinpipe / mock", [a / b for a, b in zip(own, mock)], "")


def put(client, seconds=4.0):
    names = client.list_streams()["StreamNames"]
    if "bench" not in names:
        client.create_stream(StreamName="bench", ShardCount=2)
        client.get_waiter("stream_exists").wait(StreamName="bench", WaiterConfig={"Delay": 1})
    records = [{"Data": RECORD, "PartitionKey": str(i)} for i in range(500)]
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        assert client.put_records(StreamName="bench", Records=records)["FailedRecordCount"] == 0
        count += 500
    return count / (time.perf_counter() - started)


def kinesis():
    own, peer = [], []
    port = free_port()
    moto = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    keys = dict(region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    try:
        with tempfile.TemporaryDirectory() as folder:
            local = LocalStack(Pinpipe(folder))
            theirs = boto3.client(
                "kinesis",
                endpoint_url=f"http://127.0.0.1:{port}",
                config=Config(retries={"max_attempts": 10, "mode": "standard"}),
                **keys,
            )
            for _ in range(RUNS):
                own.append(put(local.boto()))
                peer.append(put(theirs))
            local.stop()
    finally:
        moto.kill()
    show("Kinesis: records a second, one boto3 client, pinpipe", own, "/s")
    show("Kinesis: the same, moto 5.2 (in memory)", peer, "/s")
    show("Kinesis: ratio pinpipe / moto", [a / b for a, b in zip(own, peer)], "")


def memory():
    """A full-speed producer and a full-speed emulation for 20 s."""
    peaks, rates = [], []
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as folder:
            pinpipe = Pinpipe(folder)
            local = LocalStack(pinpipe)
            pinpipe.run("seed")
            pinpipe.run("provision")
            make_topic(local.kafka)
            emulate = pinpipe.start(
                "emulate",
                "--duration",
                "20s",
                "--concurrency",
                "32",
                "--batch",
                "20",
                "--output",
                "json",
                "--quiet",
            )
            end = time.time() + 20
            while time.time() < end:
                produce(local.kafka, 50_000)
            out, err = emulate.communicate(timeout=120)
            assert emulate.returncode == 0, err
            rates.append(json.loads(out)["records_per_second"])
            peaks.append(peak_mib(local.process.pid))
            local.kill()
    show("local under load: emulated records a second, both halves", rates, "/s")
    show("local under load: peak memory", peaks, "MiB")


if __name__ == "__main__":
    print(f"{os.cpu_count()} cores, {RUNS} runs{'':38} {'min':>10} {'median':>10} {'max':>10}")
    demo()
    broker()
    kinesis()
    memory()
