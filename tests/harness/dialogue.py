"""A program on a host that is talked to, line by line, and socket calls made by hand through one.

    with dialogue.start(wire, "server", "tcp-talk_server", 0, "10.0.0.2") as server: ...
    hands = ByHand(wire, "client")
    fd = hands.call("socket SOCK_STREAM").value
"""

import re
import signal
import subprocess
from ast import literal_eval
from collections import namedtuple

from harness import tree
from harness.hosts import LIMIT_S, Broken, CannotRun, Program

SERVER = "10.0.0.2"
CLIENT = "10.0.0.1"


class Dialogue(Program):
    """A program with a stdin of its own; what it prints is plain text."""

    def __init__(self, wire, host, program, *args, label=None):
        label = label or f"{wire.name}-{len(wire.programs)}-{program}"
        argv = [tree.program(program), *(str(arg) for arg in args)]
        super().__init__(wire, host, argv, wire.folder, label, part=None, stdin=subprocess.PIPE)
        self._heard = 0
        self.typed = []  # every line that was put in
        wire.programs.append(self)

    def say(self, line):
        """Types one line."""
        self.put(line + "\n")

    def put(self, text):
        """Types what may be more than one line, or less."""
        self.typed += text.splitlines()
        try:
            self._popen.stdin.write(text.encode())
            self._popen.stdin.flush()
        except BrokenPipeError:
            raise Broken(self._explain(f"no longer there for {text!r}")) from None

    def end(self):
        """Types the end of the input."""
        self._popen.stdin.close()

    def hear(self, limit_s=LIMIT_S):
        """The next line that it prints; waits for it."""
        with self._changed:
            self._changed.wait_for(
                lambda: len(self.text) > self._heard or self._ended, timeout=limit_s
            )
            if len(self.text) > self._heard:
                self._heard += 1
                return self.text[self._heard - 1]
        if self.poll(1) and self.status == 77:
            raise CannotRun(self._explain("cannot run"))
        raise Broken(self._explain(f"no further line (status {self.status})"))

    def hear_until(self, pattern):
        """The next lines, the last of which is the first to match."""
        lines = [self.hear()]
        while not re.search(pattern, lines[-1]):
            lines.append(self.hear())
        return lines

    def kill(self):
        """Ends it, and what it runs; by force only when asking does not do."""
        if self.poll():
            return
        try:
            self.end()
            self.signal(signal.SIGTERM)
        except OSError:  # it has just ended
            pass
        if not self.poll(5):
            super().kill()

    @property
    def unheard(self):
        """What it has printed and nobody has heard yet."""
        with self._changed:
            return self.text[self._heard :]


class Answer(namedtuple("Answer", "call value error data address truncated")):
    """What a call returned: its number, its error's name, the bytes, whose they are."""

    @property
    def port(self):
        """The port of the address."""
        return self.address[1]

    def __str__(self):
        return f"{self.call} -> {self.value}" + (f" {self.error}" if self.error else "")


_ANSWER = re.compile(
    r'^-> (-?\d+)(?: ([A-Z]\w+|not a call.*))?(?: ("(?:[^"\\]|\\x..)*"))?'
    r"(?: (?:from|is) ([0-9.]+):(\d+))?( MSG_TRUNC)?$"
)


class ByHand(Dialogue):
    """build/bin/by_hand on a host: one process, whose socket calls we make one at a time."""

    def __init__(self, wire, host, label=None):
        super().__init__(wire, host, "by_hand", label=label)

    def begin(self, call):
        """Makes a call and does not wait for what it returns."""
        self.say(call)

    def returned(self, call=None):
        """What the oldest call returned that has not been asked about."""
        line = self.hear_until("^->")[-1]
        match = _ANSWER.match(line)
        if not match or (match.group(2) or "").startswith("not a call"):
            raise Broken(f"{self.label}: {call}: {line}")
        value, error, data, host, port, cut = match.groups()
        data = literal_eval("b" + data) if data is not None else None
        address = (host, int(port)) if host else None
        return Answer(call, int(value), error, data, address, cut is not None)

    def call(self, call):
        """Makes a call and waits for what it returns."""
        self.begin(call)
        return self.returned(call)

    def must(self, call):
        """The same; an error is Broken."""
        answer = self.call(call)
        if answer.value < 0:
            raise Broken(f"{self.label}: {answer}")
        return answer

    def socket(self, kind):
        """A new socket of a kind (tcp, udp, raw); its descriptor."""
        types = {"tcp": "SOCK_STREAM", "udp": "SOCK_DGRAM", "raw": "SOCK_RAW"}
        return self.must(f"socket {types[kind]}").value

    def bound(self, kind, port=0, host=SERVER, options=()):
        """A socket with an address, that listens if it is TCP's; (descriptor, port)."""
        fd = self.socket(kind)
        for option in options:
            self.must(f"setsockopt {fd} {option} 1")
        self.must(f"bind {fd} {host} {port}")
        if kind == "tcp":
            self.must(f"listen {fd} 128")
        return fd, self.name(fd).port

    def connected(self, kind, port, host=SERVER):
        """A socket that is connected; its descriptor."""
        fd = self.socket(kind)
        self.must(f"connect {fd} {host} {port}")
        return fd

    def name(self, fd):
        """The socket's own address, as getsockname() tells it."""
        return self.must(f"getsockname {fd}")

    def peer(self, fd):
        """The other side's address, as getpeername() tells it."""
        return self.must(f"getpeername {fd}")
