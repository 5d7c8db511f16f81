"""The house keeps its shape: imports point down, and what belongs to one place stays there."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "gateway"
MODULES = sorted(PACKAGE.rglob("*.py"))

#: The rows, top first. A module imports from rows below its own, or from its own package.
ROWS: tuple[frozenset[str], ...] = (
    frozenset({"cli", "key_commands", "__main__", "launcher", "reference", "engine", "demo", "boxes"}),
    frozenset({"app"}),
    frozenset({"api"}),
    frozenset({"access", "catalog", "media", "upstream"}),
    frozenset({"protocol", "metrics", "logs", "watch", "ledger", "usage_log", "tracing"}),
    frozenset({"settings", "errors", "series", "chunked"}),
)
HOT_PATH = (
    "api/inference.py",
    "api/edge.py",
    "api/exchange.py",
    "api/relay.py",
    "api/call.py",
    "api/dialects.py",
    "api/observation.py",
    "upstream/",
)


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def part_of(path: Path) -> str:
    """The top-level part of the package that a file belongs to."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Each imported module with whether the import is at the top of the file."""
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((f"{node.module}.{alias.name}", id(node) in top) for alias in node.names)


def row(part: str) -> int:
    return next(number for number, parts in enumerate(ROWS) if part in parts)


def allowed(importer: str, imported: str) -> bool:
    if importer == imported or (importer, imported) == ("settings", "errors"):
        return True
    if importer == "__init__":
        return imported == "launcher"
    if row(importer) == 0:
        return True
    return row(importer) < row(imported)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    wrong = [
        module
        for module, _ in imports(path)
        if module.startswith("gateway.") and not allowed(part_of(path), module.split(".")[1])
    ]
    assert wrong == []


def files_importing(*libraries: str) -> set[str]:
    return {name_of(p) for p in MODULES if any(m.split(".")[0] in libraries for m, _ in imports(p))}


def test_only_engine_and_demo_import_torch_vllm_and_transformers() -> None:
    parts = {name.split("/")[0] for name in files_importing("torch", "vllm", "transformers", "tokenizers")}
    assert parts <= {"engine", "demo"}


def test_engine_and_demo_are_imported_lazily() -> None:
    eager = {
        name_of(path)
        for path in MODULES
        for module, at_top in imports(path)
        if at_top and module.startswith(("gateway.engine", "gateway.demo")) and part_of(path) not in ("engine", "demo")
    }
    assert eager <= {"cli.py"}


def test_fastapi_and_starlette_are_imported_by_app_and_api_alone() -> None:
    assert all(name.startswith(("app/", "api/", "engine/")) for name in files_importing("fastapi", "starlette"))


def test_hot_path_is_free_of_frameworks_and_http_clients() -> None:
    slow = files_importing("fastapi", "starlette", "httpx", "aiohttp", "requests", "pydantic")
    assert [name for name in slow if name.startswith(HOT_PATH)] == []


def test_httpx_only_reads_the_urls_of_media_and_the_keys_of_token_providers() -> None:
    assert files_importing("httpx") <= {"media/urls.py", "access/jwks.py"}


def test_environment_is_read_in_settings_alone() -> None:
    readers = {name_of(p) for p in MODULES if "os.environ" in p.read_text() or "getenv" in p.read_text()}
    assert readers == {"settings/environment.py"}


def test_no_module_has_global_state() -> None:
    users = [name_of(p) for p in MODULES if any(isinstance(n, ast.Global) for n in ast.walk(ast.parse(p.read_text())))]
    assert users == []


def test_no_file_has_a_name_that_says_nothing() -> None:
    empty = {"utils", "common", "helpers", "base", "manager", "misc"}
    assert [name_of(p) for p in MODULES if p.stem in empty] == []


@pytest.mark.parametrize("path", [p for p in MODULES if p.read_text()], ids=name_of)
def test_first_line_says_the_modules_one_job(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring
    assert docstring.splitlines()[0].endswith((".", ":"))
