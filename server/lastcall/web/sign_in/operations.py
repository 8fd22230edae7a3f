"""What the OpenAPI document says about signing in."""

from __future__ import annotations

from .. import answers
from ..schemas import Operation, parameter

_FOREIGN = "The request does not come from the server's own page."
_NO_DATABASE = "The database is unavailable."

SIGN_IN_OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", "/sign-in"): Operation(answers={200: answers.SignInState}, refused={403: _FOREIGN, 503: _NO_DATABASE}),
    ("POST", "/sign-in"): Operation(
        answers={200: answers.SignInState},
        refused={
            400: "The body is not valid.",
            401: "The secret is wrong, used, expired or revoked.",
            403: _FOREIGN,
            503: _NO_DATABASE,
        },
        body={
            "type": "object",
            "properties": {"secret": {"type": "string"}},
            "required": ["secret"],
            "additionalProperties": False,
        },
    ),
    ("DELETE", "/sign-in"): Operation(answers={200: answers.SignedOut}, refused={403: _FOREIGN, 503: _NO_DATABASE}),
    ("POST", "/sign-in/provider"): Operation(
        answers={200: answers.SignInAddress},
        refused={
            400: "The body is not valid.",
            403: _FOREIGN,
            404: "There is no identity provider.",
            503: "The identity provider does not answer as it should.",
        },
        body={"type": "object", "properties": {"path": {"type": "string"}}, "additionalProperties": False},
    ),
    ("GET", "/sign-in/callback"): Operation(
        answers={303: "text/html"},
        parameters=[
            parameter("state", "query", "Of the attempt."),
            parameter("code", "query", "By the provider, where somebody has signed in."),
            parameter("error", "query", "By the provider, where nobody has."),
        ],
    ),
    ("GET", "/sign-in/out"): Operation(
        answers={303: "text/html"}, parameters=[parameter("state", "query", "Of the request to sign out.")]
    ),
}
