"""The rules of the house, as functions from a source tree to the list of its violations.

A tree is the folder that holds `assay/`. Each rule returns sentences such as
`assay/space/space.py:12 imports assay.run.face: up from floor 3 to floor 8`. `test_house.py` runs
every rule on the real tree, and on small made-up trees that must fail it.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FLOORS: list[tuple[str, ...]] = [
    # From the ground up. What stands on one line does not import each other. The first three
    # lines are the ground floor of the house: errors lie under what raises them.
    ("errors",),
    ("cost", "pareto", "options"),
    ("train",),
    ("architecture",),
    ("space",),
    ("contracts",),
    ("weights", "signals", "hardware", "zoo", "study", "executors"),
    ("strategies", "estimators"),
    ("trust", "report", "testing", "handover"),
    ("run",),
    ("cli",),
    ("__main__",),
]
TORCH_FREE = ("strategies", "study", "report", "trust", "cli")
MAX_LINES = 400
VAGUE = {"utils", "util", "helpers", "helper", "misc", "common", "manager", "base"}
UNSAFE = {"pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"}


@dataclass(frozen=True)
class Module:
    """One parsed source file."""

    name: str
    path: Path
    tree: ast.Module
    lines: int

    @property
    def room(self) -> str:
        """The part after `assay`, "" for the face itself."""
        return room_of(self.name)

    def at(self, node: ast.AST) -> str:
        """Where a node stands, to open a sentence."""
        inner = self.name.replace(".", "/")
        inner += "/__init__" if self.path.name == "__init__.py" else ""
        return f"{inner}.py:{getattr(node, 'lineno', 1)}"


def room_of(name: str) -> str:
    """The part after `assay` of a dotted name, "" for the face itself."""
    return [*name.split("."), ""][1]


@functools.cache
def modules(root: Path) -> dict[str, Module]:
    """Parse every file of `root/assay`, by dotted name; once, so change no tree after that."""
    found = {}
    for path in sorted((root / "assay").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text()
        found[name] = Module(name, path, ast.parse(text), len(text.splitlines()))
    return found


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes below, function bodies included, but not what only a type checker sees."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield other
                yield from runtime_nodes(other)
            continue
        yield child
        yield from runtime_nodes(child)


def imports(module: Module, known: dict[str, Module]) -> Iterator[tuple[str, ast.AST]]:
    """Yield each imported module with the statement; a submodule where a package names one."""
    for node in runtime_nodes(module.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                up = node.level - (module.path.name == "__init__.py")
                parts = module.name.split(".")
                source = ".".join([*parts[: len(parts) - up], *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield (inner if inner in known else source), node


def _ours(name: str) -> bool:
    return name == "assay" or name.startswith("assay.")


def _floor(room: str) -> int | None:
    if room == "":
        return len(FLOORS)  # the face: everything lies below it
    return next((i for i, rooms in enumerate(FLOORS) if room in rooms), None)


# --- imports ------------------------------------------------------------------------------------


def arrows(root: Path) -> list[str]:
    """Imports point down, and rooms on one floor do not import each other."""
    known, wrong = modules(root), []
    for module in known.values():
        here = _floor(module.room)
        if here is None:
            wrong.append(f"{module.at(module.tree)} lies in a room {module.room!r} without a floor")
            continue
        for name, node in imports(module, known):
            if not _ours(name):
                continue
            room = room_of(name)
            there = _floor(room)
            if room == module.room and room:
                continue
            if there is None:
                wrong.append(f"{module.at(node)} imports {name}: a room without a floor")
            elif there > here:
                wrong.append(f"{module.at(node)} imports {name}: up from floor {here} to {there}")
            elif there == here:
                wrong.append(f"{module.at(node)} imports {name}: a room on its own floor")
    return wrong


def cycles(root: Path) -> list[str]:
    """No module imports itself through others, not even inside a function."""
    known = modules(root)
    graph = {
        name: sorted({target for target, _ in imports(m, known) if target in known} - {name})
        for name, m in known.items()
    }
    wrong: list[str] = []
    done: set[str] = set()

    def walk(name: str, trail: list[str]) -> None:
        if name in trail:
            wrong.append("cycle: " + " -> ".join([*trail[trail.index(name) :], name]))
        elif name not in done:
            for target in graph[name]:
                walk(target, [*trail, name])
            done.add(name)

    for name in graph:
        walk(name, [])
    return wrong


def torch_imports(root: Path) -> list[str]:
    """Rooms that need no torch never name it; what they load is tested by loading them."""
    known = modules(root)
    return [
        f"{module.at(node)} imports {name}: {module.room} is free of torch"
        for module in known.values()
        if module.room in TORCH_FREE and not module.name.startswith("assay.strategies.learned")
        for name, node in imports(module, known)
        if name.split(".")[0] == "torch"
    ]


def unsafe(root: Path) -> list[str]:
    """Nothing that was stored is executed: no eval, exec or pickle, and no torch.load."""
    wrong = []
    known = modules(root)
    for module in known.values():
        for name, node in imports(module, known):
            if name.split(".")[0] in UNSAFE:
                wrong.append(f"{module.at(node)} imports {name}")
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            allows = any(k.arg == "allow_pickle" for k in node.keywords)
            if called in {"eval", "exec", "compile", "__import__", "torch.load", "torch.save"} or (
                called in {"np.load", "numpy.load"} and allows
            ):
                wrong.append(f"{module.at(node)} calls {called}")
    return wrong


# --- shape --------------------------------------------------------------------------------------


def sizes(root: Path) -> list[str]:
    """No file is longer than the ceiling."""
    return [
        f"{m.at(m.tree)} has {m.lines} lines; the ceiling is {MAX_LINES}"
        for m in modules(root).values()
        if m.lines > MAX_LINES
    ]


def vague_names(root: Path) -> list[str]:
    """No file, folder or class says only that it is useful; no metric is called FLOPs."""
    wrong = []
    for m in modules(root).values():
        if m.name.split(".")[-1] in VAGUE:
            wrong.append(f"{m.at(m.tree)} is named for no algorithm and no noun")
        for node in ast.walk(m.tree):
            if isinstance(node, ast.ClassDef) and (
                node.name.startswith("Base") or node.name.endswith(("Base", "Manager", "Helper"))
            ):
                wrong.append(
                    f"{m.at(node)} class {node.name} is named for no algorithm and no noun"
                )
            if isinstance(node, ast.arg | ast.AnnAssign | ast.FunctionDef):
                name = getattr(node, "arg", None) or getattr(node, "name", None)
                name = name or ast.unparse(node.target)  # type: ignore[union-attr]
                if "flops" in name.lower():
                    wrong.append(f"{m.at(node)} {name}: half of the tools mean MACs; say macs")
    return wrong


def work_at_import(root: Path) -> list[str]:
    """Importing a module defines things and does nothing else."""
    wrong = []
    for m in modules(root).values():
        for node in m.tree.body:
            acts = isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant)
            if acts or isinstance(node, ast.For | ast.While | ast.With):
                wrong.append(f"{m.at(node)} runs at import: {ast.unparse(node).splitlines()[0]}")
    return wrong


def swallowed(root: Path) -> list[str]:
    """No handler takes every exception and drops it."""
    wrong = []
    for m in modules(root).values():
        for node in ast.walk(m.tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            broad = node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"}
            idle = all(
                isinstance(s, ast.Pass | ast.Continue)
                or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
                for s in node.body
            )
            if broad and idle:
                wrong.append(f"{m.at(node)} swallows every exception")
    return wrong


def shadows(root: Path) -> list[str]:
    """No submodule directly under assay bears the name of a public name."""
    known = modules(root)
    public = set(public_names(known["assay"])) - {"errors"}
    rooms = {name.split(".")[1] for name in known if name != "assay"}
    return [f"assay.{name} is a module and a public name" for name in sorted(public & rooms)]


def public_names(module: Module) -> list[str]:
    """Return a module's `__all__`, without importing it."""
    for node in module.tree.body:
        if isinstance(node, ast.AnnAssign | ast.Assign):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if ast.unparse(target) == "__all__" and node.value is not None:
                return list(ast.literal_eval(node.value))
    return []
