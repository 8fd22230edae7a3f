"""The facts that one sentence states. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

from ..patterns import (
    AFTER_NAMES,
    ASKS,
    ENGLISH,
    I_AM,
    LEADS_UP,
    NATIONALITIES,
    NO_LONGER,
    NO_NAMES,
    NOT_MEANT,
    POLITE,
    REMEMBER,
    THEN_ASKS,
)
from ..sentences import FULLWIDTH_QUESTION_MARK, lowered
from . import languages
from .replacing import says_what_is
from .words import content_words

_SPACES = re.compile(r" {2,}")
_CONNECTOR = re.compile(
    r"[\s,;–—-]*(?:\b(?:and|but|so|because|since|plus|also|und|aber|et|mais|y|pero|e|ma|и|но)\b)?\s*$", re.IGNORECASE
)
# A clause without its "I", by a verb that begins what people say of themselves; a request's "have" is none.
_ELIDED = re.compile(
    r"(?:,| and| but|, and|, but) +(?:(?:now|also|then|just|recently|currently) +)*"
    r"(?=(?:live|work|drive|speak|play|love|like|hate|enjoy|prefer|own|study|teach|moved|relocated|joined|bought|got|sold"
    r"|quit|left|adopted|became|turned|am|have(?! to\b))\b(?! (?:it|this|that|them|him|her|you|me)\b))"
)
_INFINITIVE = re.compile(
    r"\bto (?=[a-z])|\b(?:can|could|will|would|should|must|might|may|let|want|wish|never|not)\b|n't\b", re.IGNORECASE
)
# What is to be remembered is said behind "that" or a colon, or of oneself; "Remember, you can do it!" is a good word.
_TO_NOTE = re.compile(r"\A *(?:that\b|:)|\b(?:i|i'm|i've|my|me|mine|we|our|us)\b", re.IGNORECASE)
_NEXT_CLAUSE = re.compile(r"(?:[,;]| and| but) +(?:(?:and|but|now|today|then) +)?(?:i|we|my)\b", re.IGNORECASE)
ELIDED_MAX = 6  # clauses of one sentence
_SPELLINGS = {"color": "colour", "colours": "colour", "colors": "colour", "movie": "film", "flavor": "flavour"}


@dataclass(frozen=True, slots=True)
class StatedFact:
    """A fact in the user's words.

    slot: what it is about. ended: it says that something is so no longer. closes: the slots in which it ends what
    shares a word with it; a dislike ends the like of the same thing.
    """

    kind: str
    slot: str
    quote: str
    ended: bool = False
    closes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class _Match:
    kind: str
    slot: str
    at: int
    negated: bool = False
    ended: bool = False
    closes: Sequence[str] = ()


def facts_of(sentence: str, shown: str) -> list[StatedFact]:
    """The facts of a sentence. shown: the same with quoted parts hidden; a question behind a fact is left out."""
    asks = shown.endswith(("?", FULLWIDTH_QUESTION_MARK))
    if asks and not POLITE.match(shown):
        then = THEN_ASKS.search(shown)
        if not then:
            return []
        sentence, shown = sentence[: then.start()].rstrip(), shown[: then.start()].rstrip()
    if "  " in shown:  # patterns that begin with spaces would read a long run once per space
        sentence, shown = _squeezed(sentence, shown)
    if NOT_MEANT.search(lowered(shown)) or (ASKS.match(shown) and not POLITE.match(shown)):
        return []
    return _quoted(sentence, _matches(shown))


def _squeezed(sentence: str, shown: str) -> tuple[str, str]:
    """Both without runs of spaces. The sentence is then no longer what the user wrote: one fact, its whole words."""
    return sentence, _SPACES.sub(" ", shown)


def _quoted(sentence: str, matches: Sequence[_Match]) -> list[StatedFact]:
    """Each fact with its own part of the sentence; the first one with what leads up to it."""
    sentence = sentence.rstrip()
    if "  " in sentence:
        matches = matches[:1]
    facts = []
    for number, match in enumerate(matches):
        start = match.at if number else 0
        end = len(sentence)
        if number + 1 < len(matches):
            part = sentence[start : matches[number + 1].at]
            end = start + len(_trimmed(part))
        facts.append(StatedFact(match.kind, match.slot, sentence[start:end].strip(), match.ended, match.closes))
    return [fact for fact in facts if fact.quote]


def _trimmed(part: str) -> str:
    found = _CONNECTOR.search(part, max(len(part) - 40, 0))
    return part[: found.start()] if found else part.rstrip()


def _matches(shown: str) -> list[_Match]:
    """The facts in order, one of each slot; "remember that …" only decides if no other pattern does."""
    clauses = sorted(
        {*([0] if shown[:1].isalpha() else []), *(match.end(1) for match in LEADS_UP.finditer(lowered(shown)))}
    )
    found: list[_Match] = []
    for start in clauses:
        match = _match_of_clause(shown, start)
        if match and _is_new(match, found):
            found.append(match)
    if found:
        found = _with_elided(shown, found)
    if not found:
        foreign = [_foreign(each, shown) for each in languages.facts_in(shown)]
        # Of two at one place, the language's rules have the more special one first.
        found = sorted({each.at: each for each in reversed(foreign)}.values(), key=lambda each: each.at)
    asks = (REMEMBER.match(shown, start) for start in clauses) if not found else ()
    if any(ask and _TO_NOTE.search(shown[ask.end() :]) for ask in asks) and content_words(shown):
        return [_Match("note", "note", 0)]
    return found


def _is_new(match: _Match, found: Sequence[_Match]) -> bool:
    """Whether a sentence says nothing yet of what is so in its slot, or of what is so no longer."""
    of_slot = [each for each in found if match.slot == each.slot or match.slot in each.closes]
    return all(each.ended != match.ended for each in of_slot) and len(of_slot) < 2


def _with_elided(shown: str, found: Sequence[_Match]) -> list[_Match]:
    """With the facts of clauses that leave out their "I": "I live in Oslo and drive a Volvo"."""
    matches = [*found]
    for elided in islice(_ELIDED.finditer(lowered(shown)), ELIDED_MAX):
        at = elided.end()
        before = max((each for each in matches if each.at < at), key=lambda each: each.at, default=None)
        if before is None or _INFINITIVE.search(shown, before.at, elided.start()):
            continue
        match = _match_of_clause(f"I {shown[at:]}", 0)
        if match and _is_new(match, matches):
            matches.append(replace(match, at=at))
    return sorted(matches, key=lambda each: each.at)


def _foreign(found: languages.Found, shown: str) -> _Match:
    if (found.ended or found.negated) and says_what_is(shown, found.at, found.slot):
        return _Match(found.kind, found.slot, found.at)
    kind = "note" if found.ended or found.negated else found.kind
    closes = _closes(found.slot, kind if found.kind != "dislike" else "dislike", ended=found.ended)
    if found.negated and not found.ended:
        closes = (found.slot,)
    return _Match(kind, found.slot, found.at, found.negated, found.ended or found.negated, closes)


def _closes(slot: str, kind: str, *, ended: bool) -> Sequence[str]:
    return (slot,) if ended or (kind == "dislike" and slot == "taste") else ()


def _match_of_clause(shown: str, start: int) -> _Match | None:
    if ENGLISH.any_of_them.match(shown, start):
        for slot, closes, rule in ENGLISH.endings:
            if rule.match(shown, start):
                return _Match("note", slot, start, ended=True, closes=closes)
        for kind, slot, rule in ENGLISH.patterns:
            if match := rule.match(shown, start):
                return _fact_match(shown, kind, slot, match)
    match = I_AM.match(shown, start)
    introduced = _introduced(shown, match) if match else None
    if introduced is None:
        return None
    return _Match(introduced, "name" if introduced == "name" else "about", start)


def _fact_match(shown: str, kind: str, slot: str, match: re.Match[str]) -> _Match:
    negated = _negated(match)
    if what := match.groupdict().get("what"):
        slot = f"favourite:{_SPELLINGS.get(what.casefold(), what.casefold())}"
    # "My favourite film used to be …, now it is …" names a new one.
    next_clause = _NEXT_CLAUSE.search(shown, match.end())
    end = min(match.end() + 120, next_clause.start() if next_clause else len(shown))
    ended = not what and bool(NO_LONGER.search(shown[match.start() : end]))
    if (ended or negated) and says_what_is(shown, match.start(), slot):
        return _Match(kind, slot, match.start())
    if kind == "like" and negated:
        kind = "dislike"
    elif negated:
        kind = "note"
    closes = _closes(slot, kind, ended=ended or (negated and slot != "taste"))
    return _Match(kind, slot, match.start(), negated, bool(closes), closes)


def _introduced(shown: str, match: re.Match[str]) -> str | None:
    """The kind of "I'm Ada": a name if the word is capitalised like one."""
    word = match["name"].rstrip(".,;!)")
    plain = word.casefold()
    if NATIONALITIES.fullmatch(plain):
        return "note"
    is_name = word[:1].isalpha() and not word[0].islower() and not shown.isupper() and plain not in NO_NAMES
    ends = word != match["name"] or not match["more"] or _after_name(match["more"])
    if not (is_name and ends):
        return None
    return "note" if _negated(match) else "name"


def _negated(match: re.Match[str]) -> bool:
    return any(text for name, text in match.groupdict().items() if name.startswith("neg"))


def _after_name(more: str) -> bool:
    """Whether these words may follow a name: more names, or a word that begins a new phrase."""
    first = more.split()[0]
    return not first[0].islower() or first in AFTER_NAMES
