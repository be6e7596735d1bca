"""What Hugging Face and the registries answer, for the pods that will download. Pure: facts in, findings out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ops.preflight.verdicts import Check, Finding, advice, failed, passed, unseen
from ops.preflight.web_facts import Image, Token, Weights
from stacks.config import StackConfig
from stacks.config.errors import PREFIX

_SET = f"run: pulumi config set --secret {PREFIX}hfToken"
_PULL = f"run: pulumi config set --secret {PREFIX}pullSecret < config.json"


def token(found: Token) -> Iterator[Finding]:
    if not found.status:
        return
    if found.status == 200:
        yield passed(f"it is {found.owner or 'somebody'}'s", "hfToken")
    elif found.status in (401, 403):
        yield failed("Hugging Face does not know it, or no longer", _SET, "hfToken")
    else:
        yield unseen(f"Hugging Face answers {found.status}", "try again later", "hfToken")


def weights(config: StackConfig, found: Mapping[str, Weights], token: Token) -> Iterator[Finding]:
    mine = f"s3://{getattr(config.cluster, 'bucket', None)}/"
    for name, model in sorted(config.models.items()):
        if name in found:
            yield _weights(config, name, found[name], bool(token.status))
        # The cluster's own bucket is looked into.
        elif config.storage or not model.origin.startswith(mine):
            yield advice(
                f"{model.origin} is not looked at from here",
                "see to it that the pods' account may read it",
                name,
            )


def _weights(config: StackConfig, name: str, found: Weights, token: bool) -> Finding:
    gated = config.models[name].gated
    what = f"{found.repository} at {found.revision}"
    page = f"https://huggingface.co/{found.repository}"
    if found.access == 200 and found.record == 200:
        return passed(f"{what} can be read" + (" with the token" if token else " by everybody"), name)
    if found.word == "RevisionNotFound":
        return failed(f"{found.repository} has no revision {found.revision}", "correct the model's uri", name)
    if found.word == "GatedRepo" or (found.access in (401, 403) and gated):
        kept = config.secrets.hf_token
        if kept and not token:
            return unseen(
                f"{what} needs a licence, and the token is {kept}, which is not read here",
                f"see to it that the token's owner has accepted the licence at {page}",
                name,
            )
        return _gated(what, page, name, gated, token)
    if found.access in (401, 403, 404):
        return failed(
            f"there is no {found.repository}, or it is private",
            "correct the model's uri" + ("" if token else f", or {_SET}, and set gated: true"),
            name,
        )
    status = found.access if found.access != 200 else found.record
    return unseen(f"{what}: Hugging Face answers {status}", "try again later", name)


def _gated(what: str, page: str, name: str, gated: bool, token: bool) -> Finding:
    if not token:
        marked = "" if gated else f"set gated: true in models.{name}, "
        return failed(f"{what} needs a licence, and hfToken is not set", f"{marked}{_SET}", name)
    return failed(
        f"{what} needs a licence that the token's owner does not have",
        f"accept it at {page} with that account; a fine-grained token must also allow gated repositories",
        name,
    )


def images(config: StackConfig, found: Mapping[str, Image]) -> Iterator[Finding]:
    kept = config.secrets.pull_secret
    for what, image in found.items():
        if kept and image.status in (401, 403) and not image.login:
            yield unseen(
                f"{image.reference} wants a login, and the pull secret is {kept}, which is not read here",
                "see to it that it has a login for this registry",
                what,
            )
        else:
            yield _image(what, image)


def _image(what: str, image: Image) -> Finding:
    if image.fault:
        return unseen(image.fault, "make sure that the nodes reach this registry, or its copy in yours", what)
    if image.status == 200:
        return passed(image.reference + (" with the pull secret" if image.login else ""), what)
    if image.status in (401, 403):
        wrong = "the pull secret does not open it" if image.login else "it wants a login"
        return failed(
            f"{image.reference}: {wrong}, and the nodes could not pull it",
            f"{_PULL} with a login for its registry, and set platform.imagePullSecret to true",
            what,
        )
    if image.status == 404:
        return failed(
            f"{image.reference} does not exist in its registry",
            "correct the image; for one of the lock file run: python -m ops artifacts check",
            what,
        )
    return unseen(f"{image.reference}: its registry answers {image.status}", "try again later", what)


CHECKS = (
    Check("secret", ("token",), token),
    Check("weights", ("config", "weights", "token"), weights),
    Check("image", ("config", "images"), images),
)
