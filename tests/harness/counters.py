"""What a host's kernel counted: /proc/net of its network namespace, as numbers."""

FILES = ("snmp", "netstat", "snmp6", "dev")


def parse_pairs(text):
    """`snmp` and `netstat`: a line of names above a line of values -> {"Udp.InErrors": 0, ...}."""
    found = {}
    lines = text.splitlines()
    for names, values in zip(lines[::2], lines[1::2]):
        group, _, names = names.partition(":")
        _, _, values = values.partition(":")
        for name, value in zip(names.split(), values.split()):
            found[f"{group}.{name}"] = int(value)
    return found


def parse_single(text):
    """`snmp6`: a name and a value on every line."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[1].lstrip("-").isdigit():
            found[words[0]] = int(words[1])
    return found


def parse_dev(text):
    """`dev`: {"lo.rx_packets": 0, ...}; the two lines of head name the columns."""
    lines = text.splitlines()
    _, rx, tx = lines[1].split("|")
    columns = [f"rx_{name}" for name in rx.split()] + [f"tx_{name}" for name in tx.split()]
    found = {}
    for line in lines[2:]:
        device, _, values = line.partition(":")
        for column, value in zip(columns, values.split()):
            found[f"{device.strip()}.{column}"] = int(value)
    return found


_PARSE = {"snmp": parse_pairs, "netstat": parse_pairs, "snmp6": parse_single, "dev": parse_dev}


def parse(name, text):
    """One /proc/net file as {name: number}."""
    return _PARSE[name](text)


def difference(before, after):
    """What was counted in between; a counter that is new counts from 0."""
    return {name: value - before.get(name, 0) for name, value in after.items()}


def device(counts, column):
    """The sum of a `dev` column over every device but the loopback."""
    return sum(
        value
        for name, value in counts.items()
        if name.endswith("." + column) and not name.startswith("lo.")
    )
