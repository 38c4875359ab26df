"""calls.so: records the socket calls of programs that know nothing of it."""

import errno
import os
import shutil
import subprocess
import sys
import time

import pytest

from harness import ladder, tree
from harness.recording import preloadable

LIBRARY = tree.BUILD / "lib" / "calls.so"
LIMIT_S = 60


def environment(path):
    """With the recorder in front, and what it writes to; None: nowhere."""
    chosen = {**os.environ, "LD_PRELOAD": preloadable(LIBRARY)}
    chosen.pop("SOCKLAB_CALLS", None)
    chosen["ASAN_OPTIONS"] = ":".join(
        each for each in (os.environ.get("ASAN_OPTIONS"), "verify_asan_link_order=0") if each
    )
    if path is not None:
        chosen["SOCKLAB_CALLS"] = str(path)
    return chosen


def run(path, code):
    """Runs Python code under the recorder; the finished process."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment(path),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def record(tmp_path, code):
    """Runs it; the calls."""
    path = tmp_path / "calls.csv"
    done = run(path, code)
    assert done.returncode == 0, done.stderr
    return ladder.read_calls(path)


BOTH_ENDS = """
import socket
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("127.0.0.1", 0))
server.listen(5)
client = socket.socket()
client.connect(server.getsockname())
conn, peer = server.accept()
client.sendall(b"hello")
print(conn.recv(100), client.getsockname()[1], server.getsockname()[1])
client.shutdown(socket.SHUT_WR)
conn.recv(100)
conn.close(); client.close(); server.close()
"""


def test_every_call(tmp_path):
    """Each call of both ends, in order, with results, addresses and what was asked."""
    begin_ns = time.monotonic_ns()
    path = tmp_path / "calls.csv"
    done = run(path, BOTH_ENDS)
    end_ns = time.monotonic_ns()
    assert done.returncode == 0, done.stderr
    calls = ladder.read_calls(path)
    client_port, server_port = done.stdout.split()[-2:]
    names = [call.call for call in calls]
    assert names == "socket setsockopt bind listen socket connect accept send recv".split() + (
        "shutdown recv close close close".split()
    )
    assert [call.result for call in calls if call.call in ("send", "recv")] == [5, 5, 0]
    by_name = {call.call: call for call in calls}
    assert by_name["socket"].detail == "AF_INET SOCK_STREAM 0"
    assert by_name["setsockopt"].detail == "SO_REUSEADDR=1"
    assert by_name["bind"].address == "127.0.0.1:0" and by_name["listen"].detail == "backlog 5"
    assert by_name["connect"].address == f"127.0.0.1:{server_port}"
    assert by_name["connect"].detail == f"from 127.0.0.1:{client_port}"
    assert by_name["accept"].address == f"127.0.0.1:{client_port}"
    assert by_name["shutdown"].detail == "SHUT_WR" and by_name["send"].detail == "5 bytes"
    for call in calls:
        assert begin_ns < call.called_ns <= call.returned_ns < end_ns
        assert call.error == 0 and call.pid == call.tid
    last = calls[0].called_ns
    for call in calls[1:]:
        assert call.called_ns >= last
        last = call.returned_ns


def test_only_this_connections_calls(tmp_path):
    """of_connection finds both ends' sockets by the client's port."""
    path = tmp_path / "calls.csv"
    done = run(path, BOTH_ENDS)
    client_port = int(done.stdout.split()[-2])
    mine = ladder.of_connection(ladder.read_calls(path), client_port)
    assert [
        call.call for call in mine
    ] == "connect accept send recv shutdown recv close close".split()


def test_errors(tmp_path):
    """An error has its number, and the program still sees the right errno."""
    calls = record(
        tmp_path,
        "import errno, socket\n"
        "a = socket.socket(); a.bind(('127.0.0.1', 0)); b = socket.socket()\n"
        "try:\n b.bind(a.getsockname())\n"
        "except OSError as e:\n assert e.errno == errno.EADDRINUSE\n"
        "try:\n b.connect(a.getsockname())\n"
        "except OSError as e:\n assert e.errno == errno.ECONNREFUSED\n",
    )
    failed = [(call.call, call.result, call.error) for call in calls if call.result < 0]
    assert failed == [("bind", -1, errno.EADDRINUSE), ("connect", -1, errno.ECONNREFUSED)]


def test_options(tmp_path):
    """Options are named where they have names, and their values shown as they are meant."""
    calls = record(
        tmp_path,
        "import socket, struct\n"
        "s = socket.socket()\n"
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))\n"
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack('ll', 1, 500000))\n"
        "s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)\n"
        "s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)\n",
    )
    assert [call.detail for call in calls if call.call == "setsockopt"] == [
        "SO_LINGER=1 0",
        "SO_RCVTIMEO=1.500000 s",
        "TCP_NODELAY=1",
        "6:6=3",
    ]


def test_datagrams(tmp_path):
    """UDP's calls, with whom they went to and came from; IPv6 in brackets."""
    calls = record(
        tmp_path,
        "import socket\n"
        "for family, host in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')):\n"
        "  try:\n"
        "    a = socket.socket(family, socket.SOCK_DGRAM); a.bind((host, 0))\n"
        "  except OSError: continue\n"
        "  b = socket.socket(family, socket.SOCK_DGRAM); b.bind((host, 0))\n"
        "  b.sendto(b'', a.getsockname()); a.recvfrom(10)\n"
        "  b.sendmsg([b'x', b'y'], [], 0, a.getsockname()); a.recvmsg(10)\n",
    )
    told = [call for call in calls if call.call in ("sendto", "recvfrom", "sendmsg", "recvmsg")]
    assert [call.result for call in told][:4] == [0, 0, 2, 2]
    assert all(ladder.port_of(call.address) for call in told)
    assert all(each.address.startswith(("127.0.0.1:", "[::1]:")) for each in told)
    assert {call.detail for call in calls if call.call == "socket"} >= {"AF_INET SOCK_DGRAM 0"}


def test_what_is_no_internet_socket_is_not_told(tmp_path):
    """Files, pipes and UNIX sockets leave no line, and get the descriptors that they always get."""
    calls = record(
        tmp_path,
        "import os, socket\n"
        "a, b = socket.socketpair(); os.write(a.fileno(), b'x'); os.read(b.fileno(), 1)\n"
        "r, w = os.pipe(); os.write(w, b'x'); os.read(r, 1); os.close(r)\n"
        "assert (a.fileno(), b.fileno(), r, w) == (3, 4, 5, 6)\n"
        # Listing them takes the one that was closed, and no other is in its way.
        "assert sorted(map(int, os.listdir('/proc/self/fd'))) == [0, 1, 2, 3, 4, 5, 6]\n",
    )
    assert calls == []


def test_threads(tmp_path):
    """Lines of many threads at once are whole, and none is missing."""
    calls = record(
        tmp_path,
        "import socket, threading\n"
        "def work():\n"
        "  s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('127.0.0.1', 9))\n"
        "  for _ in range(50): s.getpeername(); s.setsockopt(1, 2, 1)\n"
        "  s.close()\n"
        "threads = [threading.Thread(target=work) for _ in range(16)]\n"
        "[each.start() for each in threads]; [each.join() for each in threads]\n",
    )
    count = {}
    for call in calls:
        count[call.call] = count.get(call.call, 0) + 1
    assert count == {"socket": 16, "connect": 16, "setsockopt": 800, "close": 16}
    assert len({call.tid for call in calls}) > 1 and len({call.pid for call in calls}) == 1
    lines = (tmp_path / "calls.csv").read_text().splitlines()
    assert len(lines) == len(calls), "a line was not whole"


def test_children(tmp_path):
    """A program that is started by the program is recorded, too, under its own pid."""
    calls = record(
        tmp_path,
        "import os, socket, subprocess, sys\n"
        "socket.socket().close()\n"
        "if os.fork() == 0:\n  socket.socket().close(); os._exit(0)\n"
        "os.wait()\n"
        "subprocess.run([sys.executable, '-c', 'import socket; socket.socket().close()'])\n",
    )
    assert [call.call for call in calls] == ["socket", "close"] * 3
    assert len({call.pid for call in calls}) == 3


@pytest.mark.parametrize("path", [None, "", "/nowhere/at/all"])
def test_harmless(path):
    """Without a file to write to, programs go on as ever."""
    done = run(path, BOTH_ENDS)
    assert done.returncode == 0 and done.stdout.startswith("b'hello'") and not done.stderr


@pytest.mark.skipif(not shutil.which("nc"), reason="nc is not installed")
def test_a_stranger(tmp_path):
    """nc, which calls glibc's checking functions, is recorded as well."""
    import socket

    path = tmp_path / "calls.csv"
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with subprocess.Popen(
            ["nc", "-N", "127.0.0.1", str(port)],
            env=environment(path),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        ) as nc:
            conn, _ = server.accept()
            conn.sendall(b"hello")
            conn.close()
            assert nc.communicate(timeout=LIMIT_S)[0] == b"hello"
    calls = ladder.read_calls(path)
    assert {"socket", "connect", "close"} <= {call.call for call in calls}
    assert [call.result for call in calls if call.call == "read"] == [5, 0]


def test_our_programs(tmp_path):
    """Ours as well: also when they are built with a sanitizer, which wants to be the first."""
    path = tmp_path / "calls.csv"
    done = subprocess.run(
        [tree.program("tcp-client"), "-c", "1", "-p", "1", "127.0.0.1"],
        env=environment(path),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 1 and "refused" in done.stderr.lower(), done.stderr
    calls = ladder.read_calls(path)
    assert ("connect", -1, errno.ECONNREFUSED) in [
        (call.call, call.result, call.error) for call in calls
    ]
