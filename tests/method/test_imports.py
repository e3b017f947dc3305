"""The method in a Python that has no LeRobot."""

import ast
import subprocess
import sys
from pathlib import Path

import lawm_lerobot.method

METHOD = Path(lawm_lerobot.method.__path__[0])
WITHOUT_LEROBOT = """
import importlib, pkgutil, sys

class NoLeRobot:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "lerobot":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoLeRobot())
try:
    import lerobot
    sys.exit("LeRobot could be imported.")
except ModuleNotFoundError:
    pass
import lawm_lerobot.method as method
for module in pkgutil.walk_packages(method.__path__, f"{method.__name__}."):
    importlib.import_module(module.name)
    print(module.name)
"""


def test_every_module_can_be_imported_where_lerobot_is_not_installed():
    done = subprocess.run([sys.executable, "-c", WITHOUT_LEROBOT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    modules = [
        path.relative_to(METHOD)
        for path in METHOD.rglob("*.py")
        if path.parent != METHOD or path.stem != "__init__"
    ]
    assert len(done.stdout.split()) == len(modules) > 10


def test_nothing_but_torch_and_draccus_is_imported():
    found = set()
    for path in METHOD.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module)
    roots = {name.partition(".")[0] for name in found} - sys.stdlib_module_names
    assert roots == {"torch", "draccus", "lawm_lerobot"}
    assert {name for name in found if name.startswith("lawm_lerobot.")} <= {
        name for name in found if name.startswith("lawm_lerobot.method")
    }
