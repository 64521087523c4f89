"""Section Q1.2 of the report: the decoder's latent, its channels and their bands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from foresight.reports import latent_figures as figures
from foresight.reports.page import Cell, Figure, Table, number_text
from foresight.reports.q1_rows import Row
from foresight.reports.q1_words import is_control, with_interval
from foresight.reports.tables import interval_cell, known, n_text, number_cell, p_text, value_cell

Parts = tuple[list[str], list[Figure], list[Table]]


def decoder_section(rows: Sequence[Row]) -> Parts:
    """Return sentences, figures and the table of Q1.2."""
    mine = {str(m["name"]): m for m in rows if not is_control(m)}
    copies = {str(m["name"]): m for m in rows if is_control(m)}
    return _text(mine, copies), _pictures(mine, copies), [_table(mine, copies)]


def _text(mine: dict[str, Row], copies: dict[str, Row]) -> list[str]:
    text = []
    channels = mine.get("effective channels")
    if channels and known(channels.get("value")):
        detail = channels["detail"]
        told = f"The variance is spread as over {with_interval(channels)} equal channels of {len(detail['mean'])}"
        constant = detail.get("constant channels", 0)
        text.append(told + (f"; {constant} of them never change." if constant else "."))
    moran, centroid = mine.get("Moran's I"), mine.get("spectral centroid")
    if moran and known(moran.get("value")):
        told = f"Neighbouring cells are alike: Moran's I is {with_interval(moran)}"
        if moran["value"] <= (moran.get("null") or 0.0):
            told = (
                f"Neighbouring cells are no more alike than any others: Moran's I is {with_interval(moran)}"
            )
        copy = copies.get("Moran's I")
        told += f", {number_text(moran['null'])} by chance" if known(moran.get("null")) else ""
        if copy and known(copy.get("value")):
            told += f" and {number_text(copy['value'])} in a copy with random weights"
        text.append(told + ".")
    if centroid and known(centroid.get("value")):
        side = "coarser" if centroid["value"] < centroid["null"] else "no coarser"
        text.append(
            f"The mean frequency of its maps is {with_interval(centroid)} of the highest the grid can hold, {side} "
            f"than white noise ({number_text(centroid['null'])})."
        )
    share = mine.get("class share of channel variance")
    if share and known(share.get("value")):
        above, count = share["detail"]["above chance"], len(share["detail"]["per channel"])
        text.append(
            f"Taken one by one, {above} of {count} channels tell the classes apart better than chance "
            f"(mean share of variance {with_interval(share)}, by chance {number_text(share['null'])})."
        )
    undefined = next((m for m in mine.values() if not known(m.get("value")) and m.get("why")), None)
    if undefined is not None:
        text.append(f"{undefined['name']} is undefined: {undefined['why']}.")
    return text


def _pictures(mine: dict[str, Row], copies: dict[str, Row]) -> list[Figure]:
    made = []
    channels, moran, centroid = (
        _detail(mine, n) for n in ("effective channels", "Moran's I", "spectral centroid")
    )
    if channels.get("variance share"):
        shares = {"trained": channels["variance share"]}
        if (copy := _detail(copies, "effective channels")).get("variance share"):
            shares["random weights"] = copy["variance share"]
        n = n_text(mine["effective channels"])
        largest = number_text(max(channels["variance share"]))
        made.append(
            Figure.of(
                figures.channel_shares(shares),
                name="channel-variance",
                alt=f"Share of variance of {len(channels['variance share'])} channels, the largest {largest}",
                caption=f"Share of the variance over samples and places that each channel holds, n = {n}.",
            )
        )
        made.append(
            Figure.of(
                figures.activations(channels["quantiles"], channels["quantile levels"]),
                name="activations",
                alt=f"Spread of the values of {len(channels['quantiles'])} channels as nested bars",
                caption=f"Values of each channel over samples and places, n = {n}: nested quantile ranges.",
            )
        )
    if moran.get("autocorrelation"):
        made.append(
            Figure.of(
                figures.autocorrelation_map(moran["autocorrelation"]),
                name="autocorrelation",
                alt="Map of the correlation of cells by the rows and columns between them, 1 in the middle",
                caption="How alike two cells of a channel are by how far apart they lie, "
                f"mean over channels and samples, n = {n_text(mine[MORAN])}.",
            )
        )
    if centroid.get("per feature"):
        made.append(
            Figure.of(
                figures.channel_spectra(centroid["per feature"], centroid["centroid per feature"]),
                name="channel-spectra",
                alt=f"Heat map of power by frequency for {len(centroid['per feature'])} channels, coarsest first",
                caption="Which channel is which band: each channel's power by frequency, Hann window, "
                f"n = {n_text(mine['spectral centroid'])}. " + _bands(centroid.get("bands")),
            )
        )
    return made


MORAN = "Moran's I"


def _bands(bands: Any) -> str:
    if not bands:
        return ""
    parts = []
    for band in dict.fromkeys(sorted(bands, key=("coarse", "middle", "fine").index)):
        members = [str(i) for i, b in enumerate(bands) if b == band]
        shown = ", ".join(members[:12]) + (f" and {len(members) - 12} more" if len(members) > 12 else "")
        parts.append(f"{band}: {shown}")
    return "Thirds by mean frequency — " + "; ".join(parts) + "."


def _table(mine: dict[str, Row], copies: dict[str, Row]) -> Table:
    columns = ["metric", "value", "95 % interval", "chance", "p", "n (groups)", "random weights"]
    lines = []
    for name, m in mine.items():
        lines.append(
            [
                Cell(text=name),
                value_cell(m),
                interval_cell(m),
                number_cell(m.get("null")),
                Cell(text=p_text(m.get("p")), kind="number"),
                Cell(text=n_text(m), kind="number"),
                number_cell((copies.get(name) or {}).get("value")),
            ]
        )
    return Table(caption="The decoder's latent", columns=columns, rows=lines)


def _detail(rows: dict[str, Row], name: str) -> dict[str, Any]:
    return dict((rows.get(name) or {}).get("detail") or {})
