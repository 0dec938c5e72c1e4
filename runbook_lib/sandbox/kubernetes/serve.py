"""The API server of one cluster: a process of its own, started by `api`.

One catch-all handler takes every request through the same steps: what it is (`_Asked`), who asks, whether they may,
whether something is to go wrong with it, and then what it does. A second, much smaller server on a unix socket in the
server's folder is no part of the API: through it the sandbox sets faults, replaces pods, and asks what was requested.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import ssl
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aiohttp import web

from runbook_lib.sandbox import interpreter
from runbook_lib.sandbox.kubernetes.controller import Controller, pod_object
from runbook_lib.sandbox.kubernetes.execs import PROTOCOLS, Execs
from runbook_lib.sandbox.kubernetes.faults import Fault, Faults, Kind
from runbook_lib.sandbox.kubernetes.objects import RESOURCES, Json, Refusal, Resource, Store, now, selecting
from runbook_lib.sandbox.kubernetes.patches import patched
from runbook_lib.sandbox.kubernetes.tables import table
from runbook_lib.sandbox.kubernetes.topology import Container, Pod, Serving, User

CONTROL_SOCKET = "control.socket"
"""The unix socket in the server's folder that the sandbox talks to."""
PORT_FILE = "port"
"""The file in the server's folder that says its port, written when it answers."""

_WATCH_SECONDS = 300.0
_FOLLOW_SECONDS = 0.1
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_KEPT_REQUESTS = 5_000
_READY_PATHS = {"/healthz", "/readyz", "/livez"}


@dataclass(frozen=True)
class _Asked:
    """What a request is about."""

    verb: str
    """``get``, ``list``, ``watch``, ``create``, ``update``, ``patch`` or ``delete``."""
    plural: str
    """The kind of object; the first step of the path where it is about none."""
    namespace: str | None
    """The namespace; None for all, or for what lies in none."""
    name: str
    """The object's name; empty for all of them."""
    subresource: str
    """What of it; empty for the object itself."""

    @property
    def resource(self) -> str:
        """``deployments/scale``."""
        return f"{self.plural}/{self.subresource}" if self.subresource else self.plural


class Server:
    """One cluster, served."""

    def __init__(self, told: Serving) -> None:
        self._told = told
        self._cluster = told.topology
        self._users = {user.token: user for user in told.users}
        self._store = Store()
        self._faults = Faults()
        self._execs = Execs(told.environment)
        self._requests: list[str] = []
        self._containers: dict[str, tuple[Container, ...]] = {}
        self._stopping = asyncio.Event()
        namespace = self._cluster.namespace
        for name, uid in (("kube-system", self._cluster.uid), (namespace, ""), ("default", "")):
            self._store.write("namespaces", {"metadata": {"name": name, "uid": uid}, "status": {"phase": "Active"}})
        for pod in self._cluster.pods:
            self._put_pod(pod)
        for name, data in self._cluster.config_maps.items():
            self._store.write("configmaps", {"metadata": {"name": name, "namespace": namespace}, "data": dict(data)})
        self._controllers = {
            workload.name: Controller(workload, self._store, namespace, told.environment)
            for workload in self._cluster.workloads
        }

    async def serve(self) -> None:
        """Serve until the process is told to end."""
        loop = asyncio.get_running_loop()
        for number in signal.SIGTERM, signal.SIGINT:
            loop.add_signal_handler(number, self._stopping.set)
        for controller in self._controllers.values():
            controller.create()
        folder = Path(self._told.folder)
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.crt"))
        tls.load_cert_chain(folder / "server.crt", folder / "server.key")
        tls.verify_mode = ssl.CERT_OPTIONAL  # a token will do as well
        api, control = web.Application(client_max_size=16 << 20), web.Application()
        api.router.add_route("*", "/{path:.*}", self._answer)
        control.router.add_post("/{what}", self._control)
        runners = [web.AppRunner(application, access_log=None, shutdown_timeout=0.5) for application in (api, control)]
        try:
            for runner in runners:
                await runner.setup()
            public = web.TCPSite(runners[0], "127.0.0.1", self._told.port, ssl_context=tls, backlog=256)
            await web.UnixSite(runners[1], str(folder / CONTROL_SOCKET)).start()
            await public.start()
            port = runners[0].addresses[0][1]
            partial = folder / f".{PORT_FILE}"
            partial.write_text(str(port))
            partial.rename(folder / PORT_FILE)
            await self._stopping.wait()
        finally:
            self._execs.kill()
            await asyncio.gather(*(controller.end() for controller in self._controllers.values()))
            for runner in runners:
                await runner.cleanup()

    # What is asked for through the control socket

    async def _control(self, request: web.Request) -> web.Response:
        told = await request.json()
        what = request.match_info["what"]
        answer: Any = None
        if what == "fault":
            self._faults.set(Fault(**told))
        elif what == "well":
            self._faults.clear()
            self._execs.protocols = PROTOCOLS
        elif what == "protocols":
            self._execs.protocols = tuple(told)
        elif what == "requests":
            answer = list(self._requests)
            self._requests.clear()
        elif what == "put_pod":
            self._put_pod(Pod.from_json(told))
        elif what == "remove_pod":
            self._remove_pod(told)
        elif what == "replace_pod":
            pod = next(pod for pod in self._cluster.pods if pod.name == told)
            self._remove_pod(told)
            self._put_pod(pod)
        elif what == "scale":
            self._scale(told["name"], told["replicas"])
        elif what == "processes":
            answer = {
                "execs": self._execs.processes,
                "pods": {
                    name: member.process.pid
                    for controller in self._controllers.values()
                    for name, member in controller.members.items()
                    if member.process is not None
                },
            }
        else:
            raise web.HTTPNotFound
        return web.json_response(answer)

    def _put_pod(self, pod: Pod) -> None:
        self._containers[pod.name] = pod.containers
        self._cluster = replace(
            self._cluster, pods=(*(other for other in self._cluster.pods if other.name != pod.name), pod)
        )
        for container in pod.containers:
            with contextlib.suppress(FileExistsError):
                Path(container.folder).mkdir(mode=0o700, parents=True)
        self._store.write("pods", pod_object(self._cluster.namespace, pod))

    def _remove_pod(self, name: str) -> None:
        self._execs.kill(name)
        self._containers.pop(name, None)
        self._store.remove("pods", self._cluster.namespace, name)

    def _scale(self, name: str, replicas: int) -> None:
        deployment = self._store.get("deployments", self._cluster.namespace, name)
        deployment["spec"]["replicas"] = replicas
        self._store.write("deployments", deployment)
        self._controllers[name].reconcile()

    # What is asked for through the API

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        asked = _asked(request)
        self._requests.append(f"{request.method} {request.path} as {asked.verb} {asked.resource}")
        del self._requests[:-_KEPT_REQUESTS]
        try:
            spoiled = await self._spoil(request, asked)
            if spoiled is not None:
                return spoiled
            user = self._authenticated(request)
            if request.path in _READY_PATHS:
                return web.Response(text="ok")
            if asked.plural not in RESOURCES:
                return self._discovery(request.path.rstrip("/"))
            self._authorize(user, asked)
            lost = self._faults.take(asked.verb, asked.resource, Kind.ANSWER_LOST)
            answer = await self._obey(request, asked, user)
            if lost is not None:
                raise Refusal(503, "ServiceUnavailable", "the server is currently unable to handle the request")
            return answer
        except Refusal as refused:
            headers = {"Retry-After": str(refused.retry_after)} if refused.retry_after else {}
            return web.json_response(refused.status, status=refused.code, headers=headers)

    async def _spoil(self, request: web.Request, asked: _Asked) -> web.StreamResponse | None:
        """Do what is to go wrong with a request before it is looked at."""
        namespace = self._cluster.namespace
        if fault := self._faults.take(asked.verb, asked.resource, Kind.SLOW):
            await self._pause(fault.seconds)
        kinds = [Kind.DRIP, Kind.GARBAGE, Kind.STATUS, Kind.CONFLICT, Kind.OTHER_HAND]
        if asked.subresource != "exec":
            kinds.append(Kind.CUT)
        fault = self._faults.take(asked.verb, asked.resource, *kinds)
        if fault is None:
            return None
        if fault.kind is Kind.GARBAGE:
            return web.Response(text="<html><body>It works!</body></html>", content_type="text/html")
        if fault.kind is Kind.STATUS:
            raise Refusal(fault.status, "Sandbox", "as was asked for", retry_after=fault.retry_after)
        if fault.kind is Kind.CUT:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if fault.kind is Kind.DRIP:
            dripping = web.StreamResponse(headers={"Content-Type": "application/json"})
            await dripping.prepare(request)
            for _ in range(int(fault.seconds * 10)):
                await dripping.write(b" ")
                await self._pause(0.1)
            return dripping
        if fault.kind is Kind.OTHER_HAND:
            self._scale(asked.name, fault.value)
            return None
        found = self._store.get(asked.plural, namespace, asked.name)
        found["metadata"].setdefault("annotations", {})["sandbox/touched"] = f"{now()} {self._store.version}"
        self._store.write(asked.plural, found)
        raise Refusal(
            409, "Conflict", f'Operation cannot be fulfilled on {asked.plural} "{asked.name}": it has changed'
        )

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    def _authenticated(self, request: web.Request) -> User:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token.strip() in self._users:
            return self._users[token.strip()]
        certificate = request.transport.get_extra_info("peercert") if request.transport else None
        named = {value for part in (certificate or {}).get("subject", ()) for key, value in part if key == "commonName"}
        for user in self._told.users:
            if user.name in named and not scheme:
                return user
        raise Refusal(401, "Unauthorized", "Unauthorized")

    def _authorize(self, user: User, asked: _Asked) -> None:
        if not self._may(user, asked.verb, asked.resource):
            group = RESOURCES[asked.plural].group
            place = f' in the namespace "{asked.namespace}"' if asked.namespace else " at the cluster scope"
            named = f' "{asked.name}"' if asked.name else ""
            raise Refusal(
                403,
                "Forbidden",
                f'{asked.plural}{f".{group}" if group else ""}{named} is forbidden: User "{user.name}" cannot'
                f' {asked.verb} resource "{asked.resource}" in API group "{group}"{place}',
            )

    def _may(self, user: User, verb: str, resource: str) -> bool:
        if self._faults.forbids(verb, resource):
            return False
        everybodys = (verb, resource) == ("create", "selfsubjectaccessreviews")
        return everybodys or any(rule.allows(verb, resource) for rule in user.rules)

    async def _obey(self, request: web.Request, asked: _Asked, user: User) -> web.StreamResponse:
        resource = RESOURCES[asked.plural]
        known = resource.verbs
        if asked.subresource:
            subresources = resource.subresources or {}
            if asked.subresource not in subresources:
                raise Refusal(404, "NotFound", "the server could not find the requested resource")
            known = subresources[asked.subresource][1]
        if asked.verb not in known:
            raise Refusal(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        special: Mapping[str, Callable[[], Awaitable[web.StreamResponse]]] = {
            "pods/exec": lambda: self._exec(request, asked),
            "pods/log": lambda: self._log(request, asked),
            "deployments/scale": lambda: self._scaled(request, asked),
            "selfsubjectaccessreviews": lambda: self._review(request, user),
        }
        if asked.resource in special:
            return await special[asked.resource]()
        if asked.verb == "watch":
            return await self._watch(request, asked)
        if asked.verb == "list":
            return self._list(request, asked)
        if asked.verb == "get":
            found = self._store.get(asked.plural, asked.namespace or "", asked.name)
            if _wants_table(request):
                return web.json_response(table(asked.plural, [found], self._store.version))
            return web.json_response(found)
        return await self._write(request, asked, resource)

    def _list(self, request: web.Request, asked: _Asked) -> web.Response:
        selects = selecting(request.query.get("labelSelector", ""), request.query.get("fieldSelector", ""))
        found = self._store.list(asked.plural, asked.namespace, selects)
        if _wants_table(request):
            return web.json_response(table(asked.plural, found, self._store.version))
        resource = RESOURCES[asked.plural]
        listed = {
            "kind": f"{resource.kind}List",
            "apiVersion": resource.api_version,
            "metadata": {"resourceVersion": self._store.version},
            "items": found,
        }
        return web.json_response(listed)

    async def _watch(self, request: web.Request, asked: _Asked) -> web.StreamResponse:
        query = request.query
        selects = selecting(query.get("labelSelector", ""), query.get("fieldSelector", ""))
        since = query.get("resourceVersion", "")
        if since and not since.isdecimal():
            raise Refusal(400, "BadRequest", f'invalid resource version "{since}"')
        seconds = min(float(query.get("timeoutSeconds") or _WATCH_SECONDS), _WATCH_SECONDS)
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        as_table = _wants_table(request)

        async def pass_on() -> None:
            async for what, found in self._store.watch(
                asked.plural, asked.namespace, selects, since, marks_beginning=query.get("sendInitialEvents") == "true"
            ):
                rows = [] if what == "BOOKMARK" else [found]
                shown = table(asked.plural, rows, found["metadata"]["resourceVersion"]) if as_table else found
                await answer.write(json.dumps({"type": what, "object": shown}).encode() + b"\n")

        with contextlib.suppress(ConnectionError):
            try:
                await self._for_as_long(pass_on(), seconds)
            except Refusal as refused:
                await answer.write(json.dumps({"type": "ERROR", "object": refused.status}).encode() + b"\n")
        return answer

    async def _for_as_long(self, work: Awaitable[None], seconds: float) -> None:
        """Do something for so long at most, and not beyond the server's end."""
        doing = asyncio.ensure_future(work)
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({doing, stopping}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                doing.result()
        finally:
            for task in doing, stopping:
                task.cancel()
            await asyncio.gather(doing, stopping, return_exceptions=True)

    async def _write(self, request: web.Request, asked: _Asked, resource: Resource) -> web.Response:
        namespace = asked.namespace or ""
        if asked.verb == "delete":
            found = self._store.get(asked.plural, namespace, asked.name)
            self._delete(asked, found)
            gone = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
            return web.json_response(gone | {"details": {"name": asked.name, "uid": found["metadata"]["uid"]}})
        body = await _body(request)
        if asked.verb == "create":
            wanted = _must_be_object(body)
            wanted["metadata"]["namespace"] = namespace
            if self._store.find(asked.plural, namespace, wanted["metadata"]["name"]):
                raise Refusal(409, "AlreadyExists", f'{asked.plural} "{wanted["metadata"]["name"]}" already exists')
            if request.query.get("dryRun"):
                return web.json_response(wanted, status=201)
            return web.json_response(self._store.write(asked.plural, wanted), status=201)
        before = self._store.get(asked.plural, namespace, asked.name)
        wanted = _must_be_object(body) if asked.verb == "update" else patched(before, body, _content_type(request))
        seen = str((body["metadata"] if asked.verb == "update" else _patch_meta(body)).get("resourceVersion") or "")
        if wanted["metadata"].get("name") != asked.name:
            raise Refusal(400, "BadRequest", "the name of the object does not match the name on the URL")
        wanted["metadata"]["namespace"] = namespace
        if resource.plural == "deployments":
            wanted["status"] = before["status"]  # which nobody but the controller writes
            _must_be_count((wanted.get("spec") or {}).get("replicas"), asked.name)
        if request.query.get("dryRun"):
            return web.json_response(wanted)
        written = self._store.write(asked.plural, wanted, seen_version=seen)
        if resource.plural == "deployments":
            self._controllers[asked.name].reconcile()
            written = self._store.get(asked.plural, namespace, asked.name)
        return web.json_response(written)

    def _delete(self, asked: _Asked, found: Json) -> None:
        if asked.plural != "pods":
            self._store.remove(asked.plural, asked.namespace or "", asked.name)
            return
        for controller in self._controllers.values():
            if member := controller.members.get(asked.name):
                member.ending.set()
                member.show()
                controller.reconcile()
                return
        raise Refusal(405, "MethodNotAllowed", f"{found['metadata']['name']} is looked after by the sandbox")

    async def _scaled(self, request: web.Request, asked: _Asked) -> web.Response:
        deployment = self._store.get("deployments", asked.namespace or "", asked.name)
        if asked.verb != "get":
            body = await _body(request)
            shown = _scale(deployment)
            if asked.verb == "update":
                wanted, seen = _must_be_object(body), str(body["metadata"].get("resourceVersion") or "")
            else:
                wanted, seen = (
                    patched(shown, body, _content_type(request)),
                    str(_patch_meta(body).get("resourceVersion") or ""),
                )
            replicas = (wanted.get("spec") or {}).get("replicas", 0)
            _must_be_count(replicas, asked.name)
            deployment["spec"]["replicas"] = replicas
            if not request.query.get("dryRun"):
                self._store.write("deployments", deployment, seen_version=seen)
                self._controllers[asked.name].reconcile()
                deployment = self._store.get("deployments", asked.namespace or "", asked.name)
        return web.json_response(_scale(deployment))

    async def _review(self, request: web.Request, user: User) -> web.Response:
        review = _must_be_object(await _body(request), named=False)
        wanted = (review.get("spec") or {}).get("resourceAttributes") or {}
        resource = str(wanted.get("resource", ""))
        if wanted.get("subresource"):
            resource = f"{resource}/{wanted['subresource']}"
        allowed = self._may(user, str(wanted.get("verb", "")), resource)
        review |= {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1"}
        review["status"] = {"allowed": allowed, "reason": "" if allowed else "no rule of this user allows it"}
        return web.json_response(review, status=201)

    def _container(self, asked: _Asked, wanted: str) -> Container:
        self._store.get("pods", asked.namespace or "", asked.name)
        containers = self._containers.get(asked.name, ())
        for controller in self._controllers.values():
            if member := controller.members.get(asked.name):
                containers = member.pod.containers
        for container in containers:
            if wanted in {"", container.name}:
                return container
        raise Refusal(400, "BadRequest", f"container {wanted} is not valid for pod {asked.name}")

    async def _exec(self, request: web.Request, asked: _Asked) -> web.StreamResponse:
        container = self._container(asked, request.query.get("container", ""))
        fault = self._faults.take(asked.verb, asked.resource, Kind.CUT, Kind.NO_STATUS)
        return await self._execs.serve(request, asked.name, container, fault)

    async def _log(self, request: web.Request, asked: _Asked) -> web.StreamResponse:
        query = request.query
        container = self._container(asked, query.get("container", ""))
        if query.get("previous") == "true":
            why = f'previous terminated container "{container.name}" in pod "{asked.name}" not found'
            raise Refusal(400, "BadRequest", why)
        follows = query.get("follow") == "true"
        answer = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await answer.prepare(request)
        left = int(query["limitBytes"]) if "limitBytes" in query else sys.maxsize
        path = Path(container.log) if container.log else None
        at = _tail_begins(path, int(query["tailLines"])) if "tailLines" in query else 0

        async def pass_on() -> None:
            nonlocal at, left
            while left > 0:
                piece = _piece(path, at)[:left]
                if piece:
                    await answer.write(piece)
                    at, left = at + len(piece), left - len(piece)
                elif follows and self._store.find("pods", asked.namespace or "", asked.name):
                    await self._pause(_FOLLOW_SECONDS)
                else:
                    return

        with contextlib.suppress(ConnectionError):
            await self._for_as_long(pass_on(), 24 * 3600)
        return answer

    def _discovery(self, path: str) -> web.Response:
        groups = sorted({resource.group for resource in RESOURCES.values() if resource.group})
        if path == "/version":
            version = self._cluster.version
            major, minor = version.removeprefix("v").split(".")[:2]
            told = {"major": major, "minor": minor, "gitVersion": version, "platform": "sandbox"}
            return web.json_response(
                told | dict.fromkeys(("gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler"), "")
            )
        if path == "/api":
            return web.json_response({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
        if path == "/apis":
            return web.json_response(
                {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name) for name in groups]}
            )
        for group in ("", *groups):
            if group and path == f"/apis/{group}":
                return web.json_response({"kind": "APIGroup", "apiVersion": "v1", **_group(group)})
            if path == (f"/apis/{group}/v1" if group else "/api/v1"):
                return web.json_response(_resource_list(group))
        raise Refusal(404, "NotFound", "the server could not find the requested resource")


def _asked(request: web.Request) -> _Asked:
    steps = [step for step in request.path.split("/") if step]
    watches = request.query.get("watch") in {"true", "1"}
    if steps[:2] == ["api", "v1"]:
        group, steps = "", steps[2:]
    elif steps[:1] == ["apis"] and steps[2:3] == ["v1"]:
        group, steps = steps[1], steps[3:]
    else:
        return _Asked("get", "/".join(steps), None, "", "")
    namespace = None
    if steps[:1] == ["namespaces"] and len(steps) > 2:
        namespace, steps = steps[1], steps[2:]
    plural, name, subresource = (*steps, "", "", "")[:3]
    if plural not in RESOURCES or RESOURCES[plural].group != group or len(steps) > 3:
        return _Asked("get", request.path.strip("/"), None, "", "")
    if request.method == "GET":
        verb = "get" if name else "watch" if watches else "list"
    else:
        verb = _VERBS.get(request.method, request.method.lower())
    if subresource == "exec":
        verb = "create"  # also over a WebSocket, which begins with GET: it is no less of a deed
    return _Asked(verb, plural, namespace, name, subresource)


def _group(name: str) -> Json:
    version = {"groupVersion": f"{name}/v1", "version": "v1"}
    return {"name": name, "versions": [version], "preferredVersion": version}


def _resource_list(group: str) -> Json:
    listed: list[Json] = []
    for resource in RESOURCES.values():
        if resource.group != group:
            continue
        all_ = {"categories": ["all"]} if resource.plural in {"pods", "deployments"} else {}
        one = {"name": resource.plural, "singularName": resource.kind.lower(), "namespaced": resource.namespaced}
        listed.append(
            {**one, "kind": resource.kind, "verbs": list(resource.verbs), "shortNames": list(resource.short)} | all_
        )
        for name, (kind, verbs) in (resource.subresources or {}).items():
            scale = {"group": "autoscaling", "version": "v1"} if kind == "Scale" else {}
            listed.append(
                {**one, "name": f"{resource.plural}/{name}", "singularName": "", "kind": kind, "verbs": list(verbs)}
                | scale
            )
    version = f"{group}/v1" if group else "v1"
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": listed}


def _scale(deployment: Json) -> Json:
    meta = deployment["metadata"]
    kept = {name: meta[name] for name in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")}
    selector = ",".join(f"{key}={value}" for key, value in deployment["spec"]["selector"]["matchLabels"].items())
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": kept,
        "spec": {"replicas": deployment["spec"]["replicas"]} if deployment["spec"]["replicas"] else {},
        "status": {"replicas": deployment["status"].get("replicas", 0), "selector": selector},
    }


async def _body(request: web.Request) -> Any:
    content_type = _content_type(request)
    if not content_type.endswith("json"):
        why = f"this sandbox understands JSON alone, and not {content_type}: create objects from a file (-f)"
        raise Refusal(415, "UnsupportedMediaType", why)
    try:
        return json.loads(await request.read())
    except ValueError:
        raise Refusal(400, "BadRequest", "the body of the request is not JSON") from None


def _must_be_object(body: Any, *, named: bool = True) -> Json:
    if isinstance(body, dict) and (
        not named or (isinstance(body.get("metadata"), dict) and isinstance(body["metadata"].get("name"), str))
    ):
        return body
    raise Refusal(422, "Invalid", "metadata.name: Required value: name or generateName is required")


def _must_be_count(replicas: Any, name: str) -> None:
    if not isinstance(replicas, int) or isinstance(replicas, bool) or replicas < 0:
        why = f'Deployment.apps "{name}" is invalid: spec.replicas: Invalid value: {replicas!r}: must be greater than'
        raise Refusal(422, "Invalid", f"{why} or equal to 0")


def _patch_meta(body: Any) -> Mapping[str, Any]:
    meta = body.get("metadata") if isinstance(body, dict) else None
    return meta if isinstance(meta, dict) else {}


def _content_type(request: web.Request) -> str:
    return request.headers.get("Content-Type", "application/json").partition(";")[0].strip()


def _wants_table(request: web.Request) -> bool:
    return "as=Table" in request.headers.get("Accept", "")


def _piece(path: Path | None, at: int) -> bytes:
    if path is None:
        return b""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        file.seek(at)
        return file.read(1 << 16)
    return b""


def _tail_begins(path: Path | None, lines: int) -> int:
    """Return where the last lines of a file begin."""
    if path is None or not path.exists():
        return 0
    with path.open("rb") as file:
        at = end = file.seek(0, os.SEEK_END)
        if lines <= 0:
            return end
        found = 0
        while at > 0:
            begin = max(0, at - (1 << 16))
            file.seek(begin)
            piece = file.read(at - begin)
            for index in range(len(piece) - 1, -1, -1):
                if piece[index] == 10 and begin + index < end - 1:
                    found += 1
                    if found == lines:
                        return begin + index + 1
            at = begin
    return 0


def main() -> int:
    """Serve the cluster that the file named on the command line describes."""
    interpreter.give_up_capability()
    os.umask(0o077)
    told = Serving.from_json(Path(sys.argv[1]).read_text())

    async def serve() -> None:
        await Server(told).serve()

    asyncio.run(serve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
