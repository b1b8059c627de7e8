"""Lists of addresses: what they give, and what is said of a wrong one."""

from __future__ import annotations

import re

import pytest

from services.grpckit.settings import SettingsError
from services.trainer.settings import TrainerSettings
from tuneforge import Client, InvalidArgument
from tuneforge.addresses import split_addresses

WRONG = [
    ("", "'' has an empty part"),
    ("a:1,,b:2", "'a:1,,b:2' has an empty part"),
    ("a:1,", "'a:1,' has an empty part"),
    ("a:1,b", "'b' is not of the form host:port"),
    ("a:1,b:0", "'b:0' is not of the form host:port"),
    ("a:1 b:2", "'a:1 b:2' is not of the form host:port"),
    ("a:1,b:2,a:1", "'a:1' stands twice in 'a:1,b:2,a:1'"),
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("host:1", ("host:1",)),
        ("host1:7102, host2:7102", ("host1:7102", "host2:7102")),
        ("[::1]:1,127.0.0.1:1", ("[::1]:1", "127.0.0.1:1")),
    ],
)
def test_a_list_is_read(text: str, expected: tuple[str, ...]) -> None:
    """Addresses stand in their order, spaces around commas do not matter."""
    assert split_addresses(text) == expected
    assert TrainerSettings.from_env({"TUNEFORGE_SCHEDULER_ADDRESS": text}).schedulers == expected


@pytest.mark.parametrize(("text", "problem"), WRONG)
def test_a_wrong_list_is_refused_by_its_value(text: str, problem: str) -> None:
    """Empty parts, missing ports and repetitions are named, by the reader, by the client and by a node."""
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}$"):
        split_addresses(text)
    if not text:
        return  # not set
    with Client(scheduler=text) as client, pytest.raises(InvalidArgument) as refused:
        client.jobs.read("j")
    assert problem in str(refused.value)
    with pytest.raises(SettingsError) as settings:
        TrainerSettings.from_env({"TUNEFORGE_SCHEDULER_ADDRESS": text})
    assert problem in settings.value.problems[0]
    assert settings.value.problems[0].startswith("TUNEFORGE_SCHEDULER_ADDRESS=")


def test_all_that_is_wrong_is_told_at_once() -> None:
    """Three mistakes are one error."""
    with pytest.raises(ValueError, match=r"^'a' is not .*; 'a,,b:1,b:1' has an empty part; 'b:1' stands twice"):
        split_addresses("a,,b:1,b:1")
