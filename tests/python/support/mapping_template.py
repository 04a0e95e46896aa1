"""Renders mapping templates of API Gateway: Velocity, with `$input` and `$util`."""

import base64
import json
import re

import airspeed
import botocore.loaders
import botocore.model

# airspeed differs from Velocity 1.7 and 2.3, in which `matches` compares the whole string and a
# backslash in a string literal is a plain character.
airspeed.__additional_methods__[str]["matches"] = lambda text, pattern: (
    re.fullmatch(pattern, text) is not None
)
airspeed.StringLiteral.ESCAPED_CHAR = airspeed.InterpolatedStringLiteral.ESCAPED_CHAR = re.compile(
    r"(?!)"
)

STEP = re.compile(r"\.([A-Za-z_][\w]*)|\['([^']+)'\]|\[(\d+)\]")
MISSING = ""


class JavaMap(dict):
    """A JSON object as a template receives it. Its string form is that of a Java map, not JSON."""

    def containsKey(self, name):
        return name in self

    def __str__(self):
        return "{" + ", ".join(f"{name}={value}" for name, value in self.items()) + "}"


def java_value(value):
    if isinstance(value, dict):
        return JavaMap({name: java_value(member) for name, member in value.items()})
    if isinstance(value, list):
        return [java_value(member) for member in value]
    return value


class Input:
    """`$input`: the body by JSON path, and the parameters. A missing value is an empty string."""

    def __init__(self, body, parameters):
        self.body = body
        self.parameters = parameters

    def find(self, path):
        steps = list(STEP.finditer(path))
        assert path == "$" + "".join(step[0] for step in steps), (
            f"a path that this renderer does not support: {path}"
        )
        found = json.loads(self.body) if self.body else MISSING
        for step in steps:
            name = step[1] or step[2]
            if name is not None:
                found = found.get(name, MISSING) if isinstance(found, dict) else MISSING
            else:
                found = (
                    found[int(step[3])]
                    if isinstance(found, list) and int(step[3]) < len(found)
                    else MISSING
                )
        return found

    def path(self, path):
        return java_value(self.find(path))

    def json(self, path):
        # The JSON writer of API Gateway also escapes slashes.
        return json.dumps(self.find(path), ensure_ascii=False, separators=(",", ":")).replace(
            "/", "\\/"
        )

    def params(self, name):
        return self.parameters.get(name, MISSING)


class Util:
    """`$util`, with escapeJavaScript of Commons Lang 2, which escapes apostrophes and slashes."""

    SHORT = {
        '"': '\\"',
        "'": "\\'",
        "/": "\\/",
        "\\": "\\\\",
        "\b": "\\b",
        "\n": "\\n",
        "\t": "\\t",
        "\f": "\\f",
        "\r": "\\r",
    }

    def base64Encode(self, text):
        assert isinstance(text, str), f"{text!r} is not a text"
        return base64.b64encode(text.encode()).decode()

    def escapeJavaScript(self, text):
        units = text.encode("utf-16-be")
        characters = (chr(units[i] << 8 | units[i + 1]) for i in range(0, len(units), 2))
        return "".join(
            self.SHORT.get(c) or (c if " " <= c <= "~" else f"\\u{ord(c):04X}") for c in characters
        )


def apply(template, body="", **parameters):
    """Returns what API Gateway would forward.

    In the names of path, query and header parameters, `_` stands for `-`.
    """
    named = {name.replace("_", "-"): value for name, value in parameters.items()}
    return airspeed.Template(template).merge({"input": Input(body, named), "util": Util()})


KINESIS = botocore.model.ServiceModel(
    botocore.loaders.Loader().load_service_model("kinesis", "service-2")
)


OPERATIONS = {
    "list_streams.vtl": "ListStreams",
    "describe_stream.vtl": "DescribeStream",
    "create_stream.vtl": "CreateStream",
    "delete_stream.vtl": "DeleteStream",
    "put_record.vtl": "PutRecord",
    "put_records.vtl": "PutRecords",
}


POST = {
    "index": 7528,
    "title": 'Bob\'s "café" — 10 ½ ideas, a/b\\c',
    "description": "first line\nsecond\tline\r\u2028 \u0001",
    "poster_name": "Ελένη Иван 🎨😀\u00a0",
    "price": "$100 ${x} $input.path('$') $util #set($a = 1) #if(true) #end ## no comment",
    "follower_count": "46k",
    "numbers": [0, -1, 2.5, 9007199254740993, 1e-7],
    "nested": {"a": {"b": [None, True, False, {"": ""}]}, "empty": {}, "none": []},
}
