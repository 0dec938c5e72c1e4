"""Kubernetes clusters on this machine, as far as a runbook can tell.

A cluster cannot be had without containers, and a fake that remembers what it was told proves only that it was told.
What stands here is in between: an API server that ``kubectl`` and the official client talk to over TLS, with tokens,
permissions, versions, conflicts and watches; and behind it real processes. ``exec`` runs a command, with its streams
and its exit status; scaling ``tensafe-api`` to zero ends programs that were writing to the database a moment ago.

What it is not: there is no scheduler, no admission, no etcd and no kubelet, and a pod is a folder, an environment and
a log, not a container. A command in a pod sees this machine's files, as the workspace's unprivileged account; ``/tmp``
is this machine's. There are pods, deployments, config maps, namespaces and access reviews, no replica sets, and only
WebSockets carry streams (``kubectl`` from 1.30 on). It reads JSON and has no schemas: ``kubectl auth can-i`` and
``create configmap``, which send protobuf, are refused with that reason, and ``create -f`` needs ``--validate=false``.
Commands in pods take the verb ``create`` on ``pods/exec``, as newer clusters want it. Whoever needs a scheduler's
decisions needs a cluster.

`topology` says what a cluster consists of, and `api` starts it; all other modules run inside the server's own process
(`serve`), which is one for each cluster, so that one can be down while the other is not.
"""
