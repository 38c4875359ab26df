"""Labs can fail: without the phenomenon a claim about it does not hold, and a lie makes it red."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import lab, schema, tree

# What each lab claims of its link, and cannot claim of a clean one.
CLEAN = {
    6: {
        "udp-missed-what-the-wire-lost",
        "raw-missed-what-the-wire-lost",
        "the-kernel-sent-again",
        "nobody-told-the-senders",
        "tcp-paid-in-time",
        "same-seed-same-losses",
    },
    7: {
        "tcp-is-in-order",
        "udp-is-as-the-wire-was",
        "raw-is-as-the-wire-was",
        "one-early-makes-several-late",
        "copies",
    },
    8: {"no-difference", "one-loss-holds-up-nobody-else"},
}

# Receivers that lie in their log: a row is left out, two rows change places, a copy is denied.
LIES = {
    "loses-one": "import sys; rows = open(sys.argv[1]).readlines(); del rows[20];"
    " open(sys.argv[1], 'w').writelines(rows)",
    "swaps-two": "import sys; rows = open(sys.argv[1]).readlines();"
    " rows[20], rows[21] = rows[21], rows[20]; open(sys.argv[1], 'w').writelines(rows)",
}
LYING = """#!/bin/sh
"{real}" "$@"
status=$?
while [ $# -gt 0 ]; do
  [ "$1" = --log ] && log=$2
  shift
done
"{python}" -c "{lie}" "$log"
exit $status
"""
LIARS = {
    (6, "udp", "loses-one"): {"udp-missed-what-the-wire-lost", "the-books-close"},
    (6, "raw", "loses-one"): {"raw-missed-what-the-wire-lost", "the-books-close"},
    (6, "tcp", "loses-one"): {"tcp-delivered-everything"},
    (7, "udp", "swaps-two"): {"udp-is-as-the-wire-was"},
    (7, "tcp", "swaps-two"): {"tcp-is-in-order"},
}


def run(folder, number, *knobs, bin_folder=None):
    """Runs a lab into a folder of its own: {claim: outcome}, or None where none can run."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree.ROOT / "tests"),
        "PYTHONIOENCODING": "utf-8",
        "SOCKLAB_OUT": str(folder),
        "MAKEFLAGS": "",
    }
    if bin_folder:
        environment["SOCKLAB_BIN"] = str(bin_folder)
    done = subprocess.run(
        [sys.executable, "-m", "harness.run_lab", str(number), "COUNT=100", *knobs],
        cwd=tree.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    if done.returncode == 77:
        return None
    slug = lab.find()[number].name
    report = json.loads((folder / slug / "report.json").read_text())
    schema.check(report, "lab_report")
    found = {claim["id"]: claim["outcome"] for claim in report["claims"]}
    # The exit status says what the claims do.
    assert done.returncode == (1 if {"fails", "error"} & set(found.values()) else 0), done.stdout
    return found


def lying_programs(folder, kind, lie):
    """A folder of our programs in which one receiver lies."""
    folder.mkdir(parents=True)
    for real in tree.BIN.iterdir():
        (folder / real.name).symlink_to(real)
    liar = folder / f"{kind}-receiver"
    real = liar.resolve()
    liar.unlink()
    liar.write_text(LYING.format(real=real, python=sys.executable, lie=LIES[lie]))
    liar.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Every run of this file, three at a time: a lab waits more than it works."""
    with ThreadPoolExecutor(max_workers=3) as pool:
        running = {
            number: pool.submit(run, tmp_path_factory.mktemp("clean"), number, "LINK=")
            for number in CLEAN
        }
        for number, kind, lie in LIARS:
            folder = tmp_path_factory.mktemp("lie")
            programs = lying_programs(folder / "bin", kind, lie)
            running[number, kind, lie] = pool.submit(run, folder, number, bin_folder=programs)
        found = {key: each.result() for key, each in running.items()}
    if None in found.values():
        pytest.skip(lab.CANNOT_RUN_PREFIX + "the labs cannot; `make doctor` says why")
    return found


@pytest.mark.parametrize("number", CLEAN)
def test_without_the_phenomenon(outcomes, number):
    found = outcomes[number]
    assert CLEAN[number] <= set(found)
    for claim in CLEAN[number]:
        assert found[claim] != "holds", claim
    assert "fails" not in found.values() and "error" not in found.values()


@pytest.mark.parametrize(("number", "kind", "lie"), LIARS)
def test_a_lie_is_found(outcomes, number, kind, lie):
    found = outcomes[number, kind, lie]
    red = {claim for claim, outcome in found.items() if outcome == "fails"}
    assert LIARS[number, kind, lie] <= red, found
