"""Which files a family needs: listings as those of published models, folders whole and broken."""

from __future__ import annotations

import pytest

from gsdistill.core.errors import BadFile
from gsdistill.models.layout import WeightFiles, check_weights, chosen, lack, listing, weight_files

SD_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
TOKENIZER = ("merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json")

# The names of stable-diffusion-v1-5's repository, all of size 1 but for the weights (in megabytes).
SD15 = {
    **dict.fromkeys([".gitattributes", "README.md", "model_index.json", "v1-inference.yaml"], 1),
    **{"v1-5-pruned.ckpt": 7700, "v1-5-pruned.safetensors": 7700, "v1-5-pruned-emaonly.safetensors": 4270},
    "feature_extractor/preprocessor_config.json": 1,
    **{
        "safety_checker/config.json": 1,
        "safety_checker/model.safetensors": 1220,
        "safety_checker/pytorch_model.bin": 1220,
    },
    "scheduler/scheduler_config.json": 1,
    **{f"tokenizer/{name}": 1 for name in TOKENIZER},
    **{
        "text_encoder/config.json": 1,
        "text_encoder/model.safetensors": 492,
        "text_encoder/model.fp16.safetensors": 246,
    },
    **{"text_encoder/pytorch_model.bin": 492, "text_encoder/pytorch_model.fp16.bin": 246},
    **{"text_encoder/flax_model.msgpack": 492, "text_encoder/model.onnx": 492},
    "unet/config.json": 1,
    **{f"unet/diffusion_pytorch_model{kind}": 3440 for kind in (".safetensors", ".bin", ".non_ema.safetensors")},
    **{f"unet/diffusion_pytorch_model.fp16{kind}": 1720 for kind in (".safetensors", ".bin")},
    "vae/config.json": 1,
    **{"vae/diffusion_pytorch_model.safetensors": 335, "vae/diffusion_pytorch_model.fp16.safetensors": 167},
}
CONFIGS = {
    "model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json",
    "scheduler/scheduler_config.json", *(f"tokenizer/{name}" for name in TOKENIZER),
}  # fmt: skip


def test_of_a_repository_of_thirty_gigabytes_two_are_chosen():
    light = chosen(SD15, SD_PARTS, half=True)
    weights = ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model")
    assert light.keys() == CONFIGS | {f"{name}.fp16.safetensors" for name in weights}
    assert sum(light.values()) == 246 + 1720 + 167 + len(CONFIGS)
    full = chosen(SD15, SD_PARTS, half=False)
    assert full.keys() == CONFIGS | {f"{name}.safetensors" for name in weights}
    assert chosen(SD15, SD_PARTS, half=True, weights=False).keys() == CONFIGS
    assert not lack("here", SD15, SD_PARTS) and not lack("here", light, SD_PARTS) and not lack("here", full, SD_PARTS)


def test_each_part_has_the_variant_that_it_has():
    """As in Sana's repository: one part in one file and in shards, one in shards only, one without a variant."""
    sharded = {f"model{kind}-0000{i}-of-00002.safetensors" for kind in ("", ".fp16") for i in (1, 2)}
    files = dict.fromkeys(
        [
            "model_index.json",
            *(f"transformer/{name}" for name in ("config.json", "diffusion_pytorch_model.fp16.safetensors")),
            *(f"transformer/diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)),
            "transformer/diffusion_pytorch_model.safetensors.index.json",
            *(f"text_encoder/{name}" for name in ("config.json", *sharded)),
            *(f"text_encoder/model.safetensors.index{kind}.json" for kind in ("", ".fp16")),
            *(f"vae/{name}" for name in ("config.json", "diffusion_pytorch_model.safetensors")),
            *(f"vae copy/{name}" for name in ("config.json", "diffusion_pytorch_model.safetensors")),
        ],
        1,
    )
    parts = ("transformer", "text_encoder", "vae")
    light = {name for name in chosen(files, parts, half=True) if "config" not in name}
    assert light == {
        "model_index.json", "transformer/diffusion_pytorch_model.fp16.safetensors",
        "text_encoder/model.safetensors.index.fp16.json", "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.fp16-00001-of-00002.safetensors", "text_encoder/model.fp16-00002-of-00002.safetensors",
    }  # fmt: skip
    full = {name for name in chosen(files, parts, half=False) if "config" not in name}
    assert "transformer/diffusion_pytorch_model-00002-of-00002.safetensors" in full
    assert not any("fp16" in name or "copy" in name for name in full) and len(full) == 1 + 3 + 3 + 1
    assert not lack("here", files, parts)


FULL = WeightFiles(("model.safetensors",))


@pytest.mark.parametrize(
    ("names", "half", "expected"),
    [
        ([], True, None),
        (["pytorch_model.bin", "flax_model.safetensors"], False, None),
        (
            ["pytorch_model.bin", "diffusion_pytorch_model.non_ema.safetensors"],
            False,
            WeightFiles(("diffusion_pytorch_model.non_ema.safetensors",), variant="non_ema"),
        ),
        (["model.fp8_e4m3.safetensors"], True, WeightFiles(("model.fp8_e4m3.safetensors",), variant="fp8_e4m3")),
        (["model.bf16.safetensors", "model.non_ema.safetensors"], True, None),
        (["model.bf16.safetensors", "model.non_ema.safetensors", "model.safetensors"], True, FULL),
        (["model.fp16.safetensors"], False, WeightFiles(("model.fp16.safetensors",), variant="fp16")),
        (["model.safetensors"], True, WeightFiles(("model.safetensors",))),
        (
            ["model.safetensors.index.fp16.json", *(f"model-0000{i}-of-00002.fp16.safetensors" for i in (1, 2))],
            True,
            WeightFiles(
                (
                    "model.safetensors.index.fp16.json",
                    "model-00001-of-00002.fp16.safetensors",
                    "model-00002-of-00002.fp16.safetensors",
                ),
                variant="fp16",
            ),
        ),
    ],
)
def test_what_is_there_serves(names, half, expected):
    assert weight_files(names, half) == expected


def test_a_whole_variant_goes_before_one_that_lacks_a_shard():
    names = {"model.safetensors", "model.safetensors.index.fp16.json", "model.fp16-00001-of-00002.safetensors"}
    assert weight_files(names, half=True) == WeightFiles(("model.safetensors",))
    held = weight_files(names - {"model.safetensors"}, half=True)
    assert held is not None and held.missing == ("model.fp16-00002-of-00002.safetensors",)
    assert weight_files(names - {"model.safetensors"} | {"model.bf16.safetensors"}, half=True) == WeightFiles(
        ("model.bf16.safetensors",), variant="bf16"
    )
    bare = weight_files({"model.safetensors.index.json"}, half=True)
    assert bare is not None and bare.missing == ("model-*.safetensors",)


@pytest.mark.parametrize(
    ("without", "extra", "told"),
    [
        ("vae/config.json", (), "here lacks a part: vae/config.json is missing"),
        ("scheduler/scheduler_config.json", (), "here lacks a part: scheduler/scheduler_config.json is missing"),
        ("tokenizer/tokenizer_config.json", (), "here lacks a part: tokenizer/tokenizer_config.json is missing"),
        ("tokenizer/vocab.json", (), "the words of tokenizer are missing, such as tokenizer/tokenizer.json"),
        ("unet/diffusion_pytorch_model.safetensors", (), "the weights here/unet/*.safetensors are missing; install"),
        (
            "unet/diffusion_pytorch_model.safetensors",
            ("unet/diffusion_pytorch_model.bin",),
            "unet/diffusion_pytorch_model.bin is a pickle, which could run any code, and is not read: convert the "
            "model where you trust it, by pipe.save_pretrained(folder, safe_serialization=True) of diffusers",
        ),
        (
            "unet/diffusion_pytorch_model.safetensors",
            (
                "unet/diffusion_pytorch_model.safetensors.index.json",
                "unet/diffusion_pytorch_model-00003-of-00003.safetensors",
            ),
            "the weights here/unet/diffusion_pytorch_model-00001-of-00003.safetensors are missing; install or copy",
        ),
    ],
)
def test_the_first_thing_that_is_missing_is_one_sentence(without, extra, told):
    files = {*chosen(SD15, SD_PARTS, half=False), *extra} - {without}
    sentence = lack("here", files, SD_PARTS)
    assert sentence is not None and told in sentence and "\n" not in sentence


def test_one_other_variant_serves_in_shards_too():
    shards = [f"diffusion_pytorch_model.bf16-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = "diffusion_pytorch_model.safetensors.index.bf16.json"
    files = dict.fromkeys(["unet/config.json", *(f"unet/{name}" for name in (index, *shards))], 1)
    assert weight_files([index, *shards], half=False) == WeightFiles((index, *shards), variant="bf16")
    assert not lack("here", files, ("unet",)) and chosen(files, ("unet",), half=False) == files
    assert "00001-of-00002.safetensors are missing" in (
        lack("here", files.keys() - {f"unet/{shards[0]}"}, ("unet",)) or ""
    )


def test_of_several_other_variants_none_is_taken_and_all_are_named():
    names = [f"unet/diffusion_pytorch_model.{kind}.safetensors" for kind in ("bf16", "non_ema")]
    assert lack("here", {"unet/config.json", *names}, ("unet",)) == (
        "the weights here/unet/*.safetensors are missing: there are diffusion_pytorch_model.bf16.safetensors, "
        "diffusion_pytorch_model.non_ema.safetensors, neither full nor fp16 nor of one variant; keep the one variant "
        "that you want in a folder of your own"
    )


def test_other_tokenizers_have_other_files():
    for words in ({"spiece.model"}, {"tokenizer.model"}, {"tokenizer.json"}):
        files = {f"tokenizer_3/{name}" for name in words | {"tokenizer_config.json"}}
        assert not lack("here", files, ("tokenizer_3",))
    assert lack("here", {"tokenizer/tokenizer_config.json", "tokenizer/vocab.json"}, ("tokenizer",))


def test_a_folder_is_listed_as_the_hub_lists_a_model(tmp_path):
    for name in ("model_index.json", "unet/config.json", "unet/deep/er.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / "unet/linked.json").symlink_to(tmp_path / "model_index.json")
    (tmp_path / "unet/lost.json").symlink_to(tmp_path / "nowhere")
    assert listing(tmp_path) == {"model_index.json": 2, "unet/config.json": 2, "unet/linked.json": 2}


def test_a_pointer_of_git_lfs_is_told_as_one(tmp_path):
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(BadFile, match=r"is a pointer of git-lfs, not the weights; run `git lfs pull` there"):
        check_weights(tmp_path, ["model.safetensors"])


def test_a_file_that_sha256sums_lists_must_be_there(tmp_path):
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  unet/model.safetensors\n")
    with pytest.raises(BadFile, match=r"unet/model.safetensors, which SHA256SUMS lists, is missing"):
        check_weights(tmp_path, [])
