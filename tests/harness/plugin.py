"""pytest's side of the harness: fixtures for labs and tests, outcomes, reports.

A conftest registers it. It adds nothing to a plain pytest run but the outcome `inconclusive`, the
figures as properties of the JUnit report, and what each lab leaves in build/labs/.
"""

import re
import signal
from pathlib import Path

import pytest

from harness import tree
from harness.hosts import Broken, CannotRun, Wire
from harness.lab import CANNOT_RUN_PREFIX, INCONCLUSIVE_PREFIX, Lab

LABS = {}
UNWRITTEN = set()
PLANNED = {}


def pytest_configure(config):
    """One Lab for each lab.py of this session.

    A shell starts what it puts in the background with SIGINT and SIGQUIT ignored, nohup does so
    with SIGHUP, and every program that a test starts would inherit that, and with it not end. A
    handler that does nothing is as good as none for us, and no program inherits it.
    """
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    # Else the kernel reaps our children itself, and we never learn how they ended.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    LABS.clear()
    UNWRITTEN.clear()
    PLANNED.clear()


def lab_of(path):
    """The Lab of a lab.py, made at its first use; None for any other file."""
    path = Path(path)
    if path.name != "lab.py":
        return None
    if path not in LABS:
        LABS[path] = Lab(path.parent)
    return LABS[path]


@pytest.fixture(scope="module")
def lab(request):
    """The lab that this module is."""
    return lab_of(request.path)


@pytest.fixture
def figures(request):
    """Records what was measured: on the screen, in report.json, in the JUnit report."""

    def record(**values):
        for name, value in values.items():
            if isinstance(value, (set, frozenset, tuple)):
                value = sorted(value) if isinstance(value, (set, frozenset)) else list(value)
            request.node.user_properties.append((name, value))

    return record


@pytest.fixture
def make_wire(tmp_path):
    """Makes a Wire in the test's own folder: `with make_wire(link) as wire`."""
    from contextlib import contextmanager

    @contextmanager
    def make(link="", **more):
        try:
            with Wire(tmp_path, link=link, **more) as wire:
                yield wire
        except CannotRun as reason:
            pytest.skip(CANNOT_RUN_PREFIX + str(reason))

    return make


def sentence_of(item):
    """The sentence that a test claims."""
    return " ".join((item.function.__doc__ or item.name).split("\n\n")[0].split())


def pytest_collection_finish(session):
    """Notes which claims each lab is to make."""
    for item in session.items:
        lab = lab_of(item.path)
        if lab:
            PLANNED.setdefault(lab, []).append((item.name, sentence_of(item)))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Notes which claim a report belongs to."""
    outcome = yield
    report = outcome.get_result()
    report.claim = None
    if lab_of(item.path) is not None:
        report.claim = (str(item.path), item.name, sentence_of(item))


def message(report):
    """Why a test did not pass, in words: no traceback, no repetition of the assertion's code."""
    if report.skipped and isinstance(report.longrepr, tuple):
        text = report.longrepr[2]
        text = re.sub(r"^Skipped: ", "", text)
        return text
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else str(report.longrepr)
    text = re.sub(r"^(harness\.hosts\.)?(AssertionError|Broken|Failed): ", "", text)
    return text.split("\nassert ")[0].strip()


def outcome_of(report):
    """holds, fails, error, inconclusive or skipped."""
    if report.passed:
        return "holds"
    if report.skipped:
        reason = message(report)
        return "inconclusive" if reason.startswith(INCONCLUSIVE_PREFIX) else "skipped"
    return "fails" if report.when == "call" else "error"


def pytest_runtest_logreport(report):
    """Gathers the claims of a lab."""
    if not getattr(report, "claim", None):
        return
    path, name, sentence = report.claim
    lab = lab_of(path)
    if report.when != "call" and report.passed:
        return
    outcome = outcome_of(report)
    reason = None if outcome == "holds" else message(report)
    if reason and reason.startswith(INCONCLUSIVE_PREFIX):
        reason = reason[len(INCONCLUSIVE_PREFIX) :]
    if report.when == "teardown":
        name, sentence = "teardown of " + name, "What was started was ended."
    note_claim(lab, name, sentence, outcome, reason, dict(report.user_properties))
    if report.failed:
        lab.begin()
        with open(lab.folder / "tracebacks.txt", "a", encoding="utf-8") as file:
            print(f"== {name}\n{report.longreprtext}\n", file=file)


def note_claim(lab, name, sentence, outcome, reason, figures):
    """What came of one claim."""
    lab.claims[name] = {
        "id": re.sub(r"^test_", "", name).replace("_", "-"),
        "sentence": sentence,
        "outcome": outcome,
        "figures": figures,
        "reason": reason,
    }


def pytest_report_teststatus(report):
    """`inconclusive` is an outcome of its own, in counts and letters."""
    if report.skipped and outcome_of(report) == "inconclusive":
        return "inconclusive", "i", "INCONCLUSIVE"
    return None


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Writes what a lab found as soon as its last claim is through: later tests look at it."""
    lab = lab_of(item.path)
    if lab:
        UNWRITTEN.add(lab)
    yield
    if lab and (nextitem is None or nextitem.path != item.path):
        write(lab)


def write(lab):
    """Writes what a lab found, once."""
    if lab in UNWRITTEN and lab.claims:
        lab.write()
    UNWRITTEN.discard(lab)


def pytest_sessionfinish(session):
    """Writes what the labs found that did not come to their end, and says so of each claim."""
    for lab in list(UNWRITTEN):
        for name, sentence in PLANNED.get(lab, []):
            if name not in lab.claims:
                note_claim(lab, name, sentence, "error", "the run ended before its turn", {})
        write(lab)


__all__ = ["Broken", "tree"]
