"""One wire with its two hosts, and the programs that run on them.

Nobody sleeps here: a program is waited for by its `ready` line or its end, packets by the wire's
`drain`. Every wait has a limit, so generous that only something broken meets it; what everybody
wrote on stderr is then in the message.
"""

import os
import select
import signal
import subprocess
import threading
import time
from pathlib import Path

from harness import counters, records, schema, tree

CANNOT_RUN = 77
LIMIT_S = 60


class CannotRun(Exception):
    """This machine does not allow it; the text is the wire's own reason and remedy."""


class Broken(Exception):
    """A program or the wire did not do what it must; the text holds what it said."""


class TooLong(Broken):
    """A program is at work for longer than anybody wants to wait."""


def _tail(path, lines=12):
    try:
        return "\n".join(Path(path).read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def _children(pid):
    """The direct children of a process, by their pids out here."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(word) for word in task.read_text().split()]
        except OSError:
            continue
    return found


class Program:
    """A program on one of the hosts, started through `on`."""

    typed = ()  # lines that were put into it: a Dialogue's

    def __init__(
        self, wire, host, argv, folder, label, part="program_line", stdin=subprocess.DEVNULL
    ):
        self.wire, self.host, self.argv, self.label = wire, host, list(argv), label
        self.part = part
        self.lines, self.text, self.status, self.usage = [], [], None, None
        self.fault = None
        self.stderr_path = Path(folder) / f"{label}.stderr"
        self._changed = threading.Condition()
        self._ended = False
        command = [tree.program("on"), "--pid", str(wire.pids[host]), *self.argv]
        with open(self.stderr_path, "wb") as errors:
            self._popen = subprocess.Popen(
                command, stdin=stdin, stdout=subprocess.PIPE, stderr=errors
            )
        self.pid = self._popen.pid
        self._pidfd = os.pidfd_open(self.pid)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for raw in self._popen.stdout:
            text = raw.decode(errors="replace").rstrip("\n")
            with self._changed:
                self.text.append(text)
                if self.part:
                    try:
                        self.lines.append(schema.line(text, self.part))
                    except schema.Invalid as fault:
                        self.fault = self.fault or f"{self.label}: {fault}"
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _explain(self, what):
        said = _tail(self.stderr_path)
        return f"{self.label}: {what}" + (f"\n{said}" if said else "")

    def line(self, event, limit_s=LIMIT_S):
        """The first JSON line with this event; waits for it until the program's end."""

        def found():
            return next((line for line in self.lines if line["event"] == event), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or self._ended or self.fault, timeout=limit_s)
            if self.fault:
                raise Broken(self.fault)
            line = found()
        if line is None and event == "ready" and self._ended:
            if self.wait().status == CANNOT_RUN:
                raise CannotRun(_tail(self.stderr_path))
        if line is None:
            raise Broken(self._explain(f"no {event!r} line (status {self.status})"))
        return line

    def until(self, true, what, limit_s=LIMIT_S):
        """Waits until `true(lines)`, of the JSON lines so far, is true; what that is, if it is."""
        with self._changed:
            self._changed.wait_for(
                lambda: true(self.lines) or self._ended or self.fault, timeout=limit_s
            )
            if self.fault:
                raise Broken(self.fault)
            found = true(self.lines)
        if not found:
            raise Broken(self._explain(f"never so: {what}"))
        return found

    def ready(self):
        """Waits until the program says that it is ready; itself, so that calls can be chained."""
        self.line("ready")
        return self

    @property
    def port(self):
        """Where a server or receiver listens."""
        return self.line("ready")["port"]

    @property
    def summary(self):
        """The program's last word."""
        return self.line("summary")

    def poll(self, limit_s=0):
        """True when it has ended, waiting that long for it."""
        if self.status is not None:
            return True
        waiter = select.poll()
        waiter.register(self._pidfd, select.POLLIN)
        if not waiter.poll(limit_s * 1000):
            return False
        _, status, used = os.wait4(self.pid, 0)
        self.status = os.waitstatus_to_exitcode(status)
        self._popen.returncode = self.status
        self.usage = {
            "cpu_user_ns": round(used.ru_utime * 1e9),
            "cpu_system_ns": round(used.ru_stime * 1e9),
            "voluntary_switches": used.ru_nvcsw,
            "involuntary_switches": used.ru_nivcsw,
        }
        os.close(self._pidfd)
        self._reader.join(LIMIT_S)
        self._popen.stdout.close()
        return True

    def wait(self, limit_s=LIMIT_S):
        """Waits for its end and reaps it; itself, so that calls can be chained."""
        if not self.poll(limit_s):
            raise TooLong(self._explain(f"still running after {limit_s} s"))
        if self.fault:
            raise Broken(self.fault)
        return self

    def expect(self, *statuses):
        """Waits for its end; any other status than these is Broken."""
        self.wait()
        if self.status == CANNOT_RUN and CANNOT_RUN not in statuses:
            raise CannotRun(_tail(self.stderr_path))
        if self.status not in statuses:
            raise Broken(self._explain(f"status {self.status}, not {statuses}"))
        return self

    def inner_pid(self):
        """The program's own pid out here: `on` is its parent, or its parent's parent."""
        pid = self.pid
        while True:
            below = _children(pid)
            if not below:
                return pid
            pid = below[0]

    def signal(self, number):
        """Sends a signal to the program itself, not to `on`."""
        os.kill(self.inner_pid(), number)

    def stop(self):
        """Halts the program (SIGSTOP) and waits until it stands still."""
        pid = self.inner_pid()
        os.kill(pid, signal.SIGSTOP)
        self._until_state(pid, "T")

    def cont(self):
        """Lets it go on."""
        os.kill(self.inner_pid(), signal.SIGCONT)

    def _until_state(self, pid, state):
        end = time.monotonic() + LIMIT_S
        while True:
            text = Path(f"/proc/{pid}/stat").read_text()
            if text.rpartition(")")[2].split()[0] == state:
                return
            if time.monotonic() > end or self.poll(0.002):
                raise Broken(self._explain(f"never came to state {state}"))

    def terminate(self):
        """Asks it to end (SIGTERM, which prints its summary), and reaps it."""
        if not self.poll():
            try:
                self.signal(signal.SIGTERM)
            except ProcessLookupError:
                pass
            self.wait()
        return self

    def kill(self):
        """Ends it for good; for the way out only."""
        if not self.poll():
            # By the pidfd: Popen's own would reap it, had it ended since.
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self.poll(LIMIT_S)


class Wire:
    """The cable with its two hosts, taking orders; a context manager.

    `folder` gets the wire's log, capture and everybody's stderr; `name` is their stem.
    """

    def __init__(self, folder, link="", up=None, down=None, seed=7, name="wire", capture=True):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.log_path = self.folder / f"{name}.csv"
        self.pcap_path = self.folder / f"{name}.pcapng" if capture else None
        self.stderr_path = self.folder / f"{name}.stderr"
        self.argv = [tree.program("wire"), "--seed", str(seed), "--log", str(self.log_path)]
        if capture:
            self.argv += ["--pcap", str(self.pcap_path)]
        for option, spec in (("--link", link), ("--up", up), ("--down", down)):
            if spec:
                self.argv += [option, spec]
        self.pids, self.programs, self.run = {}, [], 1
        self._popen, self._buffer, self._lost = None, b"", None

    def __enter__(self):
        if not Path(self.argv[0]).exists():
            raise Broken(f"{tree.shown(tree.BIN / 'wire')} is not there: run make first")
        with open(self.stderr_path, "wb") as errors:
            self._popen = subprocess.Popen(
                self.argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
            )
        try:
            ready = self._answer()
            self.pids = {"client": ready["client"], "server": ready["server"]}
        except BaseException:
            self._end()
            raise
        self.specs = (ready["up"], ready["down"])
        return self

    def __exit__(self, kind, *_):
        try:
            for program in self.programs:
                program.kill()
        finally:
            status = self._end()
        if kind is None and status:
            raise Broken(self._explain(f"ended with status {status}"))

    def _end(self):
        """Ends the wire, if it has not been seen to end; its status, or None."""
        if self._popen is None or self._popen.returncode is not None:
            return None
        self._popen.stdin.close()
        try:
            self._popen.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self._popen.stdout.close()
        return self._popen.returncode

    def _explain(self, what):
        texts = [f"wire: {what}", _tail(self.stderr_path)]
        for program in self.programs:
            said = _tail(program.stderr_path)
            if said:
                texts.append(f"{program.label}: {said}")
        return "\n".join(text for text in texts if text)

    def _answer(self):
        end = time.monotonic() + LIMIT_S
        while b"\n" not in self._buffer:
            waiter = select.poll()
            waiter.register(self._popen.stdout, select.POLLIN)
            if not waiter.poll(max(0, end - time.monotonic()) * 1000):
                # An answer that comes after all must not be taken for the next order's.
                self._lost = self._explain(f"no answer within {LIMIT_S} s")
                raise Broken(self._lost)
            more = os.read(self._popen.stdout.fileno(), 65536)
            if not more:
                status = self._popen.wait(LIMIT_S)
                if status == CANNOT_RUN:
                    raise CannotRun(_tail(self.stderr_path))
                raise Broken(self._explain(f"ended with status {status}"))
            self._buffer += more
        text, _, self._buffer = self._buffer.partition(b"\n")
        answer = schema.line(text.decode(), "wire_line")
        if answer["event"] == "error":
            raise Broken(f"wire: {answer['message']}")
        return answer

    def order(self, text):
        """Gives one order and returns the wire's answer, a dict."""
        if self._lost:
            raise Broken(self._lost)
        try:
            self._popen.stdin.write(text.encode() + b"\n")
        except BrokenPipeError:
            pass
        return self._answer()

    def new_run(self, seed=None):
        """Begins a new run: the fates start over. Returns its number."""
        self.run = self.order("run" if seed is None else f"run {seed}")["run"]
        return self.run

    def link(self, spec):
        """Changes both ways of the link."""
        answer = self.order(f"link {spec}".rstrip())
        self.specs = (answer["up"], answer["down"])

    def up(self, spec):
        """Changes the way from client to server."""
        answer = self.order(f"up {spec}".rstrip())
        self.specs = (answer["up"], answer["down"])

    def down(self, spec):
        """Changes the way from server to client."""
        answer = self.order(f"down {spec}".rstrip())
        self.specs = (answer["up"], answer["down"])

    def drain(self):
        """Returns when no packet is on the wire or waiting at either end of it."""
        return self.order("drain")

    def counters(self):
        """The wire's own counters of this run; its log is on the disk afterwards."""
        answer = self.order("counters")
        if not answer["files_complete"]:
            raise Broken(self._explain("its log or capture is not complete: is the disk full?"))
        return answer

    def log(self, run=None):
        """The wire's log rows of a run (the present one unless told), as they entered."""
        run = self.run if run is None else run
        self.counters()
        rows = [row for row in records.read(self.log_path) if row.run == run]
        return records.as_entered(rows)

    def start(self, host, program, *args, label=None, json_lines=True):
        """Starts one of our programs (with -J) or any other (json_lines=False) on a host."""
        label = label or f"{self.name}-{len(self.programs)}-{Path(program).name}"
        argv = [tree.program(program), *(str(arg) for arg in args)]
        if json_lines:
            argv.append("-J")
        part = "program_line" if json_lines else None
        started = Program(self, host, argv, self.folder, label, part)
        self.programs.append(started)
        return started

    def output(self, host, *argv):
        """Runs a program to its end on a host; what it wrote on stdout."""
        done = self.start(host, argv[0], *argv[1:], json_lines=False).expect(0)
        return "\n".join(done.text)

    def proc(self, host, name):
        """The text of /proc/net/NAME as a host sees it."""
        return Path(f"/proc/{self.pids[host]}/net/{name}").read_text()

    def kernel(self, host):
        """Every counter of a host's kernel, as {name: number}."""
        found = {}
        for name in counters.FILES:
            try:
                found.update(counters.parse(name, self.proc(host, name)))
            except FileNotFoundError:
                continue
        return found

    def until_window(self, host, segments, program):
        """Returns when a TCP connection of the host has a congestion window of so many segments."""
        end = time.monotonic() + LIMIT_S
        while True:
            lines = [line.split() for line in self.proc(host, "tcp").splitlines()[1:]]
            # The last but one column of a line that is not cut short is the window.
            if any(int(words[-2]) >= segments for words in lines if words[3] == "01"):
                return
            if time.monotonic() > end or program.poll():
                raise TooLong(self._explain(f"the window never came to {segments} segments"))
            self._moment()

    def until_closed(self):
        """Returns when no TCP connection is left but in TIME_WAIT: then no kernel retransmits."""
        end = time.monotonic() + LIMIT_S
        while any(self._open_connections(host) for host in self.pids):
            if time.monotonic() > end:
                raise TooLong(self._explain(f"a TCP connection is open after {LIMIT_S} s"))
            self._moment()

    def _open_connections(self, host):
        """How many sockets of a host neither listen (0A) nor stand in TIME_WAIT (06)."""
        states = []
        for name in ("tcp", "tcp6"):
            try:
                lines = self.proc(host, name).splitlines()[1:]
            except FileNotFoundError:
                continue
            states += [line.split()[3] for line in lines]
        return sum(state not in ("0A", "06") for state in states)

    def _moment(self):
        """Lets 2 ms pass, or less when the wire dies: for what only looking again can tell."""
        waiter = select.poll()
        waiter.register(self._popen.stdout, select.POLLHUP)
        if any(event & select.POLLHUP for _, event in waiter.poll(2)):
            raise Broken(self._explain("ended all by itself"))

    def setting(self, host, name, value=None):
        """Reads, or sets, a sysctl below /proc/sys/net of a host."""
        path = f"/proc/sys/net/{name}"
        if value is None:
            return self.output(host, "cat", path).strip()
        return self.output(host, "sh", "-c", f"echo {value} >{path}")
