"""How a network is trained: what a user may set, and the rest as it measured best (docs/TRAINING.md)."""

from dataclasses import dataclass

EPOCHS, BATCH = 20, 64


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a user may set about training; ranges are those of the options (`onnxprune.pipeline.table`).

    epochs: passes over the samples; where these are few, a pass goes over them several times (docs/TRAINING.md).
    minutes: the most that training takes; the rate falls to zero by then.
    lr: the largest step of a weight, as a share of the root mean square of its tensor; None: by what there is to learn.
    batch_size: samples a step.
    device: "cpu", "cuda", or a device of torch such as "cuda:1".
    seed: of the order of the samples and of their changes.
    resume: a file that the state is kept in after every epoch, and gone on from where it is there.
    """

    epochs: int = EPOCHS
    minutes: float | None = None
    lr: float | None = None
    batch_size: int = BATCH
    device: str = "cpu"
    seed: int = 0
    resume: str | None = None
