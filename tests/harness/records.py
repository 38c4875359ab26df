"""The CSV files of the wire and of the programs, as rows of numbers and words."""

import csv
from collections import namedtuple

WORDS = {"direction", "class", "fate", "tcp_flags", "kind", "verdict"}


def _value(name, text):
    if name in WORDS:
        return text
    return int(text) if text else None


def read(path):
    """All rows of a CSV file: empty fields are None, what is not a word is an int.

    A row that was cut short (a program was killed while it wrote) ends the reading.
    """
    with open(path, newline="") as file:
        reader = csv.reader(file)
        names = next(reader, None)
        if names is None:
            return []
        safe = [name + "_" if name in ("class",) else name for name in names]
        row = namedtuple("Row", safe)
        rows = []
        for fields in reader:
            if len(fields) != len(names):
                break
            rows.append(row(*(_value(name, field) for name, field in zip(names, fields))))
        return rows


def as_entered(rows):
    """The wire's rows in the order in which the packets came in.

    The log has them as their fates became complete: a lost packet before those that wait.
    """
    return sorted(rows, key=lambda row: (row.run, row.id))


def distinct(rows):
    """The set of (flow index, seq) in these rows; a flow's high half is its run."""
    return {(row.flow & 0xFFFF, row.seq) for row in rows if row.seq is not None}


def runs_of(seqs):
    """Lengths of the runs of consecutive numbers in a set: {3, 4, 9} -> [2, 1]."""
    lengths = []
    last = None
    for seq in sorted(seqs):
        if last is not None and seq == last + 1:
            lengths[-1] += 1
        else:
            lengths.append(1)
        last = seq
    return lengths
