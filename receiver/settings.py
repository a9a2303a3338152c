"""Reads the settings from the environment, once; a wrong value is refused at start."""

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
# Days or seconds. With many more days, expireAt would be after the year 9999, where a Timestamp ends.
_MOST = 1_000_000
_SHORT_SECRET = 32  # bytes; RFC 7518, section 3.2, wants a key as long as the hash
_ISSUER = "https://identity.disruptive-technologies.com/data-connector"
_BYTE_ORDER_MARK = "\N{BYTE ORDER MARK}"


class SettingsError(ValueError):
    """Raised if a setting is missing or wrong; the text names the variable, never its value."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of the function.

    Attributes:
        secrets: signature secrets as UTF-8 bytes, in the order in which they are tried.
        organizations: ids of the DT organizations that are trusted by public key.
        issuer: the issuer of the public-key tokens.
        leeway: tolerance on a token's `exp`, `iat` and `nbf`, in seconds.
        project: Google Cloud project id; None leaves it to the credentials.
        database: Firestore database id.
        collection: collection of the events.
        retention_days: days until `expireAt`; None keeps documents for ever.
        log_level: the least severity that is logged, as the numbers of `logging`.
        emulator_host: `host:port` of a Firestore emulator, or None.
        devices_collection: collection of the newest state of each device; None keeps none.
    """

    secrets: tuple[bytes, ...] = field(repr=False)
    organizations: frozenset[str]
    issuer: str
    leeway: int
    project: str | None
    database: str
    collection: str
    retention_days: int | None
    log_level: int
    emulator_host: str | None
    devices_collection: str | None = None

    @property
    def short_secrets(self) -> int:
        """How many of the secrets are shorter than RFC 7518 wants for HS256."""
        return sum(len(secret) < _SHORT_SECRET for secret in self.secrets)


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Read and check every setting; a blank variable counts as unset.

    Raises:
        SettingsError: a variable is missing or has a wrong value.
    """
    if environ.get("K_SERVICE") and environ.get("FIRESTORE_EMULATOR_HOST"):
        raise SettingsError("FIRESTORE_EMULATOR_HOST is for a developer's machine: unset it on Cloud Run")
    secrets, organizations = _secrets(environ), _organizations(environ)
    if not secrets and not organizations:
        raise SettingsError(
            "DT_SIGNATURE_SECRET and DT_ORGANIZATION_ID are missing: set the signature secret of the Data Connector,"
            " or the id of your DT organization, or both"
        )
    days = _whole_number(
        environ, "RETENTION_DAYS", least=2, wanted="a whole number of days, two or more, at most a million"
    )
    leeway = _whole_number(
        environ, "SIGNATURE_LEEWAY_SECONDS", least=0, wanted=f"a whole number of seconds, at most {_MOST:,}"
    )
    level = _matching(environ, "LOG_LEVEL", "(?i:" + "|".join(_LEVELS) + ")", "one of " + ", ".join(_LEVELS))
    collection = _collection(environ, "EVENTS_COLLECTION") or "events"
    return Settings(
        secrets=secrets,
        organizations=organizations,
        issuer=_issuer(environ),
        leeway=10 if leeway is None else leeway,
        project=_matching(environ, "GOOGLE_CLOUD_PROJECT", r"(?a:[\w.:-]+)", "a project id"),
        database=_matching(environ, "FIRESTORE_DATABASE", r"\(default\)|[a-z][a-z0-9-]{2,61}[a-z0-9]", "a database id")
        or "(default)",
        collection=collection,
        devices_collection=_devices_collection(environ, collection),
        retention_days=days,
        log_level=_LEVELS[(level or "INFO").upper()],
        emulator_host=_matching(
            environ,
            "FIRESTORE_EMULATOR_HOST",
            r"(\[[^\s/\[\]]+\]|[^\s/:\[\]]+):(?!0+$)(?a:\d{1,4}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5])",
            "host:port without a scheme (an IPv6 address in square brackets)",
        ),
    )


def _collection(environ: Mapping[str, str], name: str) -> str | None:
    pattern = r"(?!\.{1,2}$|__.*__$)[^/\x00-\x1f\x7f\ud800-\udfff]{1,300}"
    return _matching(environ, name, pattern, "a collection id, without a slash")


def _devices_collection(environ: Mapping[str, str], events: str) -> str | None:
    collection = _collection(environ, "DEVICES_COLLECTION")
    if collection in (events, f"{events}_quarantine"):
        raise SettingsError("DEVICES_COLLECTION must differ from EVENTS_COLLECTION and its quarantine")
    return collection


def _secrets(environ: Mapping[str, str]) -> tuple[bytes, ...]:
    value = os.fsencode(environ.get("DT_SIGNATURE_SECRET", "")).decode("utf-8", "surrogateescape")
    secrets = [line.strip() for line in value.replace(_BYTE_ORDER_MARK, "").splitlines() if line.strip()]
    if any(_is_quoted(text) for text in ("\n".join(secrets), *secrets)):
        raise SettingsError("DT_SIGNATURE_SECRET must be the secret itself, without quotes around it")
    return tuple(secret.encode("utf-8", "surrogateescape") for secret in secrets)


def _organizations(environ: Mapping[str, str]) -> frozenset[str]:
    ids = [part.strip() for part in re.split(r"[,\n]", environ.get("DT_ORGANIZATION_ID", "")) if part.strip()]
    if not all(re.fullmatch(r"[A-Za-z0-9_-]{1,100}", one) for one in ids):
        raise SettingsError("DT_ORGANIZATION_ID must be ids of DT organizations, one a line or separated by commas")
    return frozenset(ids)


def _issuer(environ: Mapping[str, str]) -> str:
    issuer = environ.get("DT_IDENTITY_ISSUER", "").strip() or _ISSUER
    try:
        parts = urlsplit(issuer)
        loopback = is_loopback(issuer) and not environ.get("K_SERVICE")
        allowed = parts.scheme == "https" or (parts.scheme == "http" and loopback)
        valid = allowed and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is not a number, or brackets without an IPv6 address
        valid = False
    if not valid or re.search(r"[\s?#@]", issuer):
        raise SettingsError("DT_IDENTITY_ISSUER must be an https URL (http only on this machine)")
    return issuer


def is_loopback(url: str) -> bool:
    """Return whether the host of a URL is this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_quoted(text: str) -> bool:
    return len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"


def _matching(environ: Mapping[str, str], name: str, pattern: str, wanted: str) -> str | None:
    value = environ.get(name, "").strip()
    if value and not re.fullmatch(pattern, value):
        raise SettingsError(f"{name} must be {wanted}")
    return value or None


def _whole_number(environ: Mapping[str, str], name: str, *, least: int, wanted: str) -> int | None:
    digits = _matching(environ, name, r"(?a:\d{1,18})", wanted)
    if digits is None:
        return None
    if not least <= int(digits) <= _MOST:
        raise SettingsError(f"{name} must be {wanted}")
    return int(digits)
