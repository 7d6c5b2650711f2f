"""Make the model zoo: pack its data, train its networks, list its checkpoints.

python tools/train_zoo.py pack-data
python tools/train_zoo.py train resnet20 --seed 0
python tools/train_zoo.py finetune resnet20 rotated
python tools/train_zoo.py table
"""

import argparse
import dataclasses
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from models_zoo.data import IMAGES_FILE, TASKS, TEXT_FILE, Batches, batches, full_fashion
from models_zoo.finetuning import TUNING_EPOCHS, TUNING_IMAGES, finetune
from models_zoo.registry import CHECKPOINTS, FINETUNED, TUNED, ZOO, Tuned, checkpoint, load
from models_zoo.training import RECIPES, evaluate, train

RUNS = Path("runs")
LICENCE_FOLDER = Path("/usr/share/common-licenses")
LICENCES = (
    "GPL-3",
    "GPL-2",
    "GPL-1",
    "LGPL-2.1",
    "LGPL-3",
    "GFDL-1.3",
    "MPL-1.1",
    "MPL-2.0",
    "Apache-2.0",
    "Artistic",
    "CC0-1.0",
)
SHIPPED_TRAIN_IMAGES = 5_000
QUICK_BATCHES = 2


class Result(TypedDict):
    """The report beside a checkpoint; accuracies from 0 to 1, losses in nats.

    The quick numbers are those of the first `QUICK_BATCHES` test batches, for a check in seconds.
    """

    name: str
    seed: int
    epochs: int
    train_subset_accuracy: float
    train_subset_loss: float
    test_accuracy: float
    test_loss: float
    quick_test_accuracy: float
    quick_test_loss: float
    parameters: int
    seconds: float
    torch: str
    command: str


def pack_data() -> None:
    """Write the shipped image subset and text into `models_zoo/data`."""
    IMAGES_FILE.parent.mkdir(exist_ok=True)
    train_images, train_labels = (x[:SHIPPED_TRAIN_IMAGES].numpy() for x in full_fashion("train"))
    test_images, test_labels = (x.numpy() for x in full_fashion("test"))
    np.savez_compressed(
        IMAGES_FILE,
        train_images=train_images,
        train_labels=train_labels.astype(np.uint8),
        test_images=test_images,
        test_labels=test_labels.astype(np.uint8),
    )
    texts = [(LICENCE_FOLDER / name).read_text(encoding="utf-8") for name in LICENCES]
    TEXT_FILE.write_text("\n\n".join(texts), encoding="utf-8")
    for path in (IMAGES_FILE, TEXT_FILE):
        print(f"{path.name}: {path.stat().st_size:,} bytes")


def train_entry(name: str, seed: int, epochs: int) -> None:
    """Train one network, or go on with it, then write its checkpoint and report."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    RUNS.mkdir(exist_ok=True)

    def say(done: int, loss: float) -> None:
        print(f"{name} seed {seed}: epoch {done}/{epochs}, training loss {loss:.4f} nats", flush=True)

    model, seconds = train(name, seed, epochs, RUNS / f"{name}-s{seed}-e{epochs}.pt", say)
    result = measure(model, name, seed, epochs, seconds)
    write_checkpoint(model, result)
    print(json.dumps(result))


def measure(model: nn.Module, name: str, seed: int, epochs: int, seconds: float) -> Result:
    """Accuracies and losses on the shipped subset, with how the network came about."""
    train_accuracy, train_loss = evaluate(model, load_batches(ZOO[name].train_loader))
    test = load_batches(ZOO[name].test_loader)
    test_accuracy, test_loss = evaluate(model, test)
    quick_accuracy, quick_loss = evaluate(model, test[:QUICK_BATCHES])
    return Result(
        name=name,
        seed=seed,
        epochs=epochs,
        train_subset_accuracy=round(train_accuracy, 4),
        train_subset_loss=round(train_loss, 4),
        test_accuracy=round(test_accuracy, 4),
        test_loss=round(test_loss, 4),
        quick_test_accuracy=round(quick_accuracy, 4),
        quick_test_loss=round(quick_loss, 4),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        seconds=round(seconds, 1),
        torch=torch.__version__,
        command=f"python tools/train_zoo.py train {name} --seed {seed} --epochs {epochs}",
    )


def finetune_entry(tuned: Tuned, epochs: int) -> None:
    """Fine-tune one network, then write its checkpoint, and its accuracy on every task before and after."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)

    def say(done: int, loss: float) -> None:
        print(f"{tuned.path.stem}: epoch {done}/{epochs}, training loss {loss:.4f} nats", flush=True)

    before = accuracies(load(tuned.base, tuned.seed))
    model, seconds = finetune(tuned, epochs, say)
    report = {
        **dataclasses.asdict(tuned),
        "epochs": epochs,
        "train_images": TUNING_IMAGES,
        "test_accuracy_before": before,
        "test_accuracy": accuracies(model),
        "seconds": round(seconds, 1),
        "torch": torch.__version__,
        "command": f"python tools/train_zoo.py finetune {tuned.base} {tuned.task} --epochs {epochs}",
    }
    FINETUNED.mkdir(exist_ok=True)
    write_files(tuned.path, model, {"task": tuned.task, "base": f"{tuned.base}-s{tuned.seed}"}, report)
    print(json.dumps(report))


def accuracies(model: nn.Module) -> dict[str, float]:
    """Test accuracy on every task."""
    return {task: round(evaluate(model, batches("test", task=task))[0], 4) for task in TASKS}


def load_batches(loader: str) -> Batches:
    """The batches that a `module:function` loader gives."""
    module, function = loader.split(":")
    found: Batches = getattr(importlib.import_module(module), function)()
    return found


def write_checkpoint(model: nn.Module, result: Result) -> None:
    """Write the weights and, beside them, the report; each file appears whole or not at all."""
    kept = ("seed", "epochs", "test_accuracy", "test_loss")
    metadata = {key: str(value) for key, value in result.items() if key in kept}
    stored = model.to(getattr(torch, RECIPES[result["name"]].stored))
    write_files(checkpoint(result["name"], result["seed"]), stored, metadata, result)


def write_files(
    weights: Path, model: nn.Module, metadata: Mapping[str, str], report: Mapping[str, object]
) -> None:
    """Write a checkpoint with its metadata, and a report as JSON beside it."""
    tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
    partial = weights.with_suffix(".partial")
    save_file(tensors, partial, metadata=dict(metadata))
    partial.chmod(0o644)  # safetensors writes files that only their owner may read
    partial.replace(weights)
    partial.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    partial.replace(weights.with_suffix(".json"))


def print_table() -> None:
    """Print the reports of all checkpoints as a Markdown table."""
    print("| network | seed | parameters | epochs | train subset | test | test loss (nats) |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for path in sorted(CHECKPOINTS.glob("*.json")):
        result: Result = json.loads(path.read_text(encoding="utf-8"))
        print(
            f"| {result['name']} | {result['seed']} | {result['parameters']:,} | {result['epochs']} "
            f"| {result['train_subset_accuracy']:.2%} | {result['test_accuracy']:.2%} "
            f"| {result['test_loss']:.4f} |"
        )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Make the model zoo.")
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="train one network, or resume it from its last epoch")
    training.add_argument("name", choices=sorted(ZOO))
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--epochs", type=int, help="how long to train; the recipe's number if left out")
    tuning = commands.add_parser("finetune", help="fine-tune one network on another task")
    tuning.add_argument("name", choices=sorted({t.base for t in TUNED}))
    tuning.add_argument("task", choices=sorted({t.task for t in TUNED}))
    tuning.add_argument("--epochs", type=int, default=TUNING_EPOCHS)
    commands.add_parser("pack-data", help="write the data that ships with the package")
    commands.add_parser("table", help="print all checkpoints as a Markdown table")
    arguments = parser.parse_args()
    if arguments.command == "train":
        train_entry(arguments.name, arguments.seed, arguments.epochs or RECIPES[arguments.name].epochs)
    elif arguments.command == "finetune":
        finetune_entry(Tuned(arguments.name, 0, arguments.task), arguments.epochs)
    elif arguments.command == "pack-data":
        pack_data()
    else:
        print_table()


if __name__ == "__main__":
    main()
