"""The family tree as a drawing: time runs down, one box per paper, lines from the papers it builds on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from convarium.facts import NetworkFacts, Paper, all_facts
from convarium.lineage.layout import Layout, Place, arrange, passing, rows_in_time, spread
from convarium.lineage.names import many, short_names
from convarium.lineage.tree import step_over
from convarium.svg import Sheet, width_of

# All in px. The sheet, its border, the column of years, the heading; gaps between boxes and between rows.
WIDTH, MARGIN, YEARS, HEADING = 960, 14, 52, 78
GAP, BETWEEN = 14, 42
NARROW, WIDE, PAD = 184, 316, 10  # a box: least and largest width, and the border inside
NAME, TEXT, SMALL = 14.5, 12, 11  # sizes of letters
APART = 9  # between lines that meet one side of a box
COLOURS = ("blue", "orange", "green", "pink")


@dataclass(frozen=True)
class Line:
    """One line of a box's words."""

    text: str
    colour: str
    size: float = TEXT
    bold: bool = False


@dataclass
class PaperBox:
    """One paper: the ``networks`` of it that are shown, their ``parents`` among the other papers, and the paper of its
    leading network's nearest ancestor, ``first``."""

    paper: Paper
    networks: list[str]
    parents: list[str]
    first: str | None
    colour: str = "ink"
    lines: list[Line] = field(default_factory=list)
    x: float = 0
    y: float = 0
    width: float = 0

    @property
    def height(self) -> float:
        return 2 * PAD + sum(_leading(line) for line in self.lines) - 4

    @property
    def sides(self) -> tuple[float, float]:
        """Where lines may meet it, in px."""
        return self.x - self.width / 2 + 12, self.x + self.width / 2 - 12


def draw_papers(networks: Sequence[NetworkFacts]) -> str:
    """``networks`` as SVG, grouped by paper."""
    boxes = _boxes(networks)
    _paint(boxes)
    parents = {name: box.parents for name, box in boxes.items()}
    times = rows_in_time(parents, {name: box.paper.year for name, box in boxes.items()})
    rows = [[box for name, box in boxes.items() if times[name] == row] for row in range(max(times.values()) + 1)]
    for row, lines in zip(rows, passing(parents, times), strict=True):
        room = (WIDTH - 2 * MARGIN - YEARS - 16 * lines) / len(row) - GAP
        for box in row:
            box.width = min(WIDE, max(NARROW, room))
            box.lines = _words(box)
    left = MARGIN + YEARS
    right = max(WIDTH - MARGIN, *(left + len(row) * (row[0].width + GAP) for row in rows))
    layout = arrange(parents, times, [row[0].width for row in rows], left, right, GAP)
    bands = _bands(rows)
    for name, box in boxes.items():
        box.x, box.y = layout.x[name, times[name]], bands[times[name]][0]

    sheet = Sheet()
    _heading(sheet, networks, boxes)
    _years(sheet, rows)
    _lines(sheet, layout, boxes, times, bands)
    for box in boxes.values():
        _write(sheet, box)
    return sheet.render(right + MARGIN, bands[-1][1] + MARGIN, "The family tree of the networks")


def _boxes(networks: Sequence[NetworkFacts]) -> dict[str, PaperBox]:
    paper_of = {facts.name: facts.paper.name for facts in networks}
    boxes: dict[str, PaperBox] = {}
    for facts in networks:
        box = boxes.setdefault(facts.paper.name, PaperBox(facts.paper, [], [], None))
        box.networks.append(facts.name)
        papers = [paper_of[parent] for parent in facts.parents if parent in paper_of]
        box.parents += [paper for paper in papers if paper not in (*box.parents, facts.paper.name)]
    for box in boxes.values():
        before = _before(_lead(box))
        shown = paper_of.get(before.name) if before else None
        box.first = shown or next(iter(box.parents), None)
    return boxes


def _lead(box: PaperBox) -> NetworkFacts:
    return all_facts()[box.paper.lead if box.paper.lead in box.networks else box.networks[0]]


def _before(network: NetworkFacts) -> NetworkFacts | None:
    """Its nearest ancestor in another paper, by first parents."""
    facts, ancestor = all_facts(), network
    while ancestor.parents and ancestor.paper == network.paper:
        ancestor = facts[ancestor.parents[0]]
    return None if ancestor.paper == network.paper else ancestor


def _paint(boxes: Mapping[str, PaperBox]) -> None:
    """One colour for each branch below the first fork, the largest first."""
    below: dict[str | None, list[str]] = {}
    for name, box in boxes.items():
        below.setdefault(box.first, []).append(name)

    def branch(name: str) -> list[str]:
        return [name, *(other for child in below.get(name, []) for other in branch(child))]

    tops = below[None]
    while len(tops) == 1:
        tops = below.get(tops[0], [])
    for i, top in enumerate(sorted(tops, key=lambda top: -len(branch(top)))):
        for name in branch(top):
            boxes[name].colour = COLOURS[i % len(COLOURS)]


def _words(box: PaperBox) -> list[Line]:
    room = box.width - 2 * PAD
    lines = [Line(box.paper.name, box.colour, NAME, bold=True)]
    lines += [Line(text, "ink") for text in _wrapped(box.paper.idea, room, TEXT)]
    lead = _lead(box)
    before = _before(lead)
    if before:
        step = f"{lead.name} over {before.name}: {step_over(before, lead).text()}"
        lines += [Line(text, box.colour) for text in _wrapped(step, room, TEXT)]
    names = " ".join(short_names(box.networks))
    return lines + [Line(text, "quiet", SMALL) for text in _wrapped(names, room, SMALL)]


def _wrapped(text: str, room: float, size: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if lines[-1] and 1.07 * width_of(longer, size) > room:  # some readers' letters are wide
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _leading(line: Line) -> float:
    return line.size * 1.3


def _bands(rows: Sequence[Sequence[PaperBox]]) -> list[tuple[float, float]]:
    """Top and bottom of each row."""
    bands, y = [], float(HEADING)
    for row in rows:
        bands.append((y, y + max(box.height for box in row)))
        y = bands[-1][1] + BETWEEN
    return bands


def _heading(sheet: Sheet, networks: Sequence[NetworkFacts], boxes: Mapping[str, PaperBox]) -> None:
    papers = sorted((box.paper for box in boxes.values()), key=lambda paper: paper.year)
    title = f"{papers[0].name} to {papers[-1].name}" if len(papers) > 1 else papers[0].name
    sheet.words(MARGIN, MARGIN + 14, title, size=19, bold=True)
    count = f"{many(len(networks), 'network')} of {many(len(papers), 'paper')}. "
    told = (
        "In colour: what the network named costs over its nearest ancestor in an earlier paper, and their top-1 errors,"
        " on ImageNet's validation images unless said, where both were published under one protocol."
    )
    for i, text in enumerate(_wrapped(count + told, WIDTH - 2 * MARGIN, TEXT)):
        sheet.words(MARGIN, MARGIN + 33 + 16 * i, text, "quiet", size=TEXT)


def _years(sheet: Sheet, rows: Sequence[Sequence[PaperBox]]) -> None:
    shown: set[int] = set()
    for box in (row[0] for row in rows):
        if box.paper.year not in shown:
            sheet.words(MARGIN, box.y + PAD + NAME - 2, str(box.paper.year), "quiet", size=16, bold=True)
            shown.add(box.paper.year)


def _lines(
    sheet: Sheet, layout: Layout, boxes: Mapping[str, PaperBox], times: Mapping[str, int],
    bands: Sequence[tuple[float, float]],
) -> None:  # fmt: skip
    """Lines between the rows, in the colour of the paper they leave; heavy towards those it leads."""
    ports = _ports(layout, boxes, times)
    light_first = sorted(layout.links.items(), key=lambda item: _leads(item[0][0][0], item[1], boxes))
    for (upper, lower), children in light_first:
        start, end = ports[upper, lower]
        box = boxes[upper[0]]
        top = box.y + box.height if upper[1] == times[upper[0]] else bands[upper[1]][1]
        bottom = bands[lower[1]][0] if lower[0] != upper[0] else bands[lower[1]][1]
        points = [(start, top), (start, bands[upper[1]][1]), (end, bands[lower[1]][0]), (end, bottom)]
        sheet.flow(points, box.colour, width=2.4 if _leads(upper[0], children, boxes) else 1)


def _leads(name: str, children: Iterable[str], boxes: Mapping[str, PaperBox]) -> bool:
    return any(boxes[child].first == name for child in children)


def _ports(
    layout: Layout, boxes: Mapping[str, PaperBox], times: Mapping[str, int]
) -> dict[tuple[Place, Place], tuple[float, float]]:
    """Where each line begins and ends: on the sides of boxes as straight below each other as may be, and apart."""

    def sides(place: Place) -> tuple[float, float]:
        return boxes[place[0]].sides if times[place[0]] == place[1] else (layout.x[place], layout.x[place])

    wanted = {}
    for upper, lower in layout.links:
        (a, b), (c, d) = sides(upper), sides(lower)
        middle = (layout.x[upper] + layout.x[lower]) / 2
        shared = min(max(middle, a, c), b, d)
        wanted[upper, lower] = [min(max(shared, a), b), min(max(shared, c), d)]
    for end in (0, 1):
        for place in layout.x:
            links = [link for link in layout.links if link[end] == place]
            links.sort(key=lambda link: (layout.x[link[1 - end]], wanted[link][end]))
            if links and times[place[0]] == place[1]:
                gaps = [APART] * (len(links) - 1)
                found = spread([wanted[link][end] for link in links], gaps, *sides(place))
                for link, x in zip(links, found, strict=True):
                    wanted[link][end] = x
    return {link: (x[0], x[1]) for link, x in wanted.items()}


def _write(sheet: Sheet, box: PaperBox) -> None:
    left, y = box.x - box.width / 2, box.y + PAD - 3
    sheet.box(left, box.y, box.width, box.height, "ground", fill=1)  # nothing shows through
    sheet.box(left, box.y, box.width, box.height, box.colour, fill=0.07)
    for line in box.lines:
        y += _leading(line)
        sheet.words(left + PAD, y - 0.3 * (line.size - 9), line.text, line.colour, size=line.size, bold=line.bold)
    authors = box.paper.authors.split(", ")
    who = f"{authors[0].split()[-1]} et al." if len(authors) > 2 else ", ".join(a.split()[-1] for a in authors)
    if width_of(box.paper.name, NAME) + width_of(who, SMALL) + 3 * PAD < box.width:
        sheet.words(left + box.width - PAD, box.y + PAD + NAME - 3, who, "quiet", size=SMALL, anchor="end")
