"""The buckets of an S3 endpoint as folders, while a job runs.

Spark's own S3 client is not part of the pyspark package, but its mount tables are: they serve
`s3://` from folders.
"""

import pathlib

SCHEMES = ("s3", "s3a")
VIEW = "org.apache.hadoop.fs.viewfs.ViewFileSystemOverloadScheme"


class Lake:
    """A copy of every bucket in folders."""

    def __init__(self, s3, folder):
        self.s3 = s3
        self.folder = pathlib.Path(folder)
        self.known = {}

    def files(self):
        """Returns every file with its fingerprint; checksum files of Hadoop are no objects."""
        return {
            path: (path.stat().st_size, path.stat().st_mtime_ns)
            for path in self.folder.rglob("*")
            if path.is_file() and not path.name.endswith(".crc")
        }

    def fetch(self):
        for bucket in self.s3.list_buckets()["Buckets"]:
            (self.folder / bucket["Name"]).mkdir(parents=True)
            for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket["Name"]):
                for found in page.get("Contents", []):
                    local = self.folder / bucket["Name"] / found["Key"]
                    if not found["Key"].endswith("/"):
                        local.parent.mkdir(parents=True, exist_ok=True)
                        local.write_bytes(
                            self.s3.get_object(Bucket=bucket["Name"], Key=found["Key"])[
                                "Body"
                            ].read()
                        )
        self.known = self.files()

    def upload_changes(self):
        """Uploads and deletes what the job wrote and deleted."""
        now = self.files()
        for path, state in now.items():
            if self.known.get(path) != state:
                bucket, _, key = str(path.relative_to(self.folder)).partition("/")
                self.s3.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
        for path in self.known.keys() - now.keys():
            bucket, _, key = str(path.relative_to(self.folder)).partition("/")
            self.s3.delete_object(Bucket=bucket, Key=key)

    def settings(self):
        """Returns settings with which Spark reads the buckets from their folders."""
        found = {}
        for scheme in SCHEMES:
            found[f"spark.hadoop.fs.{scheme}.impl"] = VIEW
            found[f"spark.hadoop.fs.viewfs.overload.scheme.target.{scheme}.impl"] = (
                "org.apache.hadoop.fs.LocalFileSystem"
            )
        for bucket in self.folder.iterdir():
            found[f"spark.hadoop.fs.viewfs.mounttable.{bucket.name}.linkFallback"] = bucket.as_uri()
        return found
