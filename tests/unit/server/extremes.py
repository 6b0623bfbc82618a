"""Requests with a value that makes no sense in each place where a value can stand."""

import json
from collections.abc import Iterator
from typing import Any

MESSAGE = {"role": "user", "content": "Hello"}
TOOL = {"type": "function", "function": {"name": "f"}}
BASES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [MESSAGE], "max_tokens": 2},
    "/v1/completions": {"prompt": "Hello", "max_tokens": 2},
    "/v1/responses": {"input": "Hello", "max_output_tokens": 2},
    "/api/chat": {"model": "MODEL", "messages": [MESSAGE], "stream": False, "options": {"num_predict": 2}},
    "/api/generate": {"model": "MODEL", "prompt": "Hello", "stream": False, "options": {"num_predict": 2}},
    "/api/show": {"model": "MODEL"},
    "/tokenize": {"prompt": "Hello"},
    "/detokenize": {"tokens": [5, 6]},
}
VALUES = [
    "NaN", "Infinity", "-Infinity", "1e308", "1e309", "-1", "0", "1", "0.5", "-0.0", "5e-324", str(2**31),
    str(2**31 + 1), str(2**53 + 1), str(2**63 - 1), str(2**63), str(-(2**63) - 1), "1" + "0" * 400, "1" + "0" * 5000,
    '""', '"5"', '" "',
    '"\\u0000"', '"\\ud800"', '"\U0001f600"', json.dumps("a" * 100_000), "null", "true", "false", "[]", "{}", "[[]]",
    "[null]", '[""]', "[1]", '{"": null}', '{"type": "object"}', '{"$ref": "#"}', "[" * 60 + "]" * 60,
]  # fmt: skip
WHOLE = ["", "{", "[]", "null", "5", '"x"', "NaN", "{}", '{"a": 1, "a": 2}', "\x00", "[" * 100_000, "\ufeff{}"]


def cases(document: dict[str, Any], model: str) -> Iterator[tuple[str, bytes]]:
    """(path, body) for each value in each field of each body that /openapi.json describes, two levels deep."""
    schemas = document["components"]["schemas"]
    for path, base in BASES.items():
        base = json.loads(json.dumps(base).replace("MODEL", model))
        for body in WHOLE:
            yield path, body.encode()
        schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        for place in places(schema, schemas):
            for value in VALUES:
                yield path, put(base, place, value)


def places(schema: dict[str, Any], schemas: dict[str, Any], depth: int = 3) -> Iterator[tuple[str | int, ...]]:
    """Where a value can stand: the names and indexes that lead there."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    for variant in schema.get("anyOf", []):
        yield from places(variant, schemas, depth)
    if depth and "items" in schema:
        yield (0,)
        yield from ((0, *rest) for rest in places(schema["items"], schemas, depth - 1))
    for name, inner in schema.get("properties", {}).items() if depth else ():
        yield (name,)
        yield from ((name, *rest) for rest in places(inner, schemas, depth - 1))


def put(base: dict[str, Any], place: tuple[str | int, ...], value: str) -> bytes:
    """`base` with `value`, which is written as JSON, put there; what leads there is made up where it is missing."""
    marker = "\x01here"
    made: Any = marker
    for step in reversed(place[1:]):
        made = (
            [made]
            if isinstance(step, int)
            else {"type": "function"} | {step: made}
            if step == "function"
            else {step: made}
        )
    return json.dumps(base | {str(place[0]): made}).replace(json.dumps(marker), value, 1).encode(errors="surrogatepass")
