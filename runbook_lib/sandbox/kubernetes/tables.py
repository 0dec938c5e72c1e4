"""Objects as the tables that ``kubectl get`` prints: the server decides which columns there are."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from runbook_lib.sandbox.kubernetes.objects import Json

_COLUMNS: dict[str, list[tuple[str, int]]] = {
    "pods": [
        *(("Name", 0), ("Ready", 0), ("Status", 0), ("Restarts", 0), ("Age", 0)),
        *(("IP", 1), ("Node", 1), ("Nominated Node", 1), ("Readiness Gates", 1)),
    ],
    "deployments": [
        *(("Name", 0), ("Ready", 0), ("Up-to-date", 0), ("Available", 0), ("Age", 0)),
        *(("Containers", 1), ("Images", 1), ("Selector", 1)),
    ],
    "configmaps": [("Name", 0), ("Data", 0), ("Age", 0)],
    "namespaces": [("Name", 0), ("Status", 0), ("Age", 0)],
    "events": [("Last Seen", 0), ("Type", 0), ("Reason", 0), ("Object", 0), ("Message", 0)],
}


def table(plural: str, found: list[Json], version: str) -> Json:
    """Return objects as a Table."""
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": version},
        "columnDefinitions": [
            {
                "name": name,
                "type": "string",
                "format": "name" if name == "Name" else "",
                "description": "",
                "priority": priority,
            }
            for name, priority in _COLUMNS[plural]
        ],
        "rows": [{"cells": _cells(plural, one), "object": _partial(one)} for one in found],
    }


def _partial(found: Json) -> Json:
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": found["metadata"]}


def _cells(plural: str, found: Json) -> list[Any]:
    meta, status = found["metadata"], found.get("status") or {}
    name, age = meta["name"], _age(meta["creationTimestamp"])
    if plural == "pods":
        containers = status.get("containerStatuses") or []
        ready = f"{sum(bool(one['ready']) for one in containers)}/{len(containers)}"
        waiting = next((one["state"]["waiting"]["reason"] for one in containers if "waiting" in one["state"]), "")
        phase = "Terminating" if meta.get("deletionTimestamp") else waiting or status.get("phase", "Unknown")
        restarts = sum(one["restartCount"] for one in containers)
        node = found["spec"].get("nodeName", "<none>")
        return [name, ready, phase, str(restarts), age, status.get("podIP", "<none>"), node, "<none>", "<none>"]
    if plural == "deployments":
        spec = found["spec"]
        containers = spec["template"]["spec"]["containers"]
        selector = ",".join(f"{key}={value}" for key, value in spec["selector"]["matchLabels"].items())
        return [
            *(name, f"{status.get('readyReplicas', 0)}/{spec['replicas']}", str(status.get("updatedReplicas", 0))),
            *(str(status.get("availableReplicas", 0)), age, ",".join(one["name"] for one in containers)),
            *(",".join(one["image"] for one in containers), selector),
        ]
    if plural == "configmaps":
        return [name, str(len(found.get("data") or {})), age]
    return [name, status.get("phase", ""), age]


def _age(created: str) -> str:
    seconds = int((datetime.now(UTC) - datetime.fromisoformat(created.replace("Z", "+00:00"))).total_seconds())
    for unit, size in ("d", 86_400), ("h", 3_600), ("m", 60):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
