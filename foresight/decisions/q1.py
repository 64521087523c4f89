"""The Q1 decision: four thresholds, the composite's band, the failure criteria, the adapter to build."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from foresight.decisions.budget import cross_attention_parameters, mlp_parameters, mlp_width_for
from foresight.decisions.verdicts import OPEN, Verdict, gate, judge, number, threshold_table

Numbers = Mapping[str, Any]
"""An estimate as plain values: value, low, high, null, p, n, why."""
ABSENT: Numbers = {"value": None, "why": "it was not measured in this run"}


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """One failure criterion of the plan's section 6 and whether it holds."""

    name: str
    title: str
    state: str
    """'TRIGGERED', 'NOT TRIGGERED' or "CAN'T TELL"."""
    why: str
    source: str
    rule: str


@dataclass(frozen=True, kw_only=True)
class Q1Decision:
    """PROCEED, PIVOT or CAN'T TELL, and everything it was decided on."""

    overall: str
    reasons: tuple[str, ...]
    open_questions: tuple[str, ...]
    """Criteria nothing could be said about, and controls that weaken a PASS. They do not block."""
    verdicts: tuple[Verdict, ...]
    composite: Mapping[str, Any]
    """The estimate: value, low, high, n, why …"""
    band: Mapping[str, Any]
    """word, meaning, settled (the whole interval lies in it), why."""
    criteria: tuple[Criterion, ...]
    adapter: Mapping[str, Any]
    """adapter, title, budget [low, high] in parameters, alternative, designs with their real counts, why."""
    best_point: str = ""
    rules: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain = asdict(self) | {"verdicts": [v.to_json() for v in self.verdicts]}
        result: dict[str, Any] = _plain(plain)
        return result


def q1_decision(
    *,
    r2: Numbers,
    spearman: Numbers,
    recall: Numbers,
    cka: Numbers,
    composite: Numbers,
    recall_by_k: Mapping[int, Numbers] | None = None,
    dimension_vlm: Numbers = ABSENT,
    dimension_decoder: Numbers = ABSENT,
    isomap_vlm: Numbers = ABSENT,
    isomap_decoder: Numbers = ABSENT,
    decoder_semantics: Numbers = ABSENT,
    vlm_spatial: Numbers = ABSENT,
    random_weights: Mapping[str, Numbers] | None = None,
    best_point: str = "",
    vlm_width: int | None = None,
    decoder_channels: int | None = None,
    decoder_cells: int | None = None,
) -> Q1Decision:
    """Decide Q1 from its measured parts, at the best extraction point.

    `recall` is Recall@10 and `recall_by_k` the same at other k; `decoder_semantics` is the decoder's k-NN
    label accuracy with its chance level as `null`; `vlm_spatial` the R² of a position probe, whose `null` is 0,
    what mean-pooled tokens give. `random_weights` holds the four primary numbers of a copy with random weights, by
    'q1.r2' …, and under 'q1.fail.spatial' the R² of its position probe, with the `difference` {value, low, high} by
    which the model's own is higher where that was measured. The widths (features of a VLM token, decoder channels,
    decoder cells of one sample) size the adapter; without them no count is given.
    """
    table, copies = threshold_table("q1"), random_weights or {}
    primary = {"q1.r2": r2, "q1.spearman": spearman, "q1.recall@10": recall, "q1.cka": cka}
    verdicts = tuple(judge(name, primary[name]) for name in table["must_pass"])
    criteria = (
        _below(table, "q1.fail.linear", "R²", r2),
        _below(table, "q1.fail.structure", "Spearman ρ", spearman),
        _neighbours(table, recall, recall_by_k or {}),
        _dimension(table, dimension_vlm, dimension_decoder),
        _topology(table, isomap_vlm, isomap_decoder),
        _against_null(table, "q1.fail.semantics", "decoder label accuracy", decoder_semantics),
        _spatial(table, vlm_spatial, copies.get("q1.fail.spatial", ABSENT)),
    )
    overall, reasons = gate(verdicts, triggered=[c.title for c in criteria if c.state == "TRIGGERED"])
    band = _band(table["composite"]["bands"], composite)
    return Q1Decision(
        overall=overall,
        reasons=tuple(reasons),
        open_questions=tuple(_open(criteria, verdicts, copies, vlm_spatial)),
        verdicts=verdicts,
        composite=dict(composite),
        band=band,
        criteria=criteria,
        adapter=_adapter(table, composite, vlm_width, decoder_channels, decoder_cells),
        best_point=best_point,
        rules=table["overall"] | {"composite": table["composite"]["rule"]},
    )


def _interval(e: Numbers) -> tuple[float, float, float]:
    return number(e.get("value")), number(e.get("low")), number(e.get("high"))


def _known(*numbers: float) -> bool:
    return not any(math.isnan(x) for x in numbers)


def _criterion(table: Mapping[str, Any], name: str, state: str, why: str) -> Criterion:
    row = table["failure"][name]
    return Criterion(
        name=name, title=row["title"], state=state, why=why, source=row["source"], rule=row["rule"]
    )


def _missing(table: Mapping[str, Any], name: str, what: str, e: Numbers) -> Criterion:
    return _criterion(table, name, OPEN, f"{what} cannot be read: {e.get('why') or 'it has no interval'}")


def _below(table: Mapping[str, Any], name: str, what: str, e: Numbers) -> Criterion:
    limit = table["failure"][name]["limit"]
    value, low, high = _interval(e)
    if not _known(value, low, high):
        return _missing(table, name, what, e)
    numbers = f"{what} is {value:.3f} [{low:.3f}, {high:.3f}] against {limit:g}"
    state = "TRIGGERED" if high < limit else "NOT TRIGGERED" if low >= limit else OPEN
    return _criterion(table, name, state, numbers)


def _neighbours(table: Mapping[str, Any], e: Numbers, by_k: Mapping[int, Numbers]) -> Criterion:
    name = "q1.fail.neighbours"
    value, low, high = _interval(e)
    if not _known(value, low, high):
        return _missing(table, name, "Recall@10", e)
    chance = number(e.get("null"))
    bar = max(table["failure"][name]["limit"], 0.0 if math.isnan(chance) else chance)
    cleared = []
    for k, part in sorted(by_k.items()):
        bound, null = number(part.get("low")), number(part.get("null"))
        if _known(bound, null) and bound > null:
            cleared.append(k)
    numbers = (
        f"Recall@10 is {value:.3f} [{low:.3f}, {high:.3f}] against a bar of {bar:.3f} (chance {chance:.3f})"
    )
    if cleared:
        numbers += f"; chance is cleared at k = {', '.join(map(str, cleared))}"
    if high < bar and not cleared:
        return _criterion(table, name, "TRIGGERED", numbers)
    return _criterion(table, name, "NOT TRIGGERED" if low >= bar or cleared else OPEN, numbers)


def _dimension(table: Mapping[str, Any], vlm: Numbers, decoder: Numbers) -> Criterion:
    name = "q1.fail.dimension"
    (v, v_low, v_high), (d, d_low, d_high) = _interval(vlm), _interval(decoder)
    if not _known(v, v_low, v_high):
        return _missing(table, name, "the VLM's dimension", vlm)
    if not _known(d, d_low, d_high):
        return _missing(table, name, "the decoder's dimension", decoder)
    if min(v_low, d_low) <= 0:
        return _criterion(table, name, OPEN, "a dimension's interval reaches 0, so the ratio is unbounded")
    limit = table["failure"][name]["limit"]
    low, high = d_low / v_high, d_high / v_low
    numbers = (
        f"decoder {d:.1f} over VLM {v:.1f} is {d / v:.2f} [{low:.2f}, {high:.2f}] "
        f"against {limit:g}x either way"
    )
    if low > limit or high < 1 / limit:
        return _criterion(table, name, "TRIGGERED", numbers)
    inside = low >= 1 / limit and high <= limit
    return _criterion(table, name, "NOT TRIGGERED" if inside else OPEN, numbers)


def _topology(table: Mapping[str, Any], vlm: Numbers, decoder: Numbers) -> Criterion:
    a, b = number(vlm.get("value")), number(decoder.get("value"))
    if not _known(a, b):
        return _missing(table, "q1.fail.topology", "the Isomap residual", vlm if math.isnan(a) else decoder)
    return _criterion(
        table, "q1.fail.topology", OPEN,
        f"Isomap residuals are {a:.3f} (VLM) and {b:.3f} (decoder); the plan sets no limit for them",
    )  # fmt: skip


def _against_null(table: Mapping[str, Any], name: str, what: str, e: Numbers) -> Criterion:
    value, low, high = _interval(e)
    null, p = number(e.get("null")), number(e.get("p"))
    if not _known(value, low, high, null):
        return _missing(table, name, f"the {what}", e)
    numbers = f"{what} is {value:.3f} [{low:.3f}, {high:.3f}] against {null:.3f} by chance"
    if high <= null:
        return _criterion(table, name, "TRIGGERED", numbers)
    clear = low > null and not p > 0.05
    return _criterion(table, name, "NOT TRIGGERED" if clear else OPEN, numbers)


def _spatial(table: Mapping[str, Any], e: Numbers, copy: Numbers) -> Criterion:
    found = _against_null(table, "q1.fail.spatial", "position probe", e)
    beside = number(copy.get("value"))
    if not _known(beside):
        return found
    return replace(found, why=f"{found.why}; a copy with random weights reads {beside:.3f}")


def _row_of(bands: Sequence[Mapping[str, Any]], score: float) -> Mapping[str, Any]:
    for row in bands:
        above = row["above"]
        if above is None or score > above or (row["inclusive"] and score == above):
            return row
    raise AssertionError("the last band has no lower border")


def _band(bands: Sequence[Mapping[str, Any]], composite: Numbers) -> dict[str, Any]:
    value, low, high = _interval(composite)
    if not _known(value):
        why = f"the composite is undefined: {composite.get('why') or 'a part of it is'}"
        return {"word": OPEN, "meaning": "no band without a score", "settled": False, "why": why}
    row = _row_of(bands, value)
    result = {"word": row["word"], "meaning": row["meaning"], "settled": False}
    if not _known(low, high):
        return result | {"why": f"{value:.3f} has no interval, so its neighbours are not excluded"}
    ends = [_row_of(bands, low)["word"], _row_of(bands, high)["word"]]
    interval = f"{value:.3f} [{low:.3f}, {high:.3f}]"
    if ends[0] == ends[1]:
        return result | {"settled": True, "why": f"the whole interval {interval} lies in this band"}
    return result | {"why": f"{interval} runs from {ends[0]} to {ends[1]}"}


def _adapter(
    table: Mapping[str, Any], composite: Numbers, width: int | None, channels: int | None, cells: int | None
) -> dict[str, Any]:
    value, low, _ = _interval(composite)
    if not _known(value):
        return {"adapter": None, "title": "no recommendation", "budget": None, "alternative": None,
                "designs": [], "why": "the composite is undefined"}  # fmt: skip
    # the lower bound decides: an adapter too large is cheaper to find out than one too small
    bound = low if _known(low) else value
    kind = _row_of(table["composite"]["bands"], bound)["adapter"]
    other = _row_of(table["composite"]["section_7"], bound)["adapter"]
    row = table["adapters"][kind]
    budget = None if row["high"] is None else [row["low"], row["high"]]
    sized = None not in (width, channels, cells) and budget is not None
    why = (
        f"the lower bound of the composite is {bound:.3f}" if _known(low) else f"the composite is {value:.3f}"
    )
    return {
        "adapter": kind,
        "title": row["title"],
        "budget": budget,
        "alternative": None if other == kind else f"{table['adapters'][other]['title']} (section 7's table)",
        "designs": _designs(kind, int(width), int(channels), int(cells), row) if sized else [],  # type: ignore[arg-type]
        "why": why if sized or budget is None else f"{why}; without the widths no parameters were counted",
        "source": row["source"],
    }


def _designs(
    kind: str, width: int, channels: int, cells: int, row: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return concrete designs with real counts: the plan's form, and one that meets the budget."""
    flat = channels * cells
    designs: list[tuple[str, int]] = []
    if kind == "linear":
        designs.append((f"one linear map to the whole latent, {width}→{flat}", mlp_parameters([width, flat])))
        designs.append((f"one linear map per token, {width}→{channels}", mlp_parameters([width, channels])))
    elif kind == "mlp":
        as_planned = [width, 2048, 2048, flat]
        designs.append(
            (f"MLP to the whole latent, {'→'.join(map(str, as_planned))}", mlp_parameters(as_planned))
        )
        h = mlp_width_for(2 * row["low"], source=width, target=channels)
        designs.append(
            (f"MLP per token, {width}→{h}→{h}→{channels}", mlp_parameters([width, h, h, channels]))
        )
    else:
        shape = {"source": width, "queries": cells, "target": channels}
        planned = cross_attention_parameters(width=channels, layers=1, **shape)
        designs.append((f"one attention block, width {channels}", planned))
        deep = {"layers": 8, **shape}
        h = next(w for w in range(64, 8193, 64) if cross_attention_parameters(width=w, **deep) >= row["low"])
        designs.append((f"8 attention blocks, width {h}", cross_attention_parameters(width=h, **deep)))
    return [
        {"design": name, "parameters": count, "in_budget": row["low"] <= count <= row["high"]}
        for name, count in designs
    ]


def _open(
    criteria: Sequence[Criterion],
    verdicts: Sequence[Verdict],
    random_weights: Mapping[str, Numbers],
    spatial: Numbers,
) -> list[str]:
    lines = [f"{c.title}: {c.why}" for c in criteria if c.state == OPEN]
    for c in criteria:
        if c.name == "q1.fail.spatial" and c.state == "NOT TRIGGERED":
            lines += _untrained_places(c, spatial, random_weights.get(c.name, ABSENT))
    for v in verdicts:
        control = number(random_weights.get(v.name, {}).get("value"))
        if v.verdict == "PASS" and control > v.threshold:
            lines.append(
                f"{v.title}: a copy with random weights reaches {control:.3f}, "
                "so passing says little about training"
            )
    return lines


def _untrained_places(c: Criterion, e: Numbers, copy: Numbers) -> list[str]:
    """Say that places are read from a copy with random weights no worse; [] where they are, or no copy was read."""
    beside, (value, low, high) = number(copy.get("value")), _interval(e)
    if not _known(beside):
        return []
    gain, least, most = _interval(copy.get("difference") or {})
    if _known(gain, least, most):
        above, how = least > 0, f"the difference is {gain:.3f} [{least:.3f}, {most:.3f}]"
    else:
        above, how = beside < low, f"its interval is [{low:.3f}, {high:.3f}]"
    if above:
        return []
    return [
        f"{c.title}: not triggered, but the position probe's {value:.3f} is not above the {beside:.3f} of a copy with "
        f"random weights ({how}), so tokens that tell their place say little about training"
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) or (hasattr(value, "__float__") and not isinstance(value, int | str | bool)):
        return float(value) if math.isfinite(value) else None
    return value
