"""A run with everything on the record that a ladder is drawn from: packets, states, calls.

    with Recording(lab, wire, "late") as record:
        server = record.by_hand("server")
        client = record.by_hand("client")
        ...
        record.until("server", "CLOSE_WAIT")
    record.ladder(client_port, server_port)
"""

import atexit
import functools
import os
import re
import shutil
import tempfile
from contextlib import contextmanager

from harness import counters, ladder, tree
from harness.dialogue import SERVER, ByHand
from harness.lab import inconclusive, nothing_to_see


# A state is claimed only where it is held for 100 ms or more; a sampler that looked away for longer
# than this could have missed it.
GAP_NS = 90_000_000


@functools.cache
def preloadable(library):
    """A path of a library that LD_PRELOAD can name: blanks and colons would part it in two."""
    if not re.search(r"[\s:]", str(library)):
        return str(library)
    folder = tempfile.mkdtemp(prefix="socklab-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.chmod(folder, 0o755)
    os.symlink(library, f"{folder}/{library.name}")
    return f"{folder}/{library.name}"


class Recording:
    """A new run of a wire, with a sampler on both hosts; `kind` is what it is about.

    Programs that are started through it have their socket calls recorded. When it ends, so do its
    programs and samplers, and `rows`, `states`, `calls` and `kernel` are there.
    """

    def __init__(self, lab, wire, name, interval="2ms"):
        self.lab, self.wire, self.name, self.interval = lab, wire, name, interval
        self.programs, self.samplers, self.number = [], {}, None
        self.rows, self.states, self.calls, self.kernel, self.gaps_ns = [], {}, {}, {}, {}
        self._before = {}

    def __enter__(self):
        wire = self.wire
        self.number = wire.new_run()
        for side in ladder.SIDES:
            self.path(side).unlink(missing_ok=True)
            self._before[side] = wire.kernel(side)
            self.samplers[side] = wire.start(
                side, "tcp-states", "-4", "-i", self.interval, label=f"{self.name}-{side}-states"
            )
        for sampler in self.samplers.values():
            sampler.ready()
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            return
        self.end()

    def end(self):
        """Ends what still runs and gathers what was recorded; the wire is empty then."""
        wire = self.wire
        for program in self.programs:
            if isinstance(program, ByHand):
                program.end()
                program.wait()
            else:
                program.terminate()
        wire.drain()
        for side, sampler in self.samplers.items():
            sampler.terminate().expect(0)
            self.states[side] = [line for line in sampler.lines if line["event"] == "state"]
            self.gaps_ns[side] = sampler.summary["longest_gap_ns"]
            self.calls[side] = ladder.read_calls(self.path(side))
            self.kernel[side] = counters.difference(self._before[side], wire.kernel(side))
        self.rows = wire.log(self.number)
        self.lab.check_speed(wire.counters())

    def path(self, side):
        """Where a side's calls are recorded."""
        return self.wire.folder / f"{self.name}-{side}-calls.csv"

    @contextmanager
    def recorded(self, side):
        """Programs that begin in here have their calls recorded."""
        asan = os.environ.get("ASAN_OPTIONS")
        more = {
            "LD_PRELOAD": preloadable(tree.BUILD / "lib" / "calls.so"),
            "SOCKLAB_CALLS": str(self.path(side)),
            # A sanitized program insists on its own library being the first, unless told otherwise.
            "ASAN_OPTIONS": (asan + ":" if asan else "") + "verify_asan_link_order=0",
        }
        before = {name: os.environ.get(name) for name in more}
        os.environ.update(more)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def start(self, side, program, *args, **more):
        """Starts a program as Wire.start does, with its calls recorded."""
        more.setdefault("label", f"{self.name}-{program}")
        with self.recorded(side):
            started = self.wire.start(side, program, *args, **more)
        self.programs.append(started)
        words = (os.path.basename(started.argv[0]), *started.argv[1:])
        self.lab.commands.append(" ".join(("on", side, *words)))
        return started

    def ask(self, kind):
        """A client of a kind asks a server of its kind once; the server's port, if it has one."""
        server = self.start("server", f"{kind}-server", "-B", SERVER).ready()
        port = None if kind == "raw" else server.port
        where = () if port is None else ("-p", port)
        self.start("client", f"{kind}-client", *where, "-c", 1, "-W", "5s", "-q", SERVER).wait()
        return port

    def by_hand(self, side):
        """A ByHand on a host, with its calls recorded."""
        with self.recorded(side):
            hands = ByHand(self.wire, side, label=f"{self.name}-{side}-by-hand")
        self.programs.append(hands)
        return hands

    def until(self, side, state, port=None, remote=None, true=None):
        """Waits until a socket (of this local port, of this remote port) is seen in a state.

        `true(line)` may ask for more. Returns the sampler's line.
        """

        def found(lines):
            for line in lines:
                if line["event"] != "state" or line["state"] != state:
                    continue
                if port is not None and ladder.port_of(line["local"]) != port:
                    continue
                if remote is not None and ladder.port_of(line["remote"]) != remote:
                    continue
                if true is None or true(line):
                    return line
            return None

        return self.samplers[side].until(found, f"a socket of the {side} in {state}")

    def ladder(self, client_port=None, server_port=None, **cut):
        """The ladder of one connection, or of everything; since_ns and until_ns cut it."""
        return ladder.build(self.rows, self.states, self.calls, client_port, server_port, **cut)

    def clean(self):
        """A claim about every packet has nothing to say when the link did more than it had to."""
        for row in self.rows:
            if row.fate in ("lost", "queue") or row.copies or row.corrupted or row.reordered:
                nothing_to_see("the link lost or changed a packet by chance: LINK asks for it")
        return self

    def saw(self, seen, wanted, what):
        """Asserts that these states were seen; inconclusive when one could have been missed."""
        longest = max(self.gaps_ns.values())
        if seen != wanted and longest > GAP_NS:
            inconclusive(
                f"this machine is too busy: nobody looked at the sockets for {longest / 1e6:.0f} ms"
            )
        assert seen == wanted, f"{what}: {', '.join(seen) or 'none'}; not {', '.join(wanted)}"

    def changes(self, side, client_port, server_port):
        """The sampler's lines of one connection in which the state is new."""
        own, other = (client_port, server_port)
        if side == "server":
            own, other = other, own
        return [
            line
            for line in self.states[side]
            if ladder.port_of(line["local"]) == own
            and ladder.port_of(line["remote"]) == other
            and line["before"] != line["state"]
        ]
