"""The account a second time, slow and obvious, to check the C one (common/tally.c) against.

Each figure is worked out from its definition, by looking at every pair of messages if that is how
the definition reads. Nothing here is fast and nothing is shared with the C.
"""

import itertools
import math
from fractions import Fraction

N_MAX = 100  # n-reordering is counted for n from 1 to this
HIGHEST = 2**27  # numbers from here on are alien when the count is not told


class Arrival:
    def __init__(self, seq, sent, received, due=None, size=None):
        self.seq, self.sent, self.received = seq, sent, received
        self.due, self.size = due, size

    def delay(self):
        return self.received - self.sent


class Flow:
    """What was seen of one flow, with its copies sorted into first, duplicate, late and alien."""

    def __init__(self, arrivals, expected=None, wait=None, two_clocks=False):
        self.expected, self.wait, self.two_clocks = expected, wait, two_clocks
        self.first, self.duplicates, self.late, self.alien = [], [], [], []
        for a in arrivals:
            if not 0 <= a.seq < (HIGHEST if expected is None else expected):
                self.alien.append(a)
            elif wait is not None and not two_clocks and a.delay() > wait:
                self.late.append(a)
            elif a.seq in [b.seq for b in self.first]:
                self.duplicates.append(a)
            else:
                self.first.append(a)


# RFC 4737


def is_reordered(s, i):
    """3.3: its number is below NextExp, which is one more than the highest that came before."""
    next_exp = max([earlier + 1 for earlier in s[:i]], default=0)
    return s[i] < next_exp


def extent(s, i):
    """4.2.2: i - j, with the smallest j before i that has s[j] > s[i]."""
    for j in range(i):
        if s[j] > s[i]:
            return i - j
    raise AssertionError("not reordered")


def is_n_reordered(s, i, n):
    """5.3: each of the n messages right before it has a greater number."""
    return i - n >= 0 and all(s[j] > s[i] for j in range(i - n, i))


def order_of(flow):
    s = [a.seq for a in flow.first]
    extents, late_times, offsets, discontinuities, runs = [], [], [], set(), []
    run = 0
    for i, a in enumerate(flow.first):
        if not is_reordered(s, i):
            run += 1
            continue
        e = extent(s, i)
        extents.append(e)
        late_times.append(a.received - flow.first[i - e].received)
        since = range(i - e, i)
        held = [flow.first[j].size for j in since if s[j] > s[i]]
        offsets.append(None if None in held else sum(held))
        discontinuities.add(i - e)
        runs.append(run)
        run = 0
    places = sorted(discontinuities)
    gaps = [places[k] - places[k - 1] for k in range(1, len(places))]
    n_reordered = []
    for n in range(1, min(N_MAX, len(s)) + 1):
        n_reordered.append(sum(is_n_reordered(s, i, n) for i in range(len(s))))
    return extents, late_times, offsets, gaps, runs, n_reordered


# RFC 5236


def displacements(flow, dt):
    """Receive index minus number for each arrival, leaving out the lost and what moved over DT."""
    waiting = [a.seq for a in flow.first]
    early, given_up, found = set(), set(), []
    index = 0
    while waiting:
        window = waiting[: dt + 1]
        m = window[0]
        waiting = waiting[1:]
        if m in given_up:
            continue
        while index not in window and index not in early or index in given_up:
            given_up.add(index)
            index += 1
        d = index - m
        if abs(d) > dt:
            given_up.add(m)
            continue
        found.append(d)
        early.add(m)
        index += 1
    return found


# Loss and delay


def burst_lengths(flow):
    came = [a.seq for a in flow.first]
    fates = [seq in came for seq in range(flow.expected)]
    return [len(list(group)) for arrived, group in itertools.groupby(fates) if not arrived]


def percentile(samples, lost, percent):
    """Nearest rank: the smallest value that `percent` of all are not above; lost: infinity."""
    everyone = sorted(samples) + [math.inf] * lost
    if not everyone:
        return None
    rank = math.ceil(Fraction(percent) * len(everyone) / 100)
    value = everyone[rank - 1]
    return None if value == math.inf else value


def mean(values):
    return float(Fraction(sum(values), len(values))) if values else None


def spread(values, counted=False):
    known = None not in values
    out = {"mean": mean(values) if known else None}
    out["max"] = max(values) if values and known else None
    if counted:
        out["count"] = len(values)
    return out


def delay_figures(samples, lost, received, two_clocks):
    out = dict.fromkeys(["min", "mean", "p50", "p90", "p99", "p99_9", "max", "reason"])
    out.update(samples=0, censored=bool(lost))
    if received == 0:
        out["reason"] = "no message arrived"
    elif two_clocks:
        out["reason"] = "two clocks"
    elif None in samples:
        out["reason"] = "when it was due"
    elif min(samples) < 0:
        out["reason"] = "received before it was sent"
    else:
        if lost is None:
            out["reason"] = "count was not told"
        out.update(samples=len(samples), min=min(samples), mean=mean(samples))
        for name, percent in [("p50", "50"), ("p90", "90"), ("p99", "99"), ("p99_9", "99.9")]:
            out[name] = percentile(samples, lost or 0, percent)
        out["max"] = percentile(samples, lost or 0, "100")
    return out


def rfc3550_jitter(flow):
    j = 0.0
    for before, a in zip(flow.first, flow.first[1:]):
        d = (a.received - before.received) - (a.sent - before.sent)
        j = j + (abs(d) - j) / 16
    return j if len(flow.first) > 1 else None


def ipdv(flow):
    delay = {a.seq: a.delay() for a in flow.first}
    return [delay[seq + 1] - delay[seq] for seq in sorted(delay) if seq + 1 in delay]


def jitter_figures(flows, lost):
    differences = [d for flow in flows for d in ipdv(flow)]
    out = {"rfc3550": None, "ipdv": None, "pdv": None}
    if differences:
        out["ipdv"] = {
            "min": min(differences),
            "mean": mean(differences),
            "max": max(differences),
            "mean_abs": mean([abs(d) for d in differences]),
        }
    if len(flows) == 1 and flows[0].first:
        out["rfc3550"] = rfc3550_jitter(flows[0])
        delays = [a.delay() for a in flows[0].first]
        above = [d - min(delays) for d in delays]
        out["pdv"] = {"mean": mean(above)}
        for name, percent in [("p50", "50"), ("p99", "99"), ("max", "100")]:
            out["pdv"][name] = percentile(above, lost or 0, percent)
    return out


def account(flows, threshold=8):
    """The account of one flow, or of several in sum, in the shape of the program's JSON."""
    received = sum(len(f.first) for f in flows)
    told = all(f.expected is not None for f in flows)
    expected = sum(f.expected for f in flows) if told else None
    lost = expected - received if told else None
    copies = sum(len(f.duplicates) for f in flows)
    replicated = sum(len({a.seq for a in f.duplicates}) for f in flows)
    two_clocks = any(f.two_clocks for f in flows)
    orders = [order_of(f) for f in flows]
    extents, late_times, offsets, gaps, runs = (
        [value for order in orders for value in order[k]] for k in range(5)
    )
    n_reordered = [
        {"n": n, "count": count}
        for n in range(1, N_MAX + 1)
        for count in [sum(order[5][n - 1] for order in orders if n <= len(order[5]))]
        if count
    ]
    if any(a.size is None for f in flows for a in f.first):
        offsets = [None]
    moved = [d for f in flows for d in displacements(f, threshold)]
    bursts = [length for f in flows for length in burst_lengths(f)] if told else []
    return {
        "expected": expected,
        "received": received,
        "lost": lost,
        "duplicates": copies,
        "reordered": len(extents),
        "late": sum(len(f.late) for f in flows),
        "waiting_time_ns": flows[0].wait,
        "loss_ratio": lost / expected if expected else None,
        "duplicate_fraction": (received + copies) / received - 1 if received else None,
        "replicated_rate": replicated / received if received else None,
        "order": {
            "reordered_ratio": len(extents) / received if received else None,
            "extent": spread(extents),
            "late_time_ns": spread(late_times),
            "byte_offset": spread(offsets),
            "gaps": spread(gaps, counted=True),
            "free_runs": spread(runs, counted=True),
            "n_reordered": n_reordered,
            "density": {
                "threshold": threshold,
                "values": [
                    {"displacement": d, "fraction": moved.count(d) / len(moved)}
                    for d in sorted(set(moved))
                ],
            },
        },
        "bursts": {
            "count": len(bursts) if told else None,
            "mean": mean(bursts),
            "max": max(bursts, default=None),
            "lengths": (
                [{"length": k, "count": bursts.count(k)} for k in sorted(set(bursts))]
                if told
                else None
            ),
        },
        "delay_from_due_ns": delay_figures(
            [None if a.due is None else a.received - a.due for f in flows for a in f.first],
            lost,
            received,
            two_clocks,
        ),
        "delay_from_sent_ns": delay_figures(
            [a.delay() for f in flows for a in f.first], lost, received, two_clocks
        ),
        "jitter_ns": jitter_figures(flows, lost),
    }


def differences(got, wanted, where="account"):
    """Where two accounts differ, as lines; integers exactly, quotients to 12 digits."""
    if isinstance(wanted, dict):
        if not isinstance(got, dict) or set(got) != set(wanted):
            return [f"{where}: {got!r}, not {wanted!r}"]
        return [
            line for key in wanted for line in differences(got[key], wanted[key], f"{where}.{key}")
        ]
    if isinstance(wanted, list):
        if not isinstance(got, list) or len(got) != len(wanted):
            return [f"{where}: {got!r}, not {wanted!r}"]
        return [
            line
            for k, pair in enumerate(zip(got, wanted))
            for line in differences(*pair, f"{where}[{k}]")
        ]
    if where.endswith(".reason"):
        same = (got is None) == (wanted is None) and (wanted is None or wanted in got)
    elif isinstance(wanted, float) and got is not None:
        same = math.isclose(got, wanted, rel_tol=1e-12, abs_tol=1e-9)
    else:
        same = got == wanted and (got is None) == (wanted is None)
    return [] if same else [f"{where}: {got!r}, not {wanted!r}"]
