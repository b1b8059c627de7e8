"""Where a command finds the services: options that stand before or after the command's name, then the environment."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tuneforge.client import Client

_PATIENCE_S = 2.5
"""A person waits for an answer: long enough for a service that is being restarted, not for one that is not there."""

_OPTIONS = {
    "registry": ("HOST:PORT", "Registry; TUNEFORGE_REGISTRY_ADDRESS, else 127.0.0.1:7101."),
    "scheduler": (
        "HOST:PORT,...",
        "Scheduler, and with commas those that stand by; TUNEFORGE_SCHEDULER_ADDRESS, else 127.0.0.1:7102.",
    ),
    "trainer": ("HOST:PORT", "Trainer; TUNEFORGE_TRAINER_ADDRESS, else 127.0.0.1:7103."),
    "inference": ("HOST:PORT", "Inference; TUNEFORGE_INFERENCE_ADDRESS, else 127.0.0.1:7104."),
    "project": ("ID", "Project; TUNEFORGE_PROJECT, else `default`."),
    "token": ("TOKEN", "Bearer token; TUNEFORGE_TOKEN (better: a token in the arguments is seen by others)."),
    "ca": ("FILE", "Authority behind the services' certificates; TUNEFORGE_TLS_CA, else plain text."),
}


@dataclass
class Connection:
    """What was given on the command line."""

    given: dict[str, str] = field(default_factory=dict)

    def client(self) -> "Client":
        """Makes the client; use it with `with`."""
        from tuneforge.client import Client

        given: dict[str, Any] = self.given
        return Client(**given, patience_s=_PATIENCE_S)


def _keep(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    connection = context.ensure_object(Connection)
    if value is not None and parameter.name is not None:
        connection.given[parameter.name] = value


def connection_options(*, is_hidden: bool) -> list[click.Parameter]:
    """Returns the options; hidden ones work but are left out of the help."""
    return [
        click.Option([f"--{name}"], metavar=metavar, help=text, callback=_keep, expose_value=False, hidden=is_hidden)
        for name, (metavar, text) in _OPTIONS.items()
    ]


class ConnectedCommand(click.Command):
    """A command that takes the connection's options after its name too, as people write them."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        taken = {parameter.name for parameter in self.params}
        self.params += [option for option in connection_options(is_hidden=True) if option.name not in taken]


class CommandGroup(click.Group):
    """A group whose commands are `ConnectedCommand`s."""

    command_class = ConnectedCommand


json_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--json", "as_json", is_flag=True, help="One JSON object a line."
)
"""For every command that lists or shows."""
