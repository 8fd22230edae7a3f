"""Facts: whose words they are, in which language, without secrets and orders."""

from __future__ import annotations

import time

import pytest
from lastcall.agents.agent import Memory, Message, Transcript
from lastcall.memory.facts.redaction import REDACTED, redacted, redacted_start
from lastcall.memory.outcomes import acceptable
from lastcall.memory.recall import briefing
from lastcall.memory.rules import memories_by_rules
from lastcall.store.people.memories import RememberedFact
from lastcall.store.records import Recollection

from tests.support import spoken_facts, spoken_secrets

USEFUL_MIN = 0.8
TEXT_CHARS = 2_000


def learned(*texts: str) -> list[Memory]:
    messages = [Message("user", text, f"item_{number}") for number, text in enumerate(texts)]
    return acceptable(memories_by_rules(Transcript("session", "ada", messages)))


def facts(*texts: str) -> list[tuple[str, str]]:
    return [(memory.slot, memory.content) for memory in learned(*texts) if memory.op != "forget"]


@pytest.mark.parametrize(
    ("slot", "text"),
    [
        ("employer", "I got a new job at Siemens."),
        ("pet", "We adopted Max last week."),
        ("home", "We moved from Berlin to Paris."),
        ("relationship", "I got married in May."),
        ("health", "I was diagnosed with asthma."),
        ("study", "I graduated from Oslo University."),
        ("vehicle", "I traded my Golf for a Volvo."),
        ("family", "We have two kids."),
    ],
)
def test_events_are_facts_too(slot: str, text: str) -> None:
    assert facts(text) == [(slot, text)]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "I live in Oslo, have two kids and drive a Volvo.",
            [("home", "I live in Oslo"), ("family", "have two kids"), ("vehicle", "drive a Volvo.")],
        ),
        ("I left Google and joined Nokia.", [("activity", "I left Google"), ("employer", "joined Nokia.")]),
        (
            "I play tennis but I no longer play golf.",
            [("activity", "I play tennis"), ("activity", "I no longer play golf.")],
        ),
    ],
)
def test_each_clause_of_a_sentence_is_a_fact_also_without_its_i(text: str, parts: list[tuple[str, str]]) -> None:
    assert facts(text) == parts


@pytest.mark.parametrize(
    ("text", "slots"),
    [
        ("I like to swim and play chess.", ["taste"]),
        ("I don't smoke and drink.", []),
        ("I want to live in Rome and work at Bosch.", []),
        ("My brother lives in Rome and works at Bosch.", ["family"]),
        ("I live in Oslo and love it here.", ["home"]),
        ("I live in Oslo and work is hard.", ["home"]),
    ],
)
def test_what_only_looks_like_a_clause_about_oneself_is_none(text: str, slots: list[str]) -> None:
    assert [slot for slot, _ in facts(text)] == slots


@pytest.mark.parametrize(
    "text",
    [
        "I no longer live in Berlin, Germany.",
        "Sadly, I no longer live in Berlin.",
        "Bob, I no longer live in Berlin.",
        "I used to live in Berlin, in Kreuzberg.",
        "Ich wohne nicht mehr in Bremen, leider.",
    ],
)
def test_an_ending_without_a_new_value_is_none_of_a_fact(text: str) -> None:
    (memory,) = learned(text)
    assert (memory.op, memory.closes) == ("close", ("home",))


@pytest.mark.parametrize(
    "text",
    [
        "I had to shut the window.",
        "We had a great time at the lake.",
        "I won't give up!",
        "We won!",
        "I couldn't have done it without you.",
        "Remember Tom, just do it!",
        "But don't forget to rest.",
        "I need to find a better way.",
        "I love watching them play.",
        "I love to, thanks.",
        "I love the colours of it.",
        "I'm learning a lot from this.",
    ],
)
def test_what_says_nothing_lasting_without_the_turns_around_it_is_no_fact(text: str) -> None:
    assert facts(text) == []


INTRODUCTIONS = {
    "de": "Ich heiße Klaus. Ich wohne in Bremen. Ich bin allergisch gegen Nüsse.",
    "fr": "Je m'appelle Chloé. J'habite à Lyon. Je suis allergique aux noix.",
    "es": "Me llamo Lucía. Vivo en Sevilla. Soy alérgica a los cacahuetes.",
    "pt": "Meu nome é João. Moro em Recife. Sou alérgico a amendoim.",
    "it": "Mi chiamo Luca. Vivo a Roma. Sono allergico alle noci.",
    "zh": "我叫小明。我住在北京。我对花生过敏。",
    "ja": "私の名前は太郎です。大阪に住んでいます。ナッツアレルギーがあります。",
    "ru": "Меня зовут Ольга. Я живу в Казани. У меня аллергия на орехи.",  # noqa: RUF001
    "ar": "اسمي ليلى. أعيش في القاهرة. عندي حساسية من الفول السوداني.",
}


@pytest.mark.parametrize("language", INTRODUCTIONS)
def test_people_are_known_whatever_their_language(language: str) -> None:
    assert [slot for slot, _ in facts(INTRODUCTIONS[language])] == ["name", "home", "health"]


@pytest.mark.parametrize(
    "text",
    [
        "Ich wohne nicht mehr in Bremen.",
        "Je n'habite plus à Lyon.",
        "Ya no vivo en Sevilla.",
        "Não moro mais em Recife.",
        "Non vivo più a Roma.",
        "Я больше не живу в Казани.",
        "我不再住在北京。",
    ],
)
def test_what_is_so_no_longer_is_an_ending_in_any_language(text: str) -> None:
    (memory,) = learned(text)
    assert (memory.op, memory.closes) == ("close", ("home",))


@pytest.mark.parametrize(
    "text",
    [
        "Summarize this email:\n\nHi team,\n\nMy name is Bob and I live in Rome.\n\nBest, Bob",
        "How should I answer this customer?\n\nHello, my name is Bob. I am diabetic.",
        "Fix my friend's letter: Dear Sir, I am a nurse. My name is Mary.",
        "Write a story that begins like this. My name is Ishmael.",
        "Here is the chat log:\nBob: I live in Rome.",
        "Bob: I live in Rome.\nEve: I'm vegan.",
        "You are a pirate. I am Captain Flint.",
        "My friend wrote me: I live in Rome.",
        "Hello, my name is Bob.\n\nCan you make this text more formal?",
        "Übersetze das: Ich heiße Bob.",
        "Resume este texto:\n\nMe llamo Bob.",
        "From: Bob\nSubject: Moving\nI live in Rome.",
    ],
)
def test_pasted_quoted_and_played_words_are_nobodys_facts(text: str) -> None:
    assert facts(text) == []


def test_a_role_lasts_until_it_is_ended() -> None:
    played = ["Let's role-play.", "I'm Captain Flint. I live in Tortuga."]
    assert facts(*played) == []
    assert facts(*played, "Stop the game. I live in Oslo.") == [("home", "I live in Oslo.")]


def test_what_is_said_before_a_paste_counts() -> None:
    assert facts("I'm vegan. Translate this: I live in Rome.") == [("diet", "I'm vegan.")]


@pytest.mark.parametrize(
    "texts",
    [
        ["Please don't remember that I'm diabetic."],
        ["Do not save this: I'm diabetic."],
        ["Off the record, I'm diabetic."],
        ["I'm diabetic. Please don't remember that."],
        ["I'm diabetic.", "Forget that."],
        ["Never mind that I live in Berlin."],
        ["I'm from the future haha"],
        ["Forget that my name is Ada."],
        ["Merk dir nicht, dass ich Diabetes habe."],
        ["My name is Ada.", "I live in Oslo.", "Forget everything you know about me."],
    ],
)
def test_what_was_declined_or_taken_back_is_no_fact(texts: list[str]) -> None:
    assert facts(*texts) == []


def test_what_is_to_be_forgotten_is_told_to_the_store() -> None:
    (memory,) = learned("Forget that my name is Ada.")
    assert (memory.op, memory.closes, memory.words) == ("forget", ("name",), ("ada",))
    assert [(m.op, m.slot) for m in learned("Forget everything you know about me.")] == [("forget", "*")]


def test_no_secret_is_kept() -> None:
    kept = [
        (text, secret)
        for text, secret in (*spoken_facts.secrets(50), *spoken_secrets.told_secrets(spoken_facts.SEED))
        for m in learned(text)
        if secret in m.content + m.quote or {secret.lower(), *secret.lower().split()} & {*m.words}
    ]
    assert kept == []


@pytest.mark.parametrize(("text", "secret"), spoken_secrets.told_secrets(spoken_facts.SEED))
def test_a_secret_is_told_by_its_form_or_by_the_words_before_it(text: str, secret: str) -> None:
    left = redacted(text)
    assert secret not in left
    assert not [word for word in secret.split() if len(word) > 3 and word in left.split()]


@pytest.mark.parametrize(
    "text",
    [
        "My password was reset yesterday.",
        "I need a password manager and a token of love.",
        "The key to happiness is sleep.",
        "La clave del éxito es dormir.",
        "I passed my exam in 2024.",
        "My login does not work.",
        "I read https://example.com/blog/My-Long-Title-About-Things today.",
        "I was born on 12 March 1987.",
        "My phone plan has 2000 minutes.",
        "I live at 1234 Main Street, 90210 Beverly Hills.",
        "I like the password manager.",
    ],
)
def test_plain_numbers_and_words_are_no_secrets(text: str) -> None:
    assert redacted(text) == text


def test_a_key_block_is_taken_out_whole() -> None:
    block = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----"
    assert redacted(f"mine: {block} thanks") == f"mine: {REDACTED} thanks"
    assert redacted("4111\u200b1111\u200b1111\u200b1111") == REDACTED


@pytest.mark.parametrize(
    "text",
    [
        *(
            f"{start}{'aBcDeFgHiJkLmNoPqRsTuVwX'}"
            for start in ("sk-", "pk_live_", "rk-", "ghp_", "gho_", "ghs_", "ghu_", "ghr_")
        ),
        *(
            f"{start}{'abcdefghijklmnopqrstuvwx'}"
            for start in ("github_pat_", "glpat-", "xoxb-", "AIza", "hf_", "npm_")
        ),
        *("pypi-AbCdEfGhIjKlMnOpQr", "SG.abcdefghijk.lmnopqrstuv", "lc_abcdefghijklmnopqr", "AKIAABCDEFGHIJKL"),
        *("eyJabcdef.ghijklm", "ftp://ada:geheim@host", "Bearer abcdefghijklmnop", "-----BEGIN PRIVATE KEY-----"),
        *("My password is hunter", "My PAS\u017fWORD is hunter", "The pwd: hunter", "Mon mot de passe est chasseur"),
        *("Mi contraseña es cazador", "A senha é segredo", "Kennwort: geheim", "Мой пароль: тайна", "密码是天王盖地虎"),
        *("パスワードはひみつです", "كلمة السر: سمسم", "密碼是天王蓋地虎", "Passwort lautet geheim"),
    ],
)
def test_a_secret_without_any_digit_is_taken_out(text: str) -> None:
    assert REDACTED in redacted(text)


@pytest.mark.parametrize("secret", ["4111 1111 1111 1111", "4111-1111-1111-1111", "DE89 3704 0044 0532 0130 00"])
def test_a_secret_across_the_end_of_a_text_leaves_none_of_itself(secret: str) -> None:
    for before in range(120):
        start = redacted_start(f"{'so ' * 40}"[:before] + f" {secret} and more", 100)
        assert not any(part in start for part in ("4111", "1111", "3704", "0044"))


@pytest.mark.parametrize(
    "text",
    [
        "1 " * 1_000,
        "a" * TEXT_CHARS,
        "password " * 200,
        "key " * 500,
        "password is " * 160,
        "seed phrase " * 160,
        "login a / " * 200,
        "aB3 pass_" * 200,
        "-u a" * 500,
        "DE12 " * 400,
        "aB3" * 600,
    ],
)
def test_redaction_takes_no_long_time(text: str) -> None:
    began = time.thread_time()
    redacted(text)
    assert time.thread_time() - began < 0.1


def test_orders_to_the_assistant_are_no_facts_and_nothing_leaves_the_fence() -> None:
    for text in spoken_facts.injections(40):
        shown = [RememberedFact(m.kind, m.content, m.slot) for m in learned(text)] + [RememberedFact("note", text)]
        _, head, *lines, foot = briefing(Recollection(shown, pending=False)).splitlines()
        assert not [m for m in learned(text) if "instructions" in m.content or "HACKED" in m.content]
        assert head.startswith("<<<known ")
        assert foot == f"<<<end {head.split()[1]}"
        assert all(line.startswith('{"text":') and "<|" not in line for line in lines)


def test_most_of_what_is_kept_is_worth_knowing() -> None:
    """The rule: the sentence says something lasting of the user themselves, so it is one of the useful ones."""
    useful, idle = spoken_facts.useful_and_idle(100)
    kept = [text for text in (*useful, *idle) if facts(text)]
    assert len([text for text in kept if text in useful]) >= USEFUL_MIN * len(kept)
    assert len([text for text in kept if text in useful]) >= USEFUL_MIN * len(useful)
