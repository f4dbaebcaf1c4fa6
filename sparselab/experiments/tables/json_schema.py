"""The JSON Schema of a table's YAML, for editors: ``configs/paper/schema.json`` [no torch].

An editor that knows it completes keys and marks mistakes while one types; it finds it by a first line such as
``# yaml-language-server: $schema=schema.json``. What a schema cannot say (names of rows in claims, cells without a record)
``sparselab check paper=…`` says.
"""

from __future__ import annotations

import json
from typing import Any

from sparselab.core.containers import copied
from sparselab.experiments.tables.claims import CLAIMS
from sparselab.experiments.tables.schema import CLAIM_NAME, TIERS, Table

NAME = "schema.json"
_OWN = ("paper", "name")  # the file's own name says them


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of ``configs/paper/<slug>.yaml``: the models of the schema and all registered claims."""
    body = _plain(Table)
    definitions = body.pop("$defs")
    definitions.pop("Claim", None)
    for key in _OWN:
        del body["properties"][key]
    body["required"] = [key for key in body["required"] if key not in _OWN]
    kinds = []
    for name in CLAIMS:
        claim = _plain(CLAIMS[name])
        definitions |= claim.pop("$defs", {})
        del claim["properties"]["id"]  # the claim's key says it
        claim["properties"]["kind"] = {"const": name, "description": claim.get("description", "").split("\n")[0]}
        definitions[f"claim_{name}"] = claim
        kinds.append({"$ref": f"#/$defs/claim_{name}"})
    one = {
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"enum": list(CLAIMS)}},
        "anyOf": kinds,
    }
    body["properties"]["claims"] = {
        "description": "what the paper says: claims by name, or a list of them (C1, C2 …)",
        "anyOf": [
            {"type": "object", "additionalProperties": one, "propertyNames": {"pattern": f"^{CLAIM_NAME.pattern}$"}},
            {"type": "array", "items": one},
        ],
    }
    body["properties"]["tiers"] |= {"propertyNames": {"enum": list(TIERS)}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A table of a paper",
        **{key: value for key, value in body.items() if key != "title"},
        "$defs": dict(sorted(definitions.items())),
    }


def text() -> str:
    """The file's text."""
    return json.dumps(schema(), indent=1, ensure_ascii=False, sort_keys=False) + "\n"


def _plain(model: Any) -> dict[str, Any]:
    return copied(model.model_json_schema(mode="validation"))


__all__ = ["NAME", "schema", "text"]
