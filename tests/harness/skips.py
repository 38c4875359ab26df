"""Judges a JUnit report's skips: `python3 skips.py junit.xml`; exit 1 when one was not expected.

A skip is expected when tests/allowed_skips.txt has its reason. A claim may come out inconclusive,
because a loaded machine was too slow: one in fifty at the most.
"""

import math
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ALLOWED = Path(__file__).resolve().parents[1] / "allowed_skips.txt"
INCONCLUSIVE = "inconclusive: "
CLAIMS_FOR_ONE = 50


def allowed(path=ALLOWED):
    """The expressions of the file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [re.compile(line) for line in lines if line.strip() and not line.startswith("#")]


def judge(report, expected):
    """(faults, notes) of a report, each a line."""
    claims, inconclusive, faults, notes = 0, [], [], []
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        claims += case.get("classname", "").startswith("labs.")
        for skipped in case.findall("skipped"):
            reason = skipped.get("message") or ""
            if reason.startswith(INCONCLUSIVE):
                inconclusive.append(f"{name}: {reason}")
            elif any(each.fullmatch(reason) for each in expected):
                notes.append(f"skipped, as expected: {name}: {reason}")
            else:
                faults.append(f"skipped, and not expected to be: {name}: {reason}")
    at_most = math.ceil(claims / CLAIMS_FOR_ONE)
    if len(inconclusive) > at_most:
        faults += [f"{each} (at most {at_most} of {claims} claims may be)" for each in inconclusive]
    else:
        notes += inconclusive
    return faults, notes


def main():
    """The command line."""
    faults, notes = judge(sys.argv[1], allowed())
    for line in notes + faults:
        print(line)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
