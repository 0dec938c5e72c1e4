"""The three ways in which Kubernetes lets an object be changed in part."""

from __future__ import annotations

import copy
from typing import Any

from runbook_lib.sandbox.kubernetes.objects import Json, Refusal

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"

_MERGE_KEYS = {"containers": "name", "env": "name", "volumes": "name", "conditions": "type"}
"""Lists whose entries a strategic merge patch recognises by a key; any other list is replaced."""


def patched(before: Json, patch: Any, content_type: str) -> Json:
    """Return an object with a patch applied to it. Raise `Refusal` where that cannot be done."""
    if content_type == JSON_PATCH:
        after = _operations(before, patch)
    elif content_type in {MERGE_PATCH, STRATEGIC_PATCH}:
        if not isinstance(patch, dict):
            raise Refusal(400, "BadRequest", "the patch is not an object")
        after = _merged(before, patch, strategic=content_type == STRATEGIC_PATCH)
    else:
        raise Refusal(
            415,
            "UnsupportedMediaType",
            f"the body of the request was in an unknown format - accepted media types include: {JSON_PATCH},"
            f" {MERGE_PATCH}, {STRATEGIC_PATCH}",
        )
    if not isinstance(after, dict) or not isinstance(after.get("metadata"), dict):
        raise Refusal(422, "Invalid", "what the patch makes of it is not an object")
    return after


def _merged(before: Any, patch: Json, *, strategic: bool) -> Json:
    after: Json = copy.deepcopy(before) if isinstance(before, dict) else {}
    if strategic and patch.get("$patch") == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    for name, value in patch.items():
        if strategic and name.startswith("$"):
            continue
        if value is None:
            after.pop(name, None)
        elif isinstance(value, dict):
            after[name] = _merged(after.get(name), value, strategic=strategic)
        elif strategic and isinstance(value, list) and name in _MERGE_KEYS:
            after[name] = _merged_list(after.get(name) or [], value, _MERGE_KEYS[name])
        else:
            after[name] = copy.deepcopy(value)
    return after


def _merged_list(before: list[Json], patch: list[Json], key: str) -> list[Json]:
    after = copy.deepcopy(before)
    for entry in patch:
        at = next((index for index, found in enumerate(after) if found.get(key) == entry.get(key)), None)
        if entry.get("$patch") == "delete":
            if at is not None:
                del after[at]
        elif at is None:
            after.append(copy.deepcopy(entry))
        else:
            after[at] = _merged(after[at], entry, strategic=True)
    return after


def _operations(before: Json, operations: Any) -> Any:
    if not isinstance(operations, list):
        raise Refusal(400, "BadRequest", "a JSON patch is a list of operations")
    after: Any = copy.deepcopy(before)
    for operation in operations:
        try:
            after = _operate(after, operation)
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as failed:
            raise Refusal(422, "Invalid", f"the operation {operation} cannot be carried out: {failed!r}") from failed
    return after


def _operate(document: Any, operation: Json) -> Any:
    op, steps = operation["op"], [_unescaped(step) for step in operation["path"].split("/")[1:]]
    if op in {"move", "copy"}:
        source = [_unescaped(step) for step in operation["from"].split("/")[1:]]
        value = copy.deepcopy(_at(document, source))
        if op == "move":
            document = _operate(document, {"op": "remove", "path": operation["from"]})
        return _operate(document, {"op": "add", "path": operation["path"], "value": value})
    if op == "test":
        if _at(document, steps) != operation["value"]:
            raise ValueError("the test failed")
        return document
    if not steps:
        return copy.deepcopy(operation["value"])
    parent, last = _at(document, steps[:-1]), steps[-1]
    if isinstance(parent, list):
        index = len(parent) if last == "-" else int(last)
        if op == "add":
            parent.insert(index, copy.deepcopy(operation["value"]))
        elif op == "replace":
            parent[index] = copy.deepcopy(operation["value"])
        else:
            del parent[index]
    elif op == "remove":
        del parent[last]
    else:
        if op == "replace" and last not in parent:
            raise KeyError(last)
        if op not in {"add", "replace"}:
            raise ValueError(f"no such operation: {op}")
        parent[last] = copy.deepcopy(operation["value"])
    return document


def _at(document: Any, steps: list[str]) -> Any:
    for step in steps:
        document = document[int(step)] if isinstance(document, list) else document[step]
    return document


def _unescaped(step: str) -> str:
    return step.replace("~1", "/").replace("~0", "~")
