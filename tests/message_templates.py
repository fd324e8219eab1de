"""Every message that the program can tell, read off its syntax: nothing of it is run.

A message begins where an exception is made, a warning is logged or one of `_TELLERS` is called.
From there each expression is followed back to the texts that can flow into it: through local names,
constants, tables of sentences, properties and functions that return text, and what callers in the
same module give as a parameter. What is not literally there becomes a hole, `…`. So of

    raise UsageError(f"{file}: {_why(exc)}; mend that")

there are `…: …; mend that`, of a UsageError, and each text that `_why` returns.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.parsed_source import (
    FunctionNode,
    Module,
    arguments,
    bindings,
    called,
    calls,
    parameters,
    parsed,
    returned,
    returns,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

HOLE = "…"
WRAPPER = Path(__file__).parents[1] / "cron" / "persona-etl-cron"
_IN_SHELL = re.compile(r"\$(?:\w+|\([^)]*\)|\{[^}]*\})")

# Whose messages are ours. Those of the program itself are found by their names.
_FOREIGN_ERRORS = {"ValueError", "BadParameter", "ClickException", "PydanticCustomError"}
# Ours that take a message, by where it is told: on the screen, of a file or a ping, in the ledger;
# last, a variable that holds a class of errors, and what gathers the mistakes in settings.
_TELLERS = {
    *("wrong", "unknown", "fail", "_tell", "Reason", "Refused"),
    *("Output", "File", "Value", "Trouble"),
    *("_issue", "_issues", "end", "add_worst_items", "rejection"),
    *("error", "shorten"),
}
_TELLING_KEYWORDS = {"message", "refused"}
_LOUD = {"warning", "error", "exception", "critical", "log"}
# What gives back the texts that it is given.
_PASS_ON = {"next", "list", "sorted", "tuple", "dict", "str", "iter", "map", "enumerate"}
_METHODS = {"join", "format", "items", "values", "get", "replace", "removeprefix", "strip"}
_TEXTS = {"str", "list[str]"}
# Of an expression, the parts that become part of its value: not tests, keys and indices.
_PARTS: dict[type[ast.AST], tuple[str, ...]] = {
    ast.BinOp: ("left", "right"),
    ast.BoolOp: ("values",),
    ast.Dict: ("values",),
    ast.FormattedValue: ("value",),
    ast.GeneratorExp: ("elt",),
    ast.IfExp: ("body", "orelse"),
    ast.List: ("elts",),
    ast.ListComp: ("elt",),
    ast.NamedExpr: ("value",),
    ast.Starred: ("value",),
    ast.Subscript: ("value",),
    ast.Tuple: ("elts",),
}
# In logging's spelling and in that of str.format.
_HOLES = re.compile(r"%(?:\(\w+\))?[.\d]*[sdgr]|\{[a-z_]+(?:![rs])?(?::\w+)?\}")
_RAISED_BY_SQL = re.compile(r"RAISE EXCEPTION (?:USING MESSAGE = )?'([^']+)'")
_JOINED_IN_SQL = re.compile(r"'\s*\|\|\s*'")


class Template(NamedTuple):
    """A text with holes; where the source has it; and of which error it is the message."""

    text: str
    where: str
    error: str = ""
    """The class that was called with it. Empty where it only flows into one, or is none."""


@cache
def templates() -> set[Template]:
    """All of them, those of cron's wrapper too."""
    return _Reader(parsed("etl")).read() | _of_the_wrapper()


def _of_the_wrapper() -> set[Template]:
    told = re.findall(r'\b(?:fail |why=)"([^"]+)"', WRAPPER.read_text(encoding="utf-8"))
    return {Template(_IN_SHELL.sub(HOLE, text), WRAPPER.name) for text in told}


def words(text: str) -> int:
    """How many literal words a template has."""
    return len(re.findall(r"\S*[^\W\d_]{2,}\S*", text))


class _Reader:
    def __init__(self, modules: dict[str, Module]) -> None:
        self._modules = modules
        self._errors = _FOREIGN_ERRORS | {
            name for module in modules.values() for name in module.classes if name.endswith("Error")
        }
        self._properties: dict[str, list[tuple[Module, FunctionNode]]] = defaultdict(list)
        for module in modules.values():
            for function in module.properties:
                if _tells(function):
                    self._properties[function.name].append((module, function))
        self._found: set[Template] = set()
        self._seen: set[ast.AST] = set()

    def read(self) -> set[Template]:
        for module in self._modules.values():
            for call in module.calls:
                self._begin(module, call)
            for class_ in module.classes.values():
                if class_.name in self._errors:
                    self._follow_class(module, class_)
            for text in module.texts:
                self._take_from_sql(module, text, str(text.value))
        return self._found

    def _begin(self, module: Module, call: ast.Call) -> None:
        """Follow what a call tells, if it does."""
        name = called(call)
        if name in self._errors and call.args:
            self._take_literal(module, call.args[0], error=name)
        is_shown = name in {"echo", "secho"} and any(
            keyword.arg == "err" for keyword in call.keywords
        )
        if name in self._errors | _TELLERS or is_shown or _is_loud(call):
            self._follow_all(module, arguments(call, but="extra"))
        self._follow_all(module, (k.value for k in call.keywords if k.arg in _TELLING_KEYWORDS))

    def _follow_class(self, module: Module, class_: ast.ClassDef) -> None:
        """What an error adds by itself: in its message, and as defaults of its parts."""
        for function in ast.walk(class_):
            if isinstance(function, FunctionNode) and function.name in {"__init__", "__str__"}:
                self._follow_all(module, function.args.defaults)
                self._follow_all(module, filter(None, function.args.kw_defaults))
                self._follow_all(module, returned(function))
                for call in calls(function):
                    if called(call) == "__init__":
                        self._follow_all(module, arguments(call))

    def _follow_all(self, module: Module, nodes: Iterable[ast.expr]) -> None:
        for node in nodes:
            self._follow(module, node)

    def _follow(self, module: Module, node: ast.expr) -> None:
        """Take the text in an expression, then what its parts and names stand for."""
        if node in self._seen:
            return
        self._seen.add(node)
        self._take_literal(module, node)
        match node:
            case ast.JoinedStr(values=values):
                # Not its literal pieces: they have just been taken as one text.
                self._follow_all(module, (v for v in values if isinstance(v, ast.FormattedValue)))
            case ast.Name():
                self._follow_name(module, node)
            case ast.Attribute(attr=name):
                for home, function in self._properties[name]:
                    self._follow_all(home, returned(function))
            case ast.Call():
                self._follow_call(module, node)
        for part in _PARTS.get(type(node), ()):
            value = getattr(node, part)
            self._follow_all(module, value if isinstance(value, list) else [value])

    def _follow_call(self, module: Module, call: ast.Call) -> None:
        match call.func:
            case ast.Name(id=name):
                home, function = self._function(module, name)
                if function is not None and _tells(function):
                    self._follow_all(home, returned(function))
                    # What is given to a function elsewhere, which gives back a text.
                    if home is not module and returns(function) in _TEXTS:
                        self._follow_all(module, arguments(call))
                if name in self._errors or name in _PASS_ON:
                    self._follow_all(module, arguments(call))
            case ast.Attribute(value=value, attr=name) if name in _METHODS:
                self._follow_all(module, [value, *call.args])

    def _follow_name(self, module: Module, name: ast.Name) -> None:
        """What a name stands for: in the functions around it, in its module, in another."""
        for function in module.functions_around(name):
            found = [value for bound, value in bindings(function) if name.id in bound]
            if found:
                self._follow_all(module, found)
                return
            if name.id in parameters(function):
                self._follow_parameter(module, function, name.id)
                return
        home, original = module.imports.get(name.id, ("", name.id))
        module = self._modules.get(home, module)
        self._follow_all(module, module.constants[original])

    def _follow_parameter(self, module: Module, function: FunctionNode, name: str) -> None:
        """What callers in the same module give; those elsewhere are followed from their call."""
        names = parameters(function)
        place = names.index(name) - (names[0] in {"self", "cls"})
        for call in module.calls:
            if called(call) == function.name:
                self._follow_all(module, call.args[place : place + 1])
                self._follow_all(module, (k.value for k in call.keywords if k.arg == name))

    def _function(self, module: Module, name: str) -> tuple[Module, FunctionNode | None]:
        home, original = module.imports.get(name, ("", name))
        module = self._modules.get(home, module)
        return module, module.functions.get(original)

    def _take_literal(self, module: Module, node: ast.expr, error: str = "") -> None:
        match node:
            case ast.Constant(value=str(text)):
                self._take(module, node, _HOLES.sub(HOLE, text), error)
            case ast.JoinedStr(values=values):
                pieces = (v.value if isinstance(v, ast.Constant) else HOLE for v in values)
                self._take(module, node, "".join(map(str, pieces)), error)

    def _take_from_sql(self, module: Module, node: ast.Constant, sql: str) -> None:
        """What a script tells by itself, in psql or in a view."""
        if sql.startswith("persona-etl: ") and not isinstance(module.parents[node], ast.JoinedStr):
            self._take(module, node, sql)
        for raised in _RAISED_BY_SQL.findall(_JOINED_IN_SQL.sub("", sql)):
            self._take(module, node, re.sub(r"\{\w+\}|%", HOLE, raised))

    def _take(self, module: Module, node: ast.expr, text: str, error: str = "") -> None:
        text = re.sub(f"{HOLE}+", HOLE, " ".join(text.split()))
        if words(text):
            self._found.add(Template(text, f"{module.file}:{node.lineno}", error))


def _is_loud(call: ast.Call) -> bool:
    match call.func:
        case ast.Attribute(value=ast.Name(id="logger"), attr=name):
            return name in _LOUD
    return False


def _tells(function: FunctionNode) -> bool:
    """Whether it returns texts, or errors."""
    return re.search(r"\bstr\b|Error\b", returns(function)) is not None
