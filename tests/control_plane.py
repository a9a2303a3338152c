"""A fake of the parts of Google Cloud's control plane that deploy.sh calls through gcloud.

It holds the state of a project and records every call. It behaves as badly as Google does: an API that is not enabled
refuses calls, and once more just after it was enabled; a list lacks what was made a moment ago; a new database refuses
an operation. Other modules add the routes of more APIs to `ROUTES`; `cloud_run` has the functions.
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
Handler = Callable[..., Any]
ROUTES: list[tuple[str, str, Handler]] = []  # method, pattern of the path, function; see the end of each module

APIS = (
    *("artifactregistry", "cloudbilling", "cloudbuild", "cloudfunctions", "cloudresourcemanager", "eventarc"),
    *("firestore", "iam", "logging", "monitoring", "orgpolicy", "run", "secretmanager", "serviceusage", "storage"),
)
_STATUSES = {403: "PERMISSION_DENIED", 404: "NOT_FOUND", 409: "ABORTED", 429: "RESOURCE_EXHAUSTED"}
_ALWAYS_ENABLED = ("cloudresourcemanager", "cloudbilling", "serviceusage", "upload", "orgpolicy")
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

    def __init__(self, status: int, message: str, reason: str = "") -> None:
        """Send this status and message, and the reason in the form of `google.rpc.ErrorInfo`."""
        super().__init__(message)
        self.status, self.reason = status, reason

    def body(self) -> Json:
        """Return the body of the response."""
        error = {"code": self.status, "message": str(self), "status": _STATUSES.get(self.status, "INVALID_ARGUMENT")}
        details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": self.reason, "domain": "d"}]
        return {"error": {**error, **({"details": details} if self.reason else {})}}


@dataclass
class State:
    """The state of a project; each part has the order of the API's list.

    Attributes:
        fresh: APIs that were enabled a moment ago: the next call to each is refused.
        secrets: the versions of each secret, oldest first.
        secret_data: the metadata of each secret.
        disabled: secret and number of each version that is disabled.
        unlisted: resources that the next list of their kind lacks.
        policies: the IAM policy of each resource.
        monitoring: `alertPolicies`, `notificationChannels` and `dashboards`, by resource name.
        bundle: the last uploaded source of the function, a zip file.
        services: the Cloud Run service of each function, by its name.
        revisions: the revisions of all services, oldest first.
        constraints: organization policies that refuse something: `allUsers`, `requireInvokerIam`.
        quota: the most instances that a function may have.
        repositories: of images.
        buckets: of sources.
        deleted: collections whose documents were deleted.
    """

    billing: bool = True
    enabled: list[str] = field(default_factory=list)
    fresh: set[str] = field(default_factory=set)
    databases: dict[str, Json] = field(default_factory=dict)
    accounts: list[Json] = field(default_factory=list)
    roles: dict[str, Json] = field(default_factory=dict)
    policies: dict[str, Json] = field(default_factory=dict)
    secrets: dict[str, list[bytes]] = field(default_factory=dict)
    secret_data: dict[str, Json] = field(default_factory=dict)
    disabled: set[tuple[str, int]] = field(default_factory=set)
    unlisted: set[str] = field(default_factory=set)
    indexes: list[Json] = field(default_factory=list)
    fields: dict[str, Json] = field(default_factory=dict)
    functions: dict[str, Json] = field(default_factory=dict)
    services: dict[str, Json] = field(default_factory=dict)
    revisions: dict[str, Json] = field(default_factory=dict)
    metrics: dict[str, Json] = field(default_factory=dict)
    monitoring: defaultdict[str, dict[str, Json]] = field(default_factory=lambda: defaultdict(dict))
    sinks: dict[str, Json] = field(default_factory=lambda: {"_Default": {"name": "_Default", "destination": "d"}})
    constraints: set[str] = field(default_factory=set)
    quota: int = 20
    repositories: set[str] = field(default_factory=set)
    buckets: set[str] = field(default_factory=set)
    deleted: list[str] = field(default_factory=list)
    bundle: bytes = b""


class ControlPlane(JsonServer):
    """A fake control plane on 127.0.0.1.

    Attributes:
        state: the state of the project.
        calls: the calls since the last `clear`.
        errors: by pattern of `METHOD path`: status, message, and the number of times that they are sent.
        interrupts: a pattern of `METHOD path` of changes: the response to the first one of each kind is an error,
            although the change is made.
        propagates: whether what was just enabled or made is not known everywhere at once.
        url: the base URL.
    """

    def __init__(self, project: str, emulator_host: str) -> None:
        """Start with an empty project.

        Args:
            project: the id of the project.
            emulator_host: of the Firestore whose documents are deleted by calls of Firestore's API.
        """
        self.project, self.emulator_host = project, emulator_host
        self.calls: list[Call] = []
        self.errors: dict[str, tuple[int, str, int]] = {}
        self.interrupts = "no change"
        self.propagates = True
        self.interrupted: set[str] = set()
        self.operations: dict[str, Json] = {}
        self.state = State()
        super().__init__()

    def reset(self, state: State) -> None:
        """Take a state, and behave without errors."""
        self.state, self.errors = state, {}
        self.interrupts, self.interrupted, self.propagates = "no change", set(), True

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
            return error.status, error.body()

    def _answer(self, method: str, target: str, body: bytes) -> Any:
        """Answer by the first route that matches."""
        url = urlsplit(target)
        path = unquote(url.path)
        try:
            value = json.loads(body) if body else None
        except ValueError:
            value = body
        call = Call(method, path, value)
        self.calls.append(call)
        self._raise_error(f"{method} {path}")
        self._check_enabled(path.split("/")[1])
        for wanted, pattern, handle in ROUTES:
            if wanted == method and (match := re.fullmatch(pattern, path)):
                result = self._handle(handle, value, parse_qs(url.query), *match.groups())
                self._interrupt(call)
                return result
        raise ErrorResponse(404, f"the fake has no {method} {path}")

    def _handle(self, handle: Handler, *arguments: Any) -> Any:
        try:
            return handle(self, *arguments)
        except (KeyError, IndexError) as error:
            raise ErrorResponse(404, f"{error} was not found") from None

    def _interrupt(self, call: Call) -> None:
        kind = f"{call.method} {call.path.split('/fields/')[0].split('/documents/')[0]}"
        if re.search(self.interrupts, kind) and call.changes() and kind not in self.interrupted:
            self.interrupted.add(kind)
            raise ErrorResponse(400, f"Interrupted by the fake after {kind}")

    def _check_enabled(self, api: str) -> None:
        """Refuse a call to an API that is not enabled, and the first one after it was."""
        name = f"{api}.googleapis.com"
        if api in _ALWAYS_ENABLED or (name in self.state.enabled and name not in self.state.fresh):
            return
        if name in self.state.enabled:
            self.state.fresh.discard(name)
        raise ErrorResponse(
            403,
            f"{api} API has not been used in project 123456789012 before or it is disabled. Enable it, then retry. If"
            " you enabled this API recently, wait a few minutes for the action to propagate to our systems and retry.",
            "SERVICE_DISABLED",
        )

    def _raise_error(self, request: str) -> None:
        for pattern, (status, message, times) in self.errors.items():
            if times and re.search(pattern, request):
                self.errors[pattern] = (status, message, times - 1)
                raise ErrorResponse(status, message)


def operation(plane: ControlPlane, response: Json | None = None, parent: str = "", error: str = "") -> Json:
    """Start a long-running operation; only the calls that ask for it see that it is done, and how it ended."""
    name = f"{parent or f'projects/{plane.project}'}/operations/{len(plane.operations) + 1}"
    started = {"name": name, "done": False, "metadata": {"@type": "type.googleapis.com/google.protobuf.Empty"}}
    result = {"error": {"code": 3, "message": error}} if error else {"response": response or {}}
    plane.operations[name] = {**started, "done": True, **result}
    return started


def _operation(plane: ControlPlane, _body: Any, _query: Any, name: str) -> Json:
    return plane.operations[name]


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
    if plane.propagates:
        plane.state.fresh |= set(body["serviceIds"])
    return operation(plane)


def _database(plane: ControlPlane, _body: Any, _query: Any, name: str) -> Json:
    if name not in plane.state.databases:
        raise ErrorResponse(404, f"The database {name} does not exist for project {plane.project}.")
    return plane.state.databases[name]


def _create_database(plane: ControlPlane, body: Json, query: dict[str, list[str]]) -> Json:
    name = query["databaseId"][0]
    if name in plane.state.databases:
        raise ErrorResponse(409, "Database already exists. Please use another database_id")
    defaults = {"databaseEdition": "STANDARD", "pointInTimeRecoveryEnablement": "POINT_IN_TIME_RECOVERY_DISABLED"}
    path = f"projects/{plane.project}/databases/{name}"
    plane.state.databases[name] = {**defaults, **body, "name": path}
    if plane.propagates:
        plane.errors.setdefault("POST .*/indexes$", (409, "ABORTED: another operation is in progress", 1))
    return operation(plane, parent=path)


def _update_database(plane: ControlPlane, body: Json, query: dict[str, list[str]], name: str) -> Json:
    for field_name in query["updateMask"][0].split(","):
        plane.state.databases[name][field_name] = body[field_name]
    return operation(plane, parent=plane.state.databases[name]["name"])


def _delete_documents(plane: ControlPlane, body: Json, _query: Any, name: str) -> Json:
    plane.state.deleted += body["collectionIds"]
    return operation(plane, parent=f"projects/{plane.project}/databases/{name}")


def _accounts(plane: ControlPlane, *_: Any) -> Json:
    unlisted, plane.state.unlisted = plane.state.unlisted, set()
    return {"accounts": [account for account in plane.state.accounts if account["email"] not in unlisted]}


def _create_account(plane: ControlPlane, body: Json, *_: Any) -> Json:
    email = f"{body['accountId']}@{plane.project}.iam.gserviceaccount.com"
    if any(account["email"] == email for account in plane.state.accounts):
        raise ErrorResponse(409, f"Service account {body['accountId']} already exists within project {plane.project}.")
    account = {**body["serviceAccount"], "name": f"projects/{plane.project}/serviceAccounts/{email}", "email": email}
    plane.state.accounts.append(account)
    plane.state.unlisted.add(email)
    return account


def _delete_account(plane: ControlPlane, _body: Any, _query: Any, email: str) -> Json:
    plane.state.accounts = [account for account in plane.state.accounts if account["email"] != email]
    return {}


def _roles(plane: ControlPlane, *_: Any) -> Json:
    return {"roles": [role for role in plane.state.roles.values() if not role.get("deleted")]}


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


def _delete_role(plane: ControlPlane, _body: Any, _query: Any, role: str) -> Json:
    plane.state.roles[role]["deleted"] = True
    return plane.state.roles[role]


def _policy(plane: ControlPlane, _body: Any, _query: Any, resource: str) -> Json:
    return plane.state.policies.get(resource, {"etag": "BwXYZ0k=", "version": 1})


def _set_policy(plane: ControlPlane, body: Json, _query: Any, resource: str) -> Json:
    members = {member for binding in body["policy"].get("bindings", []) for member in binding["members"]}
    if "allUsers" in members and "allUsers" in plane.state.constraints:
        raise ErrorResponse(400, "One or more users named in the policy do not belong to a permitted customer.")
    known = {f"serviceAccount:{account['email']}" for account in plane.state.accounts}
    if unknown := {member for member in members if member.startswith("serviceAccount:")} - known:
        raise ErrorResponse(400, f"Service account {unknown.pop()} does not exist.")
    plane.state.policies[resource] = body["policy"]
    return plane.state.policies[resource]


def _secret(plane: ControlPlane, _body: Any, _query: Any, name: str) -> Json:
    return plane.state.secret_data[name]


def _create_secret(plane: ControlPlane, body: Json, query: dict[str, list[str]]) -> Json:
    name = query["secretId"][0]
    plane.state.secrets[name] = []
    plane.state.secret_data[name] = {**body, "name": f"projects/123456789012/secrets/{name}"}
    return plane.state.secret_data[name]


def _update_secret(plane: ControlPlane, body: Json, query: dict[str, list[str]], name: str) -> Json:
    for field_name in query["updateMask"][0].split(","):
        plane.state.secret_data[name][field_name] = body[field_name]
    return plane.state.secret_data[name]


def _delete_secret(plane: ControlPlane, _body: Any, _query: Any, name: str) -> Json:
    del plane.state.secrets[name], plane.state.secret_data[name]
    return {}


def _versions(plane: ControlPlane, _body: Any, query: dict[str, list[str]], name: str) -> Json:
    """List a page of two versions; the newest one is missing for the first time."""
    numbers = [n for n in range(len(plane.state.secrets[name]), 0, -1) if f"{name}/{n}" not in plane.state.unlisted]
    start = int(query.get("pageToken", ["0"])[0])
    page = [_version(plane, name, number) for number in numbers[start : start + 2]]
    more = start + 2 < len(numbers)
    if not more:
        plane.state.unlisted = {each for each in plane.state.unlisted if not each.startswith(f"{name}/")}
    return {"versions": page, **({"nextPageToken": str(start + 2)} if more else {})}


def _version(plane: ControlPlane, name: str, number: int) -> Json:
    path = f"projects/123456789012/secrets/{name}/versions/{number}"
    state = "DISABLED" if (name, number) in plane.state.disabled else "ENABLED"
    return {"name": path, "state": state, "createTime": f"2026-01-01T00:00:{number:02}Z"}


def _access(plane: ControlPlane, _body: Any, _query: Any, name: str, number: str) -> Json:
    if (name, int(number)) in plane.state.disabled:
        raise ErrorResponse(400, f"Secret Version {name}/{number} is in DISABLED state.")
    data = base64.b64encode(plane.state.secrets[name][int(number) - 1]).decode()
    return {**_version(plane, name, int(number)), "payload": {"data": data}}


def _add_version(plane: ControlPlane, body: Json, _query: Any, name: str) -> Json:
    plane.state.secrets[name].append(base64.b64decode(body["payload"]["data"]))
    number = len(plane.state.secrets[name])
    plane.state.unlisted.add(f"{name}/{number}")
    return {**_version(plane, name, number), "clientSpecifiedPayloadChecksum": True}


def _indexes(plane: ControlPlane, *_: Any) -> Json:
    return {"indexes": plane.state.indexes}


def _create_index(plane: ControlPlane, body: Json, _query: Any, group: str) -> Json:
    name = f"{group}/indexes/{len(plane.state.indexes)}"
    plane.state.indexes.append({**body, "name": name, "fields": [*body["fields"], {"fieldPath": "__name__"}]})
    return operation(plane, parent=group.partition("/collectionGroups")[0])


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
    return operation(plane, parent=name.partition("/collectionGroups")[0])


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


def _metric(plane: ControlPlane, _body: Any, _query: Any, name: str) -> Json:
    return plane.state.metrics[name]


def _create_metric(plane: ControlPlane, body: Json, *_: Any) -> Json:
    plane.state.metrics[body["name"]] = body
    return body


def _update_metric(plane: ControlPlane, body: Json, _query: Any, name: str) -> Json:
    plane.state.metrics[name] = {**body, "name": name}
    return plane.state.metrics[name]


def _delete_metric(plane: ControlPlane, _body: Any, _query: Any, name: str) -> Json:
    del plane.state.metrics[name]
    return {}


def _sink(plane: ControlPlane, _body: Any, _query: Any, name: str) -> Json:
    return plane.state.sinks[name]


def _update_sink(plane: ControlPlane, body: Json, _query: Any, name: str) -> Json:
    plane.state.sinks[name] |= body
    return plane.state.sinks[name]


def _repository(plane: ControlPlane, _body: Any, _query: Any, parent: str, name: str) -> Json:
    if name not in plane.state.repositories:
        raise ErrorResponse(404, "Requested entity was not found.")
    return {"name": f"{parent}/repositories/{name}", "format": "DOCKER"}


def _delete_repository(plane: ControlPlane, _body: Any, _query: Any, parent: str, name: str) -> Json:
    plane.state.repositories.remove(name)
    return operation(plane, parent=parent)


def _bucket(plane: ControlPlane, _body: Any, _query: Any, name: str) -> Json:
    if name not in plane.state.buckets:
        raise ErrorResponse(404, "The specified bucket does not exist.")
    return {"kind": "storage#bucket", "name": name, "id": name, "metageneration": "1", "location": "EUROPE-WEST1"}


def _delete_bucket(plane: ControlPlane, _body: Any, _query: Any, name: str) -> Json:
    plane.state.buckets.remove(name)
    return {}


def _storage_layout(*_: Any) -> Json:
    return {"kind": "storage#storageLayout", "hierarchicalNamespace": {"enabled": False}}


def _objects(*_: Any) -> Json:
    return {"kind": "storage#objects", "items": []}


_FIRESTORE = r"/firestore/v1/(?:projects/[^/]+/databases/[^/]+)"
_SECRET = r"/secretmanager/v1/projects/[^/]+/secrets"
ROUTES += [
    ("GET", r"/[a-z]+/v[12]/((?:projects/[^/]+/)?(?:[a-z]+/[^/]+/)?operations/[^/]+)", _operation),
    ("GET", r"/cloudresourcemanager/v1/projects/([^/:]+)", _project),
    ("POST", r"/cloudresourcemanager/v1/(projects/[^/]+):getIamPolicy", _policy),
    ("POST", r"/cloudresourcemanager/v1/(projects/[^/]+):setIamPolicy", _set_policy),
    ("GET", r"/cloudbilling/v1/projects/[^/]+/billingInfo", _billing),
    ("GET", r"/serviceusage/v1/projects/[^/]+/services", _services),
    ("GET", r"/serviceusage/v1/projects/[^/]+/services/([^/]+)", _service),
    ("POST", r"/serviceusage/v1/projects/[^/]+/services:batchEnable", _enable),
    ("GET", r"/firestore/v1/projects/[^/]+/databases/([^/:]+)", _database),
    ("PATCH", r"/firestore/v1/projects/[^/]+/databases/([^/:]+)", _update_database),
    ("POST", r"/firestore/v1/projects/[^/]+/databases/([^/:]+):bulkDeleteDocuments", _delete_documents),
    ("POST", r"/firestore/v1/projects/[^/]+/databases", _create_database),
    ("GET", _FIRESTORE + r"/collectionGroups/-/indexes", _indexes),
    ("POST", r"/firestore/v1/(projects/[^/]+/databases/[^/]+/collectionGroups/[^/]+)/indexes", _create_index),
    ("GET", _FIRESTORE + r"/collectionGroups/-/fields", _fields),
    ("PATCH", r"/firestore/v1/(projects/[^/]+/databases/[^/]+/collectionGroups/[^/]+/fields/[^/]+)", _update_field),
    ("DELETE", r"/firestore/(v1/projects/[^/]+/databases/[^/]+/documents/.+)", _remove_document),
    ("GET", r"/iam/v1/projects/[^/]+/serviceAccounts", _accounts),
    ("POST", r"/iam/v1/projects/[^/]+/serviceAccounts", _create_account),
    ("GET", r"/iam/v1/projects/[^/]+/roles", _roles),
    ("DELETE", r"/iam/v1/projects/[^/]+/roles/([^/]+)", _delete_role),
    ("DELETE", r"/iam/v1/projects/[^/]+/serviceAccounts/([^/]+)", _delete_account),
    ("POST", r"/iam/v1/projects/[^/]+/roles", _create_role),
    ("GET", r"/iam/v1/projects/[^/]+/roles/([^/]+)", _role),
    ("PATCH", r"/iam/v1/projects/[^/]+/roles/([^/]+)", _update_role),
    ("POST", r"/iam/v1/projects/[^/]+/roles/([^/]+):undelete", _undelete_role),
    ("GET", _SECRET + r"/([^/:]+)", _secret),
    ("PATCH", _SECRET + r"/([^/:]+)", _update_secret),
    ("DELETE", _SECRET + r"/([^/:]+)", _delete_secret),
    ("POST", _SECRET, _create_secret),
    ("GET", r"/secretmanager/v1/(projects/[^/]+/secrets/[^/]+):getIamPolicy", _policy),
    ("POST", r"/secretmanager/v1/(projects/[^/]+/secrets/[^/]+):setIamPolicy", _set_policy),
    ("GET", _SECRET + r"/([^/]+)/versions", _versions),
    ("GET", _SECRET + r"/([^/]+)/versions/([^/]+):access", _access),
    ("POST", _SECRET + r"/([^/]+):addVersion", _add_version),
    ("GET", r"/run/v[12]/(.+):getIamPolicy", _policy),
    ("POST", r"/run/v[12]/(.+):setIamPolicy", _set_policy),
    ("GET", r"/logging/v2/projects/[^/]+/metrics/([^/]+)", _metric),
    ("POST", r"/logging/v2/projects/[^/]+/metrics", _create_metric),
    ("PUT", r"/logging/v2/projects/[^/]+/metrics/([^/]+)", _update_metric),
    ("DELETE", r"/logging/v2/projects/[^/]+/metrics/([^/]+)", _delete_metric),
    ("GET", r"/logging/v2/projects/[^/]+/sinks/([^/]+)", _sink),
    ("PUT", r"/logging/v2/projects/[^/]+/sinks/([^/]+)", _update_sink),
    ("PATCH", r"/logging/v2/projects/[^/]+/sinks/([^/]+)", _update_sink),
    ("GET", r"/artifactregistry/v1/(projects/[^/]+/locations/[^/]+)/repositories/([^/]+)", _repository),
    ("DELETE", r"/artifactregistry/v1/(projects/[^/]+/locations/[^/]+)/repositories/([^/]+)", _delete_repository),
    ("GET", r"/storage/(?:storage/v1/)?b/([^/]+)", _bucket),
    ("DELETE", r"/storage/(?:storage/v1/)?b/([^/]+)", _delete_bucket),
    ("GET", r"/storage/(?:storage/v1/)?b/[^/]+/storageLayout", _storage_layout),
    ("GET", r"/storage/(?:storage/v1/)?b/[^/]+/(?:o|managedFolders)", _objects),
]
