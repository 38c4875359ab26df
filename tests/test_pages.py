"""The labs' pages, in a real browser: whole, legible, silent, and for everybody.

One page is made up, with every outcome and everything that a lab can leave; one is a real run's;
and each lab's page in build/labs that the harness as it is now has written is looked at as well.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from harness import browser as browsers
from harness import ladder, page, screen, svg, tree
from harness.lab import Lab

pytestmark = pytest.mark.skipif(browsers.find() is None, reason="chromium is not installed")

WIDTHS = (360, 800, 1280)
SCHEMES = ("light", "dark")
A4_WIDTH = 688  # what 14 mm at either side leave of it, in CSS pixels
MS = 1_000_000

LAB = '''"""{question}"""

KNOBS = {{"LINK": "delay 10ms loss 5%", "SEED": 7, "COUNT": 400, "INTERVAL": "4ms", "SIZE": 200}}
'''
QUESTIONS = {
    "01-first": "Is there <something> before it?",
    "02-made-up": "Does a made-up page show everything & more?",
    "03-blocked": "What if it cannot run here?",
}
LONG = "a_name_without_any_place_to_break_it_" * 4

Row = namedtuple(
    "Row",
    "direction class_ in_ns out_ns fate copies sport dport tcp_seq tcp_ack tcp_flags payload kind"
    " seq",
)


def claim(name, outcome, reason=None, **figures):
    """A claim as the plugin notes it."""
    sentence = f"The claim that is called {name} <is> told in this sentence & in no other."
    return {
        "id": name,
        "sentence": sentence,
        "outcome": outcome,
        "figures": figures,
        "reason": reason,
    }


def segment(n, up, flags, fate="delivered"):
    """A row of the wire's log: one every 20 ms, 10 ms on its way."""
    ports = (5000, 80) if up else (80, 5000)
    out_ns = (20 * n + 10) * MS if fate == "delivered" else None
    ack = 0 if flags == "S" else 4000000001
    way = "up" if up else "down"
    seq = 4000000000 + n
    return Row(way, "tcp", 20 * n * MS, out_ns, fate, 0, *ports, seq, ack, flags, 0, "", None)


def a_chart():
    """Points of every style, and lines."""
    points = [
        svg.Point(n, n % 7, style, f"point {n}") for n, style in enumerate(sorted(svg.SHAPES) * 4)
    ]
    lines = [
        svg.Path([(0, n), (20, 6 - n)], kind, kind)
        for n, kind in enumerate(("tcp", "udp", "raw"), 1)
    ]
    panels = [svg.Panel(name, "24 of 24 arrived", points + lines, 100) for name in ("TCP", "UDP")]
    legend = [(style, f"that is {style}") for style in svg.SHAPES]
    x_axis, y_axis = svg.Linear(0, 24, "ms since the start"), svg.Linear(0, 7, "number", want=4)
    return svg.chart("arrivals", "When each came", "All came.", panels, x_axis, y_axis, legend)


def fill(lab):
    """Everything that a lab can leave."""
    lab.table(
        [
            "",
            "messages\nsent",
            "packets lost\non the wire",
            "told",
            *(f"column {n}" for n in "abc"),
        ],
        [["TCP, as it comes", 400, 15, "nothing at all, for long", "1.5 ms", 7, None]] * 3,
    )
    lab.note("A note below the table.")
    for each in (
        claim("holds", "holds", lost=19, took_ns=1234567, numbers=list(range(40))),
        claim("fails", "fails", "three is not four,\nfor it is less", got=3),
        claim("broken", "error", "the run itself failed: " + LONG),
        claim("cannot-tell", "inconclusive", "this machine is too slow"),
        claim("skipped", "skipped", "nothing was lost", **{LONG: LONG}),
    ):
        lab.claims[each["id"]] = each
    lab.chart("arrivals", a_chart(), "When each message came.")
    rows = [segment(0, True, "S"), segment(1, False, "SA", "lost"), segment(3, False, "SA")]
    rows += [segment(4, True, "A"), segment(5, True, "FA", "blocked")]
    made = ladder.build(rows, client_port=5000, server_port=80)
    lab.ladder("handshake", made, "What connect() does.", shown=True)
    lab.waterfalls["UDP"] = "\n".join(f"{word:>40} {60 * '.'} 400" for word in ("sent", "read"))
    lab.commands += ["on server udp-receiver -c 400 -J --log " + str(lab.folder / "received.csv")]
    lab.commands += [f"on client cat {LONG}"]
    for name in ("wire.csv", "wire.pcapng", "udp.stderr"):
        (lab.folder / name).write_text("something\n")


def run_lab(out, number):
    """A lab's real run, its page in a folder of its own."""
    return subprocess.run(
        [sys.executable, "-m", "harness.run_lab", str(number)],
        env={
            **os.environ,
            "SOCKLAB_OUT": str(out),
            "PYTHONPATH": str(tree.ROOT / "tests"),
            "PYTHONIOENCODING": "utf-8",
            "MAKEFLAGS": "",
        },
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tree of three labs: one never ran, one found everything, one could not run here."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree, "LABS", folder / "labs")
        patch.setattr(tree, "OUT", folder / "out")
        for name, question in QUESTIONS.items():
            (tree.LABS / name).mkdir(parents=True)
            (tree.LABS / name / "lab.py").write_text(LAB.format(question=question))
            (tree.LABS / name / "README.md").write_text(f"# {question}\n")
        blocked = Lab(tree.LABS / "03-blocked", {})
        for name in ("one", "two"):
            why = "cannot run here: /dev/net/tun is not there"
            blocked.claims[name] = claim(name, "skipped", why)
        blocked.write()
        lab = Lab(tree.LABS / "02-made-up", {"LINK": "delay 20ms", "COUNT": "50"})
        lab.begin()
        fill(lab)
        lab.write()
        yield tree.OUT


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The page of lab 01 as it has just run."""
    out = tmp_path_factory.mktemp("real")
    done = run_lab(out, 1)
    assert done.returncode in (0, 77), done.stdout + done.stderr
    return out / "01-echo" / "index.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """One browser for all."""
    with browsers.Browser(tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.fixture(scope="module")
def tab(browser, made):
    """The made-up page, open."""
    opened = browser.open(made / "02-made-up" / "index.html")
    opened.look(1280)
    return opened


# What a page looks like, measured in it: boxes, colours, letters.
MEASURE = r"""(() => {
const rgb = text => {
  const found = text.match(/[\d.]+/g).map(Number);
  return {c: found.slice(0, 3), a: found.length > 3 ? found[3] : 1};
};
const light = c => {
  const [r, g, b] = c.map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b;
};
const ratio = (a, b) => {
  const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
  return (x + .05) / (y + .05);
};
const behind = e => {
  for (; e; e = e.parentElement) {
    const colour = rgb(getComputedStyle(e).backgroundColor);
    if (colour.a === 1) return colour.c;
  }
  return [255, 255, 255];
};
const pale = [], small = [];
let texts = 0;
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const e = walk.currentNode.parentElement, text = walk.currentNode.data.trim();
  if (!text || e.closest("title,desc,style,.unseen,.skip")) continue;
  texts++;
  const style = getComputedStyle(e), inside = e.closest("svg");
  const value = ratio(rgb(inside ? style.fill : style.color).c, behind(e));
  if (value < 4.5) pale.push(text.slice(0, 30) + " " + value.toFixed(2));
  const scale = inside ? inside.getBoundingClientRect().width / inside.viewBox.baseVal.width : 1;
  if (parseFloat(style.fontSize) * scale < 8.5) small.push(text.slice(0, 30));
}
const box = e => { const r = e.getBoundingClientRect(); return [r.width, r.height]; };
const seen = e => e.checkVisibility() && box(e).every(side => side > 5);
const overlap = [];
for (const each of document.querySelectorAll("svg")) {
  const level = [...each.querySelectorAll("text")].filter(
    e => !(e.getAttribute("transform") || "").includes("rotate"));
  const boxes = level.map(e => [e.textContent, e.getBoundingClientRect()]);
  const whole = each.getBoundingClientRect();
  boxes.forEach(([text, a], n) => {
    if (a.left < whole.left - 1 || a.right > whole.right + 1) overlap.push(text + " sticks out");
    for (const [other, b] of boxes.slice(n + 1))
      if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2 &&
          Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > a.height * .3)
        overlap.push(text + " on " + other);
  });
}
const root = document.documentElement;
return {
  width: root.scrollWidth, window: root.clientWidth, texts, pale, small, overlap,
  paper: light(rgb(getComputedStyle(document.body).backgroundColor).c),
  claims: [...document.querySelectorAll(".claims .sentence")].filter(seen).map(e => e.textContent),
  verdicts: [...document.querySelectorAll(".claims .verdict")].filter(seen).length,
  reasons: [...document.querySelectorAll(".reason")].filter(seen).map(e => e.textContent),
  pictures: [...document.querySelectorAll("figure svg")].filter(seen).length,
  marks: [...document.querySelectorAll("figure svg")].map(
    e => [...e.querySelectorAll("path,circle,rect,text")].filter(
      m => box(m).some(side => side > 1)).length),
  captions: [...document.querySelectorAll("figcaption")].filter(seen).length,
  figures: [...document.querySelectorAll(".claims > li")].map(
    e => [...e.querySelectorAll(".figures div")].filter(d => [...d.children].every(seen)).map(
      d => [...d.children].map(c => c.textContent))),
  link: [...document.querySelectorAll(".link")].filter(seen).map(e => e.textContent),
  table: [...document.querySelectorAll("main table tr")].map(
    e => [...e.children].filter(seen).map(c => c.textContent)),
  cut: [...document.querySelectorAll("main *")].filter(
    e => !e.closest("svg,.unseen,details:not([open])") && e.clientWidth
      && e.scrollWidth > e.clientWidth + 1
      && getComputedStyle(e).display !== "inline").map(
    e => [e.tagName + "." + e.className, e.tabIndex, e.getAttribute("aria-label"),
          getComputedStyle(e).overflowX]),
};
})()"""


def measure(tab, width, scheme="light", media="screen"):
    """MEASURE's answer at that width, in those colours."""
    tab.look(width, scheme=scheme, media=media)
    return tab.evaluate(MEASURE)


def check_layout(seen, scheme, media="screen"):
    """Nothing is wider than the window, nor pale, nor tiny; what scrolls can be reached."""
    assert seen["width"] <= seen["window"], "the page scrolls sideways"
    assert seen["texts"] > 5 and not seen["pale"] and not seen["overlap"]
    assert not seen["small"]
    assert (seen["paper"] < 0.1) == (scheme == "dark" and media == "screen")
    for name, tab_index, label, overflow in seen["cut"]:
        assert media == "screen", f"{name} is cut on paper"
        assert overflow == "auto" and tab_index == 0 and label, name


def check_silent(tab, path):
    """Nobody complained, and nothing but the file itself was asked for."""
    assert tab.complaints() == []
    assert tab.requests() == [path.resolve().as_uri()]


def figures_of(claim):
    """What a page is to show of what a claim measured: [[name, value]]."""
    pairs = []
    for name, value in claim["figures"].items():
        label = re.sub("_(ns|bytes)$", "", name).replace("_", " ")
        pairs.append([label, screen.figure(name, value)[len(label) + 1 :] or "none"])
    return pairs


def table_of(report):
    """The same of its table, heads and all; a cell without a value has a dash, and says so."""
    if not report["table"]:
        return []
    rows = [
        ["–none" if c in (None, "–") else str(c) for c in row] for row in report["table"]["rows"]
    ]
    return [[head or "what ran" for head in report["table"]["columns"]], *rows]


def check_whole(seen, report):
    """Each claim and its figures, the link, the table, each picture: there to be seen."""
    assert seen["claims"] == [each["sentence"] for each in report["claims"]]
    assert seen["verdicts"] == len(report["claims"])
    assert seen["figures"] == [figures_of(each) for each in report["claims"]]
    spec = report["knobs"].get("LINK")
    words = "a clean cable" if spec is None else screen.link_words(spec)
    assert len(seen["link"]) == 1 and words in seen["link"][0]
    assert seen["table"] == table_of(report)
    assert seen["pictures"] == seen["captions"] == len(report["charts"])
    assert all(marks >= 4 for marks in seen["marks"]), seen["marks"]


class Links(HTMLParser):
    """What a page links to, and what it would load."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loads, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """One element."""
        attrs = dict(attrs)
        self.tags.append(tag)
        if tag == "a":
            self.links.append(attrs.get("href", ""))
        self.loads += [attrs[name] for name in ("src", "srcset", "poster", "data") if name in attrs]
        if tag == "link":
            self.loads.append(attrs.get("href"))


def check_links(path):
    """Every link leads to something that is there; nothing comes from anywhere else."""
    text = path.read_text()
    found = Links(text)
    assert not {"script", "iframe", "object", "embed", "base"} & set(found.tags)
    assert all(each.startswith("data:") for each in found.loads), found.loads
    assert not re.search(r"@import|url\((?!data:)|@font-face", text)
    assert found.links
    for link in found.links:
        assert not re.match(r"[a-z]+:|/", link), link
        target, _, anchor = unquote(link).partition("#")
        if target:
            assert (path.parent / target).is_file(), link
        if anchor:
            assert f'id="{anchor}"' in ((path.parent / target) if target else path).read_text()
    return found.links


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_fits_and_can_be_read(tab, made, width, scheme):
    """On a phone and on a desk, in light and in dark."""
    report = json.loads((made / "02-made-up" / "report.json").read_text())
    seen = measure(tab, width, scheme)
    check_layout(seen, scheme)
    check_whole(seen, report)
    if width == 360:
        assert len(seen["cut"]) >= 4, "the table, both pictures and the account scroll"


def test_asks_nothing_and_complains_of_nothing(tab, made):
    """No console message, no exception, no request."""
    check_silent(tab, made / "02-made-up" / "index.html")


def test_what_does_not_hold_says_why(tab, made):
    """In words, on the page and in the list."""
    reasons = measure(tab, 800)["reasons"]
    assert reasons[0].startswith("Does not hold: three is not four,\nfor it is less")
    assert reasons[1].startswith("Could not be tried: the run itself failed")
    assert reasons[2:] == ["Inconclusive: this machine is too slow", "Not tried: nothing was lost"]
    listed = (made / "index.html").read_text()
    assert "three is not four" in listed and "this machine is too slow" in listed


def test_on_paper(tab):
    """Light even for who likes it dark, nothing cut, and a PDF comes of it."""
    seen = measure(tab, A4_WIDTH, "dark", "print")
    check_layout(seen, "dark", "print")
    tab.look(A4_WIDTH)
    printed = tab.pdf()
    assert printed.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", printed)) >= 2


def test_by_keyboard(tab):
    """Tab goes to the skip link first, then to every box that scrolls; the focus is seen."""
    tab.look(360)
    tab.evaluate("document.activeElement.blur(), scrollTo(0, 0)")
    here = (
        "(e => [e.tagName, e.className, e.getAttribute('aria-label') || e.textContent.trim(),"
        " parseFloat(getComputedStyle(e).outlineWidth), e.getBoundingClientRect().top,"
        " e.getBoundingClientRect().left])(document.activeElement)"
    )
    stops = []
    for _ in range(80):
        tab.press("Tab")
        stop = tab.evaluate(here)
        if stop[0] == "BODY":
            break
        stops.append(stop)
    assert stops[0][2] == "Skip to the content" and stops[0][4] >= 0 and stops[0][5] >= 0
    boxes = tab.evaluate("[...document.querySelectorAll('.scroll')].map(e => e.ariaLabel)")
    assert [stop[2] for stop in stops if stop[1] == "scroll"] == boxes and len(boxes) >= 4
    assert min(stop[3] for stop in stops) >= 2, "each stop has an outline"
    tab.evaluate(
        "void (box => { window.moved = new Promise(done => box.addEventListener('scroll', done,"
        " {once: true})); box.focus(); })(document.querySelector('.scroll'))"
    )
    tab.press("ArrowRight")
    assert tab.evaluate("moved.then(() => document.querySelector('.scroll').scrollLeft)") > 0
    tab.evaluate("document.querySelector('.skip').focus()")
    tab.press("Enter")
    assert tab.evaluate("location.hash + document.activeElement.id") == "#mainmain"


def names(tab):
    """{role: [name]} of the accessibility tree."""
    found = {}
    for node in tab.call("Accessibility.getFullAXTree")["nodes"]:
        if not node.get("ignored"):
            role = node["role"]["value"]
            found.setdefault(role, []).append(node.get("name", {}).get("value", ""))
    return found


def test_by_ear(tab):
    """One h1, landmarks, named pictures, a table with heads, verdicts without their marks."""
    tab.look(800)
    heard = names(tab)
    assert tab.evaluate("document.documentElement.lang") == "en"
    assert tab.evaluate("document.querySelectorAll('h1').length") == 1
    assert tab.evaluate("document.title") == f"Lab 02: {QUESTIONS['02-made-up']}"
    assert len(heard["main"]) == 1 and sorted(heard["navigation"]) == ["Labs", "Other labs"]
    pictures = heard.get("image", []) + heard.get("img", [])
    assert len(pictures) == 2 and all(pictures)
    assert any("client sends SYN" in name for name in pictures), "the ladder is told in words"
    assert heard["table"] == ["The run in figures"]
    assert len(heard["columnheader"]) == 7 and all(heard["columnheader"])
    assert len(heard["rowheader"]) == 3
    said = " ".join(heard["StaticText"])
    for words in ("does not hold", "could not be tried", "inconclusive", "not tried"):
        assert words in said
    assert not set("✓✗") & set(said), "a mark is for the eye; its word is for the ear"
    levels = tab.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(e => +e.tagName[1])")
    assert levels[0] == 1 and all(after <= before + 1 for before, after in zip(levels, levels[1:]))
    ids = tab.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))


def test_links_lead_somewhere(made):
    """Captures, logs, report, guide, the labs around it: what is linked is there."""
    links = check_links(made / "02-made-up" / "index.html")
    for link in ("wire.pcapng", "wire.csv", "report.json", "guide.txt", "handshake.txt"):
        assert link in links, link
    for link in ("../index.html", "../01-first/index.html", "../03-blocked/index.html"):
        assert links.count(link) == 2, link
    for name in ("01-first/index.html", "03-blocked/index.html", "index.html"):
        check_links(made / name)
    text = (made / "02-made-up" / "index.html").read_text()
    assert "LINK=&#x27;delay 20ms&#x27; SEED=7 COUNT=50" in text, "the command to have it again"
    assert str(made) not in text, "no folder of this machine"


def test_the_list(browser, made):
    """All labs, what each found and when; one that never ran says how to run it."""
    path = made / "index.html"
    opened = browser.open(path)
    for width in WIDTHS:
        for scheme in SCHEMES:
            check_layout(measure(opened, width, scheme), scheme)
    items = opened.evaluate("[...document.querySelectorAll('.labs > li')].map(e => e.innerText)")
    assert len(items) == 3
    assert all(question in item for item, question in zip(items, QUESTIONS.values()))
    assert "no result yet" in items[0] and "make run-lab 1" in items[0]
    assert "5 claims: 1 holds, 1 does not hold, 1 could not be tried" in items[1]
    assert "not tried: no claim could be told here" in items[2]
    assert items[2].count("/dev/net/tun is not there") == 1, "one reason is told once"
    times = opened.evaluate("[...document.querySelectorAll('time')].map(e => e.dateTime)")
    assert len(times) == 2 and all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+", t) for t in times)
    check_silent(opened, path)
    opened.close()


def test_a_page_that_waits(browser, made):
    """A lab without a result has a page too, which says so; a real one is never lost to it."""
    path = made / "01-first" / "index.html"
    opened = browser.open(path)
    check_layout(measure(opened, 360), "light")
    text = opened.evaluate("document.body.innerText")
    assert "no result here yet" in text and "make run-lab 1" in text
    check_silent(opened, path)
    opened.close()


def test_a_run_that_ends_first(made, tmp_path, monkeypatch):
    """A run that leaves its page while another is about to put one in its place keeps it."""
    monkeypatch.setattr(tree, "LABS", made.parent / "labs")
    monkeypatch.setattr(tree, "OUT", tmp_path)
    found = tmp_path / "01-first" / "index.html"
    waiting = page._waiting

    def meanwhile(*arguments):
        if arguments[0].name == "01-first":
            found.write_text("a run's own")
        return waiting(*arguments)

    monkeypatch.setattr(page, "_waiting", meanwhile)
    lab = Lab(tree.LABS / "02-made-up", {})
    lab.claims["one"] = claim("one", "holds")
    lab.write()
    assert found.read_text() == "a run's own"
    assert sorted(path.name for path in tmp_path.iterdir()) == [*QUESTIONS, "index.html"]


def test_many_end_at_once(made, tmp_path, monkeypatch):
    """Whoever ends last has all of them in the list; nobody ever reads half a page."""
    monkeypatch.setattr(tree, "LABS", tmp_path / "labs")
    monkeypatch.setattr(tree, "OUT", tmp_path / "out")
    found = []
    for n in range(1, 9):
        folder = tree.LABS / f"{n:02}-lab"
        folder.mkdir(parents=True)
        (folder / "lab.py").write_text(LAB.format(question=f"Is this number {n}?"))
        found.append(Lab(folder, {}))
        found[-1].claims["one"] = claim("one", "holds")
    ended, torn, inside, crowds = threading.Event(), [], [], []
    list_page = page.list_page

    def slowly():
        inside.append(1)
        text = list_page()
        ended.wait(0.01)
        crowds.append(len(inside))
        inside.pop()
        return text

    monkeypatch.setattr(page, "list_page", slowly)

    def read():
        while not ended.is_set():
            try:
                text = (tree.OUT / "index.html").read_text()
            except FileNotFoundError:
                continue
            if not text.endswith("</html>\n"):
                torn.append(text)

    threads = [threading.Thread(target=lab.write) for lab in found]
    reader = threading.Thread(target=read)
    for thread in [reader, *threads]:
        thread.start()
    for thread in threads:
        thread.join()
    ended.set()
    reader.join()
    assert not torn and crowds == [1] * 8, "one reads all reports and writes the list at a time"
    assert (tree.OUT / "index.html").read_text().count("its claim holds") == 8
    for lab in found:
        assert "This lab has not" not in (lab.folder / "index.html").read_text()
        assert "What this run shows" in (lab.folder / "index.html").read_text()
    left = [path.name for path in tree.OUT.iterdir() if path.name.startswith(".")]
    assert not left, "no drafts are left"


def look_at(browser, path, report):
    """One page, as a phone in the dark, a desk and a printer have it."""
    opened = browser.open(path)
    try:
        for width, scheme, media in (
            (360, "dark", "screen"),
            (1280, "light", "screen"),
            (A4_WIDTH, "dark", "print"),
        ):
            seen = measure(opened, width, scheme, media)
            check_layout(seen, scheme, media)
            check_whole(seen, report)
        check_silent(opened, path)
        assert all(names(opened).get("image", ["-"]))
    finally:
        opened.close()


def test_a_real_run(browser, real):
    """Lab 01 has just run: its page, its links, and the list with it."""
    report = json.loads((real.parent / "report.json").read_text())
    look_at(browser, real, report)
    check_links(real)
    check_links(real.parent.parent / "index.html")
    listed = (real.parent.parent / "index.html").read_text()
    assert listed.count("no result yet") == listed.count('<li class="none"') >= 1


def made_since():
    """The labs in build/labs whose pages the harness as it is now has written."""
    sources = [page.__file__, svg.__file__, ladder.__file__]
    newest = max(os.stat(path).st_mtime for path in sources)
    found = []
    for path in sorted((tree.BUILD / "labs").glob("[0-9][0-9]-*/report.json")):
        shown = path.parent / "index.html"
        if shown.exists() and min(shown.stat().st_mtime, path.stat().st_mtime) > newest:
            found.append(path.parent)
    return found


def test_the_labs_pages(browser, tmp_path):
    """Whatever labs have run since the harness was last changed: their pages are as good."""
    folders = made_since()
    if not folders:
        pytest.skip("no lab has been run in this session")
    for folder in folders:
        copy = tmp_path / folder.name
        copy.mkdir()
        try:
            for name in ("index.html", "report.json"):
                shutil.copyfile(folder / name, copy / name)
        except FileNotFoundError:
            continue  # It is being run again just now.
        look_at(browser, copy / "index.html", json.loads((copy / "report.json").read_text()))
