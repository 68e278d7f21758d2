"""What -v and -q show, and where: messages on standard error, results on standard output."""

import logging

import pytest
import typer

from aumcli import cli
from aumcli.utils.logging import get_logger, show_logs

pytest_plugins = ["aum_fixtures"]


@pytest.fixture(autouse=True)
def level_as_before():
    logger = logging.getLogger("aumcli")
    before = logger.level
    yield
    logger.setLevel(before)


@pytest.mark.parametrize(
    "options, shown",
    [
        ((), {"information", "warning: careful", "error: wrong"}),
        (("-v",), {"aumcli.module: detail", "information", "warning: careful", "error: wrong"}),
        (("-vv",), {"aumcli.module: detail", "information", "warning: careful", "error: wrong"}),
        (("-q",), {"warning: careful", "error: wrong"}),
        (("-qq",), {"error: wrong"}),
        (("-qqq",), {"error: wrong"}),
    ],
)
def test_levels(aum, monkeypatch, options, shown):
    def print_lines() -> list[str]:
        logger = get_logger("aumcli.module")
        logger.debug("detail")
        logger.info("information")
        logger.warning("careful")
        logger.error("wrong")
        return ["a result"]

    monkeypatch.setattr("aumcli.info.recipe_lines", print_lines)
    for result in (aum("info", "recipes", *options), aum(*options, "info", "recipes")):
        assert set(result.err.splitlines()) == shown and result.out == "a result\n" and result.code == 0


def test_every_command_has_them():
    commands = typer.main.get_command(cli.app).commands
    assert len(commands) == 8
    for command in commands.values():
        assert {"-v", "-q"} <= {name for option in command.params for name in option.opts}, command.name


def test_messages_leave_results_alone(aum, clips, trained):
    normal, quiet = (aum("predict", clips, "--model", trained, *options) for options in ((), ("-q",)))
    assert normal.out == quiet.out and "model " in normal.err and quiet.err == ""


def test_any_handler_can_write_a_name(caplog):
    show_logs()
    get_logger("aumcli.module").warning("a\udce9.wav")
    assert caplog.records[-1].getMessage().encode("utf-8") == rb"a\xe9.wav"
