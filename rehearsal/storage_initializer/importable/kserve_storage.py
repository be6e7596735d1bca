"""The part of KServe's Python package `kserve_storage` 0.20 that programs of ours call, simulated.

How long a download takes and whether it fails is the stage `download` of the rehearsal's faults (rehearsal/node/faults.py);
what Hugging Face gives to whom, its settings (rehearsal/cloud/web.py); what S3 does, rehearsal/storage_initializer/buckets.py.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from rehearsal.cloud.settings import Settings
from rehearsal.cloud.web import Asked, hugging_face
from rehearsal.node.faults import Faults
from rehearsal.processes import MARKER
from rehearsal.storage_initializer import buckets, weights

TICK_SECONDS = 0.1


class Storage:
    """KServe's class, with the one method that is called."""

    @staticmethod
    def download(
        uri: str,
        out_dir: str,
        allow_patterns: list[str] | None = None,
        ignore_patterns: list[str] | None = None,
    ) -> str:
        """Write the files that the patterns let through. Raises RuntimeError, in KServe's words."""
        print(f"Copying contents of {uri} to local", flush=True)
        if uri.startswith("hf://"):
            _ask_the_hub(uri)
        _ask_s3(uri)
        names = weights.chosen(allow_patterns, ignore_patterns)
        if uri.startswith(buckets.SCHEME) and not names:
            path = uri.removeprefix(buckets.SCHEME).partition("/")[2]
            raise RuntimeError(f"Failed to fetch model. No model found in {path}.")
        # Half of it is there when a download is interrupted.
        weights.write(Path(out_dir), uri, names[: len(names) // 2])
        _take_its_time()
        weights.write(Path(out_dir), uri, names)
        print(f"Successfully copied {uri} to {out_dir}", flush=True)
        return out_dir


def _ask_the_hub(uri: str) -> None:
    repository, _, revision = uri.removeprefix("hf://").partition(":")
    token = os.environ.get("HF_TOKEN", "")
    settings = Settings.of(Path(os.environ[MARKER]))
    for path in (f"revision/{revision or 'main'}", "auth-check"):
        asked = Asked(f"api/models/{repository}/{path}", "", f"Bearer {token}" if token else "")
        status = hugging_face(asked, settings).status
        if status in (401, 403):
            raise RuntimeError(
                "HuggingFace authentication failed. Set HF_TOKEN or request access to the gated repository."
            )
        if status != 200:
            raise RuntimeError(f"HuggingFace resource '{repository}' not found.")


def _ask_s3(uri: str) -> None:
    """As the pod: in the role of its account, or with the keys in its variables."""
    namespace, _, _ = os.environ["REHEARSAL_POD"].partition("/")
    account, variables = os.environ["REHEARSAL_ACCOUNT"], frozenset(os.environ)
    reader = buckets.Reader(namespace=namespace, account=account, variables=variables)
    if refused := buckets.refusal(uri, reader, Path(os.environ[MARKER])):
        raise RuntimeError(refused)


def _take_its_time() -> None:
    faults, pod = Faults(Path(os.environ["REHEARSAL_STAGES"])), os.environ["REHEARSAL_POD"]
    began = time.monotonic()
    while not (stage := faults.stage(pod, "download")).over(time.monotonic() - began):
        time.sleep(TICK_SECONDS)
    if stage.failure is not None:
        raise RuntimeError(stage.failure)
