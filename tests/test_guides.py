"""The guides: each has its parts in order and fits on two screens, and each command in it works."""

import json
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import lab, transcript, tree

PARTS = ["Predict", "Run", "Look", "Explain", "Change", "Read on"]
GUIDES = {folder.name: folder / "README.md" for folder in lab.find().values()}
LIMIT_S = 120
MAY_BE_MISSING = ("tshark", "ping", "nc", "iperf3")


def commands(guide):
    """The commands of a guide, as (line number, command), from its `sh` blocks."""
    found, inside = [], False
    for number, line in enumerate(guide.read_text().splitlines(), 1):
        if line.strip().startswith("```"):
            inside = line.strip() == "```sh"
        elif inside and line.strip():
            found.append((number, line.strip()))
    return found


def prompts(guide):
    """The questions below Predict."""
    text = guide.read_text().split("## Predict")[1].split("\n## ")[0]
    return re.findall(r"^[0-9]\. .*?(?=^[0-9]\. |\Z)", text, re.M | re.S)


@pytest.mark.parametrize("slug", GUIDES)
def test_a_guide_has_its_parts(slug):
    text = GUIDES[slug].read_text()
    lines = text.splitlines()
    assert lines[0].endswith("?"), "the title is not a question"
    assert lines[0] == f"# {lab.describe(GUIDES[slug].parent)[0]}", "lab.py asks another question"
    assert re.search(r"\*\*Time\*\*.*\*\*Needs\*\*.*\*\*Builds on\*\*", text, re.S)
    assert re.findall(r"^## (.*)$", text, re.M) == PARTS
    assert len(prompts(GUIDES[slug])) == 3 and all("?" in each for each in prompts(GUIDES[slug]))
    assert len(lines) <= 100, "longer than two screens"
    assert re.search(r"RFC [0-9]+", text.split("## Read on")[1])


@pytest.mark.parametrize("slug", GUIDES)
def test_what_a_guide_names_is_there(slug):
    for path in re.findall(r"`([a-z_0-9]+/[a-z_0-9./-]+)`", GUIDES[slug].read_text()):
        # What a run leaves behind is tried by the commands that read it.
        assert path.startswith("build/") or (tree.ROOT / path).exists(), path


def play(guide):
    """Runs a guide's commands in its order: [(line number, command, the finished process)].

    Stops at the first that fails, for the next ones read what it leaves behind.
    """
    done = []
    for number, command in commands(guide):
        if not shutil.which(command.split()[0]):
            done.append((number, command, None))
            continue
        process = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=tree.ROOT,
            env={**os.environ, "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        done.append((number, command, process))
        # 141: `head` has had enough.
        if process.returncode not in (0, 141):
            break
    return done


def ladders(slug):
    """The text of every ladder that a lab's last run has left; None where a claim is inconclusive.

    Then there may be nothing to draw.
    """
    report = tree.OUT / slug / "report.json"
    claims = json.loads(report.read_text(encoding="utf-8"))["claims"] if report.exists() else []
    if any(claim["outcome"] == "inconclusive" for claim in claims):
        return None
    left = (tree.OUT / slug).glob("*.txt")
    return [path.read_text(encoding="utf-8") for path in left if path.name != "guide.txt"]


@pytest.fixture(scope="module")
def played(request, tmp_path_factory):
    """Every guide that is asked for, four at a time: a lab waits more than it works.

    {slug: (what play() returns, its ladders)}. The last first, as those of the first labs are the
    shortest. What the labs had left before is there again afterwards: the guides turn knobs, and CI
    keeps the labs as they are.
    """
    wanted = {
        item.callspec.params["slug"]
        for item in request.session.items
        if "played" in item.fixturenames
    }
    subprocess.run(["make"], cwd=tree.ROOT, stdout=subprocess.DEVNULL, check=True)
    kept = tmp_path_factory.mktemp("kept") / "labs"
    if tree.OUT.exists():
        shutil.copytree(tree.OUT, kept)
    try:
        with ThreadPoolExecutor(max_workers=4) as pool:
            running = {
                slug: pool.submit(play, GUIDES[slug]) for slug in sorted(wanted, reverse=True)
            }
            done = {slug: each.result() for slug, each in running.items()}
        return {slug: (commands, ladders(slug)) for slug, commands in done.items()}
    finally:
        if kept.exists():
            shutil.rmtree(tree.OUT)
            shutil.move(kept, tree.OUT)


@pytest.mark.parametrize("slug", GUIDES)
def test_every_command_of_a_guide(slug, played):
    """In the order of the guide: what a lab's run leaves behind, the next command reads."""
    assert commands(GUIDES[slug])[0][1] == f"make run-lab {int(slug[:2])}"
    for number, command, done in played[slug][0]:
        if done is None:
            tool = command.split()[0]
            assert tool in MAY_BE_MISSING, f"line {number}: no {tool}"
            continue
        said = f"line {number}: {command}\nstatus {done.returncode}\n{done.stdout}{done.stderr}"
        # make says so of a recipe's status; its own is 2.
        if "run-lab" in command and re.search(r"Error 77$", done.stderr, re.M):
            pytest.skip(f"{lab.CANNOT_RUN_PREFIX}{done.stdout.strip()}")
        assert done.returncode in (0, 141), said
        assert done.stdout.strip(), said
    drawn = played[slug][1]
    assert drawn or drawn is None, "the last run left no ladder"
    assert all(set("▶◀✗") & set(text) for text in drawn or []), "a ladder is empty"


SCENES = [
    pytest.param(lines, id=f"{slug}-{n}")
    for slug, guide in GUIDES.items()
    for n, lines in enumerate(transcript.blocks(guide))
]


@pytest.mark.parametrize("lines", SCENES)
def test_what_a_guide_has_typed(make_wire, lines):
    """What the guide has the student type by hand leads to what the guide shows."""
    with make_wire():
        pass  # where no wire can be made, this is skipped
    for tool in MAY_BE_MISSING:
        if any(f" {tool} " in line for line in lines) and not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    status, shown = transcript.play(lines)
    assert status == 0, shown
