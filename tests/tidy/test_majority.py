"""A majority is counted in `copycat/raft/configuration.py` and nowhere else in core and replica.

A second rule for who is a majority (members that join, members that never vote) would have to be
found and changed in every other place.
"""

from __future__ import annotations

import ast

import pytest

from tests.tidy.tree import sources

ROOMS = ("copycat/raft", "copycat/replica", "copycat/sim/checkers")
COUNTED_IN = "copycat/raft/configuration.py"


def _is_size(node: ast.expr) -> bool:
    """Whether it is a number of things: `len(x)`, `sum(x)`, or a name that says how many."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in {"len", "sum"}
    if isinstance(node, ast.BinOp):
        return _is_size(node.left) or _is_size(node.right)
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return any(word in name for word in ("voters", "votes", "members", "peers"))


def _is_two(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value == 2


def _is_asked_for(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    """Whether this `quorum_size` is compared with something: decisions ask `has_quorum`."""
    parent: ast.AST | None = parents.get(node)
    while isinstance(parent, ast.BinOp):
        parent = parents.get(parent)
    return isinstance(parent, ast.Compare)


def counted(name: str, text: str) -> list[str]:
    """Every place of this file that counts a majority by itself, with its line."""
    tree = ast.parse(text)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    lines: list[int] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp):
            is_half = isinstance(node.op, ast.FloorDiv | ast.Div) and _is_two(node.right)
            if (is_half or isinstance(node.op, ast.RShift)) and _is_size(node.left):
                lines.append(node.lineno)
            if isinstance(node.op, ast.Mult):
                is_double = _is_two(node.left) and _is_size(node.right)
                if is_double or (_is_two(node.right) and _is_size(node.left)):
                    lines.append(node.lineno)
        elif isinstance(node, ast.Attribute) and node.attr in {"quorum", "quorum_size"}:
            if node.attr == "quorum" or _is_asked_for(node, parents):
                lines.append(node.lineno)
        elif isinstance(node, ast.Name | ast.arg):
            label = node.id if isinstance(node, ast.Name) else node.arg
            if "majority" in label:
                lines.append(node.lineno)
    return [f"{name}:{line}: a majority is counted in {COUNTED_IN} alone" for line in lines]


def test_a_majority_is_counted_in_one_place() -> None:
    texts = dict(sources(".py", rooms=ROOMS))
    assert counted(COUNTED_IN, texts.pop(COUNTED_IN))
    problems = [each for name, text in texts.items() for each in counted(name, text)]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    "text",
    [
        "needed = len(members) // 2 + 1",
        "needed = self._voters // 2 + 1",
        "needed = (len(peers) + 1) // 2",
        "half = len(voters) >> 1",
        "ok = 2 * sum(votes) > n",
        "ok = votes * 2 > n",
        "ok = votes >= raft.configuration.quorum",
        "ok = 1 + votes >= raft.configuration.quorum_size",
        "majority = 2",
        "def f(majority: int) -> None: ...",
    ],
)
def test_the_majority_check_fires(text: str) -> None:
    assert counted("copycat/raft/a.py", text)


@pytest.mark.parametrize(
    "text",
    [
        "ok = raft.configuration.has_quorum(granted)",
        "text = f'{raft.configuration.quorum_size} needed'",
        "timeout_ms // 4; 2 * elapsed_ms < timeout_ms; nbytes // 2; min(2 * count, most)",
        "average = len(body) // count",
    ],
)
def test_the_majority_check_does_not_fire(text: str) -> None:
    assert not counted("copycat/raft/a.py", text)
