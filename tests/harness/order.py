"""Order by RFC 4737, from the numbers in the order of their arrival, first copies only.

Written from the definitions, so that what the programs' account says can be held against it.
"""


def reordered(seqs):
    """Positions of what is reordered (3.3): a number below one that came before."""
    expected, found = 0, []
    for position, seq in enumerate(seqs):
        if seq < expected:
            found.append(position)
        else:
            expected = seq + 1
    return found


def extents(seqs):
    """{number: extent} (4.2.3): how many places behind the first greater number it came."""
    found, tops = {}, []
    for position, seq in enumerate(seqs):
        # Only a new highest number can be the first that is greater than a later one.
        first = next((at for at, top in tops if top > seq), None)
        if first is not None:
            found[seq] = position - first
        elif not tops or seq > tops[-1][1]:
            tops.append((position, seq))
    return found


def overtaken_by(seqs):
    """{number: n} (5.3): how many of those right before it are greater; only where any is."""
    found = {}
    for position, seq in enumerate(seqs):
        n = 0
        while n < position and seqs[position - 1 - n] > seq:
            n += 1
        if n:
            found[seq] = n
    return found
