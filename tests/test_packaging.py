import importlib.metadata
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import node_runner


ROOT = Path(__file__).resolve().parent.parent
CONFIGS = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")}

needs_pip_and_hatchling = pytest.mark.skipif(
    not {"pip", "hatchling"} <= {found.name for found in importlib.metadata.distributions()},
    reason="pip and hatchling build the wheel; pip install -e '.[dev]' brings hatchling",
)


def python(*arguments: str | Path, cwd: Path, **environment: str) -> str:
    """Standard output of this Python running `arguments`, which must succeed."""
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, f"{arguments}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def pip_wheel(source: Path, folder: Path) -> Path:
    python("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    python("-m", "hatchling", "build", "--target", "sdist", "--directory", folder, cwd=ROOT)
    (archive,) = folder.glob("*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return pip_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder of its own into which the wheel is installed, without its dependencies."""
    folder = tmp_path_factory.mktemp("installed")
    python("-m", "pip", "install", "--no-deps", "--no-index", "--target", folder, wheel, cwd=folder)
    return folder


@pytest.mark.slow
@needs_pip_and_hatchling
class TestBuild:
    def test_the_wheel_carries_the_package_and_every_config(self, wheel):
        names = set(zipfile.ZipFile(wheel).namelist())
        assert {"node_runner/__init__.py", "node_runner/configs/config.yaml"} <= names
        assert {f"node_runner/{path}" for path in CONFIGS} <= names
        assert {name.split("/")[0] for name in names} == {
            "node_runner",
            f"node_runner-{node_runner.__version__}.dist-info",
        }

    def test_a_wheel_built_from_the_sdist_is_the_same(self, sdist, wheel, tmp_path):
        again = zipfile.ZipFile(pip_wheel(sdist, tmp_path))
        assert sorted(again.namelist()) == sorted(zipfile.ZipFile(wheel).namelist())

    def test_the_sdist_leaves_out_what_is_not_source(self, sdist):
        with tarfile.open(sdist) as archive:
            parts = {Path(name).parts[1] for name in archive.getnames()}
        assert parts & {"configs", "node_runner", "tests"} == {"configs", "node_runner", "tests"}
        assert not parts & {".git", ".venv", "data", "dist", "experiments", "outputs"}

    def test_the_installed_program_finds_its_own_configs(self, installed, tmp_path):
        # PYTHONPATH comes before an editable install of this checkout; the working folder is neither.
        where = {"PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
        module = python("-c", "import node_runner; print(node_runner.__file__)", cwd=tmp_path, **where)
        assert Path(module.strip()) == installed / "node_runner" / "__init__.py"

        search_path = python(installed / "bin" / "node-run", "--info", "searchpath", cwd=tmp_path, **where)
        assert str(installed / "node_runner" / "configs") in search_path

    def test_the_installed_program_prints_the_defaults(self, installed, tmp_path):
        where = {"PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
        printed = python(installed / "bin" / "node-run", "--cfg", "job", cwd=tmp_path, **where)
        job = OmegaConf.create(printed)
        assert {"dataset", "model", "solver", "tolerance", "adjoint", "device"} <= set(job)
        defaults = OmegaConf.to_container(OmegaConf.load(ROOT / "configs" / "config.yaml").defaults)
        chosen = {group: option for item in defaults if isinstance(item, dict) for group, option in item.items()}
        for group in ("dataset", "model", "solver", "adjoint"):
            assert job[group].name == chosen[group]
        assert list(tmp_path.iterdir()) == [], "printing the configuration leaves files behind"


def test_one_version_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = OmegaConf.load(ROOT / "CITATION.cff")
    assert project["version"] == node_runner.__version__
    assert citation.version == node_runner.__version__
    assert f"## [{node_runner.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_pins_fit_the_declared_dependencies():
    requirements = pytest.importorskip("packaging.requirements")
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {}
    for line in lines:
        if line and not line.startswith("#"):
            pin = requirements.Requirement(line)
            pinned[pin.name.lower()] = str(pin.specifier).removeprefix("==")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [item for group in project["optional-dependencies"].values() for item in group]
    for wanted in map(requirements.Requirement, [*project["dependencies"], *extras]):
        assert wanted.name in pinned, f"{wanted.name} has no line in constraints.txt"
        assert wanted.specifier.contains(pinned[wanted.name]), f"constraints.txt pins {wanted.name} outside {wanted}"
