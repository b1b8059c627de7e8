"""`tuneforge generate`: text from a deployment, as it is made."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from tuneforge.cli.connection import ConnectedCommand, Connection
from tuneforge.cli.output import print_json, printable, short
from tuneforge.cli.stopping import stoppable

if TYPE_CHECKING:
    from tuneforge.client import Client
    from tuneforge.deployments import ChatMessage, CompletionPiece, GenerationOptions


@click.command(cls=ConnectedCommand)
@click.argument("deployment")
@click.argument("prompt", required=False)
@click.option("--chat", is_flag=True, help="PROMPT is a user's turn for the model's chat template.")
@click.option("--system", metavar="TEXT", help="System turn; implies --chat.")
@click.option("--max-new-tokens", default=0, help="Most tokens, 1 to 4096.  [default: 128]")
@click.option("--temperature", type=float, help="0 = always the likeliest token.  [default: 0]")
@click.option("--top-p", type=float, help="Sample from the likeliest tokens with this probability together.")
@click.option("--seed", type=int, help="Of the sampling.")
@click.option("--stop", multiple=True, metavar="TEXT", help="Text that ends the completion; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="The whole completion as one JSON object, when it is done.")
@click.pass_obj
def generate(connection: Connection, /, deployment: str, prompt: str | None, as_json: bool, **flags: Any) -> None:
    """Complete PROMPT (from stdin without one, or with `-`), streamed to the terminal.

    With --chat and no PROMPT on a terminal: a conversation, ended with Ctrl-D.
    """
    is_chat = flags["chat"] or flags["system"] is not None
    options = _options(flags)
    with stoppable("stopped"), connection.client() as client:
        if is_chat and prompt is None and sys.stdin.isatty():
            _converse(client, deployment, flags["system"], options)
            return
        text = sys.stdin.read() if prompt in (None, "-") else prompt or ""
        prompts, messages = ([], _turns(flags["system"], text)) if is_chat else ([text], [])
        if as_json:
            print_json(*client.deployments.generate(deployment, prompts, messages=messages, options=options))
        else:
            _answer(client, deployment, prompts, messages, options)


def _options(flags: dict[str, Any]) -> "GenerationOptions":
    from tuneforge.deployments import GenerationOptions

    return GenerationOptions(
        max_new_tokens=flags["max_new_tokens"],
        temperature=flags["temperature"],
        top_p=flags["top_p"],
        seed=flags["seed"],
        stop=flags["stop"],
    )


def _turns(system: str | None, text: str) -> "list[ChatMessage]":
    from tuneforge.deployments import ChatMessage

    turns = [ChatMessage(role="system", content=system)] if system else []
    return [*turns, ChatMessage(role="user", content=text)]


def _converse(client: "Client", deployment: str, system: str | None, options: "GenerationOptions") -> None:
    """Takes turns with the model until Ctrl-D."""
    from tuneforge.deployments import ChatMessage

    turns = [ChatMessage(role="system", content=system)] if system else []
    while True:
        try:
            said = input("> ")
        except EOFError:
            click.echo()
            return
        if said.strip():
            turns.append(ChatMessage(role="user", content=said))
            turns.append(ChatMessage(role="assistant", content=_answer(client, deployment, [], turns, options)))


def _answer(
    client: "Client",
    deployment: str,
    prompts: Sequence[str],
    messages: "Sequence[ChatMessage]",
    options: "GenerationOptions",
) -> str:
    """Prints a completion as it is made and returns it; on a terminal a line on stderr says where it came from."""
    text = ""
    last: CompletionPiece | None = None
    for piece in client.deployments.generate(deployment, prompts, messages=messages, options=options, stream=True):
        click.echo(printable(piece.text) if sys.stdout.isatty() else piece.text, nl=False)
        text += piece.text
        last = piece
    if not text.endswith("\n"):
        click.echo()
    if last is not None and sys.stderr.isatty():
        source = f"{short(last.served.version.version)} {last.served.version.digest[:12]}"
        tokens = f"{last.prompt_tokens} + {last.completion_tokens} tokens"
        click.secho(f"[{source}, {tokens}, {last.finish_reason or 'cut off'}]", fg="bright_black", err=True)
    return text
