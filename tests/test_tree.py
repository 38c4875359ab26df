"""The tree itself: what lies where, and what must not be in it."""

import re
import shutil
import subprocess
import sys

import pytest

from harness import tree

TOP = {"Makefile", "README.md", "LICENSE", "common", "tcp", "udp", "raw", "labs", "tests", "build"}
MADE = {".git", "build", "__pycache__"}
# Put together here, so that this file does not hold what it looks for.
MARKS = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK")) + r")\b")
MACHINE = re.compile("(?<![A-Za-z0-9_.$])/(" + "wo" + "rk|ho" + "me|ro" + "ot|Us" + r"ers)(/|\b)")
SLEEP = re.compile(r"\bsl" + r"eep\(")


def committed():
    """Every file of the tree but what is made."""
    found = []
    for path in sorted(tree.ROOT.rglob("*")):
        relative = path.relative_to(tree.ROOT)
        if path.is_file() and not MADE & set(relative.parts) and path.suffix != ".pyc":
            found.append(relative)
    return found


FILES = committed()
C_FILES = [path for path in FILES if path.suffix in (".c", ".h")]
PYTHON = [path for path in FILES if path.suffix == ".py"]


def read(path):
    """The text of a file of the tree."""
    return (tree.ROOT / path).read_text()


def test_nothing_else_at_the_top():
    """The top level holds the design's entries and dotfiles."""
    entries = {path.name for path in tree.ROOT.iterdir() if not path.name.startswith(".")}
    assert entries <= TOP, entries - TOP
    assert {"Makefile", "LICENSE", "common", "tcp", "udp", "raw", "labs", "tests"} <= entries


def test_nothing_made_is_committed():
    """build/ is ignored, and git holds nothing in it."""
    assert "/build/" in read(".gitignore").split()
    if (tree.ROOT / ".git").exists():
        if shutil.which("git") is None:
            pytest.skip("git is not installed")
        done = subprocess.run(
            ["git", "-c", "safe.directory=*", "ls-files", "build"],
            cwd=tree.ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == ""


def test_text():
    """Every file is plain text, ends with a newline, and has no blanks at the end of a line."""
    for path in FILES:
        text = read(path)
        assert text.endswith("\n") and "\r" not in text, path
        trailing = [n for n, line in enumerate(text.split("\n"), 1) if line != line.rstrip()]
        assert not trailing, path


def test_no_marks():
    """Nothing is left to be done later, and nothing names the paths of one machine."""
    for path in FILES:
        assert not MARKS.search(read(path)), path
        assert not MACHINE.search(read(path)), path


def test_c_files_say_what_they_are():
    """A C file opens with what it is; a module's source leaves that to its header."""
    for path in C_FILES:
        text = read(path)
        if path.suffix == ".c" and (tree.ROOT / path).with_suffix(".h").exists():
            header = path.with_suffix(".h")
            assert text.startswith(("/*", f'#include "{header}"')), path
            text = read(header)
        assert text.startswith("/*"), path


def test_headers_are_guarded():
    """A header guards against a second reading, by its path."""
    for path in C_FILES:
        guard = re.sub(r"\W", "_", str(path)).upper()
        if path.suffix == ".h":
            assert f"#ifndef {guard}\n#define {guard}\n" in read(path), path


def test_c_files_are_built():
    """Every C file is named in the Makefile's lists, by itself or as a twin or unit test."""
    makefile = read("Makefile")
    unit = re.search(r"^UNIT_TESTS := (.*(?:\\\n.*)*)", makefile, re.MULTILINE).group(1).split()
    for path in C_FILES:
        if path.suffix != ".c" or str(path) in makefile:
            continue
        if "-".join((path.parts[0], path.stem)) in makefile.split():
            continue
        if path.match("tests/unit/*_test.c"):
            assert path.stem[: -len("_test")] in unit, path
        else:
            assert path.parts[0] in tree.KINDS, path
            assert path.stem in ("client", "server", "sender", "receiver"), path


def test_python_waits_for_events():
    """No test and no lab waits by the clock for what it can be told."""
    for path in PYTHON:
        assert not SLEEP.search(read(path)), path


@pytest.mark.skipif(sys.version_info < (3, 10), reason="Python 3.9 cannot list its own modules")
def test_python_needs_nothing_installed():
    """Python here imports pytest, the standard library and the harness."""
    ours = {"harness", "pytest"} | {path.stem for path in PYTHON}
    for path in PYTHON:
        names = re.findall(r"^\s*(?:import|from) ([a-z_A-Z0-9]+)", read(path), re.MULTILINE)
        assert set(names) <= ours | set(sys.stdlib_module_names), path
