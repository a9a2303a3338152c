"""Sends requests to DT's REST API and repeats those that fail, visibly.

The `disruptive` package repeats requests too, but silently: a `Retry-After` of an hour would look like a hang.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from math import ceil
from typing import Any

import requests
from disruptive.authentication import create_jwt

from dtcloud.account import REFUSED, read_account

REQUESTS_AT_ONCE = 4

_TIMEOUT = (5, 30)  # seconds: to connect, and without a byte of the answer
_NOTICE_SECONDS = 4.0  # without an answer, before the user is told
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_TOKEN_SECONDS = 3600  # lifetime of an assertion
_RENEW_SECONDS = 60.0  # before an access token expires, it is renewed
_REFUSED = {
    400: "DT refuses the request: check --event-type, and the ids of the project and the device",
    401: REFUSED,
    403: "the service account may not read this project: give it a role in the project, in DT Studio",
    404: "DT does not know the project or device, or the service account has no role in the project",
}
_REPEATED = {408: "DT's request timed out", 429: "DT still answers that there are too many requests"}


class ApiError(Exception):
    """Raised if DT's API does not give what was requested after several attempts; the text gives the reason."""


class RequestRefused(ApiError):
    """Raised if DT's API refuses the request, so that another attempt would not help.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, reason: str, status: int) -> None:
        """Initialize."""
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    headers: Mapping[str, str]
    content: Any


class _Failure(Exception):
    """A failed attempt that is repeated after `retry_after` seconds at the earliest."""

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


class Waits:
    """What the requests wait for, so that the user can see it."""

    def __init__(self) -> None:
        """Initialize: nothing waits."""
        self._waits: dict[object, tuple[float | None, str]] = {}

    @contextmanager
    def shown(self, reason: str, seconds: float | None = None) -> Iterator[None]:
        """Show a reason during a block, with a countdown if the wait has a known length in seconds."""
        key = object()
        self._waits[key] = (None if seconds is None else time.monotonic() + seconds, reason)
        try:
            yield
        finally:
            del self._waits[key]

    @property
    def reason(self) -> str:
        """What the longest wait is for; empty if nothing waits."""
        return self._longest()[1]

    def line(self) -> str:
        """Return the longest wait as text, with its countdown; empty if nothing waits."""
        until, reason = self._longest()
        return reason if until is None else f"{reason}; next attempt in {_duration(until - time.monotonic())}"

    def _longest(self) -> tuple[float | None, str]:
        return max(self._waits.values(), key=lambda wait: wait[0] or 0.0, default=(None, ""))


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(max(0, ceil(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return " ".join(f"{n} {unit}" for n, unit in ((hours, "h"), (minutes, "min"), (seconds, "s")) if n) or "0 s"


class Api:
    """DT's REST API, as the service account of the environment.

    Attributes:
        waits: what the requests wait for at present.
    """

    def __init__(self, environ: Mapping[str, str], pauses: Sequence[float]) -> None:
        """Send nothing yet: the first request fetches the access token.

        Args:
            environ: names the service account.
            pauses: seconds between the attempts of a request.

        Raises:
            MissingCredentials: a credential is missing.
        """
        self.waits = Waits()
        self._account = read_account(environ)
        self._pauses = pauses
        self._threads = ThreadPoolExecutor(REQUESTS_AT_ONCE)
        self._session = requests.Session()
        self._session.auth = _unchanged
        self._token, self._token_expires = "", 0.0
        self._signing_in = asyncio.Lock()
        self._quiet_until = 0.0  # on the monotonic clock; no request before the end of a Retry-After

    async def get(self, path: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the JSON object at a path below the API's base URL.

        Raises:
            RequestRefused: DT refuses the request.
            ApiError: all attempts failed.
        """
        return await self._send("GET", path, params=dict(params or {}))

    async def patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Change fields of a resource, and return it.

        Raises:
            RequestRefused: DT refuses the request.
            ApiError: all attempts failed.
        """
        return await self._send("PATCH", path, json=dict(body))

    async def _send(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        for pause in (*self._pauses, None):
            await self._wait_quietly()
            try:
                return await self._authorized(method, self._account.api_url + path, **content)
            except _Failure as failure:
                if pause is None:
                    raise ApiError(failure.reason) from None
                self._quiet_until = max(self._quiet_until, time.monotonic() + failure.retry_after)
                with self.waits.shown(failure.reason, max(pause, failure.retry_after)):
                    await asyncio.sleep(max(pause, failure.retry_after))
        raise AssertionError  # the last attempt returned or raised

    async def _wait_quietly(self) -> None:
        """Wait for the end of a Retry-After that DT sent to another request of the same account."""
        while (seconds := self._quiet_until - time.monotonic()) > 0:
            with self.waits.shown(_REPEATED[429], seconds):
                await asyncio.sleep(seconds)

    async def _authorized(self, method: str, url: str, **content: Any) -> dict[str, Any]:
        token = await self._access_token("")
        response = await self._request(method, url, headers={"Authorization": f"Bearer {token}"}, **content)
        if response.status == HTTPStatus.UNAUTHORIZED:  # revoked, or expired early
            token = await self._access_token(token)
            response = await self._request(method, url, headers={"Authorization": f"Bearer {token}"}, **content)
        _check(response, url)
        return response.content if isinstance(response.content, dict) else {}

    async def _access_token(self, refused: str) -> str:
        """Return an access token other than the one that DT refused."""
        async with self._signing_in:
            if self._token == refused or time.monotonic() > self._token_expires:
                await self._sign_in()
            return self._token

    async def _sign_in(self) -> None:
        """Exchange a signed assertion for an access token: https://developer.disruptive-technologies.com/docs."""
        account, now = self._account, int(time.time())
        claims = {"iat": now, "exp": now + _TOKEN_SECONDS, "aud": account.token_url, "iss": account.email}
        assertion = create_jwt(claims, account.secret, "HS256", {"alg": "HS256", "kid": account.key_id})
        response = await self._request("POST", account.token_url, data={"assertion": assertion, "grant_type": _GRANT})
        if response.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED):
            raise RequestRefused(_with_source(REFUSED, response.status, account.token_url), response.status)
        _check(response, account.token_url)
        try:
            self._token = str(response.content["access_token"])
            self._token_expires = time.monotonic() + float(response.content["expires_in"]) - _RENEW_SECONDS
        except (KeyError, TypeError, ValueError):
            raise _Failure(_with_source("DT's answer holds no access token", 200, account.token_url)) from None

    async def _request(self, method: str, url: str, **content: Any) -> _Response:
        """Send one request in a thread, and tell the user if the answer takes long."""
        loop = asyncio.get_running_loop()
        answer = loop.run_in_executor(self._threads, lambda: self._exchange(method, url, **content))
        await asyncio.wait({answer}, timeout=_NOTICE_SECONDS)
        if answer.done():
            return answer.result()
        with self.waits.shown(f"DT has not answered yet ({_source(url)})"):
            return await answer

    def _exchange(self, method: str, url: str, **content: Any) -> _Response:
        try:
            # A redirect could take the signed assertion to another host.
            response = self._session.request(method, url, timeout=_TIMEOUT, allow_redirects=False, **content)
            is_json = response.status_code == HTTPStatus.OK
            return _Response(response.status_code, response.headers, response.json() if is_json else None)
        except (requests.ConnectionError, requests.Timeout) as error:
            raise _Failure(_with_source("DT cannot be reached, or does not answer", _name(error), url)) from None
        except (requests.RequestException, ValueError) as error:
            raise _Failure(_with_source("DT's answer cannot be read", _name(error), url)) from None


def _unchanged(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keep the header Authorization; requests would replace it by what ~/.netrc has for the host, or for any host."""
    return request


def _check(response: _Response, url: str) -> None:
    status = response.status
    if status == HTTPStatus.OK:
        return
    if status in _REPEATED or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        reason = _REPEATED.get(status, "DT answers with a server error")
        raise _Failure(_with_source(reason, status, url), _retry_after(response.headers.get("Retry-After", "")))
    raise RequestRefused(_with_source(_REFUSED.get(status, "DT refuses the request"), status, url), status)


def _retry_after(text: str) -> float:
    """Return the seconds that a Retry-After header names, as a number or a date; 0 if it names none."""
    try:
        seconds = float(text) if text.isdecimal() else (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return 0.0
    return max(0.0, seconds)


def _with_source(reason: str, status: int | str, url: str) -> str:
    return f"{reason} ({status} from {_source(url)})"


def _source(url: str) -> str:
    return url.partition("?")[0]


def _name(error: Exception) -> str:
    return type(error).__name__
