"""STS: the identity of the caller."""

from .service import ACCOUNT, Service


class Sts(Service):
    """STS."""

    name = "sts"

    def do_get_caller_identity(self, call):
        return {
            "UserId": "AIDAIOSFODNN7EXAMPLEID",
            "Account": ACCOUNT,
            "Arn": f"arn:aws:iam::{ACCOUNT}:user/pinpipe",
        }
