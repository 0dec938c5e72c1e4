"""Tracebacks show where, and no values, however much was asked for."""

from __future__ import annotations

import pytest

from tests.evidence.project import CONFTEST, Project

LOUD = ("--full-trace", "--showlocals", "-vv")
LEAKS = """
import os
import signal

def leak(argument):
    local = argument
    %s
"""
PLAIN = "def test_it():\n    pass\n"


def conftest(project: Project, hook: str, *, ours: bool) -> None:
    project.write("leaks.py", LEAKS % hook)
    front = CONFTEST if ours else ""
    project.write("conftest.py", front + "\nfrom leaks import leak\n" + HOOK)
    project.write("tests/test_plain.py", PLAIN)


HOOK = """
def pytest_runtest_logreport(report):
    leak("Canary" + "0value")
"""
BREAKS = "raise RuntimeError('the drill broke')"
STOPS = "os.kill(os.getpid(), signal.SIGINT)"


@pytest.mark.parametrize(("hook", "words"), [(BREAKS, "INTERNALERROR"), (STOPS, "KeyboardInterrupt")])
def test_where_pytest_itself_writes_the_traceback(project: Project, hook: str, words: str) -> None:
    conftest(project, hook, ours=True)
    told = "\n".join(project.run_apart(*LOUD, "tests").outlines)
    assert words in told
    assert "in leak" in told or "leak(" in told
    assert "Canary0value" not in told


@pytest.mark.parametrize("hook", [BREAKS, STOPS])
def test_pytest_alone_would_tell_it(project: Project, hook: str) -> None:
    conftest(project, hook, ours=False)
    assert "Canary0value" in "\n".join(project.run_apart(*LOUD, "tests").outlines)


def test_a_scenarios_traceback(project: Project) -> None:
    project.write("leaks.py", LEAKS % BREAKS)
    steps = (project.path / "drill_steps.py").read_text()
    step = '\n\n@then("it leaks")\ndef _():\n    from leaks import leak\n    leak("Canary" + "0value")\n'
    project.write("drill_steps.py", steps + step)
    project.scenario("Given last night's backup", "Then it leaks")
    told = "\n".join(project.run_apart(*LOUD, "--junitxml=reports/junit.xml", "features").outlines)
    assert "RuntimeError: the drill broke" in told
    assert "def leak(argument):" in told, "the source is shown"
    assert "Canary0value" not in told + (project.path / "reports/junit.xml").read_text()
