"""Checks a response against the OpenAPI document."""

from __future__ import annotations

import re
from typing import Any

import jsonschema


def check_body(document: dict[str, Any], method: str, path: str, body: Any) -> None:
    """Fails where the body is not as the document says for this method and path."""
    (pattern,) = [each for each in document["paths"] if method.lower() in document["paths"][each] and _fits(each, path)]
    content = document["paths"][pattern][method.lower()]["responses"]["200"]["content"]["application/json"]
    whole = {**content["schema"], "components": document["components"]}
    jsonschema.Draft202012Validator(whole).validate(body)


def _fits(pattern: str, path: str) -> bool:
    return re.fullmatch(re.sub(r"\{\w+\}", "(?!export$)[^/]+", pattern), path) is not None
