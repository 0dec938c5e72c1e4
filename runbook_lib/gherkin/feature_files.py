"""Feature files as pytest collects them: ``pytest features/backup/backup_verification.feature``.

pytest-bdd wants a Python module beside each feature that binds its scenarios. For a runbook that is a second file to
forget, so here a feature file is a test module by itself: its scenarios can be chosen with ``-k`` and ``-m`` and by
node id, and reports name the feature file and the scenario's line.

List this module in ``pytest_plugins`` of the root ``conftest.py``.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable
from pathlib import Path
from types import CodeType, ModuleType

import pytest
from pytest_bdd import scenario
from pytest_bdd.feature import get_feature

from runbook_lib.gherkin.text_check import Problem, problems_in

_problems = pytest.StashKey[list[Problem]]()


class FeatureFile(pytest.Module):
    """A feature file, collected as a module whose test functions are its scenarios."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """Return one item for each scenario, or none where the text has problems: then nothing will run at all."""
        problems = problems_in(self)
        self.config.stash[_problems].extend(problems)
        return [] if problems else super().collect()

    def istestfunction(self, obj: object, name: str) -> bool:  # noqa: ARG002 -- pytest's signature
        """Every function of this module is a scenario, whatever its name."""
        return callable(obj)

    def _getobj(self) -> ModuleType:
        module = ModuleType(self.path.stem)
        module.__file__ = str(self.path)
        if self.config.stash[_problems]:
            return module
        feature = get_feature(str(self.path.parent), self.path.name)
        module.__doc__ = feature.name
        for title, template in feature.scenarios.items():

            def place() -> None:
                """Say where the scenario is written; pytest asks the code object for its file and line."""

            place.__code__ = _moved(place.__code__, self.path, template.line_number)
            bound = scenario(self.path.name, title, features_base_dir=str(self.path.parent))(place)
            vars(bound)["place_as"] = place
            setattr(module, _name(title, taken=vars(module)), bound)
        return module


def pytest_configure(config: pytest.Config) -> None:
    """Begin with no problems known."""
    config.stash[_problems] = []


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect every ``.feature`` file."""
    return FeatureFile.from_parent(parent, path=file_path) if file_path.suffix == ".feature" else None


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """End the run before it begins when the runbook's text has problems, listing them all."""
    problems = session.config.stash[_problems]
    try:
        result = yield
    except pytest.UsageError:
        # "not found: x.feature::y" is only what follows from a file that could not be collected.
        if not problems:
            raise
        result = None
    if problems:
        raise pytest.UsageError(*map(str, problems))
    return result


def _moved(code: CodeType, path: Path, line: int) -> CodeType:
    return code.replace(co_filename=str(path), co_firstlineno=line)


def _name(title: str, *, taken: Iterable[str]) -> str:
    """Return a scenario's title as a word that can be typed in a shell without quotes, different from all others."""
    stem = re.sub(r"\W+", "_", title.replace("'", "")).strip("_").lower() or "scenario"
    names = [stem, *(f"{stem}_{number}" for number in range(2, 1000))]
    return next(name for name in names if name not in taken)
