"""Where settings come from, and what is said of those that cannot be."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from lastcall.cli.configuration.file import FILE_BYTES_MAX
from lastcall.cli.entry import run
from lastcall.config import Settings
from lastcall.store.address import without_secrets

OPERATIONS = Path(__file__).resolve().parents[3] / "docs" / "operations.md"
FLAGS = [each for each in fields(Settings) if each.metadata.get("flag")]


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def settings(self) -> dict[str, tuple[Any, str, str | None]]:
        return {each["setting"]: (each["value"], each["source"], each["at"]) for each in json.loads(self.out)}


Lastcall = Callable[..., Answer]


@pytest.fixture
def lastcall(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Lastcall:
    """The command in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("LASTCALL_") or name == "DATABASE_URL"]:
        monkeypatch.delenv(name)

    def command(*arguments: str) -> Answer:
        code = run(arguments)
        return Answer(code, *capsys.readouterr())

    return command


def refused(answer: Answer) -> str:
    """What a mistake is told: one line."""
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    return answer.err


def test_a_flag_wins_over_a_variable_that_over_the_file_and_that_over_the_default(
    lastcall: Lastcall, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("lastcall.toml").write_text('port = 1\nlease_seconds = 4\nagent = "echo"\n')
    monkeypatch.setenv("LASTCALL_PORT", "2")
    monkeypatch.setenv("LASTCALL_AGENT", "openai")
    settings = lastcall("config", "--json", "--port", "3").settings
    assert settings["port"] == (3, "flag", "--port")
    assert settings["agent"] == ("openai", "environment", "LASTCALL_AGENT")
    assert settings["lease_seconds"] == (4, "file", "lastcall.toml")
    assert settings["drain_seconds"] == (10, "default", None)
    assert list(settings) == [each.name for each in FLAGS]


def test_every_setting_can_stand_in_the_file(lastcall: Lastcall) -> None:
    """Its own value, where it has one, as `lastcall config` prints it."""
    texts = {
        "allow_origin": '["https://a.example"]', "trusted_proxy": '["10.0.0.0/8"]', "log_level": '"info"',
        "meaning": "false",
        "database_url": '"postgresql://u@h/d"',
    }  # fmt: skip
    for each in FLAGS:
        value = texts.get(each.name) or json.dumps(each.default, default=str)
        if value == "null":
            value = "7" if "float" in str(each.type) or "int" in str(each.type) else '"text"'
        Path("lastcall.toml").write_text(f"{each.name} = {value}\n")
        shown, *source = lastcall("config", "--json").settings[each.name]
        assert (shown, *source) == (json.loads(value), "file", "lastcall.toml")


def test_the_file_of_the_docs_is_one(lastcall: Lastcall) -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```$", OPERATIONS.read_text(), re.DOTALL | re.MULTILINE)
    Path("lastcall.toml").write_text(text)
    settings = lastcall("config", "--json").settings
    assert {name for name, (_, source, _) in settings.items() if source == "file"} == set(tomllib.loads(text))


def test_the_file_is_named_by_a_flag_or_a_variable(lastcall: Lastcall, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, port in (("lastcall.toml", 1), ("a.toml", 2), ("b.toml", 3)):
        Path(name).write_text(f"port = {port}\n")
    assert lastcall("config", "--json").settings["port"] == (1, "file", "lastcall.toml")
    monkeypatch.setenv("LASTCALL_CONFIG", "a.toml")
    assert lastcall("config", "--json").settings["port"] == (2, "file", "a.toml")
    assert lastcall("config", "--json", "--config", "b.toml").settings["port"] == (3, "file", "b.toml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prot = 1", "prot is not a setting; did you mean port?"),
        ("lease-seconds = 5", "lease-seconds is not a setting; did you mean lease_seconds?"),
        ("[server]\nport = 1", "server is not a setting"),
        ("zzz = 1", "zzz is not a setting; lastcall config lists all"),
        ('port = "1"', "port takes a whole number, not a text"),
        ("port = 1.0", "port takes a whole number, not a number"),
        ("port = true", "port takes a whole number, not true or false"),
        ("port = [1]", "port takes a whole number"),
        ("port = 70000", "port: 70000 is not in the range"),
        ("port = 1979-05-27", "port takes a whole number, not a date or time"),
        ("lease_seconds = nan", "lease_seconds: nan is not"),
        ("lease_seconds = 1", "lease_seconds: 1.0 is not in the range"),
        ("ping_timeout = true", "ping_timeout takes a number, not true or false"),
        ("json_logs = 1", "json_logs takes true or false, not a whole number"),
        ("agent = 5", "agent takes a text in quotes, not a whole number"),
        ("data_dir = 5", "data_dir takes a text in quotes, not a whole number"),
        ('allow_origin = "https://a.example"', "allow_origin takes a list of texts in quotes"),
        ("allow_origin = [1]", "allow_origin takes a list of texts in quotes, not a whole number"),
        ('allow_origin = ["nonsense"]', "allow_origin: 'nonsense' is not like https://chat.example"),
        ('log_level = "loud"', "log_level: 'loud' is not one of"),
        ('database_url = "hots=hush"', "database_url: hots is not a word of a connection string; did you mean host?"),
        ('database_url = "hush\n', "is not TOML: see line 1, column 21"),
        ("port = 1\nport = 2", "is not TOML"),
        ("a = " + "[" * 50_000, "is not TOML"),
        ("# " + "x" * FILE_BYTES_MAX, "has more than 1 MiB"),
        ("agent = '\x00'", "is not TOML"),
    ],
)
def test_a_mistake_in_the_file_is_told_in_one_line(lastcall: Lastcall, text: str, words: str) -> None:
    Path("bad.toml").write_text(text)
    for command in ("config", "serve", "stats"):  # also where the command has no use for the setting
        said = refused(lastcall(command, "--config", "bad.toml"))
        assert f"bad.toml{'' if words.startswith(('is', 'has')) else ':'} {words}" in said
        assert "hush" not in said


def test_bytes_that_are_no_text_are_told_in_one_line(lastcall: Lastcall) -> None:
    Path("bad.toml").write_bytes(b'agent = "\xff"')
    assert "bad.toml is not TOML: it is no UTF-8 text" in refused(lastcall("config", "--config", "bad.toml"))


def test_a_file_that_cannot_be_read_is_told_in_one_line(lastcall: Lastcall, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cannot read nowhere.toml" in refused(lastcall("config", "--config", "nowhere.toml"))
    monkeypatch.setenv("LASTCALL_CONFIG", "nowhere.toml")
    assert "cannot read nowhere.toml" in refused(lastcall("config"))
    Path("folder.toml").mkdir()
    assert "directory" in refused(lastcall("config", "--config", "folder.toml"))
    Path("lastcall.toml").mkdir()
    monkeypatch.delenv("LASTCALL_CONFIG")
    assert "cannot read lastcall.toml" in refused(lastcall("config"))


def test_a_file_that_everybody_may_change_is_used_only_where_it_is_named(lastcall: Lastcall) -> None:
    """Nobody asked for it, and it may name code to run."""
    Path("lastcall.toml").write_text("port = 1\n")
    Path("lastcall.toml").chmod(0o666)
    assert "everybody may change it; if you trust it, pass --config lastcall.toml" in refused(lastcall("config"))
    assert lastcall("config", "--config", "lastcall.toml").code == 0


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("postgresql://u:hush@h:5/d?sslmode=require", "postgresql://u:***@h:5/d?sslmode=require"),
        ("postgresql://u@h/d?password=hush&sslpassword=hush", "postgresql://u:***@h/d?sslpassword=***"),
        ("host=h password='hush hush' dbname=d", "host=h password=*** dbname=d"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("host=h user=u", "host=h user=u"),
    ],
)
def test_no_secret_of_a_connection_string_is_shown(given: str, shown: str) -> None:
    assert without_secrets(given) == shown


def test_config_shows_no_secret(lastcall: Lastcall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:hush@h/d")
    flags = ("--agent-url", "https://u:hush@model.example/v1", "--jwt-jwks", "https://u:hush@idp.example/keys")
    for answer in (lastcall("config", *flags), lastcall("config", "--json", *flags)):
        assert answer.code == 0
        assert "hush" not in answer.out
    assert answer.settings["database_url"] == ("postgresql://u:***@h/d", "environment", "DATABASE_URL")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_and_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, shell: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lastcall.toml").write_text("broken =")  # which a completion does not read
    for words, index, expected in (("lastcall doc", "1", "doctor"), ("lastcall serve --lea", "2", "--lease-seconds")):
        monkeypatch.setenv("_LASTCALL_COMPLETE", f"{shell}_complete")
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", words.split()[-1] if shell == "fish" else index)
        with pytest.raises(SystemExit):
            run([])
        assert expected in capsys.readouterr().out


def test_the_file_of_the_docs_holds_settings_that_there_are() -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "operations.md"
    [block] = re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    Settings(**tomllib.loads(block))
