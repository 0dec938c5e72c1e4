"""What is wrong with the runbook's text, told before anything runs.

pytest-bdd finds a step that nobody wrote only when it gets there, after the steps before it have acted; of two
definitions that match it takes one in silence; of two scenarios with one name it keeps the last, so that a drill is
never run; and an ``async`` step passes without running. Each of these is harmless in a web form's tests and is not in
a runbook that alters databases. So every feature file is read as a whole when it is collected, and every problem is
listed with its line and what to do about it.
"""

from __future__ import annotations

import difflib
import inspect
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pytest_bdd import parser
from pytest_bdd.compat import get_fixture_names, getfixturedefs
from pytest_bdd.exceptions import GherkinParseError
from pytest_bdd.gherkin_parser import Feature as FeatureText
from pytest_bdd.gherkin_parser import Scenario as ScenarioText
from pytest_bdd.gherkin_parser import get_gherkin_document
from pytest_bdd.steps import StepFunctionContext, step_function_context_registry
from pytest_bdd.utils import get_required_args

from runbook_lib.effect import Effect

EFFECTS = tuple(effect.value for effect in Effect)
"""The tags that say what a scenario does to its target; each scenario bears exactly one."""


@dataclass(frozen=True)
class Problem:
    """One thing in the runbook's text that has to be put right before anything may run."""

    path: str
    """The feature file, relative to the directory pytest was started from."""
    line: int
    """The line in it, from 1."""
    says: str
    """What is wrong, with the text's own words in it."""
    remedy: str
    """What to do about it, as an imperative sentence."""

    def __str__(self) -> str:
        """Return the problem in the form that editors and terminals make clickable: ``file:line: what``."""
        return f"{self.path}:{self.line}: {self.says}\n    To fix this: {self.remedy}"


def problems_in(collector: pytest.File) -> list[Problem]:
    """Return everything that is wrong with the feature file of ``collector``, by line.

    The step definitions that count are those that pytest would let this file's scenarios see.
    """
    path = _shown(collector.path, collector)
    try:
        text = get_gherkin_document(str(collector.path)).feature
        scenarios = _EveryScenario(collector.path).read()
    except GherkinParseError as error:
        says = f"this is not Gherkin: {error.message.rstrip('.')}, at {error.line_content.strip()!r}"
        return [Problem(path, error.line, says, "correct the line, or indent it as part of a description")]
    except UnicodeDecodeError as error:
        return [Problem(path, 1, f"this is not UTF-8: {error.reason}", "save the file as UTF-8")]
    except (KeyError, TypeError):
        return [Problem(path, 1, "there is no feature in this file", "begin it with 'Feature:', or remove the file")]

    check = _Check(path, collector)
    check.names(text)
    check.tags(text)
    for scenario in scenarios:
        check.shape(scenario)
        check.steps(scenario)
    return sorted(set(check.found), key=lambda problem: (problem.line, problem.says))


class _EveryScenario(parser.FeatureParser):
    """Reads a feature file and keeps two scenarios of one name apart, of which pytest-bdd keeps the second."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path.parent), path.name)
        self._scenarios: list[parser.ScenarioTemplate] = []

    def read(self) -> list[parser.ScenarioTemplate]:
        """Return every scenario of the file, in its order."""
        self.parse()
        return self._scenarios

    def parse_scenario(
        self, scenario_data: ScenarioText, feature: parser.Feature, rule: parser.Rule | None = None
    ) -> parser.ScenarioTemplate:
        """Remember each scenario as it is read."""
        scenario = super().parse_scenario(scenario_data, feature, rule)
        self._scenarios.append(scenario)
        return scenario


class _Check:
    """Collects the problems of one feature file."""

    def __init__(self, path: str, collector: pytest.File) -> None:
        self.path = path
        self.collector = collector
        self.found: list[Problem] = []
        self.definitions = _visible_definitions(collector)

    def report(self, line: int, says: str, remedy: str) -> None:
        self.found.append(Problem(self.path, line, says, remedy))

    def names(self, text: FeatureText) -> None:
        """Two scenarios of one name: pytest-bdd would never run the first."""
        lines = defaultdict(list)
        for scenario, _ in _scenarios(text):
            lines[scenario.name].append(scenario.location.line)
        if not lines:
            self.report(text.location.line, "a feature without a scenario proves nothing", "write one, or remove it")
        for name, (first, *others) in lines.items():
            for line in others:
                says = f"a second scenario is called {name!r}; the first, on line {first}, would never run"
                self.report(line, says, "give each scenario of a feature its own name")

    def tags(self, text: FeatureText) -> None:
        """Exactly one effect for each scenario, and no tag that nobody registered."""
        known = {line.split(":")[0].split("(")[0].strip() for line in self.collector.config.getini("markers")}
        for scenario, inherited in _scenarios(text):
            own = inherited | {tag.name.lstrip("@") for tag in scenario.tags}
            # The tags of an Examples table belong to its rows alone.
            for extra in [{tag.name.lstrip("@") for tag in table.tags} for table in scenario.examples] or [set()]:
                tags = own | extra
                effects = [effect for effect in EFFECTS if effect in tags]
                if len(effects) != 1:
                    borne = " and ".join(f"@{effect}" for effect in effects) or "none"
                    says = f"the scenario {scenario.name!r} must bear exactly one effect tag, and bears {borne}"
                    remedy = (
                        "tag it @reads (reads only), @scratch (removes only what it made itself) "
                        "or @changes (alters the target)"
                    )
                    self.report(scenario.location.line, says, remedy)
                for tag in sorted(tags - known):
                    says = f"nobody knows the tag @{tag} of the scenario {scenario.name!r}"
                    self.report(scenario.location.line, says, _closest(tag, known, "register it under 'markers'"))

    def shape(self, scenario: parser.ScenarioTemplate) -> None:
        """A scenario must have something to do, and an outline rows to do it with."""
        if not scenario.steps:
            says = f"the scenario {scenario.name!r} has no step, so that it can prove nothing"
            self.report(scenario.line_number, says, "write its steps, or remove it")
        for table in scenario.examples:
            rows = [tuple(row) for row in table.examples]
            for row in sorted({row for row in rows if rows.count(row) > 1}):
                says = f"the example {' | '.join(row)} of {scenario.name!r} stands there twice"
                self.report(table.line_number or scenario.line_number, says, "remove one of the two rows")
        if scenario.templated and not any(scenario.examples):
            says = f"the examples of {scenario.name!r} have no row, so that it would run with its placeholders"
            self.report(scenario.line_number, says, "add a row below the names of the columns")

    def steps(self, scenario: parser.ScenarioTemplate) -> None:
        """Every step, as each row of examples renders it, has exactly one definition, and an ordinary one."""
        rows = [row for table in scenario.examples for row in table.as_contexts()]
        for row in rows or [{}]:
            given: set[str] = set()
            for step in scenario.render(row).steps:
                definition = self._definition(step)
                if definition is not None:
                    self._needs(step, definition, given)
                    given.add(definition.target_fixture or "")

    def _needs(self, step: parser.Step, definition: StepFunctionContext, given: set[str]) -> None:
        """What a step takes from the steps before it must have been given by one of them."""
        said = set(definition.parser.parse_arguments(step.name) or ())
        manager = self.collector.session._fixturemanager
        for name in get_required_args(definition.step_func):
            # pytest makes "request" out of nothing; the other two come with the step's text.
            if name in said | given | {"request"} or getfixturedefs(manager, name, self.collector):
                continue
            if name in ("datatable", "docstring"):
                if (step.datatable if name == "datatable" else step.docstring) is None:
                    says = f"the step {step.name!r} needs a {name}, and none follows it"
                    self.report(step.line_number, says, f"write the {name} below the step")
                continue
            says = f"the step {step.name!r} needs {name!r}, which no step before it gives"
            remedy = f"put a step before it whose definition has target_fixture={name!r}"
            self.report(step.line_number, says, remedy)

    def _definition(self, step: parser.Step) -> StepFunctionContext | None:
        """Return the one definition of a step; report why there is none, or why it will not do."""
        sentence = f"{step.keyword.strip()} {step.name}"
        matching = []
        for definition in self.definitions:
            try:
                if definition.type in (None, step.type) and definition.parser.is_matching(step.name):
                    matching.append(definition)
            except Exception as error:  # noqa: BLE001 -- a definition's own converters run here, and may raise anything
                says = f"{sentence!r} cannot be read by {_told(definition, self.collector)}: {error}"
                self.report(step.line_number, says, "correct the value in the text, or the definition's converter")
                return None
        if not matching:
            patterns = {
                definition.parser.name for definition in self.definitions if definition.type in (None, step.type)
            }
            write = f"write it: @{step.type}({step.name!r})"
            self.report(step.line_number, f"nobody wrote the step {sentence!r}", _closest(step.name, patterns, write))
        elif len(matching) > 1:
            candidates = ", ".join(_told(definition, self.collector) for definition in matching)
            says = f"{len(matching)} definitions match the step {sentence!r}: {candidates}"
            self.report(step.line_number, says, "reword one of them, so that a step says one thing only")
        for definition in matching:
            function = inspect.unwrap(definition.step_func)
            if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
                says = f"{sentence!r} is an async function, {_told(definition, self.collector)}, and would never run"
                self.report(step.line_number, says, "make it an ordinary function")
        return matching[0] if len(matching) == 1 else None


def _scenarios(text: FeatureText) -> Iterator[tuple[ScenarioText, set[str]]]:
    """Yield each scenario as it is written, two of one name included, with the tags it inherits."""
    tags = {tag.name.lstrip("@") for tag in text.tags}
    for child in text.children:
        if child.scenario:
            yield child.scenario, tags
        elif child.rule:
            of_rule = {tag.name.lstrip("@") for tag in child.rule.tags}
            for grandchild in child.rule.children:
                if grandchild.scenario:
                    yield grandchild.scenario, tags | of_rule


def _visible_definitions(collector: pytest.File) -> list[StepFunctionContext]:
    """Return each step definition that the scenarios of this file can see, once."""
    manager = collector.session._fixturemanager
    found: dict[int, StepFunctionContext] = {}
    for name in get_fixture_names(manager):
        for fixture in getfixturedefs(manager, name, collector) or ():
            definition = step_function_context_registry.get(fixture.func)
            if definition is not None:
                found[id(definition)] = definition
    return list(found.values())


def _told(definition: StepFunctionContext, collector: pytest.File) -> str:
    """Return where a step definition is written, and its pattern."""
    function: Callable[..., object] = inspect.unwrap(definition.step_func)
    code = function.__code__
    return f"{_shown(Path(code.co_filename), collector)}:{code.co_firstlineno} ({definition.parser.name!r})"


def _shown(path: Path, collector: pytest.File) -> str:
    """Return a path as a person standing where pytest was started would type it."""
    return os.path.relpath(path, collector.config.invocation_params.dir)


def _closest(word: str, known: set[str], otherwise: str) -> str:
    """Return a remedy that names the nearest known word, where there is one."""
    near = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.7)
    return f"did you mean {near[0]!r}? Otherwise {otherwise}" if near else otherwise
