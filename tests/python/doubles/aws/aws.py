"""The double itself: passes a call through validation, faults and services, and records it."""

import collections
import contextlib
import threading
import traceback

from . import validate, wire
from .access import Access
from .apigateway import ApiGateway
from .bridge import ACCOUNT, Bridge
from .ec2 import Ec2
from .errors import Drop, Fault, render
from .faults import FaultControls, Faults
from .iam import Iam
from .invoke import Invoker
from .kafka import Kafka
from .kafkaconnect import KafkaConnect
from .kinesis import Kinesis
from .mwaa import Mwaa
from .s3 import S3
from .server import Server
from .shell import Shell
from .snapshot import snapshot
from .ssm import Ssm
from .stale import Stale
from .sts import Sts

SERVICES = (Ec2, Iam, S3, Ssm, Kinesis, Kafka, KafkaConnect, Mwaa, ApiGateway, Sts)


class AwsDouble(FaultControls):
    """AWS on a loopback port, inside this process."""

    account = ACCOUNT

    def __init__(self, settle_reads=2):
        self.lock = threading.RLock()
        self.settle_reads = settle_reads
        self.bridge = Bridge()
        self.faults = Faults()
        self.stale = Stale()
        self.access = Access(ACCOUNT)
        self.defaults()
        self.services = {service.name: service(self) for service in SERVICES}
        self.invoker = Invoker(self)
        self.forget_calls()
        self.server = Server(self.answer)
        self.url = f"http://127.0.0.1:{self.server.port}"
        self.bridge.reset()

    def defaults(self):
        """Resets settings and hooks to their defaults."""
        self.before_call = None
        self.after_call = None
        # A lock in its place answers one call at a time, hooks included.
        self.guard = contextlib.nullcontext()
        self.cut_off = set()
        self.observers = []
        self.profile_delay_calls = 0
        self.role_delay_calls = 0
        self.page_size = None
        self.bootstrap = None
        self.taken_buckets = set()
        self.outcome = lambda kind, name: None
        self.run_command = Shell(self)
        self.airflow = None

    def forget_calls(self):
        self.calls = []
        self.invocations = []
        self.problems = []
        self.access.denied.clear()
        self.faults.clear()
        self.stale.clear()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.server.close()

    def reset(self):
        """Empties the account and removes calls, rules and hooks."""
        with self.lock:
            self.bridge.reset()
            for service in self.services.values():
                service.reset()
            self.defaults()
            self.forget_calls()

    @property
    def environment(self):
        """Environment variables that connect a client to the double."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def on_call(self, callback):
        """Registers a callback for every answered call."""
        self.observers.append(callback)

    def count(self, name=None, **parameters):
        """Returns the number of calls of an operation (`RunInstances` or `ec2.RunInstances`) with
        these parameters.
        """
        return len(self.calls_of(name, **parameters))

    def calls_of(self, name=None, **parameters):
        """Returns the calls of an operation or service with these parameters."""
        return [
            call
            for call in list(self.calls)
            if name in (None, call.operation, call.name, call.service)
            and all(call.parameters.get(key) == value for key, value in parameters.items())
        ]

    def counts(self):
        """Returns the number of calls of each operation."""
        return collections.Counter(call.name for call in list(self.calls))

    def snapshot(self):
        """Returns everything that exists, without random values."""
        with self.lock:
            return snapshot(self)

    def forward(self, call):
        """Returns the response of moto to a call; raises its errors."""
        reply = self.bridge.forward(call)
        if reply.status >= 400:
            error = reply.output.get("Error", {})
            raise Forwarded(reply, error.get("Code") or str(reply.status), error.get("Message", ""))
        return reply

    def answer(self, environ):
        """Returns the reply to one request."""
        invoked = self.invoker.answer(environ)
        if invoked:
            return invoked
        call = wire.read(environ)
        try:
            problems = validate.problems_of(call)
        except Exception:
            problems = [f"the double cannot check it: {traceback.format_exc(limit=-4)}"]
        with self.lock:
            call.number = len(self.calls) + 1
            self.calls.append(call)
        try:
            reply = self.decide(call, problems)
        except Drop:
            call.injected, call.error = True, "dropped"
            self.observe(call)
            raise
        except Fault as fault:
            reply = render(call, fault)
        call.status = reply.status
        self.observe(call)
        return reply

    def observe(self, call):
        """Records an answered call and runs the callbacks."""
        wire.put_away(call)
        for observer in self.observers:
            observer(call)

    def decide(self, call, problems):
        """Rejects an invalid call, and applies faults before and after its effect."""
        if problems:
            with self.lock:
                self.problems += [f"{call.name}: {problem}" for problem in problems]
            raise Fault(
                400,
                "ValidationError" if call.protocol == "query" else "ValidationException",
                f"{len(problems)} validation errors: {'; '.join(problems)}",
            )
        with self.guard:
            if call.access_key in self.cut_off:
                # A process that was killed; its last requests may still be on their way.
                raise Drop
            self.interfere("before", call, self.before_call)
            with self.lock:
                reply = self.perform(call)
            self.interfere("after", call, self.after_call)
        return reply

    def interfere(self, when, call, hook):
        try:
            if hook:
                hook(call)
            with self.lock:
                self.faults.raise_for(when, call)
        except (Fault, Drop):
            call.injected = True
            raise

    def perform(self, call):
        """Performs a call."""
        self.access.check(call)
        try:
            self.stale.before(call)
            service = self.services.get(call.service)
            handler = service.handler(call.operation) if service else None
            reply = handler(call) if handler else self.forward(call)
            if not isinstance(reply, wire.Reply):
                output = {name: value for name, value in (reply or {}).items() if value is not None}
                self.problems += [
                    f"{call.name}: the double answered wrongly: {problem}"
                    for problem in validate.problems_of_answer(call, output)
                ]
                reply = wire.serialize(call, output)
            self.stale.created(call, reply)
            reply = self.stale.after(call, reply)
        except Forwarded as fault:
            call.error = fault.code
            return fault.reply
        except (Fault, Drop):
            raise
        except Exception as error:
            self.problems.append(
                f"{call.name}: the double itself failed: {traceback.format_exc(limit=-6)}"
            )
            raise Fault(501, "InternalFailure", f"the double itself failed: {error!r}") from error
        reply.headers.setdefault(
            "x-amz-request-id" if call.service == "s3" else "x-amzn-requestid", call.request_id
        )
        return reply


class Forwarded(Fault):
    """An error response of moto, already in the form of its protocol."""

    def __init__(self, reply, code, message):
        super().__init__(reply.status, code, message)
        self.reply = reply
