"""Reference cases of what is fetched from elsewhere: 003-09, 002-17; of 002-03 and 002-04 that weights are fetched."""

import json
from pathlib import Path

import pytest

from tests.support.elsewhere import dataset_request, elsewhere, followed, model_request
from tests.support.event_loop import on_loop
from tests.support.hub import Repository
from tests.support.registry import folder_files, refused, running_registry
from tests.support.tiny_model import make_tiny_model
from tuneforge.errors import Reason


def rows(count: int) -> bytes:
    """Returns that many rows."""
    lines = [json.dumps({"instruction": f"Say {number}.", "output": str(number)}) for number in range(count)]
    return "\n".join(lines).encode()


@pytest.mark.parametrize("case_id", ["003-09"], ids=["003-09"])
@on_loop
async def test_a_data_set_from_a_hub(case_id: str, tmp_path: Path) -> None:
    """By its bare id: train of several splits, else the first; an unknown one and a silent hub are told clearly."""
    with elsewhere(tmp_path / "there") as there:
        there.hub.repositories |= {
            "datasets/dataset_name": Repository({"data/train.jsonl": rows(4), "data/test.jsonl": rows(2)}),
            "datasets/owner/no_train": Repository({"test.jsonl": rows(2), "validation.jsonl": rows(3)}),
        }
        async with running_registry(tmp_path / "data", sources=there.settings()) as registry:
            dataset = await registry.dataset()
            for uri, count in (("dataset_name", 4), ("owner/no_train", 2)):
                outcome = await followed(registry.stub.ImportDatasetVersion(dataset_request(dataset, uri)))
                assert outcome.version.rows == count
            unknown = registry.stub.ImportDatasetVersion(dataset_request(dataset, "owner/absent"))
            error = await refused(followed(unknown), Reason.SOURCE_NOT_FOUND)
            assert "owner/absent is not there" in error.message
            there.allowed["hub"]["endpoint"] = "http://127.0.0.1:9"
            there.settings()
            silent = registry.stub.ImportDatasetVersion(dataset_request(dataset, "dataset_name"))
            error = await refused(followed(silent), Reason.SOURCE_UNAVAILABLE)
            assert "the hub does not answer" in error.message


@pytest.mark.parametrize("case_id", ["002-03", "002-04"], ids=["002-03", "002-04"])
@on_loop
async def test_a_loader_runs_once(case_id: str, tmp_path: Path) -> None:
    """Weights named by a hub id are stored and then ready; the finished import is not repeated.

    What the cases say of containers and their building is not the registry's: it fetches by itself.
    """
    with elsewhere(tmp_path / "there") as there:
        there.hub.repositories["tiuu/falcon-7b"] = Repository(folder_files(make_tiny_model(tmp_path / "tiny")))
        async with running_registry(tmp_path / "data", sources=there.settings()) as registry:
            model = await registry.model("falcon-7b")
            request = model_request(model, "tiuu/falcon-7b", request_id=case_id)
            first = await followed(registry.stub.ImportModelVersion(request))
            num_asked = len(there.hub.asked)
            again = await followed(registry.stub.ImportModelVersion(request))
            assert (again.version, len(there.hub.asked)) == (first.version, num_asked)
            assert first.version.name == f"{model}/versions/1"


@pytest.mark.parametrize("case_id", ["002-17"], ids=["002-17"])
@on_loop
async def test_an_address_without_its_host_is_told_by_name(case_id: str, tmp_path: Path) -> None:
    """The first part of a path, taken for a host, is the word that the answer names; nothing is asked for."""
    with elsewhere(tmp_path / "there") as there:
        async with running_registry(tmp_path / "data", sources=there.settings()) as registry:
            request = dataset_request(await registry.dataset(), "https://substratusai/hf-llm-trainer")
            error = await refused(followed(registry.stub.ImportDatasetVersion(request)), Reason.URL_NOT_ALLOWED)
            assert "the host substratusai is not on the operator's list" in error.message, case_id
        assert not there.files.asked
