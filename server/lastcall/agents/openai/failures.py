"""What goes wrong at an endpoint, in sentences of our own: the SDK's and the endpoint's may contain keys and URLs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx2
import openai

from ..agent import AgentFailed, RequestUnsupported
from .chunks import StreamRefused
from .dialect import WORDING_CHARS_MAX, EndpointRefusal

if TYPE_CHECKING:
    from collections.abc import Iterator


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
        raise AgentFailed("upstream_timeout", "The model's endpoint did not answer in time.") from error
    except openai.APIStatusError as error:
        raise _status_failure(error, model) from error
    except openai.APIConnectionError as error:
        raise _connection_failure(error) from error
    except httpx2.TimeoutException as error:
        raise AgentFailed("upstream_timeout", "The model's endpoint did not answer in time.") from error
    except httpx2.HTTPError as error:
        raise AgentFailed("upstream_broken", "The connection to the model's endpoint broke in mid-answer.") from error
    except (openai.OpenAIError, StreamRefused, ValueError) as error:  # an error in the stream, or invalid JSON
        raise AgentFailed("upstream_error", "The model's endpoint reported an error.") from error


def _connection_failure(error: openai.APIConnectionError) -> AgentFailed:
    if isinstance(error.__cause__, (httpx2.ConnectError, httpx2.UnsupportedProtocol)):
        return AgentFailed("upstream_unreachable", "The model's endpoint cannot be reached.")
    return AgentFailed("upstream_broken", "The connection to the model's endpoint broke.")


def _status_failure(error: openai.APIStatusError, model: str) -> AgentFailed:
    status = error.status_code
    if status in (401, 403):
        sentence = "The model's endpoint refused the key; set LASTCALL_AGENT_KEY or OPENAI_API_KEY to a valid one."
        return AgentFailed("upstream_key_refused", sentence)
    if status == 404:
        sentence = f"The endpoint has no model {model!r}; check --model and --agent-url."
        return AgentFailed("upstream_model_not_found", sentence)
    if status == 429:
        return AgentFailed("upstream_rate_limited", "The model's endpoint is rate limiting requests.")
    if status in (400, 422):
        return RequestUnsupported(
            "upstream_request_refused", f"The model's endpoint refused the request (HTTP {status})."
        )
    return AgentFailed("upstream_error", f"The model's endpoint failed (HTTP {status}).")
