"""Google's credentials for the channel to the real Firestore. Loaded only for it: an emulator needs none of this."""

import threading
from functools import partial
from typing import Any, NamedTuple

import google.auth
from google.auth.credentials import Credentials, TokenState
from google.auth.exceptions import GoogleAuthError, RefreshError
from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcAsyncIOTransport as Transport

from receiver.channel import CHANNEL_OPTIONS, OpenChannel
from receiver.errors import Unavailable

HOST = Transport.DEFAULT_HOST
_FETCH_SECONDS = 8.0  # the longest time for which a delivery waits


class Google(NamedTuple):
    """What `find` found.

    Attributes:
        project: the Google Cloud project id.
        credentials: fetch access tokens.
        open_channel: makes a channel to Firestore with the credentials.
    """

    project: str
    credentials: "PatientCredentials"
    open_channel: OpenChannel


class PatientCredentials:
    """Adds access tokens to requests, which do not wait for the refresh of a token that is still valid.

    google-auth refreshes a token in the last 3 min 45 s of its life, and a request waits for that. With its own
    non-blocking refresh, requests wait again after the first refresh that failed.

    Attributes:
        waiting: how many requests wait for a token, because there is no valid one.
    """

    def __init__(self, wrapped: Credentials) -> None:
        """Initialize."""
        self._wrapped = wrapped
        self._refreshing = threading.Lock()  # held by the thread that replaces a token that is still valid
        self._fetching = threading.Lock()  # held by the request that fetches a token for all that wait for one
        self.waiting = 0

    def before_request(self, request: Any, method: str, url: str, headers: dict[str, str]) -> None:
        """Add the access token to the headers.

        A token that is about to expire is replaced by a thread; without a valid token, the request waits for one.
        """
        if self._wrapped.token_state is TokenState.STALE:
            if self._refreshing.acquire(blocking=False):
                threading.Thread(target=self._refresh_quietly, args=(request,), daemon=True).start()
        elif self._wrapped.token_state is TokenState.INVALID:
            self._wait_for_token(request, method, url)
        self._wrapped.apply(headers)

    def token_missing(self) -> bool:
        """Return whether requests wait for a token."""
        return self.waiting > 0 and self._wrapped.token_state is TokenState.INVALID

    def _wait_for_token(self, request: Any, method: str, url: str) -> None:
        self.waiting += 1
        try:
            if not self._fetching.acquire(timeout=_FETCH_SECONDS):
                raise RefreshError("another request waits for an access token")
            try:
                self._wrapped.before_request(request, method, url, {})  # fetches one, unless another request has
            finally:
                self._fetching.release()
        finally:
            self.waiting -= 1

    def _refresh_quietly(self, request: Any) -> None:
        try:
            self._wrapped.refresh(request)
        except Exception:  # noqa: BLE001, S110 - whatever it is, the token that is held is still valid:
            pass  # the next request tries again; the log names the credentials once the token has expired
        finally:
            self._refreshing.release()


def find(project: str | None) -> Google:
    """Find the application default credentials.

    Args:
        project: Google Cloud project id; None takes that of the credentials.

    Raises:
        Unavailable: there are no credentials, or no project.
    """
    try:
        credentials, own_project = google.auth.default(scopes=Transport.AUTH_SCOPES)
    except GoogleAuthError as error:
        raise Unavailable(f"no Google Cloud credentials ({type(error).__name__})") from None
    if not (found := project or own_project):
        raise Unavailable("the credentials name no project: set GOOGLE_CLOUD_PROJECT")
    patient: Any = PatientCredentials(credentials)
    return Google(found, patient, partial(Transport.create_channel, HOST, credentials=patient, options=CHANNEL_OPTIONS))
