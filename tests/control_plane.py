"""A fake of the parts of Google Cloud's control plane that deploy.sh calls through gcloud.

It holds the state of a project and records every call. A deployed function is passed to `Deploy`, which starts it and
returns its URL.
"""

import base64
import json
import re
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from tests.json_server import JsonServer

Json = dict[str, Any]
Deploy = Callable[[bytes, Json], str]
Handler = Callable[..., Any]
ROUTES: list[tuple[str, str, Handler]] = []  # method, pattern of the path, function; see the end of each module

APIS = (
    *("artifactregistry", "cloudbilling", "cloudbuild", "cloudfunctions", "cloudresourcemanager", "eventarc"),
    *("firestore", "iam", "logging", "monitoring", "orgpolicy", "run", "secretmanager", "serviceusage", "storage"),
)
_READING_POSTS = (":getIamPolicy", ":generateUploadUrl", ":runQuery", ":testIamPermissions")


class Call(NamedTuple):
    """A request of gcloud.

    Attributes:
        method: the HTTP method.
        path: the path, which begins with the name of the API.
        body: the body; parsed if it is JSON.
    """

    method: str
    path: str
    body: Any

    def changes(self) -> bool:
        """Return whether the request changes something."""
        return self.method != "GET" and not self.path.endswith(_READING_POSTS)


class ErrorResponse(Exception):
    """Raised if the response is an error."""

    def __init__(self, status: int, message: str) -> None:
        """Send this status and message."""
        super().__init__(message)
        self.status = status


@dataclass
class State:
    """The state of a project; each part has the order of the API's list.

    Attributes:
        secrets: the versions of each secret, oldest first.
        policies: the IAM policy of each resource.
        monitoring: `alertPolicies`, `notificationChannels` and `dashboards`, by resource name.
        bundle: the last uploaded source of the function, a zip file.
    """

    billing: bool = True
    enabled: list[str] = field(default_factory=list)
    databases: dict[str, Json] = field(default_factory=dict)
    accounts: list[Json] = field(default_factory=list)
    roles: dict[str, Json] = field(default_factory=dict)
    policies: dict[str, Json] = field(default_factory=dict)
    secrets: dict[str, list[bytes]] = field(default_factory=dict)
    indexes: list[Json] = field(default_factory=list)
    fields: dict[str, Json] = field(default_factory=dict)
    functions: dict[str, Json] = field(default_factory=dict)
    metrics: dict[str, Json] = field(default_factory=dict)
    monitoring: defaultdict[str, dict[str, Json]] = field(default_factory=lambda: defaultdict(dict))
    bundle: bytes = b""


class ControlPlane(JsonServer):
    """A fake control plane on 127.0.0.1.

    Attributes:
        state: the state of the project.
        calls: the calls since the last `clear`.
        errors: by pattern of `METHOD path`: status, message, and the number of times that they are sent.
        url: the base URL.
    """

    def __init__(self, project: str, emulator_host: str, deploy: Deploy) -> None:
        """Start with an empty project."""
        self.project, self.emulator_host, self.deploy = project, emulator_host, deploy
        self.calls: list[Call] = []
        self.errors: dict[str, tuple[int, str, int]] = {}
        self.state = State()
        super().__init__()

    def environ(self) -> dict[str, str]:
        """Return the environment in which gcloud calls this control plane only."""
        prefix = "CLOUDSDK_API_ENDPOINT_OVERRIDES_"
        return {f"{prefix}{api.upper()}": f"{self.url}/{api}/" for api in APIS}

    def changes(self) -> list[Call]:
        """Return the calls that change something."""
        return [call for call in self.calls if call.changes()]

    def respond(self, method: str, target: str, body: bytes) -> tuple[int, Any]:
        """Answer a request, or send an error in Google's form."""
        try:
            return 200, self._answer(method, target, body)
        except ErrorResponse as error:
            return error.status, {"error": {"code": error.status, "message": str(error)}}

    def _answer(self, method: str, target: str, body: bytes) -> Any:
        """Answer by the first route that matches."""
        url = urlsplit(target)
        path = unquote(url.path)
        try:
            value = json.loads(body) if body else None
        except ValueError:
            value = body
        self.calls.append(Call(method, path, value))
        self._raise_error(f"{method} {path}")
        for wanted, pattern, handle in ROUTES:
            if wanted == method and (match := re.fullmatch(pattern, path)):
                return self._handle(handle, value, parse_qs(url.query), *match.groups())
        raise ErrorResponse(404, f"the fake has no {method} {path}")

    def _handle(self, handle: Handler, *arguments: Any) -> Any:
        try:
            return handle(self, *arguments)
        except (KeyError, IndexError) as error:
            raise ErrorResponse(404, f"{error} was not found") from None

    def _raise_error(self, request: str) -> None:
        for pattern, (status, message, times) in self.errors.items():
            if times and re.search(pattern, request):
                self.errors[pattern] = (status, message, times - 1)
                raise ErrorResponse(status, message)


def _done(plane: ControlPlane, response: Json | None = None, parent: str = "") -> Json:
    name = f"{parent or f'projects/{plane.project}'}/operations/1"
    return {
        "name": name,
        "done": True,
        "metadata": {"@type": "type.googleapis.com/google.protobuf.Empty"},
        "response": response or {},
    }


def _operation(plane: ControlPlane, _body: Any, _query: Any, parent: str) -> Json:
    return _done(plane, parent=parent)


def _project(plane: ControlPlane, _body: Any, _query: Any, project: str) -> Json:
    if project != plane.project:
        raise ErrorResponse(403, f"The caller does not have permission on {project}")
    return {"projectId": project, "projectNumber": "123456789012", "lifecycleState": "ACTIVE"}


def _billing(plane: ControlPlane, *_: Any) -> Json:
    return {"billingEnabled": plane.state.billing}


def _services(plane: ControlPlane, *_: Any) -> Json:
    return {"services": [{"config": {"name": name}, "state": "ENABLED"} for name in plane.state.enabled]}


def _service(plane: ControlPlane, _body: Any, _query: Any, name: str) -> Json:
    return {"config": {"name": name}, "state": "ENABLED" if name in plane.state.enabled else "DISABLED"}


def _enable(plane: ControlPlane, body: Json, *_: Any) -> Json:
    plane.state.enabled += body["serviceIds"]
    return _done(plane)


def _databases(plane: ControlPlane, *_: Any) -> Json:
    return {"databases": list(plane.state.databases.values())}


def _create_database(plane: ControlPlane, body: Json, query: dict[str, list[str]]) -> Json:
    name = query["databaseId"][0]
    plane.state.databases[name] = {**body, "name": f"projects/{plane.project}/databases/{name}"}
    return _done(plane, parent=plane.state.databases[name]["name"])


def _accounts(plane: ControlPlane, *_: Any) -> Json:
    return {"accounts": plane.state.accounts}


def _create_account(plane: ControlPlane, body: Json, *_: Any) -> Json:
    email = f"{body['accountId']}@{plane.project}.iam.gserviceaccount.com"
    account = {"name": f"projects/{plane.project}/serviceAccounts/{email}", "email": email}
    plane.state.accounts.append(account)
    return account


def _roles(plane: ControlPlane, *_: Any) -> Json:
    return {"roles": list(plane.state.roles.values())}


def _create_role(plane: ControlPlane, body: Json, *_: Any) -> Json:
    name = f"projects/{plane.project}/roles/{body['roleId']}"
    plane.state.roles[body["roleId"]] = {**body["role"], "name": name}
    return plane.state.roles[body["roleId"]]


def _undelete_role(plane: ControlPlane, _body: Any, _query: Any, role: str) -> Json:
    plane.state.roles[role].pop("deleted")
    return plane.state.roles[role]


def _role(plane: ControlPlane, _body: Any, _query: Any, role: str) -> Json:
    return plane.state.roles[role]


def _update_role(plane: ControlPlane, body: Json, _query: Any, role: str) -> Json:
    plane.state.roles[role] |= body
    return plane.state.roles[role]


def _policy(plane: ControlPlane, _body: Any, _query: Any, resource: str) -> Json:
    return plane.state.policies.get(resource, {"etag": "BwXYZ0k=", "version": 1})


def _set_policy(plane: ControlPlane, body: Json, _query: Any, resource: str) -> Json:
    plane.state.policies[resource] = body["policy"]
    return plane.state.policies[resource]


def _secrets(plane: ControlPlane, *_: Any) -> Json:
    return {"secrets": [{"name": f"projects/123456789012/secrets/{name}"} for name in plane.state.secrets]}


def _create_secret(plane: ControlPlane, body: Json, query: dict[str, list[str]]) -> Json:
    name = query["secretId"][0]
    plane.state.secrets[name] = []
    return {**body, "name": f"projects/123456789012/secrets/{name}"}


def _versions(plane: ControlPlane, _body: Any, _query: Any, name: str) -> Json:
    return {"versions": [_version(name, number) for number in range(len(plane.state.secrets[name]), 0, -1)]}


def _version(name: str, number: int) -> Json:
    path = f"projects/123456789012/secrets/{name}/versions/{number}"
    return {"name": path, "state": "ENABLED", "createTime": f"2026-01-01T00:00:{number:02}Z"}


def _access(plane: ControlPlane, _body: Any, _query: Any, name: str, number: str) -> Json:
    data = base64.b64encode(plane.state.secrets[name][int(number) - 1]).decode()
    return {**_version(name, int(number)), "payload": {"data": data}}


def _add_version(plane: ControlPlane, body: Json, _query: Any, name: str) -> Json:
    plane.state.secrets[name].append(base64.b64decode(body["payload"]["data"]))
    return {**_version(name, len(plane.state.secrets[name])), "clientSpecifiedPayloadChecksum": True}


def _indexes(plane: ControlPlane, *_: Any) -> Json:
    return {"indexes": plane.state.indexes}


def _create_index(plane: ControlPlane, body: Json, _query: Any, group: str) -> Json:
    name = f"{group}/indexes/{len(plane.state.indexes)}"
    plane.state.indexes.append({**body, "name": name, "fields": [*body["fields"], {"fieldPath": "__name__"}]})
    return _done(plane, parent=group.partition("/collectionGroups")[0])


def _fields(plane: ControlPlane, _body: Any, query: dict[str, list[str]], *_: Any) -> Json:
    part = query["filter"][0].split(":")[0].split(".")[0]  # indexConfig or ttlConfig
    return {"fields": [each for each in plane.state.fields.values() if part in each]}


def _update_field(plane: ControlPlane, body: Json, query: dict[str, list[str]], name: str) -> Json:
    part = query["updateMask"][0]
    wanted = {part: body[part]} if part in body else {}
    if "ttlConfig" in wanted:
        wanted["ttlConfig"] = {"state": "CREATING"}
    kept = {key: value for key, value in plane.state.fields.get(name, {}).items() if key != part}
    plane.state.fields[name] = {**kept, **wanted, "name": name}
    return _done(plane, parent=name.partition("/collectionGroups")[0])


def _remove_document(plane: ControlPlane, _body: Any, query: dict[str, list[str]], path: str) -> Any:
    condition = query["currentDocument.exists"][0]
    request = urllib.request.Request(
        f"http://{plane.emulator_host}/{path}?currentDocument.exists={condition}",
        headers={"Authorization": "Bearer owner"},
        method="DELETE",
    )
    try:
        with urllib.request.urlopen(request) as response:  # noqa: S310 - the emulator, on this machine
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise ErrorResponse(error.code, "as the emulator") from None


def _build_account(plane: ControlPlane, *_: Any) -> Json:
    email = "123456789012-compute@developer.gserviceaccount.com"
    return {"serviceAccountEmail": f"projects/{plane.project}/serviceAccounts/{email}"}


def _runtimes(*_: Any) -> Json:
    runtimes = [{"name": name, "environment": "GEN_2", "stage": "GA"} for name in ("python312", "python313")]
    return {"runtimes": runtimes}


def _functions(plane: ControlPlane, *_: Any) -> Json:
    return {"functions": list(plane.state.functions.values())}


def _function(plane: ControlPlane, _body: Any, _query: Any, path: str) -> Json:
    return plane.state.functions[path]


def _upload_url(plane: ControlPlane, *_: Any) -> Json:
    return {"uploadUrl": f"{plane.url}/upload", "storageSource": {"bucket": "sources", "object": "bundle.zip"}}


def _upload(plane: ControlPlane, body: bytes, *_: Any) -> Json:
    plane.state.bundle = body
    return {}


def _create_function(plane: ControlPlane, body: Json, query: dict[str, list[str]], parent: str) -> Json:
    return _update_function(plane, body, query, f"{parent}/functions/{query['functionId'][0]}")


def _update_function(plane: ControlPlane, body: Json, _query: Any, path: str) -> Json:
    url = plane.deploy(plane.state.bundle, body)
    service = f"projects/{plane.project}/locations/europe-west1/services/{path.rpartition('/')[2]}"
    made = {"serviceConfig": {**body["serviceConfig"], "uri": url, "service": service, "revision": "r-1"}}
    plane.state.functions[path] = {**body, **made, "name": path, "state": "ACTIVE", "environment": "GEN_2", "url": url}
    return _done(plane, plane.state.functions[path], path.partition("/functions")[0])


def _metrics(plane: ControlPlane, *_: Any) -> Json:
    return {"metrics": list(plane.state.metrics.values())}


def _metric(plane: ControlPlane, _body: Any, _query: Any, name: str) -> Json:
    return plane.state.metrics[name]


def _create_metric(plane: ControlPlane, body: Json, *_: Any) -> Json:
    plane.state.metrics[body["name"]] = body
    return body


_FIRESTORE = r"/firestore/v1/(?:projects/[^/]+/databases/[^/]+)"
_SECRET = r"/secretmanager/v1/projects/[^/]+/secrets"
_FUNCTIONS = r"/cloudfunctions/v2/(projects/[^/]+/locations/[^/]+)"
ROUTES += [
    ("GET", r"/cloudresourcemanager/v1/projects/([^/:]+)", _project),
    ("POST", r"/cloudresourcemanager/v1/(projects/[^/]+):getIamPolicy", _policy),
    ("POST", r"/cloudresourcemanager/v1/(projects/[^/]+):setIamPolicy", _set_policy),
    ("GET", r"/cloudbilling/v1/projects/[^/]+/billingInfo", _billing),
    ("GET", r"/serviceusage/v1/projects/[^/]+/services", _services),
    ("GET", r"/serviceusage/v1/projects/[^/]+/services/([^/]+)", _service),
    ("POST", r"/serviceusage/v1/projects/[^/]+/services:batchEnable", _enable),
    ("GET", r"/firestore/v1/projects/[^/]+/databases", _databases),
    ("POST", r"/firestore/v1/projects/[^/]+/databases", _create_database),
    ("GET", _FIRESTORE + r"/collectionGroups/-/indexes", _indexes),
    ("POST", r"/firestore/v1/(projects/[^/]+/databases/[^/]+/collectionGroups/[^/]+)/indexes", _create_index),
    ("GET", _FIRESTORE + r"/collectionGroups/-/fields", _fields),
    ("PATCH", r"/firestore/v1/(projects/[^/]+/databases/[^/]+/collectionGroups/[^/]+/fields/[^/]+)", _update_field),
    ("DELETE", r"/firestore/(v1/projects/[^/]+/databases/[^/]+/documents/.+)", _remove_document),
    ("GET", r"/iam/v1/projects/[^/]+/serviceAccounts", _accounts),
    ("POST", r"/iam/v1/projects/[^/]+/serviceAccounts", _create_account),
    ("GET", r"/iam/v1/projects/[^/]+/roles", _roles),
    ("POST", r"/iam/v1/projects/[^/]+/roles", _create_role),
    ("GET", r"/iam/v1/projects/[^/]+/roles/([^/]+)", _role),
    ("PATCH", r"/iam/v1/projects/[^/]+/roles/([^/]+)", _update_role),
    ("POST", r"/iam/v1/projects/[^/]+/roles/([^/]+):undelete", _undelete_role),
    ("GET", _SECRET, _secrets),
    ("POST", _SECRET, _create_secret),
    ("GET", r"/secretmanager/v1/(projects/[^/]+/secrets/[^/]+):getIamPolicy", _policy),
    ("POST", r"/secretmanager/v1/(projects/[^/]+/secrets/[^/]+):setIamPolicy", _set_policy),
    ("GET", _SECRET + r"/([^/]+)/versions", _versions),
    ("GET", _SECRET + r"/([^/]+)/versions/([^/]+):access", _access),
    ("POST", _SECRET + r"/([^/]+):addVersion", _add_version),
    ("GET", r"/cloudbuild/v1/projects/[^/]+/locations/[^/]+/defaultServiceAccount", _build_account),
    ("GET", _FUNCTIONS + r"/runtimes", _runtimes),
    ("GET", _FUNCTIONS + r"/functions", _functions),
    ("GET", r"/cloudfunctions/v2/(projects/[^/]+/locations/[^/]+/functions/[^/]+)", _function),
    ("POST", _FUNCTIONS + r"/functions:generateUploadUrl", _upload_url),
    ("PUT", r"/upload", _upload),
    ("POST", _FUNCTIONS + r"/functions", _create_function),
    ("PATCH", r"/cloudfunctions/v2/(projects/[^/]+/locations/[^/]+/functions/[^/]+)", _update_function),
    ("GET", r"/cloudfunctions/v2/(projects/[^/]+/locations/[^/]+)/operations/1", _operation),
    ("GET", r"/run/v[12]/(.+):getIamPolicy", _policy),
    ("POST", r"/run/v[12]/(.+):setIamPolicy", _set_policy),
    ("GET", r"/logging/v2/projects/[^/]+/metrics", _metrics),
    ("GET", r"/logging/v2/projects/[^/]+/metrics/([^/]+)", _metric),
    ("POST", r"/logging/v2/projects/[^/]+/metrics", _create_metric),
]
