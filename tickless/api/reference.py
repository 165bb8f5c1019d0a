"""Writes docs/reference/api.md from the API itself. After a change: python -m tickless.api.reference"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tickless.api.app import PREFIX, make_app
from tickless.api.document import ABOUT, document, operations

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "api.md"

_NO_BODY = "204"


def page() -> str:
    """docs/reference/api.md."""
    found = document(make_app(None))
    schemas: dict[str, Any] = found["components"]["schemas"]
    out = [
        "# HTTP API",
        "",
        "Made from the routes themselves by `python -m tickless.api.reference`; a test keeps it current. The daemon",
        f"serves the same as OpenAPI at `{PREFIX}/openapi.json`.",
        "",
        ABOUT,
    ]
    by_tag: dict[str, list[str]] = {}
    for path, method, operation in operations(found):
        by_tag.setdefault(operation["tags"][0], []).extend(_operation(path, method, operation, schemas))
    for tag, lines in by_tag.items():
        out += [f"## {tag.capitalize()}", "", *lines]
    out += ["## What is sent and answered", ""]
    for name, schema in sorted(schemas.items()):
        out += [f"### {_shown(name)}", "", *_schema(schema), ""]
    return "\n".join(out).rstrip() + "\n"


def _operation(path: str, method: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {method.upper()} {path}"
    yield ""
    yield f"{operation['description']} (`{operation['operationId']}`, access: {operation['x-tickless-access']})"
    yield ""
    for parameter in operation.get("parameters", ()):
        facts = [_type(parameter["schema"]), f"in the {parameter['in']}"]
        if "default" in parameter["schema"]:
            facts.append(f"default {parameter['schema']['default']}")
        yield f"- `{parameter['name']}` ({', '.join(facts)}): {parameter['description']}"
    if "requestBody" in operation:
        yield f"- Body: {_type(operation['requestBody']['content']['application/json']['schema'])}"
    good = [f"{status} {_content(response)}" for status, response in operation["responses"].items() if status < "300"]
    bad = [status for status in operation["responses"] if status >= "400"]
    yield f"- Answer: {', '.join(good)}; errors: {', '.join(bad) or 'none'}"
    yield ""


def _content(response: Mapping[str, Any]) -> str:
    for kind, content in response.get("content", {}).items():
        return _type(content["schema"]) if kind == "application/json" else f"`{kind}`"
    return "without content"


def _schema(schema: Mapping[str, Any]) -> Iterator[str]:
    if "description" in schema:
        yield schema["description"]
        yield ""
    if "enum" in schema:
        yield "One of " + ", ".join(f"`{value}`" for value in schema["enum"])
    for name, field in schema.get("properties", {}).items():
        facts = [_type(field), *(["required"] if name in schema.get("required", ()) else [])]
        about = " ".join(field.get("description", "").split())
        yield f"- `{name}` ({', '.join(facts)})" + (f": {about}" if about else "")


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{_shown(name)}](#{_shown(name).lower().replace(' ', '-')})"
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    match schema.get("type"):
        case "array" if "items" in schema:
            return f"list of {_type(schema['items'])}"
        case "object" if isinstance(schema.get("additionalProperties"), dict):
            return f"object of {_type(schema['additionalProperties'])}"
        case "string" if "format" in schema:
            return str(schema["format"])
        case None:
            return "any"
        case kind:
            return str(kind)


def _shown(name: str) -> str:
    """FastAPI's name of Page[RunView] is Page_RunView_."""
    kind, _, of = name.removesuffix("_").partition("_")
    return f"{kind} of {of}" if of else kind


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
