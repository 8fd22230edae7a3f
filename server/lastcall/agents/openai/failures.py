"""What goes wrong at an endpoint, in sentences of our own: the SDK's and the endpoint's may contain keys and URLs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx2
import openai

from ..agent import AgentFailed, ModelUnavailable, RequestUnsupported
from .chunks import StreamRefused
from .dialect import WORDING_CHARS_MAX, EndpointRefusal

if TYPE_CHECKING:
    from collections.abc import Iterator

# A request may be at fault for its size, its form or what it says; for any other status its endpoint is.
_REQUEST_AT_FAULT = frozenset({400, 411, 413, 414, 415, 422, 431})
_EITHER_AT_FAULT = frozenset({500, 502, 504, 520, 524})  # some endpoints fail on one request so, each time


def refusal_of(error: openai.APIStatusError | StreamRefused) -> EndpointRefusal:
    """What the endpoint said, for `Dialect`."""
    if isinstance(error, StreamRefused):
        return EndpointRefusal(200, error.code, error.wording[:WORDING_CHARS_MAX])
    code = next((each for each in (error.code, error.type) if isinstance(each, str)), "")
    wording = f"{error.code} {error.type} {error.param} {error.message} {error.body}"
    return EndpointRefusal(error.status_code, code, wording[:WORDING_CHARS_MAX])


@contextmanager
def failures(model: str) -> Iterator[None]:
    """Turns exceptions of the SDK and of its connection into `AgentFailed`."""
    try:
        yield
    except openai.APITimeoutError as error:
        raise _timeout(error.__cause__) from error
    except openai.APIStatusError as error:
        raise _status_failure(error.status_code, model) from error
    except openai.APIConnectionError as error:
        raise _connection_failure(error) from error
    except httpx2.TimeoutException as error:
        raise _timeout(error) from error
    except httpx2.HTTPError as error:
        sentence = "The connection to the model's endpoint broke in mid-answer."
        raise ModelUnavailable("upstream_broken", sentence, certain=False) from error
    except (openai.OpenAIError, StreamRefused, ValueError) as error:  # an error in the stream, or invalid JSON
        raise _reported_failure(error, model) from error


def _timeout(error: BaseException | None) -> AgentFailed:
    sentence = "The model's endpoint did not answer in time."
    return ModelUnavailable("upstream_timeout", sentence, certain=isinstance(error, httpx2.ConnectTimeout))


def _reported_failure(error: Exception, model: str) -> AgentFailed:
    if isinstance(error, StreamRefused) and error.status:
        return _status_failure(error.status, model)
    return ModelUnavailable("upstream_error", "The model's endpoint reported an error.", certain=False)


def _connection_failure(error: openai.APIConnectionError) -> AgentFailed:
    if isinstance(error.__cause__, (httpx2.ConnectError, httpx2.UnsupportedProtocol)):
        return ModelUnavailable("upstream_unreachable", "The model's endpoint cannot be reached.")
    return ModelUnavailable("upstream_broken", "The connection to the model's endpoint broke.", certain=False)


def _status_failure(status: int, model: str) -> AgentFailed:
    if status in (401, 403):
        sentence = "The model's endpoint refused the key; set LASTCALL_AGENT_KEY or OPENAI_API_KEY to a valid one."
        return ModelUnavailable("upstream_key_refused", sentence)
    if status == 404:
        sentence = f"The endpoint has no model {model!r}; check --model and --agent-url."
        return ModelUnavailable("upstream_model_not_found", sentence)
    if status == 429:
        return ModelUnavailable("upstream_rate_limited", "The model's endpoint is rate limiting requests.")
    if status in _REQUEST_AT_FAULT:
        return RequestUnsupported(
            "upstream_request_refused", f"The model's endpoint refused the request (HTTP {status})."
        )
    sentence = f"The model's endpoint failed (HTTP {status})."
    return ModelUnavailable("upstream_error", sentence, certain=status not in _EITHER_AT_FAULT)
