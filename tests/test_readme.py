"""The README names what there is: options, commands, metrics; and nothing that it names is missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from node_runner.cli.list.command import groups
from node_runner.cli.main import app
from node_runner.reporting.console import MEANINGS


ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
GROUPS = {group: [option.name for option in options] for group, options in groups(None).items()}
ELSEWHERE = ("experiment", "pair")
"""Groups whose options are too many for a first page."""


def section(title: str) -> str:
    """The text below a heading, up to the next one."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_is_named(group: str):
    text = section("Models") if group == "model" else section("Config groups")
    assert f"`{group}`" in section("Config groups")
    missing = [name for name in GROUPS[group] if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)]
    assert group in ELSEWHERE or not missing


def test_every_command_is_named():
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert names - {"train"} == set(re.findall(r"^node-run (\w+)(?=\s)", section("Commands"), re.MULTILINE))


def test_every_metric_is_defined():
    text = section("What the numbers mean")
    assert [name for name in MEANINGS if f"`{name}`" not in text] == []


def test_what_is_linked_is_there():
    links = re.findall(r"\]\((?!https?:|#)([^)]+)\)", README)
    assert links and [link for link in links if not (ROOT / link).exists()] == []


def test_presets_that_are_named_exist():
    named = re.findall(r"experiment=(\w+)", README) + re.findall(r"^\| \[(\w+)\]\(experiments/", README, re.MULTILINE)
    assert set(named) <= set(GROUPS["experiment"])
