"""`make run-lab N`: runs one lab and prints what a student reads.

    python3 -m harness.run_lab 6 LINK='loss 20%' SEED=3 COUNT=500
    python3 -m harness.run_lab --list

Exit: 0 every claim holds, 1 one does not, 2 usage, 77 cannot run here, 130 interrupted. What cannot
be told (inconclusive) makes no lab fail; a lab in which nothing could be told exits 77.
"""

import os
import re
import subprocess
import sys

from harness import lab as labs
from harness import tree
from harness.screen import Screen, duration, link_words

USAGE, CANNOT_RUN, INTERRUPTED = 2, 77, 130

# Variables of the Makefile's own, which are no knobs of a lab.
NOT_KNOBS = {"CC", "OPT", "WARN", "CFLAGS", "LDFLAGS", "EXTRA_CFLAGS", "EXTRA_LDFLAGS", "SANITIZE"}
NOT_KNOBS |= {"N", "V", "PYTHON", "PYTEST", "TESTS", "LAB", "PAGER"}


def die(text, status=USAGE):
    """One line, and the end."""
    print(f"run-lab: {text}", file=sys.stderr)
    sys.exit(status)


def from_make(environment):
    """The variables of make's own command line, which make hands on in MAKEFLAGS.

    Not the environment's: a COUNT that somebody's shell exports turns no knob.
    """
    flags = environment.get("MAKEFLAGS", "")
    _, found, words = (" " + flags).partition(" -- ")
    if not found:
        return {}
    # make puts a backslash ahead of blanks and backslashes, and doubles each dollar sign.
    words = (re.sub(r"\\(.)", r"\1", word) for word in re.findall(r"(?:\\.|[^\s\\])+", words))
    pairs = (word.replace("$$", "$").partition("=") for word in words)
    return {name.rstrip(":"): value for name, _, value in pairs if name not in NOT_KNOBS}


def choose(argv, environment):
    """(lab folder, knobs turned, verbose) from the command line; usage errors end it here."""
    found = labs.find()
    given = from_make(environment)
    numbers = []
    for word in argv:
        name, equals, value = word.partition("=")
        if equals:
            given[name] = value
        else:
            numbers.append(word)
    verbose = "-v" in numbers or environment.get("V") == "1"
    numbers = [word for word in numbers if word != "-v"]
    have = ", ".join(str(number) for number in found) or "none yet"
    if len(numbers) != 1 or not re.match(r"^[0-9]{1,4}$", numbers[0]):
        die(f"'{' '.join(numbers)}': which lab? There are {have}; `make labs` lists them")
    if int(numbers[0]) not in found:
        die(f"there is no lab {numbers[0]}; there are {have}")
    return found[int(numbers[0])], given, verbose


def check_link(link):
    """The wire's own judgement of a link, before anything runs."""
    wire = tree.BIN / "wire"
    if not wire.exists():
        die(f"{tree.shown(wire)} is not there: run make first")
    done = subprocess.run(
        [str(wire), "--link", link, "--dry-run", "1"], capture_output=True, text=True, check=False
    )
    if done.returncode == USAGE:
        said = done.stderr.strip().splitlines()
        die(re.sub(r"^.*link: ", "LINK: ", said[0] if said else f"'{link}' is no link"))


def check_folder(slug):
    """Whether the lab's results can be written, and nobody else is at it."""
    folder = tree.OUT / slug
    try:
        os.close(labs.lock(folder, wait=False))
        ours = os.access(folder, os.W_OK)
    except BlockingIOError:
        die(f"{tree.shown(folder)}: another run of this lab is under way; wait for its end", 1)
    except PermissionError:
        ours = False
    if not ours:
        die(f"{tree.shown(folder)}: belongs to another user; this helps: sudo rm -rf build", 1)


def list_labs(out):
    """Every lab with its question."""
    for number, folder in labs.find().items():
        question, _ = labs.describe(folder)
        out.line(f"  {number:02} {folder.name[3:]:<14} {question}")


class Progress:
    """One line that says what runs, on a terminal only; gone when the lab is done."""

    def __init__(self, screen):
        self.screen = screen
        self.shown = screen.out.isatty()

    def show(self, text=""):
        """Says it."""
        if self.shown:
            self.screen.put(f"\r\x1b[K{text}")


def print_report(lab, report, screen):
    """What the student sees."""
    screen.line()
    if report["table"]:
        screen.table(report["table"]["columns"], report["table"]["rows"])
        screen.line()
    for note in report["notes"]:
        screen.words(note, "  ")
        screen.line()
    for ladder in report["ladders"]:
        screen.words(ladder["caption"], "  ")
        screen.line()
        for line in ladder["text" if screen.utf8 else "plain"].splitlines():
            screen.line(line)
        screen.line()
    blocked = {claim["reason"] for claim in report["claims"] if claim["outcome"] == "skipped"}
    if len(blocked) == 1 and all(claim["outcome"] == "skipped" for claim in report["claims"]):
        screen.words(blocked.pop(), "  ")
        return
    for claim in report["claims"]:
        screen.claim(claim)
    screen.line()
    counts = {}
    for claim in report["claims"]:
        counts[claim["outcome"]] = counts.get(claim["outcome"], 0) + 1
    words = {
        "holds": "hold",
        "fails": "do not hold",
        "error": "could not be tried",
        "inconclusive": "inconclusive",
        "skipped": "not tried",
    }
    parts = [f"{counts[key]} {words[key]}" for key in words if key in counts]
    screen.line(f"  {len(report['claims'])} claims: {', '.join(parts)}.")
    screen.line()
    folder = tree.shown(lab.folder)
    screen.line(f"  Page       {folder}/index.html")
    if report["files"]["capture"]:
        screen.line(f"  Captures   {folder}/ {'  '.join(report['files']['capture'])}")
    screen.line(f"  Logs       {folder}/*.csv, report.json")
    if (lab.folder / "tracebacks.txt").exists():
        screen.line(f"  Details    {folder}/tracebacks.txt")
    screen.words(f"Again      {lab.command()}", " " * 13, first="  ")


class Follow:
    """Tells the student what is being tried, while it is."""

    def __init__(self, progress):
        self.progress = progress
        self.broken = []

    def pytest_addoption(self, parser):
        """An option of the terminal plugin's, which is left out here, but which others read."""
        parser.addoption("--verbose", type=int, default=0)

    def pytest_runtest_logstart(self, nodeid, location):
        """A claim begins."""
        name = nodeid.rpartition("::")[2]
        self.progress.show("  " + re.sub(r"^test_", "", name).replace("_", " ") + " ...")

    def pytest_collectreport(self, report):
        """A lab.py that does not load has no claims: say why."""
        if report.failed:
            self.broken.append(report.longreprtext)


def run(folder, given, verbose, screen):
    """Runs one lab; the exit status."""
    try:
        import pytest
    except ImportError:
        die("pytest is missing; `apt install python3-pytest` brings it", CANNOT_RUN)
    from harness import plugin

    question, defaults = labs.describe(folder)
    try:
        knobs = labs.read_knobs(defaults, given)
    except labs.BadKnob as fault:
        die(str(fault))
    if "LINK" in knobs:
        check_link(knobs["LINK"])
    check_folder(folder.name)
    for name, value in given.items():
        os.environ[f"SOCKLAB_KNOB_{name}"] = value

    screen.line()
    screen.line(f"Lab {int(folder.name[:2]):02}: {question}", "1")
    screen.line()
    if "LINK" in knobs:
        words = link_words(knobs["LINK"])
        screen.words(f"The link, each way: {words}.")
    if "COUNT" in knobs:
        parts = [f"{knobs['COUNT']} messages"]
        if "SIZE" in knobs:
            parts[0] += f" of {knobs['SIZE']} bytes"
        if "INTERVAL" in knobs:
            parts.append(f"one every {duration(labs.duration_ns(knobs['INTERVAL']))}")
        if "SEED" in knobs:
            parts.append(f"seed {knobs['SEED']}")
        screen.words("The traffic: " + ", ".join(parts) + ".")

    follow = Follow(Progress(screen))
    # Relative, as pytest takes a bracket in a path for the beginning of a test's parameters.
    arguments = [os.path.relpath(folder / "lab.py"), "-c", str(tree.ROOT / ".pytest.ini")]
    arguments += ["--rootdir", str(tree.ROOT), "-p", "no:terminal", "-p", "no:cacheprovider"]
    # Without pytest's own words, none of its options for them; nor anybody's own.
    arguments += ["-o", "addopts=--import-mode=importlib"]
    os.environ.pop("PYTEST_ADDOPTS", None)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    status = pytest.main(arguments, plugins=[plugin, follow])
    follow.progress.show()
    lab = plugin.LABS.get(folder / "lab.py")
    if lab is None or not lab.claims:
        screen.line("\n".join(follow.broken) or f"pytest ended with status {int(status)}")
        return 1
    report = lab.report()
    print_report(lab, report, screen)
    if verbose and (lab.folder / "tracebacks.txt").exists():
        screen.line()
        screen.line((lab.folder / "tracebacks.txt").read_text(encoding="utf-8"))
    if status == pytest.ExitCode.INTERRUPTED:
        return INTERRUPTED
    outcomes = {claim["outcome"] for claim in report["claims"]}
    if outcomes & {"fails", "error"} or status not in (
        pytest.ExitCode.OK,
        pytest.ExitCode.TESTS_FAILED,
    ):
        return 1
    return 0 if "holds" in outcomes else CANNOT_RUN


def main():
    """The command line."""
    screen = Screen()
    if sys.argv[1:] == ["--list"]:
        list_labs(screen)
        return 0
    folder, given, verbose = choose(sys.argv[1:], os.environ)
    return run(folder, given, verbose, screen)


if __name__ == "__main__":
    sys.exit(main())
