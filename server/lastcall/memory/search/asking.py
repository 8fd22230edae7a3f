"""Whether a message may call for what was said before. Pure; on the path of every message of a user with a past."""

from __future__ import annotations

from .indexing import QUESTION_MARKS
from .languages import LANGUAGES

MESSAGE_CHARS_MAX = 2_000  # of a message that are looked at: its end, where a long text says what it is about

_MARKS = ".,;:!()[]{}\"'`“”„«»…-–—*"
_COMMON = frozenset().union(*(language.common for language in LANGUAGES))
# Words without which hardly anybody asks for something, or bids somebody to do what may take knowing them. More words
# only cost searches that find nothing; a word that is missing costs an answer what was said before.
_ASKING = frozenset(
    "what what's whats who who's whose whom which when when's where where's why why's how how's is are was were am do"
    " does did can could would will should have has may shall any remember remind recall tell show list find suggest"
    " recommend advise help plan write draft create make explain describe compare choose pick summarize summarise"
    " continue check search book schedule order prepare propose give guess"
    " was wer wem wen wessen wo woher wohin wann warum wieso weshalb wie welche welcher welches welchen welchem"
    " erinnere erinnerst weißt sag zeig zeige empfiehl schlage hilf plane schreib schreibe erkläre gib nenne"
    " que quoi qui où quand comment pourquoi quel quelle quels quelles combien rappelle souviens sais dis montre"
    " recommande propose aide écris explique donne"
    " qué quién quiénes dónde cuándo cómo cuál cuáles cuánto cuántos cuántas recuerda recuerdas acuerdas sabes dime"
    " muestra recomienda sugiere ayuda ayúdame escribe explica dame"
    " quem onde quando como qual quais quanto quantos lembra lembras sabe diga mostra recomenda sugere ajuda escreva"
    " explique dê"
    " che chi dove come quale quali quanto quanti perché ricordi ricorda sai dimmi mostra consiglia suggerisci aiuta"
    " aiutami scrivi spiega dammi"
    " wat wie waar wanneer hoe waarom welke herinner weet vertel toon help schrijf"
    " vad vem var när hur varför vilken vilket vilka minns berätta visa föreslå hjälp skriv"
    " hvad hvem hvor hvornår hvordan hvorfor hvilken hvilket husker fortæl vis foreslå hjælp"
    " mikä mitä kuka missä mistä mihin milloin miten miksi muistatko kerro näytä ehdota auta"
    " ne neden niçin kim kimin nerede nereye zaman nasıl hangi kaç mi mı mu mü hatırla hatırlıyor söyle göster öner"
    " что кто кого где куда откуда когда как какой какая какое какие почему зачем сколько чей помнишь напомни скажи"
    " расскажи покажи посоветуй помоги напиши объясни"
    " ما ماذا من أين متى كيف لماذا كم هل أي تذكر أخبرني ذكرني اقترح ساعدني اكتب".split()
)
# Of these, the ones that also stand in the middle of statements count at the start of a sentence only.
_AT_START = frozenset(
    "is are was were am do does did can could would will should have has may shall any make help plan book order check"
    " list give search find show".split()
)
_ANYWHERE = _ASKING - _AT_START
_BEFORE_START = frozenset(
    "please kindly so ok okay and but hey hi hello well now then also just oh yes no thanks".split()
)
_ENDS = "!\n;:"


def may_call_for_past(text: str) -> bool:
    """Whether a message asks or bids. Where it cannot be told, as in a language that is not known here, it may."""
    text = text[-MESSAGE_CHARS_MAX:]
    if any(mark in text for mark in QUESTION_MARKS):
        return True
    said = text.casefold().replace("-", " ")
    words = {word.strip(_MARKS) for word in said.split()}
    if words.isdisjoint(_COMMON) or not words.isdisjoint(_ANYWHERE):
        return True
    return not words.isdisjoint(_AT_START) and any(_starts_asking(each) for each in _sentences(said))


def _sentences(said: str) -> list[str]:
    for end in _ENDS:
        said = said.replace(end, ".")
    return said.split(".")


def _starts_asking(sentence: str) -> bool:
    words = (word.strip(_MARKS) for word in sentence.split())
    return next((word for word in words if word not in _BEFORE_START), "") in _AT_START
