"""The languages that a text is recognised in, by their commonest words. Pure.

PostgreSQL has the stemmers and the stop words of these languages. The words here only tell them apart, and stand in
where PostgreSQL has no stop words. A text of any other language is found by prefixes and bigrams, without stems.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Language:
    """stemmer: its dictionary in PostgreSQL. common: words that hardly any text of it is without.

    months: their names, January first, where they are written as words.
    """

    stemmer: str
    common: frozenset[str]
    months: tuple[str, ...] = field(default=())


def _language(name: str, common: str, months: str = "") -> Language:
    return Language(f"{name}_stem", frozenset(common.split()), tuple(months.split()))


ENGLISH = _language(
    "english",
    "the and is are was were of to in that it you i my me we he she they this what when where who how did do does have"
    " has had with for on at be been not i'm don't it's your our his her their"
    " all which but if so there then can could would will just about from by or as an because very more some than",
    "january february march april may june july august september october november december",
)
LANGUAGES = (
    ENGLISH,
    _language(
        "german",
        "der die das und ist sind war ich du er sie es wir ihr mein meine meinen meiner dein deine nicht ein eine einen"
        " einem einer mit auf für von zu zum zur im in den dem des wie was wo wann wer warum hast habe hat"
        " haben bin bist mich mir meinem meines dich dir deinen deinem deiner unser unsere",
        "januar februar märz april mai juni juli august september oktober november dezember",
    ),
    _language(
        "french",
        "le la les un une des du de et est sont je tu il elle nous vous mon ma mes ton ta tes ne pas que qui quoi où"
        " quand comment quel quelle dans avec pour sur au aux en ce cette suis es ai as a j'ai c'est me te moi toi "
        "notre nos votre vos",
        "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    ),
    _language(
        "spanish",
        "el la los las un una unos y es son yo tú él ella mi mis tu tus no que qué quién dónde cuándo cómo cuál de del"
        " en con para por a al se me te lo está estoy soy eres tengo tiene he ha nuestro nuestra",
        "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    ),
    _language(
        "portuguese",
        "o os um uma e é são eu você ele ela meu minha meus minhas seu sua não que quem onde quando como qual de do da"
        " dos das em no na nos nas com para por ao à se me te está estou sou tenho tem foi nosso nossa",
        "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
    ),
    _language(
        "italian",
        "il lo la i gli le un una e è sono io tu lui lei noi mio mia miei mie tuo tua non che chi dove quando come"
        " quale di del della dei in con per da a al si mi ti ho hai ha sei tuoi tue nostro nostra",
        "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
    ),
    _language(
        "dutch",
        "de het een en is zijn was ik jij je hij zij we mijn jouw niet dat die wie wat waar wanneer hoe van in op met"
        " voor aan te heb heeft hebben ben bent er mij me jou ons onze",
        "januari februari maart april mei juni juli augustus september oktober november december",
    ),
    _language(
        "swedish",
        "och är det att jag du han hon vi min mitt mina din ditt inte en ett som på med för av till i har hade var när"
        " vad vem hur",
        "januari februari mars april maj juni juli augusti september oktober november december",
    ),
    _language(
        "danish",
        "og er det at jeg du han hun vi min mit mine din dit ikke en et som på med for af til i har havde var hvornår"
        " hvad hvem hvor hvordan",
        "januar februar marts april maj juni juli august september oktober november december",
    ),
    _language(
        "finnish",
        "ja on ei minä sinä hän me minun sinun mikä kuka missä milloin miten että oli olen olet kun se",
        "tammikuu helmikuu maaliskuu huhtikuu toukokuu kesäkuu heinäkuu elokuu syyskuu lokakuu marraskuu joulukuu",
    ),
    _language(
        "turkish",
        "ve bir bu ben sen o biz benim senin değil ne kim nerede zaman nasıl için ile var yok mı mi da de çok",
        "ocak şubat mart nisan mayıs haziran temmuz ağustos eylül ekim kasım aralık",
    ),
    _language(
        "russian",
        "и в не на я ты он она мы вы мой моя моё мои меня мне твой твоя что кто где когда как какой какая какое это с"
        " у по за из к от для был была были есть моего моей моему моим моём мою моих моими мной тебя тебе твоё твои"
        " твоего твоей наш наша наше наши нашего нашей",
        "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
    ),
    _language(
        "arabic",
        "في من على إلى هل ما ماذا من أين متى كيف أنا أنت هو هي نحن لا لم لن هذا هذه ذلك التي الذي كان كنت مع عن أن و"
        " لي لك هي اسم",
        "يناير فبراير مارس أبريل مايو يونيو يوليو أغسطس سبتمبر أكتوبر نوفمبر ديسمبر",
    ),
)

FIRST_PERSON = frozenset(
    "i me my mine myself i'm i've ich mich mir mein meine meinen meinem meiner je j'ai moi mon ma mes yo mi mis me mío"
    " mía eu meu minha meus minhas io mio mia miei mie ik mij mijn jag mig min mitt mina jeg mit mine minä minun ben"
    " benim я меня мне мной мой моя моё мои моего моей мою моим моими моих أنا لي".split()
)
SECOND_PERSON = frozenset(
    "you your yours du dich dir dein deine deinen tu toi ton ta tes vous votre tú usted tus você seu sua lei tuo tua"
    " jij jouw dig din ditt sinä sinun sen senin ты тебя твой твоя вы вас ваш أنت لك".split()
)
FIRST_PERSON_SIGNS = ("我", "私", "僕", "俺", "나", "내", "저", "제")
SECOND_PERSON_SIGNS = ("你", "您", "あなた", "당신")
# What people say all the time without meaning anything of their past. A question of nothing else asks for no memory.
COURTESIES = frozenset(
    "thanks thank thankful ok okay great good nice fine cool perfect awesome amazing wonderful sure yes yeah"
    " yep no nope"
    " hello hi hey bye goodbye welcome sounds sound sense makes make lot lots much really wow haha lol please"
    " sorry think"
    " right true funny see later soon morning evening night tonight today tomorrow day weekend week repeat say"
    " said tell"
    " talk chat never mind agree well let's lets let go going help helps helped helpful can could would will"
    " should more"
    " way thing things something anything nothing know mean understand understood get got want need like just"
    " so too very"
    " back take care start again over quick was hmm oh ah maybe yet moment minute second question questions answer ask"
    " wait stop try happy glad fun interesting exactly absolutely indeed course problem worries explain briefly"
    " danke bitte hallo tschüss gut super klar ja nein okay guten morgen abend tag nacht genau schön wirklich toll"
    " merci bonjour salut bonsoir oui non d'accord bien super bonne journée s'il plaît vraiment parfait"
    " gracias hola adiós sí vale bien bueno buenos buenas días noches por favor claro perfecto genial"
    " obrigado obrigada olá oi tchau sim bom boa dia noite claro ótimo grazie ciao buongiorno sì bene prego perfetto"
    " спасибо привет здравствуйте пока да нет хорошо ладно пожалуйста понятно отлично доброе утро день вечер"
    " شكرا مرحبا نعم لا حسنا صباح الخير مساء جيد 谢谢 你好".split()
)
_NUMBERED_MONTH = re.compile("(1[0-2]|[1-9])[月월]")
_BY_STEMMER = {language.stemmer: language for language in LANGUAGES}
# By word: one pass over a short text, instead of one for each language.
_STEMMERS_OF = {
    word: [language.stemmer for language in LANGUAGES if word in language.common]
    for language in LANGUAGES
    for word in language.common
}
MATCHES_MIN = 0.12  # of a text's different words that are common ones of the language; fewer say nothing


def english_month(word: str, language: Language | None) -> str | None:
    """The English name of a month, as the index has it, for one of the language or as `5月`; None: it is no month."""
    if language is not None and word in language.months:
        return ENGLISH.months[language.months.index(word)]
    numbered = _NUMBERED_MONTH.fullmatch(word)
    return ENGLISH.months[int(numbered[1]) - 1] if numbered else None


def language_of(words: Iterable[str]) -> Language | None:
    """The language of a text, by its words in lower case; None where they do not tell, or tell of several."""
    counted = set(words)
    matches: Counter[str] = Counter()
    for word in counted:
        for stemmer in _STEMMERS_OF.get(word, ()):
            matches[stemmer] += 1
    if not matches:
        return None
    best = max(matches, key=matches.__getitem__)
    most = matches.pop(best)
    if most in matches.values() or most < MATCHES_MIN * len(counted):
        return None
    return _BY_STEMMER[best]
