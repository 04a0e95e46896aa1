"""IAM authentication with Amazon MSK: tokens equal those of the AWS signer; commands use them."""

import base64
import datetime
import urllib.parse

import botocore.auth
import pytest
from aws_msk_iam_sasl_signer import MSKAuthTokenProvider
from botocore.credentials import CredentialProvider, Credentials

from support.msk_broker import ACCESS_KEY, SECRET_KEY, SESSION_TOKEN, TOPIC


class FixedCredentials(CredentialProvider):
    """Provides the signer with the credentials in the environment of the program."""

    def __init__(self, session_token):
        super().__init__()
        self.session_token = session_token

    def load(self):
        return Credentials(ACCESS_KEY, SECRET_KEY, self.session_token)


def parts(token):
    """Returns the address and all parameters of the presigned URL in a token."""
    url = urllib.parse.urlsplit(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode())
    return f"{url.scheme}://{url.netloc}{url.path}", sorted(
        urllib.parse.parse_qsl(url.query, keep_blank_values=True, strict_parsing=True)
    )


def without_user_agent(parameters):
    return [(name, value) for name, value in parameters if name != "User-Agent"]


@pytest.mark.parametrize(
    ("region", "session_token"),
    [("us-east-1", None), ("eu-west-2", SESSION_TOKEN)],
    ids=["without a session token", "with a session token"],
)
def test_token_matches_the_aws_signer(pinpipe, broker, monkeypatch, region, session_token):
    pinpipe.run("topics", "list", env=broker.environment(region, session_token))
    address, parameters = parts(broker.token())

    signed_at = datetime.datetime.strptime(dict(parameters)["X-Amz-Date"], "%Y%m%dT%H%M%SZ")
    age = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) - signed_at
    assert abs(age) < datetime.timedelta(minutes=1), age
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: signed_at)
    expected, _ = MSKAuthTokenProvider.generate_auth_token_from_credentials_provider(
        region, FixedCredentials(session_token)
    )
    expected_address, expected_parameters = parts(expected)

    assert address == expected_address == f"https://kafka.{region}.amazonaws.com/"
    assert without_user_agent(parameters) == without_user_agent(expected_parameters)
    named = dict(parameters)
    assert (
        named["Action"] == "kafka-cluster:Connect"
        and named["X-Amz-Expires"] == "900"
        and len(named["X-Amz-Signature"]) == 64
    )
    assert named.get("X-Amz-Security-Token") == session_token
    assert named["User-Agent"].startswith("aws-msk-iam-sasl-signer")


def test_topics_are_listed_with_iam_authentication(pinpipe, broker):
    assert pinpipe.json("topics", "list", env=broker.environment("us-east-1", SESSION_TOKEN)) == [
        TOPIC
    ]
    assert broker.token()
