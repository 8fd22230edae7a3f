"""A short `scripts/memory-bench`: it measures the product, and reads files of the form that it names."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from lastcall.store.postgres import PostgresStore

from tests.verification.memory_bench import __main__ as bench
from tests.verification.memory_bench import measure, turns
from tests.verification.memory_bench.agents import FIRST_PIECE_SECONDS
from tests.verification.memory_bench.baselines import LAST_MESSAGES, Bm25, last_messages
from tests.verification.memory_bench.generated import (
    generated_samples,
    long_sample,
    own_fact_samples,
    varied_fact_samples,
)
from tests.verification.memory_bench.samples import BadData, read_samples
from tests.verification.memory_bench.small_talk import SMALL_TALK

DATA = [
    {
        "sample_id": "one",
        "conversation": {
            "speaker_a": "Ada",
            "speaker_b": "Bob",
            "session_1_date_time": "1:56 pm on 8 May, 2023",
            "session_1": [
                {"speaker": "Ada", "dia_id": "D1:1", "text": "We painted our boat, she is blue now."},
                {"speaker": "Bob", "dia_id": "D1:2", "text": "Lovely colour!"},
            ],
            "session_2_date_time": "9:05 am on 25 May, 2023",
            "session_2": [
                {"speaker": "Ada", "dia_id": "D2:0", "text": "Where are you?"},
                {"speaker": "Bob", "dia_id": "D2:1", "text": "My harbour is full of gannets."},
            ],
            "session_3_date_time": "9:05 am on 26 May, 2023",
        },
        "qa": [
            {"question": "What did Ada do with the boat?", "answer": "x", "evidence": ["D1:1"], "category": 4},
            {"question": "Which birds are in Bob's harbour?", "evidence": ["D2:1; D1:2"], "category": 1},
            {"question": "Who is nobody?", "evidence": [], "category": 5},
        ],
    }
]


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_of_the_form_is_read(compressed: bool, tmp_path: Path) -> None:
    text = json.dumps(DATA).encode()
    (tmp_path / "data").write_bytes(gzip.compress(text) if compressed else text)
    (sample,) = read_samples(tmp_path / "data")
    assert [turn.who for session in sample.sessions for turn in session.turns] == [
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    assert [session.at.isoformat() for session in sample.sessions] == [
        "2023-05-08T13:56:00+00:00",
        "2023-05-25T09:05:00+00:00",
    ]
    assert [list(question.evidence) for question in sample.questions] == [["D1:1"], ["D2:1", "D1:2"], []]
    assert (sample.user_names, sample.agent_names) == ({"ada"}, {"bob"})


@pytest.mark.parametrize("text", [b"", b"{}x", b"[1]", b'[{"conversation": {}}]', b"\x1f\x8bno"])
def test_another_form_is_refused_in_one_line(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(text)
    with pytest.raises(BadData) as refused:
        read_samples(tmp_path / "data")
    assert len(str(refused.value).splitlines()) == 1


def test_generated_users_are_those_of_their_seed() -> None:
    assert generated_samples(1, 8) == generated_samples(1, 8) != generated_samples(2, 8)
    assert len({sample.language for sample in generated_samples(1, 8)}) >= 3
    assert len(SMALL_TALK) >= 200
    assert varied_fact_samples(1) == varied_fact_samples(1) != varied_fact_samples(2)
    assert len({sample.language for sample in varied_fact_samples(1)}) >= 12


def test_baselines_find_what_they_can() -> None:
    sample = long_sample(100, 1)
    turn = sample.sessions[0].turns[0]
    assert turn.item_id in Bm25(sample).search(turn.text, 20)
    assert len(last_messages(sample)) == LAST_MESSAGES


async def test_what_was_put_in_is_found_by_the_product(postgres_store: PostgresStore, database_url: str) -> None:
    own = own_fact_samples()
    async with measure.open_bench(database_url) as running:
        for sample in own:
            await running.put(sample)
        recall = await running.recall(own)
        assert recall.questions == 5 * len(own)
        assert recall.figures("product", (1,))["1"] >= 0.6
        talk = await running.brought(own[:1], lambda _: SMALL_TALK[:50])
        assert sum(tokens > 0 for tokens in talk) <= 10
        assert (await running.cost(own[0], ["Wie heißt mein Hund?"]))["p50_ms"] > 0


async def test_a_product_that_finds_nothing_scores_nothing(
    postgres_store: PostgresStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*args: object) -> list[object]:
        return []

    monkeypatch.setattr(measure, "search_turns", nothing)
    async with measure.open_bench(database_url) as running:
        sample = own_fact_samples()[0]
        await running.put(sample)
        assert (await running.recall([sample])).figures("product") == {"5": 0.0, "10": 0.0, "20": 0.0}


def test_the_command_prints_its_figures_as_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data.json").write_text(json.dumps(DATA))
    arguments = ["--data", str(tmp_path / "data.json"), "--users", "4", "--no-cost", "--json"]
    assert bench.memory_bench.main(arguments, standalone_mode=False) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {*figures["recall"]} == {"5", "10", "20"}
    assert figures["questions"] == 2
    assert figures["recall"]["5"] >= 0.5
    assert figures["generated"]["recall"]["20"] >= 0.5
    assert {*figures["languages"]} == {"de", "fr", "es", "zh", "ja", "ru", "ar", "pt"}


@pytest.mark.slow
async def test_turns_with_and_without_a_past_are_compared(
    postgres_store: PostgresStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "ROUNDS", 1)
    monkeypatch.setattr(turns, "PAIRS", 6)
    sample = own_fact_samples()[0]
    async with measure.open_bench(database_url) as running:
        await running.put(sample)
    questions = [question.text for question in sample.questions]
    compared = await turns.compare_turns(database_url, "as_a_model", sample.user_id, questions, SMALL_TALK, 1)
    for each in (compared, compared["questions"], compared["small_talk"]):
        low, high = each["range"]
        assert low <= each["ratio"] <= high
        assert each["with_ms"] > 1000 * FIRST_PIECE_SECONDS
