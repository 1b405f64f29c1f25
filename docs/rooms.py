"""Writes ``docs/rooms.md``, the plan of the house, from the docstrings and the floors: ``make docs``. A test fails while it is out of date."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "daemon" / "attachd"


def plan() -> str:
    """The whole page."""
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    yield "<!-- written by docs/rooms.py: `make docs` -->"
    yield "# The rooms\n"
    yield "Top to bottom, a floor a table: a room imports only what stands on a floor below its own (`pyproject.toml` draws them,"
    yield "`make check` holds them). To find where a line belongs, read until a sentence is true of it.\n"
    yield "`simulator` stands beside the house: it imports nothing of it, and nothing in it imports the simulator but the command.\n"
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    floors: list[str] = next(c["layers"] for c in contracts if c["name"] == "floors")
    for number, floor in enumerate([*floors, "simulator"]):
        yield f"## {len(floors) - number}\n" if number < len(floors) else "## Beside\n"
        yield "| room | is for |"
        yield "|---|---|"
        for name in sorted(floor.replace("(", "").replace(")", "").split(" | ")):
            yield from _room(name.strip())
        yield ""


def _room(name: str) -> Iterator[str]:
    path = PACKAGE / name
    if not path.is_dir():
        yield _row(name, path.with_suffix(".py"))
        return
    yield _row(f"{name}/", path / "__init__.py")
    for inside in sorted(path.rglob("*.py")):
        if inside.name != "__init__.py":
            yield _row(f"{inside.relative_to(PACKAGE).with_suffix('')}", inside)


def _row(name: str, path: Path) -> str:
    told = ast.get_docstring(ast.parse(path.read_text())) or ""
    sentence = " ".join(told.split("\n\n")[0].split())
    return f"| [`{name}`](../{path.relative_to(ROOT)}) | {sentence.replace('|', chr(92) + '|')} |"


if __name__ == "__main__":
    (ROOT / "docs" / "rooms.md").write_text(plan())
