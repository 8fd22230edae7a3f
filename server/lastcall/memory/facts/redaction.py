"""Takes secrets out of a text: before a memory is stored, and again before it is shown. Pure, and linear."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable

REDACTED = "[redacted]"
CARD_DIGITS_MIN, CARD_DIGITS_MAX = 13, 19
ENTROPY_BITS_MIN = 3.0  # a character; of a word beside "token", "key" and the like
RUN_BITS_MIN = 3.8  # a character; of 20 or more letters and digits in a row, large, small and digits among them
SECRET_CHARS_MIN = 16  # of a word with such entropy
SECRET_CHARS_READ = 64  # of a secret, by which it is told: of a card number or IBAN with spaces, all

_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}-----.*?(?:-----END [A-Z0-9 ]{0,40}-----|\Z)", re.DOTALL)
_TOKENS = re.compile(
    r"(?<![\w-])(?:eyJ[\w-]{5,}\.[\w-]{5,}(?:\.[\w-]*)?"  # JWT
    r"|(?:sk|pk|rk)[-_](?:live_|test_|proj-|ant-)?[\w-]{12,}"
    r"|gh[opusr]_\w{16,}|github_pat_\w{20,}|glpat-[\w-]{16,}|(?:AKIA|ASIA|AROA)[A-Z0-9]{12,}|xox[a-z]-[\w-]{8,}"
    r"|AIza[\w-]{20,}|ya29\.[\w-]{10,}|hf_\w{16,}|npm_\w{20,}|pypi-[\w-]{16,}|SG\.[\w-]{10,}\.[\w-]{10,}|lc_\w{16,})"
)
_URL_PASSWORD = re.compile(r"(?<=://)[^\s/:@]{0,256}:[^\s/@]{1,256}(?=@)")
_BEARER = re.compile(r"(?i)\b(?:bearer|basic) +[\w.~+/=-]{12,}")
_SSN = re.compile(r"(?<![\d-])\d{3}[- ]\d{2}[- ]\d{4}(?![\d-])")
_IBAN = re.compile(r"(?<!\w)[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]{4}){2,7}(?: ?[A-Za-z0-9]{1,3})?(?!\w)")
_DIGITS = re.compile(r"(?<![\d.])\d(?:[ .-]?\d){12,18}(?![\d])")
_SHORT = (
    r"pin(?:[- ]?code| number)?|cvv2?|cvc2?|security code|one[- ]time (?:code|password)|otp|2fa[- ]code|sort code"
    r"|code pin|código pin|geheimzahl|tan(?:[- ]?code)?|пин(?:-?код)?|暗証番号"
)
_LONG = (
    r"pass ?(?:word|wort|code|phrase)|passwd|pwd|mot de passe|contraseña|senha|kennwort|parola|wachtwoord|hasło"
    r"|lösenord|adgangskode|salasana|şifrem?"
    r"|clave(?= (?:del?|de la|de mi) (?:wi-?fi|correo|banco|cuenta|tarjeta)| es\b)|пароль|密码|密碼|パスワード|비밀번호"
    r"|كلمة (?:السر|المرور)"
)
_PHRASE = r"(?:seed|recovery|backup|mnemonic|secret)[- ](?:phrase|words)"
_KEYED = (
    r"(?:api|access|secret|private|auth|encryption|license|recovery|ssh|account|session|client)[ _-]?(?:key"
    r"|token|secret|code|id)"
    r"|token|secret|credentials?|(?:routing|account|passport|social security|ssn|tax|bank account)"
    r" ?(?:number|no\.?|id)?"
)
_JOINS = (
    r"(?: +(?:for|to|of|on) +[\w' .-]{1,40}?)?(?: +(?:is|was|are|ist|lautet|est|es|é|è|to|är|er|now)|(?: +(?:it's"
    r"|its))?)? *[:=：是はは]? *"  # noqa: RUF001
)
_AFTER_SHORT = re.compile(rf"(?i)(?<!\w)(?:{_SHORT})(?!\w){_JOINS}(?P<value>\d(?:[ -]{{0,2}}\d){{2,11}})")
# What a password is for stands between it and "is"; behind that, or a colon, it may have several words.
_IS = (
    r"(?:['\"’]?s? *[:=：—] *|['’]s +"  # noqa: RUF001
    r"|(?: +[^\s,;:=]{1,40}){0,4}? +(?:is|was|ist|lautet|est|es|é|è|to|är|er|on|это|هي|هو|—)"
    r" +(?:now +)?|(?: +[^\s,;:=]{1,40}){1,3} *[:=：] *| *(?:是|は|는|은) *)"  # noqa: RUF001
)
_ENDS = r"(?!(?:and|but|so|because|for|please|und|aber|et|y|e|ma|и|но)\b)"
_WORDS = rf"[^\s,;]{{1,256}}(?:(?<![.!?]) +{_ENDS}[^\s,;]{{1,64}}){{0,5}}"
_QUOTED = r"\"[^\"\n]{1,256}\"|'[^'\n]{1,256}'"
_AFTER_LONG = re.compile(rf"(?i)(?:{_LONG}){_IS}(?P<value>{_QUOTED}|{_WORDS})")
_BESIDE_LONG = re.compile(
    rf"(?i)(?:{_LONG})(?:(?: +(?:for|to|of|on) +[^\s:=]{{1,40}}){{1,2}})? *(?P<value>[^\s,;]{{3,256}})"
)
_AFTER_PHRASE = re.compile(
    rf"(?i)(?<!\w){_PHRASE}(?: +(?:is|was)|['’]s)? *[:=]? *(?P<value>[^\W\d_]{{2,12}}(?: +[^\W\d_]{{2,12}}){{3,23}})"
)
# The password of a login, told beside its name.
_LOGIN = re.compile(
    r"(?i)(?<!\w)(?:(?:login|user(?:name)?|credentials?)(?: +is)? *[:=]? *[^\s,;/:]{1,64} */ *(?P<pair>[^\s,;]{3,256})"
    r"|(?:pw|pass)(?!\w) *(?:[:=] *(?P<told>[^\s,;]{3,256})|(?P<beside>[^\s,;\d]{0,64}\d[^\s,;]{0,192}))"
    r"|-u +[^\s:]{1,64}:(?P<given>[^\s]{3,256}))"
)
_ASSIGNED = re.compile(
    r"(?i)(?:secret|pass(?:word|wd)?|pwd|token|(?:api|access|private)_?key)(?:_\w{1,30})?['\"]? *[:=] *['\"]?"
    r"(?P<value>[^\s'\",;]{6,512})"
)
_AFTER_KEYED = re.compile(
    rf"(?i)(?<!\w)(?:{_KEYED})(?!\w)[^\w\n]{{0,4}}(?:(?:is|was|for|of|to|my"
    rf"|the)[^\w\n]{{1,3}}){{0,3}}(?P<value>[^\s,;]{{6,512}})"
)
_RUN = re.compile(r"[A-Za-z0-9]{20,512}")
_RANDOM = re.compile(r"(?<![\w/+=-])[\w/+=-]{20,512}(?![\w/+=-])")
_PLAIN_AFTER_PASSWORD = frozenset(
    [
        "manager",
        "managers",
        "reset",
        "resets",
        "policy",
        "safe",
        "habe",
        "vergesse",
        "vergessen",
        "de",
        "del",
        "field",
        "protected",
        "is",
        "was",
        "my",
        "the",
        "for",
        "to",
        "and",
        "or",
    ]
)


_SIGNS = (
    *("-----begin", "://", "bearer", "basic", "eyj", "sk-", "sk_", "pk-", "pk_", "rk-", "rk_", "ghp_", "gho_", "ghs_"),
    *("ghr_", "ghu_", "github_pat_", "glpat-", "akia", "asia", "aroa", "xox", "aiza", "hf_", "npm_", "pypi-", "sg."),
    *(
        "lc_",
        "pass",
        "pwd",
        "mot de",
        "contraseña",
        "senha",
        "kennwort",
        "пароль",
        "密码",
        "密碼",
        "パスワード",
        "كلمة",
        "parola",
        "wachtwoord",
        "hasło",
        "lösenord",
        "adgangskode",
        "salasana",
        "şifre",
        "clave",
        "비밀번호",
        "secret",
        "token",
        "pw",
        "phrase",
        "words",
        "login",
        "user",
        "credential",
        "key",
        "-u ",
    ),
)
# What a secret of digits or random characters has at least: a short number has none of these.
_NUMBERS = re.compile(r"\d\D*\d\D*\d|\S{16}|[A-Za-z]{2}\d\d")
_DIGIT = re.compile(r"\d")


def redacted(text: str) -> str:
    """The text with `[redacted]` in place of each secret.

    Card numbers (by Luhn), IBANs, social security numbers, PEM blocks, JWTs, keys of known services, what follows
    "password", "PIN", "CVV" and the like, and random-looking words. Invisible characters, which could hide one, are
    taken out.
    """
    text = text if text.isprintable() else "".join(each for each in text if unicodedata.category(each) != "Cf")
    if not _may_have_secret(text):
        return text
    text = _PEM.sub(REDACTED, text)
    for pattern in (_TOKENS, _URL_PASSWORD, _BEARER, _SSN):
        text = pattern.sub(REDACTED, text)
    text = _DIGITS.sub(_if(_is_card), text)
    text = _IBAN.sub(_if(_is_iban), text)
    text = _AFTER_SHORT.sub(_value, text)
    text = _AFTER_PHRASE.sub(_value, text)
    for pattern in (_AFTER_LONG, _BESIDE_LONG):
        text = pattern.sub(lambda match: _value(match) if _may_be_password(match["value"]) else match.group(), text)
    text = _LOGIN.sub(_value, text)
    text = _ASSIGNED.sub(lambda match: match.group() if match["value"].startswith("[") else _value(match), text)
    text = _AFTER_KEYED.sub(lambda match: _value(match) if _looks_secret(match["value"]) else match.group(), text)
    return _RANDOM.sub(_if(_is_random), text)


def redacted_start(text: str, chars: int) -> str:
    """The beginning of a text as `redacted` has it, also where a secret lies across its end.

    text: must have `SECRET_CHARS_READ` characters more, where there are any.
    """
    return redacted(text[: chars + SECRET_CHARS_READ])[:chars]


def _may_have_secret(text: str) -> bool:
    """Whether one of the patterns can match: they look at each character, and most texts have no long number."""
    if _DIGIT.search(text) and _NUMBERS.search(text):
        return True
    return any(map(text.casefold().__contains__, _SIGNS))


def has_secret(text: str) -> bool:
    """Whether `redacted` takes anything out."""
    return REDACTED in redacted(text.replace(REDACTED, ""))


def _if(check: Callable[[str], bool]) -> Callable[[re.Match[str]], str]:
    return lambda match: REDACTED if check(match.group()) else match.group()


def _value(match: re.Match[str]) -> str:
    start, end = match.span(match.lastgroup or 0)
    text, offset = match.group(), match.start()
    return text[: start - offset] + REDACTED + text[end - offset :]


def _is_card(digits: str) -> bool:
    numbers = [int(each) for each in digits if each.isdecimal()]
    doubled = [sum(divmod(2 * each, 10)) for each in numbers[-2::-2]]
    return CARD_DIGITS_MIN <= len(numbers) <= CARD_DIGITS_MAX and (sum(numbers[::-2]) + sum(doubled)) % 10 == 0


def _is_iban(text: str) -> bool:
    plain = text.replace(" ", "").upper()
    if not (15 <= len(plain) <= 34 and plain.isascii()):
        return False
    return int("".join(str(int(each, 36)) for each in plain[4:] + plain[:4])) % 97 == 1


def _may_be_password(value: str) -> bool:
    return value.split()[0].casefold().strip(".!?") not in _PLAIN_AFTER_PASSWORD and not value.startswith("[")


def _looks_secret(value: str) -> bool:
    """Not a plain word: it has digits, or is long and random."""
    return not value.startswith("[") and (sum(map(str.isdecimal, value)) >= 4 or _is_random(value))


def _is_random(value: str) -> bool:
    """Whether a word looks drawn at random: long, of several kinds of characters, few of them twice."""
    if len(value) < SECRET_CHARS_MIN or _bits(value) < ENTROPY_BITS_MIN:
        return False
    if any(_all_kinds(run) and _bits(run) >= RUN_BITS_MIN for run in _RUN.findall(value)):
        return True
    kinds = [any(map(kind, value)) for kind in (str.isdecimal, str.islower, str.isupper)]
    return kinds[0] and sum(kinds) >= 2 and sum(map(str.isdecimal, value)) * 10 >= len(value)


def _all_kinds(run: str) -> bool:
    return all(any(map(kind, run)) for kind in (str.isdecimal, str.islower, str.isupper))


def _bits(value: str) -> float:
    shares = [count / len(value) for count in Counter(value).values()]
    return -sum(share * math.log2(share) for share in shares)
