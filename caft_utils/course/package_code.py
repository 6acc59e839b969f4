"""The part of the package that a piece of code uses, and one hash over it.

A stored value must be computed again when code that it depends on changes, and should not be when other code
changes. The code that it depends on is found without running anything. It is

- every module that the given source imports, at any depth of nesting;
- every module that these modules import in turn, and the `__init__.py` of each folder above them;
- every module whose full name stands in quotes in one of them, because a child process may run it;
- the YAML files that lie beside one of these modules, or in a folder without modules below it.

Imports under `if TYPE_CHECKING:` do not count, because they never run. Where the imports of a module cannot
be known from its text (`import_module` with a computed name, `import caft_utils`, a star), all modules count.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path

PACKAGE = Path(__file__).parents[1]

# Modules that draw figures and mark exercises. Values are shown to them, and none comes from them.
ONLY_SHOWN_TO = ("plots", "course.exercises")

LAZY = "lazy_imports"  # the module behind the packages whose names are imported on first use
EVERYTHING = "*"  # stands for all modules
BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


def used_code(sources: Iterable[str], package: Path = PACKAGE) -> str:
    """Return the first 12 digits of a sha256 over the files that `used_files` returns."""
    hashed = sha256()
    for path in used_files(sources, package):
        hashed.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    return hashed.hexdigest()[:12]


def used_files(sources: Iterable[str], package: Path = PACKAGE) -> list[Path]:
    """Return the modules and YAML files of `package` that the sources use, directly or not, sorted.

    Args:
        sources: Python code, for example the cells that a notebook has run. Code that cannot be parsed cannot
            have run, and does not count.
    """
    found: set[Path] = set()
    waiting = {name for source in sources for name in _uses(source, package)}
    while waiting:
        name = waiting.pop()
        if name == EVERYTHING:
            return sorted([*package.rglob("*.py"), *package.rglob("*.yaml")])
        path = _file(name, package)
        if path is None or path in found or _is_only_shown_to(name):
            continue
        found.add(path)
        above = {name.rpartition(".")[0]} if name else set()
        waiting |= above | _uses_of_file(path, path.stat().st_mtime_ns, package)
    return sorted(found | set(_yaml_beside(found, package)))


def _is_only_shown_to(name: str) -> bool:
    return any(name == each or name.startswith(each + ".") for each in ONLY_SHOWN_TO)


def _file(name: str, package: Path) -> Path | None:
    """Return the file of a module, named as below the package ("" is the package itself), or None."""
    place = package.joinpath(*name.split(".")) if name else package
    for path in (place / "__init__.py", place.with_suffix(".py")):
        if path.is_file():
            return path
    return None


def _yaml_beside(modules: set[Path], package: Path) -> Iterator[Path]:
    folders = {path.parent for path in modules}
    for path in package.rglob("*.yaml"):
        folder = path.parent
        while folder != package and not any(folder.glob("*.py")):
            folder = folder.parent
        if folder in folders:
            yield path


@cache
def _uses_of_file(path: Path, changed: int, package: Path) -> frozenset[str]:
    """Return what a module uses; `changed` is the time of its last change, so that an edit is seen."""
    text = path.read_text(encoding="utf-8")
    if path == package / f"{LAZY}.py":
        return frozenset()  # it imports what `_lazy_homes` reads from the packages that call it
    return frozenset(_uses(text, package))


def _uses(source: str, package: Path) -> Iterator[str]:
    """Yield the modules below the package that the source names, or `EVERYTHING`."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return
    top = package.name
    for node in _statements(tree.body):
        if isinstance(node, ast.Import):
            for each in node.names:
                if each.name.split(".")[0] == top:
                    yield each.name[len(top) + 1 :] if each.asname and each.name != top else EVERYTHING
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield EVERYTHING  # relative: the package has none, and a source has no place
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == top:
            for each in node.names:
                yield from _imported((node.module or "")[len(top) + 1 :], each.name, package)
    if re.search(r"\b(import_module|__import__)\(", source):
        yield EVERYTHING
    yield from re.findall(rf"""["']{top}\.([\w.]+)["']""", source)


def _imported(module: str, name: str, package: Path) -> Iterator[str]:
    """Yield the modules that `from <module> import <name>` needs, `module` as below the package."""
    inner = f"{module}.{name}" if module else name
    homes = _lazy_homes(module, package)
    if name == "*":
        yield EVERYTHING
    elif _file(inner, package):  # a module: which of its lazy names will be used is not known
        yield inner
        yield from {f"{inner}.{home}" for home in _lazy_homes(inner, package).values()}
    elif name in homes:
        yield f"{module}.{homes[name]}" if module else homes[name]
    else:
        yield module


def _lazy_homes(module: str, package: Path) -> dict[str, str]:
    """Return {name: module below this one that defines it} of a package of lazy names, else {}."""
    path = _file(module, package)
    if path is None or path.name != "__init__.py":
        return {}
    return _homes_in(path, path.stat().st_mtime_ns)


@cache
def _homes_in(path: Path, changed: int) -> dict[str, str]:
    text = path.read_text(encoding="utf-8")
    if "lazy_names(" not in text:
        return {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            return {name: home for home, names in ast.literal_eval(node.value).items() for name in names}
    raise ValueError(f"{path} calls lazy_names without a literal table of names above the call")


def _statements(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yield the statements at any depth, except those under `if TYPE_CHECKING:`."""
    for node in body:
        yield node
        for block in BLOCKS:
            if block == "body" and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                continue
            inner = getattr(node, block, ())
            yield from _statements(inner if isinstance(inner, list) else ())
