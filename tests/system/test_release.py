"""scripts/release, on clones of this tree."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ..support.distributions import COMMAND_SECONDS, ROOT, foreign_environment, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this tree is no checkout of git"),
]

VERSION = "7.8.9"
IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "A maintainer"), ("EMAIL", "maintainer@example.test"))
}
FAILING_TESTS = "#!/bin/sh\ntest -f schema.sql || exit 9  # where the source distribution is\nexit 3\n"


def git(clone: Path, *words: str) -> str:
    return run("git", *words, cwd=clone, env=foreign_environment(**IDENTITY)).strip()


def commit(clone: Path, name: str, text: str) -> None:
    (clone / name).write_text(text)
    git(clone, "commit", "--quiet", "--all", "--message", f"Change {name}")


def release(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [clone / "scripts" / "release", *arguments],
        env=foreign_environment(**IDENTITY),
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )


def state(clone: Path) -> tuple[str, ...]:
    """What a release changes: the head, the tags, the work tree, and dist/."""
    dist = [each.name for each in clone.glob("dist/*")]
    return (
        git(clone, "rev-parse", "HEAD"),
        git(clone, "tag"),
        git(clone, "status", "--porcelain"),
        git(clone, "worktree", "list"),
        *dist,
    )


def new_clone(folder: Path) -> Path:
    """On main, with this tree's files as they are, and a changelog that has words for a release."""
    clone = folder / "clone"
    run("git", "clone", "--quiet", "--no-tags", ROOT, clone)
    git(clone, "checkout", "--quiet", "-B", "main")
    names = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
    for name in filter(None, names):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).unlink(missing_ok=True)
        shutil.copy(ROOT / name, clone / name, follow_symlinks=False)
    (clone / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n- News.\n\n## 0.1.0 (2020-02-02)\n\n- Old.\n")
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--message", "As it is, and with news")
    return clone


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_clone(tmp_path_factory.mktemp("release"))


def test_a_version_has_three_numbers(clone: Path) -> None:
    done = release(clone, "1.2")
    assert (done.returncode, "'1.2' is no version" in done.stderr) == (2, True)


def test_nothing_is_released_untested(clone: Path) -> None:
    done = release(clone, VERSION, "--skip-tests")
    assert (done.returncode, "nothing is released untested" in done.stderr) == (2, True)


def on_another_branch(clone: Path) -> None:
    git(clone, "checkout", "--quiet", "-b", "other")


def with_an_untracked_file(clone: Path) -> None:
    (clone / "tests" / "stray.py").write_text("")


def with_the_tag(clone: Path) -> None:
    git(clone, "tag", f"v{VERSION}")


def with_a_newer_release(clone: Path) -> None:
    git(clone, "tag", "v10.0.0")


def with_another_changelog(clone: Path) -> None:
    commit(clone, "CHANGELOG.md", "# Changelog\n\n## 0.2.0 (unreleased)\n\n- News.\n")


def with_nothing_new(clone: Path) -> None:
    commit(clone, "CHANGELOG.md", "# Changelog\n\n## Unreleased\n\n## 0.1.0 (2020-02-02)\n\n- Old.\n")


def with_no_changelog_to_release(clone: Path) -> None:
    commit(clone, "CHANGELOG.md", "# Changelog\n\n## 0.1.0 (2020-02-02)\n\n- Old.\n")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (on_another_branch, "this is other, and releases are made on main"),
        (with_an_untracked_file, "there are changes that are not committed"),
        (with_the_tag, f"the tag v{VERSION} is there already"),
        (with_a_newer_release, f"10.0.0 has been released, which is newer than {VERSION}"),
        (with_another_changelog, f"CHANGELOG.md is about 0.2.0, not {VERSION}"),
        (with_nothing_new, "CHANGELOG.md says nothing under its unreleased heading"),
        (with_no_changelog_to_release, f"CHANGELOG.md has no '## Unreleased' and no '## {VERSION} (unreleased)'"),
    ],
)
def test_a_tree_that_must_not_be_released_is_told_why(
    spoil: Callable[[Path], None], told: str, clone: Path, tmp_path: Path
) -> None:
    spoiled = tmp_path / "spoiled"
    run("git", "clone", "--quiet", clone, spoiled)
    spoil(spoiled)
    before = state(spoiled)
    done = release(spoiled, VERSION)
    assert (done.returncode, done.stdout) == (1, "")
    assert told in done.stderr
    assert done.stderr.endswith("scripts/release: nothing was changed\n")
    assert state(spoiled) == before


def test_a_release_is_built_checked_and_tagged_only_if_its_tests_pass(clone: Path) -> None:
    commit(clone, "scripts/test", FAILING_TESTS)
    before = state(clone)

    failed = release(clone, VERSION)
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert "test failed with exit code 3" in failed.stderr
    assert state(clone) == before

    rehearsed = release(clone, VERSION, "--dry-run", "--skip-tests")
    assert rehearsed.returncode == 0, rehearsed.stdout + rehearsed.stderr
    assert "7.8.9 could be released; nothing was changed" in rehearsed.stdout
    assert state(clone) == before

    commit(clone, "scripts/test", FAILING_TESTS.replace("exit 3", "exit 0"))
    done = release(clone, VERSION)
    assert done.returncode == 0, done.stdout + done.stderr
    assert git(clone, "status", "--porcelain") == ""
    assert git(clone, "rev-parse", "HEAD") == git(clone, "rev-parse", f"v{VERSION}^{{commit}}")
    assert git(clone, "diff", "--name-only", "HEAD^").split() == ["CHANGELOG.md", "server/lastcall/__init__.py"]
    changelog = (clone / "CHANGELOG.md").read_text()
    assert changelog.startswith(f"# Changelog\n\n## {VERSION} (2")
    assert "\n\n- News.\n\n## 0.1.0" in changelog
    sdist, wheel = (f"lastcall-{VERSION}.tar.gz", f"lastcall-{VERSION}-py3-none-any.whl")
    assert {each.name for each in (clone / "dist").iterdir()} == {sdist, wheel}
    with zipfile.ZipFile(clone / "dist" / wheel) as archive:
        assert f'__version__ = "{VERSION}"' in archive.read("lastcall/__init__.py").decode()
    assert f"twine upload dist/lastcall-{VERSION}*" in done.stdout
    assert f"git push origin main v{VERSION}" in done.stdout
