"""A few epochs of a tiny network on sounds that anyone can tell apart."""

import logging
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from configs.schema import AugmentConfig, Config, InputConfig, ModelConfig, PredictConfig, TrainConfig
from console.errors import UserError
from runs.run_folder import CHECKPOINT
from tests.conftest import MakeStore
from training import losses
from training.fold_data import split
from training.lit_tagger import LitTagger, State, build_lit_tagger
from training.loggers import open_loggers
from training.losses import soft_cross_entropy
from training.schedule import one_cycle
from training.trainer import RunKeeper, build_trainer, finished_epochs, quiet

CPU = torch.device("cpu")
CLASSES = ("high", "low", "mid")
CFG = Config(
    model=ModelConfig(name="resnetish10", width=8, dropout=0.1),
    augment=AugmentConfig(mixup_alpha=0.2, time_masks=1, time_mask_frames=3, freq_masks=1, freq_mask_mels=2, gain=0.1),
    train=TrainConfig(epochs=3, batch_size=6, crop_seconds=1.0, lr=3e-3),
    predict=PredictConfig(window_seconds=1.0),
)


def train_config(**values: object) -> Config:
    return replace(CFG, train=replace(CFG.train, **values))  # type: ignore[arg-type]


EVERYTHING = {  # that has a state of its own, or changes what an epoch is; the second stage has 11 of 14 clips
    "ema": 0.8,
    "average_epochs": 3,
    "finetune_epochs": 2,
    "balanced": True,
    "unverified_loss": "bootstrap",
}


def lit_of(make_store: MakeStore, cfg: Config = CFG, n: int = 21, precision: str = "fp32") -> LitTagger:
    """Class c is loud in bands 2c and 2c + 1; the last third of the clips validates; every fifth is unverified."""
    rng = np.random.default_rng(0)
    label = np.arange(n) % 3
    clips = []
    for c in label:
        clip = rng.normal(-6, 1, (int(rng.integers(8, 25)), 6))
        clip[:, 2 * c : 2 * c + 2] += 5
        clips.append(clip)
    store = make_store(clips)
    folds = pd.DataFrame({"fname": store.fnames, "label": [CLASSES[c] for c in label]})
    folds = folds.assign(verified=np.arange(n) % 5 > 0, fold=(np.arange(n) < n - n // 3).astype(int))
    parts = split(cfg.train, folds, store, CLASSES, 0)
    return build_lit_tagger(cfg, 0, parts, store, CPU, precision)


def fit(lit: LitTagger, folder: Path, epochs: int | None = None, precision: str = "fp32") -> list[dict[str, float]]:
    """As train_fold.py does, without the console; the scores that were reported."""
    reported: list[dict[str, float]] = []
    last = folder / CHECKPOINT
    done = finished_epochs(last)
    with quiet(), open_loggers(lit.cfg.loggers, folder, done) as loggers:
        keeper = RunKeeper(folder, reported.append, lambda n, note="": None, loggers)
        trainer = build_trainer(lit, precision, keeper, epochs or lit.epochs)
        trainer.fit(lit, ckpt_path=last if last.exists() else None, weights_only=True)
    return reported


def test_every_batch_draws_the_length_of_its_crops(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    lit = lit_of(make_store, train_config(crop_seconds_min=0.8))  # at 10 frames a second: 8, 9 or 10
    lengths: list[int] = []

    def listen(x: torch.Tensor) -> torch.Tensor:
        lengths.append(x.shape[3])
        return torch.zeros(len(x), 3)

    lit.rng = np.random.default_rng(0)
    monkeypatch.setattr(lit, "_network", (listen,))
    for _ in range(40):
        lit.training_step(np.arange(6), 0)
    assert set(lengths) == {8, 9, 10}


def test_a_mask_shows_the_mean_even_where_normalisation_takes_none(make_store: MakeStore) -> None:
    one, other = (lit_of(make_store, train_config(normalise=kind)) for kind in ("per_mel", "decibel"))
    fill, same = (lit.stages[0].augment.fill for lit in (one, other))
    assert torch.equal(fill, same) and fill.max() < -1
    assert not other.tagger.mean.any()


def test_fixed_numbers_come_from_the_config(make_store: MakeStore) -> None:
    lit = lit_of(make_store, train_config(normalise="fixed", fixed_mean=-4.5, fixed_std=5.0))
    assert set(lit.tagger.mean.tolist()) == {-4.5} and set(lit.tagger.std.tolist()) == {5.0}


def test_short_clips_are_padded_as_the_config_says(make_store: MakeStore) -> None:
    assert lit_of(make_store).batches.padding == "silence"
    assert lit_of(make_store, replace(CFG, input=InputConfig(padding="repeat"))).batches.padding == "repeat"


def test_every_clip_is_trained_on_once_an_epoch(make_store: MakeStore, tmp_path: Path) -> None:
    """14 training clips in batches of up to 6: three steps an epoch, not one over several loaders."""
    lit = lit_of(make_store)
    seen: list[list[int]] = []
    crop = lit.batches.crop
    lit.batches.crop = lambda rows, n, rng: (seen.append(rows.tolist()), crop(rows, n, rng))[1]  # type: ignore
    fit(lit, tmp_path)
    assert [len(rows) for rows in seen] == [5, 5, 4] * 3
    epochs = [[row for rows in seen[i : i + 3] for row in rows] for i in (0, 3, 6)]
    assert all(sorted(epoch) == sorted(lit.parts.train.tolist()) for epoch in epochs)
    assert epochs[0] != epochs[1]  # shuffled anew
    assert lit.trainer.global_step == 9


def test_the_learning_rate_ends_at_0_and_norms_are_not_decayed(make_store: MakeStore, tmp_path: Path) -> None:
    lit = lit_of(make_store)
    reported = fit(lit, tmp_path)
    rates = [row["lr"] for row in reported]
    np.testing.assert_allclose(rates, [CFG.train.lr * one_cycle(step, 9, 0.1) for step in (3, 6, 9)], atol=1e-12)
    decayed, plain = lit.trainer.optimizers[0].param_groups
    assert decayed["weight_decay"] == CFG.train.weight_decay and plain["weight_decay"] == 0
    assert {p.dim() for p in decayed["params"]} == {2, 4} and {p.dim() for p in plain["params"]} == {1}
    n = sum(p.numel() for group in (decayed, plain) for p in group["params"])
    assert n == sum(p.numel() for p in lit.tagger.parameters())


def test_it_learns_what_anyone_can_tell_apart(make_store: MakeStore, tmp_path: Path) -> None:
    lit = lit_of(make_store, train_config(epochs=8), n=60)
    reported = fit(lit, tmp_path)
    assert max(row["map3"] for row in reported) > 0.9
    assert reported[-1]["loss"] < reported[0]["loss"]


def test_the_best_epoch_is_the_first_of_the_highest_map3(make_store: MakeStore, tmp_path: Path) -> None:
    lit = lit_of(make_store, train_config(epochs=4, keep="best"))
    given = iter([0.2, 0.7, 0.7, 0.1])
    states = []

    def validate(tagger: torch.nn.Module) -> dict[str, float]:
        states.append({k: v.clone() for k, v in tagger.state_dict().items()})
        return {"map3": next(given), "accuracy": 0.5}

    lit.validate = validate
    fit(lit, tmp_path)
    assert lit.best_epoch == 1
    assert all(torch.equal(v, states[1][k]) for k, v in lit.best.items())
    assert not torch.equal(lit.best["backbone.head.2.weight"], states[3]["backbone.head.2.weight"])


def test_validation_has_no_randomness_and_leaves_training_mode(make_store: MakeStore) -> None:
    lit = lit_of(make_store)
    lit.tagger.train()
    assert lit.validate(lit.tagger) == lit.validate(lit.tagger)
    assert lit.tagger.training


def same(one: LitTagger, other: LitTagger) -> bool:
    a, b = one.tagger.state_dict(), other.tagger.state_dict()
    return one.history == other.history and all(torch.equal(a[k], b[k]) for k in a)


def test_seeds_fix_everything(make_store: MakeStore, tmp_path: Path) -> None:
    lits = [lit_of(make_store, cfg) for cfg in (CFG, CFG, train_config(seed=1))]
    for i, lit in enumerate(lits):
        torch.manual_seed(i)  # what happened before must not matter
        (tmp_path / str(i)).mkdir()
        fit(lit, tmp_path / str(i))
    assert same(lits[0], lits[1])
    assert not same(lits[0], lits[2])


@pytest.mark.parametrize(
    ("options", "stop"),
    [({}, 1), ({}, 3), ({"keep": "best"}, 2), *((EVERYTHING, stop) for stop in (1, 3, 4, 5))],
)
def test_going_on_from_a_checkpoint_ends_as_if_undisturbed(
    make_store: MakeStore, tmp_path: Path, options: dict[str, object], stop: int
) -> None:
    """Also from the last epoch of a stage, and from the last of all, after which nothing is left but what is kept."""
    folders = [tmp_path / name for name in ("whole", "halves")]
    for folder in folders:
        folder.mkdir()
    whole, first, second = (lit_of(make_store, train_config(**options)) for _ in range(3))
    fit(whole, folders[0])
    fit(first, folders[1], epochs=stop)
    assert finished_epochs(folders[1] / CHECKPOINT) == stop
    reported = fit(second, folders[1])
    assert [row["epoch"] for row in reported] == list(range(stop + 1, whole.epochs + 1))
    assert same(whole, second)
    assert second.kept_epoch == whole.kept_epoch
    assert equal(second.kept, whole.kept)
    csv = [(folder / "metrics.csv").read_text() for folder in folders]
    assert csv[0] == csv[1]


def equal(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())


def watch(lit: LitTagger) -> list[State]:
    """Copies of the weights that are validated, epoch by epoch."""
    states: list[State] = []
    validate = lit.validate
    lit.validate = lambda tagger: (states.append(copied(tagger)), validate(tagger))[1]
    return states


def copied(tagger: torch.nn.Module) -> State:
    return {k: v.clone() for k, v in tagger.state_dict().items()}


def test_the_last_epoch_is_kept_and_nothing_is_copied(make_store: MakeStore, tmp_path: Path) -> None:
    lit = lit_of(make_store)
    states = watch(lit)
    fit(lit, tmp_path)
    assert equal(lit.kept, states[-1]) and lit.kept_epoch == 3
    saved = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert not saved["best"] and all(key.startswith("tagger.") for key in saved["state_dict"])


def test_the_average_of_the_steps_is_validated_and_kept_while_the_raw_weights_go_on(
    make_store: MakeStore, tmp_path: Path
) -> None:
    lit = lit_of(make_store, train_config(ema=0.5))
    validated, raw = watch(lit), [copied(lit.tagger)]
    step = lit.training_step
    lit.training_step = lambda rows, batch_idx: (raw.append(copied(lit.tagger)), step(rows, batch_idx))[1]  # type: ignore
    fit(lit, tmp_path)
    raw = [*raw[2:], copied(lit.tagger)]  # after every step but 1: the weights that the next step begins with
    assert len(raw) == 9
    key = "backbone.head.2.weight"
    average = raw[0][key]
    for n, state in enumerate(raw[1:], start=1):
        decay = min(0.5, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * state[key]
        if n % 3 == 2:
            torch.testing.assert_close(validated[n // 3][key], average)
    assert equal(lit.kept, validated[-1])
    (tmp_path / "plain").mkdir()
    plain = lit_of(make_store)
    fit(plain, tmp_path / "plain")
    assert equal(copied(plain.tagger), raw[-1])  # training never saw the average
    counted, mean = (next(k for k in lit.kept if k.endswith(end)) for end in ("_tracked", "running_mean"))
    assert lit.kept[counted] == raw[-1][counted] == 9
    assert not torch.equal(lit.kept[mean], raw[-1][mean])


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_the_mean_of_the_last_epochs_is_kept(make_store: MakeStore, tmp_path: Path, ema: float) -> None:
    """Of epochs 2 and 3 of the three, the second of them a finetuning one; of their averages where steps are too."""
    options = {"epochs": 2, "finetune_epochs": 1, "average_epochs": 2, "ema": ema}
    lit = lit_of(make_store, train_config(**options))
    validated = watch(lit)
    ends: list[State] = []
    validation_step = lit.validation_step

    def step(rows: np.ndarray, batch_idx: int) -> None:
        ends.append({k: v.clone() for k, v in (lit.ema.network if lit.ema else lit.tagger).state_dict().items()})
        validation_step(rows, batch_idx)

    lit.validation_step = step  # type: ignore
    fit(lit, tmp_path)
    assert equal(validated[0], ends[0]) and equal(validated[1], ends[1])
    for key in (k for k, v in lit.kept.items() if v.is_floating_point()):
        torch.testing.assert_close(lit.kept[key], (ends[1][key] + ends[2][key]) / 2)
    assert equal(lit.kept, validated[2]) and not equal(lit.kept, ends[2])
    assert lit.kept_epoch == 3


def test_the_best_epoch_of_averages_is_a_copy(make_store: MakeStore, tmp_path: Path) -> None:
    lit = lit_of(make_store, train_config(ema=0.5, keep="best"))
    given = iter([0.2, 0.7, 0.1])
    lit.validate = lambda tagger: {"map3": next(given)}
    validated = watch(lit)
    fit(lit, tmp_path)
    assert equal(lit.kept, validated[1]) and lit.kept_epoch == 2


def test_finetuning_is_on_verified_clips_without_mixing(make_store: MakeStore, tmp_path: Path) -> None:
    lit = lit_of(make_store, train_config(epochs=1, finetune_epochs=2, finetune_lr=1e-4))
    seen: list[list[int]] = []
    labels: list[torch.Tensor] = []
    crop, loss = lit.batches.crop, lit.loss
    lit.batches.crop = lambda rows, n, rng: (seen.append(rows.tolist()), crop(rows, n, rng))[1]  # type: ignore
    lit.loss = lambda z, y, w: (labels.append(y), loss(z, y, w))[1]  # type: ignore
    lit.loss.with_unverified = loss.with_unverified  # type: ignore
    reported = fit(lit, tmp_path)
    assert [len(rows) for rows in seen] == [5, 5, 4, 6, 5, 6, 5]
    verified = [row for row in lit.parts.train.tolist() if row % 5]
    assert sorted(seen[3] + seen[4]) == sorted(seen[5] + seen[6]) == verified
    assert not all(bool((y.max(dim=1).values == 1).all()) for y in labels[:3])
    assert all(bool((y.max(dim=1).values == 1).all()) for y in labels[3:])
    assert [row["epoch"] for row in reported] == [1, 2, 3]
    np.testing.assert_allclose([row["lr"] for row in reported], [1e-4, 1e-4 * one_cycle(2, 4, 0.1), 0], atol=1e-12)
    assert lit.trainer.global_step == 7


def test_an_epoch_can_be_balanced(make_store: MakeStore, tmp_path: Path) -> None:
    lit = lit_of(make_store, train_config(balanced=True))
    lit.parts.targets[:4] = [1, 0, 0]
    rows = np.concatenate(list(lit.train_dataloader()))
    assert len(rows) == 14
    assert sorted(np.bincount(lit.parts.labels[rows])) == [4, 5, 5]


@pytest.mark.parametrize(("kind", "inner"), [("bootstrap", "bootstrapped"), ("truncate", "truncated")])
def test_the_loss_hears_which_part_of_mixed_labels_is_unverified(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, kind: str, inner: str
) -> None:
    """Of rows 0 to 6 with labels 0 1 2 0 1 2 0, rows 0 and 5 are unverified; each is mixed with the one across."""
    lit = lit_of(make_store, train_config(unverified_loss=kind))
    given: list[tuple[torch.Tensor, ...]] = []
    real = getattr(losses, inner)
    monkeypatch.setattr(losses, inner, lambda *a: (given.append(a[1:3]), real(*a))[1])

    def mix(*three: object) -> list[torch.Tensor]:
        return [0.75 * t + 0.25 * t.flip(0) for t in three[:3]]  # type: ignore[attr-defined]

    lit.stages = [replace(lit.stages[0], augment=mix)]  # type: ignore[arg-type]
    lit.rng = np.random.default_rng(0)
    assert torch.isfinite(lit.training_step(np.arange(7), 0))
    ((label, doubtful),) = given
    assert label[:2].tolist() == [[1, 0, 0], [0, 0.75, 0.25]]
    assert doubtful.tolist() == [
        *([0.75, 0, 0], [0, 0, 0.25], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0.75], [0.25, 0, 0]),
    ]


def test_tensorboard_and_csv_hold_every_epoch_once(make_store: MakeStore, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit(lit_of(make_store), tmp_path, epochs=2)
    fit(lit_of(make_store), tmp_path)
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    names = lines[0].split(",")
    assert names == ["epoch", "loss", "lr", "map3", "accuracy", "map3_verified"]
    for name in names:
        events = board.Scalars(name)
        assert [e.step for e in events] == [1, 2, 3]
        column = [float(line.split(",")[names.index(name)]) for line in lines[1:]]
        np.testing.assert_allclose([e.value for e in events], column, rtol=1e-4, atol=1e-9)


def test_lightning_leaves_nothing_behind_and_says_nothing(
    make_store: MakeStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    fit(lit_of(make_store), tmp_path / "run")
    assert list((tmp_path / "here").iterdir()) == []
    names = sorted(f.name.partition(".")[0] for f in (tmp_path / "run").iterdir())
    assert names == ["events", "hparams", "last", "metrics"]  # the second one goes when the folder is whole
    assert capfd.readouterr() == ("", "")
    assert [str(w.message) for w in recwarn] == []


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_epoch(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lit = lit_of(make_store)
    broken = 4  # in the second epoch

    def loss(*given: torch.Tensor) -> torch.Tensor:
        return soft_cross_entropy(*given) * (math.nan if lit.trainer.global_step == broken else 1)

    monkeypatch.setattr(losses, "soft_cross_entropy", loss)
    with pytest.raises(UserError, match=r"diverged in epoch 2 \(loss nan\).*train\.lr than 0\.003 and --force"):
        fit(lit, tmp_path)
    assert finished_epochs(tmp_path / CHECKPOINT) == 1
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 2


def test_divergence_in_the_second_stage_names_its_learning_rate(make_store: MakeStore, tmp_path: Path) -> None:
    lit = lit_of(make_store, train_config(epochs=1, finetune_epochs=1, finetune_lr=0.5))

    def diverge(tagger: torch.nn.Module) -> dict[str, float]:
        if lit.current_epoch:
            raise FloatingPointError
        return {"map3": 0.5}

    lit.validate = diverge
    with pytest.raises(UserError, match=r"diverged in epoch 2 .* lower train\.finetune_lr than 0\.5 and --force"):
        fit(lit, tmp_path)


def test_weights_that_broke_in_the_last_step_stop_too(make_store: MakeStore, tmp_path: Path) -> None:
    lit = lit_of(make_store)
    lit.on_train_batch_end = lambda *_: lit.tagger.backbone.head[2].weight.data.fill_(math.inf)  # type: ignore
    with pytest.raises(UserError, match="diverged in epoch 1"):
        fit(lit, tmp_path)


def test_finite_weights_that_answer_nan_stop_too(make_store: MakeStore, tmp_path: Path) -> None:
    """As in fp16, where activations overflow."""
    lit = lit_of(make_store)
    lit.tagger.backbone.register_forward_hook(lambda net, _, out: out if net.training else out * math.nan)  # type: ignore
    with pytest.raises(UserError, match=r"diverged in epoch 1 \(loss [0-9.]+\).*train\.lr than 0\.003 and --force"):
        fit(lit, tmp_path)


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    assert finished_epochs(tmp_path / CHECKPOINT) == 0
    (tmp_path / CHECKPOINT).write_bytes(b"torn")
    with pytest.raises(UserError, match=r"last\.ckpt: damaged .*--force"):
        finished_epochs(tmp_path / CHECKPOINT)
    torch.save({"history": []}, tmp_path / CHECKPOINT)  # as an older version wrote it
    with pytest.raises(UserError, match=r"last\.ckpt: damaged \(it lacks best\).*--force"):
        finished_epochs(tmp_path / CHECKPOINT)


def test_bf16_trains_on_a_cpu(make_store: MakeStore, tmp_path: Path) -> None:
    lit = lit_of(make_store, train_config(precision="bf16"), precision="bf16")
    kinds = set()
    lit.tagger.backbone.stem.register_forward_hook(lambda m, i, out: kinds.add(out.dtype))
    reported = fit(lit, tmp_path, precision="bf16")
    assert kinds == {torch.bfloat16}  # training and validation alike
    assert all(math.isfinite(row["loss"]) for row in reported)
    assert all(p.dtype == torch.float32 for p in lit.tagger.parameters())


def test_compile_runs_the_network_and_leaves_the_state_alone(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced for real, but run by PyTorch itself: not every machine that tests has a C++ compiler."""
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(len(graph.graph.nodes))
        return graph

    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network: compile(network, backend=backend))
    compiled, plain = lit_of(make_store, train_config(compile=True)), lit_of(make_store)
    fit(compiled, tmp_path / "compiled")
    fit(plain, tmp_path / "plain")
    assert 1 <= len(graphs) <= 2, "batches of 5 and of 4 clips: not one graph a batch"
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    assert set(compiled.kept) == set(plain.tagger.state_dict())
    assert compiled.history[-1]["loss"] == pytest.approx(plain.history[-1]["loss"], abs=1e-4)


@pytest.mark.parametrize(("n", "sizes"), [(10, [3, 2, 2]), (4, [3]), (3, [2])])
def test_few_clips_train(make_store: MakeStore, tmp_path: Path, n: int, sizes: list[int]) -> None:
    """No batch of one clip where it can be helped; of three clips two train, and one class is never seen."""
    lit = lit_of(make_store, train_config(epochs=1, batch_size=3), n=n)
    fit(lit, tmp_path)
    assert [len(batch) for batch in lit.train_dataloader()] == sizes
    assert math.isfinite(lit.history[0]["loss"])


def test_normalisation_and_masks_know_the_training_rows_only(make_store: MakeStore) -> None:
    lit = lit_of(make_store)
    expected = lit.batches.store.mean[lit.parts.train].mean(axis=0)
    np.testing.assert_allclose(lit.tagger.mean.numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(lit.stages[0].augment.fill.flatten().numpy(), expected, rtol=1e-5)


def test_quiet_is_over_after_an_error() -> None:
    log = logging.getLogger("pytorch_lightning")
    level = log.level
    with pytest.raises(RuntimeError), quiet():
        assert log.level == logging.ERROR
        raise RuntimeError
    assert log.level == level


def test_weights_and_labels_reach_the_loss(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = replace(CFG, augment=AugmentConfig())
    lit = lit_of(make_store, cfg)
    rows = lit.parts.train[:4]
    weights = lit.parts.weights.copy()
    weights[rows] = [0.0, 0.5, 1.0, 2.0]
    parts = replace(lit.parts, weights=weights)
    lit = LitTagger(cfg.train, lit.tagger, lit.sources, parts, lit.stages, lit.validate, (0, 0))
    given = {}

    def loss(logits: torch.Tensor, y: torch.Tensor, w: torch.Tensor, *more: float) -> torch.Tensor:
        given.update(y=y, w=w)
        return logits.sum()

    monkeypatch.setattr(losses, "soft_cross_entropy", loss)
    lit.rng = np.random.default_rng(0)
    lit.training_step(rows, 0)
    assert given["w"].tolist() == [0.0, 0.5, 1.0, 2.0]
    assert given["y"].argmax(dim=1).tolist() == (rows % 3).tolist()


def test_what_batch_normalisation_cannot_take_is_refused_before_training(make_store: MakeStore) -> None:
    """6 mels x 10 frames, halved until one cell is left: of a batch of one it has no spread."""
    with pytest.raises(
        UserError, match=r"cannot take 1 x 6 mels x 10 frames \(Expected more .*\): longer train\.crop_s"
    ):
        lit_of(make_store, train_config(batch_size=1))
    lit_of(make_store, train_config(batch_size=13))  # 14 clips in two batches of seven, not of thirteen and one
