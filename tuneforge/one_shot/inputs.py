"""Brings the model and the rows of a run to the registry; the same content is the same version."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tuneforge.client import Client
from tuneforge.data.locations import Location, LocationKind, locate
from tuneforge.data.problems import RowFault
from tuneforge.datasets import DatasetVersion
from tuneforge.errors import InvalidArgument
from tuneforge.imports import ImportOptions, is_address
from tuneforge.models import ModelVersion
from tuneforge.one_shot.settings import RunSettings, SettingsFault
from tuneforge.one_shot.spec import resource_id


def place_of_rows(settings: RunSettings) -> Location:
    """Finds out what `--dataset-path` means, before anything is started.

    Raises:
        SettingsFault: There is no such file, or none that can be rows.
    """
    path, wanted = settings.dataset_path, settings.dataset_format
    if wanted == "hf" and not Path(path).exists():
        return Location(kind=LocationKind.HUB, uri=path if path.startswith("hf://") else f"hf://{path}")
    try:
        found = locate(path)
    except (FileNotFoundError, ValueError, RowFault) as error:
        raise SettingsFault([f"--dataset-path: {error}"]) from None
    if found.kind is LocationKind.CONFIG_MAP:
        raise SettingsFault(["--dataset-path: a config map is read inside a cluster only; give a file or an address."])
    if settings.dataset_config and found.kind is LocationKind.FILE:
        raise SettingsFault([f"--dataset-config is for a folder or a hub's rows with a card, and {path!r} is a file."])
    if wanted in {"jsonl", "csv"} and found.kind is not LocationKind.FILE:
        raise SettingsFault([f"--dataset-format is {wanted}, and {path!r} is no file."])
    return found


def check_model(model_id: str) -> None:
    """Looks whether `--model-id` can be a model.

    Raises:
        SettingsFault: It is neither a folder that is there nor an address.
    """
    if not Path(model_id).is_dir() and not is_address(model_id):
        raise SettingsFault([f"--model-id: there is no folder {model_id!r}, and it is no id of a hub (owner/name)."])


def bring_model(client: Client, model_id: str) -> ModelVersion:
    """Returns the version of a model: a folder, an id of the hub, or an address.

    Raises:
        TuneforgeError: It is not there, not allowed, or no model that is supported.
    """
    name = resource_id(model_id)
    if Path(model_id).is_dir():
        return client.models.import_folder(model_id, name)
    return client.models.import_from(model_id, name)


def bring_rows(client: Client, settings: RunSettings, place: Location) -> tuple[DatasetVersion, str]:
    """Returns the version of the rows, a share of them held back, and a note: empty, or why none are held back.

    Raises:
        TuneforgeError: They are not there, not allowed, or no rows to learn from.
    """
    name = resource_id(settings.dataset_path.partition(".")[0] or "rows")
    if place.kind in {LocationKind.FILE, LocationKind.FOLDER}:
        with _named_by_format(Path(place.uri), settings.dataset_format) as path:
            version = client.datasets.upload(path, name, config=settings.dataset_config)
    else:
        options = ImportOptions(source_config=settings.dataset_config)
        version = client.datasets.import_from(place.uri, name, options=options)
    version = client.datasets.version(version.name)
    if not settings.validation_split or (version.statistics and version.statistics.validation_rows):
        return version, ""
    try:
        divided = client.datasets.split(version.name, settings.validation_split, seed=settings.seed)
    except InvalidArgument as error:
        return version, f"all rows are learned from, none is held back: {error.message.rstrip('.')}."
    return client.datasets.version(divided.name), ""


@contextlib.contextmanager
def _named_by_format(path: Path, wanted: str) -> Iterator[Path]:
    """Gives a file under a name that says its format, where the user does and the file does not."""
    if wanted == "auto" or not path.is_file() or path.name.removesuffix(".gz").endswith(f".{wanted}"):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="tuneforge-") as folder:
        copy = Path(folder, f"{path.stem}.{wanted}")
        shutil.copyfile(path, copy)
        yield copy
