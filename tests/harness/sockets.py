"""The sockets of a host as its kernel lists them (/proc/net), and waiting until they are as wanted.

`local` and `remote` are (host, port); a raw socket's port is its protocol. Both queues of a TCP
socket are bytes: `tx` is written and not yet acknowledged, `rx` is acknowledged and not yet read.
Of a socket that listens, `rx` is how many connections wait to be accepted; of a UDP or raw one, the
buffer space that is taken.
"""

import os
import shlex
import sys
import time
from collections import namedtuple

from harness.hosts import LIMIT_S, TooLong


class Socket(namedtuple("Socket", "local remote state tx rx timer inode")):
    """A line of /proc/net/tcp, udp or raw."""

    @property
    def port(self):
        """The port at this end."""
        return self.local[1]

    @property
    def remote_port(self):
        """The port at the other end; 0 if there is none."""
        return self.remote[1]


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
    if len(host) != 8:
        return host, int(port, 16)
    return ".".join(map(str, int(host, 16).to_bytes(4, sys.byteorder))), int(port, 16)


def parse(text):
    """The lines of /proc/net/tcp, udp or raw as Sockets."""
    found = []
    for line in text.splitlines()[1:]:
        words = line.split()
        tx, _, rx = words[4].partition(":")
        found.append(
            Socket(
                _address(words[1]),
                _address(words[2]),
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


def unread(wire, host, name):
    """Bytes (TCP), or buffer space (UDP, RAW), that nobody on a host has read yet."""
    return sum(each.rx for each in of(wire, host, name) if each.state != "LISTEN")


TYPED = 24  # lines of what was typed into a program, and no more: some are given hundreds


def commands(wire):
    """What ran on the hosts of a wire so far, each as a line for a shell inside it.

    What was typed into a program follows as a comment.
    """
    found = []
    for each in wire.programs:
        line = shlex.join(["on", each.host, os.path.basename(each.argv[0]), *each.argv[1:]])
        if each.typed:
            line += "  # typed: " + "; ".join(each.typed[:TYPED])
        if len(each.typed) > TYPED:
            line += f"; and {len(each.typed) - TYPED} lines more"
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
