"""Errors: one table of codes, and no code or body that is made elsewhere."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import lastcall
import msgspec
import pytest
from lastcall.protocol.errors import CODES, ErrorAnswer, RequestRefused, error_event

PACKAGE = Path(lastcall.__file__).parent
TREES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}


def nodes() -> Iterator[ast.AST]:
    for tree in TREES.values():
        yield from ast.walk(tree)


def takes_code() -> dict[str, set[int]]:
    """The functions and classes with a parameter `code: str`, and its possible positions."""
    found: dict[str, set[int]] = {}
    classes = [each for each in nodes() if isinstance(each, ast.ClassDef)]
    for each in classes:
        constructors = [one for one in each.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
        if any(ast.unparse(line) == "code: str" for line in each.body):
            found[each.name] = set()  # a struct, by keyword only
        for constructor in constructors:
            add_positions(found, each.name, constructor)
    for function in (each for each in nodes() if isinstance(each, ast.FunctionDef)):
        add_positions(found, function.name, function)
    found.pop("__init__")
    return found | {
        each.name: found[base] for each in classes for base in map(ast.unparse, each.bases) if base in found
    }


def add_positions(found: dict[str, set[int]], name: str, function: ast.FunctionDef) -> None:
    parameters = [each for each in function.args.args if each.arg != "self"]
    for position, each in enumerate(parameters):
        if each.arg == "code" and each.annotation is not None and ast.unparse(each.annotation) == "str":
            found.setdefault(name, set()).add(position)


def used_codes() -> dict[str, set[str]]:
    """The codes that the package gives to these, or assigns to a variable `code`; and where."""
    takers, found = takes_code(), dict[str, set[str]]()
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            for value in code_values(node, takers):
                for each in (value.body, value.orelse) if isinstance(value, ast.IfExp) else (value,):
                    if isinstance(each, ast.Constant) and isinstance(each.value, str):
                        found.setdefault(each.value, set()).add(path)
    return found


def code_values(node: ast.AST, takers: dict[str, set[int]]) -> Iterator[ast.expr]:
    if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["code"]:
        yield node.value
    elif isinstance(node, ast.Call):
        name = ast.unparse(node.func).rpartition(".")[2]
        if name in takers:
            yield from (each for position, each in enumerate(node.args) if position in takers[name])
            yield from (each.value for each in node.keywords if each.arg == "code")


def test_the_codes_in_use_are_those_of_the_table() -> None:
    used = used_codes()
    assert {code: where for code, where in used.items() if code not in CODES} == {}
    assert set(CODES) - set(used) == set()


def test_the_search_for_codes_finds_all_that_take_one() -> None:
    expected = {"error_event", "EventRejected", "TooComplex", "RequestRefused", "refusal", "AgentFailed", "Failure"}
    assert expected <= set(takes_code())


@pytest.mark.parametrize("name", ["ErrorDetail", "ErrorBody", "ErrorAnswer"])
def test_no_error_body_is_made_elsewhere(name: str) -> None:
    calls = {path for path, tree in TREES.items() for node in ast.walk(tree) if is_call(node, name)}
    assert calls == {"protocol/errors.py"}


def is_call(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == name


def test_no_error_type_is_written_elsewhere() -> None:
    texts = {path for path, tree in TREES.items() for node in ast.walk(tree) if is_text(node, "invalid_request_error")}
    assert texts == {"protocol/errors.py"}


def is_text(node: ast.AST, text: str) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and text in node.value


@pytest.mark.parametrize("code", CODES)
def test_a_type_follows_from_the_status_in_both_ways(code: str) -> None:
    expected = "server_error" if CODES[code].status >= 500 else "invalid_request_error"
    assert error_event(code, "No.").error.type == expected
    refused = RequestRefused(code, "No.")
    assert (refused.status, refused.type) == (CODES[code].status, expected)
    assert msgspec.json.decode(refused.body, type=ErrorAnswer).error.type == expected


def test_a_failed_response_has_a_code_of_the_servers_side() -> None:
    """Its type is always `server_error`."""
    failing = {"AgentFailed", "ModelUnavailable", "_RequestNotTaken", "_fail"}
    codes = {
        each.value
        for node in nodes()
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in failing
        for each in node.args[:1]
        if isinstance(each, ast.Constant) and isinstance(each.value, str)
    }
    assert {"agent_error", "store_unavailable", "upstream_timeout"} <= codes
    assert {code for code in codes if CODES[code].status < 500} == set()


def test_an_http_error_has_the_shape_of_the_public_api() -> None:
    refused = RequestRefused("rate_limit_exceeded", "Slower.", "user", retry_after=3)
    error = {"message": "Slower.", "type": "invalid_request_error", "param": "user", "code": "rate_limit_exceeded"}
    assert json.loads(refused.body) == {"error": error}
    assert refused.headers == {
        "content-type": "application/json",
        "cache-control": "no-store",
        "retry-after": "3",
    }
    assert RequestRefused("missing_api_key", "Who?").headers["www-authenticate"] == "Bearer"
