"""API Gateway's patch operations on plain settings."""

from .service import refuse


def steps_of(path):
    """Returns the steps of a JSON pointer."""
    return [step.replace("~1", "/").replace("~0", "~") for step in path.lstrip("/").split("/")]


def typed(value, kind):
    """Returns the text of a patch as the type of its setting."""
    if kind is bool:
        if value not in ("true", "false"):
            raise refuse("BadRequestException", f"Invalid value '{value}': a boolean is wanted")
        return value == "true"
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise refuse("BadRequestException", f"Invalid value '{value}'") from None


def apply(settings, operations, scalars, maps=(), lists=()):
    """Applies patch operations: `scalars` maps settings to types, `maps` and `lists` name
    containers.
    """
    for each in operations or []:
        op, path, value = each.get("op"), each.get("path", ""), each.get("value")
        steps = steps_of(path)
        head = steps[0]
        if op not in ("add", "remove", "replace"):
            raise refuse(
                "BadRequestException",
                (
                    "Invalid patch operation specified. Must be one of: [add, remove, "
                    f"replace], not {op}"
                ),
            )
        if op != "remove" and value is None:
            raise refuse("BadRequestException", f"A value is missing for the patch of {path}")
        if head in scalars and len(steps) == 1:
            if op == "remove":
                settings.pop(head, None)
            else:
                settings[head] = typed(value, scalars[head])
        elif head in maps and len(steps) == 2:
            members = settings.setdefault(head, {})
            kind = maps[head] if isinstance(maps, dict) else str
            if op == "remove":
                if members.pop(steps[1], None) is None:
                    raise refuse(
                        "NotFoundException", f"Invalid parameter name specified: {steps[1]}"
                    )
            else:
                members[steps[1]] = typed(value, kind)
        elif head in maps and op == "remove" and len(steps) == 1:
            settings.pop(head, None)
        elif head in lists and len(steps) == 2:
            members = settings.setdefault(head, [])
            if op == "remove":
                settings[head] = [member for member in members if member != steps[1]]
            elif op == "replace":
                settings[head] = [value if member == steps[1] else member for member in members]
            elif steps[1] not in members:
                members.append(steps[1])
        else:
            known = sorted(
                [f"/{name}" for name in scalars] + [f"/{name}/{{name}}" for name in (*maps, *lists)]
            )
            raise refuse(
                "BadRequestException",
                f"Invalid patch path '{path}' specified for op '{op}'. Must be one of: {known}",
            )
