"""The order of the rooms of lib/, as lib/README.md draws it: imports point one way."""

import ast
import sys

import pytest

# A module may import from its own room and from those before it.
ROOMS = ["base", "core", "formats", "video", "legacy utils", "models", "data", "reports", "engine", "door", "tools"]
# Apart from that, a module of `models` knows no video, and one of `video` no file format.
STRANGERS = {("models", "data"), ("data", "models"), ("models", "video"), ("video", "formats"), ("formats", "video")}

LEGACY_UTILS = {"bn_helper", "checkpoints", "collections", "lr_policy", "metrics", "misc", "timer", "visualize"}
# What every room may use.
BASE = {"utils.collections", "utils.errors", "utils.files", "utils.cli", "utils.stopping", "utils.timer"}
# Where options are read below `engine`: the two builders, and legacy's function of the global configuration.
KNOW_CFG = {"core", "models.model_builder_video", "data.data_builder", "utils.lr_policy"}
LONGEST_FILE = 350


@pytest.fixture(scope="module")
def modules(repo):
    """{dotted name: path} of every module of lib/ and tools/."""
    found = {}
    for folder in ("lib", "tools"):
        for path in sorted((repo / folder).rglob("*.py")):
            parts = path.relative_to(repo / folder).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if path.stat().st_size:
                found[name if folder == "lib" else f"tools.{name}"] = path
    return found


def room_of(module):
    if module in BASE:
        return "base"
    if module == "nonlocal_net":
        return "door"
    room = module.partition(".")[0]
    return "legacy utils" if room == "utils" else room


def imports_of(path, modules):
    """The project's modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name in modules or f"tools.{name}" in modules)


def test_no_import_goes_up(modules):
    wrong = []
    for module, path in modules.items():
        room = room_of(module)
        for imported in imports_of(path, modules):
            other = room_of(imported) if imported in modules else "tools"
            if ROOMS.index(other) > ROOMS.index(room) or (room, other) in STRANGERS:
                wrong.append(f"{module} imports {imported}")
    assert not wrong


def test_no_tool_imports_another(modules):
    tools = {name.removeprefix("tools.") for name in modules if name.startswith("tools.")} - {"_init_paths"}
    for name in tools:
        assert not tools & set(imports_of(modules[f"tools.{name}"], modules)), name


def test_no_cycle_of_modules(modules):
    done, on_the_way = set(), []

    def visit(module):
        assert module not in on_the_way, [*on_the_way, module]
        if module not in done:
            on_the_way.append(module)
            for imported in imports_of(modules[module], modules):
                if imported in modules and imported != module:
                    visit(imported)
            done.add(on_the_way.pop())

    for module in modules:
        visit(module)


def test_utils_holds_the_legacy_modules_and_at_most_four_more(repo):
    found = {path.stem for path in (repo / "lib/utils").glob("*.py")} - {"__init__"}
    assert found >= LEGACY_UTILS and len(found) <= len(LEGACY_UTILS) + 4


def test_only_the_builders_read_the_configuration_below_the_engine(modules):
    wrong = []
    for module, path in modules.items():
        room = room_of(module)
        if room in ("engine", "door", "tools", "core") or module in KNOW_CFG:
            continue
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        arguments = {node.arg for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.arg)}
        if "cfg" in names | arguments:
            wrong.append(module)
    assert not wrong


def test_files_are_short(modules):
    long = {module: lines for module, path in modules.items()
            if (lines := len(path.read_text().splitlines())) > LONGEST_FILE}
    assert not long


def test_no_room_has_the_name_of_a_package(repo):
    """`datasets` once hid the package of that name from every program with lib/ on its path."""
    rooms = {path.stem for path in (repo / "lib").iterdir() if path.name != "README.md"}
    assert not rooms & ({"datasets", "transformers", "evaluate"} | set(sys.stdlib_module_names))
