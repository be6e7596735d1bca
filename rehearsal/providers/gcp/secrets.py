"""Reading of Secret Manager; the secrets themselves are in the settings, as somebody else has made them.

The sentence is that of terraform-provider-google (data_source_secret_manager_secret_version_access.go).
"""

from __future__ import annotations

from rehearsal.providers.cloud.functions import Function, Question
from rehearsal.providers.gcp.call import google
from rehearsal.providers.values import Properties, Secret

VERSION, LATEST = "secretmanager/secretVersion", "latest"


def _name(question: Question) -> str:
    given = question.arguments
    return f"projects/{given.get('project') or question.defaults.project}/secrets/{given.get('secret')}"


def _access(question: Question) -> Properties:
    name, asked = _name(question), str(question.arguments.get("version") or LATEST)
    # Without a version it is the newest one, which stands first.
    where = {} if asked == LATEST else {"version": asked}
    text = question.settings.secret(name, **where)
    if text is None:
        raise google(404, f"Secret Version [{name}/versions/{asked}] not found.", "notFound")
    _, project, _, secret = name.split("/")
    version = "1" if asked == LATEST else asked
    return {
        "id": f"{name}/versions/{version}",
        "name": f"{name}/versions/{version}",
        "project": project,
        "secret": secret,
        "version": version,
        "secretData": Secret(text),
        "isSecretDataBase64": False,
    }


def _failed(_question: Question, refusal: str) -> str:
    return f"error retrieving available secret manager secret version access: {refusal}"


FUNCTIONS = {
    "gcp:secretmanager/getSecretVersionAccess:getSecretVersionAccess": Function(
        VERSION, _name, _access, _failed
    )
}
