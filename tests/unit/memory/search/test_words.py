from __future__ import annotations

import time

import pytest
from lastcall.memory.search.languages import ENGLISH, language_of
from lastcall.memory.search.words import WORD_CHARS_MAX, Word, plain, words_of


def keys(text: str) -> list[str]:
    return [word.key or word.text for word in words_of(text)]


@pytest.mark.parametrize(
    ("text", "stemmer"),
    [
        ("What is the name of my dog?", "english_stem"),
        ("Wie heißt mein Hund?", "german_stem"),
        ("Comment s'appelle mon chien ?", "french_stem"),
        ("¿Cómo se llama mi perro?", "spanish_stem"),
        ("Como se chama o meu cachorro?", "portuguese_stem"),
        ("Come si chiama il mio cane?", "italian_stem"),
        ("Hoe heet mijn hond en wat is dat?", "dutch_stem"),
        ("Как зовут мою собаку и где она?", "russian_stem"),
        ("ما هو اسم كلبي؟", "arabic_stem"),
    ],
)
def test_a_text_is_known_by_its_commonest_words(text: str, stemmer: str) -> None:
    language = language_of(plain(text))
    assert language is not None
    assert language.stemmer == stemmer


@pytest.mark.parametrize("text", ["", "Bruno", "42", "我的狗叫布鲁诺"])
def test_a_text_that_does_not_tell_has_no_language(text: str) -> None:
    assert language_of(plain(text)) is None


def test_english_words_are_left_to_the_stemmer() -> None:
    assert list(words_of("The dog's bones", ENGLISH, known=True)) == [Word("dog", ""), Word("bones", "")]


def test_words_of_other_languages_have_a_prefix_without_accents() -> None:
    assert list(words_of("Ich vertrage keine Nüsse und Walnüsse")) == [
        Word("vertrage", "~vertr"),
        Word("keine", "~keine"),
        Word("nüsse", "~nusse"),
        Word("walnüsse", "~walnu"),
    ]


def test_an_arabic_article_is_no_part_of_the_prefix() -> None:
    assert keys("المكسرات")[0] == keys("مكسرات")[0] == "~مكسرا"


def test_scripts_without_spaces_have_pairs_of_characters() -> None:
    assert keys("我的狗叫布鲁诺") == ["~的狗", "~狗叫", "~叫布", "~布鲁", "~鲁诺"]
    assert keys("猫") == ["~猫"]
    assert keys("大阪で働いています") == ["~大阪", "~阪で", "~で働", "~働い"]  # pairs of Hiragana are grammar
    assert keys("개를 키워요") == ["~개를", "~키워", "~워요"]


@pytest.mark.parametrize(
    "text",
    ["我是谁", "你", "私は誰ですか", "저는", "моего и твоей", "mein und deinem", "wat is onze"],
)
def test_who_is_meant_and_how_it_is_asked_are_no_words(text: str) -> None:
    assert keys(text) == []


def test_wide_letters_and_capitals_make_no_difference() -> None:
    assert keys("ＢＲＵＮＯ Bruno") == ["~bruno", "~bruno"]  # noqa: RUF001


@pytest.mark.parametrize(
    "text", ["a" * 200_000, "a " * 100_000, "猫" * 200_000, "'" * 200_000, "a'" * 100_000, "́" * 200_000]
)
def test_no_text_takes_more_than_linear_time(text: str) -> None:
    began = time.process_time()
    words = list(words_of(text[:8_000]))
    short = time.process_time() - began
    began = time.process_time()
    assert all(len(word.text) <= WORD_CHARS_MAX for word in words + list(words_of(text)))
    assert time.process_time() - began < 100 * (short + 0.01)
