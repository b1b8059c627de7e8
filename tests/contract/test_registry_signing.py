"""Signatures: every version has one that the standard tool takes, and whatever is changed is found and named."""

import os
import stat
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest
from sqlalchemy import text

from services.grpckit.folder_lock import StartRefused
from services.registry.signing.keys import KEY_FILE, Signer
from tests.contract.test_registry_publish import publication
from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.registry import PROJECT, RunningRegistry, refused, running_registry
from tests.support.registry_rows import registry_rows
from tests.support.tiny_model import make_tiny_model, write_rows
from tuneforge import _wire, signatures
from tuneforge.errors import Reason
from tuneforge.manifest import Manifest, ManifestFile, build
from tuneforge.signatures import SIGNATURE_FILE, Signature, SignatureError, bundle_of, trusted_from, verify_bundle
from tuneforge.v1 import datasets_pb2, models_pb2
from tuneforge.v1 import signing_pb2 as pb

pytestmark = EACH_DATABASE

TOOL = Path(os.environ.get("VIRTUAL_ENV", Path(__file__).parents[2] / ".venv")) / "bin" / "model_signing"


async def problems(registry: RunningRegistry, name: str) -> list[tuple[str, str]]:
    """Verifies a version and returns (reason, path) of all that is wrong."""
    last = pb.VerifyVersionResponse()
    async for message in registry.stub.VerifyVersion(pb.VerifyVersionRequest(name=name)):
        assert message.verified_bytes >= last.verified_bytes
        last = message
    assert last.is_done
    return [(problem.reason, problem.path) for problem in last.problems]


async def trusted(registry: RunningRegistry) -> dict[str, str]:
    """Returns the registry's keys by id."""
    answer = await registry.stub.ListSigningKeys(pb.ListSigningKeysRequest())
    return {key.key_id: key.public_key for key in answer.keys}


@on_loop
async def test_every_version_is_signed(tmp_path: Path) -> None:
    """Imported, published and of a data set: each comes with a signature by the current key over its very manifest."""
    async with running_registry(tmp_path / "data") as registry:
        request = await publication(registry, tmp_path)
        made = await registry.stub.PublishVersion(request)
        base = await registry.stub.GetModelVersion(models_pb2.GetModelVersionRequest(name=request.lineage.base.version))
        rows = await registry.stub.GetDatasetVersion(
            datasets_pb2.GetDatasetVersionRequest(name=request.lineage.dataset.version)
        )
        key = await registry.stub.GetSigningKey(pb.GetSigningKeyRequest(name="signingKeys/current"))
        assert key.is_current
        assert await registry.stub.GetSigningKey(pb.GetSigningKeyRequest(name=key.name)) == key
        for version in (made, base, rows):
            assert version.signature == await registry.stub.GetSignature(pb.GetSignatureRequest(name=version.name))
            assert version.signature.key_id == key.key_id
            signature = Signature(version.signature.key_id, version.signature.value)
            manifest = _wire.manifest(version.manifest)
            signatures.verify(signature, manifest, {key.key_id: key.public_key}, name=version.name)
            with pytest.raises(SignatureError):  # of another version, though of the same files
                signatures.verify(signature, manifest, {key.key_id: key.public_key}, name=f"{version.name}0")
            assert await problems(registry, version.name) == []
        await refused(registry.stub.GetSignature(pb.GetSignatureRequest(name=f"{made.name}0")), Reason.NOT_FOUND)
        await refused(
            registry.stub.GetSigningKey(pb.GetSigningKeyRequest(name=f"signingKeys/{'0' * 64}")), Reason.NOT_FOUND
        )
        for name in ("", "signingKeys/mine", key.key_id):
            await refused(registry.stub.GetSigningKey(pb.GetSigningKeyRequest(name=name)), Reason.INVALID_NAME)
        secret = tmp_path / "data" / KEY_FILE
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600


@on_loop
async def test_the_standard_tool_takes_our_signatures_and_we_take_its(tmp_path: Path) -> None:
    """`model_signing verify` agrees with us on a good folder and on each kind of damage; a bundle it made is taken."""
    folder = make_tiny_model(tmp_path / "tiny")
    async with running_registry(tmp_path / "data") as registry:
        version = await registry.imported(await registry.model(), folder)
        keys = await trusted(registry)
    manifest = _wire.manifest(version.manifest)
    bundle = bundle_of(version.name, manifest, Signature(version.signature.key_id, version.signature.value))
    assert verify_bundle(bundle, manifest, keys, name=version.name) == version.signature.key_id
    for path in folder.iterdir():  # as it would be downloaded
        if manifest.file(path.name) is None:
            path.unlink()
    (folder / SIGNATURE_FILE).write_bytes(bundle)
    public, private = tmp_path / "key.pub", tmp_path / "data" / KEY_FILE
    public.write_text(next(iter(keys.values())))
    arguments = ["verify", "key", folder, "--signature", folder / SIGNATURE_FILE, "--public_key", public]
    assert tool(*arguments) == 0
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert tool(*arguments) != 0
    weights.write_bytes(content)
    theirs = tmp_path / "theirs.sig"
    (folder / SIGNATURE_FILE).unlink()
    assert tool("sign", "key", folder, "--signature", theirs, "--private_key", private) == 0
    assert verify_bundle(theirs.read_bytes(), build(folder), keys, name=None) == version.signature.key_id
    weaker = Manifest.of(file for file in manifest.files if file.path != "config.json")
    with pytest.raises(SignatureError, match=r"config\.json"):
        verify_bundle(theirs.read_bytes(), weaker, keys, name=None)


def blob_file(data: Path, digest: str) -> Path:
    """Returns where a blob lies."""
    return next((data / "blobs").rglob(f"*{digest}*"))


def tool(*arguments: object) -> int:
    """Runs the standard tool and returns its exit code."""
    return subprocess.run([TOOL, *map(str, arguments)], capture_output=True, check=False).returncode


@on_loop
async def test_a_changed_byte_is_found_and_the_file_named(tmp_path: Path) -> None:
    """One flipped bit on the disk, a blob that is gone: the verification names the file."""
    async with running_registry(tmp_path / "data") as registry:
        version = await registry.imported(await registry.model(), make_tiny_model(tmp_path / "tiny"))
        by_path = {file.path: file.sha256 for file in version.manifest.files}
        blob = blob_file(tmp_path / "data", by_path["config.json"])
        blob.chmod(0o600)
        content = blob.read_bytes()
        blob.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        blob_file(tmp_path / "data", by_path["tokenizer.json"]).unlink()
        assert await problems(registry, version.name) == [
            (Reason.INTEGRITY, "config.json"),
            (Reason.INTEGRITY, "tokenizer.json"),
        ]


@on_loop
async def test_of_more_verifications_than_may_run_at_once_one_is_told_to_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who ends gives the place free, also where the version is damaged; where there is none the caller is told when."""
    async with running_registry(tmp_path / "data") as registry:
        version = await registry.imported(await registry.model(), make_tiny_model(tmp_path / "tiny"))
        monkeypatch.setattr("services.registry.signing.calls.AT_ONCE", 1)
        assert await problems(registry, version.name) == []
        blob_file(tmp_path / "data", version.manifest.files[0].sha256).unlink()
        assert len(await problems(registry, version.name)) == 1
        assert len(await problems(registry, version.name)) == 1
        monkeypatch.setattr("services.registry.signing.calls.AT_ONCE", 0)
        error = await refused(problems(registry, version.name), Reason.TOO_MANY_CALLS)
        assert error.retry_after_s


@on_loop
async def test_a_manifest_changed_in_the_database_does_not_fit_its_signature(tmp_path: Path) -> None:
    """Who can write to the database cannot make another file pass for the one that was signed."""
    async with running_registry(tmp_path / "data") as registry:
        name = await registry.dataset()
        files = await registry.put_files({"train.jsonl": write_rows(tmp_path / "rows.jsonl").read_bytes()})
        request = datasets_pb2.CreateDatasetVersionRequest(parent=name, manifest=files)
        version = await registry.stub.CreateDatasetVersion(request)
        other = await registry.put(b'{"messages": []}\n')
    manifest = Manifest.of(ManifestFile(file.path, other, 17) for file in version.manifest.files)
    with registry_rows(tmp_path / "data") as database:
        values = {"manifest": manifest.to_json().encode(), "digest": manifest.digest}
        change = text("UPDATE dataset_versions SET manifest = :manifest, digest = :digest")
        await database.write(lambda connection: connection.execute(change, values))
    async with running_registry(tmp_path / "data") as registry:
        assert (Reason.SIGNATURE, "") in await problems(registry, version.name)


@on_loop
async def test_keys_change_and_old_signatures_stay_good(tmp_path: Path) -> None:
    """A new key on top of the file signs from the next start on; the old one has endorsed it and stays in the list."""
    async with running_registry(tmp_path / "data") as registry:
        old = await registry.imported(await registry.model(), make_tiny_model(tmp_path / "tiny"))
        before = await trusted(registry)
    secret = tmp_path / "data" / KEY_FILE
    Signer(tmp_path / "new.pem", may_make=True).public_keys  # noqa: B018 - makes the file
    secret.write_bytes((tmp_path / "new.pem").read_bytes() + secret.read_bytes())
    async with running_registry(tmp_path / "data") as registry:
        new = await registry.imported(await registry.model("second"), make_tiny_model(tmp_path / "other", seed=1))
        keys = (await registry.stub.ListSigningKeys(pb.ListSigningKeysRequest())).keys
        assert [key.is_current for key in keys] == [True, False]
        first = await registry.stub.ListSigningKeys(pb.ListSigningKeysRequest(page_size=1))
        rest = pb.ListSigningKeysRequest(page_size=1, page_token=first.next_page_token)
        assert [*first.keys, *(await registry.stub.ListSigningKeys(rest)).keys] == list(keys)
        assert (new.signature.key_id, old.signature.key_id) == (keys[0].key_id, keys[1].key_id)
        offered = [
            signatures.PublicKey(
                key_id=key.key_id, pem=key.public_key, endorsed_by=key.endorsed_by, endorsement=key.endorsement
            )
            for key in keys
        ]
        assert set(trusted_from(before, offered)) == {key.key_id for key in keys}
        assert await problems(registry, old.name) == await problems(registry, new.name) == []
        forged = [signatures.PublicKey(key_id=offered[0].key_id, pem=offered[0].pem, endorsed_by=offered[1].key_id)]
        assert set(trusted_from(before, forged)) == set(before)


def test_a_file_that_is_no_key_is_refused(tmp_path: Path) -> None:
    """A missing file, one without a key and one with another kind of key each get a sentence."""
    bad = tmp_path / "key.pem"
    for content, words in ((None, "cannot be read"), (b"hello", "no private key")):
        if content is not None:
            bad.write_bytes(content)
        with pytest.raises(StartRefused, match=words):
            Signer(bad, may_make=False).public_keys  # noqa: B018


def test_what_is_signed_never_changes() -> None:
    """The statement over a known manifest is the same byte for byte in every release: old signatures depend on it."""
    manifest = Manifest.of([ManifestFile("a/b.json", "0" * 64, 1), ManifestFile("a-b.json", "f" * 64, 2)])
    signed = signatures.signed_text(f"{PROJECT}/models/m/versions/1", manifest)
    assert signed.startswith(b"DSSEv1 28 application/vnd.in-toto+json ")
    assert sha256(signed).hexdigest() == "7613ae792a263c826af5631d97aa72d1353702507d70f48d2a363ace07faa3af"
