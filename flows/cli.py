"""The command line: `foresight demo|run|plan|compare|models|data|store|ui|deploy`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click
from pydantic import ValidationError

from flows.experiments import experiments

DONE, FAILED, WRONG = 0, 1, 2


class Refused(click.ClickException):
    """A request that cannot be carried out as asked; exit status 2."""

    exit_code = WRONG

    def show(self, file: Any = None) -> None:
        click.echo(f"foresight: {self.format_message()}", err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="foresight-pipeline", prog_name="foresight")
def main() -> None:
    """Extract vision-language and video-decoder latents once; let every experiment read them.

    Exit status: 0 done, 1 the work failed, 2 the request was wrong. With --json one JSON document goes to
    standard output and everything else to standard error.
    """
    # torch's threads spin while they wait for each other: for 300,000 turns, which on cores that others use too costs
    # up to forty times the work of a small model; for none, which doubles its training on idle cores. Read once, when
    # torch is imported
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def cards_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--cards",
        multiple=True,
        type=click.Path(),
        envvar="FORESIGHT_CARDS",
        metavar="FILE",
        help="TOML file that declares further models, beside those in runs/cards. Repeatable.",
    )(command)


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that `run` and `plan` share. None means the experiment's own default."""
    options: list[Callable[..., Any]] = [
        click.option("--data", metavar="DATA", help="synthetic, synthetic:WORLD, folder:DIR, …"),
        click.option("--samples", type=int, help="How many samples; default all (synthetic: 500)."),
        click.option("--seed", type=int, help="Seed of data, splits and resampling."),
        click.option("--frames", type=int, help="Frames per clip; stills always give one."),
        click.option("--size", metavar="HxW", help="Frames for the VLMs, in pixels; default the card's."),
        click.option("--decoder-size", metavar="HxW", help="Frames for the decoder; the same ratio in q1."),
        click.option(
            "--vlm", multiple=True, metavar="CARD[@REVISION]", help="Repeatable. `foresight models` lists."
        ),
        click.option("--decoder", metavar="CARD[@REVISION]"),
        cards_option,
        click.option("--points", metavar="P,P,…", help="Extraction points of the VLMs."),
        click.option("--decoder-points", metavar="P,P,…", help="Those of the decoder; q1 takes one."),
        click.option(
            "--hybrid", metavar="CARD[:POINT]", help="q2: an encoder beside every point, on one grid."
        ),
        click.option(
            "--adapters", metavar="A,A,…", help="c1: linear, mlp:WIDTH, residual:WIDTH; the last is used."
        ),
        click.option(
            "--ablations",
            type=click.Choice(["one-at-a-time", "cross"]),
            help="c1: what C1.6 varies; cross is every point with every adapter and share.",
        ),
        click.option("--dtype", type=click.Choice(["card", "float32", "float16", "bfloat16"])),
        click.option("--device", type=click.Choice(["auto", "cpu", "cuda"])),
        click.option("--attention", type=click.Choice(["auto", "flash_attention_2", "sdpa", "eager"])),
        click.option("--spread", is_flag=True, default=None, help="Spread a model over all GPUs and memory."),
        click.option("--deterministic", is_flag=True, default=None, help="Deterministic kernels only."),
        click.option(
            "--compile", is_flag=True, default=None, help="Compile transformer blocks (torch.compile)."
        ),
        click.option("--batch", type=int, help="Samples per forward pass."),
        click.option("--workers", type=int, help="Threads that decode ahead."),
        click.option("--store", metavar="URL", help="Default runs/store."),
        click.option("--out", metavar="DIR", help="Where the report goes; default runs/EXPERIMENT."),
        click.option(
            "--part", metavar="I/N", help="One part of the samples, for workers that share a store."
        ),
        click.option("--dask", metavar="tcp://…", help="Dask scheduler whose workers compute the analyses."),
        click.option(
            "--refresh", multiple=True, metavar="STAGE", help="Compute again and compare. Repeatable."
        ),
        click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@main.command()
@click.argument("experiment")
@run_options
@click.option("--dry-run", is_flag=True, help="Say what it would read, keep and take; time ten samples.")
def run(experiment: str, as_json: bool, dry_run: bool, **given: Any) -> None:
    """Run an EXPERIMENT (q1, q2, c1, extract): compute what the store does not have, write the report."""
    _dry_run(experiment, as_json, given) if dry_run else _run(experiment, as_json, given)


@main.command()
@click.argument("experiment")
@click.option("--against", metavar="RUN", help="Hold it against an earlier run: its id, or 'last'.")
@run_options
def plan(experiment: str, as_json: bool, against: str | None, **given: Any) -> None:
    """Say what `run` with the same options would do, stage by stage, and why. Computes and writes nothing."""
    from flows import show

    module, settings = _request(experiment, given)
    with _Errors(as_json, experiment):
        from flows.plan import planned_against

        found = planned_against(module, settings, against)
    if as_json:
        _print_json(found.to_json())
    else:
        show.plan_table(found)


@main.command()
@click.argument("before", metavar="RUN")
@click.argument("after", metavar="RUN")
@click.option("--store", "url", default="runs/store", show_default=True, metavar="URL")
@click.option("--out", type=click.Path(), default="runs/compare", show_default=True, metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def compare(before: str, after: str, url: str, out: str, as_json: bool) -> None:
    """Say which numbers moved from one RUN to another, and whether by more than noise.

    A RUN is its id, or the beginning of it, as `run` prints it; 'last'; or the folder of its report.
    """
    from flows import show

    with _Errors(as_json, "compare"):
        from flows.compare import compare_runs

        found = compare_runs(before, after, url=url, out=Path(out))
    _print_json(found.to_json()) if as_json else show.comparison_table(found)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
@click.option("--store", metavar="URL", help="Default runs/store.")
@click.option("--out", metavar="DIR", help="Where the report goes; default runs/demo.")
@click.option("--samples", type=int, help="How many synthetic pictures; default 500.")
def demo(as_json: bool, **given: Any) -> None:
    """Run the main job on this machine: tiny models, rendered shapes, the Q1 study, a report."""
    _run("q1", as_json, {"out": "runs/demo"} | {k: v for k, v in given.items() if v is not None})


@main.command()
@click.argument("card", required=False)
@click.option("--size", metavar="HxW", help="Frame size in pixels; default the card's.")
@click.option("--frames", default=1, show_default=True, type=click.IntRange(1), help="Frames of a sample.")
@cards_option
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def models(card: str | None, size: str | None, frames: int, cards: tuple[str, ...], as_json: bool) -> None:
    """List the model cards, or one CARD's points with width, grid, tokens and bytes a sample."""
    from flows import describe, show

    with _Errors(as_json, "models"):
        from flows.build import declare_cards
        from flows.settings import size_of

        declare_cards(cards)
        if card is None:
            rows = describe.all_cards()
        else:
            rows = describe.card_points(card, size_of(size), frames)
    _print_json(rows) if as_json else show.models_table(rows)


@main.group()
def data() -> None:
    """Look at data sets."""


@data.command("check")
@click.argument("spec", metavar="DATA")
@click.option("--samples", type=int)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def data_check(spec: str, samples: int | None, as_json: bool) -> None:
    """Say what DATA holds, and name every file that cannot be used, with why."""
    from flows import describe, show

    with _Errors(as_json, "data check"):
        found = describe.data_set(spec, samples)
    _print_json(found) if as_json else show.data_table(found)
    if not found["usable"]:
        sys.exit(WRONG)


@main.command()
@click.option("--port", default=4200, show_default=True, type=click.IntRange(1, 65535))
def ui(port: int) -> None:
    """Serve the Prefect UI on this machine: trigger experiments there. Ctrl-C stops it."""
    # deployments stand above flows, so they are another process and not an import
    command = [sys.executable, "-m", "deployments.local", "--port", str(port)]
    os.execv(sys.executable, command)


@main.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def deploy(words: tuple[str, ...]) -> None:
    """Register pools and flows with a Prefect server: process, Docker or Kubernetes, CPU or GPU."""
    os.execv(sys.executable, [sys.executable, "-m", "deployments.remote", *words])


@main.group("store")
def store_group() -> None:
    """Look after a latent store."""


def store_option(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")(
        command
    )
    return click.option("--store", "url", default="runs/store", show_default=True, metavar="URL")(command)


@store_group.command("ls")
@store_option
def store_ls(url: str, as_json: bool) -> None:
    """List data sets, latents and results."""
    _store_command("ls", url, as_json)


@store_group.command("du")
@store_option
def store_du(url: str, as_json: bool) -> None:
    """Show rows and bytes per model and point."""
    _store_command("du", url, as_json)


@store_group.command("verify")
@store_option
def store_verify(url: str, as_json: bool) -> None:
    """Read everything and check it; damaged rows become missing, so the next run computes just those."""
    if not _store_command("verify", url, as_json)["ok"]:
        sys.exit(FAILED)


@store_group.command("show")
@click.argument("identity", metavar="ID")
@store_option
def store_show(identity: str, url: str, as_json: bool) -> None:
    """Explain one ID (six digits or more): recipe, inputs, provenance, and who reads it."""
    _store_command("show", url, as_json, identity)


@store_group.command("sweep")
@click.option("--apply", is_flag=True, help="Remove; without it nothing is touched.")
@click.option("--grace-days", default=14.0, show_default=True, type=click.FloatRange(0))
@store_option
def store_sweep(apply: bool, grace_days: float, url: str, as_json: bool) -> None:
    """Say what no recorded result and no pinned name needs, and how large it is; with --apply remove it."""
    _store_command("sweep", url, as_json, apply, grace_days)


@store_group.command("export")
@click.argument("manifest", metavar="MANIFEST")
@click.argument("folder")
@store_option
def store_export(manifest: str, folder: str, url: str, as_json: bool) -> None:
    """Copy the latents of a MANIFEST id into a new FOLDER, which is itself a store."""
    _store_command("export", url, as_json, manifest, folder)


@store_group.command("import")
@click.argument("other", metavar="URL")
@store_option
def store_import(other: str, url: str, as_json: bool) -> None:
    """Take everything of another store (an exported folder, say) that is not here yet."""
    _store_command("import", url, as_json, other)


def _store_command(verb: str, url: str, as_json: bool, *words: Any) -> dict[str, Any]:
    from flows import describe, show

    with _Errors(as_json, f"store {verb}"):
        found: dict[str, Any] = getattr(describe, f"store_{verb}")(url, *words)
    _print_json(found) if as_json else show.store_tables(found)
    return found


def _run(experiment: str, as_json: bool, given: dict[str, Any]) -> None:
    from flows import show

    module, settings = _request(experiment, given)
    with _Errors(as_json, experiment):
        from flows.run import run_here

        outcome = run_here(module, settings, show.Console())
    if as_json:
        _print_json(outcome.to_json())
    else:
        show.outcome(outcome)


def _dry_run(experiment: str, as_json: bool, given: dict[str, Any]) -> None:
    from flows import show

    module, settings = _request(experiment, given)
    with _Errors(as_json, experiment):
        from flows.dry_run import dry_run

        found = dry_run(module, settings)
    _print_json(found) if as_json else show.dry_run_table(found)


def _request(experiment: str, given: dict[str, Any]) -> tuple[Any, Any]:
    """Return the experiment's module and its settings; refuses what its form would refuse."""
    known = experiments()
    if experiment not in known:
        raise Refused(f"no experiment is called {experiment!r}; there are {', '.join(sorted(known))}")
    module = known[experiment]
    values = {k: v for k, v in given.items() if v is not None and v != ()}
    for name in ("vlm", "cards", "refresh"):
        if name in values:
            values[name] = list(values[name])
    for name in ("points", "decoder_points", "adapters"):
        if name in values:
            values[name] = [p.strip() for p in values[name].split(",") if p.strip()]
    try:
        return module, module.Settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])).replace("_", "-") or "settings"
        if first["type"] == "extra_forbidden":
            raise Refused(
                f"{experiment} has no --{name}; `foresight run --help` says what it is for"
            ) from None
        raise Refused(
            f"--{name}: {first['msg'].removeprefix('Value error, ')}, but got {first['input']!r}"
        ) from None


class _Errors:
    """Turn what went wrong into one sentence and an exit status."""

    def __init__(self, as_json: bool, what: str) -> None:
        self.as_json, self.what = as_json, what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: Any) -> None:
        if error is None or isinstance(error, click.ClickException | SystemExit):
            return
        if isinstance(error, KeyboardInterrupt):
            self._fail(FAILED, "stopped; what was computed is kept, run the same command to go on", [])
        from flows.failures import status_of

        status, message, ran = status_of(error)
        if status is None:
            return
        self._fail(status, message, ran)

    def _fail(self, status: int, message: str, ran: list[dict[str, Any]]) -> NoReturn:
        click.echo(f"foresight: {message}", err=True)
        if self.as_json:
            _print_json({"experiment": self.what, "error": message, "stages": ran})
        sys.exit(status)


def _print_json(value: Any) -> None:
    json.dump(value, sys.stdout, ensure_ascii=False, indent=1, allow_nan=False)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
