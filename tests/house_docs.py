"""The rules of the house about documentation; see `house.py`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.house import Module, modules, public_names

Function = ast.FunctionDef | ast.AsyncFunctionDef
TIMES = {"latency", "time", "duration", "elapsed", "memory", "timeout", "wall", "energy"}


def missing_all(root: Path) -> list[str]:
    """Every module says what it offers, and offers what it says."""
    wrong = []
    for m in modules(root).values():
        if not any("__all__" in {ast.unparse(t) for t in _targets(node)} for node in m.tree.body):
            wrong.append(f"{m.at(m.tree)} has no __all__")
        bound = {name for node in _top(m.tree) for name in _binds(node)}
        wrong += [
            f"{m.at(m.tree)} __all__ names {name!r}, which is not there"
            for name in public_names(m)
            if name not in bound
        ]
    return wrong


def undocumented(root: Path) -> list[str]:
    """Every module, and every public class, method, function and constant has a docstring."""
    wrong = []
    for m in modules(root).values():
        if not ast.get_docstring(m.tree):
            wrong.append(f"{m.at(m.tree)} has no docstring")
        public = set(public_names(m))
        for node, after in zip(m.tree.body, [*m.tree.body[1:], None]):
            if isinstance(node, ast.ClassDef) and node.name in public:
                wrong += [f"{m.at(n)} {where} has no docstring" for where, n in _bare(node)]
            elif isinstance(node, Function) and node.name in public:
                if not ast.get_docstring(node):
                    wrong.append(f"{m.at(node)} {node.name} has no docstring")
            elif public & {ast.unparse(t) for t in _targets(node)} and not _is_text(after):
                wrong.append(f"{m.at(node)} {ast.unparse(_targets(node)[0])} has no docstring")
    return wrong


def undescribed(root: Path) -> list[str]:
    """The public face says what it takes and what it raises.

    Each function and class in `assay.__all__` describes every parameter (or field) under `Args:` or
    `Attributes:`. Where the body of a function, method or constructor raises, `Raises:` says so.
    """
    known, wrong = modules(root), []
    public = set(public_names(known["assay"]))
    for m, node in _face(known, public):
        doc = ast.get_docstring(node) or ""
        if isinstance(node, Function):
            wrong += [f"{m.at(node)} {node.name} {f}" for f in _faults(doc, _params(node), node)]
            continue
        making = [n for n in _methods(node) if n.name in {"__init__", "__new__", "__post_init__"}]
        names = [p for n in making if n.name != "__post_init__" for p in _params(n)]
        names += _fields(node)
        inherited = "".join(ast.get_docstring(base) or "" for base in _bases(m, node))
        wrong += [
            f"{m.at(node)} {node.name} {f}" for f in _faults(doc, names, *making, more=inherited)
        ]
        for method in _methods(node):
            if not method.name.startswith("_") and _raises(method):
                own = ast.get_docstring(method) or ""
                wrong += [
                    f"{m.at(method)} {node.name}.{method.name} {f}"
                    for f in _faults(own, [], method)
                ]
    return wrong


def shapeless(root: Path) -> list[str]:
    """A public function of tensors or arrays says their shapes: `[N, ...]` in backticks."""
    wrong = []
    for m in modules(root).values():
        public = set(public_names(m))
        for node in m.tree.body:
            if isinstance(node, Function) and node.name in public:
                types = [a.annotation for a in node.args.args + node.args.kwonlyargs]
                text = " ".join(ast.unparse(t) for t in [*types, node.returns] if t is not None)
                tensors = "Tensor" in text or "ndarray" in text
                doc = ast.get_docstring(node) or ""
                if tensors and "`[" not in doc and "scalar" not in doc:
                    wrong.append(f"{m.at(node)} {node.name} takes or returns tensors of no shape")
    return wrong


def unitless(root: Path) -> list[str]:
    """A number with a unit carries it in its name: `latency_ms`, `memory_bytes`, `cost_s`."""
    wrong = []
    for m in modules(root).values():
        for node in ast.walk(m.tree):
            if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
                name = node.arg if isinstance(node, ast.arg) else ast.unparse(node.target)
                number = set(ast.unparse(node.annotation).split(" | ")) & {"int", "float"}
                if number and name.split(".")[-1] in TIMES:
                    wrong.append(f"{m.at(node)} {name} is a number without its unit")
    return wrong


NO_PAPER = ("assay.strategies.random", "assay.estimators.scratch")


def unsourced(root: Path) -> list[str]:
    """What comes from a paper names it: each strategy, estimator and ready space but two."""
    wrong = []
    for m in modules(root).values():
        room, own = m.room in {"strategies", "estimators", "zoo"}, m.path.name != "__init__.py"
        if not room or not own or m.name in NO_PAPER or not public_names(m):
            continue
        methods = {n.name for n in ast.walk(m.tree) if isinstance(n, ast.FunctionDef)}
        if m.room != "zoo" and not methods & {"ask", "estimate"}:
            continue  # a part of estimators, none of its own
        docs = [ast.get_docstring(n) or "" for n in _docable(m.tree)]
        if not any("Source:" in doc for doc in docs):
            wrong.append(f"{m.at(m.tree)} names no source (a line `Source: ...` in a docstring)")
    return wrong


# --- reading a tree -----------------------------------------------------------------------------


def _top(tree: ast.Module) -> Iterator[ast.stmt]:
    for node in tree.body:
        yield node
        if isinstance(node, ast.If | ast.Try):
            yield from node.body


def _targets(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.Assign):
        return node.targets
    return [node.target] if isinstance(node, ast.AnnAssign) else []


def _binds(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, Function | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in node.names)
    yield from (ast.unparse(t) for t in _targets(node))


def _is_text(node: ast.stmt | None) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _docable(tree: ast.Module) -> list[ast.Module | ast.ClassDef | Function]:
    return [n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef | Function)]


def _methods(node: ast.ClassDef) -> list[Function]:
    return [n for n in node.body if isinstance(n, Function)]


def _bare(node: ast.ClassDef) -> Iterator[tuple[str, ast.AST]]:
    if not ast.get_docstring(node):
        yield node.name, node
    for method in _methods(node):
        marks = {ast.unparse(d).split(".")[-1] for d in method.decorator_list}
        if method.name.startswith("_") or marks & {"overload", "setter"}:
            continue
        if not ast.get_docstring(method):
            yield f"{node.name}.{method.name}", method


def _face(
    known: dict[str, Module], public: set[str]
) -> Iterator[tuple[Module, ast.ClassDef | Function]]:
    for m in known.values():
        for node in m.tree.body:
            own = isinstance(node, ast.ClassDef | Function) and node.name in public_names(m)
            if own and node.name in public:  # type: ignore[union-attr]
                yield m, node  # type: ignore[misc]


def _params(node: Function) -> list[str]:
    a = node.args
    named = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, [a.vararg, a.kwarg])]
    return [p.arg for p in named if p.arg not in {"self", "cls"} and not p.arg.startswith("_")]


def _fields(node: ast.ClassDef) -> list[str]:
    if not any("dataclass" in ast.unparse(d) for d in node.decorator_list):
        return []
    targets = [n.target for n in node.body if isinstance(n, ast.AnnAssign)]
    names = [t.id for t in targets if isinstance(t, ast.Name)]
    return [name for name in names if not name.startswith("_")]


def _raises(*nodes: Function) -> bool:
    """Whether a body raises by itself (a bare `raise` hands on what another raised)."""
    return any(isinstance(n, ast.Raise) and n.exc for node in nodes for n in ast.walk(node))


def _bases(module: Module, node: ast.ClassDef) -> Iterator[ast.ClassDef]:
    """Yield the bases that stand in the same module, whose parameters need no second telling."""
    names = {ast.unparse(base) for base in node.bases}
    for other in module.tree.body:
        if isinstance(other, ast.ClassDef) and other.name in names:
            yield other
            yield from _bases(module, other)


def _faults(doc: str, names: list[str], *bodies: Function, more: str = "") -> Iterator[str]:
    sections = [
        text.partition(mark)[2] for text in (doc, more) for mark in ("Args:", "Attributes:")
    ]
    listed = "\n".join(sections)
    for name in names:
        if f"{name}:" not in listed:
            yield f"does not describe {name!r} under Args: or Attributes:"
    if _raises(*bodies) and "Raises:" not in doc:
        yield "raises, and its docstring has no Raises:"
