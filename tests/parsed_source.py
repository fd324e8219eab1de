"""The source as Python parses it: what a module's names are made of, and who is called how."""

from __future__ import annotations

import ast
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).parents[1]

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Module:
    """A module by its names. What is defined within a function is not among them."""

    file: str
    tree: ast.Module
    constants: dict[str, list[ast.expr]] = field(default_factory=lambda: defaultdict(list))
    functions: dict[str, FunctionNode] = field(default_factory=dict)
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    properties: list[FunctionNode] = field(default_factory=list)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By the name it has here: the module it is from, and its name there."""
    calls: list[ast.Call] = field(default_factory=list)
    texts: list[ast.Constant] = field(default_factory=list)
    parents: dict[ast.AST, ast.AST] = field(default_factory=dict)

    def functions_around(self, node: ast.AST) -> Iterator[FunctionNode]:
        """The functions that a node is in, the innermost first."""
        while node in self.parents:
            node = self.parents[node]
            if isinstance(node, FunctionNode):
                yield node


def parsed(package: str) -> dict[str, Module]:
    """All modules of a package of this checkout, by their dotted names."""
    found = {}
    for path in sorted((CHECKOUT / package).rglob("*.py")):
        file = path.relative_to(CHECKOUT)
        name = ".".join(file.with_suffix("").parts).removesuffix(".__init__")
        found[name] = _module(str(file), ast.parse(path.read_text(encoding="utf-8")))
    return found


def _module(file: str, tree: ast.Module) -> Module:
    module = Module(file, tree)
    for statement in tree.body:
        if isinstance(statement, FunctionNode):
            module.functions[statement.name] = statement
        for names, value in _bound_by(statement):
            for name in names:
                module.constants[name].append(value)
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        _enter(module, node)
        # As ast.walk does, which keeps to itself who was whose child.
        for child in ast.iter_child_nodes(node):
            module.parents[child] = node
            todo.append(child)
    return module


def _enter(module: Module, node: ast.AST) -> None:
    match node:
        case ast.ImportFrom(module=str(home), names=names):
            for alias in names:
                module.imports[alias.asname or alias.name] = (home, alias.name)
        case ast.ClassDef(name=name):
            module.classes[name] = node
        case ast.Call():
            module.calls.append(node)
        case ast.Constant(value=str()):
            module.texts.append(node)
        case ast.FunctionDef() if _is_property(node):
            module.properties.append(node)


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    """All calls in it."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def called(call: ast.Call) -> str:
    """The last part of the name of what is called; empty where it has none."""
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def arguments(call: ast.Call, but: str = "") -> Iterator[ast.expr]:
    """All that is given, whether by place or by name, `but` one name."""
    yield from call.args
    yield from (keyword.value for keyword in call.keywords if keyword.arg != but)


def parameters(function: FunctionNode) -> list[str]:
    """Their names."""
    of = function.args
    return [each.arg for each in of.posonlyargs + of.args + of.kwonlyargs]


def returned(function: FunctionNode) -> Iterator[ast.expr]:
    """What it returns or yields."""
    for node in ast.walk(function):
        if isinstance(node, ast.Return | ast.Yield) and node.value is not None:
            yield node.value


def returns(function: FunctionNode) -> str:
    """What it says that it returns."""
    return ast.unparse(function.returns) if function.returns else ""


@cache
def bindings(function: FunctionNode) -> list[tuple[set[str], ast.expr]]:
    """Names, and a value that they are made of: assigned, appended, or looped over."""
    return [bound for node in ast.walk(function) for bound in _bound_by(node)]


def _bound_by(node: ast.AST) -> Iterator[tuple[set[str], ast.expr]]:
    match node:
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                yield _names(target), value
        case (
            ast.AnnAssign(target=target, value=ast.expr() as value)
            | ast.AugAssign(target=target, value=value)
            | ast.NamedExpr(target=target, value=value)
            | ast.For(target=target, iter=value)
            | ast.comprehension(target=target, iter=value)
        ):
            yield _names(target), value
        # Also `names.setdefault(…).append(value)`.
        case ast.Call(func=ast.Attribute(value=target, attr="append"), args=[value]):
            yield _names(target), value


def _names(target: ast.expr) -> set[str]:
    return {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}


def _is_property(function: FunctionNode) -> bool:
    return any(isinstance(d, ast.Name) and d.id == "property" for d in function.decorator_list)
