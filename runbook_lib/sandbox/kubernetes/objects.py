"""What is in a cluster: objects with versions, and everything that has happened to them since the start."""

from __future__ import annotations

import asyncio
import copy
import re
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]
Selects = Callable[[Json], bool]

_KEPT_EVENTS = 20_000


@dataclass(frozen=True)
class Resource:
    """One kind of object."""

    plural: str
    """``deployments``."""
    kind: str
    """``Deployment``."""
    group: str = ""
    """The API group; empty for the core."""
    namespaced: bool = True
    """Whether its objects lie in namespaces."""
    short: tuple[str, ...] = ()
    """What people type instead."""
    subresources: Mapping[str, tuple[str, tuple[str, ...]]] | None = None
    """Subresources: the kind of each, and the verbs that it knows."""
    verbs: tuple[str, ...] = ("get", "list", "watch")
    """The verbs that it knows."""

    @property
    def api_version(self) -> str:
        """``apps/v1``."""
        return f"{self.group}/v1" if self.group else "v1"


_ALL = ("create", "delete", "get", "list", "patch", "update", "watch")

RESOURCES = {
    resource.plural: resource
    for resource in (
        Resource("namespaces", "Namespace", namespaced=False, short=("ns",)),
        Resource(
            "pods",
            "Pod",
            short=("po",),
            verbs=("delete", "get", "list", "watch"),
            subresources={"log": ("Pod", ("get",)), "exec": ("PodExecOptions", ("create", "get"))},
        ),
        Resource("configmaps", "ConfigMap", short=("cm",), verbs=_ALL),
        Resource("events", "Event", short=("ev",)),
        Resource(
            "deployments",
            "Deployment",
            group="apps",
            short=("deploy",),
            verbs=("get", "list", "patch", "update", "watch"),
            subresources={"scale": ("Scale", ("get", "patch", "update")), "status": ("Deployment", ("get",))},
        ),
        Resource(
            "selfsubjectaccessreviews",
            "SelfSubjectAccessReview",
            group="authorization.k8s.io",
            namespaced=False,
            verbs=("create",),
        ),
    )
}
"""All kinds that there are."""


class Refusal(Exception):
    """A request that is answered with something other than success."""

    def __init__(self, code: int, reason: str, message: str, *, retry_after: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after
        self.status: Json = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        }
        if retry_after:
            self.status["details"] = {"retryAfterSeconds": retry_after}


def now() -> str:
    """Return the time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Store:
    """All objects of a cluster."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str, str], Json] = {}
        self._version = 1000
        self._events: list[tuple[int, str, str, Json]] = []
        self._watchers: set[asyncio.Queue[tuple[int, str, str, Json]]] = set()

    @property
    def version(self) -> str:
        """The version of the latest write."""
        return str(self._version)

    def get(self, plural: str, namespace: str, name: str) -> Json:
        """Return one object. Raise `Refusal` where it is not there."""
        found = self.find(plural, namespace, name)
        if found is None:
            group = RESOURCES[plural].group
            shown = f"{plural}.{group}" if group else plural
            raise Refusal(404, "NotFound", f'{shown} "{name}" not found')
        return found

    def find(self, plural: str, namespace: str, name: str) -> Json | None:
        """Return one object; None where it is not there."""
        found = self._objects.get((plural, namespace, name))
        return copy.deepcopy(found) if found else None

    def list(self, plural: str, namespace: str | None, selects: Selects) -> list[Json]:
        """Return all objects of a kind, in one namespace or in all, by name."""
        return [
            copy.deepcopy(found)
            for (of, where, _), found in sorted(self._objects.items())
            if of == plural and namespace in {None, where} and selects(found)
        ]

    def write(self, plural: str, wanted: Json, *, seen_version: str = "") -> Json:
        """Write an object, new or not, and return it with its new version.

        :param seen_version: the version that it must still have; empty for whatever it has

        What was decided on (``spec``) counts as a new generation where it differs. An object that was not changed
        keeps its version, as in a real cluster. Raise `Refusal` where it has another version by now.
        """
        resource = RESOURCES[plural]
        meta = wanted["metadata"]
        namespace = meta.get("namespace", "") if resource.namespaced else ""
        name = meta["name"]
        before = self._objects.get((plural, namespace, name))
        if before is not None and seen_version and seen_version != before["metadata"]["resourceVersion"]:
            shown = f"{plural}.{resource.group}" if resource.group else plural
            raise Refusal(
                409,
                "Conflict",
                f'Operation cannot be fulfilled on {shown} "{name}": the object has been modified; please apply your'
                " changes to the latest version and try again",
            )
        stored = copy.deepcopy(wanted)
        stored["apiVersion"], stored["kind"] = resource.api_version, resource.kind
        meta = stored["metadata"]
        if before is None:
            meta.update(uid=meta.get("uid") or str(uuid.uuid4()), creationTimestamp=now())
            if "spec" in stored:
                meta["generation"] = 1
        else:
            kept = before["metadata"]
            meta.update(uid=kept["uid"], creationTimestamp=kept["creationTimestamp"])
            if "generation" in kept:
                meta["generation"] = kept["generation"] + (stored.get("spec") != before.get("spec"))
            meta["resourceVersion"] = kept["resourceVersion"]
            if stored == before:
                return stored
        self._version += 1
        meta["resourceVersion"] = self.version
        self._objects[(plural, namespace, name)] = stored
        self._tell("ADDED" if before is None else "MODIFIED", plural, stored)
        return copy.deepcopy(stored)

    def remove(self, plural: str, namespace: str, name: str) -> None:
        """Remove an object; it is no error if it is gone already."""
        found = self._objects.pop((plural, namespace, name), None)
        if found is not None:
            self._version += 1
            gone = copy.deepcopy(found)
            gone["metadata"]["resourceVersion"] = self.version
            self._tell("DELETED", plural, gone)

    async def watch(
        self, plural: str, namespace: str | None, selects: Selects, since: str, *, marks_beginning: bool = False
    ) -> AsyncIterator[tuple[str, Json]]:
        """Yield what happens to the objects of a kind, from a version on; what is there already where there is none.

        :param marks_beginning: whether what is there already comes in any case, and a bookmark after it
        """
        queue: asyncio.Queue[tuple[int, str, str, Json]] = asyncio.Queue()
        self._watchers.add(queue)
        try:
            if since in {"", "0"} or marks_beginning:
                version, there = self.version, self.list(plural, namespace, selects)
                for found in there:
                    yield "ADDED", found
                if marks_beginning:
                    yield "BOOKMARK", _end_of_beginning(RESOURCES[plural], version)
            else:
                if self._events and int(since) < self._events[0][0] - 1:
                    raise Refusal(410, "Expired", f"too old resource version: {since}")
                for event in [event for event in self._events if event[0] > int(since)]:
                    queue.put_nowait(event)
            while True:
                _, what, of, found = await queue.get()
                where = found["metadata"].get("namespace", "")
                if of == plural and namespace in {None, where} and selects(found):
                    yield what, found
        finally:
            self._watchers.discard(queue)

    def _tell(self, what: str, plural: str, found: Json) -> None:
        event = (self._version, what, plural, copy.deepcopy(found))
        self._events.append(event)
        del self._events[:-_KEPT_EVENTS]
        for queue in self._watchers:
            queue.put_nowait(event)


def _end_of_beginning(resource: Resource, version: str) -> Json:
    marked = {"resourceVersion": version, "annotations": {"k8s.io/initial-events-end": "true"}}
    return {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": marked}


def selecting(labels: str, fields: str) -> Selects:
    """Return what says of an object whether a label selector and a field selector choose it."""
    by_label = [_label_requirement(part) for part in _split(labels)]
    by_field = [_field_requirement(part) for part in _split(fields)]
    return lambda found: all(met(found) for met in (*by_label, *by_field))


def _split(selector: str) -> list[str]:
    return [part.strip() for part in re.split(r",(?![^(]*\))", selector) if part.strip()]


def _label_requirement(text: str) -> Selects:
    def label(found: Json, name: str) -> str | None:
        value = (found["metadata"].get("labels") or {}).get(name)
        return None if value is None else str(value)

    if matched := re.fullmatch(r"(\S+)\s+(in|notin)\s+\(([^)]*)\)", text):
        name, how, listed = matched.groups()
        values = {value.strip() for value in listed.split(",")}
        return lambda found: (label(found, name) in values) == (how == "in")
    if matched := re.fullmatch(r"([^=!\s]+)\s*(==|=|!=)\s*([^=!\s]*)", text):
        name, how, value = matched.groups()
        return lambda found: (label(found, name) == value) == (how != "!=")
    if matched := re.fullmatch(r"(!?)([^=!\s(),]+)", text):
        unwanted, name = matched.groups()
        return lambda found: (label(found, name) is None) == bool(unwanted)
    raise Refusal(400, "BadRequest", f"unable to parse requirement: {text}")


def _field_requirement(text: str) -> Selects:
    matched = re.fullmatch(r"([\w.]+)\s*(==|=|!=)\s*(\S*)", text)
    known = {"metadata.name", "metadata.namespace", "status.phase", "spec.nodeName"}
    if matched is None or not (matched[1] in known or matched[1].startswith("involvedObject.")):
        raise Refusal(400, "BadRequest", f'field label not supported: "{text}"')
    path, how, value = matched.groups()

    def met(found: Json) -> bool:
        at: Any = found
        for step in path.split("."):
            at = at.get(step, "") if isinstance(at, dict) else ""
        return (str(at) == value) == (how != "!=")

    return met
