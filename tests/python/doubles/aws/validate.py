"""Validates a request by the service model: members, types, enums, patterns, lengths and ranges."""

import base64
import functools
import json
import re
from datetime import datetime
from urllib.parse import parse_qs
from xml.etree import ElementTree

from botocore.serialize import create_serializer

from . import wire

try:
    import regex as expressions
except ImportError:
    expressions = re

INTEGERS = ("integer", "long", "short", "byte")
NUMBERS = (*INTEGERS, "float", "double")


@functools.cache
def pattern_of(text):
    """Returns a pattern of a model; AWS matches the whole value, anchored or not."""
    try:
        return expressions.compile(text)
    except Exception:
        return None


def shown(value):
    text = repr(value)
    return text if len(text) < 120 else f"{text[:117]}..."


def check_constraints(shape, value, path):
    """Returns violations of the model's constraints by a parsed value."""
    kind, traits = shape.type_name, shape.metadata
    if kind == "structure":
        if shape.is_document_type or not isinstance(value, dict):
            return
        for name in shape.required_members:
            if value.get(name) is None:
                yield f"{path}{name}: required, and missing"
        if shape.is_tagged_union and len(value) != 1:
            yield f"{path.rstrip('.')}: exactly one member must be set, not {sorted(value)}"
        for name, member in value.items():
            if name in shape.members and member is not None:
                yield from check_constraints(shape.members[name], member, f"{path}{name}.")
        return
    here = path.rstrip(".")
    if kind in ("list", "map", "string", "blob"):
        yield from check_range(len(value), traits, here, "length")
    if kind == "list":
        for index, item in enumerate(value):
            yield from check_constraints(shape.member, item, f"{here}[{index}].")
    elif kind == "map":
        for key, item in value.items():
            yield from check_constraints(shape.key, key, f"{here} key {key!r}.")
            yield from check_constraints(shape.value, item, f"{here}[{key!r}].")
    elif kind == "string":
        if shape.enum and value not in shape.enum:
            yield f"{here}: {shown(value)} is none of {shown(shape.enum)}"
        if "pattern" in traits:
            pattern = pattern_of(traits["pattern"])
            if pattern and not pattern.fullmatch(value):
                yield f"{here}: {shown(value)} does not match {traits['pattern']}"
    elif kind in NUMBERS:
        yield from check_range(value, traits, here, "value")


def check_range(value, traits, here, what):
    if "min" in traits and value < traits["min"]:
        yield f"{here}: {what} {value} is under the minimum {traits['min']}"
    if "max" in traits and value > traits["max"]:
        yield f"{here}: {what} {value} is over the maximum {traits['max']}"


def check_json(shape, value, path, top=False):
    """Returns wrong types and unknown members of a JSON value, before any parser."""
    kind, here = shape.type_name, path.rstrip(".") or "body"
    wrong = None
    if kind == "structure":
        if shape.is_document_type:
            return
        if not isinstance(value, dict):
            yield f"{here}: an object is wanted, not {shown(value)}"
            return
        known = {
            member.serialization.get("name", name): (name, member)
            for name, member in shape.members.items()
            if not (top and "location" in member.serialization)
        }
        for key, item in value.items():
            if key not in known:
                yield f"{path}{key}: unknown member"
            elif item is not None:
                name, member = known[key]
                yield from check_json(member, item, f"{path}{name}.")
    elif kind == "list":
        if not isinstance(value, list):
            wrong = "a list"
        else:
            for index, item in enumerate(value):
                yield from check_json(shape.member, item, f"{here}[{index}].")
    elif kind == "map":
        if not isinstance(value, dict):
            wrong = "a map"
        else:
            for key, item in value.items():
                yield from check_json(shape.value, item, f"{here}[{key!r}].")
    elif kind == "string":
        wrong = None if isinstance(value, str) else "a string"
    elif kind == "boolean":
        wrong = None if isinstance(value, bool) else "a boolean"
    elif kind in INTEGERS:
        wrong = None if isinstance(value, int) and not isinstance(value, bool) else "an integer"
    elif kind in NUMBERS:
        wrong = (
            None if isinstance(value, (int, float)) and not isinstance(value, bool) else "a number"
        )
    elif kind == "timestamp":
        wrong = (
            None
            if isinstance(value, (int, float, str)) and not isinstance(value, bool)
            else "a timestamp"
        )
    elif kind == "blob":
        try:
            base64.b64decode(value, validate=True)
        except (ValueError, TypeError):
            wrong = "base64"
    if wrong:
        yield f"{here}: {wrong} is wanted, not {shown(value)}"


def check_xml(shape, node, path):
    """Returns unknown elements of an XML body."""
    if shape.type_name == "structure":
        known = {}
        for name, member in shape.members.items():
            if "location" in member.serialization:
                continue
            own = member.serialization.get("name", name)
            if member.type_name == "list" and member.serialization.get("flattened"):
                own = member.member.serialization.get("name", own)
                member = member.member
            known[own] = (name, member)
        for child in node:
            tag = child.tag.rpartition("}")[2]
            if tag not in known:
                yield f"{path}{tag}: unknown element"
            else:
                yield from check_xml(known[tag][1], child, f"{path}{known[tag][0]}.")
    elif shape.type_name == "list":
        wanted = shape.member.serialization.get("name", "member")
        for index, child in enumerate(node):
            tag = child.tag.rpartition("}")[2]
            if tag != wanted:
                yield f"{path}{tag}: unknown element, {wanted} is wanted"
            else:
                yield from check_xml(shape.member, child, f"{path.rstrip('.')}[{index}].")
    elif shape.type_name in INTEGERS and not re.fullmatch(r"-?\d+", node.text or ""):
        yield f"{path.rstrip('.')}: an integer is wanted, not {shown(node.text)}"
    elif shape.type_name == "boolean" and node.text not in ("true", "false"):
        yield f"{path.rstrip('.')}: a boolean is wanted, not {shown(node.text)}"


@functools.cache
def query_serializer(protocol):
    return create_serializer(protocol, include_validation=False)


def check_query(call):
    """Returns unknown and mistyped members of a form: those that serializing the parsed parameters
    does not give again.
    """
    form = parse_qs(call.body.decode(), keep_blank_values=True)
    again = query_serializer(call.protocol).serialize_to_request(
        call.parameters, call.operation_model
    )["body"]
    for key, values in form.items():
        if key in ("Action", "Version"):
            continue
        if len(values) > 1:
            yield f"{key}: sent {len(values)} times"
        if key not in again:
            # An empty list is sent as a bare key, which is not serialized again.
            if values[0]:
                yield f"{key}: unknown member"
        elif (
            not isinstance(again[key], (bytes, datetime))
            and str(again[key]) != values[0]
            and str(again[key]).lower() in ("true", "false")
        ):
            yield f"{key}: a boolean is wanted, not {shown(values[0])}"


def check_rest_places(call):
    """Returns unknown members of a REST query string."""
    shape = call.operation_model.input_shape
    places = [m.serialization for m in shape.members.values()] if shape else []
    if any(place.get("location") == "querystring" and "name" not in place for place in places):
        return
    known = {place["name"] for place in places if place.get("location") == "querystring"}
    for key in wire.query_keys(call):
        if key not in known:
            yield f"query string {key}: unknown member"


def body_shape(call):
    """Returns the shape of the body, and whether it excludes located members of the input."""
    shape = call.operation_model.input_shape
    if shape is None:
        return None, False
    payload = shape.serialization.get("payload")
    if payload:
        member = shape.members[payload]
        return (None, False) if member.type_name in ("blob", "string") else (member, False)
    return shape, True


def check_wire(call):
    """Returns problems of the bytes, before they are parsed."""
    protocol = call.protocol
    if protocol.startswith("rest"):
        yield from check_rest_places(call)
    shape, top = body_shape(call)
    if not call.body or protocol in ("query", "ec2"):
        return
    if protocol in ("json", "rest-json"):
        try:
            value = json.loads(call.body)
        except ValueError as error:
            yield f"body: not JSON: {error}"
            return
        if shape is None:
            if value and call.operation_model.input_shape is None:
                yield f"body: none is wanted, not {shown(value)}"
        else:
            yield from check_json(shape, value, "", top)
    elif shape is not None:
        try:
            node = ElementTree.fromstring(call.body)
        except ElementTree.ParseError as error:
            yield f"body: not XML: {error}"
            return
        yield from check_xml(shape, node, "")


def problems_of(call):
    """Returns all problems of a request; also sets the parameters of the call."""
    if call.unreadable:
        return [call.unreadable]
    found = list(check_wire(call))
    try:
        call.parameters = wire.parse_parameters(call)
    except Exception as error:
        return [*found, f"cannot be parsed: {type(error).__name__}: {error}"]
    if call.protocol in ("query", "ec2"):
        found += check_query(call)
    if call.operation_model.input_shape is not None:
        found += check_constraints(call.operation_model.input_shape, call.parameters, "")
    return list(dict.fromkeys(found))


def problems_of_answer(call, output):
    """Returns problems of a response that the double created itself."""
    shape = call.operation_model.output_shape
    if shape is None or not isinstance(output, dict):
        return []
    unknown = [
        f"{name}: unknown member"
        for name in output
        if name not in shape.members and name != "ResponseMetadata"
    ]
    return unknown + list(check_constraints(shape, output, ""))
