"""Runs every unit test in C: build/tests/*_test, made from tests/unit/*_test.c."""

import os
import subprocess

import pytest

from harness import tree

NAMES = sorted(path.stem for path in (tree.ROOT / "tests" / "unit").glob("*_test.c"))


@pytest.mark.parametrize("name", NAMES)
def test_unit(name):
    """A unit test ends with 0, or says what is not so."""
    program = tree.BUILD / "tests" / name
    assert program.exists(), f"{tree.shown(program)} is not there: run make (is it in UNIT_TESTS?)"
    environment = dict(os.environ)
    if "ASAN_OPTIONS" in environment:
        environment["ASAN_OPTIONS"] += ":detect_leaks=1"
    done = subprocess.run(
        [program], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
