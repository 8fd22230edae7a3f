"""The patterns of the rules extractor that are not about one kind of fact.

Those that are searched for are in lower case, and meant for `sentences.lowered`: to ignore the case of both takes twice
as long.

Compiling patterns takes tens of milliseconds, so only `rules` imports this. Those of facts are matched where a clause
starts, and nowhere else: searched for, each would scan every sentence for its start, and a sentence of 400 characters
would take milliseconds.
"""

from __future__ import annotations

import re

from .facts.rule_files import compiled, read_rules

ENGLISH = read_rules("en")

_OPENERS = (
    r"and|but|so|because|since|as|although|though|plus|also|oh|well|actually|honestly|hi|hello|hey|yes|yeah|no|ok|okay"
    r"|please|btw|by the way|fyi|currently|now|nowadays|these days|at the moment|for now|i think|i guess|i believe"
    r"|i mean|i meant|correction|sorry"
    r"|since today|as of (?:today|now)|good news|update|news|(?:last|this) (?:week|month|year|summer|winter"
    r"|spring|autumn)|yesterday|today|recently|finally|guess what|(?:also )?(?:remember|know|note"
    r"|mention)(?: that|,|:)?|don'?t forget(?: that|,|:)?|(?:keep|bear) in mind(?: that|,|:)?"
)
# In a lookahead, because what leads up to one clause may overlap what leads up to the next.
LEADS_UP = re.compile(
    rf"(?=([,;(–—.!] *| -+ |\b(?:note|fyi|btw|ps|p\.s\.|about me|correction): *|(?<!\w)(?:{_OPENERS}) +)\w)"
)
"""Group 1 ends where a clause starts; the first one starts at 0."""
NO_LONGER = re.compile(
    r"\b(?:no longer|any ?more|not any longer|used to|not (?:\w+ ){0,3}any ?more|gave up|quit|stopped"
    r"|don't \w+ .{0,60} any ?more)\b",
    re.IGNORECASE,
)
REMEMBER = re.compile(
    r"(?:(?:can|could|would|will) you )?(?:please |kindly |also |always )?"
    r"(?:remember(?! (?:to (?!call me\b)|when|how|what|where|me|the time)\b)"
    r"|(?:don'?t|do not|never) forget(?! to (?!call me\b))|(?:keep|bear) in mind"
    r"|(?:make a )?note that|for the record)\b",
    re.IGNORECASE,
)
POLITE = re.compile(r"^\W*(?:please )?(?:can|could|would|will) you (?:please )?remember that ", re.IGNORECASE)
I_AM = compiled(rf"{ENGLISH.names['BE']}(?P<name>\S+)(?P<more>(?: +[^\W\d_][\w'-]*){{0,3}})")
NATIONALITIES = re.compile(
    r"american|australian|austrian|belgian|brazilian|british|canadian|chinese|danish|dutch|english|finnish"
    r"|french|german"
    r"|greek|icelandic|indian|irish|italian|japanese|jewish|korean|mexican|muslim|norwegian|polish|portuguese|russian"
    r"|scottish|spanish|swedish|swiss|turkish|ukrainian|welsh|christian|catholic|buddhist|hindu"
)
NO_NAMES = frozenset({"ok", "okay", "sorry", "here", "i", "not", "sure"})
AFTER_NAMES = frozenset({"and", "but", "from", "here", "by", "the", "a", "an", "i", "i'm", "van", "von", "de"})
_WH = r"what|what's|whats|who|who's|whose|where|where's|when|why|how|how's|which"
_AUX = r"do|does|did|am|is|are|was|were|can|could|should|would|will|have|has|may|might"
ASKS = re.compile(
    rf"^\W*(?:(?:and|so|but|hey|hi|ok|please),? +)?"
    rf"(?:(?:{_WH})\b|(?:{_AUX}|don'?t|doesn'?t) (?:i|you|my|he|she|it|we|they|the|this|that|an?)\b)",
    re.IGNORECASE,
)
THEN_ASKS = re.compile(
    rf"(?:[,;–—]| -| and| so| but) *(?:(?:and|so|but) +)?(?:{_WH}|{_AUX}|any)\b",
    re.IGNORECASE,
)
NOT_MEANT = re.compile(
    r"^\W*(?:(?:and|but|so|please|now|can you|could you),? +)?"
    r"(?:translate|say|write|repeat|correct(?!ion)|rewrite|summari[sz]e|proofread|spell|imagine|suppose"
    r"|pretend|assume|let'?s say|whether|if (?!you)|unless|when |whenever )"
    r"|\b(?:what if|as if|even if|i wish|if only|imagine|pretend|suppose|supposing|hypothetically)\b",
)
