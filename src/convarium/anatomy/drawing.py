"""The drawing of a network as the papers' figures have it: its stages in a column, one module of each kind beside it.

What goes on in turn stands one below the other, what goes on side by side stands side by side, and ways are only
bracketed, never woven: no line crosses another.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import accumulate, groupby
from math import ceil

from convarium.anatomy.graph import Node, Parallel, Series, nodes_in
from convarium.anatomy.modules import SEVERAL, Kind, Place, Stage, anatomy, structure
from convarium.network import Network, Shape
from convarium.svg import Sheet, width_of

Point = tuple[int, int]
Common = tuple[list[str], list[str]] | None  # norms and activations before and after every convolution of a module

WIDTH, MARGIN, GAP = 1000, 20, 36  # of the page, around it, between modules
TEXT, SMALL = 12, 11  # sizes of letters
LONGEST = 60  # letters of a list of widths
HALF = 0.5  # a line in the middle of a pixel is sharp
LINE = 15  # from one line of text to the next
PAD = 8  # between a box and its text
DOWN, ACROSS = 18, 14  # between boxes that follow one another, and between ways side by side
FORK = 9  # from a box down to where the ways part
RADIUS = 9  # of the circle of a sum or a product
COLOURS = {"conv": "blue", "fc": "orange", "pool": "pink", "concat": "green", "module": "ink"}


# -- shapes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Word:
    """A line of text on its base line."""

    x: float
    y: float
    text: str
    colour: str = "ink"
    size: float = TEXT
    anchor: str = "start"
    bold: bool = False

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        width = _width(self.text, self.size, self.bold)
        left = self.x - {"start": 0, "middle": width / 2, "end": width}[self.anchor]
        return left, self.y - 0.8 * self.size, left + width, self.y + 0.2 * self.size


@dataclass(frozen=True)
class Box:
    """A rectangle, or a frame around others; with ``radius`` of half its side a circle."""

    x: int
    y: int
    width: int
    height: int
    colour: str = "quiet"
    words: tuple[Word, ...] = ()
    radius: float = 4
    fill: float = 0.12


@dataclass(frozen=True)
class Line:
    """Straight pieces, upright or level."""

    points: tuple[Point, ...]
    arrow: bool = False


@dataclass
class Piece:
    """Part of the drawing. Its way in is at (0, 0); it reaches ``left`` and ``right`` of that, ``height`` down, and its
    ways out are at the bottom, at the ``exits``."""

    left: int = 0
    right: int = 0
    height: int = 0
    exits: list[int] = field(default_factory=lambda: [0])
    boxes: list[Box] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)

    @property
    def width(self) -> int:
        return self.left + self.right

    def line(self, *points: Point, arrow: bool = False) -> None:
        path = [point for i, point in enumerate(points) if i == 0 or point != points[i - 1]]
        if len(path) > 1:
            self.lines.append(Line(tuple(path), arrow))

    def put(self, other: Piece, x: int, y: int) -> None:
        """Draw another piece into this one, its way in at (x, y)."""
        self.left, self.right = max(self.left, other.left - x), max(self.right, other.right + x)
        self.height = max(self.height, y + other.height)
        self.boxes += [_moved_box(box, x, y) for box in other.boxes]
        self.words += [replace(word, x=word.x + x, y=word.y + y) for word in other.words]
        self.lines += [Line(tuple((a + x, b + y) for a, b in line.points), line.arrow) for line in other.lines]


def _moved_box(box: Box, x: int, y: int) -> Box:
    words = tuple(replace(word, x=word.x + x, y=word.y + y) for word in box.words)
    return replace(box, x=box.x + x, y=box.y + y, words=words)


def _width(text: str, size: float = TEXT, bold: bool = False) -> float:
    return width_of(text, size) * (1.08 if bold else 1)


# -- a module ---------------------------------------------------------------------------------------------------------


def draw_series(series: Series, common: Common = None) -> Piece:
    """A series from above to below. Convolutions do not name norms and activations that are the ``common`` ones."""
    piece = Piece()
    for i, item in enumerate(series):
        if isinstance(item, Parallel):
            after = series[i + 1] if i + 1 < len(series) else None
            _draw_ways(piece, item, after if isinstance(after, Node) else None, common)
        elif i == 0 or not isinstance(series[i - 1], Parallel):
            _draw_below(piece, _boxed(item, common))
    return piece


def _draw_below(piece: Piece, box: Piece) -> None:
    """A box under the way out of a piece."""
    y = piece.height
    piece.line((0, y), (0, y + DOWN), arrow=True)
    piece.put(box, 0, y + DOWN)


def _boxed(node: Node, common: Common = None, *, reach: tuple[int, int] | None = None) -> Piece:
    """One box with its text; ``reach``: how far it goes to the left and to the right at least."""
    hidden = node.sort == "conv" and common == (node.before, node.after)
    small = ([], []) if hidden else (node.before, node.after)
    if node.sort == "point":
        small = ([", ".join([*node.before, node.text, *node.after])], [])
        texts = [(small[0][0], SMALL, "quiet")]
    else:
        texts = [(f"{', '.join(small[0])}", SMALL, "quiet")] if small[0] else []
        texts.append((node.label, TEXT, "ink"))
        texts += [(f"{', '.join(small[1])}", SMALL, "quiet")] if small[1] else []
        texts += [(_times(node.times), TEXT, "ink")] if node.times > 1 else []
    badge = 2 * RADIUS + 4 if node.kind else 0
    half = ceil(max(max(width_of(text, size) for text, size, _ in texts) + badge + 2 * PAD, 40) / 2)
    left, right = (max(side, half) for side in reach) if reach else (half, half)
    height = LINE * len(texts) + 9
    middle = (right - left) // 2
    words = [
        Word(middle + badge / 2, 4 + LINE * (i + 1) - 3.5, text, colour, size, "middle")
        for i, (text, size, colour) in enumerate(texts)
    ]
    piece = Piece(left, right, height)
    piece.boxes.append(Box(-left, 0, left + right, height, COLOURS.get(node.sort, "quiet"), tuple(words)))
    if node.kind:
        piece.put(_badge(node.kind), middle - half + PAD + RADIUS, height // 2 - RADIUS)
    return piece


def _badge(number: int) -> Piece:
    """A number in a circle, its centre at (0, RADIUS)."""
    word = Word(0, RADIUS + 4, str(number), "ground", SMALL, "middle", bold=True)
    circle = Box(-RADIUS, 0, 2 * RADIUS, 2 * RADIUS, "ink", (word,), RADIUS, fill=1)
    return Piece(RADIUS, RADIUS, 2 * RADIUS, boxes=[circle])


def _draw_ways(piece: Piece, parallel: Parallel, join: Node | None, common: Common) -> None:
    """Ways side by side under the way out of a piece, and what joins them."""
    sums = join is not None and join.sort == "join"
    ways = [_repeated(draw_series(way, common), times) for way, times in _equal_ways(parallel)]
    places = _beside(ways) if sums else _spread(ways)
    start, top, height = piece.height, piece.height + FORK, max(way.height for way in ways)
    ends: list[Point] = []
    for way, x in zip(ways, places, strict=True):
        # Of a sum, the way straight on begins at once, the others stand at half height; of others all end together.
        above = 0 if sums and x == 0 else (height - way.height) // (2 if sums else 1)
        piece.line((0, start), (0, top), (x, top), (x, top + above))
        piece.put(way, x, top + above)
        ends += [(x + end, top + above + way.height) for end in way.exits]
    bottom = top + height
    if join is None:
        for x, y in ends:
            piece.line((x, y), (x, bottom))
        piece.exits, piece.height = [x for x, _ in ends], bottom
    elif sums:
        _draw_circle(piece, join, ends, bottom + DOWN)
    else:
        reach = ways[0].left - places[0], places[-1] + ways[-1].right
        _draw_wide(piece, join, ends, bottom + DOWN, reach, common)


def _equal_ways(parallel: Parallel) -> list[tuple[Series, int]]:
    """The ways to draw, and how often each stands there."""
    grouped: list[tuple[Series, int]] = []
    for _, together in groupby(parallel.ways, key=lambda way: structure(way, widths=True)):
        equal = list(together)
        grouped += [(equal[0], len(equal))] if len(equal) >= SEVERAL else [(way, 1) for way in equal]
    return grouped


def _repeated(way: Piece, times: int) -> Piece:
    """A way that stands there several times, in a frame with the number."""
    if times == 1:
        return way
    text = f"× {times}"
    gap, half = 6, ceil(width_of(text, TEXT)) + 6
    framed = Piece(exits=way.exits)
    framed.line((0, 0), (0, gap + LINE))
    framed.put(way, 0, gap + LINE)
    bottom = framed.height + gap
    for x in way.exits:
        framed.line((x, framed.height), (x, bottom))
    framed.left, framed.right = max(way.left + gap, half), max(way.right + gap, half + 6)
    framed.words.append(Word(6, gap + LINE - 1, text, "ink", TEXT))
    framed.boxes.insert(0, Box(-framed.left, gap, framed.width, bottom - gap, "line", fill=0))
    framed.height = bottom
    return framed


def _spread(ways: list[Piece]) -> list[int]:
    """Where ways begin that stand to both sides of the line they come from."""
    ends = list(accumulate(way.width + ACROSS for way in ways))
    begins = [end - ACROSS - way.right for end, way in zip(ends, ways, strict=True)]
    half = len(ways) // 2
    middle = begins[half] if len(ways) % 2 else (begins[half - 1] + begins[half]) // 2
    return [x - middle for x in begins]


def _beside(ways: list[Piece]) -> list[int]:
    """Where ways begin of which the first goes straight on and the others pass it on the right."""
    places, right = [0], ways[0].right
    for way in ways[1:]:
        places.append(right + ACROSS + max(way.left, 2))
        right = places[-1] + way.right
    return places


def _draw_circle(piece: Piece, join: Node, ends: list[Point], top: int) -> None:
    """A sum or a product: one way comes from above, the others from the side."""
    centre = top + RADIUS
    for x, y in ends:
        if x == 0:
            piece.line((0, y), (0, top), arrow=True)
        else:
            piece.line((x, y), (x, centre), (RADIUS if x > 0 else -RADIUS, centre), arrow=True)
    sign = Word(0, RADIUS + 5, join.text, "ink", 15, "middle")
    circle = Piece(RADIUS, RADIUS, 2 * RADIUS, boxes=[Box(-RADIUS, 0, 2 * RADIUS, 2 * RADIUS, "ink", (sign,), RADIUS)])
    piece.put(circle, 0, top)
    piece.exits = [0]
    if join.after:
        _draw_below(piece, _boxed(Node("point", join.after[0], after=join.after[1:])))


def _draw_wide(piece: Piece, join: Node, ends: list[Point], top: int, reach: tuple[int, int], common: Common) -> None:
    """A box as wide as the ways that end in it."""
    for x, y in ends:
        piece.line((x, y), (x, top), arrow=True)
    piece.put(_boxed(join, common, reach=reach), 0, top)
    piece.exits = [0]


def _draw_kind(kind: Kind) -> tuple[Piece, Piece]:
    """One kind of module: number and name, and the drawing; equally wide, their left edges at x = 0."""
    common = _common(kind.series)
    body = draw_series(kind.series, common)
    head = _heading(kind, common)
    foot = _other_places(kind, max(body.width, 190))
    width = max(body.width, head.right, foot.right)
    x, piece = body.left + max(0, (min(width, 240) - body.width) // 2), Piece(right=width)
    piece.words.append(Word(x, SMALL, _size(kind.input), "quiet", SMALL, "middle"))
    piece.put(body, x, LINE + 1)
    bottom = piece.height
    piece.line((x, bottom), (x, bottom + DOWN), arrow=True)
    piece.words.append(Word(x, bottom + DOWN + SMALL, _size(kind.output), "quiet", SMALL, "middle"))
    piece.height = bottom + DOWN + LINE
    if foot.height:
        piece.put(foot, 0, bottom + DOWN + 2 * LINE)
    return head, piece


def _heading(kind: Kind, common: Common) -> Piece:
    piece = Piece()
    piece.put(_badge(kind.number), RADIUS, 0)
    title = kind.inside or _place(kind.places[0])
    piece.words.append(Word(2 * RADIUS + 6, RADIUS + 5, title, bold=True, size=13))
    texts = [f"inside {', '.join(map(str, kind.within))}"] if kind.within else []
    if common:
        parts = [(" + ".join(common[0]), "before"), (" + ".join(common[1]), "after")]
        texts.append(f"{', '.join(f'{names} {where}' for names, where in parts if names)} every conv")
    _add_lines(piece, texts, 2 * RADIUS)
    piece.height += 8
    return piece


def _other_places(kind: Kind, width: int) -> Piece:
    """Where else such modules stand, and with what widths."""
    first = None if kind.inside else kind.places[0]

    def said(place: Place) -> str:
        alike = first is not None and place.widths == first.widths
        return "" if alike or len(place.widths) > LONGEST else place.widths

    piece = Piece()
    texts: list[str] = []
    for widths, places in groupby((place for place in kind.places if place is not first), key=said):
        texts += _wrapped("" if texts else "also", [_place(place) for place in places], width)
        texts[-1] += f": {widths}" if widths else ""
    _add_lines(piece, texts, 0)
    return piece


def _add_lines(piece: Piece, texts: list[str], top: int) -> None:
    for i, text in enumerate(texts):
        piece.words.append(Word(0, top + LINE * (i + 1) - 1, text, "quiet", SMALL))
    piece.right = max([piece.right, *(ceil(word.extent[2]) for word in piece.words)])
    piece.height = max(piece.height, top + LINE * len(texts))


def _common(series: Series) -> Common:
    """The norms and activations of the convolutions of a module, where they are the same in all of them."""
    found = {(tuple(node.before), tuple(node.after)) for node in nodes_in(series) if node.sort == "conv"}
    if len(found) != 1:
        return None
    before, after = found.pop()
    return (list(before), list(after)) if before or after else None


def _place(place: Place) -> str:
    """``conv2_x``, ``conv2_x 1 of 3``, ``conv2_x 2-3 of 3``."""
    if place.of == 1:
        return place.stage
    if len(place.positions) == place.of:
        return f"{place.stage} × {place.of}"
    runs: list[list[int]] = []
    for position in place.positions:
        if runs and position == runs[-1][-1] + 1:
            runs[-1].append(position)
        else:
            runs.append([position])
    spans = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return f"{place.stage} {spans} of {place.of}"


def _wrapped(start: str, places: list[str], width: int) -> list[str]:
    """``start`` and the places in lines that are about as wide as ``width``; none is cut."""
    lines = [start]
    for i, place in enumerate(places):
        text = place + ("," if i < len(places) - 1 else "")
        if width_of(f"{lines[-1]} {text}", SMALL) > width and lines[-1] != start:
            lines.append(text)
        else:
            lines[-1] = f"{lines[-1]} {text}".strip()
    return lines


def _size(shape: Shape) -> str:
    return "x".join(map(str, shape))


# -- the stages -------------------------------------------------------------------------------------------------------


def _draw_stages(stages: list[Stage]) -> Piece:
    """The stages from above to below, all as wide as the widest; the left edge at x = 0."""
    rows = [_Row.of(stage) for stage in stages]
    width = 2 * ceil(max(250, *(row.width for row in rows)) / 2)
    piece = Piece()
    for i, row in enumerate(rows):
        if i:
            piece.line((width // 2, piece.height), (width // 2, piece.height + 14), arrow=True)
        piece.put(row.drawn(width), 0, piece.height + (14 if i else 0))
    return piece


@dataclass
class _Row:
    """A stage: name and output; what it is made of, and its counts."""

    stage: Stage
    texts: list[str]
    badges: list[tuple[int, int]]
    counts: str

    @staticmethod
    def of(stage: Stage) -> _Row:
        from convarium.console import short

        texts = [" + ".join([*node.before, node.label, *node.after]) for node in stage.series]
        if not texts and not stage.modules and len(stage.output) == 1:
            texts = ["flatten"]
        badges = [(number, len(list(run))) for number, run in groupby(kind.number for kind in stage.modules)]
        counts = f"{short(stage.params)}, {short(stage.macs)}" if stage.params or stage.macs else ""
        return _Row(stage, texts, badges, counts)

    @property
    def width(self) -> float:
        head = _width(self.stage.name, 13, bold=True) + 20 + _width(_size(self.stage.output))
        return 2 * PAD + max(head, self._first_line() + 20 + _width(self.counts, SMALL), *map(_width, self.texts), 0)

    def _first_line(self) -> float:
        badges = sum(2 * RADIUS + 12 + (_width(_times(count)) if count > 1 else 0) for _, count in self.badges)
        return badges if self.badges else _width(self.texts[0]) if self.texts else 0

    def drawn(self, width: int) -> Piece:
        lines = max(1, len(self.texts))
        height = 2 * LINE + 11 + LINE * (lines - 1)
        words = [
            Word(PAD, LINE + 2, self.stage.name, size=13, bold=True),
            Word(width - PAD, LINE + 2, _size(self.stage.output), anchor="end"),
            Word(width - PAD, 2 * LINE + 3, self.counts, "quiet", SMALL, "end"),
        ]
        words += [Word(PAD, LINE * (i + 2) + 3, text) for i, text in enumerate(self.texts)]
        piece, x = Piece(0, width, height), PAD
        for number, count in self.badges:
            piece.put(_badge(number), x + RADIUS, 2 * LINE - RADIUS - 1)
            x += 2 * RADIUS + 4
            if count > 1:
                words.append(Word(x, 2 * LINE + 3, _times(count)))
                x += ceil(_width(_times(count)))
            x += 8
        sorts = [node.sort for node in self.stage.series if node.sort in COLOURS]
        colour = COLOURS[sorts[0]] if sorts else "ink" if self.badges else "quiet"
        piece.boxes.insert(
            0,
            Box(
                0,
                0,
                width,
                height,
                colour,
                tuple(word for word in words if word.text),
                fill=0.05 if self.badges else 0.12,
            ),
        )
        return piece


def _times(count: int) -> str:
    return f"× {count}"


# -- the page ---------------------------------------------------------------------------------------------------------


def layout(model: Network, input_size: Shape) -> Piece:
    """Everything on the page, at its place in pixels from the upper left corner.

    Raises:
        UsageError: an image too small for the network.
    """
    from convarium.console import short

    stages, kinds = anatomy(model, input_size)
    page = Piece()
    params, macs = (short(sum(getattr(stage, what) for stage in stages)) for what in ("params", "macs"))
    page.words.append(Word(MARGIN, 38, model.name, size=20, bold=True))
    page.words.append(Word(MARGIN, 58, f"{_size(input_size)} images; {params} parameters, {macs} MACs", "quiet", 13))
    page.words.append(Word(MARGIN, 86, "stage and output; parameters, MACs", "quiet", SMALL))
    column = _draw_stages(stages)
    page.put(column, MARGIN, 94)
    _put_in_rows(page, [_draw_kind(kind) for kind in kinds], MARGIN + column.width, page.height)
    page.right += MARGIN
    page.height += MARGIN
    return page


def _put_in_rows(page: Piece, kinds: list[tuple[Piece, Piece]], column: int, column_end: int) -> None:
    """Modules in rows, right of the column of stages and, where that has ended, under it too."""
    y, waiting = 80, list(kinds)
    while waiting:
        x = MARGIN if y > column_end else column + GAP
        row = [waiting.pop(0)]
        while waiting and x + sum(body.width + GAP for _, body in [*row, waiting[0]]) - GAP <= WIDTH - MARGIN:
            row.append(waiting.pop(0))
        lowest = max(head.height for head, _ in row)
        for head, body in row:
            page.put(head, x, y)
            page.put(body, x, y + lowest)
            x += body.width + GAP
        y += lowest + max(body.height for _, body in row) + GAP


def draw(model: Network, input_size: Shape) -> str:
    """The drawing of a network for images ``(channels, height, width)``, as SVG.

    Raises:
        UsageError: an image too small for the network.
    """
    page, sheet = layout(model, input_size), Sheet()
    for box in page.boxes:
        sheet.box(box.x + HALF, box.y + HALF, box.width, box.height, box.colour, fill=box.fill, radius=box.radius)
    for line in page.lines:
        sheet.line([(x + HALF, y + HALF) for x, y in line.points], arrow=line.arrow)
    for word in [*page.words, *(word for box in page.boxes for word in box.words)]:
        sheet.words(word.x, word.y, word.text, word.colour, size=word.size, anchor=word.anchor, bold=word.bold)
    return sheet.render(max(page.right, 400), page.height, f"The network {model.name}")
