"""README's table of model families, made from the cards: `python -m flows.families` writes it there again."""

from __future__ import annotations

import re
from pathlib import Path

from foresight import models
from foresight.models import Card

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- families: python -m flows.families -->\n", "<!-- /families -->\n"
UNPINNED = "°"
CLIP_FRAMES = 17
"""A clip that every family takes; what else it takes is told beside."""


def table() -> str:
    """Return the Markdown table: one line a family, its cards, points, inputs and grids."""
    families: dict[str, list[Card]] = {}
    for card in models.cards().values():
        if card.family != "declared":
            families.setdefault(card.family, []).append(card)
    lines = ["| cards | role | points | plans | grid of a still; of 17 frames |", "|---|---|---|---|---|"]
    order = ("vlm", "encoder", "decoder")
    for cards in sorted(families.values(), key=lambda cards: order.index(cards[0].role)):
        cells = (_names(cards), cards[0].role, _points(cards), _plans(cards[0]), _grids(cards[0]))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def written(text: str) -> str:
    """Return a README with the table of the cards as they are now between its two marks."""
    head, _, rest = text.partition(BEGIN)
    if END not in rest:
        raise ValueError(f"the table stands between {BEGIN.strip()} and {END.strip()}, but one is missing")
    return head + BEGIN + table() + END + rest.partition(END)[2]


def _names(cards: list[Card]) -> str:
    marked = (f"`{c.name}`{'' if c.tiny or c.revision else UNPINNED}" for c in cards)
    return ", ".join(marked)


def _points(cards: list[Card]) -> str:
    """Return the points of all cards, numbered ones as a range; other last numbers of smaller cards in brackets."""
    levels: dict[str, None] = {}
    last: dict[str, dict[int, None]] = {}
    for card in cards:
        highest: dict[str, int] = {}
        for point in models.points(card):
            numbered = re.fullmatch(r"([a-z]+\.)(\d+)(?:@(.+))?", point.name)
            if numbered and numbered[3]:
                levels[numbered[3]] = None
            name = numbered[1] if numbered else point.name
            highest[name] = max(int(numbered[2]) if numbered else 0, highest.get(name, 0))
        for name, number in highest.items():
            last.setdefault(name, {})[number] = None
    at = "@LEVEL" if levels else ""
    found = []
    for name, numbers in last.items():
        most, *others = sorted(numbers, reverse=True)
        if not most:
            found.append(f"`{name}`")
            continue
        rest = f" ({', '.join(map(str, others))})" if others else ""
        found.append(f"`{name}1{at}`–`{name}{most}{at}`{rest}")
    return ", ".join(found) + (f"; LEVEL {', '.join(levels)}" if levels else "")


def _plans(card: Card) -> str:
    """Return what the research plans call the points of a family's first card."""
    return ", ".join(f"{plan} `{p.name}`" for p in models.points(card) for plan in p.plans)


def _grids(card: Card) -> str:
    """Return the grids at the last default point, with the lengths and sides that are taken where not all are."""
    family = models.family(card)
    (point,) = (p for p in models.points(card) if p.name == card.default_points[-1])

    def takes(size: tuple[int, int], frames: int) -> bool:
        try:
            family.grid(card, point, size, frames)
        except ValueError:
            return False
        return True

    shapes = (family.grid(card, point, card.size, frames) for frames in (1, CLIP_FRAMES))
    told = "; ".join("×".join(map(str, shape)) for shape in shapes)
    told += f" at {card.size[0]}×{card.size[1]} px"
    lengths = [n for n in range(1, CLIP_FRAMES + 1) if takes(card.size, n)]
    if len(lengths) < CLIP_FRAMES:
        told += f"; clips of {lengths[1] - lengths[0]}k+1 frames"
    sides = [n for n in range(1, 65) if takes((n, n), 1)]
    if len(sides) < 64 // 2:
        told += f", sides of {sides[0]}k px"
    return told


def main() -> None:
    """Write the table into README."""
    README.write_text(written(README.read_text()))


if __name__ == "__main__":
    main()
