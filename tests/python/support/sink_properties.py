"""The least properties that a sink connector of the local stack accepts."""

PROPERTIES = {
    "connector.class": "io.confluent.connect.s3.S3SinkConnector",
    "storage.class": "io.confluent.connect.s3.storage.S3Storage",
    "format.class": "io.confluent.connect.s3.format.json.JsonFormat",
    "topics": "t",
    "s3.bucket.name": "b",
    "flush.size": "1",
}
