"""`tuneforge queues watch`."""

from typing import TYPE_CHECKING

import click

from tuneforge.cli.connection import Connection, json_option
from tuneforge.cli.output import print_json, printable, short
from tuneforge.cli.stopping import stoppable

if TYPE_CHECKING:
    from tuneforge.queue_watch import QueueView


@click.command("watch")
@click.option("--all-projects", is_flag=True, help="Jobs of every project that you may use.")
@json_option
@click.pass_obj
def watch_queue(connection: Connection, all_projects: bool, as_json: bool) -> None:
    """Show who waits, in order, each time that it has changed, until Ctrl-C. `tuneforge top` draws the same."""
    with (
        connection.client() as client,
        stoppable("stopped watching; the jobs go on."),
        client.queues.watch(all_projects=all_projects) as views,
    ):
        for view in views:
            if as_json:
                print_json(view)
            else:
                click.echo("\n".join(lines_of(view)))


def lines_of(view: "QueueView") -> list[str]:
    """Returns a head line and one for each job that waits, the next one first."""
    running = sum(bool(entry.nodes) for entry in view.entries.values())
    taken = sum(node.taken for node in view.nodes.values())
    slots = sum(node.slots for node in view.nodes.values())
    head = f"{view.time:%H:%M:%S}  {len(view.waiting)} wait, {running} run, {taken} of {slots} slots taken"
    others = sum(each.state in ("QUEUED", "BLOCKED") and not each.position for each in view.entries.values())
    if others:
        head += f", {others} may not start yet"
    waiting = [f"  {each.position:>4}  {printable(short(each.job))}  class {each.priority}" for each in view.waiting]
    holds = [f"  {share.project}: {printable(share.hold)}" for share in view.shares.values() if share.hold]
    return [head, *waiting, *holds]
