"""The schemas of docs/json.md, for tests: validate("status", object)."""

import json
import pathlib
import re

import jsonschema

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "json.md"
SCHEMA = re.compile(r"^### (?P<name>.+?)\n.*?^```json\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def load(page=PAGE):
    """Name of each heading -> its schema."""
    schemas = {match["name"]: json.loads(match["text"]) for match in SCHEMA.finditer(page.read_text())}
    headings = re.findall(r"^### (.+)$", page.read_text(), re.MULTILINE)
    if list(schemas) != headings:
        raise AssertionError(f"{page}: headings {headings}, schemas {list(schemas)}")
    for name, schema in schemas.items():
        jsonschema.Draft202012Validator.check_schema(schema)
        if schema["$id"] != "godwit:" + name.replace(" ", ":"):
            raise AssertionError(f"{page}: the schema under {name} calls itself {schema['$id']}")
    return schemas


_SCHEMAS = load()
_STORE = {schema["$id"]: schema for schema in _SCHEMAS.values()}


def validate(name, value):
    """Raises jsonschema.ValidationError unless `value` is as the schema under the heading `name` says."""
    schema = _SCHEMAS[name]
    resolver = jsonschema.RefResolver("", schema, store=_STORE)
    jsonschema.Draft202012Validator(schema, resolver=resolver).validate(value)


def validate_event(event):
    """The schema is the one of the event's own name."""
    validate("event " + event["event"], event)


def names():
    return list(_SCHEMAS)
