"""A Kafka broker that asks for TLS and for the IAM authentication of Amazon MSK."""

import re
import socketserver
import ssl
import struct

METADATA, SASL_HANDSHAKE, API_VERSIONS, SASL_AUTHENTICATE = 3, 17, 18, 36


# The one version of each request that the broker supports: the newest without compact encodings.
VERSIONS = {METADATA: 1, SASL_HANDSHAKE: 1, API_VERSIONS: 0, SASL_AUTHENTICATE: 1}


UNSUPPORTED_VERSION = 35


TOPIC = "seen-after-login"


# Slashes, pluses and equals signs must be encoded in a URL.
ACCESS_KEY, SECRET_KEY, SESSION_TOKEN = (
    "AKIAIOSFODNN7EXAMPLE",
    "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    "IQoJb3JpZ2luX2Vj//AAAA+bb==",
)


def text(value):
    """A string as Kafka writes it."""
    return struct.pack(">h", len(value)) + value.encode()


def numbers(*values):
    """An array of 32-bit numbers as Kafka writes it."""
    return struct.pack(f">i{len(values)}i", len(values), *values)


class Connection(socketserver.StreamRequestHandler):
    """One client: TLS, then requests until it disconnects."""

    def handle(self):
        try:
            with (
                self.server.tls.wrap_socket(self.request, server_side=True) as stream,
                stream.makefile("rb") as requests,
            ):
                while size := requests.read(4):
                    body = requests.read(*struct.unpack(">i", size))
                    key, version, correlation, client_length = struct.unpack_from(">hhih", body)
                    answer = struct.pack(">i", correlation) + self.answer(
                        key, version, body[10 + client_length :]
                    )
                    stream.sendall(struct.pack(">i", len(answer)) + answer)
        except OSError:
            pass  # Clients may disconnect at any time.

    def answer(self, key, version, request):
        if key == API_VERSIONS:
            # Clients ask in their newest version, and again in the version that the error names.
            error = 0 if version == VERSIONS[key] else UNSUPPORTED_VERSION
            return struct.pack(">hi", error, len(VERSIONS)) + b"".join(
                struct.pack(">hhh", api, number, number) for api, number in VERSIONS.items()
            )
        assert version == VERSIONS[key]
        if key == SASL_HANDSHAKE:
            assert request == text("OAUTHBEARER")
            return struct.pack(">hi", 0, 1) + text("OAUTHBEARER")
        if key == SASL_AUTHENTICATE:
            self.server.logins.append(request[4:])
            # No error, no message, no bytes for the client, no session lifetime.
            return struct.pack(">hhiq", 0, -1, 0, 0)
        host, port = self.server.server_address
        brokers = struct.pack(">ii", 1, 0) + text(host) + struct.pack(">ih", port, -1)
        partition = struct.pack(">hii", 0, 0, 0) + numbers(0) + numbers(0)
        return (
            brokers
            + struct.pack(">iih", 0, 1, 0)
            + text(TOPIC)
            + struct.pack(">?i", False, 1)
            + partition
        )


class Broker(socketserver.ThreadingTCPServer):
    """As much of a Kafka broker as a client needs to authenticate and to list its one topic."""

    daemon_threads, block_on_close = True, False

    def __init__(self, certificate, private_key):
        super().__init__(("127.0.0.1", 0), Connection)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(certificate, private_key)
        self.certificate = certificate
        self.logins = []

    def environment(self, region, session_token):
        """Environment that points the program to this broker, with credentials as a user exports
        them.
        """
        credentials = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        if session_token:
            credentials["AWS_SESSION_TOKEN"] = session_token
        return credentials | {
            "SSL_CERT_FILE": self.certificate,
            "PINPIPE__AWS__REGION": region,
            "PINPIPE__KAFKA__AUTH": "iam",
            "PINPIPE__KAFKA__BOOTSTRAP_SERVERS": f"localhost:{self.server_address[1]}",
            "PINPIPE__KAFKA__TIMEOUT_MS": 2000,
        }

    def token(self):
        """The token of the first authentication."""
        return re.fullmatch(rb"n,,\x01auth=Bearer ([A-Za-z0-9_-]+)\x01\x01", self.logins[0])[
            1
        ].decode()
