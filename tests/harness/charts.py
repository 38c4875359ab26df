"""What the labs draw: arrival and delay of every message, all kinds of socket on one page."""

from harness import order, tcp
from harness.svg import Linear, Log, Panel, Path, Point, chart, nice

NAMES = {"tcp": "TCP", "udp": "UDP", "raw": "RAW"}


def listed(seqs, most=12):
    """Numbers for people: the first of them, and how many more there are."""
    seqs = sorted(seqs)
    shown = ", ".join(str(seq) for seq in seqs[:most])
    more = len(seqs) - most
    return (shown or "none") + (f" and {more} more" if more > 0 else "")


def milliseconds(ns):
    """A time for people."""
    return f"{nice(ns / 1e6)} ms"


def start_of(run):
    """When the run's first message was due, in ns: the zero of its charts."""
    return min((row.due_ns for row in run.sent_rows), default=0)


def _reordered(arrivals):
    """The rows of first copies that are reordered, flow by flow."""
    flows = {}
    for row in arrivals:
        if row.verdict == "first":
            flows.setdefault(row.flow, []).append(row)
    return [rows[n] for rows in flows.values() for n in order.reordered([row.seq for row in rows])]


def _arrival_panel(run, height):
    zero = start_of(run)
    late = {id(row) for row in _reordered(run.arrivals)}
    marks = []
    for row in run.arrivals:
        style = "first" if row.verdict == "first" else "duplicate"
        if id(row) in late:
            style = "reordered"
        words = {"first": "received", "duplicate": "a second copy", "reordered": "overtaken"}[style]
        marks.append(
            Point(
                (row.received_ns - zero) / 1e6,
                row.seq,
                style,
                f"{NAMES[run.kind]} message {row.seq}: {words}"
                f" {milliseconds(row.received_ns - zero)} after the start,"
                f" {milliseconds(row.received_ns - row.sent_ns)} after it was sent",
            )
        )
    missing = run.missing
    for row in run.sent_rows:
        if (row.flow, row.seq) in missing:
            marks.append(
                Point(
                    (row.sent_ns - zero) / 1e6,
                    row.seq,
                    "lost",
                    f"{NAMES[run.kind]} message {row.seq}: sent {milliseconds(row.sent_ns - zero)}"
                    " after the start, never received",
                )
            )
    if run.kind == "tcp":
        marks += _tcp_losses(run, zero)
    twice = sum(row.verdict == "duplicate" for row in run.arrivals)
    parts = [f"{len(run.received)} of {len(run.sent)} arrived"]
    if run.missing:
        parts.append(f"{len(run.missing)} lost")
    if twice:
        parts.append(f"{twice} extra copies")
    if late:
        parts.append(f"{len(late)} overtaken")
    return Panel(NAMES[run.kind], ", ".join(parts), marks, height)


def _tcp_losses(run, zero):
    """TCP's lost segments and those sent again: the program never sees them, the wire does."""
    again = {row.id for row in tcp.again(run)}
    marks = []
    for row in run.data_rows:
        for seq in tcp.messages(run, row):
            when = milliseconds(row.in_ns - zero)
            if row.fate != "delivered":
                style, what = "lost", f"{row.fate} on the wire"
            elif row.id in again:
                style, what = "again", "sent again"
            else:
                continue
            words = f"TCP segment with message {seq}: {what} {when} after the start"
            marks.append(Point((row.in_ns - zero) / 1e6, seq, style, words))
    return marks


def _legend(panels, always=("first",)):
    meaning = {
        "first": "received",
        "lost": "lost on the way",
        "duplicate": "a second copy",
        "reordered": "overtaken by a later one",
        "again": "sent again by the kernel",
        "held": "held up by one before it",
    }
    used = {mark.style for panel in panels for mark in panel.marks if isinstance(mark, Point)}
    return [(style, words) for style, words in meaning.items() if style in used or style in always]


def _words(runs):
    said = []
    for run in runs:
        text = f"{NAMES[run.kind]}: {len(run.received)} of {len(run.sent)} messages arrived"
        if run.missing:
            text += f"; lost: {listed({seq for _, seq in run.missing}, 40)}"
        late = _reordered(run.arrivals)
        if late:
            text += f"; overtaken: {listed({row.seq for row in late}, 40)}"
        twice = {row.seq for row in run.arrivals if row.verdict == "duplicate"}
        if twice:
            text += f"; twice: {listed(twice, 40)}"
        if run.kind == "tcp":
            text += f"; the kernel sent {len(tcp.again(run))} segments again"
        delays = sorted(run.delays().values())
        if delays:
            text += (
                f"; delay {milliseconds(delays[0])} to {milliseconds(delays[-1])},"
                f" half of them under {milliseconds(delays[(len(delays) - 1) // 2])}"
            )
        said.append(text + ".")
    return " ".join(said)


def _style(mended, held, reordered):
    if mended:
        return "again"
    if held:
        return "held"
    return "reordered" if reordered else "first"


def arrivals(runs, title="The arrival of every message", name="arrivals", height=128):
    """When each message came, and which never did; one panel for each run."""
    panels = [_arrival_panel(run, height) for run in runs]
    right = max((mark.x for panel in panels for mark in panel.marks), default=1)
    top = max((mark.y for panel in panels for mark in panel.marks), default=1)
    return chart(
        name,
        title,
        _words(runs),
        panels,
        Linear(0, right, "ms since the first message was due"),
        Linear(0, top, "message number", want=4),
        _legend(panels),
    )


def delays(
    runs, title="The delay of every message", name="delays", height=112, log=True, held=None
):
    """How long each message took, by its number, on one scale; the lost stand at the top.

    `held` says by kind which messages waited for one before them: {"tcp": {numbers}}.
    """
    held = held or {}
    every = [run.delays() for run in runs]
    values = [ns / 1e6 for each in every for ns in each.values()] or [1]
    low, high = min(values), max(values)
    y_axis = Log(low, high, "ms from sent to received") if log else None
    y_axis = y_axis or Linear(0, high * 1.1, "ms from sent to received", want=4)
    panels = []
    for run, each in zip(runs, every):
        mended = set()
        if run.kind == "tcp":
            again = {row.id for row in tcp.again(run)}
            firsts = [row for row in tcp.lost_data(run) if row.id not in again]
            mended = {seq for row in firsts for seq in tcp.messages(run, row)}
        late = {(row.flow, row.seq) for row in _reordered(run.arrivals)}
        marks = [
            Point(
                seq,
                ns / 1e6,
                _style(seq in mended, seq in held.get(run.kind, ()), (flow, seq) in late),
                f"{NAMES[run.kind]} message {seq}: {milliseconds(ns)}",
            )
            for (flow, seq), ns in each.items()
        ]
        marks += [
            Point(seq, y_axis.high, "lost", f"{NAMES[run.kind]} message {seq}: never received")
            for _, seq in run.missing
        ]
        note = "nothing arrived"
        if each:
            ranked = sorted(each.values())
            note = (
                f"median {milliseconds(ranked[(len(ranked) - 1) // 2])},"
                f" longest {milliseconds(ranked[-1])}"
            )
        panels.append(Panel(NAMES[run.kind], note, marks, height))
    right = max((mark.x for panel in panels for mark in panel.marks), default=1)
    return chart(
        name,
        title,
        _words(runs),
        panels,
        Linear(0, right, "message number"),
        y_axis,
        _legend(panels),
    )


def distribution(runs, title="How many messages arrived within", name="distribution", height=180):
    """The share of all messages sent that had arrived after so long; the lost never do."""
    values = [ns / 1e6 for run in runs for ns in run.delays().values()] or [1]
    x_axis = Log(min(values), max(values), "ms from sent to received")
    marks, legend = [], []
    for run in runs:
        ranked = sorted(run.delays().values())
        total = max(1, len(run.sent))
        spots, done = [(x_axis.low, 0)], 0
        # A step for each message, but not more of them than can be seen.
        every = max(1, len(ranked) // 400)
        for n, ns in enumerate(ranked, 1):
            if n % every and n != len(ranked):
                continue
            spots += [(ns / 1e6, 100 * done / total), (ns / 1e6, 100 * n / total)]
            done = n
        spots.append((x_axis.high, 100 * done / total))
        words = f"{NAMES[run.kind]}: {100 * done / total:.1f} % arrived at all"
        marks.append(Path(spots, run.kind, words))
        legend.append((run.kind, words))
    return chart(
        name,
        title,
        _words(runs),
        [Panel("TCP, UDP and RAW", "", marks, height)],
        x_axis,
        Linear(0, 100, "% of the messages sent", want=5),
        legend,
    )
