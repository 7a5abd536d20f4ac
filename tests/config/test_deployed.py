"""A run of a deployment stays inside the folders that its operator named, whatever it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from stages import take_inventory

from assay.config.deployed import golden_places, model_named, places
from assay.config.settings import Settings
from assay.core.errors import UserMistake

LINE = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Roots ``chats`` and ``results``, beside a folder that is in neither."""
    for name in ("chats/2026", "results", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("chats/a.jsonl", "chats/2026/b.jsonl", "elsewhere/secret.jsonl"):
        (tmp_path / name).write_text(LINE)
    return Settings(
        home=tmp_path / "home",
        data_roots={"chats": tmp_path / "chats"},
        output_roots={"results": tmp_path / "results"},
        model_folders={"judge": tmp_path / "elsewhere"},
    )


def refusal(
    settings: Settings, given: str = "chats", output: str = "results/x", *, deployed: bool = True
) -> str:
    def read() -> None:
        found = places([given], output, settings, deployed=deployed)
        take_inventory(found.inputs, within=found.within)

    with pytest.raises(UserMistake) as refused:
        read()
    return str(refused.value)


@pytest.mark.parametrize("given", ["chats", "chats/2026/b.jsonl", "chats/**/*.jsonl", "chats/./a.jsonl"])
def test_what_lies_in_a_named_folder_is_read(settings: Settings, given: str) -> None:
    found = places([given], "results/first", settings, deployed=True)
    inventory = take_inventory(found.inputs, within=found.within)
    root = str(settings.data_roots["chats"])
    assert inventory.files
    assert all(file.path.startswith(root) for file in inventory.files)
    assert found.output == str(settings.output_roots["results"] / "first")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("../elsewhere/secret.jsonl", "'..' is not followed"),
        ("chats/../../elsewhere/secret.jsonl", "'..' is not followed"),
        ("chats/2026/../../../elsewhere/*", "'..' is not followed"),
        ("/etc/passwd", "a path here begins with chats/…"),
        ("//etc/passwd", "a path here begins with"),
        ("~/chats", "a path here begins with"),
        ("", "a path here begins with"),
        ("chat/a.jsonl", "no folder here has the name 'chat'; did you mean 'chats'?"),
        ("*/a.jsonl", "no folder here has the name '*'"),
        ("results/x", "no folder here has the name 'results'"),
        ("chats/a\0.jsonl", "holds a NUL"),
    ],
)
def test_what_leads_out_of_the_roots_is_refused(settings: Settings, given: str, said: str) -> None:
    assert said in refusal(settings, given)


@pytest.mark.parametrize(
    "given", ["chats/link", "chats/link/secret.jsonl", "chats/link/*.jsonl", "chats/link/x"]
)
def test_a_linked_folder_that_leaves_the_root_is_not_followed(
    settings: Settings, tmp_path: Path, given: str
) -> None:
    (tmp_path / "chats/link").symlink_to(tmp_path / "elsewhere")
    assert "leads out of" in refusal(settings, given)


@pytest.mark.parametrize("given", ["chats", "chats/*.jsonl", "chats/*/*.jsonl", "chats/linked.jsonl"])
def test_a_linked_file_is_refused_however_it_is_found(settings: Settings, tmp_path: Path, given: str) -> None:
    (tmp_path / "chats/linked.jsonl").symlink_to(tmp_path / "elsewhere/secret.jsonl")
    (tmp_path / "chats/sub").symlink_to(tmp_path / "elsewhere")
    assert "leads out of" in refusal(settings, given)


def test_a_link_that_stays_inside_is_followed(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "chats/newest.jsonl").symlink_to(tmp_path / "chats/2026/b.jsonl")
    found = places(["chats/newest.jsonl"], "results/x", settings, deployed=True)
    assert len(take_inventory(found.inputs, within=found.within).files) == 1


def test_a_folder_whose_name_only_begins_like_a_root_is_outside(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "chats-private").mkdir()
    (tmp_path / "chats-private/c.jsonl").write_text(LINE)
    (tmp_path / "chats/near").symlink_to(tmp_path / "chats-private")
    assert "leads out of" in refusal(settings, "chats/near/c.jsonl")


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("/tmp/x", "a path here begins with results/…"),
        ("results/../chats", "'..' is not followed"),
        ("results", "name a folder inside results"),
        ("results/.", "name a folder inside results"),
        ("chats/x", "no folder here has the name 'chats'"),
        ("results/away/x", "leads out of"),
        ("results/away", "leads out of"),
    ],
)
def test_an_output_outside_is_refused(settings: Settings, tmp_path: Path, output: str, said: str) -> None:
    (tmp_path / "results/away").symlink_to(tmp_path / "elsewhere")
    assert said in refusal(settings, output=output)


def test_a_deployment_without_roots_reads_nothing(tmp_path: Path) -> None:
    assert "ASSAY_DATA_ROOTS is not set" in refusal(Settings(home=tmp_path))
    half = Settings(home=tmp_path, data_roots={"chats": tmp_path})
    assert "ASSAY_OUTPUT_ROOTS is not set" in refusal(half)


@pytest.mark.parametrize(
    ("record", "check", "said"),
    [
        (
            "/tmp/golden.json",
            None,
            "record '/tmp/golden.json': a path here begins with results/…",
        ),
        ("chats/golden.json", None, "no folder here has the name 'chats'"),
        ("results/../golden.json", None, "'..' is not followed"),
        ("results", None, "name a folder inside results"),
        ("results/away/golden.json", None, "leads out of"),
        (None, "/etc/passwd", "a path here begins with results/… or chats/…"),
        (None, "chats/../elsewhere/secret.jsonl", "'..' is not followed"),
        (None, "results/away/secret.jsonl", "leads out of"),
    ],
)
def test_golden_rows_outside_are_refused(
    settings: Settings, tmp_path: Path, record: str | None, check: str | None, said: str
) -> None:
    (tmp_path / "results/away").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserMistake) as refused:
        golden_places(record, check, settings, deployed=True)
    assert said in str(refused.value)


def test_golden_rows_are_written_among_results_and_read_from_inputs_too(
    settings: Settings, tmp_path: Path
) -> None:
    def found(record: str | None, check: str | None) -> tuple[str | None, str | None]:
        return golden_places(record, check, settings, deployed=True)

    assert found("results/golden/a.json", None) == (str(tmp_path / "results/golden/a.json"), None)
    assert found(None, "chats/a.json") == (None, str(tmp_path / "chats/a.json"))
    assert found(None, "results/a.json") == (None, str(tmp_path / "results/a.json"))
    assert golden_places("/a.json", "../b.json", Settings(home=tmp_path), deployed=False) == (
        "/a.json",
        "../b.json",
    )


def test_golden_rows_are_read_from_where_they_were_written_to_by_that_name(tmp_path: Path) -> None:
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    settings = Settings(
        home=tmp_path / "home",
        data_roots={"team": tmp_path / "in", "chats": tmp_path / "in"},
        output_roots={"team": tmp_path / "out"},
    )
    recorded = golden_places("team/a.json", None, settings, deployed=True).record
    assert recorded == str(tmp_path / "out/a.json")
    assert golden_places(None, "team/a.json", settings, deployed=True).check == recorded
    assert golden_places(None, "chats/a.json", settings, deployed=True).check == str(tmp_path / "in/a.json")


@pytest.mark.parametrize("deployed", [True, False])
def test_golden_rows_are_not_read_from_s3_and_the_operator_learns_what_to_set(
    tmp_path: Path, deployed: bool
) -> None:
    settings = Settings(home=tmp_path, data_roots={"chats": "s3://team/chats"})
    with pytest.raises(UserMistake) as refused:
        golden_places(None, "chats/a.json", settings, deployed=deployed)
    said = str(refused.value)
    assert "check 'chats/a.json': golden rows are read from folders of this machine alone" in said
    assert "ASSAY_OUTPUT_ROOTS=" in said
    assert "not set" not in said


def test_a_deployment_without_roots_touches_no_golden_rows_and_can_do_without_them(tmp_path: Path) -> None:
    bare = Settings(home=tmp_path)
    with pytest.raises(UserMistake, match="ASSAY_OUTPUT_ROOTS is not set"):
        golden_places("a/b.json", None, bare, deployed=True)
    with pytest.raises(UserMistake, match="ASSAY_DATA_ROOTS is not set"):
        golden_places(None, "a/b.json", bare, deployed=True)
    assert golden_places(None, None, bare, deployed=True) == (None, None)


def test_a_command_line_without_roots_takes_any_path(tmp_path: Path) -> None:
    found = places(["/anywhere", "../x"], "/out", Settings(home=tmp_path), deployed=False)
    assert found == (["/anywhere", "../x"], "/out", None)


def test_roots_that_are_set_hold_for_the_command_line_too(settings: Settings) -> None:
    assert "a path here begins with" in refusal(settings, "/etc/passwd", deployed=False)


@pytest.mark.parametrize(
    "name",
    [
        "https://models.example/v1",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc",
        "/srv/models/judge",
        "../judge",
        "somebody/model-that-nobody-chose",
    ],
)
def test_a_deployment_takes_a_model_by_a_name_alone(settings: Settings, name: str) -> None:
    with pytest.raises(UserMistake, match="takes a model by its name"):
        model_named(name, settings)


def test_named_models_are_the_operators_and_the_catalogs(settings: Settings, tmp_path: Path) -> None:
    listed = tmp_path / "endpoints.yaml"
    listed.write_text(
        "house:\n  kind: vllm-classify\n  url: http://127.0.0.1:9/\n  model: m\n  attributes: [reward]\n"
        "  max_characters: 1000\n"
    )
    settings = settings.model_copy(update={"endpoints_file": listed})
    assert [model_named(name, settings) for name in ("starter", "judge", "house")] == [
        "starter",
        "judge",
        "house",
    ]


def test_roots_are_written_as_names_and_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_DATA_ROOTS", "chats=/srv/chats:mail=/srv/mail")
    assert Settings.read().data_roots == {"chats": Path("/srv/chats"), "mail": Path("/srv/mail")}


@pytest.mark.parametrize("value", ["/srv/chats", "chats=srv", "a/b=/srv", "a=/x:a=/y", "..=/srv"])
def test_roots_that_say_nothing_are_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ASSAY_DATA_ROOTS", value)
    with pytest.raises(UserMistake, match="ASSAY_DATA_ROOTS"):
        Settings.read()
