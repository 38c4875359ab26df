"""A run as a ladder: two hosts as lines, each packet an arrow between them at its real times.

What it draws is on the record: packets from the wire's log, socket states as `tcp-states` sampled
them in each host's kernel, calls as calls.so saw them made and return. It adds one thing: a state
that changed between two samples is put beside the packet between them that explains it, if there is
one; its title tells both samples. The axis is the clock, but for this: where much happens at once
it is stretched until it can be read, and where nothing happens it is cut short and marked.

`build` gathers, `text` draws for the terminal (at most 100 columns), `svg` for the page.
"""

import errno
from collections import namedtuple
from dataclasses import dataclass, field
from html import escape

from harness.svg import STYLE, number

SIDES = ("client", "server")
OTHER = {"client": "server", "server": "client"}

Call = namedtuple(
    "Call", "call pid tid fd called_ns returned_ns result error address detail", defaults=("", "")
)

# Why a packet never arrived, by the wire's word for it.
FATES = {
    "lost": "lost by chance",
    "dropped": "dropped, as told",
    "blocked": "stopped by a firewall",
    "queue": "no room in the queue",
}

_FLAGS = (("S", "SYN"), ("F", "FIN"), ("R", "RST"), ("P", "PSH"), ("A", "ACK"))
_SPEAKING = {"send", "sendto", "sendmsg", "write", "writev"}
HEARING = {"recv", "recvfrom", "recvmsg", "read", "readv"}
_SHOWN = {"connect", "accept", "listen", "shutdown", "close"} | _SPEAKING | HEARING
_IN_VAIN = {errno.EAGAIN, errno.EINTR}


def read_calls(path):
    """The lines that calls.so wrote to a file, as Calls in the order in which they were made."""
    calls = []
    try:
        with open(path) as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        fields = line.split(",")
        if len(fields) != len(Call._fields):
            continue
        calls.append(Call(fields[0], *(int(each) for each in fields[1:8]), *fields[8:]))
    return sorted(calls, key=lambda call: call.called_ns)


def port_of(address):
    """The port of `10.0.0.1:47352` or `[fd00::1]:47352`; None where there is none."""
    _, colon, port = address.rpartition(":")
    return int(port) if colon and port.isdigit() and not address.endswith("]") else None


def without_waiting(calls):
    """The calls with each wait made one: EAGAIN and EINTR belong to the call that follows them.

    A program that looks for a signal now and then makes the same call again and again; for it and
    for us that is one call, which was made at the first and returned at the last.
    """
    waiting, found = {}, []
    for call in calls:
        key = (call.call, call.tid, call.fd)
        since = waiting.pop(key, call.called_ns)
        if call.result < 0 and call.error in _IN_VAIN:
            waiting[key] = since
            continue
        found.append(call._replace(called_ns=since))
    return sorted(found, key=lambda call: call.called_ns)


def of_connection(calls, client_port):
    """The calls on one connection's sockets, known by its client's port, on either side."""
    mine, found = set(), []
    for call in sorted(calls, key=lambda call: call.returned_ns):
        if call.call == "accept" and call.result >= 0 and port_of(call.address) == client_port:
            mine.add((call.pid, call.result))
            found.append(call)
        elif call.call == "connect" and port_of(call.detail) == client_port:
            mine.add((call.pid, call.fd))
            found.append(call)
        elif (call.pid, call.fd) in mine:
            found.append(call)
            if call.call == "close":
                mine.discard((call.pid, call.fd))
    return sorted(found, key=lambda call: call.called_ns)


def of_sockets(calls):
    """The calls of a program with one socket, such as a UDP or raw one: all of them."""
    return [call for call in calls if call.call in _SHOWN]


@dataclass
class Packet:
    """One packet: `side` sent it; `arrived_ns` is None when it never did."""

    side: str
    left_ns: int
    arrived_ns: int
    flags: str
    length: int
    seq: int = None
    ack: int = None
    relative_seq: int = None
    relative_ack: int = None
    fate: str = "delivered"
    name: str = ""
    copies: int = 0
    window: int = None  # bytes; said only if it is the point
    row: object = None

    @property
    def head(self):
        """`SYN-ACK, 0 bytes`."""
        again = " (twice)" if self.copies else ""
        if self.length is None:
            return self.name + again
        window = "" if self.window is None else f", window {self.window}"
        return f"{self.name}, {self.length} byte{'' if self.length == 1 else 's'}{window}{again}"

    @property
    def numbers(self):
        """`seq 0 (2736457821) ack 1 (3127451234)`: relative, and as they are on the wire."""
        parts = []
        for word, relative, absolute in (
            ("seq", self.relative_seq, self.seq),
            ("ack", self.relative_ack, self.ack),
        ):
            if absolute is not None:
                parts.append(f"{word} {'?' if relative is None else relative} ({absolute})")
        return " ".join(parts)

    @property
    def reason(self):
        """Why it never arrived; empty if it did."""
        return FATES.get(self.fate, self.fate) if self.arrived_ns is None else ""


@dataclass
class State:
    """A socket's state, which began between two samples; `at_ns` is where it is drawn."""

    side: str
    name: str
    since_ns: int
    time_ns: int
    at_ns: int = None
    packet: Packet = None


@dataclass
class Ladder:
    """One connection, or one exchange, gathered from three records."""

    packets: list
    states: list = field(default_factory=list)
    calls: list = field(default_factory=list)  # (side, Call)
    ends: dict = field(default_factory=lambda: {"client": "client", "server": "server"})
    zero_ns: int = 0
    until_ns: int = None

    def of(self, side):
        """Names of the states on one side, in order."""
        return [state.name for state in self.states if state.side == side]

    def ms(self, ns):
        """A time as milliseconds from the ladder's beginning."""
        return (ns - self.zero_ns) / 1e6


def _flags_name(flags):
    names = [name for letter, name in _FLAGS if letter in flags and letter != "P"]
    return "-".join(names) or "no flags"


def packets(rows):
    """The wire's rows as Packets, in order; sequence numbers count from each side's SYN."""
    start, found = {}, []
    for row in rows:
        side = "client" if row.direction == "up" else "server"
        arrived = row.out_ns if row.fate == "delivered" else None
        packet = Packet(side, row.in_ns, arrived, row.tcp_flags or "", row.payload)
        packet.fate, packet.copies, packet.row = row.fate, row.copies or 0, row
        if row.class_ == "tcp":
            key = (row.sport, row.dport)
            if "S" in row.tcp_flags or key not in start:
                start[key] = row.tcp_seq
            packet.name = _flags_name(row.tcp_flags)
            packet.seq = row.tcp_seq
            packet.relative_seq = (row.tcp_seq - start[key]) & 0xFFFFFFFF
            if "A" in row.tcp_flags:
                packet.ack = row.tcp_ack
                base = start.get((row.dport, row.sport))
                if base is not None:
                    packet.relative_ack = (row.tcp_ack - base) & 0xFFFFFFFF
        else:
            packet.name = row.class_.upper() + (f" {row.kind} {row.seq}" if row.kind else "")
        found.append(packet)
    return sorted(found, key=lambda packet: packet.left_ns)


# A packet that leaves is seen when the wire takes it in; when the machine is busy that is later.
LATE_NS = 5_000_000


def _explains(state, side, packet):
    """(ns, packet) if the packet, leaving or arriving on this side, brings the state about."""
    leaves = packet.side == side
    ns = packet.left_ns if leaves else packet.arrived_ns
    if ns is None:
        return None
    flags = packet.flags
    if state in ("SYN_SENT", "FIN_WAIT_1", "LAST_ACK"):
        good = leaves and ("S" if state == "SYN_SENT" else "F") in flags
    elif state == "SYN_RECV":
        good = not leaves and "S" in flags
    elif state in ("ESTABLISHED", "FIN_WAIT_2"):
        good = not leaves and "A" in flags
    elif state in ("CLOSE_WAIT", "CLOSING", "TIME_WAIT"):
        good = not leaves and "F" in flags
    elif state == "CLOSED":
        good = "R" in flags or (not leaves and "A" in flags)
    else:
        good = False
    return (ns, packet) if good else None


def _place(state, found):
    """Puts a state beside the packet that explains it, if one lies between its two samples."""
    since = state.since_ns if state.since_ns is not None else state.time_ns
    causes = [_explains(state.name, state.side, packet) for packet in found]
    causes = [
        (ns, packet)
        for ns, packet in filter(None, causes)
        if since <= ns <= state.time_ns + (LATE_NS if packet.side == state.side else 0)
    ]
    state.at_ns = state.time_ns
    if causes:
        pick = max if state.name == "CLOSED" else min
        state.at_ns, state.packet = pick(causes, key=lambda each: each[0])


def _changes(side, lines, client_port, server_port):
    """The states of one connection on one side: the lines in which the state itself is new."""
    own, other = (client_port, server_port) if side == "client" else (server_port, client_port)
    found = []
    for line in lines:
        here, there = port_of(line["local"]), port_of(line["remote"])
        if (here, there) != (own, other) or line["before"] == line["state"]:
            continue
        found.append(State(side, line["state"], line["since_ns"], line["time_ns"]))
    return found


def build(
    rows,
    states=None,
    calls=None,
    client_port=None,
    server_port=None,
    since_ns=None,
    until_ns=None,
):
    """Gathers one connection, or with client_port None everything, into a Ladder.

    `rows` are the wire's, `states` and `calls` are {side: list}, as `tcp-states` tells them and as
    read_calls returns them. Without client_port, calls are taken as they are, and states not. What
    ended before since_ns, or begins behind until_ns, is left out.
    """
    if client_port is None:
        chosen = list(rows)
    else:
        both = {client_port, server_port}
        chosen = [row for row in rows if {row.sport, row.dport} == both]
    ladder = Ladder(packets(chosen))
    for side in SIDES:
        some = without_waiting((calls or {}).get(side, []))
        if client_port is not None:
            some = of_connection(some, client_port)
            changes = _changes(side, (states or {}).get(side, []), client_port, server_port)
            for state in changes:
                _place(state, ladder.packets)
            ladder.states += changes
        some = [call for call in some if call.call in _SHOWN]
        ladder.calls += [(side, call) for call in some]
    if client_port is not None:
        ladder.ends = {
            "client": f"client, port {client_port}",
            "server": f"server, port {server_port}",
        }
    moments = [packet.left_ns for packet in ladder.packets]
    moments += [call.called_ns for side, call in ladder.calls if side == "client"]
    ladder.zero_ns = min(moments, default=0)
    if since_ns is not None:
        _cut_before(ladder, since_ns)
    if until_ns is not None:
        _cut_behind(ladder, until_ns)
    return ladder


def _cut_before(ladder, since_ns):
    """Leaves out what was over at since_ns; a state that then held is drawn from there on."""
    ladder.zero_ns = since_ns
    ladder.packets = [each for each in ladder.packets if each.left_ns >= since_ns]
    ladder.calls = [each for each in ladder.calls if each[1].returned_ns >= since_ns]
    for side in SIDES:
        early = [each for each in ladder.states if each.side == side and each.at_ns < since_ns]
        ladder.states = [each for each in ladder.states if each not in early[:-1]]


def _cut_behind(ladder, until_ns):
    """Leaves out what begins behind until_ns; what was on its way then still arrives."""
    ladder.until_ns = until_ns
    ladder.packets = [each for each in ladder.packets if each.left_ns <= until_ns]
    end_ns = max([until_ns, *(each.arrived_ns or 0 for each in ladder.packets)])
    ladder.states = [each for each in ladder.states if each.at_ns <= end_ns]
    ladder.calls = [each for each in ladder.calls if each[1].called_ns <= until_ns]


# What is drawn, as a list of marks in order of time. Both drawings share it.

Mark = namedtuple("Mark", "ns side kind what label")


def _result(call):
    if call.result < 0:
        return errno.errorcode.get(call.error, f"error {call.error}")
    if call.call == "accept":
        return "a socket"
    if call.result == 0 and call.call in HEARING:
        return "0 (end)"
    return str(call.result)


def _unit(ladder):
    """What counts as a long time here: a packet's usual way, in ns."""
    ways = sorted(p.arrived_ns - p.left_ns for p in ladder.packets if p.arrived_ns is not None)
    if ways and ways[len(ways) // 2] > 0:
        return ways[len(ways) // 2]
    return 1_000_000


def marks(ladder):
    """Everything that gets a place on the axis, in order of time."""
    found, unit = [], _unit(ladder)
    for packet in ladder.packets:
        found.append(Mark(packet.left_ns, packet.side, "leave", packet, ""))
        if packet.arrived_ns is not None:
            found.append(Mark(packet.arrived_ns, OTHER[packet.side], "arrive", packet, ""))
    end = float("inf")
    if ladder.until_ns is not None:
        # A call that returns with what arrives last still belongs to it.
        end = max([ladder.until_ns, *(mark.ns for mark in found)]) + unit / 8
    for side, call in ladder.calls:
        start = max(call.called_ns, ladder.zero_ns)
        between = any(
            mark.side == side and call.called_ns < mark.ns < call.returned_ns
            for mark in found
            if mark.kind == "arrive"
        )
        if between or call.returned_ns - start > unit / 8:
            # A call that was made before the ladder begins was waiting all the time.
            label = f"{call.call}() " + ("called" if call.called_ns == start else "waits")
            found.append(Mark(start, side, "call", call, label))
            label = f"{call.call}() = {_result(call)}"
            if call.returned_ns <= end:
                found.append(Mark(call.returned_ns, side, "return", call, label))
        else:
            label = f"{call.call}() = {_result(call)}"
            if call.call in ("close", "shutdown") and not call.result:
                label = f"{call.call}()"
            found.append(Mark(start, side, "both", call, label))
    for state in ladder.states:
        at = max(state.at_ns, ladder.zero_ns)
        found.append(Mark(at, state.side, "state", state, state.name))
    # At the same moment: what arrives comes before what it brings about.
    rank = {"arrive": 0, "call": 1, "both": 1, "leave": 2, "state": 3, "return": 4}
    return sorted(found, key=lambda mark: (mark.ns, rank[mark.kind]))


def sentences(ladder):
    """The ladder in words, for who cannot see it."""
    said = []
    for mark in marks(ladder):
        at = f"{ladder.ms(mark.ns):.3f} ms: "
        if mark.kind == "leave":
            end = f", {mark.what.reason}" if mark.what.reason else ""
            said.append(f"{at}{mark.side} sends {mark.what.head} {mark.what.numbers}{end}.")
        elif mark.kind == "arrive":
            said.append(f"{at}{mark.what.name} arrives at the {mark.side}.")
        elif mark.kind == "state":
            said.append(f"{at}the {mark.side}'s socket is {mark.label}.")
        else:
            said.append(f"{at}{mark.side}: {mark.label}.")
    return said


# Text.

WIDE = 46  # columns between the two lines
GUTTER = 20
CUT = 1.6  # of a packet's usual way: a longer time in which nothing happens is cut short

_NORTH, _EAST, _SOUTH, _WEST = 1, 2, 4, 8
_CORNERS = {
    _EAST | _WEST: "─",
    _NORTH | _SOUTH: "│",
    _SOUTH | _WEST: "╮",
    _NORTH | _EAST: "╰",
    _SOUTH | _EAST: "╭",
    _NORTH | _WEST: "╯",
    _EAST: "─",
    _WEST: "─",
    _NORTH: "│",
    _SOUTH: "│",
}
_PLAIN = str.maketrans("─│╮╰╭╯┼├┤▶◀✗⋮", "-|.`.'+++><X:")


class _Canvas:
    """The field between the two lines: lines first, and then what is written over them."""

    def __init__(self, rows):
        self.bits = [[0] * WIDE for _ in range(rows)]
        self.over = [[None] * WIDE for _ in range(rows)]

    def across(self, row, start, end):
        """A line within a row, both ends included."""
        for column in range(min(start, end), max(start, end) + 1):
            self.bits[row][column] |= (_WEST if column > min(start, end) else 0) | (
                _EAST if column < max(start, end) else 0
            )

    def down(self, row, column):
        """A step from this row to the next."""
        self.bits[row][column] |= _SOUTH
        self.bits[row + 1][column] |= _NORTH

    def write(self, row, column, text):
        """Letters on top."""
        for n, letter in enumerate(text):
            if 0 <= column + n < WIDE:
                self.over[row][column + n] = letter

    def row(self, row):
        """One row as text."""
        return "".join(
            over or (_CORNERS.get(bits, "┼") if bits else " ")
            for over, bits in zip(self.over[row], self.bits[row])
        )


def _rows_of(ladder):
    """{id of a mark: row}, the marks, {row: its time}, the cuts {row: ns left out}, rows."""
    places, times, cuts = {}, {}, {}
    unit, row, last, busy_until = _unit(ladder), -1, None, -1
    all_marks, before = marks(ladder), None
    for mark in all_marks:
        if mark.kind == "state" and before is not None and mark.what.packet is before.what:
            # On its packet's own row: there is nothing else in that gutter.
            places[id(mark)] = row
            continue
        if last is not None:
            gap = mark.ns - last
            if gap > CUT * unit:
                cuts[row + 2] = gap
                row += 3
            elif gap > unit / 8:
                row += min(3, round(3 * gap / unit))
        row += 1
        if mark.kind == "leave":
            row = max(row, busy_until + 1)
            busy_until = row + (2 if mark.what.arrived_ns is None else 1)
        places[id(mark)] = row
        times[row] = mark.ns
        last, before = mark.ns, mark
    return places, all_marks, times, cuts, max(row, busy_until) + 1


def _draw(canvas, packet, start, end):
    """One packet from its row to its last."""
    lost = packet.arrived_ns is None
    written = max(len(packet.head), len(packet.numbers)) + 3
    bend = min(written + 1, WIDE - 6)
    tip = min(bend + 4, WIDE - 2) if lost else WIDE - 1
    right = packet.side == "client"

    def at(column):
        return column if right else WIDE - 1 - column

    steps = end - start
    columns = [bend + (tip - 1 - bend) * n // max(1, steps - 1) for n in range(steps)]
    canvas.across(start, at(0), at(columns[0]))
    canvas.bits[start][at(0)] |= _WEST if right else _EAST
    for n, column in enumerate(columns):
        canvas.down(start + n, at(column))
        after = columns[n + 1] if n + 1 < steps else tip
        canvas.across(start + n + 1, at(column), at(after))
    canvas.write(end, at(tip), "✗" if lost else ("▶" if right else "◀"))

    def put(row, text):
        text = text[: WIDE - 4]
        canvas.write(row, 2 if right else WIDE - 2 - len(text), text)

    put(start, f" {packet.head} ")
    if packet.numbers:
        put(start + 1, f" {packet.numbers} ")
    if lost:
        put(start + 2, f" {packet.reason} ")


def _fitting(label):
    """What of a label has room beside a line: what a call returned rather than its name."""
    _, equals, value = label.partition(" = ")
    return (f"= {value}" if equals and len(label) > GUTTER else label)[:GUTTER]


def text(ladder, utf8=True):
    """The ladder for a terminal: lines of at most 100 columns. Without utf8 it is plain ASCII."""
    places, all_marks, times, cuts, count = _rows_of(ladder)
    canvas = _Canvas(count)
    gutters = {side: [""] * count for side in SIDES}
    lines = {side: ["│"] * count for side in SIDES}
    arrivals = {id(mark.what): places[id(mark)] for mark in all_marks if mark.kind == "arrive"}
    for mark in all_marks:
        row = places[id(mark)]
        if mark.kind == "leave":
            end = arrivals.get(id(mark.what), row + 2)
            _draw(canvas, mark.what, row, max(end, row + 1))
            lines[mark.side][row] = "├" if mark.side == "client" else "┤"
        elif mark.kind != "arrive":
            gutters[mark.side][row] = _fitting(mark.label)
    head = f"{'ms':>9} {ladder.ends['client']:>{GUTTER}} │{'':{WIDE}}│ {ladder.ends['server']}"
    shown = [head]
    for row in range(count):
        if row in cuts:
            when = f"⋮ {cuts[row] / 1e6:.0f}"
        else:
            when = f"{ladder.ms(times[row]):.3f}" if row in times else ""
        sides = ["⋮" if row in cuts else lines[side][row] for side in SIDES]
        shown.append(
            f"{when:>9} {gutters['client'][row]:>{GUTTER}} {sides[0]}{canvas.row(row)}{sides[1]} "
            f"{gutters['server'][row]}".rstrip()
        )
    drawn = "\n".join(shown)
    return drawn if utf8 else drawn.translate(_PLAIN)


# SVG.

WIDTH = 480
X = {"client": 146, "server": 352}
LETTER, TIMES = 5.8, 44  # widths: of a letter of a label, of the column of times
SCALE = 84  # for a packet's usual way
STEP_TEXT, STEP_PACKET, STEP_TURN = 14, 33, 12
LOST = 40  # how far down a lost packet gets, in the middle; as far again for its reason

LADDER_STYLE = """
.ladder text{font-size:10.5px}.ladder .mono{font-family:ui-monospace,Menlo,Consolas,monospace;
font-size:9.4px}
.ladder .small{font-size:8.8px}
.ladder .host{stroke:var(--soft);stroke-width:1}
.ladder .arrow{stroke:var(--ink);stroke-width:1.2;fill:none}
.ladder .head{fill:var(--ink);stroke:none}.ladder .data .arrow{stroke:var(--blue)}
.ladder .data .head{fill:var(--blue)}.ladder .gone .arrow{stroke:var(--red);stroke-dasharray:5 3}
.ladder .cross{stroke:var(--red);stroke-width:2;fill:none}.ladder .gone text{fill:var(--red)}
.ladder .state{font-weight:650}.ladder .open{fill:var(--amber)}.ladder .up{fill:var(--blue)}
.ladder .down{fill:var(--purple)}.ladder .rest{fill:var(--soft)}
.ladder .call{stroke:var(--green);stroke-width:2;fill:none}.ladder .cut{fill:var(--paper)}
.ladder .halo{paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round}
""".strip()

_BAND = {
    "SYN_SENT": "open",
    "SYN_RECV": "open",
    "ESTABLISHED": "up",
    "LISTEN": "rest",
    "BOUND": "rest",
    "TIME_WAIT": "rest",
}


def _heights(ladder, all_marks):
    """{id of a mark: y}, the cuts as a list of (y, ns left out), and the height of it all."""
    unit, y, last = _unit(ladder), 0.0, None
    places, cuts = {}, []
    text_y = {side: -99.0 for side in SIDES}
    left_y = {side: -99.0 for side in SIDES}
    came_y = {side: -99.0 for side in SIDES}
    lost_y = -99.0
    for mark in all_marks:
        gap = 0 if last is None else mark.ns - last
        if gap > CUT * unit:
            y = max(y, lost_y)
            cuts.append((y + SCALE * 0.3, gap))
            y += SCALE * 0.6
        else:
            y += SCALE * gap / unit
        side = mark.side
        if mark.kind == "leave":
            y = max(y, left_y[side] + STEP_PACKET, came_y[side] + STEP_TURN, lost_y)
            left_y[side] = y
            if mark.what.arrived_ns is None:
                lost_y = y + 2 * LOST + STEP_TURN
        elif mark.kind == "arrive":
            y = max(y, came_y[side] + STEP_PACKET)
            came_y[side] = y
        else:
            y = max(y, text_y[side] + STEP_TEXT)
            text_y[side] = y
        places[id(mark)] = y
        last = mark.ns
    return places, cuts, max(y, lost_y, *(value + STEP_PACKET for value in left_y.values()))


def _arrow(packet, y, end_y, ladder):
    """One packet as SVG."""
    right = packet.side == "client"
    lost = packet.arrived_ns is None
    start, goal = X[packet.side], X[OTHER[packet.side]]
    if lost:
        goal = (start + goal) / 2
    way = 1 if right else -1
    slope = (end_y - y) / abs(goal - start)
    title = f"{packet.head} {packet.numbers}, sent at {ladder.ms(packet.left_ns):.3f} ms"
    if lost:
        title += f", {packet.reason}"
    else:
        title += f", arrived at {ladder.ms(packet.arrived_ns):.3f} ms"
    kind = "gone" if lost else "data" if packet.length else "bare"
    out = [f'<g class="{kind}"><title>{escape(title)}</title>']
    out.append(
        f'<path class="arrow" d="M{number(start)} {number(y)}L{number(goal)} {number(end_y)}"/>'
    )
    if not lost:
        # The head points along the arrow.
        back, half = 8, 3.4
        bx, by = goal - way * back, end_y - slope * back
        out.append(
            f'<path class="head" d="M{number(goal)} {number(end_y)}'
            f"L{number(bx + slope * half * way)} "
            f'{number(by - half)}L{number(bx - slope * half * way)} {number(by + half)}Z"/>'
        )
    # Words along the arrow, from the sender's end: above it what it is, below it its numbers; a
    # lost packet's stay short of the cross, and behind that stands the reason.
    angle = max(-40.0, min(40.0, _degrees(slope))) * way
    anchor = "start" if right else "end"
    spot = f'transform="translate({number(start + way * 9)} {number(y + slope * 9)}) '
    spot += f'rotate({number(angle)})" text-anchor="{anchor}"'
    heads, lines = [packet.head], [packet.numbers]
    if lost:
        heads = packet.head.split(", ")[::-1] if len(packet.head) > 18 else heads
        lines = packet.numbers.replace(" ack", "\nack").split("\n")
    for n, words in enumerate(heads):
        out.append(f'<text class="halo" {spot} y="{number(-3.5 - 11 * n)}">{escape(words)}</text>')
    for n, words in enumerate(lines if packet.numbers else []):
        style, below = "mono small halo", number(9.5 + 9.5 * n)
        out.append(f'<text class="{style}" {spot} y="{below}">{escape(words)}</text>')
    if lost:
        x = number(way * (abs(goal - start) * (1 + slope**2) ** 0.5))
        out.append(f'<text class="small halo" {spot} x="{x}" y="3">{escape(packet.reason)}</text>')
        out.append(
            f'<path class="cross" d="M{number(goal - 5)} {number(end_y - 5)}l10 10'
            f'm0-10l-10 10"/>'
        )
    out.append("</g>")
    return "".join(out)


def _degrees(slope):
    import math

    return math.degrees(math.atan(slope))


def svg(ladder, name, title):
    """The ladder as an SVG document in the charts' style, 480 units wide or as its labels need."""
    all_marks = marks(ladder)
    places, cuts, height = _heights(ladder, all_marks)
    # The labels stand outside of the two lines, and the times outside of the labels.
    need = {side: 14 for side in SIDES}
    for each in all_marks:
        need[each.side] = max(need[each.side], 14 + LETTER * len(each.label))
    left = min(0, round(X["client"] - need["client"] - TIMES))
    width = max(WIDTH, round(X["server"] + need["server"] + 4)) - left
    top = 46
    y_of = {key: top + value for key, value in places.items()}
    foot = top + height + 24
    behind, front, labels = [], [], []
    for side in SIDES:
        behind.append(f'<path class="host" d="M{X[side]} {top - 8}V{number(foot)}"/>')
        anchor = "end" if side == "client" else "start"
        word = ladder.ends[side]
        x = X[side] + (12 if side == "client" else -12)
        front.append(
            f'<text class="name" x="{x}" y="{top - 14}" text-anchor="{anchor}">{word}</text>'
        )
    # States: bands along the lines, each until the next one begins.
    for side in SIDES:
        mine = [mark for mark in all_marks if mark.kind == "state" and mark.side == side]
        for n, mark in enumerate(mine):
            start = y_of[id(mark)]
            end = y_of[id(mine[n + 1])] if n + 1 < len(mine) else foot
            if mark.label != "CLOSED":
                state = mark.what
                known = "from the start" if state.since_ns is None else "sampled"
                words = f"{mark.label} on the {side}, {known} at {ladder.ms(state.time_ns):.3f} ms"
                if state.since_ns is not None:
                    words += f", not yet at {ladder.ms(state.since_ns):.3f} ms"
                behind.append(
                    f'<rect class="{_BAND.get(mark.label, "down")}" x="{X[side] - 3}" '
                    f'y="{number(start)}" width="6" height="{number(max(1, end - start))}">'
                    f"<title>{escape(words)}</title></rect>"
                )
    ticks = []
    arrivals = {id(mark.what): y_of[id(mark)] for mark in all_marks if mark.kind == "arrive"}
    returns = {id(mark.what): y_of[id(mark)] for mark in all_marks if mark.kind == "return"}
    for mark in all_marks:
        y, side = y_of[id(mark)], mark.side
        outward = -1 if side == "client" else 1
        if mark.kind == "leave":
            front.append(_arrow(mark.what, y, arrivals.get(id(mark.what), y + LOST), ladder))
        elif mark.kind != "arrive":
            anchor = "end" if side == "client" else "start"
            style = "state" if mark.kind == "state" else "mono"
            labels.append(
                f'<text class="{style} halo" x="{X[side] + outward * 14}" y="{number(y + 3.5)}" '
                f'text-anchor="{anchor}">{escape(mark.label)}</text>'
            )
        if mark.kind in ("call", "both"):
            call = mark.what
            end = returns.get(id(call), y)
            words = (
                f"{call.call}({call.address or call.detail}) = {_result(call)} on the {side}: "
                f"called at {ladder.ms(call.called_ns):.3f} ms, "
                f"returned at {ladder.ms(call.returned_ns):.3f} ms"
            )
            x = X[side] + outward * 8
            behind.append(
                f'<path class="call" d="M{x} {number(y - 2)}V{number(max(end, y + 2))}">'
                f"<title>{escape(words)}</title></path>"
            )
        if not ticks or y - ticks[-1][0] >= 13:
            ticks.append((y, f"{ladder.ms(mark.ns):.1f}"))
    for y, words in ticks:
        labels.append(f'<text class="soft" x="{left + 4}" y="{number(y + 3.5)}">{words}</text>')
    for y, gap in cuts:
        at = top + y
        for side in SIDES:
            front.append(
                f'<rect class="cut" x="{X[side] - 9}" y="{number(at - 4)}" width="18" height="8"/>'
                f'<path class="edge" d="M{X[side] - 7} {number(at - 2)}l14-4M{X[side] - 7} '
                f'{number(at + 6)}l14-4"/>'
            )
        labels.append(
            f'<text class="soft" x="{left + 4}" y="{number(at + 3.5)}">⋮ {gap / 1e6:.0f} ms</text>'
        )
    words = " ".join(sentences(ladder))
    height = foot + 10
    return (
        f'<svg class="chart ladder" xmlns="http://www.w3.org/2000/svg" viewBox="{left} 0 {width} '
        f'{number(height)}" width="{width}" height="{number(height)}" role="img" '
        f'aria-labelledby="{name}-title {name}-words">'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-words">{escape(words)}</desc>'
        f"<style>{STYLE}{LADDER_STYLE}</style>"
        f'<rect x="{left}" width="100%" height="100%" style="fill:var(--paper)"/>'
        f'<text class="soft" x="{left + 4}" y="{top - 14}">ms</text>'
        + "".join(behind + front + labels)
        + "</svg>\n"
    )
