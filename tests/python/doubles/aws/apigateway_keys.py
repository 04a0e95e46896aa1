"""API keys, usage plans, and the keys of a plan."""

import copy

from . import patches
from .service import now, random_id, refuse

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
PLAN_SCALARS = {"name": str, "description": str, "productCode": str}


class Key:
    """One API key."""

    def __init__(self, region, given):
        self.region = region
        self.id = random_id(10, LETTERS)
        self.value = given.get("value") or random_id(40, LETTERS)
        self.tags = dict(given.get("tags", {}))
        self.settings = {
            name: given[name] for name in ("name", "description", "customerId") if name in given
        }
        self.settings["enabled"] = given.get("enabled", False)
        self.created = self.updated = now()

    def shown(self, value=False):
        shown = {
            **self.settings,
            "id": self.id,
            "createdDate": self.created,
            "lastUpdatedDate": self.updated,
            "stageKeys": [],
        }
        return (
            shown
            | ({"value": self.value} if value else {})
            | ({"tags": dict(self.tags)} if self.tags else {})
        )


class Plan:
    """One usage plan."""

    def __init__(self, region, settings):
        self.region = region
        self.id = random_id(6, LETTERS)
        self.tags = settings.pop("tags", {})
        self.settings = settings
        self.keys = []

    def shown(self):
        shown = {**copy.deepcopy(self.settings), "id": self.id}
        shown.setdefault("apiStages", [])
        return shown | ({"tags": dict(self.tags)} if self.tags else {})


class Keys:
    """Operations on keys and plans."""

    def do_create_api_key(self, call):
        given = call.parameters
        value = given.get("value")
        if value is not None and not 20 <= len(value) <= 128:
            raise refuse(
                "BadRequestException",
                "API Key value should be at least 20 characters"
                if len(value) < 20
                else "API Key value is too long",
            )
        if value is not None and any(key.value == value for key in self.keys.values()):
            raise refuse("ConflictException", "API Key already exists")
        key = Key(call.region, given)
        self.keys[key.id] = key
        return key.shown(value=True)

    def key_of(self, call, member):
        key = self.keys.get(call.parameters[member])
        if not key or key.region != call.region:
            raise refuse("NotFoundException", "Invalid API Key identifier specified")
        return key

    def do_get_api_key(self, call):
        return self.key_of(call, "apiKey").shown(call.parameters.get("includeValue", False))

    def do_get_api_keys(self, call):
        prefix = call.parameters.get("nameQuery", "")
        found = [
            key
            for key in self.in_region(self.keys, call)
            if key.settings.get("name", "").startswith(prefix)
        ]
        return self.page_of(
            call, [key.shown(call.parameters.get("includeValues", False)) for key in found]
        )

    def do_update_api_key(self, call):
        key = self.key_of(call, "apiKey")
        patches.apply(
            key.settings,
            call.parameters.get("patchOperations"),
            {"name": str, "description": str, "customerId": str, "enabled": bool},
        )
        key.updated = now()
        return key.shown()

    def do_delete_api_key(self, call):
        key = self.key_of(call, "apiKey")
        for plan in self.plans.values():
            plan.keys = [each for each in plan.keys if each is not key]
        del self.keys[key.id]

    def plan_of(self, call):
        plan = self.plans.get(call.parameters["usagePlanId"])
        if not plan or plan.region != call.region:
            raise refuse("NotFoundException", "Invalid Usage Plan ID specified")
        return plan

    def check_stage(self, call, api_id, stage):
        api = self.apis.get(api_id)
        if not api or api.region != call.region or stage not in api.stages:
            raise refuse("NotFoundException", f"API Stage not found: {api_id}:{stage}")

    def check_limits(self, settings):
        throttle, quota = settings.get("throttle", {}), settings.get("quota", {})
        if throttle.get("rateLimit", 0) < 0 or throttle.get("burstLimit", 0) < 0:
            raise refuse("BadRequestException", "Usage Plan throttle limits cannot be negative")
        if quota and (quota.get("limit", 0) <= 0 or "period" not in quota):
            raise refuse(
                "BadRequestException",
                "Usage Plan quota limit and period are both required, and positive",
            )

    def do_create_usage_plan(self, call):
        settings = copy.deepcopy(call.parameters)
        for stage in settings.get("apiStages", []):
            self.check_stage(call, stage.get("apiId"), stage.get("stage"))
        self.check_limits(settings)
        plan = Plan(call.region, settings)
        self.plans[plan.id] = plan
        return plan.shown()

    def do_get_usage_plan(self, call):
        return self.plan_of(call).shown()

    def do_get_usage_plans(self, call):
        key = call.parameters.get("keyId")
        found = [
            plan
            for plan in self.in_region(self.plans, call)
            if key is None or any(each.id == key for each in plan.keys)
        ]
        return self.page_of(call, [plan.shown() for plan in found])

    def do_update_usage_plan(self, call):
        plan, plain = self.plan_of(call), []
        changed = copy.deepcopy(plan.settings)
        for each in call.parameters.get("patchOperations", []):
            steps, op, value = (
                patches.steps_of(each.get("path", "")),
                each.get("op"),
                each.get("value"),
            )
            if steps == ["apiStages"] and op in ("add", "remove"):
                api_id, _, stage = (value or "").partition(":")
                stages = changed.setdefault("apiStages", [])
                here = [
                    entry for entry in stages if (entry["apiId"], entry["stage"]) == (api_id, stage)
                ]
                if op == "add":
                    self.check_stage(call, api_id, stage)
                    if here:
                        raise refuse(
                            "ConflictException", f"API Stage {value} is already in the usage plan"
                        )
                    stages.append({"apiId": api_id, "stage": stage})
                elif not here:
                    raise refuse("NotFoundException", f"API Stage not found: {value}")
                else:
                    stages.remove(here[0])
            elif steps[0] in ("throttle", "quota"):
                self.change_limit(changed, steps, op, value)
            else:
                plain.append(each)
        patches.apply(changed, plain, PLAN_SCALARS)
        self.check_limits(changed)
        plan.settings = changed
        return plan.shown()

    def change_limit(self, settings, steps, op, value):
        """A patch of a plan's throttle or quota."""
        if op == "remove" and len(steps) == 1:
            settings.pop(steps[0], None)
            return
        kinds = {"rateLimit": float, "burstLimit": int, "limit": int, "offset": int, "period": str}
        if op not in ("add", "replace") or len(steps) != 2 or steps[1] not in kinds:
            raise refuse(
                "BadRequestException",
                f"Invalid patch path '/{'/'.join(steps)}' specified for op '{op}'.",
            )
        settings.setdefault(steps[0], {})[steps[1]] = patches.typed(value, kinds[steps[1]])

    def do_delete_usage_plan(self, call):
        plan = self.plan_of(call)
        if plan.settings.get("apiStages"):
            raise refuse(
                "ConflictException",
                f"Cannot delete usage plan {plan.id}: its API stages must be removed first",
            )
        del self.plans[plan.id]

    def shown_in_plan(self, key):
        return {
            "id": key.id,
            "type": "API_KEY",
            "value": key.value,
            **({"name": key.settings["name"]} if "name" in key.settings else {}),
        }

    def do_create_usage_plan_key(self, call):
        plan, key = self.plan_of(call), self.key_of(call, "keyId")
        if call.parameters["keyType"] != "API_KEY":
            raise refuse("BadRequestException", "The keyType must be API_KEY")
        if key in plan.keys:
            raise refuse(
                "ConflictException",
                f"Usage Plan {plan.id} cannot be added because API Key {key.id} is in it already",
            )
        plan.keys.append(key)
        return self.shown_in_plan(key)

    def in_plan(self, call):
        plan, key = self.plan_of(call), self.key_of(call, "keyId")
        if key not in plan.keys:
            raise refuse("NotFoundException", f"Usage Plan Key not found for key {key.id}")
        return plan, key

    def do_get_usage_plan_key(self, call):
        return self.shown_in_plan(self.in_plan(call)[1])

    def do_get_usage_plan_keys(self, call):
        prefix = call.parameters.get("nameQuery", "")
        return self.page_of(
            call,
            [
                self.shown_in_plan(key)
                for key in self.plan_of(call).keys
                if key.settings.get("name", "").startswith(prefix)
            ],
        )

    def do_delete_usage_plan_key(self, call):
        plan, key = self.in_plan(call)
        plan.keys.remove(key)
