"""MSK Connect: custom plugins, worker configurations, connectors and their operations."""

import base64
import copy
import hashlib
import uuid

from .kafkaconnect_connectors import Connectors, Thing
from .lifecycle import Lifecycle
from .service import Service, random_id, refuse


class KafkaConnect(Connectors, Service):
    """MSK Connect."""

    name = "kafkaconnect"

    def reset(self):
        self.plugins, self.workers, self.connectors, self.operations = {}, {}, {}, {}

    def region_of(self, arn):
        return arn.split(":")[3]

    def find(self, table, arn, what):
        """Returns the resource of an ARN."""
        if arn not in table:
            raise refuse("NotFoundException", f"The {what} {arn} doesn't exist.")
        return table[arn]

    def new_arn(self, call, kind, name):
        return self.arn(call, f"{kind}/{name}/{uuid.uuid4()}-{random_id(1, '123456789')}")

    def check_name(self, call, table, name):
        if any(
            thing.name == name and self.region_of(thing.arn) == call.region
            for thing in table.values()
        ):
            raise refuse(
                "ConflictException",
                "A resource with this name already exists. Names must be unique.",
            )

    def listed(self, call, table, prefix):
        found = [
            t
            for t in table.values()
            if self.region_of(t.arn) == call.region and t.name.startswith(prefix or "")
        ]
        return self.page(
            sorted(found, key=lambda t: t.name),
            call.parameters.get("maxResults"),
            call.parameters.get("nextToken"),
        )

    def settle(self, thing, kind, failed):
        """Finishes a creation with the outcome that the test's hook sets."""
        thing.failure = self.aws.outcome(kind, thing.name)
        if thing.failure:
            thing.lifecycle.state = failed

    # Custom plugins.

    def do_create_custom_plugin(self, call):
        given = call.parameters
        self.check_name(call, self.plugins, given["name"])
        place = given["location"]["s3Location"]
        bucket = self.aws.bridge.store("s3").buckets.get(place["bucketArn"].rpartition(":")[2])
        stored = bucket and bucket.keys.get(place["fileKey"])
        if not stored:
            raise refuse(
                "BadRequestException",
                (
                    f"The S3 object {place['fileKey']} in {place['bucketArn']} couldn't be "
                    "found or read."
                ),
            )
        arn = self.new_arn(call, "custom-plugin", given["name"])
        # The plugin is a copy, so later changes of the object do not matter. The ETag of a
        # multipart object is no MD5.
        copied = {"size": stored.size, "md5": hashlib.md5(stored.value).hexdigest()}
        plugin = Thing(
            given["name"],
            arn,
            {**copy.deepcopy(given), **copied},
            dict(given.get("tags", {})),
            None,
        )
        plugin.settings.pop("tags", None)
        plugin.lifecycle = Lifecycle("CREATING")
        self.move(
            plugin.lifecycle,
            "CREATING",
            "ACTIVE",
            lambda: self.settle(plugin, "plugin", "CREATE_FAILED"),
        )
        self.plugins[arn] = plugin
        return {
            "customPluginArn": arn,
            "customPluginState": "CREATING",
            "name": plugin.name,
            "revision": 1,
        }

    def plugin_shown(self, plugin):
        settings, state = plugin.settings, plugin.lifecycle.read()
        revision = {
            "contentType": settings["contentType"],
            "creationTime": plugin.created,
            "description": settings.get("description"),
            "fileDescription": {"fileMd5": settings["md5"], "fileSize": settings["size"]},
            "location": settings["location"],
            "revision": 1,
        }
        shown = {
            "creationTime": plugin.created,
            "customPluginArn": plugin.arn,
            "customPluginState": state,
            "description": settings.get("description"),
            "latestRevision": {
                name: value for name, value in revision.items() if value is not None
            },
            "name": plugin.name,
        }
        return {name: value for name, value in shown.items() if value is not None}

    def do_describe_custom_plugin(self, call):
        plugin = self.find(self.plugins, call.parameters["customPluginArn"], "custom plugin")
        failure = (
            {"stateDescription": {"code": "InvalidInput", "message": plugin.failure}}
            if plugin.failure
            else {}
        )
        return {**self.plugin_shown(plugin), **failure}

    def do_list_custom_plugins(self, call):
        page, token = self.listed(call, self.plugins, call.parameters.get("namePrefix"))
        return {"customPlugins": [self.plugin_shown(plugin) for plugin in page], "nextToken": token}

    def do_delete_custom_plugin(self, call):
        plugin = self.find(self.plugins, call.parameters["customPluginArn"], "custom plugin")
        if plugin.lifecycle.moving:
            raise refuse(
                "BadRequestException",
                f"The custom plugin is in the {plugin.lifecycle.state} state and can't be deleted.",
            )
        if any(
            p["customPlugin"]["customPluginArn"] == plugin.arn
            for c in self.connectors.values()
            for p in c.settings["plugins"]
        ):
            raise refuse(
                "BadRequestException",
                "The custom plugin is in use by one or more connectors and can't be deleted.",
            )
        self.move(plugin.lifecycle, "DELETING", None, lambda: self.plugins.pop(plugin.arn, None))
        return {"customPluginArn": plugin.arn, "customPluginState": "DELETING"}

    # Worker configurations.

    def do_create_worker_configuration(self, call):
        given = call.parameters
        self.check_name(call, self.workers, given["name"])
        try:
            text = base64.b64decode(given["propertiesFileContent"], validate=True).decode()
        except ValueError:
            raise refuse(
                "BadRequestException", "The properties file content is not valid Base64."
            ) from None
        properties = dict(
            line.split("=", 1)
            for line in text.splitlines()
            if "=" in line and not line.startswith("#")
        )
        missing = [name for name in ("key.converter", "value.converter") if name not in properties]
        if missing:
            raise refuse(
                "BadRequestException", f"The worker configuration lacks the properties {missing}."
            )
        arn = self.new_arn(call, "worker-configuration", given["name"])
        settings = copy.deepcopy(given)
        worker = Thing(given["name"], arn, settings, settings.pop("tags", {}), Lifecycle("ACTIVE"))
        self.workers[arn] = worker
        shown = self.worker_shown(worker)
        shown.pop("description", None)
        return shown

    def worker_shown(self, worker, content=False):
        description = (
            {"description": worker.settings["description"]}
            if "description" in worker.settings
            else {}
        )
        revision = {"creationTime": worker.created, "revision": 1, **description}
        if content:
            revision["propertiesFileContent"] = worker.settings["propertiesFileContent"]
        return {
            "creationTime": worker.created,
            "latestRevision": revision,
            "name": worker.name,
            "workerConfigurationArn": worker.arn,
            "workerConfigurationState": worker.lifecycle.read(),
            **description,
        }

    def do_describe_worker_configuration(self, call):
        return self.worker_shown(
            self.find(
                self.workers, call.parameters["workerConfigurationArn"], "worker configuration"
            ),
            content=True,
        )

    def do_list_worker_configurations(self, call):
        page, token = self.listed(call, self.workers, call.parameters.get("namePrefix"))
        return {
            "workerConfigurations": [self.worker_shown(worker) for worker in page],
            "nextToken": token,
        }

    def do_delete_worker_configuration(self, call):
        worker = self.find(
            self.workers, call.parameters["workerConfigurationArn"], "worker configuration"
        )
        if any(
            c.settings.get("workerConfiguration", {}).get("workerConfigurationArn") == worker.arn
            for c in self.connectors.values()
        ):
            raise refuse(
                "BadRequestException",
                (
                    "The worker configuration is in use by one or more connectors and can't "
                    "be deleted."
                ),
            )
        self.move(worker.lifecycle, "DELETING", None, lambda: self.workers.pop(worker.arn, None))
        return {"workerConfigurationArn": worker.arn, "workerConfigurationState": "DELETING"}

    # Tags.

    def tagged(self, call):
        arn = call.parameters["resourceArn"]
        return self.find({**self.plugins, **self.workers, **self.connectors}, arn, "resource").tags

    def do_tag_resource(self, call):
        self.tagged(call).update(call.parameters["tags"])

    def do_untag_resource(self, call):
        tags = self.tagged(call)
        for key in call.parameters["tagKeys"]:
            tags.pop(key, None)

    def do_list_tags_for_resource(self, call):
        return {"tags": self.tagged(call)}
