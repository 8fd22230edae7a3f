"""Finds what of a message is the user's own: not pasted, quoted, played, or about to be worked on. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..sentences import lowered, sentences

_HEADER = re.compile(
    r"^[ \t]*(?:from|to|cc|subject|date|sent|von|an|betreff|de|para|asunto|assunto|objet|oggetto|от|кому|тема"
    r"|发件人|主题|件名|差出人)[ \t]*[:：][ \t]*\S",  # noqa: RUF001
    re.IGNORECASE | re.MULTILINE,
)
_SALUTATION = re.compile(
    r"(?:^|[:\n])[ \t]*(?:(?:dear|sehr geehrte[rs]?|liebe[rs]?|chère?|cher|queridos?|queridas?|estimad[oa]s?"
    r"|prezad[oa]s?"
    r"|car[oai]|gentile|уважаем\w+|дорог\w+|尊敬的|亲爱的|拝啓|عزيزي)(?!\w)[^\n]{0,60}"
    r"|(?:hi|hello|hey|good (?:morning|day|evening)|hallo|guten tag|bonjour|hola|olá|ciao|привет|здравствуйте)"
    r"(?: [\w.'’-]{1,30}){0,3}[ \t]*[,!][ \t]*(?=\n))",
    re.IGNORECASE,
)
_SIGN_OFF = re.compile(
    r"^[ \t]*(?:(?:(?:best|kind|warm|warmest)[ \t]+)?(?:regards|wishes)|sincerely(?: yours)?|yours(?: (?:truly"
    r"|sincerely|faithfully))?"
    r"|best|cheers|(?:many )?thanks|love|mit freundlichen grüßen|viele grüße|cordialement|saludos"
    r"|atenciosamente|abraços"
    r"|cordiali saluti|с уважением|此致|敬具)[ \t]*[,.!]?[ \t]*(?:\n[ \t]*)?(?:[-–—][ \t]*)?[^\W\d_][\w.'’ -]{0,40}"  # noqa: RUF001
    r"\s*\Z",
    re.IGNORECASE | re.MULTILINE,
)
_SPEAKER = re.compile(
    r"(?:[\[(]?\d[\d:./, -]{3,24}(?:[ap]m)?[\])]? ?[-–]? ?)?<?"
    r"(?P<who>[^\W\d_][\w.'’-]{0,24}(?: [^\W\d_][\w.'’-]{0,24}){0,2})>? ?[:：] ?\S",  # noqa: RUF001
)
_OWN_LABELS = frozenset(
    [
        "note",
        "notes",
        "ps",
        "btw",
        "fyi",
        "me",
        "i",
        "about",
        "name",
        "age",
        "edit",
        "update",
        "correction",
        "info",
        "remember",
        "reminder",
        "hint",
        "also",
        "reminder",
        "fact",
        "facts",
        "ok",
        "tl;dr",
    ]
)
_MINE = re.compile(
    r"(?i)\b(?:my|me|myself|mich|mir|meine?|moi|mon|mes|mí|mi|mim|meus?|minhas?|io|мо[йяи]|мне)\b|我|私|عني"
)
_TEXT = (
    r"(?:e-?mails?|mails?|letters?|messages?|texts?|stor(?:y|ies)|poems?|song|lyrics|logs?|transcripts?|chats?"
    r"|conversations?"
    r"|reviews?|articles?|posts?|tweets?|essays?|paragraphs?|passages?|sentences?|bios?|profiles?|speech"
    r"|tickets?|customers?"
    r"|clients?|dialogues?|scripts?|quotes?|comments?|answers?|paste|document|section|novel|book|diary"
    r"|testimonials?|words)"
)
_WORK = (
    r"(?:translate|summari[sz]e|sum up|proof-?read|correct|fix|edit|improve|rewrite|re-?phrase|paraphrase"
    r"|shorten|polish"
    r"|analy[sz]e|review|explain|answer|reply|respond|continue|complete|finish|extract|classify|convert|format"
    r"|check|read"
    r"|look at|write|draft|compose|begin|start|turn|make|grade|critique|expand|simplify|reformat|evaluate|rate"
    r"|process|use)"
)
_ASKED = (
    r"(?:^\W*|[.,;:!?] *|\b(?:please|can you|could you|would you|will you|help me(?: to)?|i want you to"
    r"|i need you to|how"
    r" (?:do|should|can|would|could) (?:i|we)|what (?:do|should|can|would) (?:i|we)|let's|and|to|kindly|just) +)"
)
_HANDED_OVER = re.compile(
    rf"(?:{_ASKED}{_WORK}\b[^?!]{{0,100}}?(?:\b(?:this|these|that|following|below|above|here|like so|as follows"
    rf"|{_TEXT})\b|[:：]))"  # noqa: RUF001
    rf"|\b(?:here(?:'s| is| are)|this is|these are|below is|look at"
    rf"|see)\b(?![^.]{{0,12}}\babout me\b)[^.?!]{{0,80}}\b{_TEXT}\b"
    rf"|\b(?:wrote|writes|says|said|sent(?: me)?|texted(?: me)?|posted|asks|asked|told me|goes|reads"
    rf"|replied)\b[^.?!]{{0,40}}[:：]"  # noqa: RUF001
    r"|\bwhat does (?:this|that) (?:mean|say)\b|\bis (?:this|the following)\b[^.!]{0,60}\b(?:correct|right|ok"
    r"|okay|good|english)\b"
    r"|(?:^|\W)(?:übersetz|fass|korrigier|verbesser|tradui[sr]|résume|corrige|traduce|traduza|traduz|traduci|riassumi"
    r"|correggi|resum[ae]|переведи|исправь|перескажи|翻译|总结|修改|翻訳|要約|添削|ترجم|لخص|صحح)",
)
_PLAYED = re.compile(
    r"(?:^\W*|[.,;:!?] *)you(?:'re| are) (?:now )?(?:an?|the|my) (?!(?:great|good|big|star|genius|life|legend"
    r"|kind|friend|real"
    r"|true|nice|huge|best|lot|bit|little)\b)\w"
    r"|\b(?:act as|acting as|pretend|role-?play(?:ing)?|in (?:this|your|that) role|in character|let's play"
    r"|the (?:role|part) of|persona"
    r"|as if you were|make believe|once upon a time|du bist (?:jetzt )?ein|tu es (?:maintenant )?une?"
    r"|eres (?:ahora )?une?"
    r"|finge|rollenspiel|jeu de rôle|игра(?:ем)? роль|представь|角色扮演|你是一)(?:\b|(?<=\W))",
)
_STAYS_PLAYED = re.compile(
    r"\b(?:role-?play|in (?:this|your|that) role|in character|let's play|rollenspiel|jeu de rôle)|角色扮演",
)
_PLAY_ENDS = re.compile(
    r"\b(?:out of character|stop (?:the )?(?:role|game|play|pretending)|end of (?:the )?(?:role|game|play)"
    r"|(?:game|play) is over"
    r"|as myself|back to reality|for real now|seriously now|in real life|irl)\b",
    re.IGNORECASE,
)
_BLANKS = re.compile(r"[ \t]{2,}")
_PARAGRAPHS = re.compile(r"\n[ \t]*\n")
_TRAILING_REQUEST_CHARS_MAX = 400
_SPEAKER_CHARS = 120  # of a line, in which its speaker's name ends


class OwnWords:
    """Follows one session's messages: a role that is played lasts until it is ended."""

    def __init__(self) -> None:
        self._playing = False

    def own(self, text: str, *, whole: bool) -> Iterator[tuple[str, str]]:
        """The user's own sentences of their next message, as `sentences` yields them."""
        if self._playing and not _PLAY_ENDS.search(text[:_TRAILING_REQUEST_CHARS_MAX]):
            return
        self._playing = False
        for sentence, whole_shown in sentences(_without_pasted(text), whole=whole):
            shown = lowered(_squeezed(whole_shown))
            if _PLAYED.search(shown):
                self._playing = bool(_STAYS_PLAYED.search(shown))
                return
            if _HANDED_OVER.search(shown):
                return
            yield sentence, whole_shown


def _without_pasted(text: str) -> str:
    """The message without letters, logs of chats, and what follows a line that ends with a colon."""
    if "\n" in text.strip() and _SIGN_OFF.search(_squeezed(text[-_TRAILING_REQUEST_CHARS_MAX:])):
        return _before_letter(text)
    paragraphs = _PARAGRAPHS.split(text)
    last = paragraphs[-1]
    if len(paragraphs) > 1 and len(last) <= _TRAILING_REQUEST_CHARS_MAX and _HANDED_OVER.search(lowered(last)):
        return ""
    for pattern in (_HEADER, _SALUTATION):
        if found := pattern.search(text):
            text = text[: found.start()]
    return "\n".join(_lines(text))


def _squeezed(text: str) -> str:
    """Without runs of blanks, which patterns would read once per blank."""
    return _BLANKS.sub(" ", text) if "  " in text or "\t" in text else text


def _before_letter(text: str) -> str:
    """What precedes a signed letter: the lines up to its salutation or the request to work on it."""
    found = _SALUTATION.search(text) or _HEADER.search(text)
    return text[: found.start()] if found else ""


def _lines(text: str) -> Iterator[str]:
    lines = text.splitlines()
    for number, line in enumerate(lines):
        speaker = _SPEAKER.match(line.strip()[:_SPEAKER_CHARS])
        if speaker and not _is_own(speaker["who"]):
            continue
        yield line
        rest = number + 1 < len(lines)
        if rest and line.rstrip().endswith((":", "\N{FULLWIDTH COLON}")) and not _MINE.search(line[-200:]):
            return


def _is_own(label: str) -> bool:
    first = label.casefold().split()[0]
    return first in _OWN_LABELS or bool(_MINE.match(label)) or (len(label.split()) > 1 and not label[0].isupper())
