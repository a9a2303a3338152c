"""The parts of the fake control plane that deploy.sh uses to watch the function: Monitoring, and queries of Firestore.

Monitoring refuses a policy on a log-based metric that does not exist, returns policies in a form of its own, and
refuses the update of a dashboard without its etag, as Google's does. The module adds its routes when it is imported.
"""

import hashlib
import json
import re
from typing import Any

import httpx

from tests.control_plane import ROUTES, ControlPlane, ErrorResponse, Json

_Query = dict[str, list[str]]


def _list(plane: ControlPlane, _body: Any, _query: _Query, kind: str) -> Json:
    return {kind: list(plane.state.monitoring[kind].values())}


def _get(plane: ControlPlane, _body: Any, _query: _Query, name: str, kind: str) -> Json:
    return plane.state.monitoring[kind][name]


def _delete(plane: ControlPlane, _body: Any, _query: _Query, name: str, kind: str) -> Json:
    del plane.state.monitoring[kind][name]
    return {}


def _create_channel(plane: ControlPlane, body: Json, _query: _Query, project: str) -> Json:
    kind = "notificationChannels"
    name = f"{project}/{kind}/{len(plane.state.monitoring[kind]) + 1}"
    plane.state.monitoring[kind][name] = {**body, "name": name, "enabled": True}
    return plane.state.monitoring[kind][name]


def _create_policy(plane: ControlPlane, body: Json, query: _Query, project: str) -> Json:
    name = f"{project}/alertPolicies/{len(plane.state.monitoring['alertPolicies']) + 1}"
    return _replace_policy(plane, body, query, name)


def _replace_policy(plane: ControlPlane, body: Json, _query: _Query, name: str) -> Json:
    known = {f"logging.googleapis.com/user/{metric}" for metric in plane.state.metrics}
    for wanted in re.findall(r"logging\.googleapis\.com/user/[\w-]+", str(body["conditions"])):
        if wanted not in known:
            raise ErrorResponse(404, f'Cannot find metric that matches type = "{wanted}". If a metric was created recently, it could take up to 10 minutes to become available.')  # noqa: E501 - Google's words # fmt: skip
    for channel in body.get("notificationChannels", ()):
        if channel not in plane.state.monitoring["notificationChannels"]:
            raise ErrorResponse(400, f"{channel} is not a notification channel.")
    conditions = [_as_google_returns(each, f"{name}/conditions/{n}") for n, each in enumerate(body["conditions"])]
    plane.state.monitoring["alertPolicies"][name] = {"enabled": True, **body, "name": name, "conditions": conditions}
    return plane.state.monitoring["alertPolicies"][name]


def _as_google_returns(condition: Json, name: str) -> Json:
    """Return a condition in another form than it was sent in: with a name, without fields that have their default."""
    kept = {key: value for key, value in condition.items() if key != "conditionThreshold"}
    if "conditionThreshold" in condition:
        threshold = condition["conditionThreshold"]
        kept["conditionThreshold"] = {key: value for key, value in threshold.items() if value not in (0, "0s")}
    return {**kept, "name": name}


def _create_dashboard(plane: ControlPlane, body: Json, _query: _Query, _project: str) -> Json:
    if body["name"] in plane.state.monitoring["dashboards"]:
        raise ErrorResponse(409, "The dashboard already exists.")
    return _store_dashboard(plane, body, body["name"])


def _update_dashboard(plane: ControlPlane, body: Json, _query: _Query, name: str) -> Json:
    if body.get("etag") != plane.state.monitoring["dashboards"][name]["etag"]:
        raise ErrorResponse(409, "The etag does not match.")
    return _store_dashboard(plane, body, name)


def _store_dashboard(plane: ControlPlane, body: Json, name: str) -> Json:
    content = {key: value for key, value in body.items() if key != "etag"}
    etag = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    plane.state.monitoring["dashboards"][name] = {**content, "name": name, "etag": etag}
    return plane.state.monitoring["dashboards"][name]


def _run_query(plane: ControlPlane, body: Json, _query: _Query, path: str) -> Any:
    headers = {"Authorization": "Bearer owner"}
    return httpx.post(f"http://{plane.emulator_host}/{path}", json=body, headers=headers).raise_for_status().json()


_V3 = r"/monitoring/v3/(projects/[^/]+"
_DASHBOARD = r"/monitoring/v1/(projects/[^/]+/(dashboards)/[^/]+)"
ROUTES += [
    ("GET", r"/monitoring/v3/projects/[^/]+/(alertPolicies|notificationChannels)", _list),
    ("POST", _V3 + r")/notificationChannels", _create_channel),
    ("POST", _V3 + r")/alertPolicies", _create_policy),
    ("PATCH", _V3 + r"/alertPolicies/[^/]+)", _replace_policy),
    ("DELETE", _V3 + r"/(alertPolicies)/[^/]+)", _delete),
    ("GET", _DASHBOARD, _get),
    ("POST", r"/monitoring/v1/(projects/[^/]+)/dashboards", _create_dashboard),
    ("PATCH", r"/monitoring/v1/(projects/[^/]+/dashboards/[^/]+)", _update_dashboard),
    ("DELETE", _DASHBOARD, _delete),
    ("POST", r"/firestore/(v1/projects/[^/]+/databases/[^/]+/documents:runQuery)", _run_query),
]
