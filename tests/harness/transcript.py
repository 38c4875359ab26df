"""The ```console blocks of a guide: what a student types, tried on a terminal, line by line.

`$ COMMAND` begins, `client$ COMMAND` is typed at the prompt of the wire's shell. Of the other lines
those that a program prints (OUTPUT) are waited for, and the rest is typed.
"""

import os
import pty
import re
import select
import signal
import time

from harness import tree
from harness.hosts import LIMIT_S, Broken

PROMPT = "client$ "
OUTPUT = re.compile(
    r"^(->|server-|listening |\(a read|[a-z]+-talk_client: |0 wait |accepted |in$|out$)"
)
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(guide):
    """The lines of each console block of a guide."""
    return [text.splitlines() for text in BLOCK.findall(guide.read_text())]


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, command):
        self.shown, self._mark = "", 0
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(tree.ROOT)
            environment = {**os.environ, "SHELL": "/bin/sh", "PS1": PROMPT, "TERM": "dumb"}
            for name in ("ENV", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
                environment.pop(name, None)
            os.execve("/bin/sh", ["sh", "-c", command], environment)

    def type(self, line):
        """Types a line; what is shown from now on is what it leads to."""
        self._mark = len(self.shown)
        os.write(self.fd, line.encode() + b"\n")

    def _more(self, limit_s):
        ready, _, _ = select.select([self.fd], [], [], limit_s)
        try:
            text = os.read(self.fd, 65536) if ready else b""
        except OSError:
            text = b""  # a terminal without a program
        self.shown += text.decode(errors="replace").replace("\r", "")
        return bool(text)

    def wait(self, text):
        """Returns when a line that begins so has been shown since the last one was typed."""
        end = time.monotonic() + LIMIT_S
        # What runs in the background writes behind a prompt.
        line = re.compile(rf"^({re.escape(PROMPT)})*{re.escape(text)}", re.MULTILINE)
        while not line.search(self.shown, self._mark):
            if not self._more(max(0, end - time.monotonic())):
                raise Broken(f"{text!r} never came:\n{self.shown}")

    def finish(self):
        """Waits for the command's end; its status."""
        while self._more(LIMIT_S):
            pass
        ready = select.select([os.pidfd_open(self.pid)], [], [], LIMIT_S)[0]
        if not ready:
            os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


def play(lines):
    """Types a block's lines and waits for its outputs; (status, everything that was shown)."""
    assert lines[0].startswith("$ "), lines[0]
    terminal = Terminal(lines[0][2:])
    try:
        for line in lines[1:]:
            if line.startswith(PROMPT):
                terminal.wait(PROMPT)
                terminal.type(line[len(PROMPT) :])
            elif OUTPUT.match(line):
                terminal.wait(line)
            else:
                terminal.type(line)
    except Broken:
        os.kill(terminal.pid, signal.SIGKILL)
        terminal.finish()
        raise
    return terminal.finish(), terminal.shown
