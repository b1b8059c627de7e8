"""What commands say when something goes wrong on the way: where it stands, and what to do next."""

import json
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner

from tuneforge._transport import typed_error
from tuneforge.cli.app import cli
from tuneforge.cli.datasets import _Upload
from tuneforge.cli.failures import describe
from tuneforge.cli.stopping import stoppable
from tuneforge.errors import FailedPrecondition, InvalidArgument, Reason, Unavailable
from tuneforge.gate_files import read_policy

NOT_TEXT = b"alias = \xff"


def cut_off() -> Unavailable:
    """Returns the error of a registry that was killed."""
    return Unavailable(Reason.PEER_UNAVAILABLE, "the registry does not answer: the connection was refused")


def test_an_upload_that_is_cut_off_says_what_is_kept() -> None:
    """Once bytes are on their way, the command says that they are kept and how to go on; before, there are none."""
    upload = _Upload(())
    upload.start()
    with pytest.raises(Unavailable) as caught, upload:
        raise cut_off()
    assert "No version was made; what has arrived at the registry is kept" in describe(caught.value)
    with pytest.raises(Unavailable) as early, _Upload(()):
        raise cut_off()
    assert "kept" not in describe(early.value)


def test_a_service_that_goes_away_is_told_with_the_advice_of_the_command() -> None:
    """The text for Ctrl-C is as true for a connection that broke; one without advice adds nothing."""
    with pytest.raises(Unavailable) as caught, stoppable("stopped: parts are hidden; run the command again"):
        raise cut_off()
    assert describe(caught.value).endswith("\nParts are hidden; run the command again.")
    with pytest.raises(Unavailable) as bare, stoppable("stopped waiting; the copy goes on"):
        raise cut_off()
    assert "copy" not in describe(bare.value)


class _Unimplemented(grpc.RpcError):
    """What gRPC answers for a method that a server does not have."""

    def code(self) -> grpc.StatusCode:
        """Returns the code."""
        return grpc.StatusCode.UNIMPLEMENTED

    def details(self) -> str:
        """Returns gRPC's own text."""
        return "Method not found!"


def test_the_address_of_another_service_is_told() -> None:
    """Not gRPC's words, but who was asked and what to look at."""
    error = typed_error(_Unimplemented(), "the registry at 127.0.0.1:7102")
    assert isinstance(error, FailedPrecondition)
    assert str(error).startswith("the registry at 127.0.0.1:7102 is another service, or of an older release")
    assert "addresses" in error.cure


def test_files_that_are_no_text_are_told_with_the_place(tmp_path: Path) -> None:
    """Of a gate policy, and of scores."""
    file = tmp_path / "policy.toml"
    file.write_bytes(NOT_TEXT)
    with pytest.raises(InvalidArgument, match="no text in UTF-8, from byte 8 on"):
        read_policy(file)
    done = CliRunner().invoke(cli, ["evaluations", "record", "m/1", "d/1", "accuracy", str(file)])
    assert (done.exit_code, "no text in UTF-8, from byte 8 on" in done.output) == (1, True)


def test_scores_without_a_score_are_refused_here(tmp_path: Path) -> None:
    """An empty file, or one of empty lines, is told before anything is sent."""
    file = tmp_path / "scores.jsonl"
    for content in ("", "\n \n"):
        file.write_text(content)
        done = CliRunner().invoke(cli, ["evaluations", "record", "m/1", "d/1", "accuracy", str(file)])
        assert done.exit_code == 1
        assert "has no scores" in done.output
        assert json.dumps("row") in done.output


def test_a_broken_recipe_is_told_once(tmp_path: Path) -> None:
    """On stderr, by its file, and nowhere a second time."""
    file = tmp_path / "broken.py"
    file.write_text("raise ValueError('no')\n")
    # A process of its own: what other tests have set up as logging would say it again.
    command = [sys.executable, "-m", "tuneforge.cli", "recipes", "check", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    text = done.stdout + done.stderr
    assert text.count("cannot be imported") == 1
    assert text.startswith("broken.py: cannot be imported: ValueError: no")
