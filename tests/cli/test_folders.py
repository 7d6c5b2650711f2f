"""Hugging Face folders and exported programs as models, as a user types them."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typed import MERGE, Run, text

from models_zoo.architectures.vision import torchvision_models

needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)


@pytest.fixture(scope="module")
def transformers() -> Any:
    if importlib.util.find_spec("torchvision"):
        torchvision_models()
    return importlib.import_module("transformers")


@pytest.fixture(scope="module")
def trained(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two BERTs that classify and two GPT-2, in shards, whose head is tied to the embedding."""
    folder = tmp_path_factory.mktemp("hub")
    sizes = {"vocab_size": 50}
    bert = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=20, id2label={0: "cat", 1: "dog", 2: "fox"}, **sizes,
    )  # fmt: skip
    gpt = transformers.GPT2Config(
        n_embd=16, n_layer=1, n_head=2, n_positions=20, bos_token_id=0, eos_token_id=0, **sizes
    )
    for name in "ab":
        torch.manual_seed(ord(name))
        transformers.BertForSequenceClassification(bert).save_pretrained(folder / f"bert-{name}")
        transformers.GPT2LMHeadModel(gpt).save_pretrained(folder / f"gpt-{name}", max_shard_size="8KB")
        (folder / f"bert-{name}" / "vocab.txt").write_text("\n".join(map(str, range(50))))
    return folder


@pytest.fixture(scope="module")
def renamed(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ViTs and two Mixtrals in bfloat16, whose files have other names than their modules."""
    folder = tmp_path_factory.mktemp("renamed")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    vit = transformers.ViTConfig(image_size=16, patch_size=8, **sizes)
    mixtral = transformers.MixtralConfig(
        vocab_size=50, num_key_value_heads=2, num_local_experts=3, dtype=torch.bfloat16, **sizes
    )
    for name in "ab":
        torch.manual_seed(ord(name))
        transformers.ViTForImageClassification(vit).save_pretrained(folder / f"vit-{name}")
        network = transformers.MixtralForCausalLM(mixtral).to(torch.bfloat16)
        network.save_pretrained(folder / f"mixtral-{name}")
    return folder


@pytest.fixture
def hub(run: Run, trained: Path, tmp_path: Path) -> Run:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return run


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@needs_transformers
class TestHuggingFace:
    def test_a_folder_goes_in_and_a_folder_that_transformers_loads_comes_out(
        self, hub: Run, transformers: Any, tmp_path: Path
    ) -> None:
        result = hub("merge", "bert-a", "bert-b", "--out", "out", "--no-onnx")
        assert result.exit_code == 0, text(result)
        names = {p.name for p in (tmp_path / "out").iterdir()}
        assert {"config.json", "vocab.txt", "model.safetensors", "README.md"} <= names
        loaded, info = transformers.AutoModelForSequenceClassification.from_pretrained(
            tmp_path / "out", output_loading_info=True
        )
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        merged = load_file(tmp_path / "out" / "model.safetensors")
        assert all(torch.equal(loaded.state_dict()[n], t) for n, t in merged.items())

    def test_tied_weights_in_shards_stay_tied(self, hub: Run, transformers: Any, tmp_path: Path) -> None:
        words = ("merge", "gpt-a", "gpt-b", "--match", "weight", "--no-onnx", "--shard-size", "10KB")
        result = hub(*words, "--out", "out")
        assert result.exit_code == 0, text(result)
        index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
        assert "lm_head.weight" not in index["weight_map"]
        model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
        assert model.lm_head.weight is model.transformer.wte.weight

    def test_another_dtype_is_told_in_the_config(self, hub: Run, tmp_path: Path) -> None:
        words = ("merge", "bert-a", "bert-b", "--match", "none", "--no-onnx", "--out-dtype", "float16")
        assert hub(*words, "--out", "out", "--quiet").exit_code == 0
        assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float16"
        merged = load_file(tmp_path / "out" / "model.safetensors")
        assert {t.dtype for t in merged.values()} == {torch.float16}

    @pytest.mark.parametrize("kind", ["vit", "mixtral"])
    def test_names_and_dtypes_of_files_are_kept_where_modules_have_others(
        self, kind: str, run: Run, renamed: Path, transformers: Any, tmp_path: Path
    ) -> None:
        paths = [str(renamed / f"{kind}-{name}") for name in "ab"]
        assert run("plan", *paths, "--out", "out").exit_code == 0
        result = run("merge", *paths, "--out", "out", "--match", "none", "--no-onnx")
        assert result.exit_code == 0, text(result)
        a, b, merged = (load_file(Path(p) / "model.safetensors") for p in (*paths, tmp_path / "out"))
        assert merged.keys() == a.keys()
        for name, tensor in merged.items():
            mean = (a[name].float() + b[name].float()) / 2
            assert torch.equal(tensor, mean.to(a[name].dtype)), name
        loader = "AutoModelForCausalLM" if kind == "mixtral" else "AutoModelForImageClassification"
        _, info = getattr(transformers, loader).from_pretrained(tmp_path / "out", output_loading_info=True)
        assert not info["missing_keys"]

    def test_a_file_that_lacks_one_of_its_names_is_refused(self, run: Run, renamed: Path) -> None:
        kept = load_file(renamed / "vit-b" / "model.safetensors")
        kept.pop("vit.encoder.layer.0.attention.attention.key.bias")
        shutil.copytree(renamed / "vit-b", "short")
        save_file(kept, "short/model.safetensors", {"format": "pt"})
        for command in ("plan", "merge"):
            result = run(command, str(renamed / "vit-a"), "short", "--out", "out", "--no-onnx")
            assert result.exit_code == 3, text(result)
            assert "1 missing: 'vit.encoder.layer.0.attention.attention.key.bias'" in text(result)

    @pytest.mark.parametrize("command", ["plan", "merge"])
    def test_another_order_of_labels_is_refused(self, command: str, hub: Run, tmp_path: Path) -> None:
        change(tmp_path / "bert-b" / "config.json", id2label={"0": "dog", "1": "cat", "2": "fox"})
        result = hub(command, "bert-a", "bert-b", "--out", "out")
        assert result.exit_code == 3
        assert "id2label[0] = 'dog'" in text(result)
        assert not (tmp_path / "out").exists()

    def test_another_vocabulary_is_refused(self, hub: Run, tmp_path: Path) -> None:
        (tmp_path / "bert-b" / "vocab.txt").write_text("another")
        result = hub("merge", "bert-a", "bert-b", "--out", "out")
        assert result.exit_code == 3
        assert "vocab.txt" in text(result)

    def test_another_network_of_the_same_shapes_is_refused(self, hub: Run, tmp_path: Path) -> None:
        change(tmp_path / "bert-b" / "config.json", hidden_act="relu")
        result = hub("merge", "bert-a", "bert-b", "--out", "out")
        assert result.exit_code == 4
        assert "hidden_act: 'relu'" in text(result)

    def test_labels_that_are_not_told_are_noted(self, hub: Run, tmp_path: Path) -> None:
        plain = {str(k): f"LABEL_{k}" for k in range(3)}
        change(tmp_path / "bert-b" / "config.json", id2label=plain)
        result = hub("merge", "bert-a", "bert-b", "--out", "out", "--no-onnx", "--match", "none")
        assert result.exit_code == 0
        assert "order was not compared" in text(result)

    def test_code_in_a_folder_is_not_run(self, hub: Run, tmp_path: Path) -> None:
        change(tmp_path / "bert-a" / "config.json", auto_map={"AutoModel": "evil.Model"})
        change(tmp_path / "bert-b" / "config.json", auto_map={"AutoModel": "evil.Model"})
        (tmp_path / "bert-a" / "evil.py").write_text("raise SystemExit('run!')")
        result = hub("merge", "bert-a", "bert-b", "--out", "out")
        assert result.exit_code == 2
        assert "runs no code out of a model folder" in text(result)

    def test_without_transformers_it_says_what_to_install(
        self, hub: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(__import__("sys").modules, "transformers", None)
        result = hub("inspect", "--model", "bert-a")
        assert result.exit_code == 2
        assert "pip install transformers" in text(result)


class TestPrograms:
    @pytest.fixture
    def exported(self, run: Run, tmp_path: Path) -> Run:
        """The tiny network as an archive, exported with its batch free."""
        import tinynet  # type: ignore[import-not-found]

        batch = torch.export.Dim("batch", min=1, max=512)
        program = torch.export.export(
            tinynet.Net().eval(), (torch.randn(2, 1, 4, 4),), dynamic_shapes=({0: batch},)
        )
        torch.export.save(program, tmp_path / "net.pt2")
        return run

    def test_an_archive_is_a_model_that_knows_its_inputs(self, exported: Run, tmp_path: Path) -> None:
        words = (
            "a.safetensors",
            "b.safetensors",
            "--model",
            "net.pt2",
            "--trust",
            "--data",
            "tinynet:batches",
        )
        result = exported("merge", *words, "--points", 3, "--out", "out")
        assert result.exit_code == 0, text(result)
        report = json.loads((tmp_path / "out" / "report.json").read_text())
        assert report["recipe"]["example_inputs"] == ["2x1x4x4:float32"]
        assert exported(*MERGE, "--data", "tinynet:batches", "--points", 3, "--out", "two").exit_code == 0
        one, two = (load_file(tmp_path / n / "model.safetensors") for n in ("out", "two"))
        assert all(torch.allclose(one[n].float(), t.float(), atol=1e-5) for n, t in two.items())

    def test_where_onnx_fails_the_merge_is_kept_and_the_exit_code_says_so(
        self, run: Run, tmp_path: Path
    ) -> None:
        import tinynet

        program = torch.export.export(tinynet.Net().eval(), (torch.randn(2, 1, 4, 4),))  # its batch is fixed
        torch.export.save(program, tmp_path / "net.pt2")
        words = (*MERGE[:3], "--model", "net.pt2", "--trust", "--match", "none", "--quiet")
        result = run(*words, "--out", "out")
        assert result.exit_code == 4
        assert "fixes the batch size" in text(result)
        assert (tmp_path / "out" / "model.safetensors").exists()
        assert not (tmp_path / "out" / "merged.onnx").exists()
        assert run(*words, "--static", "--out", "static").exit_code == 0
        assert (tmp_path / "static" / "merged.onnx").exists()

    def test_it_is_not_read_without_a_word(self, exported: Run) -> None:
        for command in ("merge", "plan"):
            refused = exported(command, "a.safetensors", "b.safetensors", "--model", "net.pt2", "--out", "o")
            assert refused.exit_code == 2
            assert "can run code" in text(refused)

    def test_what_is_none_is_refused(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "x.pt2").write_bytes(b"hello")
        (tmp_path / "x.onnx").write_bytes(b"hello")
        (tmp_path / "empty").mkdir()
        assert run("inspect", "--model", "x.pt2", "--trust").exit_code == 3
        assert "ONNX" in text(run("inspect", "--model", "x.onnx"))
        assert run("inspect", "--model", "empty", "--input", "1x3").exit_code == 2
