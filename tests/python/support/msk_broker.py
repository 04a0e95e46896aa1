"""A Kafka broker that requires TLS and the IAM authentication of Amazon MSK."""

import re
import socketserver
import ssl
import struct

METADATA, SASL_HANDSHAKE, API_VERSIONS, SASL_AUTHENTICATE = 3, 17, 18, 36


# The version of each request that the broker supports: the newest one without compact encodings.
VERSIONS = {METADATA: 1, SASL_HANDSHAKE: 1, API_VERSIONS: 0, SASL_AUTHENTICATE: 1}


UNSUPPORTED_VERSION = 35


TOPIC = "seen-after-login"


# With slashes, pluses and equals signs, which must be encoded in a URL.
ACCESS_KEY, SECRET_KEY, SESSION_TOKEN = (
    "AKIAIOSFODNN7EXAMPLE",
    "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    "IQoJb3JpZ2luX2Vj//AAAA+bb==",
)


def text(value):
    """Encodes a string in the Kafka protocol."""
    return struct.pack(">h", len(value)) + value.encode()


def numbers(*values):
    """Encodes an array of 32-bit numbers in the Kafka protocol."""
    return struct.pack(f">i{len(values)}i", len(values), *values)


class Connection(socketserver.StreamRequestHandler):
    """Connection of one client: TLS, then requests until the client disconnects."""

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
            # Clients first use their newest version, then the version in the error response.
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
    """A minimal Kafka broker: a client can authenticate and list its only topic."""

    daemon_threads, block_on_close = True, False

    def __init__(self, certificate, private_key):
        super().__init__(("127.0.0.1", 0), Connection)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(certificate, private_key)
        self.certificate = certificate
        self.logins = []

    def environment(self, region, session_token):
        """Environment variables that connect the program to this broker, with AWS credentials."""
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
        """Returns the token of the first authentication."""
        return re.fullmatch(rb"n,,\x01auth=Bearer ([A-Za-z0-9_-]+)\x01\x01", self.logins[0])[
            1
        ].decode()
