"""The layout of the package and the tests: everything has one place and one name, and nothing is large."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "server" / "lastcall"
TESTS = ROOT / "tests"

TOP_LEVEL = {"__init__", "__main__", "main", "listener", "shutdown", "config", "metrics", "secret_prefixes"}
TEST_FOLDERS = {"unit", "integration", "system", "verification", "support"}
FOLDER_MODULES_MAX = 12  # without __init__
MODULE_LINES_MAX = 250


def modules(folder: Path) -> list[Path]:
    return [each for each in folder.rglob("*.py") if "__pycache__" not in each.parts]


def test_no_two_classes_of_the_package_share_a_name() -> None:
    trees = [ast.parse(each.read_text()) for each in modules(PACKAGE)]
    names = Counter(node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    assert {name for name, count in names.items() if count > 1} == set()


def test_no_folder_of_the_package_has_more_than_a_dozen_modules() -> None:
    counts = Counter(each.parent for each in modules(PACKAGE) if each.name != "__init__.py")
    assert [folder.name for folder, count in counts.items() if count > FOLDER_MODULES_MAX] == []


def test_no_module_of_the_package_is_long() -> None:
    lines = {str(each.relative_to(PACKAGE)): len(each.read_text().splitlines()) for each in modules(PACKAGE)}
    assert {name: count for name, count in lines.items() if count > MODULE_LINES_MAX} == {}


def test_only_the_process_and_what_all_share_lie_at_the_top() -> None:
    """import-linter, whose layers are exhaustive, places the folders."""
    assert {each.stem for each in PACKAGE.glob("*.py")} == TOP_LEVEL


def test_every_test_lies_in_a_folder_that_says_what_it_needs() -> None:
    assert {each.parent.name for each in TESTS.glob("*/*") if each.suffix == ".py"} == TEST_FOLDERS
    assert {each.name for each in TESTS.glob("*.py")} == {"__init__.py", "conftest.py"}


def test_unit_tests_have_the_folders_of_the_package() -> None:
    """So that a module's tests are found by its path."""
    folders = {each.name for each in (TESTS / "unit").iterdir() if each.is_dir() and each.name != "__pycache__"}
    assert folders <= {each.name for each in PACKAGE.iterdir() if each.is_dir()}


def test_no_test_module_imports_from_another() -> None:
    """What tests share lies in tests/support."""
    imported = re.compile(r"^from \S*\btest_\w+ import ", re.MULTILINE)
    assert [each.name for each in modules(TESTS) if imported.search(each.read_text())] == []
