"""Every request to a cluster, and what may be requested at all.

All methods of the official client end in one, `GuardedClient.call_api`, and that is where the promises are kept: a
client that may only read sends nothing that writes; an answer has to come within its time and be one that a
Kubernetes API server gives; and what a busy server asks to have repeated is repeated, but never what might then happen
twice.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.client.rest import RESTResponse

from runbook_lib.errors import Denied, NotFound, RunbookError, TargetRefused, ToolFailed, Unreachable
from runbook_lib.reach.kubernetes.configuration import Access
from runbook_lib.waiting import wait_for

ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
"""The one address that is posted to without anything being written: a question."""

_ACTING_SUBRESOURCES = re.compile(r"/(exec|attach|portforward|proxy)(/|$)")
"""What acts although it may be asked for with GET."""
_TRY_AGAIN = {429, 500, 502, 503, 504}
_ATTEMPTS = 5
_FIRST_PAUSE_SECONDS = 0.2
_RETRYING_SECONDS = 30.0
"""After which the last answer of a busy server stands, whatever it says about trying again."""
_MOST_BYTES = 64 << 20
"""More than any answer that is asked for here; a server that sends for ever is none."""

T = TypeVar("T")

# What it writes for debugging is the bodies of answers, secrets and all.
logging.getLogger("kubernetes").setLevel(logging.WARNING)


class _NotKubernetes(Exception):
    """An answer that no Kubernetes API server gives."""


class _TooLate(Exception):
    """An answer that was begun, and did not end in time."""


class GuardedClient(client.ApiClient):
    """The official client, held to what it may do.

    :param read_only: whether it may only look
    :param timeout_seconds: how long one answer may take, from the connection to its last byte
    """

    def __init__(self, access: Access, *, read_only: bool, timeout_seconds: float) -> None:
        super().__init__(access.configuration)
        self.access = access
        self.read_only = read_only
        self.timeout_seconds = timeout_seconds
        self._sent = threading.local()
        if access.tls is not None:
            settings = self.rest_client.pool_manager.connection_pool_kw
            for kept_in_context in "ca_certs", "cert_file", "key_file", "ca_cert_data":
                settings.pop(kept_in_context, None)
            settings["ssl_context"] = access.tls

    @property
    def attempts(self) -> int:
        """How often this thread's last request was sent: more than once, and an earlier one may have been obeyed."""
        return getattr(self._sent, "attempts", 0)

    def must_be_allowed(self, method: str, path: str) -> None:
        """Raise `TargetRefused` where a client that may only look is to do something else."""
        looks = method in {"GET", "HEAD"} and not _ACTING_SUBRESOURCES.search(path)
        asks = method == "POST" and path == ACCESS_REVIEWS
        if self.read_only and not (looks or asks):
            raise TargetRefused(
                f"{method} {path}",
                where=self.access.where,
                why="this client was opened to read only, and that might change something",
                remedy="nothing was sent; change a cluster only with a permit, through a client that may write",
            )

    def call_api(
        self,
        method: str,
        url: str,
        header_params: Any = None,
        body: Any = None,
        post_params: Any = None,
        _request_timeout: Any = None,
    ) -> RESTResponse:
        """Send one request, again where that is safe and asked for, and return the answer with its body read."""
        path = urlsplit(url).path
        prefix = urlsplit(self.configuration.host).path.rstrip("/")
        path = path.removeprefix(prefix)
        self.must_be_allowed(method, path)
        may_repeat = method in {"GET", "HEAD", "PUT"} or path == ACCESS_REVIEWS
        began = time.monotonic()
        pause_seconds = _FIRST_PAUSE_SECONDS
        self._sent.attempts = 0
        while True:
            self._sent.attempts += 1
            answer = self._send(method, url, header_params, body, post_params)
            if answer.status not in _TRY_AGAIN or not may_repeat or self.attempts >= _ATTEMPTS:
                break
            asked_seconds = _retry_after_seconds(answer.headers.get("Retry-After"))
            pause = max(pause_seconds, asked_seconds)
            if time.monotonic() - began + pause > _RETRYING_SECONDS:
                break
            _pause(pause, self.access.where)
            pause_seconds *= 2
        if 200 <= answer.status <= 299 and not path.endswith("/log"):
            _must_be_an_object(answer.data, path)
        return cast("RESTResponse", answer)

    def _send(self, method: str, url: str, headers: Any, body: Any, post_params: Any) -> Any:
        deadline = time.monotonic() + self.timeout_seconds
        answer: Any = self.rest_client.request(  # type: ignore[no-untyped-call]
            method,
            url,
            headers=dict(headers or {}),
            body=body,
            post_params=post_params,
            _request_timeout=(self.timeout_seconds, self.timeout_seconds),
        )
        content = bytearray()
        try:
            for piece in answer.response.stream(1 << 16):
                content += piece
                if time.monotonic() > deadline:
                    raise _TooLate(f"{len(content)} bytes of its answer came in {self.timeout_seconds:g} s")
                if len(content) > _MOST_BYTES:
                    raise _NotKubernetes(f"its answer has more than {_MOST_BYTES >> 20} MB")
        except BaseException:
            answer.response.close()
            raise
        answer.response.release_conn()
        answer.data = bytes(content)
        return answer

    def perform(self, call: Callable[[], T], *, sought: str, verb: str, resource: str, group: str = "") -> T:
        """Carry out calls of the official client, and turn what they raise into errors that say what to do.

        :param sought: what they are for, as the object of a sentence
        :param verb: what it takes to be allowed: ``get``, ``list``, ``update`` ...
        :param resource: the resource in the plural, with its subresource: ``deployments/scale``
        :param group: the resource's API group; empty for the core
        """
        with self.errors(sought=sought, verb=verb, resource=resource, group=group):
            return call()

    @contextmanager
    def errors(self, *, sought: str, verb: str, resource: str, group: str = "") -> Iterator[None]:
        """Turn what the official client raises in the block into errors that say what to do; see `perform`."""
        where = self.access.where
        try:
            yield
        except RunbookError:
            raise
        except ApiException as answered:
            if answered.status:
                raise self.answered(answered, sought=sought, verb=verb, resource=resource, group=group) from None
            raise Unreachable(sought, where=where, why=self._scrubbed(answered.reason), remedy=_TLS_REMEDY) from None
        except urllib3.exceptions.SSLError as refused:
            raise Unreachable(sought, where=where, why=self._scrubbed(refused), remedy=_TLS_REMEDY) from None
        except (urllib3.exceptions.HTTPError, OSError, _TooLate) as silent:
            remedy = "check that the cluster is up, its address in the kubeconfig, the VPN and the network"
            raise Unreachable(sought, where=where, why=self._scrubbed(_root(silent)), remedy=remedy) from None
        except (_NotKubernetes, ValueError, TypeError, AttributeError, KeyError) as garbled:
            raise Unreachable(
                sought,
                where=where,
                why=f"what answers there is not a Kubernetes API server: {self._scrubbed(garbled)}",
                remedy="check the server's address in the kubeconfig, and what stands between it and us",
            ) from garbled

    def answered(
        self, answered: ApiException, *, sought: str, verb: str, resource: str, group: str = ""
    ) -> RunbookError:
        """Return the error that an answer other than success amounts to."""
        where = self.access.where
        status = _status(answered.body)
        message = self._scrubbed(status.get("message") or answered.reason or "no reason given")
        why = f"the API server answers {answered.status}: {message}"
        if answered.status == 401:
            remedy = "log in again: the token has expired, was revoked, or belongs to another cluster"
            return Denied(f"{sought} (to {verb} {resource})", where=where, why=why, remedy=remedy)
        if answered.status == 403:
            rule = f'apiGroups: ["{group}"], resources: ["{resource}"], verbs: ["{verb}"]'
            remedy = f"have this rule added to a role that is bound to us: {rule}"
            return Denied(f"{sought} (to {verb} {resource})", where=where, why=why, remedy=remedy)
        if not status:
            return Unreachable(
                sought,
                where=where,
                why=f"what answers there is not a Kubernetes API server: {answered.status}, and no reason in its form",
                remedy="check the server's address in the kubeconfig, and what stands between it and us",
            )
        if answered.status in {404, 410}:
            remedy = "list what is there; check the namespace and the context in the profile"
            return NotFound(sought, where=where, why=why, remedy=remedy)
        if answered.status == 409:
            remedy = "nothing was changed: look at what is there now, and who else changes it"
            return Denied(sought, where=where, why=why, remedy=remedy)
        if answered.status in _TRY_AGAIN:
            why = f"{why} ({self.attempts} attempt{'s' if self.attempts > 1 else ''})"
            return Unreachable(sought, where=where, why=why, remedy="try again later; look at the API server's health")
        return ToolFailed(sought, where=where, why=why, remedy="correct what the API server complains of")

    def _scrubbed(self, text: object) -> str:
        """Return a text without our token, whoever repeated it."""
        said = " ".join(str(text).split())
        for held in self.configuration.api_key.values():
            secret = str(held).rpartition(" ")[2].strip()
            if secret:
                said = said.replace(secret, "(our token)")
        return said


_TLS_REMEDY = "check certificate-authority and tls-server-name in the kubeconfig, our certificate, and the clocks"


def _pause(seconds: float, where: str) -> None:
    due = time.monotonic() + seconds
    wait_for(
        "the pause before the next attempt to be over",
        lambda: time.monotonic() >= due,
        where=where,
        within_seconds=seconds + 10,
    )


def _retry_after_seconds(header: str | None) -> float:
    """Return what the server asks for; it is always a number of seconds with Kubernetes."""
    return float(header) if header and header.strip().isdecimal() else 0.0


def _must_be_an_object(content: bytes, path: str) -> None:
    try:
        parsed = json.loads(content)
    except (ValueError, UnicodeDecodeError, RecursionError):
        raise _NotKubernetes(f"no JSON, but {content[:60]!r}") from None
    wanted = "gitVersion" if path == "/version/" or path == "/version" else "kind"
    if not isinstance(parsed, dict) or wanted not in parsed:
        raise _NotKubernetes(f"JSON without {wanted}")


def _status(body: Any) -> Mapping[str, Any]:
    """Return the Status object that explains an answer; nothing where there is none."""
    try:
        parsed = json.loads(body or "")
    except (ValueError, TypeError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) and parsed.get("kind") == "Status" else {}


def _root(error: BaseException) -> str:
    """Return the reason below urllib3's layers, in words."""
    reason = getattr(error, "reason", None)
    while isinstance(reason, BaseException):
        error, reason = reason, getattr(reason, "reason", None)
    said = re.sub(r"<[^>]*>:? ?", "", str(error)).strip()
    return said or type(error).__name__
