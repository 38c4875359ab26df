"""Holds JSON to a schema: the part of JSON Schema (2020-12) that tests/schema.json uses.

Unknown words in a schema are an error here, so that no rule is written down and then not held.
"""

import json
import math
import re
from functools import lru_cache
from pathlib import Path

PATH = Path(__file__).resolve().parents[1] / "schema.json"

_NOTES = {"$schema", "$id", "$defs", "$comment", "title", "description"}
_RULES = {
    "$ref",
    "additionalProperties",
    "anyOf",
    "const",
    "enum",
    "items",
    "maximum",
    "minItems",
    "minimum",
    "minLength",
    "oneOf",
    "pattern",
    "properties",
    "required",
    "type",
}


class Invalid(ValueError):
    """A value that breaks its schema; the text says where, and what was allowed."""


def _is(kind, value):
    if kind == "null":
        return value is None
    if kind == "boolean":
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    if kind == "integer":
        return isinstance(value, int)
    if kind == "number":
        return isinstance(value, (int, float)) and math.isfinite(value)
    return isinstance(value, {"string": str, "object": dict, "array": list}[kind])


def _alternatives(value, schema, root, where):
    """The faults against each alternative of anyOf or oneOf, one list for each."""
    key = "oneOf" if "oneOf" in schema else "anyOf"
    return key, [list(_faults(value, each, root, where)) for each in schema[key]]


def _faults(value, schema, root, where):
    unknown = set(schema) - _NOTES - _RULES
    if unknown:
        raise TypeError(f"the schema uses words that this validator does not know: {unknown}")
    if "$ref" in schema:
        target = root
        for step in schema["$ref"].lstrip("#/").split("/"):
            target = target[step]
        yield from _faults(value, target, root, where)
    if "type" in schema:
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if not any(_is(kind, value) for kind in kinds):
            yield f"{where} is {json.dumps(value)[:60]}, not {' or '.join(kinds)}"
            return
    if "const" in schema and value != schema["const"]:
        yield f"{where} is {json.dumps(value)[:60]}, not {json.dumps(schema['const'])}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where} is {json.dumps(value)[:60]}, not one of {json.dumps(schema['enum'])}"
    if "anyOf" in schema or "oneOf" in schema:
        key, tried = _alternatives(value, schema, root, where)
        good = sum(not faults for faults in tried)
        if good == 0:
            best = min(tried, key=len)
            yield f"{where} fits none of {len(tried)} shapes; nearest: " + "; ".join(best)
        elif key == "oneOf" and good > 1:
            yield f"{where} fits {good} shapes where it should fit one"
    if _is("number", value):
        if value < schema.get("minimum", value):
            yield f"{where} is {value}, below {schema['minimum']}"
        if value > schema.get("maximum", value):
            yield f"{where} is {value}, above {schema['maximum']}"
    if isinstance(value, str):
        if len(value) < schema.get("minLength", 0):
            yield f"{where} is shorter than {schema['minLength']}"
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield f"{where} is {value!r}, which is not {schema['pattern']}"
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            yield f"{where} has {len(value)} items, fewer than {schema['minItems']}"
        if "items" in schema:
            for n, each in enumerate(value):
                yield from _faults(each, schema["items"], root, f"{where}[{n}]")
    if isinstance(value, dict):
        yield from _object_faults(value, schema, root, where)


def _object_faults(value, schema, root, where):
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{where} lacks {name!r}"
    known = schema.get("properties", {})
    rest = schema.get("additionalProperties", True)
    for name, each in value.items():
        if name in known:
            yield from _faults(each, known[name], root, f"{where}.{name}")
        elif rest is False:
            yield f"{where} has {name!r}, which the schema does not know"
        elif isinstance(rest, dict):
            yield from _faults(each, rest, root, f"{where}.{name}")


@lru_cache(maxsize=None)
def load(path=PATH):
    """The schema file as a dict."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def check(value, part=None, schema=None):
    """Raise Invalid unless `value` obeys the schema, or one of its $defs (`part`)."""
    root = schema if schema is not None else load()
    rules = {"$ref": f"#/$defs/{part}"} if part else root
    faults = list(_faults(value, rules, root, "it"))
    if faults:
        raise Invalid("; ".join(faults[:4]))


def _no_constant(text):
    raise Invalid(f"{text} is not JSON")


def _part_of(value):
    """Which of program_line's shapes a line says it is, so that its faults can be told exactly."""
    if not isinstance(value, dict):
        return "program_line"
    event = value.get("event")
    if event == "summary":
        role = str(value.get("program")).rpartition("-")[2]
        # What is no twin reports as the twin that it is a variant of.
        role = {"write_write_read": "client", "unconnected": "client"}.get(role, role)
        return f"{role}_summary" if f"{role}_summary" in load()["$defs"] else "program_line"
    if value.get("program") == "tcp-states" and event == "ready" or event == "state":
        return f"states_{event}"
    return event if event in ("ready", "reply", "queue", "error") else "program_line"


def line(text, part="program_line"):
    """One line of output as a dict that obeys the schema, or Invalid."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise Invalid(f"not JSON ({error.msg}): {text[:80]!r}") from None
    check(value, _part_of(value) if part == "program_line" else part)
    return value
