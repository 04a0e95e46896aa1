"""kill -9 in the middle of a load: every acknowledged record is there afterwards."""

import threading
import time

from confluent_kafka import Consumer, Producer, TopicPartition
from conftest import LocalStack


def test_no_acknowledged_record_is_lost(provisioned):
    local = provisioned
    acknowledged = {"kafka": set(), "kinesis": set()}
    for round_number in range(3):
        stop = threading.Event()

        def to_kafka():
            def delivered(error, message):
                if error is None:
                    acknowledged["kafka"].add(message.value())

            producer = Producer({"bootstrap.servers": local.kafka, "message.timeout.ms": 3000, "linger.ms": 1})
            i = 0
            while not stop.is_set():
                try:
                    producer.produce("local.pin", b'{"index":%d}' % (round_number * 10_000_000 + i), on_delivery=delivered)
                    i += 1
                except BufferError:
                    pass
                producer.poll(0)
            producer.purge()
            producer.flush(5)

        def to_kinesis():
            client = local.boto()
            i = 0
            while not stop.is_set():
                values = [b'{"index":%d}' % (round_number * 10_000_000 + i + k) for k in range(50)]
                i += 50
                try:
                    answer = client.put_records(StreamName="streaming-local-pin", Records=[{"Data": v, "PartitionKey": str(k)} for k, v in enumerate(values)])
                except Exception:
                    return
                acknowledged["kinesis"].update(v for v, r in zip(values, answer["Records"]) if "SequenceNumber" in r)

        threads = [threading.Thread(target=to_kafka), threading.Thread(target=to_kinesis)]
        for thread in threads:
            thread.start()
        time.sleep(1.5 + 0.3 * round_number)
        local.kill()
        stop.set()
        for thread in threads:
            thread.join(60)
        local.start()

    assert len(acknowledged["kafka"]) > 1000 and len(acknowledged["kinesis"]) > 500, {k: len(v) for k, v in acknowledged.items()}

    consumer = Consumer({"bootstrap.servers": local.kafka, "group.id": "after"})
    found = []
    for partition in range(3):
        low, high = consumer.get_watermark_offsets(TopicPartition("local.pin", partition), 10)
        consumer.assign([TopicPartition("local.pin", partition, low)])
        position = low
        while position < high:
            message = consumer.poll(5)
            assert message is not None, f"partition {partition} gives nothing at {position} of {high}"
            assert message.offset() == position
            position += 1
            found.append(message.value())
    consumer.close()
    assert acknowledged["kafka"] <= set(found), "Kafka lost acknowledged records"

    client = local.boto()
    found = []
    for shard in client.list_shards(StreamName="streaming-local-pin")["Shards"]:
        iterator = client.get_shard_iterator(StreamName="streaming-local-pin", ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
        behind = 1
        while behind:
            page = client.get_records(ShardIterator=iterator)
            found += [r["Data"] for r in page["Records"]]
            iterator, behind = page["NextShardIterator"], page["MillisBehindLatest"]
    assert acknowledged["kinesis"] <= set(found), "Kinesis lost acknowledged records"


def test_the_sink_brings_everything_to_the_lake_over_kills(provisioned):
    from test_pipeline import lake_lines, wait_for_lake

    local, pinpipe = provisioned, provisioned.pinpipe
    pinpipe.run("seed", "--posts", 2000)
    for i in range(4):
        # The kill comes at another moment of the sink's work each time.
        pinpipe.run("emulate", "--to", "kafka", "--batch", 50, "--rows", f"{i * 500}-{i * 500 + 499}")
        time.sleep(0.2 * i)
        local.kill()
        local.start()
    wait_for_lake(pinpipe, 6000)
    assert sorted(r["index"] for r in lake_lines(pinpipe) if "index" in r) == list(range(2000)), "lost or repeated"
