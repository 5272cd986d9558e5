"""The plug-ins train as a loop written by hand does, step by step; the examples run."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from timm.data import FastCollateMixup, Mixup
from timm.data.loader import PrefetchLoader
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import labeltrace
from labeltrace import LabelError, MixedBatch, MixedTargets

EXAMPLES = Path(__file__).parents[2] / "examples"
NUM_CLASSES, SMOOTHING, RATE = 5, 0.1, 0.5
BATCH = 6


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def left_third(images: Tensor, targets: Tensor) -> MixedBatch:
    """Paste the left third of the image before: a mixer that draws nothing."""
    partner = torch.arange(len(images)).roll(1)
    theirs = torch.arange(images.shape[3]) < images.shape[3] // 3
    mixed = torch.where(theirs, images[partner], images)
    labels = (
        torch.stack([~theirs, theirs])
        .float()[None, :, None]
        .repeat(len(images), 1, images.shape[2], 1)
    )
    return MixedBatch(mixed, labels, torch.stack([targets, targets[partner]], 1))


def small_vit() -> VisionTransformer:
    torch.manual_seed(1)
    return VisionTransformer(
        img_size=12, patch_size=4, in_chans=1, num_classes=NUM_CLASSES, embed_dim=12, depth=2,
        num_heads=3,
    )  # fmt: skip


def samples(count: int = 4 * BATCH) -> TensorDataset:
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(count, 1, 12, 12, generator=generator)
    return TensorDataset(images, torch.randint(NUM_CLASSES, (count,), generator=generator))


def by_hand(model: nn.Module, smoothing: float = SMOOTHING, every: int = 1) -> list[float]:
    """Train on `samples`, a step of gradient descent every so many batches; return the losses."""
    aligned = labeltrace.align(model)
    images, targets = samples().tensors
    losses = []
    for number, (x, y) in enumerate(zip(images.split(BATCH), targets.split(BATCH), strict=True), 1):
        batch = left_third(x, y)
        outputs, labels = aligned(batch.images, batch.labels)
        log_probabilities = _logits(outputs).log_softmax(1)
        loss = torch.zeros(())
        for row in range(BATCH):
            for source, share in enumerate(_logits(labels)[row].tolist()):
                of_class = log_probabilities[row, batch.classes[row, source]]
                loss = loss - (1 - smoothing) * share * of_class / BATCH
        loss = loss - smoothing * log_probabilities.mean()
        losses.append(loss.item())
        (loss / every).backward()
        if number % every == 0:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= RATE * parameter.grad
            model.zero_grad()
    return losses


def _logits(outputs: Any) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else outputs["logits"]


def descent(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=RATE)


def assert_same_training(found: nn.Module, expected: nn.Module) -> None:
    theirs = expected.state_dict()
    assert list(found.state_dict()) == list(theirs)
    for name, value in found.state_dict().items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, list[float]]:
    with torch.random.fork_rng(devices=[]):
        model = small_vit()
        return model, by_hand(model)


def test_importing_labeltrace_imports_no_trainer() -> None:
    names = {"timm", "torchvision", "lightning", "pytorch_lightning", "transformers", "accelerate"}
    code = f"import labeltrace, sys; print(sorted({names} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Targets apart from their images.


def test_targets_of_unmixed_images_are_their_own_classes() -> None:
    classes = torch.tensor([3, 0, 2], dtype=torch.int32)
    targets = MixedTargets.unmixed(classes)
    assert targets.labels.shape == (3, 2, 1, 1)
    one_hot = F.one_hot(classes.long(), NUM_CLASSES).float()
    assert targets.soft_targets(targets.mixing_ratio, NUM_CLASSES).equal(one_hot)


def test_targets_move_as_one() -> None:
    moved = MixedTargets.unmixed(torch.tensor([1, 2])).to("meta", non_blocking=True)
    assert moved.labels.is_meta
    assert moved.classes.is_meta


# timm.


def test_timm_task_trains_as_by_hand(trained: tuple[nn.Module, list[float]]) -> None:
    from labeltrace.plugins.timm import AlignedClassificationTask, AlignedMixup

    model = small_vit()
    task = AlignedClassificationTask(model, smoothing=SMOOTHING)
    task.setup_ema(decay=0.0)  # no memory: the average is the model
    optimizer = descent(task.get_trainable_module().parameters())
    mixup_fn = AlignedMixup(left_third)
    losses = []
    for images, targets in DataLoader(samples(), BATCH):
        result = task(*mixup_fn(images, targets))
        result["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        task.update_ema()
        losses.append(result["loss"].item())
    assert losses == pytest.approx(trained[1], rel=1e-4)
    assert_same_training(model, trained[0])
    state = task.get_checkpoint_state() | task.get_checkpoint_state(ema=True)
    for name, value in model.state_dict().items():
        assert state["state_dict"][name].equal(value)
        assert state["state_dict_ema"][name].equal(value)


def test_timm_task_takes_other_losses_and_switches_mixing_off() -> None:
    from labeltrace.plugins.timm import AlignedClassificationTask, AlignedMixup

    images, classes = samples(BATCH).tensors
    task = AlignedClassificationTask(
        small_vit(), criterion_kwargs={"loss_type": "bce", "bce_sum": True}
    )
    mixup_fn = AlignedMixup(left_third)
    mixup_fn.mixup_enabled = False
    result = task(*mixup_fn(images, classes))
    one_hot = F.one_hot(classes, NUM_CLASSES).float()
    expected = F.binary_cross_entropy_with_logits(result["output"], one_hot) * NUM_CLASSES
    assert result["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    with pytest.raises(LabelError, match="must be MixedTargets, got Tensor; mix with"):
        task(images, classes)


@pytest.mark.parametrize("seed", range(4))  # two of them blend, two paste
def test_timm_collate_mixes_as_fast_collate_mixup_does(seed: int) -> None:
    from labeltrace.plugins.timm import AlignedCollate

    draws = np.random.default_rng(seed)
    batch = [
        (draws.integers(256, size=(3, 7, 5), dtype=np.uint8), int(draws.integers(NUM_CLASSES)))
        for _ in range(BATCH)
    ]
    settings = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "num_classes": NUM_CLASSES}
    settings["label_smoothing"] = SMOOTHING
    np.random.seed(seed)
    expected_images, expected_targets = FastCollateMixup(**settings)(batch)
    np.random.seed(seed)
    collate = AlignedCollate(labeltrace.track_mixing(Mixup(**settings)))
    images, targets = collate(batch)
    assert images.dtype == torch.uint8
    assert (images.int() - expected_images.int()).abs().max() <= 1  # ties of rounding
    soft = targets.soft_targets(targets.mixing_ratio, NUM_CLASSES, SMOOTHING)
    torch.testing.assert_close(soft, expected_targets, rtol=0, atol=1e-4)


def test_timm_loader_switches_the_collate_off() -> None:
    from labeltrace.plugins.timm import AlignedCollate

    images = [(np.full((3, 6, 6), 40 * n, np.uint8), n) for n in range(BATCH)]
    inner = DataLoader(images, BATCH, collate_fn=AlignedCollate(left_third))
    cpu = torch.device("cpu")
    loader = PrefetchLoader(inner, mean=(0.0,) * 3, std=(1 / 255,) * 3, device=cpu)
    assert loader.mixup_enabled
    ((mixed, targets),) = loader
    assert mixed[1, 0, 0].tolist() == [0, 0, 40, 40, 40, 40]
    assert targets.classes[1].tolist() == [1, 0]
    loader.mixup_enabled = False
    ((plain, targets),) = loader
    assert plain[:, 0, 0, 0].tolist() == [0, 40, 80, 120, 160, 200]
    assert targets.mixing_ratio.tolist() == [[1, 0]] * BATCH


# torchvision.


def test_torchvision_loop_trains_as_by_hand(
    trained: tuple[nn.Module, list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from labeltrace.plugins.torchvision import MixedCollate

    monkeypatch.syspath_prepend(EXAMPLES)
    example = importlib.import_module("train_with_torchvision")
    monkeypatch.setattr(example, "NUM_CLASSES", NUM_CLASSES)
    model = small_vit()
    aligned = labeltrace.align(model)
    collate = pickle.loads(pickle.dumps(MixedCollate(left_third)))  # as workers receive it
    loader = DataLoader(samples(), BATCH, collate_fn=collate)
    criterion = nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    losses = example.train_one_epoch(
        aligned, criterion, descent(aligned.parameters()), loader, "cpu"
    )
    assert losses == pytest.approx(trained[1], rel=1e-4)
    assert_same_training(model, trained[0])


# Lightning.


def test_lightning_trains_as_by_hand(
    trained: tuple[nn.Module, list[float]], tmp_path: Path
) -> None:
    pl = pytest.importorskip("lightning.pytorch")
    from labeltrace.plugins.lightning import AlignedClassifier

    class Classifier(AlignedClassifier):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return descent(self.model.parameters())

    model = small_vit()
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    module = Classifier(model, left_third, SMOOTHING)
    trainer.fit(module, DataLoader(samples(), BATCH), DataLoader(samples(), BATCH))
    assert model.training  # as before the validation
    assert module.model.training
    logged = trainer.callback_metrics
    assert logged["train_loss"].item() == pytest.approx(trained[1][-1], rel=1e-4)
    assert_same_training(model, trained[0])

    images, targets = samples().tensors
    model.eval()
    plain_loss = F.cross_entropy(model(images), targets).item()
    assert logged["val_loss"].item() == pytest.approx(plain_loss, rel=1e-4)  # nothing was mixed
    assert module(images).equal(model(images))

    trainer.save_checkpoint(tmp_path / "last.ckpt")
    state = torch.load(tmp_path / "last.ckpt", weights_only=False)["state_dict"]
    assert list(state) == [f"model.{name}" for name in model.state_dict()]
    again = Classifier(small_vit(), left_third)
    again.load_state_dict(state)
    assert_same_training(again.model.module, model)


# Hugging Face.


def huggingface_vit() -> Any:
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(1)
    return ViTForImageClassification(
        ViTConfig(
            image_size=12, patch_size=4, num_channels=1, num_labels=NUM_CLASSES, hidden_size=12,
            num_hidden_layers=2, num_attention_heads=3, intermediate_size=24,
        )
    )  # fmt: skip


def named(batch: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    images, targets = zip(*batch, strict=True)
    return {"pixel_values": torch.stack(images), "labels": torch.stack(targets)}


def test_huggingface_trainer_trains_as_by_hand(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    transformers = pytest.importorskip("transformers")
    from labeltrace.plugins.transformers import AlignedTrainer

    expected = huggingface_vit().train()
    by_hand(expected, every=2)

    model = huggingface_vit()
    optimizer = descent(model.parameters())
    trainer = AlignedTrainer(
        model,
        transformers.TrainingArguments(
            str(tmp_path), num_train_epochs=1, per_device_train_batch_size=BATCH,
            gradient_accumulation_steps=2, label_smoothing_factor=SMOOTHING, max_grad_norm=0,
            use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no",
            train_sampling_strategy="sequential",
        ),
        mixer=left_third,
        data_collator=named,
        train_dataset=samples(),
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)),
    )  # fmt: skip
    trainer.train()
    assert_same_training(model, expected)

    images, targets = samples().tensors
    found = trainer.predict(samples())
    plain = model(images).logits.detach()
    torch.testing.assert_close(torch.as_tensor(found.predictions), plain)
    assert found.label_ids.tolist() == targets.tolist()

    trainer.save_model()
    again = type(model).from_pretrained(tmp_path)
    assert again(images).logits.equal(plain)


# Accelerate.


def test_accelerate_trains_as_by_hand() -> None:
    accelerate = pytest.importorskip("accelerate")
    from labeltrace.plugins.accelerate import MixedLoader

    expected = small_vit()
    losses_by_hand = by_hand(expected, every=2)

    model = small_vit()
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    aligned = labeltrace.align(model)
    aligned, optimizer, loader = accelerator.prepare(
        aligned, descent(aligned.parameters()), DataLoader(samples(), BATCH)
    )
    mixed = MixedLoader(loader, left_third)
    assert len(mixed) == 4
    assert mixed.dataset is loader.dataset
    losses = []
    for batch in mixed:
        with accelerator.accumulate(aligned):
            logits, labels = aligned(batch.images, batch.labels)
            soft_targets = batch.soft_targets(labels, NUM_CLASSES, SMOOTHING)
            loss = labeltrace.soft_cross_entropy(logits, soft_targets)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert losses == pytest.approx(losses_by_hand, rel=1e-4)
    assert_same_training(accelerator.unwrap_model(aligned), expected)


# The examples.


@pytest.mark.parametrize("trainer", ["timm", "lightning", "transformers", "accelerate"])
def test_examples_run(
    trainer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(trainer)
    monkeypatch.syspath_prepend(EXAMPLES)
    importlib.import_module(f"train_with_{trainer}").main(epochs=1, last=120)
    assert "accuracy 0." in capsys.readouterr().out
