"""The rooms of vcorr and the floors that they stand on, drawn from the imports.

    python -m benchmarks.house [--write]

A room is what stands directly in vcorr/: a package with all that is in it, or a module. Its floor is the longest way
down by imports; imports within functions count, those for the type checker alone do not. Prints the table; --write puts
it into CONTRIBUTING.md, where a test compares it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
BEGIN, END = "<!-- floors: python -m benchmarks.house --write -->\n", "<!-- end -->\n"


def imports() -> dict[str, set[str]]:
    """The rooms that each room imports; __init__ and __main__ are faces, not rooms."""
    graph = grimp.build_graph("vcorr", exclude_type_checking_imports=True, cache_dir=None)
    found: dict[str, set[str]] = {}
    for module in graph.modules:
        if (room := room_of(module)) is not None:
            found.setdefault(room, set())
            others = {room_of(other) for other in graph.find_modules_directly_imported_by(module)} - {room, None}
            found[room] |= {other for other in others if other}
    return found


def room_of(module: str) -> str | None:
    """The room of a module, by its full name."""
    parts = module.split(".")
    return None if len(parts) < 2 or parts[0] != "vcorr" or parts[1].startswith("__") else parts[1]


def floors(rooms: dict[str, set[str]]) -> list[list[str]]:
    """The rooms of each floor, from the ground up; raises where imports go in a circle."""
    found: list[list[str]] = []
    left = dict(rooms)
    while left:
        standing = {room for floor in found for room in floor}
        floor = sorted(room for room, below in left.items() if below <= standing)
        if not floor:
            raise ValueError(f"imports go in a circle among {', '.join(sorted(left))}")
        found.append(floor)
        left = {room: below for room, below in left.items() if room not in floor}
    return found


def drawing() -> str:
    """The table, the highest floor first; of a room's imports those are named that no other one of them imports."""
    rooms = imports()
    below = {room: _all_below(room, rooms) for room in rooms}
    lines = ["| floor | room | stands on |", "|---|---|---|"]
    for number, floor in reversed(list(enumerate(floors(rooms)))):
        for room in floor:
            direct = {one for one in rooms[room] if not any(one in below[other] for other in rooms[room])}
            lines.append(f"| {number} | `{room}` | {', '.join(sorted(direct)) or 'the ground'} |")
    return "\n".join(lines) + "\n"


def _all_below(room: str, rooms: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = list(rooms[room])
    while waiting:
        if (one := waiting.pop()) not in found:
            found.add(one)
            waiting += rooms[one]
    return found


def drawn(page: str) -> str:
    """What the page shows."""
    return page.partition(BEGIN)[2].partition(END)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put it into CONTRIBUTING.md")
    if parser.parse_args().write:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(page.replace(BEGIN + drawn(page) + END, BEGIN + drawing() + END), encoding="utf-8")
    else:
        print(drawing(), end="")


if __name__ == "__main__":
    main()
