"""The talk programs: twins, whole on one screen each, and correct for all that."""

import difflib
import os
import re
import socket
import subprocess

import pytest

from harness import c_source, tree
from harness.dialogue import SERVER, ByHand, Dialogue

ROLES = ("talk_server", "talk_client")
KINDS = tree.KINDS
TYPES = {"tcp": "SOCK_STREAM", "udp": "SOCK_DGRAM", "raw": "SOCK_RAW"}
MAIN_LINES = 60
FILE_LINES = 82

# How many lines of code change from one twin to the next: read_line() and accept() are TCP's.
BUDGET = {
    ("tcp", "udp", "talk_server"): 50,
    ("udp", "raw", "talk_server"): 35,
    ("tcp", "udp", "talk_client"): 40,
    ("udp", "raw", "talk_client"): 25,
}


def source(kind, role):
    """The text of one twin."""
    return (tree.ROOT / kind / f"{role}.c").read_text()


# Twins.


@pytest.mark.parametrize("role", ROLES)
def test_step_headings_are_equal(role):
    """The three go the same steps, letter for letter, in the same order."""
    steps = [c_source.steps(source(kind, role)) for kind in KINDS]
    assert len(steps[0]) >= 3
    assert [int(re.match("Step ([0-9]+)", step).group(1)) for step in steps[0]] == list(
        range(1, len(steps[0]) + 1)
    )
    assert steps[0] == steps[1] == steps[2]


@pytest.mark.parametrize("old, new, role", BUDGET)
def test_diff_stays_in_its_budget(old, new, role):
    """From one twin to the next no more changes than is written down, and the budget is tight."""
    before, after = (c_source.code_lines(source(kind, role)) for kind in (old, new))
    diff = difflib.unified_diff(before, after, n=0, lineterm="")
    changed = sum(line[0] in "+-" and line[:3] not in ("+++", "---") for line in diff)
    assert 0.8 * BUDGET[old, new, role] - 5 <= changed <= BUDGET[old, new, role]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("kind", KINDS)
def test_whole_on_one_screen(kind, role):
    """One short file that takes nothing from common/, with its socket calls in main()."""
    text = source(kind, role)
    code = c_source.without_comments(text)
    assert len(text.splitlines()) <= FILE_LINES
    assert 0 < c_source.function_lines(text, "main") <= MAIN_LINES
    assert not re.search(r'#include "', code)
    assert re.search(rf"fd = socket\(AF_INET, {TYPES[kind]}, ", code)
    assert set(re.findall(r"\bSOCK_[A-Z]+\b", code)) == {TYPES[kind]}
    assert not re.search(r"^(static )?(char|int|struct [a-z_]+) \w+( =|;|\[)", code, re.MULTILINE)


# What they do.


@pytest.fixture(scope="module")
def wire(tmp_path_factory):
    """One wire for all that follows."""
    from harness.hosts import CannotRun, Wire
    from harness.lab import CANNOT_RUN_PREFIX

    try:
        with Wire(tmp_path_factory.mktemp("talk")) as wire:
            yield wire
    except CannotRun as reason:
        pytest.skip(CANNOT_RUN_PREFIX + str(reason))


@pytest.fixture(params=KINDS)
def talk(request, wire):
    """(kind, a server, how to begin a client of it)."""
    kind = request.param
    where = [SERVER] if kind == "raw" else [0, SERVER]
    server = Dialogue(wire, "server", f"{kind}-talk_server", *where)
    words = server.hear().split()
    assert words[:3] == ["listening", "on", SERVER]
    port = [] if kind == "raw" else [words[-1]]

    def client():
        return Dialogue(wire, "client", f"{kind}-talk_client", SERVER, *port)

    yield kind, server, client
    server.kill()


def test_lines_come_back(talk):
    """Each line with the prefix in front, as the server printed it; Q ends the client well."""
    _, server, start = talk
    client = start()
    for line in ("hello", "two words", "", "q", "Q and more", "x" * 1000):
        client.say(line)
        assert client.hear() == "server-" + line
        assert server.hear() == line
    client.say("Q")
    assert client.wait().status == 0


def test_prefixed_lines_are_not_answered(talk):
    """The next answer is to the next line."""
    _, server, start = talk
    client = start()
    for line in ("server-", "server-server-x", "plain"):
        client.say(line)
        assert server.hear() == line
    assert client.hear() == "server-plain"
    client.kill()


def test_the_end_of_the_input(talk):
    """It is as good as Q, and the last line needs no newline."""
    _, _, start = talk
    client = start()
    client.put("one\ntwo")
    client.end()
    assert client.wait().status == 0
    assert client.text == ["server-one", "server-two"]


def test_a_long_line(talk):
    """One that is longer than the buffer is taken as several, and nothing of it is lost."""
    _, _, start = talk
    client = start()
    client.say("y" * 2500)
    heard = [client.hear() for _ in range(3)]
    client.say("Q")
    assert client.wait().status == 0
    assert "".join(line[len("server-") :] for line in heard) == "y" * 2500


def test_one_after_another(talk):
    """The server outlives its clients, those that are killed among them."""
    _, _, start = talk
    first = start()
    first.say("a")
    assert first.hear() == "server-a"
    os.kill(first.inner_pid(), 9)
    first.wait()
    second = start()
    second.say("b")
    assert second.hear() == "server-b"
    second.kill()


def test_lines_cut_and_joined(wire):
    """TCP: a line in pieces is one line, and two lines in one write are two."""
    server = Dialogue(wire, "server", "tcp-talk_server", 0, SERVER)
    port = server.hear().split()[-1]
    hands = ByHand(wire, "client")
    fd = hands.connected("tcp", port)
    hands.must(f"setsockopt {fd} TCP_NODELAY 1")
    hands.must(f"send {fd} he")
    wire.drain()
    hands.must(f"send {fd} llo")
    # A newline cannot be typed into a line: the end of the stream ends the line as well.
    hands.must(f"shutdown {fd}")
    assert hands.must(f"recv {fd} 100 MSG_WAITALL").data == b"server-hello"
    server.kill()
    hands.kill()


def test_two_lines_in_one_write():
    """TCP: the answers are two; on the loopback, with a socket of our own."""
    server = subprocess.Popen([tree.program("tcp-talk_server")], stdout=subprocess.PIPE, text=True)
    try:
        host, port = re.search(r"on (\S+) port (\d+)", server.stdout.readline()).groups()
        assert host == "127.0.0.1"
        with socket.create_connection((host, int(port))) as conn:
            conn.sendall(b"one\nserver-no\ntwo\nthr")
            conn.sendall(b"ee\n")
            conn.shutdown(socket.SHUT_WR)
            read = conn.makefile("rb").read()
        assert read == b"server-one\nserver-two\nserver-three\n"
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


@pytest.mark.parametrize(
    "program, arguments, said",
    [
        ("tcp-talk_server", ["70000"], "port '70000': allowed is 0 to 65535"),
        ("udp-talk_server", ["x"], "port 'x': allowed is 0 to 65535"),
        ("udp-talk_server", ["0", "here"], "address 'here': allowed is"),
        ("raw-talk_server", ["here"], "address 'here': allowed is"),
        ("tcp-talk_client", ["127.0.0.1"], "HOST PORT"),
        ("udp-talk_client", ["127.0.0.1", "0"], "port '0': allowed is 1 to 65535"),
        ("raw-talk_client", [], "HOST"),
    ],
)
def test_usage(program, arguments, said):
    """A bad value: one line that names it and what is allowed; status 2."""
    done = subprocess.run(
        [tree.program(program), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert said in done.stderr and len(done.stderr.splitlines()) == 1


def test_nobody_there(wire):
    """Without a server: TCP's and UDP's client is told, and says so."""
    hands = ByHand(wire, "client")
    fd, port = hands.bound("udp", host="10.0.0.1")
    hands.must(f"close {fd}")
    for kind in ("tcp", "udp"):
        client = Dialogue(wire, "client", f"{kind}-talk_client", SERVER, port)
        # TCP's is told by connect(), and may be gone before anybody has typed a word.
        if kind == "udp":
            client.say("hello")
        client.end()
        assert client.wait().status == 1
        assert "Connection refused" in client.stderr_path.read_text()
    hands.kill()
