"""Which preset a model gets, what is in it, and how it is spread over GPUs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.engine.gemmas import SHAPES, Precision, Preset, cpu_args, cpu_kv_gib, speculative_args
from gateway.engine.gpus import GpuMemory, parse_gpus, tensor_parallel_size, valid_sizes, visible
from gateway.engine.presets import draft_flags, recognise, revision_of
from gateway.errors import ConfigurationError
from gateway.settings import Family, Modality

TEXT, IMAGE, AUDIO, VIDEO = Modality.TEXT, Modality.IMAGE, Modality.AUDIO, Modality.VIDEO

L4, A100_40, H100, H200 = (GpuMemory(mib * 2**20) for mib in (23_034, 40_960, 81_559, 143_771))


def directory(tmp_path: Path, **config: Any) -> str:
    (tmp_path / "config.json").write_text(json.dumps(config))
    return str(tmp_path)


@pytest.mark.parametrize(
    ("model", "name", "precision"),
    [
        ("google/gemma-3-270m-it", "gemma-3-270m", Precision.BF16),
        ("google/gemma-3-1b-it", "gemma-3-1b", Precision.BF16),
        ("google/gemma-3-4b-pt", "gemma-3-4b", Precision.BF16),
        ("google/gemma-3-12b-it-qat-q4_0-unquantized", "gemma-3-12b", Precision.BF16),
        ("google/gemma-3-27b-it", "gemma-3-27b", Precision.BF16),
        ("google/gemma-3n-E2B-it", "gemma-3n-E2B", Precision.BF16),
        ("google/gemma-3n-E4B", "gemma-3n-E4B", Precision.BF16),
        ("google/gemma-4-E2B-it-qat-mobile-ct", "gemma-4-E2B", Precision.FOUR_BIT),
        ("google/gemma-4-E4B-it", "gemma-4-E4B", Precision.BF16),
        ("google/gemma-4-12B-it-qat-w4a16-ct", "gemma-4-12B", Precision.FOUR_BIT),
        ("RedHatAI/gemma-4-26B-A4B-it-NVFP4", "gemma-4-26B-A4B", Precision.FOUR_BIT),
        ("RedHatAI/gemma-4-31B-it-FP8-dynamic", "gemma-4-31B", Precision.EIGHT_BIT),
        ("nvidia/gemma-4-31B-it-NVFP4", "gemma-4-31B", Precision.FOUR_BIT),
        ("gemma-4-31b-it", "gemma-4-31B", Precision.BF16),
    ],
)
def test_a_name_is_recognised(model: str, name: str, precision: Precision) -> None:
    preset = recognise(model)
    assert (preset.name, preset.precision) == (name, precision)


def test_a_directory_is_recognised_by_its_config_whatever_it_is_called(tmp_path: Path) -> None:
    text = {"num_hidden_layers": 60, "num_attention_heads": 32}
    model = directory(
        tmp_path, model_type="gemma4", text_config=text, vision_config={"hidden_size": 1}, audio_config=None
    )
    preset = recognise(model)
    assert preset.name == "gemma-4-31B"
    assert preset.modalities == {TEXT, IMAGE, VIDEO}


def test_the_text_part_of_a_model_that_sees_takes_text_only(tmp_path: Path) -> None:
    model = directory(tmp_path, model_type="gemma3_text", num_hidden_layers=34, num_attention_heads=8)
    assert recognise(model).name == "gemma-3-4b"
    assert recognise(model).modalities == {TEXT}


def test_quantisation_is_read_from_the_config(tmp_path: Path) -> None:
    text = {"num_hidden_layers": 60, "num_attention_heads": 32}
    groups = {"group_0": {"weights": {"num_bits": 8, "type": "float"}}}
    quantised = {"quant_method": "compressed-tensors", "config_groups": groups}
    model = directory(tmp_path, model_type="gemma4", text_config=text, quantization_config=quantised)
    assert recognise(model).precision is Precision.EIGHT_BIT


def test_a_gemma_of_another_size_gets_its_family_with_the_limits_of_its_config(tmp_path: Path) -> None:
    text = {"num_hidden_layers": 6, "num_attention_heads": 4, "hidden_size": 64, "max_position_embeddings": 8192}
    model = directory(tmp_path, model_type="gemma4", text_config=text, vision_config={"a": 1}, audio_config={"a": 1})
    preset = recognise(model)
    assert (preset.name, preset.family, preset.max_model_len) == ("gemma4", Family.GEMMA4, 8192)
    assert preset.modalities == {TEXT, IMAGE, AUDIO, VIDEO}
    assert preset.is_small


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache with two commits of someone/my-tune: a 1b as main, and a 4b that the tag v2 names."""
    repository = tmp_path / "models--someone--my-tune"
    (repository / "refs").mkdir(parents=True)
    for commit, name, layers, heads in (("abc", "main", 26, 4), ("def", "v2", 34, 8)):
        snapshot = repository / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (repository / "refs" / name).write_text(commit)
        directory(snapshot, model_type="gemma3_text", num_hidden_layers=layers, num_attention_heads=heads)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    return repository


@pytest.mark.parametrize(
    ("revision", "name"), [(None, "gemma-3-1b"), ("main", "gemma-3-1b"), ("v2", "gemma-3-4b"), ("def", "gemma-3-4b")]
)
@pytest.mark.usefixtures("hub")
def test_a_name_is_looked_up_in_the_local_hub_cache_at_its_revision(revision: str | None, name: str) -> None:
    assert recognise("someone/my-tune", revision).name == name


def test_a_commit_needs_no_reference(hub: Path) -> None:
    for reference in (hub / "refs").iterdir():
        reference.unlink()
    assert recognise("someone/my-tune", "def").name == "gemma-3-4b"


@pytest.mark.usefixtures("hub")
def test_another_revision_than_the_cached_ones_is_not_taken_for_main() -> None:
    with pytest.raises(ConfigurationError, match="hf download someone/my-tune"):
        recognise("someone/my-tune", "v3")


@pytest.mark.parametrize(
    ("flags", "revision"),
    [
        (["--revision", "v2"], "v2"),
        (["--dtype=float32", "--revision=v2"], "v2"),
        (["--revision", "v1", "--revision", "v2"], "v2"),
        (["--tokenizer-revision", "v2"], None),
        (["--revision"], None),
    ],
)
def test_revision_is_found_among_vllms_flags(flags: list[str], revision: str | None) -> None:
    assert revision_of(flags) == revision


@pytest.mark.parametrize("model", ["meta-llama/Llama-3.1-8B", "google/gemma-2-9b-it", "google/paligemma-3b"])
def test_what_is_no_gemma_is_refused_with_what_is_supported(model: str) -> None:
    with pytest.raises(ConfigurationError, match=r"gemma-4-31B.*\n.*hf download"):
        recognise(model)


def test_a_directory_of_another_model_is_refused_with_its_type(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="model_type 'llama'"):
        recognise(directory(tmp_path, model_type="llama"))


def test_a_directory_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"config\.json"):
        recognise(str(tmp_path))


def test_a_draft_is_refused_with_the_command_that_uses_it() -> None:
    with pytest.raises(ConfigurationError) as refusal:
        recognise("google/gemma-4-31B-it-assistant")
    assert "engine google/gemma-4-31B-it --speculative-config" in str(refusal.value)


def test_a_directory_of_a_draft_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="draft"):
        recognise(directory(tmp_path, model_type="gemma4_assistant"))


def test_a_model_is_paired_with_its_draft_only_when_asked() -> None:
    preset = recognise("google/gemma-4-E2B-it")
    assert "speculative-config" not in preset.args
    assert speculative_args(preset) == {
        "speculative-config": {"model": "google/gemma-4-E2B-it-assistant", "num_speculative_tokens": 2}
    }
    assert draft_flags("google/gemma-4-E2B-it") == [
        "--speculative-config",
        '{"model": "google/gemma-4-E2B-it-assistant", "num_speculative_tokens": 2}',
    ]


def test_a_model_without_a_draft_says_so() -> None:
    with pytest.raises(ConfigurationError, match="gemma-3-4b has no draft"):
        speculative_args(recognise("google/gemma-3-4b-it"))


def test_media_are_limited_by_what_the_model_takes() -> None:
    limits = {name: Preset(name, shape).args.get("limit-mm-per-prompt") for name, shape in SHAPES.items()}
    assert limits["gemma-3-1b"] is None
    assert limits["gemma-3-4b"] == {"image": 32}
    assert limits["gemma-3n-E4B"] == {"image": 32, "audio": 32}
    assert limits["gemma-4-31B"] == {"image": 32, "video": 2}
    assert limits["gemma-4-E4B"] == {"image": 32, "audio": 32, "video": 2}


def test_every_engine_fetches_nothing_and_caches_prefixes() -> None:
    for name, shape in SHAPES.items():
        args = Preset(name, shape).args
        assert args["allowed-media-domains"] == ["media.invalid"]
        assert args["enable-prefix-caching"] is True
        assert args["enable-prompt-tokens-details"] is True


def test_only_gemma_4_has_a_reasoning_parser() -> None:
    assert Preset("gemma-4-31B", SHAPES["gemma-4-31B"]).args["reasoning-parser"] == "gemma4"
    assert "reasoning-parser" not in Preset("gemma-3-4b", SHAPES["gemma-3-4b"]).args


def test_a_context_is_served_that_fits_where_models_usually_run() -> None:
    assert recognise("google/gemma-4-31B-it").max_model_len == 32_768
    assert recognise("google/gemma-4-31B-it").shape.context == 262_144


@pytest.mark.parametrize(
    ("name", "gib"),
    # The column "32k" of the arithmetic in the released configurations.
    [("gemma-3-4b", 0.74), ("gemma-3-27b", 2.9), ("gemma-4-E4B", 0.52), ("gemma-4-12B", 0.81), ("gemma-4-31B", 3.3)],
)
def test_keys_and_values_of_a_long_sequence(name: str, gib: float) -> None:
    assert Preset(name, SHAPES[name]).kv_bytes(32_768) / 2**30 == pytest.approx(gib, rel=0.02)


@pytest.mark.parametrize(
    ("model", "sizes"),
    # On eight GPUs each of: L4, A100 40 GB, H100, H200.
    [
        ("google/gemma-3-4b-it", [1, 1, 1, 1]),
        ("google/gemma-4-12B-it", [2, 1, 1, 1]),
        ("google/gemma-4-12B-it-qat-w4a16-ct", [1, 1, 1, 1]),
        ("google/gemma-4-26B-A4B-it", [4, 2, 1, 1]),
        ("RedHatAI/gemma-4-26B-A4B-it-FP8-dynamic", [2, 1, 1, 1]),
        ("google/gemma-3-27b-it", [4, 2, 1, 1]),
        ("google/gemma-4-31B-it", [4, 2, 1, 1]),
        ("google/gemma-4-31B-it-qat-w4a16-ct", [2, 1, 1, 1]),
    ],
)
def test_a_model_is_spread_over_as_few_gpus_as_hold_it(model: str, sizes: list[int]) -> None:
    preset = recognise(model)
    assert [tensor_parallel_size(preset, [gpu] * 8) for gpu in (L4, A100_40, H100, H200)] == sizes


def test_without_a_gpu_there_is_one_rank() -> None:
    assert tensor_parallel_size(recognise("google/gemma-4-31B-it"), []) == 1


def test_the_smallest_gpu_decides() -> None:
    assert tensor_parallel_size(recognise("google/gemma-4-31B-it"), [H200, A100_40]) == 2


def test_a_model_that_fits_nowhere_is_refused_with_a_way_out() -> None:
    with pytest.raises(ConfigurationError) as refusal:
        tensor_parallel_size(recognise("google/gemma-4-31B-it"), [L4, L4])
    assert "--tensor-parallel-size 2 --max-model-len 8192" in str(refusal.value)
    assert "qat-w4a16-ct" in str(refusal.value)


def test_sizes_that_do_not_divide_the_heads_are_left_out() -> None:
    assert valid_sizes(Preset("gemma-3-1b", SHAPES["gemma-3-1b"])) == [1, 2, 4]


def test_the_listing_of_nvidia_smi_is_read() -> None:
    assert parse_gpus("81559, 9.0\n23034, 8.9\n[N/A], [N/A]\n") == [
        GpuMemory(81_559 * 2**20, (9, 0)),
        GpuMemory(23_034 * 2**20, (8, 9)),
    ]


@pytest.mark.parametrize(
    ("devices", "left"),
    [(None, [L4, H100, H200]), ("2,0", [H200, L4]), ("", []), ("-1", []), ("7", []), ("GPU-af12,GPU-0b3c", [L4, H100])],
)
def test_hidden_gpus_do_not_count(devices: str | None, left: list[GpuMemory]) -> None:
    assert visible([L4, H100, H200], devices) == left


def test_a_small_gemma_runs_on_a_cpu_without_compilation() -> None:
    assert cpu_args(recognise("google/gemma-3-270m-it"))["enforce-eager"] is True
    assert "enforce-eager" not in cpu_args(recognise("google/gemma-3-4b-it"))


def test_memory_for_keys_and_values_on_a_cpu_follows_the_model() -> None:
    names = ("google/gemma-3-270m-it", "google/gemma-4-12B-it", "google/gemma-4-31B-it")
    assert [cpu_kv_gib(recognise(name)) for name in names] == [1, 3, 10]
