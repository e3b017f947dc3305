"""The wheel as a user gets it: what it holds, and that LeRobot finds the plugin in it."""

import email
import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[2]
DISTRIBUTION = "lerobot_policy_lawm"

# Run where nothing but the wheel can provide the package; prints what LeRobot knows after its own discovery.
DISCOVER = f"""
import importlib.metadata, json, sys
from lerobot.configs.policies import PreTrainedConfig
from lerobot.envs.configs import EnvConfig
from lerobot.utils.import_utils import register_third_party_plugins

register_third_party_plugins()

from lerobot.policies.factory import get_policy_class

own = lambda name: name.partition(".")[0] in ("{DISTRIBUTION}", "lawm_lerobot")
from lawm_lerobot.hub.cards import templates

policy_class = get_policy_class("lawm_act")
found = dict(
    distributions=[
        [d.metadata["Name"], str(d.locate_file(""))]
        for d in importlib.metadata.distributions()
        if (d.metadata["Name"] or "").replace("-", "_").lower() == "{DISTRIBUTION}"
    ],
    policies=sorted(PreTrainedConfig.get_known_choices()),
    envs=sorted(EnvConfig.get_known_choices()),
    policy_class=[policy_class.__module__, policy_class.name],
    cards={{path.name: str(path) for path in templates().iterdir()}},
    modules={{name: module.__file__ for name, module in sys.modules.items() if own(name)}},
    commands=[
        entry_point.name
        for entry_point in importlib.metadata.distribution("{DISTRIBUTION}").entry_points
        if entry_point.group == "console_scripts" and callable(entry_point.load())
    ],
)
print("FOUND " + json.dumps(found))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Without isolation nothing is downloaded: the build backend is one of the pinned requirements.
    directory = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", directory, ROOT]
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel in it that borrows every dependency, but not this checkout, from ours.

    The simulator is not borrowed: it is an optional extra, and the plugin has to register without it.
    """
    environment = tmp_path_factory.mktemp("installed").resolve()
    venv.create(environment, symlinks=True)
    paths = {"base": str(environment), "platbase": str(environment)}
    site_packages = Path(sysconfig.get_path("purelib", "venv", paths))

    # Links instead of one path entry for our whole site-packages: that would show the editable install's metadata.
    borrowed = environment / "borrowed"
    borrowed.mkdir()
    hidden = (DISTRIBUTION, f"_{DISTRIBUTION}", "lawm_lerobot", "metaworld", "mujoco")
    for scheme in ("purelib", "platlib"):
        for entry in Path(sysconfig.get_path(scheme)).iterdir():
            link = borrowed / entry.name
            if entry.suffix != ".pth" and not entry.name.startswith(hidden) and not link.exists():
                link.symlink_to(entry)
    (site_packages / "borrowed.pth").write_text(f"{borrowed}\n")

    from uv import find_uv_bin

    python = environment / "bin" / "python"
    install = [find_uv_bin(), "pip", "install", "--offline", "--no-deps", "--python", python, wheel]
    subprocess.run(install, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    return environment


def metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def test_wheel_metadata(wheel: Path) -> None:
    import lawm_lerobot

    found = metadata(wheel)
    # LeRobot compares and imports the name as it is written, so a normalised `lerobot-policy-lawm` would not be found.
    assert found["Name"] == DISTRIBUTION
    assert found["Version"] == lawm_lerobot.__version__
    assert found["License-Expression"] == "Apache-2.0"
    assert set(found["Requires-Python"].split(",")) == {">=3.12", "<3.14"}


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [PurePosixPath(name) for name in archive.namelist()]
    assert not [name for name in names if name.is_absolute() or ".." in name.parts]
    info = f"{DISTRIBUTION}-{metadata(wheel)['Version']}.dist-info"
    assert {name.parts[0] for name in names} == {"lawm_lerobot", f"{DISTRIBUTION}.py", info}

    in_checkout = {path.relative_to(ROOT).as_posix() for path in (ROOT / "lawm_lerobot").rglob("*.py")}
    in_wheel = {str(name) for name in names if name.parts[0] == "lawm_lerobot" and name.suffix == ".py"}
    assert in_wheel == in_checkout

    cards = {path.relative_to(ROOT) for path in (ROOT / "hub_cards").rglob("*") if path.is_file()}
    assert {f"lawm_lerobot/hub/{card.as_posix()}" for card in cards} <= {str(name) for name in names}


def test_lerobot_discovers_the_installed_wheel(installed: Path, tmp_path: Path) -> None:
    # Isolated mode and a directory of its own keep the checkout off the path.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [installed / "bin" / "python", "-I", "-c", DISCOVER]
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.partition("FOUND ")[2])

    ((name, location),) = found["distributions"]
    assert name == DISTRIBUTION
    assert Path(location).is_relative_to(installed)
    assert DISTRIBUTION in found["modules"], result.stderr
    outside = {n: f for n, f in found["modules"].items() if not Path(f).is_relative_to(installed)}
    assert not outside

    assert "lawm_act" in found["policies"]
    assert "lawm_metaworld" in found["envs"]
    assert found["policy_class"] == ["lawm_lerobot.policies.act.modeling_lawm_act", "lawm_act"]
    assert "lawm-export" in found["commands"]

    assert found["cards"].keys() == {path.name for path in (ROOT / "hub_cards").iterdir()}
    assert all(Path(path).is_relative_to(installed) for path in found["cards"].values())


def test_lock_file_names_no_index_and_no_path() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    requirements = [line for line in lock.splitlines() if line and not line.lstrip().startswith("#")]
    assert requirements
    for line in requirements:
        requirement = line.partition(";")[0].strip()
        name, separator, version = requirement.partition("==")
        assert separator and name and version, f"not a plain pin: {line}"
        assert "/" not in requirement and "@" not in requirement, line
