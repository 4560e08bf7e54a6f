#!/usr/bin/env python3
"""Holds requests and answers against an OpenAPI document.

usage: check_openapi.py DOCUMENT EXCHANGES

DOCUMENT is an OpenAPI 3.1 or 3.2 document in YAML. EXCHANGES is JSON: a list of objects with `method`, `path` (below the
document's server), `query` and `form` (lists of name and value; `form` is null where there is none), `status`,
`content_type` and `body`. Prints one JSON object: `faults`, a list of texts, and `answered`, what was asked for and
answered with success, as `METHOD /path/{template}`.
"""

import json
import re
import sys

import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

ROOT = "urn:document"


class Document:
    def __init__(self, text):
        self.tree = yaml.safe_load(text)
        resource = Resource.from_contents(self.tree, default_specification=DRAFT202012)
        self.registry = Registry().with_resource(ROOT, resource)
        self.paths = [(re.compile("^" + re.sub(r"\{[^}]+\}", "[^/]+", path) + "$"), path) for path in self.tree["paths"]]

    def resolve(self, node):
        while "$ref" in node:
            target = self.tree
            for key in node["$ref"].removeprefix("#/").split("/"):
                target = target[key.replace("~1", "/").replace("~0", "~")]
            node = target
        return node

    def errors(self, schema, value):
        schema = json.loads(json.dumps(schema).replace('"#/', f'"{ROOT}#/'))
        validator = Draft202012Validator(schema, registry=self.registry)
        return [f"at {error.json_path}: {error.message[:300]}" for error in validator.iter_errors(value)]

    def fits(self, schema, text):
        """Says whether the text of a parameter is a value of the schema: as a text, a number or a boolean."""
        values = [text, {"true": True, "false": False}.get(text, text)]
        for number in (int, float):
            try:
                values.append(number(text))
            except ValueError:
                pass
        return any(not self.errors(schema, value) for value in values)

    def find(self, exchange):
        for pattern, path in self.paths:
            if pattern.match(exchange["path"]):
                return path, self.tree["paths"][path].get(exchange["method"].lower())
        return None, None


def check_values(document, known, required, values):
    """Checks the parameters of a query or form: `known` has their schemas by name."""
    given = {}
    for name, value in values:
        given.setdefault(name, []).append(value)
    for name in required:
        if name not in given:
            yield f"parameter {name} is missing"
    for name, texts in given.items():
        if name not in known:
            yield f"parameter {name} is not documented"
            continue
        schema = document.resolve(known[name])
        of_one = schema.get("items", {}) if schema.get("type") == "array" else known[name]
        if schema.get("type") != "array" and len(texts) > 1:
            yield f"parameter {name} is given more than once"
        for text in texts:
            if not document.fits(of_one, text):
                yield f"parameter {name}: {text!r} is no value of it"


def check_request(document, operation, exchange):
    parameters = [document.resolve(p) for p in operation.get("parameters", [])]
    queried = [p for p in parameters if p["in"] == "query"]
    known = {p["name"]: p["schema"] for p in queried}
    required = [p["name"] for p in queried if p.get("required")]
    form = exchange["form"]
    # What a form has stands in no query.
    yield from check_values(document, known, [] if form else required, exchange["query"])
    if form is not None:
        content = document.resolve(operation.get("requestBody", {})).get("content", {})
        schema = content.get("application/x-www-form-urlencoded", {}).get("schema")
        if schema is None:
            yield "a form is not documented"
        else:
            schema = document.resolve(schema)
            yield from check_values(document, schema.get("properties", {}), schema.get("required", []), form)


def check_response(document, operation, exchange):
    responses = operation["responses"]
    response = responses.get(str(exchange["status"]), responses.get("default"))
    if response is None:
        yield f"status {exchange['status']} is not documented"
        return
    content = document.resolve(response).get("content")
    if not content:
        if exchange["body"]:
            yield "a body is not documented"
        return
    media_type = exchange["content_type"].split(";")[0].strip()
    media = content.get(media_type)
    if media is None:
        yield f"content type {media_type!r} is not documented"
        return
    if media_type == "application/json" and "schema" in media:
        yield from document.errors(media["schema"], json.loads(exchange["body"]))


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        document = Document(file.read())
    with open(sys.argv[2], encoding="utf-8") as file:
        exchanges = json.load(file)
    faults, answered = [], set()
    for exchange in exchanges:
        path, operation = document.find(exchange)
        what = f"{exchange['method']} {exchange['path']} {exchange['query']} {exchange['form']}: {exchange['status']}"
        if operation is None:
            faults.append(f"{what}: not documented")
            continue
        if exchange["status"] < 300:
            answered.add(f"{exchange['method']} {path}")
            # A request that is wrong is meant to be.
            faults += [f"{what}: {fault}" for fault in check_request(document, operation, exchange)]
        faults += [f"{what}: {fault}: {exchange['body'][:300]}" for fault in check_response(document, operation, exchange)]
    methods = {"get", "put", "post", "delete"}
    documented = [f"{m.upper()} {path}" for path, item in document.tree["paths"].items() for m in item if m in methods]
    print(json.dumps({"faults": faults, "answered": sorted(answered), "documented": documented}))


main()
