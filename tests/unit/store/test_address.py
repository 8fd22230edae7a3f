"""The address of a database, as psql reads it: every form and word, the environment, services and password files."""

from __future__ import annotations

import contextlib
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lastcall.store.address import BadAddress, DatabaseAddress, DatabaseHost, TcpOptions, read_address, url_for_tools

SECRET = "hunter2"
NOWHERE = {"HOME": "/nonexistent"}


def read(text: str, **environ: str) -> DatabaseAddress:
    return read_address(text, {**NOWHERE, **environ})


def places(text: str, **environ: str) -> list[tuple[str, int]]:
    return [(host.name, host.port) for host in read(text, **environ).hosts]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://h/x", [("h", 5432)]),
        ("postgres://h:5433/x", [("h", 5433)]),
        ("postgresql://a,b:2/x", [("a", 5432), ("b", 2)]),
        ("postgresql://[::1]:5433,[fe80::1]/x", [("::1", 5433), ("fe80::1", 5432)]),
        ("postgresql://%2Frun%2Fpg/x", [("/run/pg", 5432)]),
        ("postgresql:///x?host=/tmp&port=6", [("/tmp", 6)]),
        ("postgresql:///x?host=a,b&port=1,2", [("a", 1), ("b", 2)]),
        ("postgresql:///x?host=a,b&port=7", [("a", 7), ("b", 7)]),
        ("host=h port=5433 dbname=x", [("h", 5433)]),
        ("host = 'h' dbname = 'a b'", [("h", 5432)]),
        ("hostaddr=127.0.0.1", [("127.0.0.1", 5432)]),
    ],
)
def test_hosts_are_read_from_every_form(text: str, expected: list[tuple[str, int]]) -> None:
    assert places(text) == expected


def test_without_a_host_the_usual_sockets_are_tried_and_then_localhost() -> None:
    *sockets, last = places("postgresql://u@/x")
    assert ("/var/run/postgresql", 5432) in sockets
    assert last == ("localhost", 5432)


def test_an_address_to_connect_to_keeps_the_name_of_its_host() -> None:
    [host] = read("host=db.example hostaddr=10.0.0.1").hosts
    assert host == DatabaseHost("db.example", 5432, "10.0.0.1")


@pytest.mark.parametrize(
    ("text", "user", "password", "database"),
    [
        ("postgresql://ada:p%40ss%2Fw@h/x", "ada", "p@ss/w", "x"),
        ("postgresql://ada@h/a%20b", "ada", None, "a b"),
        ("postgresql://ada@h", "ada", None, "ada"),
        ("postgresql://h/?user=ada&password=a%26b&dbname=y", "ada", "a&b", "y"),
        (r"user=ada password='it\'s \\ here' host=h dbname=x", "ada", r"it's \ here", "x"),
        (r"user=ada password=a\ b host=h dbname=x", "ada", "a b", "x"),
        ("postgresql://ada:a+b@h/x", "ada", "a+b", "x"),
    ],
)
def test_users_passwords_and_names_are_decoded(text: str, user: str, password: str | None, database: str) -> None:
    address = read(text)
    assert (address.user, address.password, address.database) == (user, password, database)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", TcpOptions()),
        ("keepalives=0", TcpOptions(keepalive=False)),
        ("keepalives=1&keepalives_idle=30", TcpOptions(idle_seconds=30)),
        ("keepalives_interval=7&keepalives_count=2", TcpOptions(interval_seconds=7, count=2)),
        ("keepalives_idle=0&tcp_user_timeout=0", TcpOptions()),
        ("tcp_user_timeout=9000", TcpOptions(unacknowledged_milliseconds=9000)),
    ],
)
def test_words_about_tcp_are_taken(words: str, expected: TcpOptions) -> None:
    assert read(f"postgresql://h/x?{words}").tcp == expected


@pytest.mark.parametrize(("given", "seconds"), [("", 2), ("10", 5), ("3", 3), ("1", 2), ("0", 2), ("-1", 2)])
def test_the_deadline_of_a_host_has_bounds(given: str, seconds: float) -> None:
    assert read(f"postgresql://h/x?connect_timeout={given}").host_seconds == seconds


@pytest.mark.parametrize("target", ["any", "read-write", "read-only", "primary", "standby", "prefer-standby"])
def test_every_kind_of_server_can_be_asked_for(target: str) -> None:
    assert read(f"postgresql://h/x?target_session_attrs={target}").target == target


def test_only_servers_that_accept_writes_will_do_by_default() -> None:
    assert read("postgresql://h/x").target == "read-write"


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ("-c search_path=chat", {"search_path": "chat"}),
        ("-csearch_path=chat --jit-above-cost=5", {"search_path": "chat", "jit_above_cost": "5"}),
        (r"-c search_path=a,\ b", {"search_path": "a, b"}),
        ("endpoint=ep-1", {"options": "endpoint=ep-1"}),
    ],
)
def test_settings_are_read_from_options(options: str, settings: dict[str, str]) -> None:
    assert read(f"postgresql://h/x?options={quote(options, safe='')}").settings == settings
    assert read("postgresql://h/x", PGOPTIONS=options).settings == settings


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", {"sslmode": "prefer"}),
        *((f"sslmode={mode}", {"sslmode": mode}) for mode in ("disable", "allow", "prefer", "require", "verify-ca")),
        ("ssl=true", {"sslmode": "require"}),
        ("sslmode=require&sslpassword=x", {"sslmode": "require", "sslpassword": "x"}),
        ("sslmode=require&sslnegotiation=direct", {"sslmode": "require", "sslnegotiation": "direct"}),
        ("ssl_min_protocol_version=TLSv1.3", {"sslmode": "prefer", "ssl_min_protocol_version": "TLSv1.3"}),
        ("channel_binding=require", {"sslmode": "require"}),
        ("channel_binding=require&sslmode=verify-full", {"sslmode": "verify-full"}),
        ("channel_binding=prefer&sslsni=1&sslcompression=0&gssencmode=disable", {"sslmode": "prefer"}),
    ],
)
def test_words_about_tls_are_taken(words: str, expected: dict[str, str]) -> None:
    assert read(f"postgresql://h/x?{words}").ssl == expected


def test_the_systems_authorities_stand_for_full_verification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tmp_path / "bundle.crt"
    bundle.write_text("")
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    expected = {"sslmode": "verify-full", "sslrootcert": str(bundle)}
    assert read("postgresql://h/x?sslrootcert=system").ssl == expected
    with pytest.raises(BadAddress, match="verify-full"):
        read("postgresql://h/x?sslrootcert=system&sslmode=require")


def test_channel_binding_that_nobody_checks_is_warned_of() -> None:
    assert "channel_binding" in read("postgresql://h/x?channel_binding=require").warnings[0]
    assert read("postgresql://h/x?channel_binding=require&sslmode=verify-full").warnings == ()


@pytest.mark.parametrize(
    ("words", "expected"),
    [("application_name=chat", "chat"), ("fallback_application_name=f", "f"), ("", None),
     ("fallback_application_name=f&application_name=chat", "chat")],
)  # fmt: skip
def test_the_application_may_have_another_name(words: str, expected: str | None) -> None:
    assert read(f"postgresql://h/x?{words}").application_name == expected


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "postgresql://user@127.0.0.1:5432/name"),
        ("name", "postgresql://user@127.0.0.1:5432/name"),
        ("mysql://h/x", "postgresql://user@127.0.0.1:5432/name"),
        ("postgresql+asyncpg://h/x?a=b", "postgresql://user@127.0.0.1:5432/name"),
        (f"postgresql://u:{SECRET}/x@h/y", "percent-encoded"),
        (f"postgresql://u:{SECRET}@x@h/y", "percent-encoded"),
        (f"postgresql://u:{SECRET}#1@h/y", "percent-encoded"),
        (f"postgresql://u:{SECRET}%zz@h/y", "%25"),
        (f"postgresql://u:{SECRET} @h/y", "percent-encoded"),
        ("postgresql://h:99999/x", "65535"),
        ("postgresql://h:0/x", "65535"),
        ("postgresql://h/x?sslmod=require", "did you mean sslmode?"),
        ("postgresql://h/x?jit=off", "options=-cjit=off"),
        ("postgresql://h/x?sslmode=maybe", "verify-full"),
        ("postgresql://h/x?sslmode", "word=value"),
        ("postgresql://h/x?target_session_attrs=writable", "read-write"),
        ("postgresql://h/x?connect_timeout=soon", "whole number"),
        ("postgresql://h/x?requirepeer=postgres", "requirepeer is not supported"),
        ("postgresql://h/x?gssencmode=require", "gssencmode"),
        ("postgresql://h/x?sslrootcert=/nonexistent", "there is no file /nonexistent"),
        ("postgresql://h/x?channel_binding=require&sslmode=disable", "sslmode=disable"),
        ("postgresql:///x?host=a,b,c&port=1,2", "equally many"),
        ("postgresql:///x?host=@abstract", "abstract"),
        (f"host=h password='{SECRET}", "single quotes"),
        (f"host=h password={SECRET} more", "word=value"),
        ("postgresql://h/x?service=none", "PGSERVICEFILE"),
    ],
)  # fmt: skip
def test_a_mistake_names_its_fix_and_shows_no_password(text: str, hint: str) -> None:
    with pytest.raises(BadAddress) as raised:
        read(text)
    assert hint in str(raised.value)
    assert "\n" not in str(raised.value)
    assert SECRET not in str(raised.value)


def test_the_environment_completes_the_address() -> None:
    environ = {"PGHOST": "h", "PGPORT": "5433", "PGUSER": "ada", "PGPASSWORD": SECRET, "PGDATABASE": "x"}
    address = read("postgresql://", **environ, PGSSLMODE="require", PGTARGETSESSIONATTRS="any")
    assert (str(address), address.user, address.password) == ("h:5433/x", "ada", SECRET)
    assert (address.ssl, address.target) == ({"sslmode": "require"}, "any")
    assert str(read("postgresql://other:1/y", **environ)) == "other:1/y"


SERVICES = """
[other]
host=wrong

[chat]
# the chat's database
host=service.example
port=5433
user=ada
dbname=chat
"""


@pytest.mark.parametrize(
    "text", ["service=chat", "postgresql://?service=chat", "postgresql:///?service=chat", "postgresql://"]
)
def test_a_service_stands_for_its_words(tmp_path: Path, text: str) -> None:
    (tmp_path / ".pg_service.conf").write_text(SERVICES)
    name = {} if "service" in text else {"PGSERVICE": "chat"}
    address = read_address(text, {"HOME": str(tmp_path), "PGHOST": "environment.example", **name})
    assert (str(address), address.user) == ("service.example:5433/chat", "ada")


def test_a_service_file_may_lie_elsewhere_and_the_connection_string_wins(tmp_path: Path) -> None:
    (tmp_path / "services").write_text(SERVICES)
    assert str(read("service=chat port=1", PGSERVICEFILE=str(tmp_path / "services"))) == "service.example:1/chat"
    (tmp_path / "pg_service.conf").write_text("[chat]\nhost=system.example\ndbname=x\n")
    assert str(read("service=chat", PGSYSCONFDIR=str(tmp_path))) == "system.example:5432/x"


@pytest.mark.parametrize("line", ["hots=h", "just words", "service=again"])
def test_a_mistake_in_a_service_is_told(tmp_path: Path, line: str) -> None:
    (tmp_path / "services").write_text(f"[chat]\n{line}\n")
    with pytest.raises(BadAddress):
        read("service=chat", PGSERVICEFILE=str(tmp_path / "services"))


@pytest.mark.parametrize(
    ("line", "password"),
    [
        ("h:5432:x:ada:secret", "secret"),
        ("*:*:*:*:secret", "secret"),
        (r"h:5432:x:ada:a\:b\\c", r"a:b\c"),
        (r"h:5432:x:ada:a\b", "ab"),
        ("h:5432:x:ada:with space ", "with space "),
        ("h:5432:x:ada:secret:more", "secret"),
        (r"\h:5432:x:a\da:secret", "secret"),
        (r"\*:5432:x:ada:secret", None),
        ("#h:5432:x:ada:secret", None),
        ("other:5432:x:ada:secret", None),
        ("h:5433:x:ada:secret", None),
        ("h:5432:x:ada", None),
        ("", None),
    ],
)
def test_passwords_are_read_from_a_password_file(tmp_path: Path, line: str, password: str | None) -> None:
    file = tmp_path / "passwords"
    file.write_text(f"\n# a comment\nelse:*:*:*:wrong\n{line}\n")
    file.chmod(0o600)
    address = read("postgresql://ada@h/x", PGPASSFILE=str(file))
    assert address.password_for(address.hosts[0]) == password


def test_a_user_with_colons_and_a_socket_have_their_lines_too(tmp_path: Path) -> None:
    file = tmp_path / ".pgpass"
    file.write_text("[::1]:*:*:*:no\nlocalhost:*:a\\:b:u\\\\v:yes\n")
    file.chmod(0o600)
    address = read_address(r"host=/tmp dbname=a:b user='u\\v'", {"HOME": str(tmp_path)})
    assert address.password_for(address.hosts[0]) == "yes"


def test_a_password_that_was_changed_in_its_file_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    file.write_text("*:*:*:*:before")
    file.chmod(0o600)
    address = read(f"host=h passfile={file}")
    file.write_text("*:*:*:*:after")
    assert address.password_for(address.hosts[0]) == "after"


def test_a_password_file_that_others_may_read_is_ignored_with_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    file.write_text("*:*:*:*:secret")
    file.chmod(0o640)
    address = read(f"host=h passfile={file}")
    assert address.password_for(address.hosts[0]) is None
    assert "chmod 600" in address.warnings[0]
    assert read(f"host=h passfile={file} password=x").warnings == ()


def test_a_client_key_and_a_service_file_that_others_can_read_are_warned_of(tmp_path: Path) -> None:
    key, services = tmp_path / "client.key", tmp_path / "services"
    key.write_text("key")
    services.write_text(f"[app]\nhost=h\nsslkey={key}\npassword=secret\n[open]\nhost=h\n")
    environ = {"PGSERVICEFILE": str(services), "HOME": str(tmp_path)}
    for mode, warned in ((0o644, [key, services]), (0o600, [])):
        key.chmod(mode)
        services.chmod(mode)
        found = [each for each in read_address("service=app user=u", environ).warnings if "chmod 600" in each]
        assert [each.partition(" ")[0] for each in found] == [str(each) for each in warned]
        assert read_address("user=u", {**environ, "PGSERVICE": "open"}).warnings == ()


def test_no_text_of_an_address_holds_its_password() -> None:
    address = read(f"postgresql://ada:{SECRET}@h/x?sslmode=require&sslpassword={SECRET}")
    assert SECRET not in str(address) + repr(address)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://ada:p%40@h:1/x?sslmode=require", "postgresql://ada:p%40@h:1/x?sslmode=require"),
        ("postgresql:///x?host=/tmp", "postgresql:///x?host=/tmp"),
        ("postgresql://h/x?connect_timeout=10&sslmode=allow", "postgresql://h/x?sslmode=allow"),
        ("host=/tmp dbname='a b' user=ada password=p@", "postgresql://ada:p%40@%2Ftmp/a%20b"),
        ("host=a,::1 port=1,2 dbname=x", "postgresql://a:1,[::1]:2/x"),
        ("host=a,b port=1 dbname=x", "postgresql://a:1,b:1/x"),
        ("host=h hostaddr=10.0.0.1 dbname=x", "postgresql://10.0.0.1/x"),
        ("postgresql://h/x?options=-cjit=off", "postgresql://h/x?options=-cjit%3Doff"),
        ("postgresql://h/x?channel_binding=require", "postgresql://h/x?sslmode=require"),
    ],
)
def test_a_url_for_other_programs_has_only_words_that_both_take(text: str, expected: str) -> None:
    assert url_for_tools(text, NOWHERE) == expected


WORD = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(user=WORD, password=WORD, database=WORD)
def test_any_user_password_and_name_survive_both_forms(user: str, password: str, database: str) -> None:
    url = "postgresql://{}:{}@h/{}".format(*(quote(each, safe="") for each in (user, password, database)))
    pairs = " ".join(
        f"{word}='{value.replace(chr(92), chr(92) * 2).replace(chr(39), chr(92) + chr(39))}'"
        for word, value in (("user", user), ("password", password), ("dbname", database), ("host", "h"))
    )
    for text in (url, pairs, url_for_tools(pairs, NOWHERE)):
        address = read(text)
        assert (address.user, address.password, address.database) == (user, password, database)


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_a_mistake(text: str) -> None:
    for each in (text, f"postgresql://{text}", f"host={text}"):
        with contextlib.suppress(BadAddress):
            read(each)
