"""Renders the templates that `pinpipe provision` sends to AWS."""

import re

from support.paths import TEMPLATES

ACCOUNT, REGION = "123456789012", "us-east-1"

# Values of the placeholders for a pipeline with the id `abc`.
VALUES = {
    "account": ACCOUNT,
    "airflow": "abc-airflow",
    "airflow-bucket": "abc-airflow-bucket",
    "bootstrap-servers": "b-1.abc.kafka.us-east-1.amazonaws.com:9098,b-2.abc.kafka.us-east-1.amazonaws.com:9098",  # noqa: E501
    "bucket": "user-abc-bucket",
    "cluster": "abc-cluster",
    "confluent-sha512": "",
    "confluent-url": "https://downloads.example/confluent-community-7.2.0.tar.gz",
    "confluent-version": "7.2.0",
    "connector": "abc-connector",
    "iam-auth-sha512": "",
    "iam-auth-url": "https://downloads.example/aws-msk-iam-auth-1.1.5-all.jar",
    "id": "abc",
    "kafka-url": "https://archive.apache.org/dist/kafka/2.8.1/kafka_2.12-2.8.1.tgz",
    "partition": "aws",
    "proxy-secret-parameter": "/pinpipe/abc/proxy-password",
    "proxy-user": "api-gateway",
    "region": REGION,
    "role-arn": f"arn:aws:iam::{ACCOUNT}:role/abc-ec2-access-role",
    "shards": "4",
    "zookeeper": "z-1.abc.kafka.us-east-1.amazonaws.com:2182",
}

PLACEHOLDER = re.compile(r"@([a-z][a-z0-9-]*)@")


def render(name, **values):
    """Returns a rendered template. `role_arn="x"` replaces `@role-arn@`; VALUES are defaults."""
    filled = {**VALUES, **{name.replace("_", "-"): value for name, value in values.items()}}
    return PLACEHOLDER.sub(lambda found: filled[found[1]], (TEMPLATES / name).read_text())


def template_names(folder, ending):
    return sorted(path.name for path in (TEMPLATES / folder).glob(f"*{ending}"))
