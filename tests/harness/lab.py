"""One lab: its question, its knobs, its folder, and what it found.

A lab.py opens with its question (the docstring) and its knobs (`KNOBS`, a literal dict), so that
both can be read without running it; each of its tests is a claim, whose docstring is the sentence.
"""

import ast
import contextlib
import fcntl
import json
import os
import re
import shlex
import shutil
from datetime import datetime, timezone

import pytest

from harness import ladder as ladders
from harness import oneway, tree
from harness.hosts import CannotRun, TooLong, Wire

CANNOT_RUN_PREFIX = "cannot run here: "
INCONCLUSIVE_PREFIX = "inconclusive: "


def inconclusive(reason):
    """Neither red nor green: this run cannot tell, for this reason."""
    pytest.skip(INCONCLUSIVE_PREFIX + reason)


def nothing_to_see(reason):
    """The knobs took away what a claim is about: it is not tried, and says so."""
    pytest.skip(reason)


def find():
    """{number: folder} of every lab that there is."""
    found = {}
    for folder in sorted(tree.LABS.glob("[0-9][0-9]-*")):
        if (folder / "lab.py").is_file():
            found[int(folder.name[:2])] = folder
    return found


def describe(folder):
    """(question, knobs) of a lab, read from its source."""
    source = ast.parse((folder / "lab.py").read_text(encoding="utf-8"))
    question = (ast.get_docstring(source) or "").strip().split("\n")[0]
    knobs = {}
    for node in source.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "KNOBS":
            knobs = ast.literal_eval(node.value)
    return question, knobs


_DURATION = re.compile(r"^([0-9]+\.?[0-9]*)(ns|us|ms|s|min)?$")
_UNITS = {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9, None: 1e9, "min": 60e9}


def duration_ns(text):
    """`5ms` -> 5000000."""
    match = _DURATION.match(text)
    if not match:
        raise ValueError(text)
    return round(float(match.group(1)) * _UNITS[match.group(2)])


def _whole(text, low, high):
    value = int(text) if re.match(r"^[0-9]+$", text) else None
    if value is None or not low <= value <= high:
        raise ValueError(text)
    return value


def _interval(text):
    if not 0 < duration_ns(text) <= 10_000_000_000:
        raise ValueError(text)
    return text


def _size(text):
    if not re.match(r"^[1-9][0-9]{0,3}[kM]?$", text):
        raise ValueError(text)
    return text


def _link(text):
    if "\n" in text:
        raise ValueError(text)
    return " ".join(text.split())


# How each knob is read, and what is allowed. The wire itself judges a LINK.
READ = {
    "LINK": (_link, "words as for `wire --link`"),
    "SEED": (lambda text: _whole(text, 0, 2**63 - 1), "a whole number from 0"),
    "COUNT": (lambda text: _whole(text, 20, 20000), "20 to 20000 messages"),
    "INTERVAL": (_interval, "a time such as 5ms, up to 10s"),
    "SIZE": (lambda text: _whole(text, 48, 1400), "48 to 1400 bytes"),
    "BYTES": (lambda text: _whole(text, 48, 65507), "48 to 65507 bytes"),
    "FLOWS": (lambda text: _whole(text, 1, 64), "1 to 64"),
    "RATE": (str, "a rate such as 2mbit"),
    "BACKLOG": (lambda text: _whole(text, 2, 16), "2 to 16 connections"),
    "CLIENTS": (lambda text: _whole(text, 4, 64), "4 to 64"),
    "RCVBUF": (_size, "bytes such as 16k, 1 to 1024M"),
    "RETRIES": (lambda text: _whole(text, 1, 4), "1 to 4"),
    "WAIT": (_interval, "a time such as 300ms, up to 10s"),
}


# COUNT times INTERVAL: a program that is at it for a minute is taken to hang.
LONGEST_S = 30


class BadKnob(ValueError):
    """A knob's value that is not allowed; the text names all three."""


def read_knobs(defaults, given):
    """The lab's knobs with what the user turned; BadKnob names knob, value and what is allowed."""
    knobs = dict(defaults)
    for name, text in given.items():
        if name not in defaults:
            known = ", ".join(defaults)
            raise BadKnob(f"{name}={text}: this lab has no such knob; it has {known}")
        read, allowed = READ[name]
        try:
            knobs[name] = read(text)
        except ValueError:
            raise BadKnob(f"{name}='{text}': allowed is {allowed}") from None
    if given and {"COUNT", "INTERVAL"} <= set(knobs):
        seconds = knobs["COUNT"] * duration_ns(knobs["INTERVAL"]) / 1e9
        if seconds > LONGEST_S:
            raise BadKnob(
                f"COUNT={knobs['COUNT']} INTERVAL={knobs['INTERVAL']}: that is {seconds:.0f} s; "
                f"allowed are {LONGEST_S} s in all"
            )
    return knobs


def given_knobs(environment=None):
    """What was turned, as run_lab hands it on: {"COUNT": "500"}."""
    environment = os.environ if environment is None else environment
    prefix = "SOCKLAB_KNOB_"
    return {
        name[len(prefix) :]: value for name, value in environment.items() if name.startswith(prefix)
    }


def lock(folder, wait=True):
    """A lab's folder, made and locked until the descriptor is closed: it has room for one run.

    Without `wait`, BlockingIOError when somebody has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(fd)
        raise
    return fd


class Lab:
    """What a lab's tests share: knobs, the folder that they write to, and what they found."""

    def __init__(self, folder, given=None):
        self.source = folder
        self.slug = folder.name
        self.number = int(self.slug[:2])
        self.question, defaults = describe(folder)
        self.knobs = read_knobs(defaults, given_knobs() if given is None else given)
        self.folder = tree.OUT / self.slug
        self.columns, self.rows, self.notes = None, None, []
        self.charts, self.claims, self.commands, self.waterfalls = [], {}, [], {}
        self.captures, self.logs, self.ladders, self.costs = [], [], [], []
        self.started, self._lock = False, None

    def __getattr__(self, name):
        # lab.COUNT, lab.LINK: the knobs, as the guide writes them.
        knobs = self.__dict__.get("knobs", {})
        if name in knobs:
            return knobs[name]
        raise AttributeError(name)

    def begin(self):
        """Empties the folder, once, and keeps others out of it until write()."""
        if self.started:
            return
        self._lock = lock(self.folder)
        for left in self.folder.iterdir():
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink()
        self.started = True

    @contextlib.contextmanager
    def wire(self, link=None, name="wire", seed=None, **more):
        """A Wire with the lab's link and seed unless told otherwise; skips where none can run."""
        self.begin()
        link = self.knobs.get("LINK", "") if link is None else link
        seed = self.knobs.get("SEED", 7) if seed is None else seed
        try:
            with Wire(self.folder, link=link, seed=seed, name=name, **more) as wire:
                self.captures.append(wire.pcap_path)
                self.logs.append(wire.log_path)
                yield wire
        except CannotRun as reason:
            pytest.skip(CANNOT_RUN_PREFIX + str(reason))

    def one_way(self, wire, kind, link=None, **more):
        """A sender and a receiver with the lab's knobs, over another link if one is given.

        Inconclusive where the wire was too slow, or the receiver when nobody halts it.
        """
        if link is not None:
            wire.link(link)
        settings = {
            "count": self.knobs.get("COUNT", 400),
            "interval": self.knobs.get("INTERVAL", "5ms"),
            "size": self.knobs.get("SIZE", 200),
            **more,
        }
        try:
            run = oneway.one_way(wire, kind, **settings)
        except TooLong as reason:
            if kind != "tcp":
                raise
            inconclusive(f"over this link TCP is at it for too long: {reason}")
        self.commands += run.commands
        self.costs += [
            {"program": f"{kind}-{role}", "run": run.name, **said["usage"]}
            for role, said in (("sender", run.sender), ("receiver", run.receiver))
        ]
        self.check_speed(run.wire)
        overflow = sum(each.get("drops") or 0 for each in run.receiver["kernel"])
        if overflow and "during" not in more:
            inconclusive(
                f"this machine is too slow: the receiver's buffer overflowed by {overflow}"
            )
        return run

    def exchange(self, wire, kind, link=None, **more):
        """A client and a server, over another link if one is given."""
        if link is not None:
            wire.link(link)
        done = oneway.exchange(wire, kind, **more)
        self.commands += done.commands
        self.check_speed(done.wire)
        return done

    def check_speed(self, counters):
        """Inconclusive when a TAP dropped packets in silence: then the log is not the truth."""
        dropped = counters["client_tx_dropped"] + counters["server_tx_dropped"]
        if dropped:
            inconclusive(
                f"this machine is too slow: {dropped} packets were dropped ahead of the wire"
            )

    def table(self, columns, rows):
        """The one table: a list of column heads (a newline breaks a head), a list of rows."""
        self.columns, self.rows = list(columns), [list(row) for row in rows]

    def chart(self, name, svg, caption=""):
        """Keeps a chart as NAME.svg, and on the page."""
        self.begin()
        path = self.folder / f"{name}.svg"
        path.write_text(svg, encoding="utf-8")
        self.charts.append({"file": path.name, "caption": caption})

    def ladder(self, name, ladder, caption="", shown=False):
        """Keeps a ladder as NAME.txt and NAME.svg, and on the page; `shown`: on the screen too."""
        words = f"{caption} ({self.question})"
        self.chart(name, ladders.svg(ladder, name, words), caption)
        (self.folder / f"{name}.txt").write_text(ladders.text(ladder) + "\n", encoding="utf-8")
        if shown:
            self.ladders.append(
                {
                    "caption": caption,
                    "text": ladders.text(ladder),
                    "plain": ladders.text(ladder, False),
                }
            )

    def note(self, text):
        """A sentence below the table."""
        self.notes.append(text)

    def command(self):
        """What to type to have the same run again, every knob in its place."""
        words = (f"{name}={shlex.quote(str(value))}" for name, value in self.knobs.items())
        return " ".join(["make", "run-lab", str(self.number), *words])

    def report(self):
        """What report.json holds."""
        files = {"log": self.logs, "capture": self.captures}
        return {
            "schema_version": 1,
            "lab": self.slug,
            "question": self.question,
            "link": self.knobs.get("LINK", ""),
            "seed": self.knobs.get("SEED"),
            "knobs": self.knobs,
            "table": (
                None if self.columns is None else {"columns": self.columns, "rows": self.rows}
            ),
            "notes": self.notes,
            "claims": list(self.claims.values()),
            "charts": self.charts,
            "ladders": self.ladders,
            "waterfalls": self.waterfalls,
            "commands": self.commands,
            "costs": self.costs,
            "files": {
                name: [path.name for path in paths if path and path.exists()]
                for name, paths in files.items()
            },
        }

    def write(self):
        """Writes report.json, the page, and the list of all labs."""
        from harness import page

        self.begin()
        report = self.report()
        report["ended"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
        text = json.dumps(report, indent=1, default=str, allow_nan=False)
        (self.folder / "report.json").write_text(text + "\n", encoding="utf-8")
        page.leave(self, report)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        return report


def same(left, right, left_does, right_does):
    """Asserts that two sets of message numbers are one, and says in words which differ."""
    only_left, only_right = left - right, right - left
    parts = []
    for only, does, does_not in (
        (only_left, left_does, right_does),
        (only_right, right_does, left_does),
    ):
        if only:
            seqs = [str(each[-1] if isinstance(each, tuple) else each) for each in sorted(only)]
            shown = ", ".join(seqs[:8]) + (f" and {len(seqs) - 8} more" if len(seqs) > 8 else "")
            parts.append(f"{does} {shown}, but not so: {does_not}")
    assert not parts, "; ".join(parts)


def seqs(keys):
    """Message numbers in order, out of a set of (flow, seq)."""
    return sorted(seq for _, seq in keys)


__all__ = ["Lab", "inconclusive", "nothing_to_see", "same", "seqs"]
