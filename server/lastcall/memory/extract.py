"""Memories without a model: the user's own sentences about themselves, word for word. Pure functions."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from ..agents.agent import Memory, Message, Transcript

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MEMORIES_MAX = 20  # memories of one session; the newest are kept
INPUT_CHARS_MAX = 50_000  # of the user's words in one session; the newest are read
SENTENCE_CHARS_MAX = 400  # a longer sentence is no plain fact, and the patterns below need a bound
QUOTE_CHARS_MIN = 3  # a shorter quote is found in almost any text, and so proves nothing

_STRAIGHT = str.maketrans(dict.fromkeys("’‘ʼ´`′", "'"))  # noqa: RUF001
_CLOSING = {'"': '"', "“": "”", "„": "“", "«": "»"}
_HIDDEN = "\0"  # stands for each character that the user only quotes

_ADVERBS = (
    r"(?: +(?:really|actually|also|just|still|currently|now|absolutely|always|usually|mostly|generally|only)){0,3}"
)
_OPENERS = (
    r"and|but|so|because|since|as|although|though|plus|also|oh|well|actually|honestly|hi|hello|hey|yes|yeah|no|ok|okay"
    r"|please|btw|by the way|fyi|currently|i think|i guess|i believe"
    r"|(?:remember|know|note|forget|mind|mention)(?: that|,|:)?"
)
_START = rf"(?:^|[,;(–—.!] *| -+ |\b(?:note|fyi|btw|ps|p\.s\.|about me): *|(?<!\w)(?:{_OPENERS}) +)"
_DO = rf"{_START}i{_ADVERBS}(?P<neg> +(?:don'?t|do not|never|no longer|hardly))?{_ADVERBS} +"
_BE = rf"{_START}(?:i'?m|i am){_ADVERBS}(?P<neg> +(?:not|no longer|never))?{_ADVERBS} +"
_WAS = rf"{_START}(?:i'?ve|i have|i)(?: was| did)?{_ADVERBS}(?P<neg> +(?:wasn't|was not|not|never|didn't))?{_ADVERBS} +"
_CANNOT = rf"{_START}i{_ADVERBS} +(?:can'?t|cannot|can not|mustn'?t|must not|couldn'?t){_ADVERBS} +"
_IS = r"(?:'s| is| are|(?P<neg>(?:'s| is| are) not| isn'?t| aren'?t))(?!\w)"
_RELATIVES = (
    r"(?:(?:ex-?|step|grand)?(?:wife|husband|partner|girlfriend|boyfriend|fianc[eé]e?|spouse|son|daughter|kid|child|children"
    r"|baby|mother|father|mum|mom|dad|parent|brother|sister|sibling|twin|family|uncle|aunt|cousin|niece|nephew|friend"
    r"|flatmate|roommate|neighbou?r|boss|colleague|dog|cat|pet|horse|bird|rabbit|hamster|parrot)(?:s|es)?)"
)
_VAGUE = r"(?!(?:it|that|this|you|them|him|her)(?: *$| *[.,;!]| too\b| a lot\b| so much\b))"

_COUNT = r"(?:an?|no|one|two|three|four|five|some|\d+)"
_ILLNESSES = r"(?:allerg(?:y|ies)|intolerance|diabetes|asthma|disability|dyslexia|adhd|epilepsy|migraines?)"
_CONDITIONS = (
    r"(?:allergic|intolerant|vegan|vegetarian|pescatarian|diabetic|c(?:o?e)liac|pregnant|deaf|blind|disabled"
    r"|dyslexic|autistic|epileptic)"
)
_STATES = (
    r"(?:married|single|divorced|widowed|engaged|retired|unemployed|self-employed|studying|working (?:as|at|for|in))"
)
_POSSESSIONS = r"(?:birthday|job|age|phone number|email|pronouns|hobby|hobbies|(?:first|native) language)"
_CALLERS = r"(?:you (?:can|may|could)|just|everyone|everybody|people|friends|they|please)"
_NOT_CALLED = r"(?:(?:back|when|if|at|on|in|an?|the|crazy|maybe|names)\b|later|to|old)"
_DO_WITHOUT = r"(?:eat|drink|have|tolerate|digest|walk|see|hear|read|use|take|drive|climb|swim|afford|live without)"

_PATTERNS: Sequence[tuple[str, str]] = (
    ("name", rf"{_START}my (?:\w+ )?name{_IS}"),
    ("name", rf"{_START}(?:{_CALLERS} )?(?P<neg>don'?t |do not |never )?calls? me (?!{_NOT_CALLED})"),
    ("name", rf"{_BE}(?:called|named) "),
    ("name", rf"{_DO}go by (?!(?:car|bus|train|bike|plane|foot|the|my)\b)"),
    ("place", rf"{_DO}(?:(?:come|hail) from|(?:live|reside) (?:in|at|near|on|by|outside|here|just))\b"),
    ("place", rf"{_WAS}(?:moved (?:back )?to|relocated to|grew up (?:in|on|near)|raised in) "),
    ("place", rf"{_WAS}born (?:and raised )?in(?! *\d) "),
    ("place", rf"{_BE}(?:(?:originally )?from|based (?:in|near|at)|living (?:in|at|near|on)|moving to|located in) "),
    ("place", rf"{_START}my (?:home ?town|home|address|current city|city){_IS}"),
    (
        "need",
        rf"{_DO}(?:need|require|must|have to|depend on|rely on|use a wheelchair)\b(?! (?:you|your|to (?:ask|know))\b)",
    ),
    ("need", rf"{_START}i(?:'?ve| have) got to "),
    ("need", rf"{_DO}(?:have|suffer from)(?: [^\W\d_-]+){{0,3}}? {_ILLNESSES}\b"),
    ("need", rf"{_CANNOT}{_DO_WITHOUT}\b"),
    ("need", rf"{_BE}(?:looking for|searching for|in need of|on a (?:diet|budget)|(?:\w+[ -]){{0,2}}?{_CONDITIONS})\b"),
    ("dislike", rf"{_START}my least favou?rite\b"),
    ("dislike", rf"{_DO}(?:hate|dislike|detest|loathe|despise) {_VAGUE}"),
    ("dislike", rf"{_CANNOT}(?:stand|bear|abide) {_VAGUE}"),
    ("like", rf"{_DO}(?:like|love|enjoy|prefer|adore|care for) {_VAGUE}"),
    ("like", rf"{_BE}(?:an? (?:\w+ )?(?:fan|lover) of|fond of|into|keen on|interested in) {_VAGUE}"),
    ("like", rf"{_BE}(?:crazy|mad|passionate) about {_VAGUE}"),
    ("like", rf"{_START}my (?:\w+ )?favou?rite\b"),
    (
        "note",
        rf"{_DO}(?:work (?:as|at|for|in|with|from|on|part|full)|study|teach|speak|own|play|run|live (?:alone|with))\b",
    ),
    ("note", rf"{_START}i(?:'?ve got|{_ADVERBS} have) {_COUNT}(?: \w+){{0,2}}? {_RELATIVES}\b"),
    ("note", rf"{_WAS}born (?:on|in) "),
    ("note", rf"{_BE}(?:{_STATES}|an? (?!bit|little|lot|few|moment|fan|\w+ (?:bit|fan)))\b"),
    ("note", rf"{_BE}\d{{1,3}}(?: years old)?(?= *(?:[.,;!]|and\b|$))"),
    ("note", rf"{_START}my (?:\w+ )?(?:{_RELATIVES}(?:'s \w+)?(?: \w+)?|{_POSSESSIONS}){_IS}"),
    (
        "note",
        rf"{_START}my (?:\w+ )?{_RELATIVES} (?:lives?|works?|has|have|likes?|loves?|hates?|needs?|died|studies|goes)\b",
    ),
)
_RULES = [(kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in _PATTERNS]
_REMEMBER = re.compile(
    rf"{_START}(?:(?:can|could|would|will) you )?(?:please |kindly |also |always )?"
    r"(?:remember(?! (?:when|how|what|where|me|the time)\b)|(?:don'?t|do not|never) forget|(?:keep|bear) in mind"
    r"|(?:make a )?note that|for the record)\b",
    re.IGNORECASE,
)
_POLITE = re.compile(r"^\W*(?:please )?(?:can|could|would|will) you (?:please )?remember that ", re.IGNORECASE)
_I_AM = re.compile(rf"{_BE}(?P<name>\S+)(?P<more>(?: +[^\W\d_][\w'-]*){{0,3}})", re.IGNORECASE)
_NATIONALITIES = re.compile(
    r"american|australian|austrian|belgian|brazilian|british|canadian|chinese|danish|dutch|english|finnish|french|german"
    r"|greek|icelandic|indian|irish|italian|japanese|jewish|korean|mexican|muslim|norwegian|polish|portuguese|russian"
    r"|scottish|spanish|swedish|swiss|turkish|ukrainian|welsh|christian|catholic|buddhist|hindu"
)
_NO_NAMES = frozenset({"ok", "okay", "sorry", "here", "i", "not", "sure"})

_AFTER_NAMES = frozenset({"and", "but", "from", "here", "by", "the", "a", "an", "i", "i'm", "van", "von", "de"})

_WH = r"what|what's|whats|who|who's|whose|where|where's|when|why|how|how's|which"
_AUX = r"do|does|did|am|is|are|was|were|can|could|should|would|will|have|has|may|might"
_ASKS = re.compile(
    rf"^\W*(?:(?:and|so|but|hey|hi|ok|please),? +)?"
    rf"(?:(?:{_WH})\b|(?:{_AUX}|don'?t|doesn'?t) (?:i|you|my|he|she|it|we|they|the|this|that|an?)\b)",
    re.IGNORECASE,
)
_THEN_ASKS = re.compile(
    rf"(?:[,;–—]| -| and| so| but) *(?:(?:and|so|but) +)?(?:{_WH}|{_AUX}|any)\b",
    re.IGNORECASE,
)
_NOT_MEANT = re.compile(
    r"^\W*(?:(?:and|but|so|please|now|can you|could you),? +)?"
    r"(?:translate|say|write|repeat|correct|rewrite|summari[sz]e|proofread|spell|imagine|suppose"
    r"|pretend|assume|let'?s say|whether|if (?!you)|unless|when |whenever )"
    r"|\b(?:what if|as if|even if|i wish|if only|imagine|pretend|suppose|supposing|hypothetically)\b",
    re.IGNORECASE,
)
_WIDE_ENDS = "。\N{FULLWIDTH EXCLAMATION MARK}\N{FULLWIDTH QUESTION MARK}"  # no space follows them
_ENDS = re.compile(f"[.!?…{_WIDE_ENDS}]+")
_AFTER_ENDS = frozenset("\"'”)»")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:mr|mrs|ms|dr|prof|st|jr|sr|no|e\.g|i\.e|approx|[^\W\d_](?:\.[^\W\d_])*)$", re.IGNORECASE
)
_MARKER = re.compile(r"[\s>*•#-]*(?:\d{1,3}[.)]\s+)?")


def extractive(transcript: Transcript) -> list[Memory]:
    """The user's sentences about themselves, oldest first; each memory's content is its quote."""
    found: dict[str, Memory] = {}
    for message, text, whole in _newest(transcript.messages):
        for sentence, shown in _sentences(text, whole=whole):
            if fact := _fact(sentence, shown):
                kind, quote = fact
                key = " ".join(quote.casefold().translate(_STRAIGHT).split()).rstrip(".!")
                found.pop(key, None)  # said again: the newer item counts
                found[key] = Memory(kind, quote, message.item_id, quote)
    return list(found.values())[-MEMORIES_MAX:]


def grounded(memories: Iterable[Memory], transcript: Transcript) -> list[Memory]:
    """Those whose quote stands in the user's item they name, case and white space aside; in the item's wording."""
    texts = {message.item_id: message.text for message in transcript.messages if message.role == "user"}
    return [
        replace(memory, quote=found)
        for memory in memories
        if (found := _found(memory.quote, texts.get(memory.item_id, "")))
    ]


def _found(quote: str, text: str) -> str | None:
    """The part of the text that the quote repeats. A search for a plain string: linear, whatever a model quotes."""
    wanted, _ = _plain(quote)
    plain, positions = _plain(text)
    at = plain.find(wanted)
    if at < 0 or len(wanted) < QUOTE_CHARS_MIN:
        return None
    return text[positions[at] : positions[at + len(wanted) - 1] + 1]


def _plain(text: str) -> tuple[str, list[int]]:
    """In lower case, apostrophes straight and white space single; and where each character stands in the text."""
    characters: list[str] = []
    positions: list[int] = []
    for word in re.finditer(r"\S+", text):
        if characters:
            characters.append(" ")
            positions.append(word.start() - 1)
        characters += [low if len(low := character.lower()) == 1 else character for character in word.group()]
        positions += range(word.start(), word.end())
    return "".join(characters).translate(_STRAIGHT), positions


def _newest(messages: Sequence[Message]) -> list[tuple[Message, str, bool]]:
    """The user's newest messages within the bound, oldest first, and whether each text is whole or only its end."""
    taken, room = [], INPUT_CHARS_MAX
    for message in reversed(messages):
        if message.role == "user" and room > 0:
            taken.append((message, message.text[-room:], len(message.text) <= room))
            room -= len(message.text)
    return taken[::-1]


def _sentences(text: str, *, whole: bool) -> Iterator[tuple[str, str]]:
    """Each sentence as written and, of the same length, with quoted parts hidden; no code and no `>` lines."""
    fenced = False
    for line in text.splitlines():
        first, whole = not whole, True
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not line.lstrip().startswith(">"):
            shown = _hide_quoted(line.translate(_STRAIGHT))
            for start, end in _spans(shown):
                if not first:  # what was cut in the middle may have lost its "don't"
                    yield line[start:end], shown[start:end]
                first = False


def _spans(line: str) -> Iterator[tuple[int, int]]:
    """Where sentences of a line start and end, their full stops included, list markers and white space not."""
    start = 0
    # A run of marks is one match: looking ahead from within the pattern would read a long run once per mark.
    for mark in _ENDS.finditer(line):
        goes_on = mark.end() < len(line) and not line[mark.end()].isspace() and mark.group()[0] not in _WIDE_ENDS
        short = mark.group() == "." and _ABBREVIATION.search(line, max(start, mark.start() - 8), mark.start())
        if short or (goes_on and line[mark.end()] not in _AFTER_ENDS):
            continue
        yield from _trimmed(line, start, mark.end())
        start = mark.end()
    yield from _trimmed(line, start, len(line))


def _trimmed(line: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    if end - start > SENTENCE_CHARS_MAX:
        return
    part = line[start:end]
    skipped = _MARKER.match(part)
    start += skipped.end() if skipped else 0
    end -= len(part) - len(part.rstrip())
    if start < end:
        yield start, end


def _hide_quoted(line: str) -> str:
    """The line with what stands between quotation marks hidden; a quotation that is never closed lasts to the end."""
    parts, position = [], 0
    for opening in re.finditer(r"(?<![\w.])[\"“„«']", line):
        if opening.start() < position:
            continue
        mark = opening.group()
        end = _single_close(line, opening.end()) if mark == "'" else line.find(_CLOSING[mark], opening.end())
        if end < 0 and mark == "'":
            continue  # an apostrophe: 'cause
        end = len(line) if end < 0 else end
        parts += [line[position : opening.end()], _HIDDEN * (end - opening.end())]
        position = end
    return "".join(parts) + line[position:]


def _single_close(line: str, start: int) -> int:
    match = re.compile(r"'(?!\w)").search(line, start, start + SENTENCE_CHARS_MAX)
    return match.start() if match else -1


def _fact(sentence: str, shown: str) -> tuple[str, str] | None:
    """The kind of fact a sentence states, and its words; of "I like tea, which is best?" those before the question."""
    asks = shown.endswith(("?", _WIDE_ENDS[-1]))
    if asks and not _POLITE.match(shown):
        then = _THEN_ASKS.search(shown)
        if not then:
            return None
        sentence, shown = sentence[: then.start()].rstrip(), shown[: then.start()].rstrip()
    if _NOT_MEANT.search(shown) or (_ASKS.match(shown) and not _POLITE.match(shown)):
        return None
    kind = _kind(shown)
    return (kind, sentence.rstrip()) if kind else None  # a quotation that is never closed hides white space too


def _kind(shown: str) -> str | None:
    """The kind of what a sentence says first; "remember that …" only decides where nothing else does."""
    hits = [(match.start(), _negated(kind, match)) for kind, rule in _RULES if (match := rule.search(shown))]
    if (match := _I_AM.search(shown)) and (kind := _introduced(shown, match)):
        hits.append((match.start(), kind))
    if hits:
        return min(hits, key=lambda hit: hit[0])[1]
    return "note" if _REMEMBER.search(shown) else None


def _negated(kind: str, match: re.Match[str]) -> str:
    if not match.groupdict().get("neg"):
        return kind
    return "dislike" if kind == "like" else "note"


def _introduced(shown: str, match: re.Match[str]) -> str | None:
    """The kind of "I'm Ada": a name where the word is written like one."""
    word = match["name"].rstrip(".,;!)")
    plain = word.casefold()
    if _NATIONALITIES.fullmatch(plain):
        return "note"
    is_name = word[:1].isalpha() and not word[0].islower() and not shown.isupper() and plain not in _NO_NAMES
    ends = word != match["name"] or not match["more"] or _after_name(match["more"])
    if not (is_name and ends):
        return None
    return "note" if match["neg"] else "name"


def _after_name(more: str) -> bool:
    """Whether the words after a name leave it one: more names, or a word that begins something new."""
    first = more.split()[0]
    return not first[0].islower() or first in _AFTER_NAMES
