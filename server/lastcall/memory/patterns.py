"""The patterns of the rules extractor. Compiling them takes tens of milliseconds, so only `rules` imports them.

They are matched where a clause starts, and nowhere else. Searched for, each would scan every sentence for its start,
and a sentence of 400 characters would take milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_ADVERBS = (
    r"(?: +(?:really|actually|also|just|still|currently|now|absolutely|always|usually|mostly|generally|only)){0,3}"
)
_OPENERS = (
    r"and|but|so|because|since|as|although|though|plus|also|oh|well|actually|honestly|hi|hello|hey|yes|yeah|no|ok|okay"
    r"|please|btw|by the way|fyi|currently|i think|i guess|i believe"
    r"|(?:remember|know|note|forget|mind|mention)(?: that|,|:)?"
)
# In a lookahead, because what leads up to one clause may overlap what leads up to the next.
LEADS_UP = re.compile(
    rf"(?=([,;(–—.!] *| -+ |\b(?:note|fyi|btw|ps|p\.s\.|about me): *|(?<!\w)(?:{_OPENERS}) +)\w)", re.IGNORECASE
)
"""Group 1 ends where a clause starts; the first one starts at 0."""
_DO = rf"i{_ADVERBS}(?P<neg> +(?:don'?t|do not|never|no longer|hardly))?{_ADVERBS} +"
_BE = rf"(?:i'?m|i am){_ADVERBS}(?P<neg> +(?:not|no longer|never))?{_ADVERBS} +"
_WAS = rf"(?:i'?ve|i have|i)(?: was| did)?{_ADVERBS}(?P<neg> +(?:wasn't|was not|not|never|didn't))?{_ADVERBS} +"
_CANNOT = rf"i{_ADVERBS} +(?:can'?t|cannot|can not|mustn'?t|must not|couldn'?t){_ADVERBS} +"
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
    ("name", rf"my (?:\w+ )?name{_IS}"),
    ("name", rf"(?:{_CALLERS} )?(?P<neg>don'?t |do not |never )?calls? me (?!{_NOT_CALLED})"),
    ("name", rf"{_BE}(?:called|named) "),
    ("name", rf"{_DO}go by (?!(?:car|bus|train|bike|plane|foot|the|my)\b)"),
    ("place", rf"{_DO}(?:(?:come|hail) from|(?:live|reside) (?:in|at|near|on|by|outside|here|just))\b"),
    ("place", rf"{_WAS}(?:moved (?:back )?to|relocated to|grew up (?:in|on|near)|raised in) "),
    ("place", rf"{_WAS}born (?:and raised )?in(?! *\d) "),
    ("place", rf"{_BE}(?:(?:originally )?from|based (?:in|near|at)|living (?:in|at|near|on)|moving to|located in) "),
    ("place", rf"my (?:home ?town|home|address|current city|city){_IS}"),
    (
        "need",
        rf"{_DO}(?:need|require|must|have to|depend on|rely on|use a wheelchair)\b(?! (?:you|your|to (?:ask|know))\b)",
    ),
    ("need", r"i(?:'?ve| have) got to "),
    ("need", rf"{_DO}(?:have|suffer from)(?: [^\W\d_-]+){{0,3}}? {_ILLNESSES}\b"),
    ("need", rf"{_CANNOT}{_DO_WITHOUT}\b"),
    ("need", rf"{_BE}(?:looking for|searching for|in need of|on a (?:diet|budget)|(?:\w+[ -]){{0,2}}?{_CONDITIONS})\b"),
    ("dislike", r"my least favou?rite\b"),
    ("dislike", rf"{_DO}(?:hate|dislike|detest|loathe|despise) {_VAGUE}"),
    ("dislike", rf"{_CANNOT}(?:stand|bear|abide) {_VAGUE}"),
    ("like", rf"{_DO}(?:like|love|enjoy|prefer|adore|care for) {_VAGUE}"),
    ("like", rf"{_BE}(?:an? (?:\w+ )?(?:fan|lover) of|fond of|into|keen on|interested in) {_VAGUE}"),
    ("like", rf"{_BE}(?:crazy|mad|passionate) about {_VAGUE}"),
    ("like", r"my (?:\w+ )?favou?rite\b"),
    (
        "note",
        rf"{_DO}(?:work (?:as|at|for|in|with|from|on|part|full)|study|teach|speak|own|play|run|live (?:alone|with))\b",
    ),
    ("note", rf"i(?:'?ve got|{_ADVERBS} have) {_COUNT}(?: \w+){{0,2}}? {_RELATIVES}\b"),
    ("note", rf"{_WAS}born (?:on|in) "),
    ("note", rf"{_BE}(?:{_STATES}|an? (?!bit|little|lot|few|moment|fan|\w+ (?:bit|fan)))\b"),
    ("note", rf"{_BE}\d{{1,3}}(?: years old)?(?= *(?:[.,;!]|and\b|$))"),
    ("note", rf"my (?:\w+ )?(?:{_RELATIVES}(?:'s \w+)?(?: \w+)?|{_POSSESSIONS}){_IS}"),
    (
        "note",
        rf"my (?:\w+ )?{_RELATIVES} (?:lives?|works?|has|have|likes?|loves?|hates?|needs?|died|studies|goes)\b",
    ),
)
RULES = [(kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in _PATTERNS]
REMEMBER = re.compile(
    r"(?:(?:can|could|would|will) you )?(?:please |kindly |also |always )?"
    r"(?:remember(?! (?:when|how|what|where|me|the time)\b)|(?:don'?t|do not|never) forget|(?:keep|bear) in mind"
    r"|(?:make a )?note that|for the record)\b",
    re.IGNORECASE,
)
POLITE = re.compile(r"^\W*(?:please )?(?:can|could|would|will) you (?:please )?remember that ", re.IGNORECASE)
I_AM = re.compile(rf"{_BE}(?P<name>\S+)(?P<more>(?: +[^\W\d_][\w'-]*){{0,3}})", re.IGNORECASE)
NATIONALITIES = re.compile(
    r"american|australian|austrian|belgian|brazilian|british|canadian|chinese|danish|dutch|english|finnish|french|german"
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
    r"(?:translate|say|write|repeat|correct|rewrite|summari[sz]e|proofread|spell|imagine|suppose"
    r"|pretend|assume|let'?s say|whether|if (?!you)|unless|when |whenever )"
    r"|\b(?:what if|as if|even if|i wish|if only|imagine|pretend|suppose|supposing|hypothetically)\b",
    re.IGNORECASE,
)
