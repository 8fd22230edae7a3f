"""Errors over HTTP, in the shape that OpenAI's clients read."""

from __future__ import annotations

from starlette.responses import JSONResponse

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"


def error_response(
    status: int, code: str, message: str, *, param: str | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """`{"error": {"message", "type", "param", "code"}}`; a status below 500 is the client's error."""
    kind = INVALID_REQUEST if status < 500 else SERVER_ERROR
    error = {"message": message, "type": kind, "param": param, "code": code}
    return JSONResponse({"error": error}, status_code=status, headers={"cache-control": "no-store", **(headers or {})})
