"""What a student reads in the terminal: a title, a table, claims with their figures."""

import os
import re
import sys
import textwrap

WIDTH = 96

MARKS = {
    "holds": ("✓", "[ok]", "32"),
    "fails": ("✗", "[NO]", "31"),
    "error": ("✗", "[NO]", "31"),
    "inconclusive": ("–", "[??]", "33"),
    "skipped": ("–", "[--]", "33"),
}


class Screen:
    """Prints for people: UTF-8 where the output can, colour where it is a terminal."""

    def __init__(self, out=None, colour=None):
        self.out = out or sys.stdout
        encoding = (getattr(self.out, "encoding", None) or "ascii").lower().replace("-", "")
        self.utf8 = encoding.startswith("utf8")
        if colour is None:
            colour = self.out.isatty() and not os.environ.get("NO_COLOR")
            colour = colour and os.environ.get("TERM") != "dumb"
        self.colour = colour

    def paint(self, text, code):
        """The text in a colour, or as it is."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and text else text

    def plain(self, text):
        """The text in what letters the output has."""
        if self.utf8:
            return text
        for fancy, simple in (("±", "+-"), ("–", "-"), ("→", "->"), ("…", "..."), ("×", "x")):
            text = text.replace(fancy, simple)
        return text.encode("ascii", "replace").decode()

    def line(self, text="", code=None):
        """One line, as it is."""
        text = self.plain(text)
        self.put((self.paint(text, code) if code else text) + "\n")

    def put(self, text):
        """What is to be printed, at once. Where nobody reads on, a run goes on all the same."""
        try:
            print(text, end="", file=self.out, flush=True)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.out.fileno())

    def words(self, text, indent="", first=None, code=None):
        """A paragraph, wrapped."""
        first = indent if first is None else first
        for paragraph in text.splitlines() or [""]:
            lines = textwrap.wrap(
                self.plain(paragraph),
                WIDTH,
                initial_indent=first,
                subsequent_indent=indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
            for line in lines:
                self.line(line, code)
            first = indent

    def mark(self, outcome):
        """The sign of an outcome."""
        fancy, simple, code = MARKS[outcome]
        return self.paint(fancy if self.utf8 else simple, code)

    def table(self, columns, rows):
        """Columns of figures: the first to the left, the others to the right; heads may wrap."""
        cells = [["–" if cell is None else str(cell) for cell in row] for row in rows]
        cells = [[self.plain(cell) for cell in row] for row in cells]
        heads = [self.plain(column).split("\n") for column in columns]
        depth = max(len(head) for head in heads)
        heads = [[""] * (depth - len(head)) + head for head in heads]
        widths = [
            max([len(part) for part in heads[n]] + [len(row[n]) for row in cells])
            for n in range(len(columns))
        ]

        def put(row, code=None):
            parts = [
                cell.ljust(width) if n == 0 else cell.rjust(width)
                for n, (cell, width) in enumerate(zip(row, widths))
            ]
            self.line("  " + "  ".join(parts).rstrip(), code)

        for level in range(depth):
            put([head[level] for head in heads], "1")
        for row in cells:
            put(row)

    def claim(self, claim):
        """A claim, its mark, and what was measured."""
        mark = self.mark(claim["outcome"])
        width = 1 if self.utf8 else 4
        indent = " " * (width + 3)
        lines = textwrap.wrap(self.plain(claim["sentence"]), WIDTH - width - 3)
        for n, line in enumerate(lines):
            self.line((f"  {mark} " if n == 0 else indent) + line)
        if claim["figures"]:
            self.words(figures(claim["figures"]), indent + "  ", code="2")
        if claim["outcome"] != "holds":
            word = {
                "fails": "does not hold: ",
                "error": "could not be tried: ",
                "inconclusive": "inconclusive: ",
                "skipped": "not tried: ",
            }[claim["outcome"]]
            self.words(word + (claim["reason"] or "no reason given"), indent + "  ", code="33")


def figure(name, value):
    """One figure for people: a name's unit becomes the value's."""
    name = name.replace("_", " ")
    if value is None:
        return f"{name} unknown"
    if name.endswith(" ns"):
        return f"{name[:-3]} {duration(value)}"
    if name.endswith(" bytes"):
        return f"{name[:-6]} {value:,} bytes".replace(",", " ")
    if isinstance(value, float):
        value = f"{value:.3g}"
    if isinstance(value, (list, tuple, set)):
        items = list(value)
        value = ", ".join(map(str, items[:10])) or "none"
        if len(items) > 10:
            value += f" and {len(items) - 10} more"
    return f"{name} {value}"


def figures(values):
    """Figures in one line, or several."""
    return "; ".join(figure(name, value) for name, value in values.items())


def duration(ns):
    """A time for people, three digits or so."""
    if ns is None:
        return "–"
    size = abs(ns)
    for unit, length in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if size >= length:
            value = ns / length
            return f"{value:.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f} {unit}"
    return f"{round(ns)} ns"


_DROPS = {"synack": "SYN-ACK", "ack": "bare ACK", "data": "data segment"}


def _ordinals(text):
    return " and ".join(part.replace("-", " to ") for part in text.split(","))


def link_words(spec):
    """A link's spec in words: `delay 10ms loss 5%` -> `each packet takes 10 ms; ...`."""
    tokens = spec.split()
    said, n = [], 0

    def is_value(k):
        return k < len(tokens) and re.match(r"[0-9.]", tokens[k])

    def spaced(text):
        return re.sub(r"([0-9])([a-zA-Z%])", r"\1 \2", text)

    while n < len(tokens):
        word, n = tokens[n], n + 1
        values = []
        if word == "loss" and n < len(tokens) and tokens[n] in ("gemodel", "random"):
            if tokens[n] == "gemodel":
                word = "gemodel"
            n += 1
        while is_value(n):
            values.append(spaced(tokens[n]))
            n += 1
        if word == "delay" and values:
            text = f"each packet takes {values[0]}"
            if len(values) > 1:
                text += f", give or take {values[1]}"
            if tokens[n : n + 1] == ["distribution"]:
                text += f" ({tokens[n + 1]})"
                n += 2
            said.append(text)
        elif word == "loss" and values:
            said.append(f"{values[0]} are lost, at random")
        elif word == "gemodel" and values:
            text = f"losses come in bursts (one begins with {values[0]} a packet"
            said.append(text + (f", ends with {values[1]})" if len(values) > 1 else ")"))
        elif word == "duplicate" and values:
            said.append(f"{values[0]} arrive twice")
        elif word == "corrupt" and values:
            said.append(f"{values[0]} have one bit flipped")
        elif word == "reorder" and values:
            text = f"{values[0]} are sent ahead of the others"
            if tokens[n : n + 1] == ["gap"]:
                text += f" (every {tokens[n + 1]} packets)"
                n += 2
            said.append(text)
        elif word == "rate" and values:
            said.append(f"{values[0]} a second")
        elif word == "limit" and values:
            said.append(f"room for {values[0]} packets")
        elif word == "drop" and n < len(tokens):
            name, _, which = tokens[n].partition(":")
            n += 1
            said.append(f"{_DROPS.get(name, name.upper())} {_ordinals(which)} is dropped")
        elif word in ("block", "reject", "allow") and n < len(tokens):
            said.append(f"{word}s {tokens[n]}")
            n += 1
        else:
            said.append(" ".join([word, *values]))
    return "; ".join(said) or "a clean cable"
