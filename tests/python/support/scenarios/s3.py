"""A lake and tables on an S3-compatible server."""

import contextlib
import http.server
import threading
import urllib.parse

import boto3
import deltalake
import requests

from support.lakes import KINDS, records
from support.local_stack import LocalStack
from support.wait import wait_until

KEYS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}


def whole_pipeline_on_s3(pinpipe, s3):
    client = boto3.client(
        "s3",
        endpoint_url=s3,
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
    )
    client.create_bucket(Bucket="pins-of-mine")
    (pinpipe.folder / "pinpipe.toml").write_text(
        f'[lake]\nurl = "s3://pins-of-mine"\nendpoint_url = "{s3}"\n[tables]\nurl '
        "= "
        '"s3://pins-of-mine/tables"\n[connector.properties]\n"rotate.schedule.interval.ms" '
        "= 300\n"
    )
    (pinpipe.folder / ".env").write_text("".join(f"{k}={v}\n" for k, v in KEYS.items()))
    local = LocalStack(pinpipe)
    try:
        pinpipe.run("seed", "--posts", 120)
        pinpipe.run("provision")
        assert pinpipe.json("emulate", "--to", "both", "--posts", 120, "--batch", 10)["errors"] == 0

        def lines():
            found = (
                client.get_paginator("list_objects_v2")
                .paginate(Bucket="pins-of-mine", Prefix="topics/")
                .search("Contents[].Key")
            )
            return sum(
                client.get_object(Bucket="pins-of-mine", Key=key)["Body"].read().count(b"\n")
                for key in found
                if key
            )

        wait_until(lambda: lines() == 360, "360 records on S3", 60)
        report = pinpipe.json("batch")
        assert [i["rows"] for i in report["inputs"]] == [120] * 3 and report[
            "lake"
        ] == "s3://pins-of-mine"
        assert [t["rows"] for t in pinpipe.json("stream", "--available-now")["tables"]] == [120] * 3
        assert [t["rows"] for t in pinpipe.json("stream", "--available-now")["tables"]] == [0] * 3
        assert "✖" not in pinpipe.run("doctor").stdout
    finally:
        local.kill()
    options = {"AWS_ENDPOINT_URL": s3, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1", **KEYS}
    for layer in ("batch", "stream"):
        table = deltalake.DeltaTable(
            f"s3://pins-of-mine/tables/{layer}/local_pin_table", storage_options=options
        )
        assert table.to_pyarrow_table().num_rows == 120


@contextlib.contextmanager
def recording_proxy(s3):
    """A proxy in front of the server, which records requests and returns 404 for the objects in
    `gone`.
    """
    seen, gone = [], set()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            seen.append((self.command, self.path))
            headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = requests.request(
                self.command, s3 + self.path, headers=headers, data=body, timeout=60
            )
            if (
                urllib.parse.unquote(self.path).removeprefix("/user-local-bucket/") in gone
                and self.command == "GET"
            ):
                answer.status_code, answer._content = (
                    404,
                    b"<Error><Code>NoSuchKey</Code><Message>gone</Message></Error>",
                )
            self.send_response(answer.status_code)
            for name in ("ETag", "Last-Modified", "Content-Type", "Content-Range"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            length = (
                answer.headers["Content-Length"]
                if self.command == "HEAD"
                else str(len(answer.content))
            )
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.content)

        do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", seen, gone
    server.shutdown()


def every_object_is_read_once_and_listed_in_pages_of_1000(pinpipe, s3, proxy):
    url, seen, gone = proxy
    client = boto3.client(
        "s3",
        endpoint_url=s3,
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
    )
    client.create_bucket(Bucket="user-local-bucket")
    pinpipe.run("seed", "--posts", 1100)
    lines = {
        kind: list(records(pinpipe.data / "source.db", kind))[: 1100 if kind == "geo" else 30]
        for kind in KINDS
    }
    keys = {}
    for kind, own in lines.items():
        for number, line in enumerate(own):
            key = f"topics/local.{kind}/partition=0/local.{kind}+0+{number:010d}.json"
            keys[key] = kind
            client.put_object(Bucket="user-local-bucket", Key=key, Body=line.encode())
    env = {"PINPIPE__LAKE__ENDPOINT_URL": url, **KEYS}
    report = pinpipe.json("batch", "--lake", "s3://user-local-bucket", env=env)
    assert [i["rows"] for i in report["inputs"]] == [30, 1100, 30]
    read = [
        urllib.parse.unquote(path).removeprefix("/user-local-bucket/")
        for method, path in seen
        if method == "GET" and "list-type" not in path
    ]
    assert sorted(read) == sorted(keys), "each object once, nothing else"
    pages = [path for _, path in seen if "list-type" in path and "topics" in path]
    assert len(pages) == 4, pages
    # A second run lists objects and reads none.
    seen.clear()
    report = pinpipe.json("batch", "--lake", "s3://user-local-bucket", env=env)
    assert [i["objects"] for i in report["inputs"]] == [0, 0, 0]
    assert all("list-type" in path for _, path in seen), seen
    # The error names an object that was deleted after the listing, and no answers are written.
    gone.add("topics/local.geo/partition=0/local.geo+0+0000000007.json")
    done = pinpipe.run(
        "batch", "--full", "--lake", "s3://user-local-bucket", "--out", "answers", code=1, env=env
    )
    assert "local.geo+0+0000000007.json" in done.stderr and "hint:" in done.stderr, done.stderr
    assert not list((pinpipe.folder / "answers").glob("*.csv"))


def missing_bucket_is_reported(pinpipe, s3):
    env = {"PINPIPE__LAKE__ENDPOINT_URL": s3, **KEYS}
    done = pinpipe.run("batch", "--lake", "s3://nowhere", code=1, env=env)
    assert "nowhere" in done.stderr and "hint:" in done.stderr
