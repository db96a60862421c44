"""The explorer's routes and schemas as Markdown, from its OpenAPI document; scripts/build_site.py puts it on a page."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from convscope.server.openapi import document

Json = Mapping[str, Any]


def markdown() -> str:
    """Routes by resource, then every schema that they refer to."""
    api = json.loads(document())
    by_tag: dict[str, list[str]] = {}
    for path, methods in api["paths"].items():
        for method, operation in methods.items():
            tag = operation.get("tags", ["other"])[0]
            by_tag.setdefault(tag, []).append("\n".join(_route(method, path, operation)))
    lines = ["## Routes"]
    for tag in sorted(by_tag):
        lines += ["", f"### {tag.capitalize()}", "", *by_tag[tag]]
    lines += ["", "## Schemas"]
    for name, schema in sorted(api["components"]["schemas"].items()):
        lines += ["", f"### {name}", "", *_schema(schema)]
    return "\n".join(lines) + "\n"


def _route(method: str, path: str, operation: Json) -> Iterator[str]:
    yield f"**`{method.upper()} {path}`**"
    yield ""
    yield _flat(operation.get("description") or operation.get("summary", ""))
    yield ""
    for parameter in operation.get("parameters", []):
        required = "" if parameter.get("required") else ", optional"
        about = f". {_flat(parameter['description'])}" if "description" in parameter else ""
        yield f"- `{parameter['name']}` ({parameter['in']}{required}): {_type(parameter['schema'])}{about}"
    if "requestBody" in operation:
        yield f"- body: {_content(operation['requestBody'])}"
    for status, response in operation["responses"].items():
        if status != "default":  # the same for all: a Problem
            yield f"- answer: {_content(response)}"
    yield ""


def _content(message: Json) -> str:
    """What a body or an answer holds: the type of its JSON, or another kind of data."""
    kinds = message.get("content", {})
    described = (
        _type(content.get("schema", {})) if kind.endswith("json") else f"`{kind}`" for kind, content in kinds.items()
    )
    return " or ".join(described) or _flat(message.get("description", ""))


def _schema(schema: Json) -> Iterator[str]:
    if schema.get("description"):
        yield _flat(schema["description"])
        yield ""
    fields = schema.get("properties", {})
    if not fields:
        yield _type(schema)
        return
    yield "| field | type | |"
    yield "|---|---|---|"
    needed = set(schema.get("required", []))
    for name, field in fields.items():
        default = f"by default `{json.dumps(field['default'])}`" if "default" in field else ""
        notes = [_flat(field.get("description", "")), default or ("" if name in needed else "may be left out")]
        yield f"| `{name}` | {_type(field)} | {_cell('; '.join(note for note in notes if note))} |"


def _type(schema: Json) -> str:
    """The type of a value in words, with a link where it has a name."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in schema or "enum" in schema:
        return _cell(", ".join(f"`{json.dumps(value)}`" for value in schema.get("enum", [schema.get("const")])))
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(_type(part) for part in schema[several]))
    kind = schema.get("type")
    if "prefixItems" in schema:
        return f"[{', '.join(_type(part) for part in schema['prefixItems'])}]"
    inner = schema.get("items" if kind == "array" else "additionalProperties")
    if isinstance(inner, Mapping):
        return f"{'list' if kind == 'array' else 'object'} of {_type(inner)}"
    return str(kind or "any value")


def _flat(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
