"""The sockets of a host as its kernel lists them (/proc/net), and waiting until they are as wanted.

Both queues of a TCP socket are bytes: `tx` is written and not yet acknowledged, `rx` is
acknowledged and not yet read. Of a socket that listens, `rx` is how many connections wait to be
accepted.
"""

import os
import shlex
import time
from collections import namedtuple

from harness.hosts import LIMIT_S, TooLong

Socket = namedtuple("Socket", "local port remote remote_port state tx rx timer inode")

STATES = {
    1: "ESTABLISHED",
    2: "SYN_SENT",
    3: "SYN_RECV",
    4: "FIN_WAIT_1",
    5: "FIN_WAIT_2",
    6: "TIME_WAIT",
    7: "CLOSE",
    8: "CLOSE_WAIT",
    9: "LAST_ACK",
    10: "LISTEN",
    11: "CLOSING",
}

# What a TCP socket's timer is for, as man 5 proc_net numbers it.
TIMERS = {0: None, 1: "retransmit", 2: "keepalive", 3: "time_wait", 4: "window_probe"}


def _address(text):
    """`0200000A:1B58` -> ("10.0.0.2", 7000); the kernel writes IPv4 in the machine's order."""
    host, _, port = text.partition(":")
    number = int(host, 16).to_bytes(4, "little") if len(host) == 8 else bytes.fromhex(host)
    return ".".join(map(str, number)) if len(host) == 8 else host, int(port, 16)


def parse(text):
    """The lines of /proc/net/tcp, udp or raw as Sockets."""
    found = []
    for line in text.splitlines()[1:]:
        words = line.split()
        tx, _, rx = words[4].partition(":")
        found.append(
            Socket(
                *_address(words[1]),
                *_address(words[2]),
                STATES.get(int(words[3], 16), words[3]),
                int(tx, 16),
                int(rx, 16),
                TIMERS.get(int(words[5].partition(":")[0], 16)),
                int(words[9]),
            )
        )
    return found


def of(wire, host, name="tcp", port=None, state=None):
    """A host's sockets: those with this port at either end, in this state, or all."""
    return [
        each
        for each in parse(wire.proc(host, name))
        if (port is None or port in (each.port, each.remote_port))
        and (state is None or each.state == state)
    ]


TYPED = 24  # lines of what was typed into a program, and no more: some are given hundreds


def noted(program):
    """The same program; what is typed into it from here on is kept for `commands`."""
    put, typed = program.put, []

    def note(text):
        typed.extend(text.splitlines())
        put(text)

    program.put, program.typed = note, typed
    return program


def commands(wire):
    """What ran on the hosts of a wire so far, each as a line for a shell inside it.

    What was typed into a program follows as a comment, if it is `noted`.
    """
    found = []
    for each in wire.programs:
        line = shlex.join(["on", each.host, os.path.basename(each.argv[0]), *each.argv[1:]])
        typed = getattr(each, "typed", [])
        if typed:
            line += "  # typed: " + "; ".join(typed[:TYPED])
        if len(typed) > TYPED:
            line += f"; and {len(typed) - TYPED} lines more"
        found.append(line)
    return found


def until(wire, true, what, programs=()):
    """Returns what `true()` does once that is something, looking every 2 ms.

    TooLong, with `what`, when it never comes, or when one of `programs` ends before it does.
    """
    end = time.monotonic() + LIMIT_S
    while True:
        over = [program for program in programs if program.poll()]
        found = true()
        if found:
            return found
        if over:
            said = "; ".join(f"{each.label}: {each.stderr_path.read_text()}" for each in over)
            raise TooLong(f"a program ended, and it never came to this: {what}; {said}")
        if time.monotonic() > end:
            raise TooLong(f"after {LIMIT_S} s it has not come to this: {what}")
        wire._moment()
