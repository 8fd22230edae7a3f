"""Users whose pasts are made up, from a seed: what they tell changes, between things that do not matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

from .own_facts import REPLIES, VARIED_FACTS
from .phrases import OWN_FACTS, PHRASES, Phrases, Slot
from .samples import AskedQuestion, PastSession, SaidTurn, Sample

USERS = 200
SESSIONS = 5
CHATTER_MIN, CHATTER_MAX = 3, 6  # exchanges of a session that do not matter
WAYS = ("in a row", "answered", "apart")  # how facts are told
FACTS_OF_ONE = 5
BEGAN = datetime(2024, 1, 10, 9, tzinfo=UTC)


def generated_samples(seed: int, users: int = USERS) -> list[Sample]:
    """Users in turn of each language."""
    languages = list(PHRASES)
    return [_user(Random(f"{seed} {number}"), number, languages[number % len(languages)]) for number in range(users)]


def own_fact_samples() -> list[Sample]:
    """A user for each language, with five facts that were told in one session."""
    samples = []
    for language, facts in OWN_FACTS.items():
        turns = [SaidTurn("user", fact, f"{language}-{number}") for number, (fact, _) in enumerate(facts)]
        questions = [AskedQuestion(asked, [f"{language}-{n}"]) for n, (_, asked) in enumerate(facts)]
        samples.append(Sample(f"own-{language}", [PastSession(BEGAN, turns)], questions, language=language))
    return samples


def varied_fact_samples(seed: int) -> list[Sample]:
    """Users of each language, each with five facts: told in a row, with answers between them, or in a session each."""
    samples = []
    for language, facts in VARIED_FACTS.items():
        for number, way in enumerate(WAYS * 2):
            random = Random(f"{seed} {language} {number}")
            told = random.sample(facts, FACTS_OF_ONE)
            name = f"varied-{language}-{number}"
            turns = [SaidTurn("user", fact, f"{name}-{n}") for n, (fact, _) in enumerate(told)]
            answers = [SaidTurn("assistant", random.choice(REPLIES[language]), f"{turn.item_id}-a") for turn in turns]
            pairs = [list(pair) for pair in zip(turns, answers, strict=True)]
            parts = {"in a row": [turns], "answered": [[turn for pair in pairs for turn in pair]], "apart": pairs}[way]
            sessions = [PastSession(BEGAN + timedelta(days=day), part) for day, part in enumerate(parts)]
            questions = [AskedQuestion(asked, [f"{name}-{n}"]) for n, (_, asked) in enumerate(told)]
            samples.append(Sample(name, sessions, questions, language=language))
    return samples


def asked_in_other_languages(sample: Sample) -> Sample:
    """One of `own_fact_samples`, with the questions of all the others: each asks for the same five facts."""
    questions = [
        AskedQuestion(asked, [f"{sample.language}-{number}"])
        for language, facts in OWN_FACTS.items()
        if language != sample.language
        for number, (_, asked) in enumerate(facts)
    ]
    return replace(sample, questions=questions)


def long_sample(turns: int, seed: int) -> Sample:
    """One user with so many turns, about, of the English phrases."""
    random = Random(f"{seed} long")
    sessions: list[PastSession] = []
    while (said := sum(len(session.turns) for session in sessions)) < turns:
        at = BEGAN + timedelta(days=len(sessions))
        told = [_told(random, slot)[0] for slot in random.sample(PHRASES["en"].slots, 3)]
        sessions.append(PastSession(at, _session(random, PHRASES["en"], told, f"long-{said}")))
    return Sample(f"long-{turns}", sessions, [AskedQuestion(slot.asked, []) for slot in PHRASES["en"].slots])


def _user(random: Random, number: int, language: str) -> Sample:
    """Tells each thing once, and in a later session how it has changed."""
    phrases = PHRASES[language]
    told: list[list[tuple[int, str]]] = [[] for _ in range(SESSIONS)]
    for index, slot in enumerate(phrases.slots):
        first = random.randrange(SESSIONS - 1)
        before, after = _told(random, slot)
        told[first].append((index, before))
        if after:
            told[random.randrange(first + 1, SESSIONS)].append((index, after))
    sessions: list[PastSession] = []
    evidence: dict[int, str] = {}  # where each thing was told last
    for session, facts in enumerate(told):
        turns = _session(random, phrases, [fact for _, fact in facts], f"{number}-{session}")
        places = {turn.text: turn.item_id for turn in turns}
        evidence |= {index: places[fact] for index, fact in facts}
        sessions.append(PastSession(BEGAN + timedelta(days=30 * session + random.randrange(20)), turns))
    questions = [AskedQuestion(phrases.slots[index].asked, [item]) for index, item in evidence.items()]
    return Sample(f"user-{number}", sessions, questions, language=language)


def _told(random: Random, slot: Slot) -> tuple[str, str]:
    first, second = random.sample(slot.values, 2)
    return slot.told.format(first), slot.changed.format(second)


def _session(random: Random, phrases: Phrases, facts: Sequence[str], name: str) -> list[SaidTurn]:
    """The facts, in any order, between exchanges that do not matter."""
    chatter = random.choices(phrases.chatter, k=random.randint(CHATTER_MIN, CHATTER_MAX))
    spoken = [*facts, *chatter]
    random.shuffle(spoken)
    turns = []
    for number, text in enumerate(spoken):
        turns.append(SaidTurn("user", text, f"{name}-{2 * number}"))
        turns.append(SaidTurn("assistant", random.choice(phrases.replies), f"{name}-{2 * number + 1}"))
    return turns
