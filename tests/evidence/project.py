"""A small runbook project of its own, in a temporary folder, for pytest to be run on."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]

PYPROJECT = """
[tool.pytest]
strict = true
testpaths = ["tests", "features"]
pythonpath = ["."]
filterwarnings = ["error"]
addopts = ["-ra", "--import-mode=importlib", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
markers = ["weekly: cadence", "reads: effect", "scratch: effect", "changes: effect"]
"""

CONFTEST = """
from __future__ import annotations

from runbook_lib.evidence.environment import describe_environment

pytest_plugins = ["runbook_lib.gherkin.feature_files", "runbook_lib.evidence.plugin", "drill_steps"]

def pytest_configure(config):
    describe_environment(config, {"profile": "sandbox", "store": "http://me:hunter2@127.0.0.1:1"})
"""

STEPS = '''
"""Steps of which each does what its text says."""
from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from pytest_bdd import given, parsers, then, when

from runbook_lib.errors import DamagedArtefact, ToolMissing
from runbook_lib.outcome import Finding
from runbook_lib.phases import Phase, Progress


@pytest.fixture
def scratch():
    """Something that has to be cleaned up whatever happens."""
    Path("left-behind").touch()
    yield "scratch"
    if Path("clean-up-is-slow").exists():
        print("cleaning up")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
    Path("left-behind").unlink()


@pytest.fixture
def untidy():
    yield
    raise OSError("the database is still there")


@pytest.fixture
def no_server():
    raise ToolMissing("postgres 17", where="/usr/lib/postgresql", why="no such file", remedy="install it")


@given("last night's backup", target_fixture="backup")
def _(scratch):
    Path("something-ran").touch()
    return 5


@when("nothing much happens")
def _():
    """Nothing."""


@then(parsers.parse("there are {rows:d} rows"))
def _(backup, rows):
    print("captured in the step")
    assert backup == rows, f"{rows} rows expected, {backup} found"


@then("pytest.fail is called")
def _():
    pytest.fail("it does not hold")


@then("a tool is missing")
def _():
    raise ToolMissing("pg_dump 17", where="/usr/lib/postgresql", why="no such file", remedy="install it")


@then("the bytes are damaged")
def _():
    raise DamagedArtefact("the backup", where="s3://b/k", why="sha256 differs", remedy="take the one before")


@then("the drill has a bug")
def _():
    {}["password=hunter2"]


@then("the step is skipped")
def _():
    pytest.skip("no Docker here")


@when("the clean-up will fail")
def _(untidy):
    """Ask for the fixture."""


@when("no server comes up")
def _(no_server):
    """Ask for the fixture."""


@when("a table follows")
def _(datatable):
    """Take it."""


@when(parsers.parse("{name} arrives"))
def _(name):
    os.kill(os.getpid(), getattr(signal, name))
    time.sleep(5)


@when("the clean-up is interrupted as well")
def _():
    Path("clean-up-is-slow").touch()


@then("evidence is kept")
def _(evidence):
    evidence.watch(Progress("restore data", 1, 2, "bytes"))
    evidence.table("row counts", [{"table": "users", "rows": 5}, {"table": "a|b", "rows": 6, "password": "hunter2"}])
    evidence.text("pg_restore.log", "```\\npassword=hunter2\\n```")
    evidence.phases(
        "RTO of the drill", [Phase("fetch", 0, 2), Phase("restore", 1, 9)], target_seconds=3600, maximum_seconds=14400
    )
    evidence.measured("rto_seconds", 9.25)
    evidence.findings([Finding("content.rows", "users", "4 rows expected, 5 found", remedy="look into it")])
'''


class Project:
    """The project, and what a run of pytest left in it."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.path = pytester.path
        self.write("pyproject.toml", PYPROJECT)
        self.write("conftest.py", CONFTEST)
        self.write("drill_steps.py", STEPS)

    def write(self, name: str, text: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text).lstrip("\n"), encoding="utf-8")
        return path

    def scenario(self, *steps: str, tags: str = "@scratch") -> Path:
        """Write a feature of one scenario."""
        lines = [tags, "Feature: Drill", "  Scenario: The only one", *(f"    {step}" for step in steps)]
        return self.write("features/drill.feature", "\n".join(lines) + "\n")

    def run(self, *arguments: str) -> pytest.RunResult:
        """Run pytest within this process."""
        return self.pytester.runpytest_inprocess(*arguments)

    def run_apart(self, *arguments: str) -> pytest.RunResult:
        """Run pytest in a process of its own, for whatever concerns the whole process."""
        return self.pytester.runpytest_subprocess(*arguments, timeout=60)

    @property
    def something_ran(self) -> bool:
        return (self.path / "something-ran").exists()

    @property
    def summary(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads((self.path / "reports/summary.json").read_text(encoding="utf-8"))
        return read

    @property
    def markdown(self) -> str:
        return (self.path / "reports/summary.md").read_text(encoding="utf-8")

    @property
    def junit(self) -> dict[str, list[str]]:
        """From each test case's name to the kinds of the children it has."""
        suite = ElementTree.parse(self.path / "reports/junit.xml").getroot()
        return {case.attrib["name"]: [child.tag for child in case] for case in suite.iter("testcase")}


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    return Project(pytester)
