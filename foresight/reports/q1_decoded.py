"""The part of section Q1.4 that shows pictures: what a linear map predicts at the best point, decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from foresight.reports import c1_pictures
from foresight.reports.page import Cell, Figure, Table, number_text
from foresight.reports.q1_rows import Row, is_decoded, lower_is_better
from foresight.reports.q1_words import with_interval
from foresight.reports.tables import interval_text, known, n_text, p_text, point_name
from foresight.studies.decoded import GAIN, OF
from foresight.studies.reconstruction import MEAN_IMAGE, ONE_COLOUR, POOLED, RANDOM, ROUND_TRIP, TOKENS

if TYPE_CHECKING:
    from foresight.reports.q1 import Q1Inputs

Parts = tuple[list[str], list[Figure], list[Table]]

PREDICTION, LPIPS = "prediction", "LPIPS"
BESIDE = (ROUND_TRIP, RANDOM, POOLED, MEAN_IMAGE, ONE_COLOUR)


def decoded_part(inputs: Q1Inputs, rows: Sequence[Row]) -> Parts:
    """Return sentences, the gallery and the table of the decoded prediction; why there is none where there is none."""
    mine = {str(m["name"]).removesuffix(f" {OF}"): m for m in rows if is_decoded(m)}
    if not mine:
        return ([f"No prediction was decoded: {inputs.undecoded}."] if inputs.undecoded else []), [], []
    if not any(known(m.get("value")) for m in mine.values()):
        why = next(iter(mine.values())).get("why")
        return [f"No prediction could be decoded and scored: {why}."], [], []
    return _text(mine), _gallery(inputs, mine), [_table(mine)]


def _text(mine: Mapping[str, Row]) -> list[str]:
    """Say how close the pictures come by the first number, and what of that is training's."""
    name, m = next(iter(mine.items()))
    controls = m.get("controls") or {}
    said = {ROUND_TRIP: "the decoder's own round trip", POOLED: "mean-pooled tokens"}
    told = [f"{words} {number_text(controls[c])}" for c, words in said.items() if known(controls.get(c))]
    told += [f"the better constant picture {number_text(m['null'])}"] if known(m.get("null")) else []
    side = "lower" if lower_is_better(name) else "higher"
    lines = [
        f"Decoded to pictures, what a linear map predicts at {point_name(m)} has a {name} of {with_interval(m)}, "
        f"{side} being better; beside it stand {', '.join(told)}."
    ]
    if name != LPIPS:
        lines[0] += (
            f" {name[0].upper() + name[1:]} is not {LPIPS} and not comparable with the threshold for it."
        )
    gain = (m.get("detail") or {}).get(GAIN) or {}
    if known(controls.get(RANDOM)):
        line = f"A copy with random weights reaches {number_text(controls[RANDOM])} at the same point"
        if known(gain.get("low")):
            line += f": on the same samples, trained minus random weights is {with_interval(gain)}"
            if gain["low"] <= 0 <= gain["high"]:
                line += ", which does not exclude that training adds nothing there"
            elif (gain["value"] < 0) != lower_is_better(name):
                line += ", so training makes it worse there"
        lines.append(f"{line}.")
    ssim = mine.get("SSIM")
    if ssim and known(ssim.get("null")) and known(ssim.get("value")) and ssim["value"] <= ssim["null"]:
        lines.append(
            f"By SSIM ({number_text(ssim['value'])}) the pictures are no better than a constant one "
            f"({number_text(ssim['null'])}), so SSIM says nothing here."
        )
    return lines


def _gallery(inputs: Q1Inputs, mine: Mapping[str, Row]) -> list[Figure]:
    truth, *_ = inputs.decoded.values() or ([],)
    names = {ROUND_TRIP: ROUND_TRIP, TOKENS: PREDICTION, RANDOM: RANDOM}
    lines = {words: inputs.decoded[n] for n, words in names.items() if n in inputs.decoded}
    if not truth or PREDICTION not in lines:
        return []
    m = next(iter(mine.values()))
    return [
        Figure.of(
            c1_pictures.rebuilt(truth, lines, differences=[PREDICTION]),
            name="decoded-prediction",
            wide=True,
            alt=f"{len(truth)} samples and below them {', '.join(lines)}, and how far the prediction is from the input",
            caption=f"{len(truth)} of the {m['n']} scored samples, none of them seen by the map that predicts them at "
            f"{point_name(m)}.",
        )
    ]


def _table(mine: Mapping[str, Row]) -> Table:
    first = next(iter(mine.values()))
    lines = [[Cell(text=PREDICTION), *(_value(m) for m in mine.values())]]
    held = [c for c in BESIDE if any(c in (m.get("controls") or {}) for m in mine.values())]
    for control in held:
        values = [(m.get("controls") or {}).get(control) for m in mine.values()]
        lines.append([Cell(text=control), *(_number(number_text(v) if known(v) else "") for v in values)])
    gains = [(m.get("detail") or {}).get(GAIN) or {} for m in mine.values()]
    if any(map(known, (g.get("value") for g in gains))):
        shown = [
            f"{number_text(g['value'])} {interval_text(g)}" if known(g.get("value")) else "" for g in gains
        ]
        lines.append([Cell(text=f"prediction {GAIN}"), *map(_number, shown)])
    p = [p_text(m.get("p")) if known(m.get("p")) else "" for m in mine.values()]
    lines.append([Cell(text="p against the best without places"), *map(_number, p)])
    return Table(
        caption=f"The decoded prediction at {point_name(first)}, n = {n_text(first)}: ↓ lower, ↑ higher is better",
        columns=["", *(f"{n} {'↓' if lower_is_better(n) else '↑'}" for n in mine)],
        rows=lines,
    )


def _value(m: Row) -> Cell:
    if known(m.get("value")):
        return _number(f"{number_text(m['value'])} {interval_text(m)}")
    return Cell(text=f"n/a ({m.get('why')})", kind="undefined")


def _number(text: str) -> Cell:
    return Cell(text=text or "–", kind="number")
