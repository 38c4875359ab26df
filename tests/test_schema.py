"""The validator knows the words of JSON Schema that it claims to know, and the schema says no."""

import copy
import json

import pytest

from harness import schema

READY = {
    "event": "ready",
    "program": "udp-receiver",
    "pid": 7,
    "address": "10.0.0.2",
    "port": 40000,
}


@pytest.mark.parametrize(
    ("rules", "good", "bad"),
    [
        ({"type": "integer"}, [0, -3], [1.5, True, None, "1"]),
        ({"type": "number"}, [0, 1.5], [True, float("nan"), float("inf"), "1"]),
        ({"type": ["string", "null"]}, ["", None], [0, []]),
        ({"type": "boolean"}, [True, False], [0, 1, None]),
        ({"const": 1}, [1], [2, "1"]),
        ({"enum": ["a", None]}, ["a", None], ["b", 0]),
        ({"minimum": 0, "maximum": 9}, [0, 9, "no number"], [-1, 10]),
        ({"minLength": 1}, ["a"], [""]),
        ({"pattern": "^[a-z]+$"}, ["abc"], ["", "a1"]),
        ({"items": {"type": "integer"}, "minItems": 1}, [[1], [1, 2]], [[], [1, "2"]]),
        ({"required": ["a"]}, [{"a": 1}, {"a": None, "b": 2}], [{}, {"b": 1}]),
        (
            {"properties": {"a": {"type": "integer"}}, "additionalProperties": False},
            [{}, {"a": 1}],
            [{"a": "1"}, {"b": 1}],
        ),
        ({"additionalProperties": {"type": "integer"}}, [{"x": 1}], [{"x": "1"}]),
        ({"anyOf": [{"type": "integer"}, {"type": "number"}]}, [1, 1.5], ["1"]),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, [1.5], [1, "1"]),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}}, [1], ["1"]),
    ],
)
def test_each_word(rules, good, bad):
    for value in good:
        schema.check(value, schema=rules)
    for value in bad:
        with pytest.raises(schema.Invalid):
            schema.check(value, schema=rules)


def test_a_word_it_does_not_know_is_an_error():
    with pytest.raises(TypeError):
        schema.check({}, schema={"maxProperties": 1})


def test_the_schema_uses_known_words_only():
    def walk(rules):
        assert set(rules) <= schema._NOTES | schema._RULES, rules
        for name in ("$defs", "properties"):
            for each in rules.get(name, {}).values():
                walk(each)
        for name in ("anyOf", "oneOf"):
            for each in rules.get(name, []):
                walk(each)
        for name in ("items", "additionalProperties"):
            if isinstance(rules.get(name), dict):
                walk(rules[name])

    walk(schema.load())


def test_every_reference_leads_somewhere():
    root = schema.load()
    text = json.dumps(root)
    for part in text.split('"$ref": "#/$defs/')[1:]:
        assert part.split('"')[0] in root["$defs"]


def test_a_line_says_where_it_is_wrong():
    assert schema.line(json.dumps(READY)) == READY
    for change, word in (
        ({"port": "40000"}, "port"),
        ({"pid": 0}, "pid"),
        ({"program": "sctp-receiver"}, "program"),
        ({"prot": 6}, "prot"),
    ):
        with pytest.raises(schema.Invalid, match=word):
            schema.line(json.dumps({**READY, **change}))


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '{"event":"ready"}', '{"event":"hello"}'])
def test_what_is_no_line(text):
    with pytest.raises(schema.Invalid):
        schema.line(text)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_never_nan(number):
    with pytest.raises(schema.Invalid):
        schema.line('{"event":"reply","flow":0,"seq":0,"bytes":64,"rtt_ns":%s}' % number)


def test_a_wire_line_is_no_program_line():
    answer = '{"event":"drained","time_ns":5}'
    assert schema.line(answer, "wire_line")["time_ns"] == 5
    with pytest.raises(schema.Invalid):
        schema.line(answer)


def account():
    spread = {"mean": None, "max": None}
    counted = {"count": 0, "mean": None, "max": None}
    delay = dict.fromkeys(["min", "mean", "p50", "p90", "p99", "p99_9", "max", "reason"])
    delay.update(samples=0, censored=True)
    return {
        "expected": 3,
        "received": 0,
        "lost": 3,
        "duplicates": 0,
        "reordered": 0,
        "late": 0,
        "waiting_time_ns": None,
        "loss_ratio": 1.0,
        "duplicate_fraction": None,
        "replicated_rate": None,
        "order": {
            "reordered_ratio": None,
            "extent": spread,
            "late_time_ns": spread,
            "byte_offset": spread,
            "gaps": counted,
            "free_runs": counted,
            "n_reordered": [],
            "density": {"threshold": 8, "values": []},
        },
        "bursts": {"count": 1, "mean": 3, "max": 3, "lengths": [{"length": 3, "count": 1}]},
        "delay_from_due_ns": delay,
        "delay_from_sent_ns": delay,
        "jitter_ns": {"rfc3550": None, "ipdv": None, "pdv": None},
    }


def test_an_account():
    schema.check(account(), "account")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["received"], None),
        (["received"], 1.0),
        (["lost"], -1),
        (["late"], True),
        (["order", "extent"], {"mean": 1}),
        (["order", "n_reordered"], [{"n": 0, "count": 1}]),
        (["bursts", "lengths"], [{"length": 0, "count": 1}]),
        (["delay_from_due_ns", "p99"], 1.5),
        (["delay_from_due_ns", "censored"], 0),
        (["jitter_ns", "pdv"], {"mean": 1.0}),
    ],
)
def test_an_account_that_is_wrong(path, value):
    wrong = copy.deepcopy(account())
    place = wrong
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(schema.Invalid):
        schema.check(wrong, "account")
    place.pop(path[-1])
    with pytest.raises(schema.Invalid, match="lacks"):
        schema.check(wrong, "account")
