"""What CI makes of a run: which skips it minds, and how many claims may stay open."""

import subprocess

import pytest

from harness import skips, tree


def report(path, claims, *reasons):
    """A JUnit report with so many claims, and a skipped test for each reason."""
    cases = ['<testcase classname="labs.06-loss.lab" name="a" />'] * (claims - len(reasons))
    cases += [
        f'<testcase classname="labs.06-loss.lab" name="b"><skipped message="{reason}" /></testcase>'
        for reason in reasons
    ]
    path.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    return path


@pytest.mark.parametrize(
    "claims, reasons, faults",
    [
        (10, [], 0),
        (10, ["we are unprivileged: all other tests show it"], 0),
        (10, ["cannot run here: no /dev/net/tun"], 1),
        (10, ["nc is not here"], 1),
        (10, ["we are unprivileged: all other tests show it, and more"], 1),
        (50, ["inconclusive: too slow"], 0),
        (50, ["inconclusive: too slow"] * 2, 2),
        (100, ["inconclusive: too slow"] * 2, 0),
        (101, ["inconclusive: too slow", "tshark is not installed"], 1),
    ],
)
def test_skips_are_judged(tmp_path, claims, reasons, faults):
    """A reason that the file has is expected; one claim in fifty may be inconclusive."""
    found, notes = skips.judge(report(tmp_path / "junit.xml", claims, *reasons), skips.allowed())
    assert len(found) == faults
    assert len(found) + len(notes) == len(reasons)


def test_a_stage_that_is_none():
    """One line, exit 2, and nothing is run."""
    argv = [tree.ROOT / ".ci" / "run", "lint", "gccc"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert "'gccc'" in done.stderr and len(done.stderr.splitlines()) == 1
