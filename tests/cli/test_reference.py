"""docs/reference/cli.md names every command with every option that it has."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from copycat.cli.main import tree
from tests.tidy.tree import ROOT

_HEADING = re.compile(r"^## `copycat ([a-z ]+)`$", re.MULTILINE)
_OPTION = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)


def commands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        elif not command.hidden:
            yield f"{prefix}{name}", command


def options_of(command: click.Command) -> set[str]:
    """The long form of each option that help shows."""
    return {
        max((*parameter.opts, *parameter.secondary_opts), key=len)
        if not parameter.secondary_opts
        else f"{parameter.opts[0]}/{parameter.secondary_opts[0]}"
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden
    }


def sections(text: str) -> dict[str, set[str]]:
    """The options that the page lists for each command; an option's first word counts."""
    parts = _HEADING.split(text)[1:]
    return {
        name: {option.split(", ")[-1].split(" ")[0] for option in _OPTION.findall(body)}
        for name, body in zip(parts[::2], parts[1::2], strict=True)
    }


def test_the_page_names_every_command_and_option() -> None:
    text = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    assert sections(text) == {name: options_of(one) for name, one in commands(tree)}


def without_help(command: click.Command) -> list[str]:
    """Options of a command that its help only names."""
    return [
        one.opts[0]
        for one in command.params
        if isinstance(one, click.Option) and not (one.help or one.hidden)
    ]


def test_every_command_has_help() -> None:
    for name, command in commands(tree):
        assert command.help, name


def test_the_list_of_commands_is_read_in_80_columns() -> None:
    for name, command in tree.commands.items():
        assert not command.get_short_help_str(68).endswith("..."), name
        if not isinstance(command, click.Group):
            assert not without_help(command), name


def test_the_check_fires() -> None:
    page = "## `copycat log stat`\n| option | |\n| `-q, --quiet` | x |\n| `--last N` | y |\n"
    assert sections(page) == {"log stat": {"--quiet", "--last"}}
    one = click.Command("x", params=[click.Option(["--a"]), click.Option(["--b"], help="b")])
    assert without_help(one) == ["--a"]
