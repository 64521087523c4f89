"""`foresight deploy`: register pools and deployments with the Prefect API this shell is configured for."""

import json
import sys

import click

from deployments.pools import KINDS, Kind, Pool, job_template
from tasks.house import WrongRequest


@click.command()
@click.option("--pool", default="gpu", show_default=True, help="Name of the work pool.")
@click.option("--type", "kind", type=click.Choice(KINDS), default="process", show_default=True)
@click.option("--image", default="", help="Docker and Kubernetes: the image that runs the flows.")
@click.option(
    "--gpus",
    type=click.IntRange(0, 4096),
    default=1,
    show_default=True,
    help="GPUs in the pool: so many runs at one time, one GPU each. 0: a CPU pool without a limit.",
)
@click.option("--store", metavar="URL", help="Latent store the forms begin with, as in s3://bucket/prefix.")
@click.option(
    "--secrets",
    default="",
    metavar="NAME",
    help="Docker: prefix of Prefect secret blocks; Kubernetes: name of a cluster secret.",
)
@click.option(
    "--volume",
    default="",
    metavar="NAME",
    help="Docker: name:/path; Kubernetes: a persistent volume claim, mounted at /data.",
)
@click.option(
    "--deadline-h",
    type=click.FloatRange(0.1, 24 * 30),
    default=24.0,
    show_default=True,
    help="Kubernetes: hours after which a job is stopped.",
)
@click.option(
    "--print", "only_print", is_flag=True, help="Print the pool's base job template and register nothing."
)
def main(
    pool: str,
    kind: Kind,
    image: str,
    gpus: int,
    store: str | None,
    secrets: str,
    volume: str,
    deadline_h: float,
    only_print: bool,
) -> None:
    """Register a work pool and every flow with the Prefect API of this shell (PREFECT_API_URL).

    Safe to repeat: pools and deployments are brought up to date, never doubled.
    """
    try:
        wanted = Pool(
            name=pool,
            kind=kind,
            gpu=gpus > 0,
            image=image,
            at_once=gpus or None,
            secrets=secrets,
            volume=volume,
            deadline_h=deadline_h,
        )
        if only_print:
            click.echo(json.dumps(job_template(wanted), indent=1))
            return
        names = _register(wanted, store)
    except WrongRequest as error:
        click.echo(f"foresight: {error}", err=True)
        sys.exit(2)
    click.echo(f"registered {', '.join(names)}")
    click.echo(f"start workers: {_how_to_work(wanted)}")


def _register(pool: Pool, store: str | None) -> list[str]:
    import httpx
    from prefect.settings import PREFECT_API_URL

    from deployments.registry import register_automations, register_flows, register_pool

    url = PREFECT_API_URL.value()
    if not url:
        raise WrongRequest(
            "deploying needs a Prefect server, but PREFECT_API_URL is not set; "
            "set it, as in PREFECT_API_URL=http://server:4200/api"
        )
    try:
        register_pool(pool)
        register_automations()
        return register_flows(pool=pool.name, kind=pool.kind, store=store)
    except httpx.TransportError as error:
        raise WrongRequest(
            f"no Prefect server answers at {url} ({type(error).__name__}); start one with `prefect server start`, "
            "or set PREFECT_API_URL"
        ) from error


def _how_to_work(pool: Pool) -> str:
    start = f"prefect worker start --pool {pool.name} --type {pool.kind}"
    if pool.kind == "process" and pool.gpu:
        return f"on each machine, one per GPU: CUDA_VISIBLE_DEVICES=0 {start} --limit 1"
    where = {"process": "on each machine", "docker": "on each Docker host", "kubernetes": "in the cluster"}
    return f"{where[pool.kind]}: {start}"


if __name__ == "__main__":
    main()
