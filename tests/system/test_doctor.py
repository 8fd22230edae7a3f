"""`lastcall doctor` finds what is planted, and the mend that it names works."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme
from lastcall.cli.entry import run
from lastcall.config import Settings
from lastcall.diagnosis.host import host_checks, warn_at_start
from lastcall.runtime.check import Check, CheckStatus

from tests.support.databases import as_role, new_database, new_role, person, psql
from tests.support.pgbouncer import run_pgbouncer
from tests.support.processes import run_server

ENDPOINT = (
    "INSERT INTO webhook_endpoints (url, events, secret)"
    " VALUES ('https://hooks.example/?token=x', '{memory.done}', sha256('x'))"
)
GIVEN_UP = (
    "INSERT INTO webhook_deliveries (endpoint_id, event_id, event, body, state, finished_at)"
    " SELECT endpoint_id, endpoint_id, 'webhook.test', '{}', 'failed', now() FROM webhook_endpoints"
)
OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
LOOKS_MAX = 200  # for new settings of the database, each a start of the command or of psql
COMMAND_SECONDS = 60.0
MAIL = """
import socket, sys
client, _ = socket.socket(fileno=int(sys.argv[1])).accept()
client.recv(9999)
client.sendall(b"220 mail\\r\\n")
client.close()
"""


class Finding(NamedTuple):
    status: str
    found: str
    mend: str


class Examined(NamedTuple):
    code: int
    status: str
    checks: dict[str, Finding]


Doctor = Callable[..., Examined]


def report(code: int, out: str) -> Examined:
    """The worst finding of each check."""
    told: Any = json.loads(out)
    checks: dict[str, Finding] = {}
    for each in sorted(told["checks"], key=lambda each: ("fail", "warn", "ok").index(each["status"])):
        checks.setdefault(each["name"], Finding(each["status"], each["found"], each["mend"]))
    assert all(bool(each.mend) == (each.status != "ok") for each in checks.values())
    return Examined(code, told["status"], checks)


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Doctor:
    """The command in this process, in a folder of its own, on a port where nobody listens."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("LASTCALL_")]:
        monkeypatch.delenv(name)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])

    def examine(*flags: str) -> Examined:
        capsys.readouterr()  # of other commands
        code = run(["doctor", "--json", "--port", port, *flags])
        return report(code, capsys.readouterr().out)

    return examine


class Site(NamedTuple):
    """A database with current tables, and a role that has been granted what servers need. url: of the role."""

    owner: str
    url: str
    database: str
    role: str


@pytest.fixture
def site(database_url: str) -> Iterator[Site]:
    with new_database(database_url) as owner, new_role(owner) as role:
        assert run(["migrate", "--database-url", owner]) == 0
        psql(
            owner,
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
            f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}",
            f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {role}",
        )
        yield Site(owner, as_role(owner, role), psql(owner, "SELECT quote_ident(current_database())"), role)
        psql(owner, f"DROP OWNED BY {role}")


def apply(url: str, mend: str) -> None:
    """Runs the statements of a mend, as somebody who may."""
    psql(url, *mend.removeprefix("as the owner: ").split(";"))


# --- in the database


@pytest.mark.parametrize(
    ("check", "status", "plant"),
    [
        ("synchronous_commit", "warn", "ALTER DATABASE {database} SET synchronous_commit = off"),
        ("synchronous_commit", "warn", "ALTER ROLE {role} SET synchronous_commit = off"),
        ("synchronous_commit", "warn", "ALTER ROLE {role} IN DATABASE {database} SET synchronous_commit = off"),
        ("standby", "fail", "ALTER DATABASE {database} SET default_transaction_read_only = on"),
        ("triggers", "fail", "ALTER ROLE {role} SET session_replication_role = replica"),
        ("connections", "fail", "ALTER ROLE {role} CONNECTION LIMIT 6"),
        ("connections", "fail", "ALTER DATABASE {database} CONNECTION LIMIT 6"),
        ("grants", "fail", "REVOKE INSERT, UPDATE ON messages FROM {role}"),
        ("grants", "fail", "REVOKE DELETE ON client_secrets FROM {role}"),
        ("grants", "fail", "REVOKE SELECT ON lastcall_schema FROM {role}"),
        ("grants", "fail", "REVOKE EXECUTE ON FUNCTION finish_memories FROM public, {role}"),
    ],
)
def test_a_fault_of_the_database_is_found_and_its_mend_works(
    doctor: Doctor, site: Site, check: str, status: str, plant: str
) -> None:
    well = doctor("--database-url", site.url)
    assert (well.code, well.checks[check].status) == (0, "ok")
    psql(site.owner, plant.format(database=site.database, role=site.role))
    found = doctor("--database-url", site.url)
    assert (found.checks[check].status, found.code) == (status, int(status == "fail"))
    apply(site.owner, found.checks[check].mend)
    assert doctor("--database-url", site.url).checks == well.checks


def test_a_role_without_any_privilege_is_told_all_grants(doctor: Doctor, site: Site) -> None:
    psql(
        site.owner,
        f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {site.role}",
        f"REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM {site.role}, public",
    )
    lacks = doctor("--database-url", site.url).checks["grants"]
    assert lacks.status == "fail"
    apply(site.owner, lacks.mend)
    assert doctor("--database-url", site.url).checks["grants"].status == "ok"


def test_a_pooler_by_transaction_is_found_and_by_session_it_is_well(
    doctor: Doctor, database_url: str, site: Site
) -> None:
    for mode, status in (("transaction", "fail"), ("session", "ok")):
        with run_pgbouncer(database_url, mode) as pgbouncer:
            checks = doctor("--database-url", pgbouncer.url).checks
        assert checks["pooler"].status == status
        assert ("pool_mode = session" in checks["pooler"].mend) is (status == "fail")
        assert ("version" in checks) is (status == "ok")  # what a shared session answers says nothing


def test_another_encoding_is_found_and_a_new_database_is_well(doctor: Doctor, database_url: str) -> None:
    with new_database(
        database_url, options="ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"
    ) as url:
        assert "createdb --encoding=UTF8 --template=template0" in doctor("--database-url", url).checks["encoding"].mend
    with new_database(database_url, options="ENCODING 'UTF8' TEMPLATE template0") as url:
        assert doctor("--database-url", url).checks["encoding"].status == "ok"


def test_tables_of_somebody_else_are_found_and_a_schema_of_its_own_is_well(doctor: Doctor, database_url: str) -> None:
    with new_database(database_url) as url:
        psql(url, "CREATE TABLE conversation_sessions (session_id uuid PRIMARY KEY)")
        schema = doctor("--database-url", url).checks["schema"]
        assert (schema.status, schema.found.partition(" is ")[0]) == ("fail", "public.conversation_sessions")
        (option,) = re.findall(r"options=\S+", schema.mend)
        psql(url, "CREATE SCHEMA lastcall")
        assert run(["migrate", "--database-url", f"{url}&{option}"]) == 0
        psql(url, "SELECT FROM lastcall.messages")
        assert run(["migrate", "--check", "--database-url", f"{url}&{option}"]) == 0


@pytest.mark.parametrize("release", ["older", "newer", "none"])
def test_the_schema_of_another_release_is_found(doctor: Doctor, site: Site, release: str) -> None:
    psql(
        site.owner,
        {
            "older": "UPDATE lastcall_schema SET digest = 'older', release = '0.0.1'",
            "newer": "INSERT INTO lastcall_schema (version, digest) VALUES (99, 'newer')",
            "none": "DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO public",
        }[release],
    )
    schema = doctor("--database-url", site.url).checks["schema"]
    assert schema.status == "fail"  # this role may not change it
    if release == "newer":
        assert "version 99, of a newer release" in schema.found
        return
    assert "lastcall migrate as " in schema.mend
    assert doctor("--database-url", site.owner).checks["schema"].status == "warn"
    assert run(["migrate", "--database-url", site.owner]) == 0
    assert doctor("--database-url", site.owner).checks["schema"].status == "ok"


def test_commits_that_wait_for_a_standby_that_is_not_there_are_found(
    doctor: Doctor, site: Site, database_url: str
) -> None:
    def seen(status: str) -> Finding:
        for _ in range(LOOKS_MAX):
            finding = doctor("--database-url", site.url).checks["replication"]
            if finding.status == status:
                return finding
        raise AssertionError(finding)

    psql(database_url, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()")
    try:
        finding = seen("fail")
        assert "every commit waits" in finding.found
        apply(database_url, finding.mend.removeprefix("connect one, or "))
        seen("ok")
    finally:
        psql(database_url, "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")


def test_a_database_that_does_not_wait_for_the_disk_is_found(doctor: Doctor, durable_url: str) -> None:
    psql(durable_url, "ALTER SYSTEM SET full_page_writes = off", "SELECT pg_reload_conf()")
    for _ in range(LOOKS_MAX):
        finding = doctor("--database-url", durable_url).checks.get("full_page_writes")
        if finding is not None:
            break
    assert finding is not None
    apply(durable_url, finding.mend)
    assert any("full_page_writes" not in doctor("--database-url", durable_url).checks for _ in range(LOOKS_MAX))


@pytest.mark.parametrize(
    ("words", "mend"),
    [
        ("host=127.0.0.1 port=1", "start PostgreSQL"),
        ("host=localhost.invalid", "check --database-url"),
    ],
)
def test_a_database_that_is_not_there_is_told_how_to_reach(doctor: Doctor, words: str, mend: str) -> None:
    found = doctor("--database-url", f"{words} user=x password=hush")
    assert found.code == 1
    assert mend in found.checks["reachable"].mend
    assert "hush" not in str(found)


def test_a_database_that_does_not_exist_is_told_how_to_create(doctor: Doctor, database_url: str) -> None:
    url = database_url.replace("/postgres?", "/nowhere?")
    assert "createdb" in doctor("--database-url", url).checks["reachable"].mend


def test_a_server_for_everybody_without_keys_is_found_and_a_key_mends_it(doctor: Doctor, site: Site) -> None:
    flags = ("--host", "0.0.0.0", "--database-url", site.url)
    found = doctor(*flags)
    assert (found.code, found.checks["credentials"].status) == (1, "fail")
    assert "lastcall keys create" in found.checks["credentials"].mend
    psql(
        site.owner, "INSERT INTO api_keys (subject, scope, prefix, secret_hash) VALUES ('a', 'user', 'x', sha256('x'))"
    )
    assert doctor(*flags).checks["credentials"].status == "ok"


def test_doctor_changes_nothing(doctor: Doctor, database_url: str, tmp_path: Path) -> None:
    with new_database(database_url) as url:
        assert doctor("--database-url", url).checks["schema"].status == "warn"
        assert psql(url, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == "0"
    assert doctor().code == 0
    assert list(tmp_path.iterdir()) == []


# --- on this host


@pytest.fixture
def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def pem(folder: Path, name: str, **validity: Any) -> tuple[str, ...]:
    """The flags of a new certificate."""
    issued = trustme.CA().issue_cert("chat.example", **validity)
    issued.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    issued.private_key_pem.write_to_path(folder / f"{name}.key")
    (folder / f"{name}.key").chmod(0o600)
    return ("--tls-cert", str(folder / f"{name}.pem"), "--tls-key", str(folder / f"{name}.key"))


def test_faults_of_a_certificate_are_found(doctor: Doctor, tmp_path: Path, now: dt.datetime) -> None:
    day = dt.timedelta(days=1)
    well = pem(tmp_path, "well")
    soon = pem(tmp_path, "soon", not_after=now + 5 * day)
    expired = pem(tmp_path, "expired", not_before=now - 9 * day, not_after=now - day)
    early = pem(tmp_path, "early", not_before=now + day)
    assert doctor(*well).checks["certificate"].status == "ok"
    assert doctor(*soon).checks["certificate"].status == "warn"
    for flags, words in (
        (expired, "expired on"),
        (early, "is not valid before"),
        ((*well[:2], *soon[2:]), "MISMATCH"),
        (("--tls-cert", "nowhere.pem", *well[2:]), "cannot read nowhere.pem"),
        (well[:2], "--tls-key go together"),
    ):
        found = doctor(*flags)
        assert (found.code, found.checks["certificate"].status) == (1, "fail")
        assert words in found.checks["certificate"].found
    assert "renew" in doctor(*expired).checks["certificate"].mend


def test_a_secret_that_others_can_read_is_found_and_its_mend_works(doctor: Doctor, tmp_path: Path) -> None:
    flags = pem(tmp_path, "well")
    (tmp_path / "well.key").chmod(0o644)
    found = doctor(*flags)
    assert (found.code, found.status, found.checks["secret_files"].status) == (0, "warn", "warn")
    subprocess.run(found.checks["secret_files"].mend, shell=True, check=True)
    assert doctor(*flags).checks["secret_files"].status == "ok"


def test_a_configuration_file_with_a_password_is_a_secret_too(doctor: Doctor, tmp_path: Path) -> None:
    file = tmp_path / "lastcall.toml"
    file.write_text('database_url = "host=127.0.0.1 port=1 password=hush"')
    file.chmod(0o644)
    assert doctor().checks["secret_files"].mend == "chmod 600 lastcall.toml"
    file.write_text('agent = "echo"  # and no password')
    assert "secret_files" not in doctor().checks


def test_a_misspelt_variable_is_named_and_its_mend_works(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LASTCALL_PROT", "hush")
    monkeypatch.setenv("LASTCALL_SERVICE_HOST", "10.0.0.1")  # Kubernetes, for a service of our name
    monkeypatch.setenv("LASTCALL_PORT_8000_TCP_ADDR", "10.0.0.1")
    found = doctor()
    assert (found.status, found.checks["environment"].found.split()[0]) == ("warn", "LASTCALL_PROT")
    assert found.checks["environment"].mend == "did you mean LASTCALL_PORT?"
    assert "hush" not in str(found)
    monkeypatch.delenv("LASTCALL_PROT")
    monkeypatch.setenv("LASTCALL_PORT", "8001")
    assert doctor().checks["environment"].status == "ok"


def test_a_variable_of_another_program_is_named_but_no_start_warns_of_it(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LASTCALL_HOME_OF_SCRIPTS", "hush")
    found = doctor()
    assert found.checks["other_variables"].found == "LASTCALL_HOME_OF_SCRIPTS is not a setting, and does nothing"
    assert found.checks["other_variables"].status == "warn"
    logged: list[Check] = []
    monkeypatch.setattr("lastcall.diagnosis.host.log_checks", logged.extend)
    warn_at_start(Settings(), {"LASTCALL_HOME_OF_SCRIPTS": "hush"})
    assert "other_variables" not in [each.name for each in logged]
    warn_at_start(Settings(), {"LASTCALL_PROT": "hush"})
    assert CheckStatus.WARN in [each.status for each in logged if each.name == "environment"]


def process(*command: str, folder: Path) -> Examined:
    """The command in a process of its own."""
    done = subprocess.run(
        [*command, sys.executable, "-m", "lastcall", "doctor", "--json", "--port", "0"],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    return report(done.returncode, done.stdout)


def test_too_few_files_are_found_and_their_mend_works(tmp_path: Path) -> None:
    for limit, status in (("64", "warn"), ("10640", "ok")):
        few = process("sh", "-c", f'ulimit -n {limit} && exec "$@"', "sh", folder=tmp_path).checks["open_files"]
        assert few.status == status
        assert few.mend.startswith("ulimit -n 10640") is (status == "warn")


@pytest.mark.skipif(shutil.which("faketime") is None, reason="there is no faketime here (apt install faketime)")
def test_a_clock_that_is_wrong_is_found(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LASTCALL_DATABASE_URL", site.url)
    found = process("faketime", "-f", "+90s", folder=tmp_path)
    assert (found.code, found.checks["clock"].status) == (0, "warn")
    assert "ahead of the database's" in found.checks["clock"].found
    assert process(folder=tmp_path).checks["clock"].status == "ok"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_data_folder_that_cannot_be_written_is_found(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    assert doctor("--data-dir", "closed/data").checks["data_dir"].status == "fail"


def test_a_data_folder_of_another_version_is_found_and_another_is_well(doctor: Doctor) -> None:
    with tempfile.TemporaryDirectory(prefix="lastcall-") as folder:
        Path(folder).chmod(0o755)  # as root, PostgreSQL runs as another user, who must get through
        (Path(folder) / "old" / "postgresql").mkdir(parents=True)
        (Path(folder) / "old" / "postgresql" / "PG_VERSION").write_text("9.6\n")
        found = doctor("--data-dir", f"{folder}/old")
        assert (found.code, found.checks["data_dir"].status) == (1, "fail")
        assert "choose another --data-dir" in found.checks["data_dir"].mend
        assert doctor("--data-dir", f"{folder}/new").checks["data_dir"].status == "ok"


# --- a running server


@pytest.mark.slow
def test_a_running_server_is_asked_whether_it_is_ready(doctor: Doctor, site: Site) -> None:
    with run_server("--database-url", site.owner, "--agent", "echo") as server:
        flags = ("--port", server.url.rpartition(":")[2], "--database-url", site.url)
        assert doctor(*flags).checks["readyz"].found.endswith("says ready")
        with person(site.owner, "LOCK TABLE conversation_sessions, messages IN ACCESS EXCLUSIVE MODE"):
            assert _until_unready(doctor, flags).code == 1
        assert any(doctor(*flags).checks["readyz"].status == "ok" for _ in range(LOOKS_MAX))


def _until_unready(doctor: Doctor, flags: tuple[str, ...]) -> Examined:
    for _ in range(LOOKS_MAX):
        found = doctor(*flags)
        if found.checks["readyz"].status == "fail":
            return found
    raise AssertionError(found)


def test_another_program_on_the_port_is_found(doctor: Doctor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        program = subprocess.Popen([sys.executable, "-c", MAIL, str(other.fileno())], pass_fds=(other.fileno(),))
        found = doctor("--port", str(other.getsockname()[1]))
        program.wait(COMMAND_SECONDS)
    assert (found.code, found.checks["readyz"].status) == (1, "fail")
    assert "something else answers" in found.checks["readyz"].found


# --- at a start


def test_a_start_warns_of_what_doctor_would(site: Site, tmp_path: Path) -> None:
    psql(site.owner, f"ALTER DATABASE {site.database} SET synchronous_commit = off")
    psql(site.owner, f"REVOKE UPDATE ON messages FROM {site.role}")
    env = {**os.environ, "LASTCALL_PROT": "1"}
    with run_server("--database-url", site.url, "--agent", "echo", env=env) as server:
        warned = {line["check"]: line["mend"] for line in server.log if line["event"] == "check_not_passed"}
    assert warned["environment"] == "did you mean LASTCALL_PORT?"
    assert warned["synchronous_commit"] == f"ALTER DATABASE {site.database} RESET synchronous_commit"
    assert warned["grants"] == f"as the owner: GRANT UPDATE ON public.messages TO {site.role}"


def test_webhooks_that_were_given_up_are_told_without_their_urls(doctor: Doctor, site: Site) -> None:
    assert doctor("--database-url", site.url).checks["webhooks"] == Finding("ok", "there are none", "")
    psql(site.url, ENDPOINT)
    assert doctor("--database-url", site.url).checks["webhooks"].status == "ok"
    psql(site.url, GIVEN_UP)
    told = doctor("--database-url", site.url)
    assert (told.code, told.checks["webhooks"].status) == (0, "warn")
    assert told.checks["webhooks"].found == "deliveries were given up: 1, to hooks.example"


def test_every_check_is_in_the_docs(doctor: Doctor, site: Site, tmp_path: Path) -> None:
    text = OPERATIONS.read_text().partition("## Doctor")[2].partition("\n## ")[0]
    documented = {
        name for cell in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for name in re.findall(r"\w+", cell)
    }
    told = {*doctor("--database-url", site.url, *pem(tmp_path, "well")).checks, *doctor().checks}
    assert told == documented - {"address", "full_page_writes"}


def test_the_checks_of_a_start_are_those_of_doctor(doctor: Doctor) -> None:
    assert {check.name for check in host_checks(Settings(), {})} <= set(doctor().checks)
    assert all(check.status is not CheckStatus.FAIL for check in host_checks(Settings(), {}))
