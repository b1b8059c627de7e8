"""`tuneforge checkpoints`."""

from pathlib import Path

import click

from tuneforge.cli.connection import CommandGroup, Connection, json_option
from tuneforge.cli.output import print_fields, print_json, print_rows, short, size


@click.group(cls=CommandGroup)
def checkpoints() -> None:
    """Saved states of runs, named JOB/STEP."""


@checkpoints.command("list")
@click.argument("job")
@json_option
@click.pass_obj
def list_checkpoints(connection: Connection, job: str, as_json: bool) -> None:
    """List the checkpoints of a job, newest first."""
    with connection.client() as client:
        print_rows(
            client.checkpoints.list(job),
            [
                ("step", lambda row: row.step),
                ("attempt", lambda row: row.attempt),
                ("node", lambda row: short(row.node) if row.node else "-"),
                ("size", lambda row: size(row.size_bytes)),
                ("digest", lambda row: row.digest[:12]),
                ("saved", lambda row: row.create_time),
                ("durable", lambda row: row.durable_time or "no"),
                ("kept", lambda row: " ".join(["pinned"] * row.is_pinned + ["best"] * row.is_best) or "-"),
            ],
            as_json=as_json,
            nothing="no checkpoints yet; `checkpointing.every_steps` says how often they are saved",
        )


@checkpoints.command()
@click.argument("checkpoint", metavar="JOB/STEP")
@json_option
@click.pass_obj
def get(connection: Connection, checkpoint: str, as_json: bool) -> None:
    """Show a checkpoint and its files."""
    with connection.client() as client:
        found = client.checkpoints.get(checkpoint)
    if as_json:
        print_json(found)
        return
    files = found.manifest.files if found.manifest else ()
    print_fields(
        [
            ("name", found.name),
            ("digest", found.digest),
            ("size", size(found.size_bytes)),
            ("node", short(found.node) if found.node else None),
            ("attempt", found.attempt),
            ("saved", found.create_time),
            ("durable", found.durable_time or "no: it is on its node only"),
            ("pinned", "yes" if found.is_pinned else None),
            ("best", "yes" if found.is_best else None),
            ("files", {file.path: file.sha256 for file in files}),
        ]
    )


@checkpoints.command()
@click.argument("checkpoint", metavar="JOB/STEP")
@json_option
@click.pass_obj
def pin(connection: Connection, checkpoint: str, as_json: bool) -> None:
    """Keep a checkpoint in the blob store until it is unpinned."""
    with connection.client() as client:
        found = client.checkpoints.pin(checkpoint)
    if as_json:
        print_json(found)
        return
    click.echo(f"{short(found.name)} stays until it is unpinned")


@checkpoints.command()
@click.argument("checkpoint", metavar="JOB/STEP")
@json_option
@click.pass_obj
def unpin(connection: Connection, checkpoint: str, as_json: bool) -> None:
    """Let a pinned checkpoint go when newer ones have taken its place."""
    with connection.client() as client:
        found = client.checkpoints.unpin(checkpoint)
    if as_json:
        print_json(found)
        return
    click.echo(f"{short(found.name)} goes when newer ones have taken its place")


@checkpoints.command()
@click.argument("checkpoint", metavar="JOB/STEP")
@json_option
@click.pass_obj
def delete(connection: Connection, checkpoint: str, as_json: bool) -> None:
    """Delete a checkpoint. One that a job needs is refused."""
    with connection.client() as client:
        found = client.checkpoints.delete(checkpoint)
    if as_json:
        print_json(found)
        return
    click.echo(f"{short(found.name)} is deleted")


@checkpoints.command()
@click.argument("checkpoint", metavar="JOB/STEP")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@json_option
@click.pass_obj
def download(connection: Connection, checkpoint: str, folder: Path, as_json: bool) -> None:
    """Bring a checkpoint's files into a folder, verified."""
    with connection.client() as client:
        found = client.checkpoints.download(checkpoint, folder)
    if as_json:
        print_json(found)
        return
    click.echo(f"{short(found.name)} is in {folder} ({size(found.size_bytes)})")


@checkpoints.command()
@click.argument("checkpoint", metavar="JOB/STEP")
@click.option("--steps", type=int, default=0, help="Steps to do again, 1 to 32.  [default: up to the next checkpoint]")
@json_option
@click.pass_obj
def verify(connection: Connection, checkpoint: str, steps: int, as_json: bool) -> None:
    """Do steps after a checkpoint again on a node and compare every bit. Exit code 1 when a number differs."""
    with connection.client() as client:
        job = client.checkpoints.verify_resume(checkpoint, num_steps=steps)
        if not as_json:
            click.echo(f"{job.id} does the steps again", err=True)
        job = client.jobs.get(job.name).result()
    certificate = job.verification.certificate if job.verification else None
    if as_json:
        print_json(job.verification)
    elif job.last_change:
        click.echo(job.last_change.message)
    if certificate is None or not certificate.passed:
        raise SystemExit(1)
