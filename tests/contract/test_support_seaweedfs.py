"""The S3 server that tests run against behaves as one: conditional writes, ranges, and a kill that loses nothing."""

import io
from pathlib import Path

import minio
import pytest

from tests.support.seaweedfs import Bucket, S3Server


def test_a_bucket_stores_and_gives_back(bucket: Bucket) -> None:
    """What was put is listed and comes back, in part too; a bucket is a test's own."""
    client = bucket.client
    client.put_object(bucket.name, "a/b", io.BytesIO(b"0123456789"), 10)
    answer = client.get_object(bucket.name, "a/b", offset=3, length=4)
    assert answer.read() == b"3456"
    answer.release_conn()
    assert bucket.keys() == ["a/b"]
    with pytest.raises(minio.S3Error, match="NoSuchKey"):
        client.stat_object(bucket.name, "a/c")


def test_what_was_stored_survives_a_kill(tmp_path: Path) -> None:
    """An answered write is there after kill -9 and a start on the same ports."""
    server = S3Server(tmp_path)
    server.start()
    try:
        bucket = server.bucket()
        bucket.client.put_object(bucket.name, "kept", io.BytesIO(b"x"), 1)
        server.kill()
        server.start()
        assert bucket.keys() == ["kept"]
    finally:
        server.kill()
