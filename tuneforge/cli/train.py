"""`tuneforge train`: from a model and rows to a tuned model with nothing started by hand."""

import contextlib
import json
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuneforge.cli.connection import ConnectedCommand, Connection, json_option
from tuneforge.cli.stopping import Stopped

if TYPE_CHECKING:
    from tuneforge.client import Client
    from tuneforge.data.locations import Location
    from tuneforge.metrics.job import JobFigures
    from tuneforge.one_shot.services import EmbeddedServices
    from tuneforge.one_shot.settings import RunSettings


@click.command(cls=ConnectedCommand)
@click.option(
    "--model-id", default="", metavar="MODEL", help="Folder, id of the hub (owner/name) or address.  Required."
)
@click.option("--dataset-path", default="", metavar="ROWS", help="File, folder, id of the hub or address.  Required.")
@click.option("--output-dir", default="", metavar="FOLDER", help="Gets the result; the same one goes on.  Required.")
@click.option("--method", default="lora", show_default=True, metavar="lora|qlora|full", help="Which weights move.")
@click.option("--dataset-format", default="auto", show_default=True, metavar="FORMAT", help="jsonl, csv, hf or auto.")
@click.option("--dataset-config", default="", metavar="NAME", help="Of rows whose card names several configurations.")
@click.option("--learning-rate", type=float, help="Peak.  [default: 2e-4, full 2e-5]")
@click.option("--batch-size", type=int, default=4, show_default=True, help="Rows computed at once.")
@click.option("--gradient-accumulation-steps", type=int, default=1, show_default=True, help="Batches behind one step.")
@click.option("--epochs", type=float, default=3.0, show_default=True, help="Passes over the rows.")
@click.option("--max-seq-length", type=int, help="Longest row in tokens.  [default: 2048, or the model's limit]")
@click.option("--lora-rank", type=int, default=16, show_default=True, help="Width of the adapters.")
@click.option("--lora-alpha", type=float, default=32.0, show_default=True, help="Scale of the adapters.")
@click.option("--fp16", is_flag=True, help="Compute in float16, with master weights in float32.")
@click.option("--bf16", is_flag=True, help="Compute in bfloat16.  [default: where the device can]")
@click.option("--gradient-checkpointing", is_flag=True, help="Less memory: activations are computed again.")
@click.option("--validation-split", type=float, default=0.1, show_default=True, help="Share of rows held back.")
@click.option("--seed", type=int, default=42, show_default=True, help="Of every random choice.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="JSON; what it has wins over flags.")
@click.option("--enable-metrics", is_flag=True, help="Answer /metrics on this machine while it runs.")
@click.option("--metrics-port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any free one.")
@click.option("--attach", is_flag=True, help="Use services that run already, see --scheduler.")
@json_option
@click.pass_obj
def train(connection: Connection, /, as_json: bool, **flags: Any) -> None:
    """Tune a model in one command: start the services, bring model and rows, train, put the result in a folder.

    Ctrl-C saves a checkpoint; the same command goes on from there. With --attach, or an address, nothing is started and
    the job goes on without this command.
    """
    from tuneforge.one_shot.settings import SettingsFault

    is_attached = bool(flags.pop("attach") or {"registry", "scheduler"} & connection.given.keys())
    port, is_shown, config = flags.pop("metrics_port"), flags.pop("enable_metrics"), flags.pop("config")
    try:
        settings, place = _settings(flags, config)
        _Run(settings, place, as_json=as_json).run(connection, is_attached=is_attached, port=port if is_shown else None)
    except SettingsFault as fault:
        raise click.UsageError("\n".join(fault.faults)) from None


def _settings(flags: Mapping[str, Any], config: Path | None) -> "tuple[RunSettings, Location]":
    """Returns what is asked for, and where the rows are; everything that is wrong is named at once."""
    from tuneforge.json_files import read_json_file
    from tuneforge.one_shot.inputs import check_model, place_of_rows
    from tuneforge.one_shot.settings import RunSettings, check, with_file

    settings = RunSettings(**{**flags, "method": flags["method"].lower()})
    if config is not None:
        settings = with_file(settings, json.loads(json.dumps(read_json_file(config))))
    check(settings)
    check_model(settings.model_id)
    return settings, place_of_rows(settings)


class _Run:
    """One run of the command."""

    def __init__(self, settings: "RunSettings", place: "Location", *, as_json: bool) -> None:
        self._settings = settings
        self._place = place
        self._as_json = as_json
        self._output = Path(settings.output_dir)

    def run(self, connection: Connection, *, is_attached: bool, port: int | None) -> None:
        """Does it all."""
        from tuneforge.one_shot.services import MISSING, are_installed

        if not is_attached and not are_installed():
            raise click.ClickException(MISSING)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with contextlib.ExitStack() as stack:
                figures = stack.enter_context(_metrics(self._settings, port, self._say))
                if is_attached:
                    self._train(stack.enter_context(connection.client()), None, figures)
                    return
                services = stack.enter_context(self._services())
                self._train(stack.enter_context(_client_of(services)), services, figures)
        except KeyboardInterrupt:
            raise Stopped("stopped; the same command goes on") from None

    @contextlib.contextmanager
    def _services(self) -> "Iterator[EmbeddedServices]":
        from tuneforge.one_shot.files import STATE_FOLDER
        from tuneforge.one_shot.services import EmbeddedServices, ServicesFailed

        self._say("starting the services")
        try:
            with EmbeddedServices((self._output / STATE_FOLDER).absolute()) as services:
                yield services
        except ServicesFailed as error:
            raise click.ClickException(str(error)) from None

    def _train(self, client: "Client", services: "EmbeddedServices | None", figures: "JobFigures") -> None:
        from tuneforge.cli.output import short
        from tuneforge.cli.watch import Beside, watch_job
        from tuneforge.one_shot.files import link_checkpoints, write_documents

        job = self._job(client)
        stopped = "stopped: its state is saved; the same command goes on"
        if services is None:
            stopped = f"stopped watching; the job goes on. The same command watches it again: {short(job)}"
        beside = Beside(stopped=stopped, take=figures.take, broke=services.check if services else None)
        watch_job(client.jobs, job, as_json=self._as_json, beside=beside)
        done = client.jobs.read(job)
        assert done.version is not None
        version = client.models.download(done.version.version, self._output)
        write_documents(self._output, self._settings.model_id, version)
        if services is not None:
            link_checkpoints(self._output, job)
        self._say(f"the result is in {self._output}")

    def _job(self, client: "Client") -> str:
        """Returns the name of the job: the one that an earlier run of the same command left, or a new one."""
        from tuneforge.errors import NotFound
        from tuneforge.job_values import JobState
        from tuneforge.names import new_id
        from tuneforge.one_shot.files import RunState, read_state, write_state
        from tuneforge.one_shot.inputs import bring_model, bring_rows
        from tuneforge.one_shot.spec import plan_job, resource_id

        self._say(f"bringing the model {self._settings.model_id}")
        base = bring_model(client, self._settings.model_id)
        self._say(f"bringing the rows {self._settings.dataset_path}")
        rows, note = bring_rows(client, self._settings, self._place)
        plan = plan_job(self._settings, base, rows, resource_id(self._output.absolute().name))
        state = read_state(self._output)
        job_id = new_id("run")
        if state is not None and state.spec == plan.spec:
            with contextlib.suppress(NotFound):
                known = client.jobs.read(state.job_id)
                if known.state not in {JobState.FAILED, JobState.CANCELLED}:
                    self._say(f"going on with {known.id}, which is {known.state} after step {known.step}")
                    if known.state is JobState.PAUSED:
                        client.jobs.resume(known.name)
                    return known.name
        for each in (*plan.notes, *([note] if note else [])):
            self._say(f"note: {each}")
        write_state(self._output, RunState(job_id, plan.spec))
        return client.jobs.create(plan.spec, job_id=job_id).name

    def _say(self, text: str) -> None:
        click.echo(f"* {text}", err=self._as_json)


def _client_of(services: "EmbeddedServices") -> "Client":
    from tuneforge.client import Client

    addresses = services.addresses
    return Client(**{name: addresses[name] for name in ("registry", "scheduler", "trainer", "inference")})  # type: ignore[arg-type]


@contextlib.contextmanager
def _metrics(settings: "RunSettings", port: int | None, say: Any) -> "Iterator[JobFigures]":
    """Yields figures to be told of events, shown on a port where one is given."""
    from tuneforge.metrics.exposition import page
    from tuneforge.metrics.job import JobFigures, JobLabels, families
    from tuneforge.metrics.server import MetricsServer, PortInUse

    name = Path(settings.output_dir).absolute().name
    figures = JobFigures(JobLabels(job_name=name, model_id=settings.model_id, method=settings.method))
    if port is None:
        yield figures
        return
    try:
        server = MetricsServer(port, lambda: page(families([figures])))
    except PortInUse as error:
        raise click.UsageError(f"--metrics-port: {error}.") from None
    with server:
        say(f"metrics are at {server.address}")
        yield figures
