"""Reading of Secret Manager; the secrets themselves are in the settings, as somebody else has made them.

The sentence around a refusal is that of terraform-provider-google (data_source_secret_manager_secret_version_access.go).
"""

from __future__ import annotations

from rehearsal.cloud import google_secrets
from rehearsal.cloud.google_secrets import ENABLED, LATEST
from rehearsal.providers.cloud.functions import Function, Question
from rehearsal.providers.gcp.call import google
from rehearsal.providers.values import Properties, Secret

VERSION = "secretmanager/secretVersion"


def _name(question: Question) -> str:
    given = question.arguments
    return f"projects/{given.get('project') or question.defaults.project}/secrets/{given.get('secret')}"


def _access(question: Question) -> Properties:
    name, asked = _name(question), str(question.arguments.get("version") or LATEST)
    found = google_secrets.version(question.settings, name, asked)
    if found is None:
        raise google(404, google_secrets.not_found(name, asked), "notFound")
    path = f"{name}/versions/{found.number}"
    if found.state != ENABLED:
        raise google(400, f"Secret Version [{path}] is in {found.state} state.", "failedPrecondition")
    _, project, _, secret = name.split("/")
    return {
        "id": path,
        "name": path,
        "project": project,
        "secret": secret,
        "version": found.number,
        "secretData": Secret(found.text),
        "isSecretDataBase64": False,
    }


def _failed(_question: Question, refusal: str) -> str:
    return f"error retrieving available secret manager secret version access: {refusal}"


FUNCTIONS = {
    "gcp:secretmanager/getSecretVersionAccess:getSecretVersionAccess": Function(
        VERSION, _name, _access, _failed
    )
}
