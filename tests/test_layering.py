"""The rules of the house that a program can check, on the syntax tree of every file."""

import ast
from pathlib import Path

import pytest

import aumcli
from aumcli import config
from aumcli.recipe import Recipe

PACKAGE = Path(aumcli.__file__).parent
TREES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
    if "recipes" not in path.relative_to(PACKAGE).parts
}

COMMANDS = {"prepare", "train", "evaluate", "predict", "info", "bench", "ablate", "convert"}
LAYERS = (
    {"errors"},
    {"config", "utils"},
    {"recipe", "core", "usage", "paper"},
    {"checkpoints", "data"},
    {"classifier", "metrics"},
    {"report", "plan", "calibration", "false_alarms"},
    {"event_scores"},
    COMMANDS,
    {"cli"},
    {"__main__"},
)  # a module imports lower layers, or its own folder
ALLOWED = {("train", "evaluate"), ("ablate", "train"), ("ablate", "evaluate")}
HEAVY = {"torch", "torchaudio", "pandas", "matplotlib", "sklearn", "scipy", "numpy", "soundfile", "safetensors"}


def layer(unit: str) -> int:
    for number, units in enumerate(LAYERS):
        if unit in units:
            return number
    raise AssertionError(f"aumcli.{unit} has no place among LAYERS: give it one")


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def walk(node: ast.AST, into_functions: bool):
    """All nodes that run: without `if TYPE_CHECKING`, and without function bodies unless asked for."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child) or not into_functions and isinstance(child, (ast.FunctionDef, ast.Lambda)):
            continue
        yield child
        yield from walk(child, into_functions)


def imports(tree: ast.AST, into_functions: bool = True) -> list[str]:
    """Full names of what a file imports, a `from` import with the name behind it."""
    found = []
    for node in walk(tree, into_functions):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def unit_of(path: str) -> str:
    return path.removesuffix(".py").split("/")[0]


def own_units(tree: ast.AST) -> set[str]:
    return {name.split(".")[1] for name in imports(tree) if name.startswith("aumcli.")}


@pytest.mark.parametrize("path", [path for path in TREES if path != "__init__.py" and unit_of(path) != "models"])
def test_imports_go_one_way(path):
    unit = unit_of(path)
    for other in own_units(TREES[path]) - {unit}:
        assert layer(other) < layer(unit) or (unit, other) in ALLOWED, f"aumcli.{unit} must not import aumcli.{other}"


def test_configuration_depends_on_nothing():
    assert own_units(TREES["config.py"]) == set()


def test_utils_know_nothing_of_audio():
    for path, tree in TREES.items():
        if unit_of(path) == "utils":
            assert own_units(tree) <= {"utils", "errors"}, path


def test_core_knows_tensors_only():
    for path, tree in TREES.items():
        if unit_of(path) == "core":
            assert own_units(tree) <= {"core", "config", "errors"}, path
            names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
            attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
            assert not (names | attributes) & {"print", "open", "environ", "getenv", "read_text", "write_text"}, path


def module_path(name: str) -> str | None:
    """aumcli.data.decoding.audio.load_audio -> data/audio.py; None for what is not ours."""
    parts = name.split(".")
    if parts[0] != "aumcli":
        return None
    for length in range(len(parts), 1, -1):
        for candidate in ("/".join(parts[1:length]) + ".py", "/".join(parts[1:length]) + "/__init__.py"):
            if candidate in TREES:
                return candidate
    return "__init__.py"


@pytest.mark.parametrize("path", ["__init__.py", "__main__.py", "cli.py", "config.py", "recipe.py", "errors.py"])
def test_nothing_heavy_before_help(path):
    """At the top of these files, and of whatever they import there, nothing slow is imported."""
    waiting, seen = [path], set()
    while waiting:
        here = waiting.pop()
        seen.add(here)
        names = imports(TREES[here], into_functions=False)
        assert not {name.split(".")[0] for name in names} & HEAVY, f"{path}, by way of {here}"
        waiting += [found for found in map(module_path, names) if found is not None and found not in seen]


CONFIGS = [each for each in vars(config).values() if isinstance(each, type) and issubclass(each, config.Frozen)] + [
    Recipe
]
VERSIONS = {("AudioMambaConfig", "architecture"), ("ModelConfig", "format")}  # one allowed value: reading checks it
READ = {
    node.attr
    for tree in TREES.values()
    for node in ast.walk(tree)
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
}
FIELDS = [(each.__name__, field) for each in CONFIGS for field in each.model_fields]


@pytest.mark.parametrize("owner, field", FIELDS)
def test_every_setting_is_read(owner, field):
    """A setting that nothing reads promises what it doesn't do. Properties in config.py count as readers."""
    assert field in READ or (owner, field) in VERSIONS, f"{owner}.{field} is read nowhere"


@pytest.mark.parametrize("owner", CONFIGS)
def test_every_setting_is_described(owner):
    assert not [name for name, field in owner.model_fields.items() if not field.description and owner is not Recipe]


@pytest.mark.parametrize("path", TREES)
def test_no_loose_ends(path):
    text = (PACKAGE / path).read_text(encoding="utf-8")
    assert not [word for word in ("TODO", "FIXME", "XXX") if word in text]
    assert not [
        node.lineno for node in ast.walk(TREES[path]) if isinstance(node, ast.ExceptHandler) and node.type is None
    ]


@pytest.mark.parametrize("path", TREES)
def test_every_public_function_is_described(path):
    public = [
        node
        for node in ast.walk(TREES[path])
        if isinstance(node, (ast.ClassDef, ast.FunctionDef))
        and node in TREES[path].body
        and not node.name.startswith("_")
    ]
    overloads = [node for node in public if any(ast.unparse(each) == "overload" for each in node.decorator_list)]
    assert not [node.name for node in public if node not in overloads and not ast.get_docstring(node)]
    assert ast.get_docstring(TREES[path]) or not TREES[path].body
