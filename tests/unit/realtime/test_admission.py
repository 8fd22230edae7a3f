"""Admission of a session by its handshake."""

from __future__ import annotations

import json
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lastcall.protocol.endpoint import MODEL_CHARS_MAX, REPLAY_ITEMS_MAX
from lastcall.protocol.errors import RequestRefused
from lastcall.realtime.admission import Admission, admit

HOST = "localhost:8000"
CONVERSATION = UUID("0123456789abcdef0123456789abcdef")


def judge(
    query: str = "",
    *,
    path: str = "/v1/realtime",
    host: str = HOST,
    subprotocols: tuple[str, ...] = (),
    **headers: bytes,
) -> Admission | RequestRefused:
    fields = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    try:
        return admit(f"{path}?{query}" if query else path, host, fields, subprotocols)
    except RequestRefused as refused:
        return refused


def admitted(query: str = "", **rest: bytes) -> Admission:
    judgement = judge(query, **rest)  # type: ignore[arg-type]
    assert isinstance(judgement, Admission), judgement
    return judgement


def refused(query: str = "", **rest: bytes) -> RequestRefused:
    judgement = judge(query, **rest)  # type: ignore[arg-type]
    assert isinstance(judgement, RequestRefused), judgement
    return judgement


def test_a_plain_handshake_is_admitted_into_a_new_conversation() -> None:
    admission = admitted()
    assert (admission.conversation_id, admission.model, admission.subprotocol) == (None, "lastcall", None)


def test_the_first_of_repeated_headers_counts_as_over_http() -> None:
    headers = [(b"authorization", b"Bearer one"), (b"authorization", b"Bearer two")]
    assert admit("/v1/realtime", HOST, headers, ()).presented.token == "one"


@pytest.mark.parametrize("path", ["/", "", "/v1/realtime/", "/v1/realtime;x", "/V1/realtime", "/v1/realtimes", "*"])
def test_other_paths_are_not_found(path: str) -> None:
    judgement = judge(path=path)
    assert isinstance(judgement, RequestRefused)
    assert (judgement.status, judgement.code) == (404, "not_found")


def test_a_replay_has_up_to_200_items_or_as_many_as_requested() -> None:
    assert admitted().replay == REPLAY_ITEMS_MAX == 200
    assert [admitted(f"replay={number}").replay for number in ("0", "1", "007", "200")] == [0, 1, 7, 200]


@pytest.mark.parametrize("number", ["", "-1", "201", "1e2", "%2B1", "1.0", "ten", "9" * 5000, "%D9%A1", "1%20", "0x1"])
def test_an_invalid_replay_is_refused(number: str) -> None:
    refusal = refused(f"replay={number}")
    assert (refusal.status, refusal.code, refusal.param) == (400, "invalid_value", "replay")


# --- what is not served ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["call_id=rtc_1", "call_id=", "model=m&call_id=x", "intent=transcription"])
def test_calls_and_transcription_are_refused(query: str) -> None:
    assert refused(query).status == 400


@pytest.mark.parametrize("query", ["intent=conversation", "unknown=1", "a&b&c", "a=1;b=2", "%zz=%", "&&=&"])
def test_unknown_query_fields_are_ignored(query: str) -> None:
    admission = admitted(query)
    assert (admission.conversation_id, admission.model) == (None, "lastcall")


# --- the conversation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", [f"conv_{CONVERSATION.hex}", CONVERSATION.hex, str(CONVERSATION), CONVERSATION.hex.upper()]
)
def test_a_conversation_is_named_by_its_public_id_or_its_uuid(text: str) -> None:
    assert admitted(f"conversation={text}").conversation_id == CONVERSATION


def test_an_empty_conversation_is_a_new_one() -> None:
    assert admitted("conversation=").conversation_id is None


@pytest.mark.parametrize(
    "text",
    [
        "conv_",
        "x",
        "conv_" + "g" * 32,
        f"conv_{CONVERSATION.hex}0",
        f"sess_{CONVERSATION.hex}",
        "%00",
        "conv_conv_" + "a" * 32,
    ],
)
def test_an_invalid_conversation_id_is_refused(text: str) -> None:
    refusal = refused(f"conversation={text}")
    assert (refusal.status, refusal.code, refusal.param) == (400, "invalid_value", "conversation")


# --- subprotocol and model ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ((), None),
        (("realtime",), "realtime"),
        (("realtime", "openai-insecure-api-key.sk-1", "openai-agents-sdk.0.20.0"), "realtime"),
        (("openai-insecure-api-key.sk-1",), None),
        (("realtime", "openai-beta.realtime-v1"), "realtime"),
        (("openai-beta.realtime-v1",), "openai-beta.realtime-v1"),
        (("Realtime",), None),
    ],
)
def test_the_subprotocol_is_chosen_only_where_it_was_offered(offered: tuple[str, ...], chosen: str | None) -> None:
    judgement = judge(subprotocols=offered)
    assert isinstance(judgement, Admission)
    assert judgement.subprotocol == chosen


@pytest.mark.parametrize(
    ("query", "model"),
    [
        ("", "lastcall"),
        ("model=", "lastcall"),
        ("model=gpt-realtime-2.1", "gpt-realtime-2.1"),
        ("model=" + "m" * 500, "m" * MODEL_CHARS_MAX),
        ("deployment=mine&api-version=preview", "mine"),
        ("deployment=mine&model=yours", "yours"),
    ],
)
def test_the_model_is_echoed_cut_to_a_bound_with_a_default(query: str, model: str) -> None:
    assert admitted(query).model == model


# --- clients of Azure OpenAI, and of the retired beta ---------------------------------------------------------------


@pytest.mark.parametrize("path", ["/openai/v1/realtime", "/openai/realtime"])
def test_a_key_in_the_address_counts_at_azures_paths_after_all_others(path: str) -> None:
    judgement = judge("api-key=sk-1", path=path)
    assert isinstance(judgement, Admission)
    assert (judgement.presented.token, judgement.presented.from_browser) == ("sk-1", True)
    for name, value in ((b"authorization", b"Bearer sk-2"), (b"api-key", b"sk-2")):
        judgement = admit(f"{path}?api-key=sk-1", HOST, [(name, value)], ())
        assert (judgement.presented.token, judgement.presented.from_browser) == ("sk-2", False)


def test_a_key_in_the_address_does_not_count_elsewhere_and_is_not_shown() -> None:
    assert admitted("api-key=sk-1").presented.token is None
    for path in ("/v1/realtime", "/openai/v1/realtime"):
        assert "sk-1" not in repr(judge("api-key=sk-1", path=path))


def test_the_header_of_azures_clients_is_a_credential_at_every_path() -> None:
    assert admitted(api_key=b" sk-1 ").presented.token == "sk-1"
    assert admitted(api_key=b"sk-1", authorization=b"Bearer sk-2").presented.token == "sk-2"


@pytest.mark.parametrize("value", [b"realtime=v1", b"assistants=v2, realtime=v1", b" Realtime=V1 "])
@pytest.mark.parametrize("path", ["/v1/realtime", "/openai/v1/realtime"])
def test_the_beta_header_is_refused_with_the_way_to_go_on(path: str, value: bytes) -> None:
    judgement = judge(path=path, openai_beta=value)
    assert isinstance(judgement, Admission)
    assert judgement.beta is not None
    assert judgement.beta.code == "beta_api_shape_disabled"
    assert f"Please use {path} " in judgement.beta.message


def test_the_beta_header_is_also_found_among_several() -> None:
    headers = [(b"openai-beta", b"assistants=v2"), (b"openai-beta", b"realtime=v1")]
    assert admit("/v1/realtime", HOST, headers, ()).beta is not None


def test_the_beta_is_known_by_its_subprotocol_and_by_azures_path_of_it() -> None:
    for judgement in (judge(subprotocols=("realtime", "openai-beta.realtime-v1")), judge(path="/openai/realtime")):
        assert isinstance(judgement, Admission)
        assert judgement.beta is not None
        assert "v1/realtime" in judgement.beta.message


@pytest.mark.parametrize("value", [b"", b"assistants=v2", b"realtime=v2", b"\xff"])
def test_another_beta_is_none_of_ours(value: bytes) -> None:
    assert admitted(openai_beta=value).beta is None


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "refusal",
    [refused("call_id=1"), refused("conversation=x")],
    ids=lambda refusal: refusal.param,
)
def test_a_refusals_body_has_the_shape_of_the_public_apis_errors(refusal: RequestRefused) -> None:
    body = json.loads(refusal.body)
    assert list(body) == ["error"]
    assert body["error"] == {
        "message": refusal.message,
        "type": "invalid_request_error",
        "param": refusal.param,
        "code": refusal.code,
    }


targets = (
    st.text()
    | st.text().map(lambda text: "//" + text)
    | st.text().map(lambda text: "/v1/realtime?" + text)
    | st.text().map(lambda text: "/openai/v1/realtime?api-key=" + text)
    | st.sampled_from(["//[", "http://[", "//[]", "http://[x]/v1/realtime", "http://a\u2100b/v1/realtime"])
    | st.tuples(st.sampled_from(["user", "conversation", "model", "call_id"]), st.text()).map(
        lambda pair: f"/v1/realtime?{pair[0]}={pair[1]}"
    )
)


NAMES = [b"origin", b"openai-safety-identifier", b"openai-beta", b"api-key", b"x"]


@given(
    targets,
    st.text(max_size=20),
    st.lists(
        st.tuples(
            st.sampled_from([b"origin", b"openai-safety-identifier", b"openai-beta", b"x"]), st.binary(max_size=20)
        )
    ),
    st.lists(st.text()),
)
def test_any_handshake_is_admitted_or_refused(
    target: str, host: str, headers: list[tuple[bytes, bytes]], subprotocols: list[str]
) -> None:
    try:
        judgement = admit(target, host, headers, subprotocols)
    except RequestRefused as refused:
        status, body = refused.status, json.loads(refused.body)
        assert (status, list(body)) in [(400, ["error"]), (404, ["error"])]
    else:
        assert 1 <= len(judgement.model) <= MODEL_CHARS_MAX
