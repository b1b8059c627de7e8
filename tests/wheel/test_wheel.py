"""What is shipped: the wheel holds the SDK and the command line, and nothing that only a service needs."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CHECK = """
import importlib.util, sys
import tuneforge
from tuneforge import Client, TrainingSpec
from tuneforge.cli.app import cli
assert importlib.util.find_spec("services") is None, "services is importable"
assert importlib.util.find_spec("tests") is None, "tests is importable"
with Client() as client:
    client.jobs.watch("x").close()
for name in tuneforge.__all__:
    getattr(tuneforge, name)
loaded = {"torch", "transformers", "sqlalchemy", "jinja2", "tokenizers"} & set(sys.modules)
assert not loaded, loaded
print(tuneforge.__version__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds the wheel with what is installed here: no network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "--wheel-dir", str(folder), str(ROOT)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_claims_one_name(wheel: Path) -> None:
    """Beside its metadata the wheel has exactly the package `tuneforge`."""
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"tuneforge"}


def test_the_wheel_has_all_of_the_package_and_its_types(wheel: Path) -> None:
    """Every module, the generated code with its stubs, and the marker for type checkers."""
    with zipfile.ZipFile(wheel) as archive:
        shipped = set(archive.namelist())
    source = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tuneforge").rglob("*")
        if path.suffix in {".py", ".pyi"} or path.name == "py.typed"
    }
    assert source <= shipped
    assert "tuneforge/py.typed" in shipped


@pytest.mark.heavy
def test_the_wheel_works_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    """With its declared dependencies and nothing else, the package imports whole and the command runs."""
    environment = tmp_path / "venv"
    venv.create(environment)
    programs = environment / "bin"
    install = ["install", "--quiet", "--no-compile", "-c", str(ROOT / "constraints.txt"), str(wheel)]
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python")]
    subprocess.run([*pip, *install], check=True, capture_output=True)
    program = [str(programs / "python"), "-I", "-c", CHECK]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    command = [str(programs / "tuneforge"), "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"tuneforge {done.stdout}"
