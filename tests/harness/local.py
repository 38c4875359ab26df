"""Programs on this machine's own loopback, outside any wire: for what needs no link."""

import os
import subprocess
import threading
import time
from pathlib import Path

from harness import tree
from harness.hosts import LIMIT_S, Broken, Program


class Local(Program):
    """A program of ours on the loopback; waits and signals as for one on a wire's host."""

    def __init__(self, folder, argv, label, part="program_line"):
        # Not the parent's: there is no `on` between us and the program.
        self.wire, self.host, self.argv, self.label = None, None, list(argv), label
        self.part = part
        self.lines, self.text, self.status, self.usage = [], [], None, None
        self.fault = None
        self.stderr_path = Path(folder) / f"{label}.stderr"
        self._changed = threading.Condition()
        self._ended = False
        with open(self.stderr_path, "wb") as errors:
            self._popen = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
            )
        self.pid = self._popen.pid
        self._pidfd = os.pidfd_open(self.pid)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def stderr(self):
        """What it said on stderr."""
        return self.stderr_path.read_text(errors="replace")

    def fds(self):
        """How many file descriptors it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def until_fds(self, number):
        """Returns when it has so many open."""
        end = time.monotonic() + LIMIT_S
        while self.fds() != number:
            if self.poll(0.002) or time.monotonic() > end:
                raise Broken(self._explain(f"{self.fds()} files open, never {number}"))


class Loopback:
    """Starts programs on the loopback, and ends them all at its end; a context manager."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.programs = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for program in self.programs:
            program.kill()

    def start(self, program, *args, json_lines=True):
        """Starts one of our programs, with -J unless told otherwise."""
        argv = [tree.program(program), *(str(arg) for arg in args)]
        if json_lines:
            argv.append("-J")
        part = "program_line" if json_lines else None
        started = Local(self.folder, argv, f"{len(self.programs)}-{program}", part)
        self.programs.append(started)
        return started
