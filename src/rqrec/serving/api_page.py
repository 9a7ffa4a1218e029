"""The page /docs: the HTTP API for people, made from its OpenAPI description, without scripts and other hosts."""

import json
import shlex
from collections.abc import Mapping
from html import escape
from typing import Any
from urllib.parse import quote, urlencode

JsonSchema = Mapping[str, Any]
GROUPS = {"recommend": "Recommend", "catalogue": "Look at the catalogue", "operate": "Operate"}
SCHEMAS = "#/components/schemas/"
STYLE = """:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: #2f6fb2; }
@media (prefers-color-scheme: dark) { :root { --accent: #7db4ee; } }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 58rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; } h2 { margin-top: 2.6rem; } h3 { margin: 2rem 0 .3rem; font-size: 1.05rem; }
h3 code { font-size: 1.05rem; } a { color: var(--accent); }
.method { display: inline-block; min-width: 3.6rem; font-weight: 700; }
pre { background: var(--soft); padding: .7rem .9rem; border-radius: 6px; white-space: pre-wrap;
  overflow-wrap: anywhere; }
.table { overflow-x: auto; } table { border-collapse: collapse; font-size: .93rem; width: 100%; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
"""


def api_page(openapi: Mapping[str, Any], server: str) -> str:
    """The HTML of the page; `server` is the address in its examples, which need not be trusted."""
    schemas = openapi["components"]["schemas"]
    operations = [
        (method, path, one) for path, methods in openapi["paths"].items() for method, one in methods.items()
    ]
    parts = [f"<p>{_text(openapi['info']['description'])}</p>"]
    parts.append('<p>Programs read the same as <a href="openapi.json">openapi.json</a>.</p>')
    for tag, title in GROUPS.items():
        parts.append(f"<h2>{title}</h2>")
        for method, path, one in operations:
            if tag in one["tags"]:
                parts += _operation(method, path, one, schemas, server)
    parts.append("<h2>Objects</h2>")
    for name, schema in schemas.items():
        if schema.get("properties"):
            parts.append(f'<h3 id="{escape(name)}"><code>{escape(name)}</code></h3>')
            parts += [f"<p>{_text(schema['description'])}</p>"] if "description" in schema else []
            parts.append(_table(schema["properties"], schema.get("required", ())))
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>The HTTP API of rqrec</title>\n"
        '<link rel="stylesheet" href="docs/style.css">\n<link rel="icon" href="static/icon.svg">\n'
        f"<main>\n<h1>The HTTP API of rqrec {escape(openapi['info']['version'])}</h1>\n"
        + "\n".join(parts)
        + "\n</main>\n</html>\n"
    )


def _operation(
    method: str, path: str, one: Mapping[str, Any], schemas: Mapping[str, JsonSchema], server: str
) -> list[str]:
    """A route: what it does, its parameters, its body, an example, and what it returns."""
    head = f'<span class="method">{method.upper()}</span> <code>{escape(path)}</code>'
    parts = [f'<h3 id="{escape(one["operationId"])}">{head}</h3>', f"<p>{_text(one['description'])}</p>"]
    parameters = {
        one["name"]: {"description": "", **one, **one["schema"]} for one in one.get("parameters", ())
    }
    if parameters:
        required = [name for name, given in parameters.items() if given.get("required") is True]
        parts.append(_table(parameters, required))
    body = one.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if body:
        parts.append(f"<p>Body: {_kind(body)}.</p>")
    parts.append(f"<pre>{escape(_curl(method, path, parameters, _resolved(body, schemas), server))}</pre>")
    answer = one["responses"]["200"].get("content", {}).get("application/json", {}).get("schema")
    parts += [f"<p>Returns {_kind(answer)}.</p>"] if answer else []
    return parts


def _curl(method: str, path: str, parameters: Mapping[str, Any], body: JsonSchema, server: str) -> str:
    """An example of a request, for a shell."""
    examples = {name: str(given["examples"][0]) for name, given in parameters.items() if "examples" in given}
    for name, given in parameters.items():
        if given["in"] == "path":
            path = path.replace(f"{{{name}}}", quote(examples.pop(name, name.upper()), safe=""))
    url = f"{server}{path}" + (f"?{urlencode(examples)}" if examples else "")
    words = ["curl", "-s", *(() if method == "get" else ("-X", method.upper())), url]
    if "examples" in body:
        words += ["-H", "Content-Type: application/json", "-d", json.dumps(body["examples"][0])]
    return shlex.join(words)


def _table(properties: Mapping[str, JsonSchema], required: Any) -> str:
    """Names with their types, defaults and meanings."""
    rows = []
    for name, schema in properties.items():
        default = ""
        if name in required:
            default = "required"
        elif schema.get("default") not in (None, "", [], {}):
            default = f"<code>{escape(json.dumps(schema['default']))}</code>"
        meaning = _text(schema.get("description", ""))
        rows.append(f"<tr><td><code>{escape(name)}</code><td>{_kind(schema)}<td>{default}<td>{meaning}")
    head = "<tr><th>name<th>type<th>default<th>meaning"
    return f'<div class="table"><table>{head}{"".join(rows)}</table></div>'


def _kind(schema: JsonSchema) -> str:
    """The type of a value, as HTML; objects are links."""
    if "$ref" in schema:
        name = escape(schema["$ref"].removeprefix(SCHEMAS))
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(one) for one in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return ", ".join(
            f"<code>{escape(json.dumps(one))}</code>" for one in schema.get("enum", [schema.get("const")])
        )
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if isinstance(schema.get("additionalProperties"), Mapping):
        return f"object of {_kind(schema['additionalProperties'])}"
    return escape(str(schema.get("type", "any value")))


def _resolved(schema: JsonSchema, schemas: Mapping[str, JsonSchema]) -> JsonSchema:
    return schemas[schema["$ref"].removeprefix(SCHEMAS)] if "$ref" in schema else schema


def _text(text: str) -> str:
    """Plain text with `code`, as HTML."""
    parts = escape(" ".join(text.split())).split("`")
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))
