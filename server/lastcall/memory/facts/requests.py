"""What the user asks of memory itself: to forget, not to remember. And orders, which are no facts. Pure."""

from __future__ import annotations

import re

from ..sentences import has_sign, lowered
from .words import content_words, ended_words

_PLEASE = (
    r"(?:^\W*|[.,;:!?–—-] *)(?:(?:please|oh|and|but|hey|ok|okay|actually|so|bitte|por favor|s'il te plaît"
    r"|per favore|пожалуйста|请),? +|请){0,3}(?:(?:can|could|would|will) you (?:please )?)?"
)
_KEEP = (
    r"(?:remember|save|store|keep|record|note|log|memori[sz]e|write (?:this |that |it )?down|mention|use|learn|retain)"
)
_DECLINED = re.compile(
    rf"\b(?:do not|don'?t|never|no need to|needn'?t|must not|mustn'?t|shouldn'?t|should not|please not|stop"
    rf"|without|rather you (?:not|didn'?t))\s+(?:ever |you |please |to )?(?:{_KEEP}|{_KEEP[3:-1]}ing)\b"
    r"|\b(?:off the record|between (?:you and me|us)|just between|confidential(?:ly)?|strictly private"
    r"|keep (?:this|it|that) (?:private|secret|to yourself|between))\b"
    r"|\bnever ?mind\b|\bscratch that\b|\bi take (?:that|it) back\b|\b(?:just|i'?m|i was|only) (?:kidding"
    r"|joking)\b|\b(?:jk|lol|lmao|haha\w*|hehe\w*|rofl)\b"
    r"|(?:merke? dir (?:das |bitte )?nicht|nicht (?:merken|speichern)|ne (?:retiens|mémorise|garde"
    r"|enregistre) pas|ne te souviens pas|no (?:recuerdes|guardes|memorices)"
    r"|não (?:guarde|memorize|lembre|salve)|non (?:ricordare|salvare|memorizzare)|не (?:запоминай|сохраняй|записывай)"
    r"|(?:不要|别|請勿|请勿)(?:记住|记|保存)|(?:覚え|保存し|記憶し)ないで|لا (?:تتذكر|تحفظ|تسجل))",
)
_DECLINED_SIGNS = (
    *("do not", "don't", "dont", "never", "no need", "needn", "must not", "mustn", "shouldn", "should not"),
    *("please not", "stop", "without", "rather you", "record", "between", "confidential", "private", "keep "),
    *("scratch that", "i take ", "kidding", "joking", "jk", "lol", "lmao", "haha", "hehe", "rofl", "nicht", " pas"),
    *("no ", "não ", "non ", "не ", "不要", "别", "請勿", "请勿", "ないで", "لا "),
)
_FORGET = re.compile(
    rf"{_PLEASE}(?:forget|delete|erase|remove|unlearn|wipe)\b(?! (?:to|me not|it if))(?: (?:that|about"
    rf"|what (?:i|you)(?: \w+){{0,4}}? (?:about|on)|the (?:fact|memory|part)"
    r"|(?:all|everything|anything) (?:you know |i (?:said|told you) |you have )?(?:about|on)"
    r"|it that)){0,3}[,:]? *(?P<what>[^.!?\n]{0,300})"
    r"|(?:^\W*|[.,!] *|bitte )(?:vergiss(?:,? dass)?|oublie(?:z)?(?: que)?|olvida(?: que)?|esqueça(?: que)?"
    r"|esquece(?: que)?|dimentica(?: che)?|забудь(?:,? что)?"
    r"|(?:请)?忘(?:记|掉|了)|انس(?:ى)?(?: أن)?)[,:]? *(?P<also>[^.!?。\n]{0,300})"
    r"|(?P<before>[^.!?。\n]{0,300}?)(?:を|ことを|ことは|のことは)忘れて",
    re.IGNORECASE,
)
_FORGET_STEMS = (
    *("forget", "delete", "erase", "remove", "unlearn", "wipe", "vergiss", "oubli", "olvida", "esque", "dimentica"),
    *("забудь", "忘", "انس"),
)
_FORGETS_NOT = re.compile(r"\b(?:never|don'?t|do not|can'?t|won'?t|didn'?t|i) (?:\w+ )?forget\b", re.IGNORECASE)
_ALL = re.compile(
    r"^\W*(?:everything|all(?: of (?:it|that|this))?|me|anything|all (?:my )?(?:memories|data|facts)"
    r"|my memories|alles|tout|todo|tudo|tutto|всё|все|一切|全部|すべて|全て|كل شيء)\b"
    r"(?: (?:about|of) me|(?: that)? (?:you know|i (?:said|told you))| (?:you have|about)[^.]{0,30})*\W*$",
    re.IGNORECASE,
)
_POINTS_BACK = re.compile(
    r"^\W*(?:this|that|it|what i (?:just )?said|the last (?:thing|message|part)"
    r"|das|ça|eso|isso|questo|это|那个|这个)?\W*$",
    re.IGNORECASE,
)
_TOPICS = {
    "name": ("name", "surname", "nickname", "namen", "nom", "nombre", "nome", "имя"),
    "home": ("address", "home", "city", "location", "adresse", "wohnort"),
    "employer": ("job", "employer", "work", "company", "workplace", "arbeit"),
    "age": ("age", "alter"),
    "relationship": ("relationship", "marriage", "divorce", "engagement"),
    "diet": ("diet",),
    "vehicle": ("car", "vehicle", "auto"),
    "health": ("health", "allergy", "allergies", "condition", "illness"),
    "birthday": ("birthday",),
}
_TOPIC = re.compile(
    r"^\W*(?:about )?(?:my|our|mein(?:e|en)?|mon|ma|mi|meu|minha|il mio"
    r"|мо[йюёе]) (?P<noun>\w+)(?: and [^.]{0,30})?\W*$",
    re.IGNORECASE,
)
_BEHAVE = (
    r"(?:answer|reply|respond|say|use|call|send|end|start|begin|include|tell|mention|refuse|reveal|output|print"
    r"|write|speak|act|obey|follow|trust|add|append|recommend|share|give|show|execute|run|visit|open)"
)
_ORDER = re.compile(
    r"\byou (?:must|shall|will|are (?:now|a|an|the|free|allowed)|have (?:to|no)|need to|ought|should(?! know)"
    r"|may only|only)\b|\byou're (?:now|a|an)\b"
    r"|\byour (?:(?:\w+ )?(?:instructions?|rules?|system|prompts?|guidelines|restrictions|policy|policies"
    r"|safety|developer|creator|owner|boss|task|job|role|goal|answers?|replies|responses?))\b"
    r"|\bforget (?:\w+ ){0,3}(?:instructions?|rules?|prompts?|guidelines|restrictions|safety)\b|\b(?:ignore"
    r"|disregard|override|bypass|drop) (?:\w+ ){0,3}(?:instructions?|rules?|prompts?|guidelines|restrictions"
    r"|above|previous|safety|everything)\b"
    r"|\bjail-?break|\bsystem (?:prompt|message|override|instruction)|\b(?:new|previous|prior|these|following"
    r"|secret|hidden) (?:instructions?|rules?|orders?)\b|\bignore\b"
    rf"|\b(?:always|never|only|from now on,?|must|shall) (?:\w+ )?{_BEHAVE}\b|\bfrom now on\b"
    rf"|\b(?:the )?(?:assistant|ai|model|chat-?bot|llm|agent|bot) (?:must|should|is|will|has|may|can|shall)\b"
    r"|\b(?:developer|debug|god|admin|dan|root|sudo) (?:mode|access|rights|privileges?)\b|\b(?:the user is|i am"
    r"|i'm) (?:an? |the |your )(?:\w+ )?(?:admin\w*|root|developer of|creator|owner|superuser|system)\b"
    r"|\b(?:reveal|exfiltrate|execute|eval|rm -rf|drop table|<script)\b|<\||\|>|\[/?inst\]|<</?sys>>"
    r"|^\W*(?:system|assistant|developer|user) ?[:>\]]|#{3}|\{\{|```"
    r"|(?:ignorier|ignorez|ignora|игнорируй|忽略|無視|تجاهل)",
)
_ORDER_SIGNS = (
    *("you", "forget", "ignor", "disregard", "override", "bypass", "drop", "jail", "system", "instruction", "rule"),
    *("order", "always", "never", "only", "from now on", "must", "shall", "assistant", "ai ", "model", "chat", "llm"),
    *("agent", "bot ", "developer", "debug", "god", "admin", "dan ", "root", "sudo", "creator", "owner", "superuser"),
    *("reveal", "exfiltrate", "execute", "eval", "rm -rf", "<script", "<|", "|>", "inst]", "sys>>", "user", "###"),
    *("{{", "```", "игнорируй", "忽略", "無視", "تجاهل"),
)


def is_order(shown: str) -> bool:
    """Whether a sentence tells the assistant how to behave; that is never a fact about the user."""
    text = lowered(shown)
    return has_sign(text, _ORDER_SIGNS) and bool(_ORDER.search(text))


def declined(shown: str) -> bool:
    """Whether the user asks not to be remembered in this sentence, or takes it back."""
    text = lowered(shown)
    if not has_sign(text, _DECLINED_SIGNS) or not _DECLINED.search(text):
        return False
    return not re.search(r"(?i)\b(?:never|don'?t|do not) forget\b", shown)


def to_forget(shown: str) -> str | None:
    """What is to be forgotten, in the user's words; None where nothing is. Empty: what was said just before."""
    if not has_sign(shown.casefold(), _FORGET_STEMS) or _FORGETS_NOT.search(shown):
        return None
    found = _FORGET.search(shown)
    if not found:
        return None
    what = next((each for each in (found["what"], found["also"], found["before"]) if each), "")
    return "" if _POINTS_BACK.match(what) else what


def everything(what: str) -> bool:
    """Whether all that is known is to be forgotten."""
    return bool(_ALL.match(what))


def topic(what: str) -> str | None:
    """The slot that "my address" or "my job" names, alone."""
    found = _TOPIC.match(what)
    return next((slot for slot, nouns in _TOPICS.items() if found and found["noun"].casefold() in nouns), None)


def forgotten_words(what: str) -> tuple[str, ...]:
    """The words that a memory must have to be meant."""
    return ended_words(content_words(what))
