"""Topics and records through librdkafka."""

import time

from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient, NewTopic


def make_topic(address, name, partitions=3):
    admin = AdminClient({"bootstrap.servers": address})
    for future in admin.create_topics([NewTopic(name, partitions, 1)]).values():
        future.result(10)
    return admin


def consume(address, topic, count, group="g", **more):
    consumer = Consumer(
        {"bootstrap.servers": address, "group.id": group, "auto.offset.reset": "earliest", **more}
    )
    consumer.subscribe([topic])
    got = []
    end = time.time() + 30
    while len(got) < count and time.time() < end:
        message = consumer.poll(0.5)
        if message is not None:
            assert message.error() is None, message.error()
            got.append(message)
    consumer.close()
    return got
