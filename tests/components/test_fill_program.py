"""The program that fills a claim: once, whole, one set only, and again from where it was interrupted."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from components.serving.manifests import fill_claim
from rehearsal.storage_initializer import weights

SOURCE, OTHER = "hf://acme/model", "hf://acme/other"
WITHOUT = ["consolidated*"]


class Hub:
    """KServe's download, which notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str] | None, list[str] | None]] = []
        self.trouble: Callable[[Path], None] = lambda _: None

    def download(
        self, uri: str, out: str, allow: list[str] | None = None, ignore: list[str] | None = None
    ) -> str:
        self.asked.append((uri, allow, ignore))
        self.trouble(Path(out))
        weights.write(Path(out), uri, weights.chosen(allow, ignore))
        return out


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    result, module = Hub(), types.ModuleType("kserve_storage")
    module.Storage = result
    monkeypatch.setitem(sys.modules, "kserve_storage", module)
    return result


def run(
    monkeypatch: pytest.MonkeyPatch, place: Path, source: str = SOURCE, mark: str = "one", **lists: list[str]
) -> int:
    """The program's exit status, started as the job starts it."""
    monkeypatch.setattr(sys, "argv", ["fill_claim.py", source, str(place), mark])
    monkeypatch.setenv("INCLUDE", json.dumps(lists.get("include", [])))
    monkeypatch.setenv("EXCLUDE", json.dumps(lists.get("exclude", WITHOUT)))
    return fill_claim.main()


def files(place: Path) -> set[str]:
    return {file.name for file in place.iterdir()} - {fill_claim.NOTE}


def test_one_set_is_fetched_and_marked_complete_last(hub: Hub, monkeypatch, tmp_path: Path) -> None:
    place = tmp_path / "deep" / "path"
    hub.trouble = lambda out: _is_incomplete(out)
    assert run(monkeypatch, place) == 0
    assert "model-00001-of-00010.safetensors" in files(place) and "consolidated.safetensors" not in files(
        place
    )
    note = fill_claim.read_note(place)
    assert (note["fingerprint"], note["source"], note["complete"]) == ("one", SOURCE, True)
    assert set(note["files"]) == files(place)


def _is_incomplete(place: Path) -> None:
    assert fill_claim.read_note(place)["complete"] is False


def test_a_second_run_downloads_nothing(hub: Hub, monkeypatch, tmp_path: Path, capsys) -> None:
    run(monkeypatch, tmp_path)
    assert run(monkeypatch, tmp_path) == 0
    assert len(hub.asked) == 1 and "nothing to do" in capsys.readouterr().out


def test_an_interrupted_run_goes_on_and_loses_nothing(hub: Hub, monkeypatch, tmp_path: Path) -> None:
    def broken(out: Path) -> None:
        weights.write(out, SOURCE, ["model-00001-of-00010.safetensors"])
        raise OSError("the connection was lost")

    hub.trouble = broken
    assert run(monkeypatch, tmp_path) == 1
    hub.trouble = lambda out: _holds(out, "model-00001-of-00010.safetensors")
    assert run(monkeypatch, tmp_path) == 0
    assert fill_claim.read_note(tmp_path)["complete"]


def _holds(place: Path, name: str) -> None:
    assert (place / name).exists()


def test_another_set_takes_the_place_of_the_first(hub: Hub, monkeypatch, tmp_path: Path) -> None:
    run(monkeypatch, tmp_path)
    assert run(monkeypatch, tmp_path, OTHER, "two", exclude=["model-*"]) == 0
    assert "consolidated.safetensors" in files(tmp_path)
    assert not [name for name in files(tmp_path) if name.startswith("model-")]
    assert OTHER in (tmp_path / "config.json").read_text()


def test_what_is_there_stays_until_the_other_set_can_be_had(hub: Hub, monkeypatch, tmp_path: Path) -> None:
    run(monkeypatch, tmp_path)
    before = files(tmp_path)

    def refused(_: Path) -> None:
        raise RuntimeError("HuggingFace authentication failed.")

    hub.trouble = refused
    assert run(monkeypatch, tmp_path, OTHER, "two", exclude=["model*"]) == 1
    assert files(tmp_path) == before and fill_claim.read_note(tmp_path)["fingerprint"] == "one"


def test_half_of_another_set_is_not_kept_either(hub: Hub, monkeypatch, tmp_path: Path) -> None:
    hub.trouble = _stop_half_way
    run(monkeypatch, tmp_path)
    hub.trouble = lambda _: None
    assert run(monkeypatch, tmp_path, OTHER, "two", exclude=["model-*"]) == 0
    assert not [name for name in files(tmp_path) if name.startswith("model-")]


def _stop_half_way(out: Path) -> None:
    weights.write(out, SOURCE, ["model-00001-of-00010.safetensors"])
    raise OSError("the node is gone")


def test_what_somebody_else_wrote_is_left_alone(hub: Hub, monkeypatch, tmp_path: Path, capsys) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "mine.safetensors").write_text("x")
    assert run(monkeypatch, tmp_path) == 1
    assert hub.asked == [] and (tmp_path / "mine.safetensors").exists()
    assert "remove them, or name another path in the model's uri" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("name", ["adapter/mine.safetensors", f"v2/{fill_claim.NOTE}"])
def test_what_somebody_else_added_is_left_alone_by_another_set_too(
    hub: Hub, monkeypatch, tmp_path: Path, capsys, name: str
) -> None:
    run(monkeypatch, tmp_path)
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text("{}")
    before = files(tmp_path)
    assert run(monkeypatch, tmp_path, OTHER, "two") == 1
    assert files(tmp_path) == before and name in capsys.readouterr().out.splitlines()[-1]


def test_another_path_of_the_claim_survives_an_interrupted_set(hub: Hub, monkeypatch, tmp_path: Path) -> None:
    hub.trouble = _stop_half_way
    run(monkeypatch, tmp_path)
    hub.trouble = lambda _: None
    assert run(monkeypatch, tmp_path / "v2") == 0
    assert run(monkeypatch, tmp_path, OTHER, "two") == 1
    assert fill_claim.read_note(tmp_path / "v2")["complete"]


def test_a_note_that_was_being_written_when_the_node_went_blocks_nothing(
    hub: Hub, monkeypatch, tmp_path: Path
) -> None:
    (tmp_path / f"{fill_claim.NOTE}.new").write_text("{")
    assert run(monkeypatch, tmp_path) == 0


def test_a_new_file_systems_own_directory_is_no_stranger(hub: Hub, monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    assert run(monkeypatch, tmp_path) == 0
    run(monkeypatch, tmp_path, OTHER, "two")
    assert (tmp_path / "lost+found").is_dir()


def test_patterns_that_let_no_weights_through_are_no_success(
    hub: Hub, monkeypatch, tmp_path: Path, capsys
) -> None:
    assert run(monkeypatch, tmp_path, include=["*.json"]) == 1
    assert "no weights among the files" in capsys.readouterr().out.splitlines()[-1]
    assert not fill_claim.read_note(tmp_path)["complete"]


def test_the_last_line_says_what_went_wrong(hub: Hub, monkeypatch, tmp_path: Path, capsys) -> None:
    def refused(_: Path) -> None:
        raise RuntimeError("HuggingFace authentication failed. Set HF_TOKEN")

    hub.trouble = refused
    assert run(monkeypatch, tmp_path) == 1
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == f"{SOURCE}: HuggingFace authentication failed. Set HF_TOKEN"
    )


def test_from_s3_whole_files_are_not_fetched_twice_and_parts_are_not_kept(
    hub: Hub, monkeypatch, tmp_path: Path
) -> None:
    """KServe's download from S3 begins anew; boto3 names a file only when it is complete."""
    source = "s3://models/acme"

    def broken(out: Path) -> None:
        (out / "a[1].safetensors").write_text("whole")
        (out / "config.json").write_text("{}")
        (out / "b.safetensors.1aB2c3D4").write_text("part")
        raise OSError("the connection was lost")

    hub.trouble = broken
    assert run(monkeypatch, tmp_path, source) == 1
    hub.trouble = lambda _: None
    assert run(monkeypatch, tmp_path, source) == 0
    # The smallest is asked for again: a download of nothing is a failure for KServe.
    assert hub.asked[-1] == (source, None, [*WITHOUT, "a[[]1].safetensors"])
    assert not (tmp_path / "b.safetensors.1aB2c3D4").exists()
