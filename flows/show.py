"""What people see in a terminal: tables, progress, where to look. All of it on standard error."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

import store
from flows.compare import Compared
from flows.engine import Outcome
from flows.plan import Plan
from tasks.house import House
from tasks.stages import Look, Stage, shortened

COLOURS = {
    "ready": "green",
    "cached": "green",
    "completed": "cyan",
    "missing": "yellow",
    "waiting": "dim",
    "failed": "red",
    "same": "green",
    "cut off": "green",
    "other": "yellow",
    "new": "cyan",
    "unknown": "dim",
}


MODELS_WIDTH = 110
"""Columns the tables of models fit in."""


def console_of(*, stderr: bool) -> RichConsole:
    """Return a console as wide as the terminal; wide enough for the tables where there is none."""
    console = RichConsole(stderr=stderr)
    return console if console.is_terminal else RichConsole(stderr=stderr, width=150)


class Console:
    """Progress of a run: one bar per stage that works, one line per stage that is done."""

    def __init__(self) -> None:
        self.console = console_of(stderr=True)
        self.bars = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[text]}"),
            console=self.console,
        )
        self._begun = False

    def plan(self, house: House, looks: list[Look]) -> None:
        """Show what is to be done before it is."""
        counts = Counter(look.state for look in looks)
        manifest = house.manifest
        skipped = f", {len(manifest.skipped)} files skipped" if manifest.skipped else ""
        self.console.print(f"[bold]{len(manifest)}[/bold] samples of {manifest.source}{skipped}; stages: "
                           + ", ".join(f"[{COLOURS[s]}]{n} {s}[/]" for s, n in sorted(counts.items())))  # fmt: skip
        if counts["ready"] < len(looks):
            self.bars.start()
            self._begun = True

    def stage(self, stage: Stage) -> Any:
        """Return the progress callback of one stage."""
        bar: list[TaskID] = []

        def progress(done: int, whole: int, text: str) -> None:
            if not bar:
                bar.append(self.bars.add_task(stage.name, total=whole, text=text))
            self.bars.update(bar[0], completed=done, total=whole, text=text)

        return progress

    def close(self) -> None:
        if self._begun:
            self.bars.stop()


def plan_table(plan: Plan) -> None:
    """Print a plan: state, rows and reason of every stage, and how each stands to an earlier run."""
    console = console_of(stderr=True)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("stage", "state", "rows", "size", "why", *(["against that run"] if plan.against else [])):
        table.add_column(name, justify="right" if name in ("rows", "size") else "left", overflow="fold")
    differences = {d.name: d for d in plan.differences}
    for look in plan.looks:
        rows = ""
        if look.rows_needed:
            rows = f"{'?' if look.rows_missing is None else look.rows_missing} of {look.rows_needed}"
        size = "" if not look.rows_needed else "?" if look.bytes is None else human_bytes(look.bytes)
        told = [f"[{COLOURS[look.state]}]{look.state}", rows, size, shortened(look.why)]
        if found := differences.get(look.name):
            told.append(f"[{COLOURS[found.word]}]{found.word}[/]: {shortened(found.why)}")
        table.add_row(look.name, *told)
    console.print(table)
    if plan.against:
        console.print(f"against run {store.short(plan.against.id)}", highlight=False)
    if plan.left_out:
        console.print(f"only in that run: {', '.join(plan.left_out)}", highlight=False)


def dry_run_table(found: dict[str, Any]) -> None:
    """Print what a dry run found: what each point would read and keep, and how long it would take."""
    console = console_of(stderr=True)
    for part in found["extractions"]:
        console.print(
            f"[bold]{part['stage']}[/]: {part['samples']:,} of {found['samples']:,} samples to read"
        )
        if part["samples"]:
            _rows(console, part["points"], width=MODELS_WIDTH)
        console.print(f"  {_time_of(part)}\n", highlight=False)
    time = "time unknown" if found["seconds"] is None else f"about {human_time(found['seconds'])}"
    console.print(
        f"in all: {found['rows_missing']:,} rows, {found['tokens']:,} tokens, {human_bytes(found['bytes'])}; "
        f"[bold]{time}[/] on {found['device']}, without what analyses take. Nothing was stored.",
        highlight=False,
        soft_wrap=True,
    )


def _time_of(part: dict[str, Any]) -> str:
    if not part["probe"]:
        return str(part["why"])
    probe = part["probe"]
    return (
        f"about {human_time(part['seconds'])}: {human_time(probe['load_s'])} to load and "
        f"{1000 * probe['sample_s']:.3g} ms a sample ({probe['samples']} samples, {part['why']})"
    )


def outcome(done: Outcome) -> None:
    """Print how a run went and where to look."""
    console = console_of(stderr=True)
    document = done.to_json()
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("stage", "state", "seconds", "why"):
        table.add_column(name, justify="right" if name == "seconds" else "left", overflow="fold")
    for ran in done.ran:
        table.add_row(
            ran.name, f"[{COLOURS[ran.state]}]{ran.state}", f"{ran.seconds:.1f}", shortened(ran.why)
        )
    console.print(table)
    states = Counter(r.state for r in done.ran)
    console.print(
        f"{states['cached']} of {len(done.ran)} stages were in the store; {document['forwards']} forward passes, "
        f"{document['rows_written']} rows written, {document['rows_reused']} reused; {done.seconds:.1f} s"
    )
    for skip in document["skipped"][:10]:
        console.print(f"[yellow]skipped[/] {skip['sample']}: {skip['why']}", highlight=False)
    if len(document["skipped"]) > 10:
        console.print(f"[yellow]and {len(document['skipped']) - 10} more skipped files, listed in the report")
    if document["verdict"]:
        console.print(f"verdict: [bold]{document['verdict']}[/bold]")
    if done.report:
        console.print(
            f"report:  [bold]{relative(done.report)}[/bold]  (opens in any browser)", soft_wrap=True
        )
    console.print(f"store:   {document['store']}", soft_wrap=True)
    console.print(f"run:     {store.short(done.run)}  (`foresight plan --against` holds a plan against it)")


def comparison_table(found: Compared) -> None:
    """Print what two runs were made of that differs, and every number that moved."""
    console = console_of(stderr=False)
    c = found.comparison
    console.print(f"[bold]{found.verdict}[/]: {found.sentence}", highlight=False)
    _rows(console, [{"what": what, "before": a, "after": b} for what, a, b in c.settings])
    moved = [x for x in c.changes if x.word == "moved"]
    _rows(
        console,
        [
            {
                "metric": x.name,
                "point": x.point,
                "variant": x.variant,
                "before": f"{x.before['value']:.3f}",
                "after": f"{x.after['value']:.3f}",
                "difference": f"{x.difference:+.3f}",
                "95 % interval": f"{x.low:+.3f} to {x.high:+.3f}",
                "p (Holm)": f"{x.p_holm:.2g}",
            }
            for x in moved
        ],
    )
    console.print(f"report: [bold]{relative(found.report)}[/bold]", soft_wrap=True)


def models_table(found: dict[str, Any]) -> None:
    """Print all cards, or the points of one."""
    console = console_of(stderr=False)
    if "points" not in found:
        shown = ("card", "role", "parameters", "memory_gib", "licence", "default_points")
        _rows(console, [{name: card[name] for name in shown} for card in found["cards"]], width=MODELS_WIDTH)
        return
    memory = f"{found['parameters']:,} parameters, {found['memory_gib']} GiB in {found['dtype']}"
    sample = f"{found['size'][0]} x {found['size'][1]} px"
    clip = (
        f"a clip of {found['frames']} frames of {sample}" if found["frames"] > 1 else f"a still of {sample}"
    )
    for line in (
        f"[bold]{found['card']}[/] ({found['role']}), {memory}",
        f"weights: {found['from']}",
        f"licence: {found['licence']}",
        f"points of {clip}; * read by default, p depends on the prompt:",
    ):
        console.print(line, highlight=False, soft_wrap=True)
    rows = []
    for point in found["points"]:
        marks = ("*" if point["default"] else "") + ("p" if point["prompted"] else "")
        costs = {n: point[n] for n in ("width", "grid", "tokens", "bytes", "module")}
        rows.append({"point": point["point"], "": marks, "plans": point["plans"]} | costs)
    if not any(row["plans"] for row in rows):
        rows = [{n: v for n, v in row.items() if n != "plans"} for row in rows]
    _rows(console, rows, width=MODELS_WIDTH)


def data_table(found: dict[str, Any]) -> None:
    """Print what a data set holds."""
    console = console_of(stderr=False)
    media = ", ".join(f"{n} {m}s" for m, n in found["media"].items()) or "no images or clips"
    console.print(f"[bold]{found['samples']}[/] usable samples in {found['data']}: {media}", highlight=False)
    if not found["usable"]:
        console.print(f"[red]nothing usable[/]: {found['why']}", highlight=False)
    for what, unit in (("heights", "px"), ("widths", "px"), ("durations_s", "s"), ("frames", "frames")):
        spread = found[what]
        if spread["count"]:
            told = f"{spread['least']:g} to {spread['most']:g} {unit}, median {spread['median']:g}"
            console.print(f"{what.removesuffix('_s')}: {told}", highlight=False)
    splits = {name: sum(labels.values()) for name, labels in found["splits"].items()}
    for what, counts in (("split", splits), ("label", found["labels"]), ("decoder", found["decoders"])):
        _rows(console, [{what: name or "(none)", "samples": n} for name, n in counts.items()])
    if found["skipped"]:
        console.print(f"[yellow]{len(found['skipped'])} files cannot be used:")
        _rows(console, found["skipped"])
    if found["ignored"]:
        told = ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in found["ignored"].items())
        console.print(f"other files, not looked at: {told}")


def store_tables(found: dict[str, Any]) -> None:
    """Print what a store command found."""
    console = console_of(stderr=False)
    for name, value in found.items():
        if isinstance(value, list) and all(isinstance(row, dict) for row in value):
            console.print(f"[bold]{name}[/]" + ("" if value else ": none"))
            _rows(console, value)
        elif isinstance(value, dict | list):
            console.print(f"[bold]{name}[/]")
            console.print_json(data=value)
        elif name == "bytes":
            console.print(f"in all: {human_bytes(value)}")
        else:
            console.print(f"{name}: {value}")


def _rows(console: RichConsole, rows: list[dict[str, Any]], *, width: int | None = None) -> None:
    if not rows:
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name, value in rows[0].items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        table.add_column(name.replace("_", " "), justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_shown(name, value) for name, value in row.items()))
    console.print(table, width=min(width or console.width, console.width))


def _shown(name: str, value: Any) -> str:
    if name.startswith("bytes"):
        return human_bytes(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(map(str, value)) if name != "grid" else "×".join(map(str, value))
    text = str(value)
    return text[:12] if len(text) == 64 and text.isalnum() else text


def human_bytes(count: int) -> str:
    """Return a size people can read: '4.2 MB' (1 MB is 10^6 bytes)."""
    size, unit = float(count), "B"
    for bigger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, bigger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def human_time(seconds: float) -> str:
    """Return a time people can read: '0.4 s', '3 min', '2.5 h'."""
    if seconds < 99.5:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.1f} h"


def relative(path: Path) -> str:
    """Return a path as people type it: relative when it lies below this folder."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
