"""Marks on paper: panels with axes, points and lines, as one SVG text. It knows no sockets.

A chart is 480 units wide with 12.5 unit letters, so that it can be read at a phone's width; its
colours are CSS, so that it follows light and dark; a mark is told by its shape as well as by its
colour (the hues are Okabe and Ito's, which the colour-blind tell apart); each point bears a
<title>, and the whole a description in words.
"""

import math
from collections import namedtuple
from html import escape

WIDTH = 480
LEFT, RIGHT, TOP = 52, 18, 8
THIN_OUT = 1500

# A point of a style at x, y; `title` is what the mouse shows. A line is a list of (x, y).
Point = namedtuple("Point", "x y style title")
Path = namedtuple("Path", "points style title")
Panel = namedtuple("Panel", "label note marks height")

STYLE = """
.chart{--ink:#1d2329;--soft:#5c6670;--grid:#e3e7ea;--paper:#fff;--blue:#0072b2;--red:#c8500a;
--green:#00805c;--purple:#a3477c;--amber:#9a6a00;background:var(--paper);color:var(--ink);
font:12.5px system-ui,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
max-width:100%;height:auto}
@media screen and (prefers-color-scheme:dark){.chart{--ink:#e8ebee;--soft:#a3adb7;--grid:#2c343b;
--paper:#15191d;--blue:#56b4e9;--red:#f0803c;--green:#2fc49a;--purple:#df93bb;--amber:#e6b422}}
.chart text{fill:var(--ink)}.chart .soft{fill:var(--soft)}.chart .name{font-weight:650}
.chart .grid{stroke:var(--grid);stroke-width:1}
.chart .edge{stroke:var(--soft);stroke-width:1;fill:none}
.chart .first{fill:var(--blue)}.chart .lost{stroke:var(--red);stroke-width:2;fill:none}
.chart .duplicate{fill:none;stroke:var(--green);stroke-width:1.6}
.chart .reordered{fill:var(--purple)}
.chart .again{fill:none;stroke:var(--amber);stroke-width:1.6}
.chart .held{fill:var(--amber)}
.chart .line{fill:none;stroke-width:2;stroke-linejoin:round}
.chart .tcp{stroke:var(--blue)}.chart .udp{stroke:var(--red);stroke-dasharray:7 3}
.chart .raw{stroke:var(--green);stroke-dasharray:2 3}.chart .thin{stroke:var(--soft)}
.chart text.tcp{fill:var(--blue);stroke:none}.chart text.udp{fill:var(--red);stroke:none}
.chart text.raw{fill:var(--green);stroke:none}
""".strip()

# The shape of each style of point, around the origin.
SHAPES = {
    "first": '<circle r="1.9"/>',
    "lost": '<path d="M-3.6-3.6 3.6 3.6M-3.6 3.6 3.6-3.6"/>',
    "duplicate": '<rect x="-3.4" y="-3.4" width="6.8" height="6.8"/>',
    "reordered": '<path d="M0-4.6 4.2 3.2H-4.2Z"/>',
    "again": '<path d="M0-4.6 4.6 0 0 4.6-4.6 0Z"/>',
    "held": '<path d="M0-4.2 4.2 0 0 4.2-4.2 0Z"/>',
}


def number(value):
    """A coordinate, short."""
    return f"{value:.1f}".rstrip("0").rstrip(".")


def nice(value):
    """A figure for people: three digits, no exponent."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{min(digits, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


class Linear:
    """An axis from low to high, with about `want` ticks at round figures."""

    def __init__(self, low, high, label, want=6):
        self.low, self.high = low, high if high > low else low + 1
        self.label, self.want = label, want

    def share(self, value):
        """Where a value lies, 0 at the low end to 1 at the high end."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self):
        """The values to be written."""
        step = (self.high - self.low) / self.want
        power = 10 ** math.floor(math.log10(step))
        step = next(power * k for k in (1, 2, 5, 10) if power * k >= step)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [n * step for n in range(first, last + 1)]


class Log:
    """An axis for times that differ by powers of ten, with some room at both ends."""

    def __init__(self, low, high, label):
        low = max(low, 1e-6)
        self.low, self.high, self.label = low / 1.5, max(high, low * 4) * 1.5, label

    def share(self, value):
        """Where a value lies; what is below the axis lies at its foot."""
        value = max(value, self.low)
        return math.log10(value / self.low) / math.log10(self.high / self.low)

    def ticks(self):
        """Powers of ten; their doubles and fivefolds too where there are few."""
        lowest = math.floor(math.log10(self.low))
        highest = math.ceil(math.log10(self.high))
        steps = (1, 2, 5) if highest - lowest <= 3 else (1,)
        values = [k * 10.0**n for n in range(lowest, highest + 1) for k in steps]
        return [value for value in values if self.low <= value <= self.high]


def thin(points, most=THIN_OUT):
    """At most so many of the ordinary points, evenly, and each of the others; and how many went."""
    plain = [point for point in points if point.style == "first"]
    if len(plain) <= most:
        return points, 0
    keep = {id(plain[n * len(plain) // most]) for n in range(most)}
    kept = [point for point in points if point.style != "first" or id(point) in keep]
    return kept, len(points) - len(kept)


def _point(x, y, point):
    return (
        f'<g class="{point.style}" transform="translate({number(x)} {number(y)})">'
        f"<title>{escape(point.title)}</title>{SHAPES[point.style]}</g>"
    )


def _panel(panel, top, x_axis, y_axis, out):
    width, height = WIDTH - LEFT - RIGHT, panel.height
    foot = top + height
    out.append(f'<text class="name" x="{LEFT}" y="{number(top - 11)}">{escape(panel.label)}</text>')
    out.append(
        f'<text class="soft" x="{WIDTH - RIGHT}" y="{number(top - 11)}" text-anchor="end">'
        f"{escape(panel.note)}</text>"
    )
    for tick in y_axis.ticks():
        y = foot - y_axis.share(tick) * height
        out.append(f'<path class="grid" d="M{LEFT} {number(y)}h{width}"/>')
        out.append(
            f'<text class="soft" x="{LEFT - 6}" y="{number(y + 4)}" text-anchor="end">'
            f"{nice(tick)}</text>"
        )
    for tick in x_axis.ticks():
        x = LEFT + x_axis.share(tick) * width
        out.append(f'<path class="grid" d="M{number(x)} {number(top)}v{height}"/>')
    out.append(f'<path class="edge" d="M{LEFT} {number(top)}v{height}h{width}"/>')
    left_out = 0
    for mark in panel.marks:
        if isinstance(mark, Path):
            spots = " ".join(
                f"{number(LEFT + x_axis.share(x) * width)} "
                f"{number(foot - y_axis.share(y) * height)}"
                for x, y in mark.points
            )
            out.append(
                f'<path class="line {mark.style}" d="M{spots}">'
                f"<title>{escape(mark.title)}</title></path>"
            )
    points, left_out = thin([mark for mark in panel.marks if isinstance(mark, Point)])
    # What is out of the ordinary lies on top.
    for point in sorted(points, key=lambda point: point.style != "first"):
        x = LEFT + x_axis.share(point.x) * width
        y = foot - y_axis.share(point.y) * height
        out.append(_point(x, y, point))
    return left_out


def chart(name, title, words, panels, x_axis, y_axis, legend):
    """Panels above each other over one x axis. `words` describes it to who cannot see it.

    `legend` is a list of (style, meaning). Returns the SVG as text, a document of its own.
    """
    body, top, left_out = [], TOP, 0
    top += 18
    for panel in panels:
        top += 23
        left_out += _panel(panel, top, x_axis, y_axis, body)
        top += panel.height + 14
    top += 2
    width = WIDTH - LEFT - RIGHT
    for tick in x_axis.ticks():
        x = LEFT + x_axis.share(tick) * width
        body.append(
            f'<text class="soft" x="{number(x)}" y="{number(top)}" text-anchor="middle">'
            f"{nice(tick)}</text>"
        )
    top += 18
    body.append(
        f'<text x="{LEFT + width / 2}" y="{number(top)}" text-anchor="middle">'
        f"{escape(x_axis.label)}</text>"
    )
    top += 22
    x = LEFT
    for style, meaning in legend:
        need = 18 + 6.4 * len(meaning)
        if x > LEFT and x + need > WIDTH:
            x, top = LEFT, top + 18
        if style in SHAPES:
            body.append(
                f'<g class="{style}" transform="translate({number(x + 5)} {number(top - 4)})">'
                f"{SHAPES[style]}</g>"
            )
        else:
            body.append(f'<path class="line {style}" d="M{number(x - 6)} {number(top - 4)}h20"/>')
        x_text = x + (14 if style in SHAPES else 20)
        body.append(f'<text x="{number(x_text)}" y="{number(top)}">{escape(meaning)}</text>')
        x += need + (6 if style in SHAPES else 14)
    if left_out:
        top += 18
        body.append(
            f'<text class="soft" x="{LEFT}" y="{number(top)}">'
            f"{left_out} ordinary points are left out for size.</text>"
        )
    height = top + 10
    head = (
        f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} '
        f'{number(height)}" width="{WIDTH}" height="{number(height)}" role="img" '
        f'aria-labelledby="{name}-title {name}-words">'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-words">{escape(words)}</desc>'
        f"<style>{STYLE}</style>"
        f'<rect width="100%" height="100%" style="fill:var(--paper)"/>'
        f'<text class="soft" x="8" y="20">{escape(y_axis.label)}</text>'
    )
    return head + "".join(body) + "</svg>\n"
