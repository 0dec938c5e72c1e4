"""Which cluster, and who we are there.

The official loader takes the current context where none is named, keeps the first of two contexts of one name without
a word, swallows the failure of a credential plugin and writes keys into files of the temporary folder that a killed
process leaves behind. So the context is always named here, what is ambiguous is refused, credentials that have run
out are recognised before anything is connected to, and keys go from the kubeconfig into a TLS context with their files
gone at once.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from kubernetes import client, config
from kubernetes.config.config_exception import ConfigException
from urllib3.util.ssl_ import create_urllib3_context

from runbook_lib.errors import Denied, ProfileInvalid

IN_CLUSTER = "in-cluster"
"""The context that stands for the service account of the pod we run in."""


@dataclass(frozen=True)
class Access:
    """How one cluster is reached."""

    context: str
    """The name of the context."""
    configuration: client.Configuration
    """The official client's configuration, with the token or the hook that renews it."""
    tls: ssl.SSLContext | None
    """What its certificate is checked against and ours is proven with; None for plain HTTP."""

    @property
    def where(self) -> str:
        """The cluster as a person would name it, without secrets."""
        return f"context {self.context} at {self.configuration.host}"


def load(context: str, kubeconfig: str) -> Access:
    """Read how a cluster is reached; nothing is connected to.

    :param context: the context's name, or ``in-cluster``
    :param kubeconfig: one path, or several as in ``KUBECONFIG``; empty for that, or its default

    Raise `ProfileInvalid` where it cannot be understood or is ambiguous, `Denied` where the credentials have run out.
    """
    settings = client.Configuration()
    settings.client_side_validation = False  # what a server leaves out is for us to judge
    settings.retries = False  # only `calls` knows what may be sent twice
    settings.debug = False
    with tempfile.TemporaryDirectory(prefix="runbook-kubernetes-") as scratch:
        if context == IN_CLUSTER:
            _from_the_pod(settings)
        else:
            _from_kubeconfig(settings, context, kubeconfig, scratch)
        where = f"context {context} at {settings.host}"
        _must_not_have_run_out(settings, where)
        tls = _tls(settings, where) if settings.host.startswith("https") else None
    settings.cert_file = settings.key_file = None  # they are in the TLS context; their files are gone
    if context != IN_CLUSTER:
        settings.ssl_ca_cert = None
    return Access(context, settings, tls)


def _from_the_pod(settings: client.Configuration) -> None:
    try:
        config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError) as missing:
        raise ProfileInvalid(
            "the cluster that we run in",
            where="the service account of this pod",
            why=str(missing),
            remedy="run in a pod with a service account, or name a context of a kubeconfig in the profile",
        ) from missing


def _from_kubeconfig(settings: client.Configuration, context: str, kubeconfig: str, scratch: str) -> None:
    wanted = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    paths = [Path(part).expanduser() for part in wanted.split(os.pathsep) if part]
    files = {path: _parsed(path) for path in paths if path.exists()}
    if not files:
        raise ProfileInvalid(
            f"the context {context}",
            where=f"kubeconfig {wanted}",
            why="there is no such file",
            remedy="name the kubeconfig in the profile or in KUBECONFIG",
        )
    found = _only(files, "contexts", context, wanted)
    if found is None:
        known = sorted({str(entry.get("name")) for _, entry in _entries(files, "contexts")})
        raise ProfileInvalid(
            f"the context {context}",
            where=f"kubeconfig {wanted}",
            why=f"it has no context of that name; it has: {', '.join(known) or 'none'}",
            remedy="correct the context's name in the profile, or add it (kubectl config set-context)",
        )
    inside = found.get("context") if isinstance(found.get("context"), dict) else {}
    for kind, role in ("clusters", "cluster"), ("users", "user"):
        name = inside.get(role) if isinstance(inside, dict) else None
        if name and _only(files, kind, str(name), wanted) is None:
            raise ProfileInvalid(
                f"the {role} {name} of the context {context}",
                where=f"kubeconfig {wanted}",
                why=f"there is no {role} of that name",
                remedy=f"add it (kubectl config set-{'credentials' if role == 'user' else role})",
            )
    try:
        config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=os.pathsep.join(map(str, files)),
            context=context,
            client_configuration=settings,
            persist_config=False,
            temp_file_path=scratch,
        )
    except (ConfigException, OSError, ValueError, TypeError, KeyError, AttributeError) as malformed:
        raise ProfileInvalid(
            f"the context {context}",
            where=f"kubeconfig {wanted}",
            why=f"{type(malformed).__name__}: {malformed}" if str(malformed) else type(malformed).__name__,
            remedy="correct the kubeconfig: kubectl config view shows it without secrets",
        ) from None  # its text may hold what it stumbled over
    user = _only(files, "users", str(inside.get("user")), wanted) if isinstance(inside, dict) else None
    plugin = ((user or {}).get("user") or {}).get("exec")
    if plugin and not (settings.api_key or settings.cert_file):
        raise Denied(
            f"credentials for the context {context}",
            where=f"the credential plugin {plugin.get('command')}",
            why="it gave none",
            remedy="run it by hand with its arguments from the kubeconfig, and mend what it complains of",
        )


def _parsed(path: Path) -> Mapping[str, Any]:
    try:
        parsed = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as unreadable:
        why = getattr(unreadable, "strerror", None) or "it is not text"
    except yaml.YAMLError as malformed:
        mark = getattr(malformed, "problem_mark", None)
        why = f"it is not YAML{f', line {mark.line + 1}' if mark else ''}"  # its text may hold what it stumbled over
    else:
        if isinstance(parsed, dict):
            return parsed
        why = "it is empty" if parsed is None else "it is not a kubeconfig"
    raise ProfileInvalid(
        "a kubeconfig",
        where=str(path),
        why=why,
        remedy="correct the file, or name another one in the profile or in KUBECONFIG",
    )


def _entries(files: Mapping[Path, Mapping[str, Any]], kind: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path, parsed in files.items():
        entries = parsed.get(kind)
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict):
                yield path, entry


def _only(files: Mapping[Path, Mapping[str, Any]], kind: str, name: str, wanted: str) -> dict[str, Any] | None:
    """Return the one entry of a name; None where there is none. Two that differ are refused."""
    found = [(path, entry) for path, entry in _entries(files, kind) if str(entry.get("name")) == name]
    if not found:
        return None
    first = found[0][1]
    in_one_file = len({path for path, _ in found}) < len(found)
    if in_one_file or any(entry != first for _, entry in found):
        raise ProfileInvalid(
            f"the one of {kind} that is named {name}",
            where=f"kubeconfig {wanted}",
            why=f"{len(found)} of {kind} have that name, in {', '.join(sorted({str(path) for path, _ in found}))}:"
            " which cluster is meant cannot be known",
            remedy="rename one of them (kubectl config rename-context), or name a single kubeconfig in the profile",
        )
    return first


def _must_not_have_run_out(settings: client.Configuration, where: str) -> None:
    now = datetime.now(UTC)
    if settings.cert_file:
        try:
            certificate = x509.load_pem_x509_certificate(Path(settings.cert_file).read_bytes())
        except (OSError, ValueError) as malformed:
            raise ProfileInvalid(
                "the client certificate",
                where=where,
                why="it is not a certificate in PEM form",
                remedy="correct client-certificate or client-certificate-data of the user in the kubeconfig",
            ) from malformed
        if certificate.not_valid_after_utc < now:
            raise Denied(
                "to log in with the client certificate",
                where=where,
                why=f"it expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
                remedy="have a new one issued, and put it into the kubeconfig",
            )
    expires = _expiry(str(settings.api_key.get("BearerToken", "")))
    if expires is not None and expires < now:
        raise Denied(
            "to log in with the bearer token",
            where=where,
            why=f"it expired on {expires:%Y-%m-%d %H:%M} UTC",
            remedy="log in again, or have a new token issued (kubectl create token) and put it into the kubeconfig",
        )


def _expiry(token: str) -> datetime | None:
    """Return when a JSON web token runs out; None for any other token, which alone the server can judge."""
    parts = token.rpartition(" ")[2].strip().split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return datetime.fromtimestamp(float(claims["exp"]), UTC)
    except (ValueError, TypeError, KeyError, OverflowError, OSError):
        return None


def _tls(settings: client.Configuration, where: str) -> ssl.SSLContext:
    try:
        context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED if settings.verify_ssl else ssl.CERT_NONE)
        if settings.ssl_ca_cert:
            context.load_verify_locations(cafile=settings.ssl_ca_cert)
        else:
            context.load_default_certs()
        if settings.cert_file:
            context.load_cert_chain(settings.cert_file, settings.key_file)
    except (OSError, ssl.SSLError, ValueError) as malformed:
        raise ProfileInvalid(
            "the certificates of the kubeconfig",
            where=where,
            why=getattr(malformed, "strerror", None) or type(malformed).__name__,
            remedy="correct certificate-authority, client-certificate and client-key in the kubeconfig",
        ) from None
    return context
