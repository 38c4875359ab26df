"""The wire's fates a second time: slow, obvious, and written from fate.h alone.

What common/wire/fate.c computes with machine words, and a state kept between packets, is computed
here with Python's unbounded integers, and each packet's state from the first packet on. The two
must agree to the bit.
"""

from fractions import Fraction

MASK = (1 << 64) - 1
GAMMA = 0x9E3779B97F4A7C15
DIRECTIONS = ("up", "down")
CLASSES = ("tcp", "udp", "icmp", "raw", "frag", "arp", "other")
KINDS = (
    "loss",
    "gemodel move",
    "gemodel loss",
    "duplicate",
    "corrupt",
    "corrupt bit",
    "reorder",
    "jitter",
)
NANOSECONDS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}


def mix(number):
    """SplitMix64's finaliser."""
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & MASK
    return number ^ (number >> 31)


def bits_of(key, *path):
    """d(d(d(key, a), b), ...): 64 bits."""
    for number in path:
        key = mix((key + (number + 1) * GAMMA) & MASK)
    return key


def share(word):
    """A percentage as the probability that it is nearest to."""
    return float(Fraction(word.rstrip("%")) / 100)


def time_ns(word):
    unit = word.lstrip("0123456789.")
    return int(Fraction(word[: -len(unit)]) * NANOSECONDS[unit])


def numbers(word):
    """ "3,5-7" as ranges."""
    for item in word.split(","):
        first, _, last = item.partition("-")
        yield range(int(first), int(last or first) + 1)


class Oracle:
    """The fates of one direction; of right specs only."""

    def __init__(self, spec, seed, direction):
        self.seed = seed
        self.direction = DIRECTIONS.index(direction)
        self.delay = self.jitter = self.gap = 0
        self.normal = False
        self.loss = self.duplicate = self.corrupt = self.reorder = 0.0
        self.gemodel = None
        self.drops = []
        self.blocked = []
        words = spec.split()
        while words:
            word = words.pop(0)
            if word == "delay":
                self.delay = time_ns(words.pop(0))
                if words and words[0][0].isdigit():
                    self.jitter = time_ns(words.pop(0))
                if words and words[0] == "distribution":
                    self.normal = words[1] == "normal"
                    del words[:2]
            elif word == "loss" and words[0] == "gemodel":
                words.pop(0)
                given = []
                while words and words[0][0].isdigit():
                    given.append(share(words.pop(0)))
                for missing in (1 - given[0], 1.0, 0.0)[len(given) - 1 : 3]:
                    given.append(missing)
                self.gemodel = given
            elif word in ("loss", "duplicate", "corrupt", "reorder"):
                setattr(self, word, share(words.pop(0)))
                if word == "reorder":
                    self.gap = 1
                    if words and words[0] == "gap":
                        self.gap = int(words[1])
                        del words[:2]
            elif word == "drop":
                of_class, _, which = words.pop(0).partition(":")
                self.drops += [(of_class, numbered) for numbered in numbers(which)]
            elif word in ("block", "reject"):
                self.blocked.append(words.pop(0))
            else:
                raise ValueError(word)

    def bits(self, kind, of_class, index):
        return bits_of(self.seed, self.direction, KINDS.index(kind), CLASSES.index(of_class), index)

    def draw(self, kind, of_class, index):
        return (self.bits(kind, of_class, index) >> 11) / 2**53

    def is_lost(self, of_class, index):
        if self.gemodel is None:
            return self.draw("loss", of_class, index) < self.loss
        to_bad, to_good, loss_in_bad, loss_in_good = self.gemodel
        bad = False
        for before in range(index):
            if self.draw("gemodel move", of_class, before) < (to_good if bad else to_bad):
                bad = not bad
        return self.draw("gemodel loss", of_class, index) < (loss_in_bad if bad else loss_in_good)

    def is_ahead(self, of_class, index):
        kept = 0
        for number in range(index + 1):
            ahead = (
                self.gap > 0
                and kept >= self.gap - 1
                and self.draw("reorder", of_class, number) < self.reorder
            )
            kept = 0 if ahead else kept + 1
        return ahead

    def delay_ns(self, of_class, index):
        if self.jitter == 0:
            return self.delay
        bits = self.bits("jitter", of_class, index)
        if self.normal:
            total = sum(
                (bits_of(bits, i) >> shift) & 0xFFFF for i in range(3) for shift in (0, 16, 32, 48)
            )
            offset = Fraction(self.jitter * (2 * total - 12 * 65535), 2 * 65536)
            return max(0, self.delay + int(offset))
        return max(0, self.delay - self.jitter + bits * (2 * self.jitter + 1) // 2**64)

    def fate(self, of_class, index):
        """(fate, copies, corrupted, sent ahead, delay_ns or None)"""
        if of_class in self.blocked:
            return ("blocked", 0, 0, 0, None)
        if any(of_class == name and index + 1 in numbered for name, numbered in self.drops):
            return ("dropped", 0, 0, 0, None)
        if self.is_lost(of_class, index):
            return ("lost", 0, 0, 0, None)
        ahead = self.is_ahead(of_class, index)
        return (
            "delivered",
            int(self.draw("duplicate", of_class, index) < self.duplicate),
            int(self.draw("corrupt", of_class, index) < self.corrupt),
            int(ahead),
            0 if ahead else self.delay_ns(of_class, index),
        )
