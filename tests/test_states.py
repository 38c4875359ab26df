"""tcp-states: what it tells of the sockets of this machine's loopback, and when."""

import json
import os
import select
import signal
import socket
import subprocess
from contextlib import contextmanager

import pytest

from harness import ladder, schema, tree

LIMIT_S = 60
PROGRAM = tree.program("tcp-states")


def once(port, *options):
    """What there is of a port, by `-c 1`: the lines of sockets."""
    done = subprocess.run(
        [PROGRAM, "-J", "-c", "1", "-p", str(port), *options],
        capture_output=True,
        text=True,
        check=True,
        timeout=LIMIT_S,
    )
    lines = [schema.line(line) for line in done.stdout.splitlines()]
    assert [lines[0]["event"], lines[-1]["event"]] == ["ready", "summary"]
    assert lines[-1]["ended"] == "count" and lines[-1]["samples"] == 1
    return [line for line in lines if line["event"] == "state"]


class Watch:
    """A running tcp-states."""

    def __init__(self, popen):
        self.popen, self.lines = popen, []
        assert self.next()["event"] == "ready"

    def next(self):
        """Its next line, which obeys the schema."""
        # Byte by byte: nothing may lie in a buffer of ours when select is asked.
        text, fd = b"", self.popen.stdout.fileno()
        while not text.endswith(b"\n"):
            assert select.select([fd], [], [], LIMIT_S)[0], "it says nothing any more"
            byte = os.read(fd, 1)
            assert byte, "it has ended"
            text += byte
        self.lines.append(schema.line(text.decode()))
        return self.lines[-1]

    def until(self, state, true=lambda line: True):
        """The next line of a socket in this state."""
        while True:
            line = self.next()
            if line["event"] == "state" and line["state"] == state and true(line):
                return line

    def end(self):
        """Ends it; its summary."""
        self.popen.send_signal(signal.SIGTERM)
        while self.lines[-1]["event"] != "summary":
            self.next()
        assert self.popen.wait(LIMIT_S) == 0
        return self.lines[-1]


@contextmanager
def watch(*options):
    """Starts one, and ends it by its pid whatever happens."""
    command = [PROGRAM, "-J", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as popen:
        try:
            yield Watch(popen)
        finally:
            popen.kill()


def listener(family=socket.AF_INET, address="127.0.0.1", backlog=7):
    """A listening socket, and its port."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.bind((address, 0))
    sock.listen(backlog)
    return sock, sock.getsockname()[1]


def test_once():
    """`-c 1` tells what there is, with the listener's queue, and nothing of other ports."""
    server, port = listener()
    with server:
        (line,) = once(port)
        assert (line["local"], line["state"]) == (f"127.0.0.1:{port}", "LISTEN")
        assert (line["rqueue"], line["wqueue"]) == (0, 7)
        assert line["since_ns"] is None and line["inode"] > 0
        assert once(port, "-6") == []
    assert once(port) == []


def test_ipv6():
    """IPv6 sockets are told in brackets."""
    try:
        server, port = listener(socket.AF_INET6, "::1")
    except OSError:
        pytest.skip("there is no IPv6 here")
    with server:
        (line,) = once(port, "-6")
        assert line["local"] == f"[::1]:{port}" and ladder.port_of(line["local"]) == port
        assert once(port, "-4") == []


def test_a_connection():
    """From SYN to TIME_WAIT: changes only, with inodes, queues and the timer, in order."""
    server, port = listener()
    with server, watch("-4", "-i", "1ms", "-p", str(port)) as watched:
        client = socket.create_connection(("127.0.0.1", port))
        theirs = f"127.0.0.1:{port}"
        whole = watched.until("ESTABLISHED", lambda line: line["local"] == theirs)
        assert whole["inode"] == 0, "nobody has accepted it yet"
        conn, _ = server.accept()
        mine = watched.until("ESTABLISHED", lambda line: line["local"] == theirs)
        assert mine["inode"] > 0 and mine["before"] == "ESTABLISHED"
        conn.sendall(b"12345")
        client.shutdown(socket.SHUT_WR)
        # Either may be seen first: the acknowledgement of the FIN may wait a while.
        found = {}
        while not {"CLOSE_WAIT", "FIN_WAIT_2"} <= set(found):
            line = watched.next()
            found[line["state"]] = line
        assert found["CLOSE_WAIT"]["timer"] == "off"
        (line,) = [each for each in once(port) if each["state"] == "FIN_WAIT_2"]
        assert line["rqueue"] == 5, "the bytes that the client has not read"
        assert client.recv(5) == b"12345"
        conn.close()
        wait = watched.until("TIME_WAIT")
        assert wait["timer"] == "time_wait" and 0 < wait["timer_ms"] <= 60_000
        assert wait["inode"] == 0 and ladder.port_of(wait["remote"]) == port
        client.close()
        summary = watched.end()
        states = [line["state"] for line in watched.lines if line["event"] == "state"]
        assert states.index("CLOSE_WAIT") < states.index("TIME_WAIT")
        assert summary["changes"] == len(states) and summary["ended"] == "signal"
        assert summary["samples"] >= 1 and summary["sample_ns"]["min"] > 0
        for line in watched.lines[1:-1]:
            since = line["since_ns"]
            assert since is None or since < line["time_ns"]


def test_what_is_gone_at_the_end_is_told():
    """A socket that vanishes just before the end is not forgotten."""
    server, port = listener()
    with watch("-4", "-i", "10s", "-p", str(port)) as watched:
        watched.until("LISTEN")
        server.close()
        watched.end()
        assert [line["state"] for line in watched.lines[1:-1]] == ["LISTEN", "CLOSED"]


def test_queue_of_a_listener():
    """Connections that nobody accepts are a change of the listener."""
    server, port = listener()
    with server, watch("-4", "-i", "1ms", "-p", str(port)) as watched:
        watched.until("LISTEN")
        with socket.create_connection(("127.0.0.1", port)):
            line = watched.until("LISTEN")
            assert line["rqueue"] == 1


def test_log(tmp_path):
    """--log writes the same as CSV."""
    server, port = listener()
    path = tmp_path / "states.csv"
    with server:
        (line,) = once(port, "--log", str(path))
    names, values = (row.split(",") for row in path.read_text().splitlines())
    row = dict(zip(names, values))
    assert row.pop("since_ns") == "" and row["state"] == "LISTEN"
    assert {name: line[name] for name in ("local", "remote", "state", "before", "timer")} == {
        name: row[name] for name in ("local", "remote", "state", "before", "timer")
    }
    assert int(row["time_ns"]) > 0 and int(row["wqueue"]) == 7


def test_text_for_people():
    """Without -J it is a line for people."""
    server, port = listener()
    with server:
        done = subprocess.run(
            [PROGRAM, "-c", "1", "-p", str(port)], capture_output=True, text=True, check=True
        )
    ready, state, summary = done.stdout.splitlines()
    assert "ready" in ready and "CLOSED" in state and "LISTEN" in state and "1 samples" in summary


@pytest.mark.parametrize(
    "options", [["-i", "x"], ["-c", "-1"], ["-p", "70000"], ["-4", "-6"], ["host"], ["-s", "5"]]
)
def test_usage(options):
    """A bad value is one line, and exit 2."""
    done = subprocess.run(
        [PROGRAM, "-J", *options], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert json.loads(done.stdout)["event"] == "error"
