"""make: its goals, what it says when one is mistyped, and what it builds again."""

import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from harness import doctor, tree


def make(*words, cwd=tree.ROOT, **more):
    """Runs make by itself: nothing of the make that may have started these tests reaches it."""
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "CC")}
    environment = {k: v for k, v in environment.items() if not k.startswith("MAKE")}
    return subprocess.run(
        ["make", f"PYTHON={sys.executable}", *words],
        cwd=cwd,
        env={**environment, **more},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(
    "words, says",
    [
        (["tset"], "'tset'"),
        (["6"], "'6'"),
        (["tests"], "'tests'"),
        (["common"], "'common'"),
        (["all", "6"], "'6'"),
        (["6", "run-lab"], "'6'"),
        (["run-lab"], "which lab"),
        (["run-lab", "6", "7"], "which lab"),
        (["run-lab", "6", "N=7"], "which lab"),
        (["run-lab", "N="], "which lab"),
        (["run-lab", "loss"], "'loss'"),
        (["run-lab", "all"], "'all'"),
        (["run-lab", "6*"], "'6*'"),
        (["run-lab", "99"], "no lab 99"),
        (["run-lab", "N=99"], "no lab 99"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_mistyped_goal_is_an_error(words, says):
    """What is no goal is an error: one line that names it and says where to look, and exit 2."""
    done = make(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert says in done.stderr
    assert "make help" in done.stderr or "make labs" in done.stderr


@pytest.mark.parametrize("words", [["run-lab", "6"], ["run-lab", "N=6"], ["run-lab", "06"]])
def test_run_lab_runs_that_lab(words):
    """The number is handed on, behind run-lab or as N."""
    done = make("-n", *words, "COUNT=50")
    assert done.returncode == 0, done.stderr
    assert re.search(r"-m harness\.run_lab 0?6$", done.stdout, re.MULTILINE)


def test_knobs_reach_the_lab():
    """A variable is a knob, with its blanks: a bad one is named by the lab itself."""
    done = make("-o", "all", "-o", "build/flags", "run-lab", "6", "COUNT=7 or so")
    assert done.returncode == 2
    assert "COUNT='7 or so'" in done.stderr


def test_labs_lists_every_lab_with_its_question():
    """One line for each lab."""
    done = make("labs")
    assert done.returncode == 0, done.stderr
    folders = sorted(path.parent.name for path in tree.LABS.glob("*/lab.py"))
    lines = done.stdout.strip().splitlines()
    assert [line.split()[0] + "-" + line.split()[1] for line in lines] == folders
    assert all(line.endswith("?") for line in lines)


@pytest.mark.parametrize("words", [["-m", "harness.run_lab", "--list"], ["-m", "harness.doctor"]])
def test_nobody_reads_on(words):
    """`make labs | head`, `make doctor | head`: no traceback when the reader goes."""
    ours, theirs = os.pipe()
    os.close(ours)
    environment = {**os.environ, "PYTHONPATH": str(tree.ROOT / "tests")}
    done = subprocess.run(
        [sys.executable, *words],
        cwd=tree.ROOT,
        env=environment,
        stdout=theirs,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    os.close(theirs)
    assert done.returncode in (0, -signal.SIGPIPE) and done.stderr == b""


def test_help_lists_every_goal():
    """Every goal that a person types is in make help; and nothing that is no goal."""
    done = make("help")
    assert done.returncode == 0
    text = (tree.ROOT / "Makefile").read_text()
    goals = set(re.search(r"^GOALS := ((?:.*\\\n)*.*)", text, re.MULTILINE)[1].split()) - {"\\"}
    for goal in goals:
        if not goal.startswith("lint-") and goal != "all":
            assert re.search(rf"\b{goal}\b", done.stdout), goal
    for line in done.stdout.splitlines():
        words = line.split()
        assert words[0] == "make"
        assert words[1] in goals or words[1] == "build", line


@pytest.mark.parametrize("role", ["client", "server", "sender", "receiver"])
def test_diff_shows_what_the_protocol_changes(role):
    """TCP to UDP, then UDP to raw, each under a headline; files that differ are no error."""
    done = make(f"diff-{role}")
    assert done.returncode == 0, done.stderr
    assert "from TCP to UDP" in done.stdout
    assert "from UDP to a raw socket" in done.stdout
    kinds = set(re.findall(r"^[-+].*\bSOCK_(STREAM|DGRAM|RAW)\b", done.stdout, re.MULTILINE))
    assert kinds == {"STREAM", "DGRAM", "RAW"}
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("goal", ["labs", "run-lab"])
def test_python_without_pytest(goal):
    """Where no python3 has pytest, one line says what to install."""
    words = [goal] + (["6"] if goal == "run-lab" else [])
    done = make("-o", "all", *words, "PYTHON=")
    assert done.returncode == 2
    assert "apt install python3-pytest" in done.stderr.splitlines()[0]


@pytest.fixture
def copy(tmp_path):
    """What make needs of the tree, with nothing built; by name: tmp_path may lie in the tree."""
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("common", "tcp", "udp", "raw", "labs", "tests"):
        shutil.copytree(tree.ROOT / name, tmp_path / "tree" / name, ignore=ignore)
    shutil.copy(tree.ROOT / "Makefile", tmp_path / "tree")
    return tmp_path / "tree"


def compiled(done):
    """The files that a make compiled."""
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"^ +CC +(\S+)$", done.stdout, re.MULTILINE))


def test_builds_what_changed_and_no_more(copy):
    """Nothing twice; a header's users when it changes; everything when the flags do; -j or not."""
    program = "build/bin/udp-server"
    first = compiled(make("-j4", program, cwd=copy))
    assert {"udp/server.c", "udp/kernel.c", "common/message.c"} <= first
    assert not any(name.startswith(("tcp/", "raw/", "tests/")) for name in first)
    assert compiled(make(program, cwd=copy)) == set()
    header = copy / "udp" / "kernel.h"
    newer = (copy / "build" / "bin" / "udp-server").stat().st_mtime_ns + 10**9
    os.utime(header, ns=(newer, newer))
    assert compiled(make("-j4", program, cwd=copy)) == {"udp/server.c", "udp/kernel.c"}
    os.utime(header, ns=(0, 0))
    assert compiled(make("-j4", program, "EXTRA_CFLAGS=-DANOTHER", cwd=copy)) == first
    done = make("clean", cwd=copy)
    assert done.returncode == 0
    assert not (copy / "build").exists()


def test_doctor():
    """Says of each thing how it stands; 0 when all that is needed is here, else 77."""
    command = [sys.executable, str(tree.ROOT / "tests" / "harness" / "doctor.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, doctor.CANNOT_RUN), done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    for name in ("compiler", "make", "python3", "pytest", "ping", "tshark", "clang-tidy"):
        said = [line for line in lines if re.match(rf"  (ok|missing|MISSING) +{name} ", line)]
        assert len(said) == 1, name
    needs = [line for line in lines if line.split()[:1] == ["MISSING"]]
    assert (done.returncode == 0) == lines[-1].startswith("Everything that is needed is here")
    assert not needs or done.returncode == doctor.CANNOT_RUN
    # The wire's own line, and not the packages' alone: without a TUN device no lab runs.
    said = [line for line in lines if re.match(r"  (ok|missing) +/dev/net/tun\b", line)]
    if not (tree.ROOT / "build" / "bin" / "wire").exists():
        assert any("not built yet" in line for line in lines)
        return
    assert len(said) == 1, done.stdout
    assert said[0].startswith("  ok") or done.returncode == doctor.CANNOT_RUN


def fake_doctor(tmp_path, status):
    """The doctor in a tree of its own, whose wire says two lines and exits with that."""
    for folder in ("tests/harness", "build/bin"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(tree.ROOT / "tests" / "harness" / "doctor.py", tmp_path / "tests" / "harness")
    wire = tmp_path / "build" / "bin" / "wire"
    wire.write_text(
        '#!/bin/sh\n[ "$*" = --check ] || exit 2\n'
        "echo 'missing  /dev/net/tun: it is made up'\necho 'sudo make-it-up' >&2\n"
        f"exit {status}\n"
    )
    wire.chmod(0o755)
    command = [sys.executable, str(tmp_path / "tests" / "harness" / "doctor.py")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_doctor_hears_the_wire(tmp_path):
    """Where the wire cannot run, its reason is shown, and nobody is told that all is well."""
    done = fake_doctor(tmp_path / "cannot", doctor.CANNOT_RUN)
    assert (done.returncode, done.stderr) == (doctor.CANNOT_RUN, "")
    lines = done.stdout.splitlines()
    assert "  missing  /dev/net/tun: it is made up" in lines and "  sudo make-it-up" in lines
    assert "Everything that is needed is here" not in done.stdout
    assert "the labs cannot run yet" in lines[-1]
    # And it is the wire that it hears: this one says 0, and the rest of the machine is as it was.
    done = fake_doctor(tmp_path / "can", 0)
    missing = re.search("^Needed: ", done.stdout, re.MULTILINE)
    assert done.returncode == (doctor.CANNOT_RUN if missing else 0), done.stdout


def test_doctor_without_anything(tmp_path):
    """On a machine with python3 alone each thing that is missing comes with its one command."""
    command = [sys.executable, "-S", str(tree.ROOT / "tests" / "harness" / "doctor.py")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={"PATH": str(tmp_path)}
    )
    assert done.returncode == doctor.CANNOT_RUN, done.stderr
    assert done.stderr == ""
    for line in done.stdout.splitlines():
        if line.split()[:1] in (["MISSING"], ["missing"]):
            assert " install " in line
    for name in ("compiler", "make", "ping", "black"):
        assert re.search(rf"^  (MISSING|missing) +{name} ", done.stdout, re.MULTILINE), name


@pytest.mark.parametrize(
    "release, family",
    [
        ("ID=debian\n", "debian"),
        ("ID=ubuntu\nID_LIKE=debian\n", "debian"),
        ("ID=fedora\n", "fedora"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "fedora"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "suse"),
        ("ID=manjaro\nID_LIKE=arch\n", "arch"),
        ("", "debian"),
    ],
)
def test_doctor_knows_the_distribution(tmp_path, release, family):
    """Each family of distributions is told its own command."""
    path = tmp_path / "os-release"
    path.write_text(release)
    assert doctor.family(path) == family
