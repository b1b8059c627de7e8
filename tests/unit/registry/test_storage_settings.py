"""Where blobs live, from the environment: all mistakes at once, and no secret in any text."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.grpckit.settings import Environment, SettingsError
from services.registry.blobs.presigning import Credentials, ObjectRequest, presign
from services.registry.blobs.settings import StorageSettings

HOME = "TUNEFORGE_REGISTRY_BLOBS"
KEYS = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "hush-hush"}


def read(**variables: str) -> StorageSettings:
    """Reads the settings from some variables."""
    env = Environment(variables)
    settings = StorageSettings.from_env(env)
    env.finish()
    return settings


def test_a_folder_is_the_default() -> None:
    """Without a home nothing else is asked for."""
    assert read().s3 is None


def test_a_bucket_is_read_with_all_that_belongs_to_it(tmp_path: Path) -> None:
    """Bucket, prefix and endpoint from the environment, credentials from there or from a file."""
    s3 = read(**KEYS, **{HOME: "s3://models/team/a/", "TUNEFORGE_REGISTRY_S3_ENDPOINT": "http://store:9000/"}).s3
    assert s3 is not None
    assert (s3.bucket, s3.prefix, s3.endpoint, s3.region) == ("models", "team/a", "http://store:9000", "us-east-1")
    assert s3.credentials == Credentials("someone", "hush-hush")
    assert "hush" not in repr(s3)
    (tmp_path / "keys.json").write_text(json.dumps({"access_key": "a", "secret_key": "b", "session_token": "c"}))
    s3 = read(**{HOME: "s3://models", "TUNEFORGE_REGISTRY_S3_CREDENTIALS": str(tmp_path / "keys.json")}).s3
    assert s3 is not None
    assert s3.credentials == Credentials("a", "b", "c")


@pytest.mark.parametrize(
    "home",
    [
        *("/data", "http://models", "s3://", "s3://ab", "s3://Models", "s3://a..b", "s3://models/../x"),
        *("s3://models/a//b", f"s3://models/{'k' * 1025}", "s3://models/sp ace", f"s3://{'b' * 64}"),
    ],
)
def test_a_home_that_no_store_has_is_refused(home: str) -> None:
    """Bucket names and prefixes that S3 does not take are told at the start, not at the first upload."""
    with pytest.raises(SettingsError, match=HOME):
        read(**KEYS, **{HOME: home})


def test_all_that_is_wrong_is_told_without_secrets(tmp_path: Path) -> None:
    """Endpoint, time and credentials in one go; a file that is no such file is named by its variable only."""
    (tmp_path / "keys.json").write_text('{"secret_key": "hush-hush"}')
    with pytest.raises(SettingsError) as caught:
        read(
            **{
                HOME: "s3://models",
                "TUNEFORGE_REGISTRY_S3_ENDPOINT": "store:9000",
                "TUNEFORGE_REGISTRY_S3_TIMEOUT_S": "never",
                "TUNEFORGE_REGISTRY_S3_CREDENTIALS": str(tmp_path / "keys.json"),
            }
        )
    assert len(caught.value.problems) == 3
    assert "hush" not in str(caught.value)


def test_a_url_is_signed_as_the_documents_say() -> None:
    """The example of AWS's own description of presigned URLs: same input, same signature."""
    url = presign(
        "https://examplebucket.s3.amazonaws.com",
        "us-east-1",
        Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        ObjectRequest(method="GET", path="/test.txt"),
        life_s=86400,
        now=datetime(2013, 5, 24, tzinfo=UTC),
    )
    assert url.endswith("aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404")
