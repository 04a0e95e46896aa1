"""S3: moto's, with the bucket name rules of S3, and buckets of other accounts."""

import re

from moto.iam.access_control import PermissionResult
from moto.s3.models import FakeBucket

from .service import Fault, Service, now, refuse

NAME = re.compile(
    r"(?!xn--|sthree-)(?!.*\.\.)(?!\d+\.\d+\.\d+\.\d+$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?<!-s3alias)"
)

# Moto ignores conditions of a bucket policy, so that a rule against plain HTTP would deny
# everything.
FakeBucket.get_permission = lambda self, action, resource: PermissionResult.NEUTRAL


class S3(Service):
    """S3."""

    name = "s3"

    def handler(self, operation):
        if self.aws.taken_buckets and operation != "ListBuckets":
            return self.of_others
        return super().handler(operation)

    def of_others(self, call):
        """Answers a call about a bucket of another account."""
        if call.parameters.get("Bucket") in self.aws.taken_buckets:
            if call.operation == "CreateBucket":
                raise refuse(
                    "BucketAlreadyExists",
                    (
                        "The requested bucket name is not available. The bucket namespace is "
                        "shared by all users of the system. Select a different name and try "
                        "again."
                    ),
                )
            raise Fault(403, "AccessDenied", "Access Denied")
        own = super().handler(call.operation)
        return own(call) if own else self.forward(call)

    def do_list_multipart_uploads(self, call):
        reply = self.forward(call)
        # Moto returns one date for all of them, years ago.
        reply.body = re.sub(
            rb"<Initiated>[^<]*<",
            f"<Initiated>{now():%Y-%m-%dT%H:%M:%S.000Z}<".encode(),
            reply.body,
        )
        return reply

    def do_create_bucket(self, call):
        if not NAME.fullmatch(call.parameters["Bucket"]):
            raise refuse("InvalidBucketName", "The specified bucket is not valid.")
        return self.forward(call)

    def do_get_bucket_versioning(self, call):
        reply = self.forward(call)
        # Moto names the response after the operation; S3 and strict clients use the type.
        reply.body = reply.body.replace(b"GetBucketVersioningResponse", b"VersioningConfiguration")
        return reply
