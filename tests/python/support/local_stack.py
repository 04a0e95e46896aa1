"""A running local stack, `pinpipe local`."""

import json
import signal


class LocalStack:
    """A running `pinpipe local`."""

    def __init__(self, pinpipe, *arguments):
        self.pinpipe = pinpipe
        self.arguments = arguments
        self.process = None
        self.start()

    def start(self):
        self.process = self.pinpipe.start(
            "local", "--any-port", "--output", "json", *self.arguments
        )
        text = ""
        for line in self.process.stdout:
            text += line
            if line.startswith("}"):
                break
        assert text, f"local did not start: {self.process.stderr.read()}"
        addresses = json.loads(text)["addresses"]
        self.kafka, self.gateway, self.kinesis, self.control = (
            addresses[k] for k in ("kafka", "gateway", "kinesis", "control")
        )

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(timeout=20) == 0, self.process.stderr.read()

    def boto(self, service="kinesis"):
        import boto3

        return boto3.client(
            service,
            endpoint_url=f"http://{self.kinesis}",
            region_name="us-east-1",
            aws_access_key_id="x",
            aws_secret_access_key="x",
        )
