"""Kinesis: streams and records of moto, with transitional states and their errors."""

from .lifecycle import Lifecycle
from .service import Service, refuse

MOST_BEING_CREATED = 5


class Kinesis(Service):
    """Kinesis data streams."""

    name = "kinesis"

    def reset(self):
        self.lifecycles = {}

    def stream_of(self, call, state=None):
        """Returns the stream of a call, if its state allows the call."""
        given = call.parameters
        arn = given.get("StreamARN") or given.get("ResourceARN")
        name = given.get("StreamName") or (arn or "").rpartition("/")[2]
        if not name:
            raise refuse(
                "InvalidArgumentException", "Either StreamName or StreamARN must be given."
            )
        stream = self.store(call.region).streams.get(name)
        if not stream:
            raise refuse(
                "ResourceNotFoundException", f"Stream {name} under account 123456789012 not found."
            )
        if state and stream.status != state:
            raise refuse(
                "ResourceInUseException",
                (
                    f"Stream {name} under account 123456789012 not {state}, instead in state "
                    f"{stream.status}"
                ),
            )
        return stream

    def shift(self, stream, passing, settled, effect=None):
        """Puts a stream into a transitional state."""
        lifecycle = self.lifecycles.setdefault(stream.arn, Lifecycle(passing))

        def finish():
            stream.status = settled
            if effect:
                effect()

        stream.status = passing
        self.move(lifecycle, passing, settled, finish)

    def read(self, stream):
        if stream.arn in self.lifecycles:
            self.lifecycles[stream.arn].read()

    def do_create_stream(self, call):
        given, store = call.parameters, self.store(call.region)
        name, mode = (
            given["StreamName"],
            given.get("StreamModeDetails", {}).get("StreamMode", "PROVISIONED"),
        )
        if name in store.streams:
            raise refuse(
                "ResourceInUseException",
                f"Stream {name} under account 123456789012 already exists.",
            )
        if mode == "ON_DEMAND" and "ShardCount" in given:
            raise refuse(
                "ValidationException", "ShardCount cannot be given for an on-demand stream."
            )
        if mode == "PROVISIONED" and "ShardCount" not in given:
            raise refuse(
                "ValidationException", "ShardCount must be given for a provisioned stream."
            )
        if (
            sum(stream.status == "CREATING" for stream in store.streams.values())
            >= MOST_BEING_CREATED
        ):
            raise refuse(
                "LimitExceededException",
                (
                    "This request would exceed the number of streams that can be in the "
                    "CREATING state."
                ),
            )
        reply = self.forward(call)
        stream = store.streams[name]
        stream.tags.update(given.get("Tags", {}))
        self.shift(stream, "CREATING", "ACTIVE")
        return reply

    def shown(self, call):
        stream = self.stream_of(call)
        reply = self.forward(call)
        self.read(stream)
        return reply

    do_describe_stream = shown
    do_describe_stream_summary = shown

    def do_delete_stream(self, call):
        stream, store = self.stream_of(call), self.store(call.region)
        if stream.status == "DELETING":
            raise refuse(
                "ResourceInUseException",
                f"Stream {stream.stream_name} under account 123456789012 is being deleted.",
            )
        self.shift(
            stream, "DELETING", "DELETING", lambda: store.streams.pop(stream.stream_name, None)
        )

    def do_list_streams(self, call):
        store = self.store(call.region)
        reply = self.forward(call)
        for name in reply.output.get("StreamNames", []):
            if name in store.streams:
                self.read(store.streams[name])
        return reply

    def do_update_shard_count(self, call):
        stream, target = self.stream_of(call, "ACTIVE"), call.parameters["TargetShardCount"]
        if stream.stream_mode["StreamMode"] == "ON_DEMAND":
            raise refuse(
                "ValidationException",
                f"Request is invalid. Stream {stream.stream_name} is in on-demand mode.",
            )
        current = sum(shard.is_open for shard in stream.shards.values())
        if target > 2 * current or 2 * target < current:
            raise refuse(
                "LimitExceededException",
                (
                    f"UpdateShardCount cannot scale from {current} to {target} shards: at "
                    "most double, at least half."
                ),
            )
        reply = self.forward(call)
        self.shift(stream, "UPDATING", "ACTIVE")
        return reply

    def do_update_stream_mode(self, call):
        stream = self.stream_of(call, "ACTIVE")
        details = dict(call.parameters["StreamModeDetails"])

        def change():
            stream.stream_mode = details

        self.shift(stream, "UPDATING", "ACTIVE", change)

    def retain(self, call):
        stream, hours = self.stream_of(call, "ACTIVE"), call.parameters["RetentionPeriodHours"]
        grows = call.operation.startswith("Increase")
        if not 24 <= hours <= 8760:
            raise refuse(
                "InvalidArgumentException",
                f"The retention period must be from 24 to 8760 hours, not {hours}.",
            )
        if (
            (hours < stream.retention_period_hours)
            if grows
            else (hours > stream.retention_period_hours)
        ):
            raise refuse(
                "InvalidArgumentException",
                (
                    f"Requested retention period ({hours} hours) for stream "
                    f"{stream.stream_name} can not be {'shorter' if grows else 'longer'} than "
                    f"existing retention period ({stream.retention_period_hours} hours)."
                ),
            )

        def change():
            stream.retention_period_hours = hours

        self.shift(stream, "UPDATING", "ACTIVE", change)

    do_increase_stream_retention_period = retain
    do_decrease_stream_retention_period = retain

    def tag(self, call):
        self.stream_of(call).tags.update(call.parameters["Tags"])

    def untag(self, call):
        tags = self.stream_of(call).tags
        for key in call.parameters["TagKeys"]:
            tags.pop(key, None)

    def tags(self, call):
        tags = sorted(self.stream_of(call).tags.items())
        shown = {"Tags": [{"Key": key, "Value": value} for key, value in tags]}
        return shown | ({"HasMoreTags": False} if call.operation == "ListTagsForStream" else {})

    do_add_tags_to_stream = do_tag_resource = tag
    do_remove_tags_from_stream = do_untag_resource = untag
    do_list_tags_for_stream = do_list_tags_for_resource = tags
