"""How to reach a Kubernetes cluster.

The only importer of the official client. ``kubectl`` acts on whatever context was current last, prints what people
read, and exits 0 when a stream was cut; a runbook that trusts it scales the wrong cluster one day. Here a cluster is
reached by a context that was named, one class of errors says what to do about each refusal, and a command in a pod
has succeeded only where the cluster itself has said so.

`Cluster` is all that the floors above need; the modules behind it hold one concern each: `configuration` (who and
where), `calls` (every request, and what may be requested at all), `streams` (commands in pods) and `copying` (files).
"""

from __future__ import annotations

from runbook_lib.reach.kubernetes.cluster import Cluster, Deployment, Pod

__all__ = ["Cluster", "Deployment", "Pod"]
