"""A fake of DT's REST API on 127.0.0.1: sign-in, devices, history, Data Connectors, with the documented errors."""

import base64
import json
import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt

HISTORY = timedelta(days=31)
KEY_ID, EMAIL = "c5h2mtm0f2pl1hvqvmo0", "backfill@b5rsqfjj3bfjlcn23ka0.serviceaccount.d21s.com"
SECRET = "5a8d1f6e0c7b4e2f9d3a6c1b8e7f4a20"
MAX_PAGE = 1000

Fault = Callable[["_Handler"], None]


def answer(status: int, body: bytes = b'{"error":"injected","code":0,"help":""}', **headers: str) -> Fault:
    """Return a fault that sends this answer."""
    return lambda handler: handler.reply(status, body, {name.replace("_", "-"): text for name, text in headers.items()})


def pass_through(handler: "_Handler") -> None:
    """Answer normally; the next fault is for the next request."""
    handler.answer()


def truncate_body(handler: "_Handler") -> None:
    """Close the connection before the announced end of the body."""
    handler.send_response(200)
    handler.send_header("Content-Length", "5000")
    handler.end_headers()
    handler.wfile.write(b'{"events":[{"eventId":"')
    handler.close_connection = True


def truncate_json(handler: "_Handler") -> None:
    """Send a complete response with incomplete JSON."""
    handler.reply(200, b'{"events":[{"eventId":"', {})


def revoke_tokens(handler: "_Handler") -> None:
    """Answer 401, and revoke every access token."""
    handler.api.tokens.clear()
    handler.refuse(401)


def refuse_page_token(handler: "_Handler") -> None:
    """Answer 400 to a request for a further page, as if its page token had expired; answer other requests normally."""
    if "pageToken=" in handler.path:
        handler.refuse(400)
    else:
        handler.answer()


def demand_pause(handler: "_Handler") -> None:
    """Answer 429 with `Retry-After: 1`; earlier requests are counted in `too_early`."""
    handler.api.quiet_until = time.monotonic() + 1
    handler.reply(429, b'{"error":"too many requests","code":429,"help":""}', {"Retry-After": "1"})


class DTApi:
    """A fake of DT's REST API with one project.

    Attributes:
        project: the project id.
        devices: the devices as the API lists them.
        devices_a_page: devices on a page.
        connectors: the Data Connectors as the API lists them.
        metrics: what `:metrics` answers for each of them.
        faults: the faults of the next requests, by kind: `token`, `devices`, `events`, `connectors`.
        forbidden: ids of devices whose history the service account may not read.
        tokens: the valid access tokens.
        queries: the query of each request for events.
        too_early: number of requests before the end of a Retry-After.
        quiet_until: when the Retry-After ends, by `time.monotonic`.
    """

    def __init__(self, port: int = 0) -> None:
        """Listen on a port; 0 chooses a free one."""
        self.project = "c0md3pm0p7bet3vico8g"
        self.devices: list[dict[str, Any]] = []
        self.devices_a_page = 100
        self.connectors: list[dict[str, Any]] = []
        self.metrics: dict[str, Any] = {"successCount": 0, "errorCount": 0, "latency99p": "0.1s"}
        self.faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self.forbidden: set[str] = set()
        self.tokens: set[str] = set()
        self.queries: list[dict[str, list[str]]] = []
        self.too_early = 0
        self.quiet_until = 0.0
        self._history: defaultdict[str, list[tuple[datetime, dict[str, Any]]]] = defaultdict(list)
        self._selections: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"api": self}))
        host = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.url, self.token_url = f"{host}/v2", f"{host}/oauth2/token"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def environ(self) -> dict[str, str]:
        """The environment in which a client uses this API."""
        return {
            "DT_SERVICE_ACCOUNT_KEY_ID": KEY_ID,
            "DT_SERVICE_ACCOUNT_SECRET": SECRET,
            "DT_SERVICE_ACCOUNT_EMAIL": EMAIL,
            "DT_API_URL": self.url,
            "DT_TOKEN_URL": self.token_url,
        }

    def install(self, device_id: str, device_type: str = "temperature", product: str = "102058", **labels: str) -> None:
        """Add a device."""
        name = f"projects/{self.project}/devices/{device_id}"
        self.devices.append({"name": name, "type": device_type, "productNumber": product, "labels": labels})

    def connect(self, url: str, *, status: str = "ACTIVE", secret: str = "", **filters: list[str]) -> dict[str, Any]:
        """Add a Data Connector to the project and return it; `filters` are its `labels` and `events`."""
        name = f"projects/{self.project}/dataconnectors/c{len(self.connectors)}"
        config = {"url": url, "headers": {}} | ({"signatureSecret": secret} if secret else {})
        kind = {"type": "HTTP_PUSH", "displayName": "Firestore", "status": status, "httpConfig": config}
        self.connectors.append({"name": name, "labels": [], "events": [], **kind, **filters})
        return self.connectors[-1]

    def publish(self, device_id: str, events: Iterable[dict[str, Any]]) -> None:
        """Add events to a device's history."""
        history = self._history[device_id]
        history += [(datetime.fromisoformat(event["timestamp"]), event) for event in events]
        history.sort(key=lambda item: item[0], reverse=True)
        self._selections.clear()

    def select(self, device_id: str, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        """Return the events of a device that match a query, newest first."""
        since, until = query["startTime"][0], query["endTime"][0]
        types = tuple(query.get("eventTypes", ()))
        key = (device_id, since, until, types)
        if key not in self._selections:
            first = max(datetime.fromisoformat(since), datetime.now(UTC) - HISTORY)
            last = datetime.fromisoformat(until)
            self._selections[key] = [
                event
                for at, event in self._history[device_id]
                if first <= at <= last and (not types or event["eventType"] in types)
            ]
        return self._selections[key]

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """Answers a request."""

    protocol_version = "HTTP/1.1"
    api: DTApi

    def log_message(self, *_: Any) -> None:
        """Log nothing."""

    def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        """Send a response."""
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status: int) -> None:
        """Send an error in DT's form."""
        self.reply(status, json.dumps({"error": "refused", "code": status, "help": "https://…"}).encode(), {})

    def do_POST(self) -> None:
        """Issue an access token by the OAuth 2 grant that DT documents."""
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        if self._inject_fault("token"):
            return
        try:
            claims = jwt.decode(form["assertion"][0], SECRET, algorithms=["HS256"], audience=self.api.token_url)
        except jwt.PyJWTError:
            self.refuse(400)
            return
        if claims["iss"] != EMAIL or jwt.get_unverified_header(form["assertion"][0])["kid"] != KEY_ID:
            self.refuse(400)
            return
        token = uuid.uuid4().hex
        self.api.tokens.add(token)
        self._answer({"access_token": token, "token_type": "bearer", "expires_in": 3600})

    def do_GET(self) -> None:
        """Answer, unless there is a fault for this request."""
        self.api.too_early += time.monotonic() < self.api.quiet_until
        kinds = {"/events?": "events", "/dataconnectors": "connectors"}
        if not self._inject_fault(next((kind for part, kind in kinds.items() if part in self.path), "devices")):
            self.answer()

    def do_PATCH(self) -> None:
        """Change fields of a Data Connector."""
        fields = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._inject_fault("connectors"):
            return
        path = urlsplit(self.path).path.removeprefix("/v2/")
        connector = next((each for each in self.api.connectors if each["name"] == path), None)
        if self.headers["Authorization"].removeprefix("Bearer ") not in self.api.tokens:
            self.refuse(401)
        elif connector is None:
            self.refuse(404)
        else:
            connector |= fields
            self._answer(connector)

    def answer(self) -> None:
        """Send a page of devices, a device, or a page of its events."""
        url = urlsplit(self.path)
        query, path = parse_qs(url.query), url.path.removeprefix("/v2/projects/").split("/")
        if self.headers["Authorization"].removeprefix("Bearer ") not in self.api.tokens:
            self.refuse(401)
        elif path[0] != self.api.project:
            self.refuse(404)
        elif path[1] == "dataconnectors":
            self._connectors(path[2:])
        elif path[2:] and not self._installed(path[2]):
            self.refuse(404)
        elif path[-1] == "events":
            self._events(path[2], query)
        elif path[2:]:
            self._answer(self._installed(path[2])[0])
        else:
            self._page("devices", self.api.devices, self.api.devices_a_page, query)

    def _connectors(self, path: list[str]) -> None:
        if path and path[0].endswith(":metrics"):
            self._answer({"metrics": self.api.metrics})
        else:
            self._answer({"dataConnectors": self.api.connectors, "nextPageToken": ""})

    def _installed(self, device_id: str) -> list[dict[str, Any]]:
        return [device for device in self.api.devices if device["name"].endswith(f"/{device_id}")]

    def _events(self, device_id: str, query: dict[str, list[str]]) -> None:
        self.api.queries.append(query)
        if device_id in self.api.forbidden:
            self.refuse(403)
        else:
            size = min(int(query["pageSize"][0]), MAX_PAGE)
            self._page("events", self.api.select(device_id, query), size, query)

    def _page(self, key: str, items: list[dict[str, Any]], size: int, query: dict[str, list[str]]) -> None:
        start = int(base64.b64decode(query["pageToken"][0])) if "pageToken" in query else 0
        end = start + size
        token = base64.b64encode(str(end).encode()).decode() if end < len(items) else ""
        self._answer({key: items[start:end], "nextPageToken": token})

    def _inject_fault(self, kind: str) -> bool:
        faults = self.api.faults[kind]
        if faults:
            faults.popleft()(self)
            return True
        return False

    def _answer(self, content: dict[str, Any]) -> None:
        self.reply(200, json.dumps(content, separators=(",", ":")).encode(), {})
