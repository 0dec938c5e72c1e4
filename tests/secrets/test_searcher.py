"""That a leak would be found: the same runner and the same search, over a run that tells everything."""

from __future__ import annotations

import base64
import sys
from pathlib import Path

from tests.bad_input.running import environment
from tests.evidence.project import ROOT, Project, project
from tests.secrets.canaries import Canaries
from tests.secrets.watching import LOUD, run

__all__ = ["project"]

STEPS = """
from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pytest_bdd import given, then

from runbook_lib.reach import guardian


@given("a drill that tells everything")
def _(evidence):
    argv, environment, left, told, logged, error = os.environ["SECRETS"].split()
    program = "import time; time.sleep(0.5)"
    marked = {{**os.environ, guardian.MARK: "x", "AWS_SECRET_ACCESS_KEY": environment}}
    subprocess.run([sys.executable, "-c", program, argv], env=marked, check=True)
    Path(tempfile.gettempdir(), "left").write_bytes(bytes.fromhex(left))
    evidence.text("what was found", f"a row with {{told}} in it")
    logging.getLogger("somebody").warning("it was %s", logged)
    raise AssertionError(f"it is not {{error}}")
"""


def test_every_leak_is_found(project: Project, tmp_path: Path, temporary: Path) -> None:
    canaries = Canaries()
    names = ("argv", "environment", "left", "told", "logged", "error")
    values = [canaries[name] if name != "left" else canaries[name].encode().hex() for name in names]
    project.write("drill_steps.py", STEPS.format())
    project.scenario("Given a drill that tells everything")
    folder = tmp_path / "told"
    folder.mkdir()
    told = run(
        *LOUD,
        *("features", "-p", "no:randomly"),
        folder=folder,
        temporary=temporary,
        env=environment(temporary, PYTHONPATH=str(ROOT), SECRETS=" ".join(values)),
        project=project.path,
    )
    assert told.exit_code == 1, told.terminal
    found = canaries.found_in(told.places)
    expected = {
        "argv in argv",
        "environment in environment",
        "left in left",
        *(
            f"{name} in {place}"
            for name in ("told", "error")
            for place in ("reports/summary.json", "reports/summary.md")
        ),
        "error in terminal",
        "error in junit.xml",
        "logged in terminal",
    }
    assert expected - set(found) == set(), (found, told.terminal)
    assert any(place.startswith("told in allure/") for place in found), found
    assert any(place.startswith("error in allure/") for place in found), found


def test_nothing_is_found_where_nothing_is() -> None:
    canaries = Canaries()
    canaries["a"], canaries["b"]
    assert canaries.found_in({"a place": f"nothing of {sys.executable}".encode()}) == []


def test_every_form_is_found() -> None:
    canaries = Canaries()
    value = canaries["a"].encode()
    forms = [
        value,
        value.upper(),
        value[:12],
        value.hex().encode(),
        *(base64.b64encode(b"x" * n + value) for n in range(4)),
    ]
    assert [canaries.found_in({"here": b"<" + form + b">"}) for form in forms] == [["a in here"]] * len(forms)
