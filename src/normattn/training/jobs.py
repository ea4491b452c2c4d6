"""A job: everything that one training needs, and the model that it begins with."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from torch import nn

from ..attention import Mechanism
from ..data import ImageData, open_data
from ..data.keyed import seeded
from ..errors import ConfigError, unknown
from ..model.fuse import fuse
from ..model.graft import graft
from ..model.hosts import host
from .recipes import Recipe


@dataclass(frozen=True)
class Job:
    """Everything that one training needs.

    Args:
        data: What to train on: ``digits``, ``parquet:DIR``, ``folder:DIR`` or ``timm:NAME``.
        host: The model that the mechanism is grafted into.
        mechanism: A label such as ``se`` or ``ean(groups=8)``; kept in canonical form.
        recipe: How to train.
        seed: Of initial weights, order, augmentation and dropout, each by a key of its own.
        stem: The host's first layers, ``imagenet`` or ``cifar``.
        host_options: Further options of the host.
        pretrained: Whether to start from the host's pretrained weights.
        sites: Where the mechanism goes; None takes its own places.
        start: ``paper`` or ``preserve``, as in `normattn.graft`.
        train_limit: Train on this many images only, balanced over the classes.
        on_bad_image: ``stop`` or ``skip``.
        image_size: Resize images to this size; None keeps theirs.
        fuse: Whether kernels compute what they can, as in `normattn.fuse`.

    Raises:
        ConfigError: an unknown mechanism, a seed that is no integer from 0, ``fuse`` neither
            True nor False, or a recipe that needs a teacher.
    """

    data: str
    host: str
    mechanism: str
    recipe: Recipe
    seed: int
    stem: str = "imagenet"
    host_options: Mapping[str, Any] = field(default_factory=dict)
    pretrained: bool = False
    sites: str | tuple[str, ...] | None = None
    start: str = "paper"
    train_limit: int | None = None
    on_bad_image: str = "stop"
    image_size: int | None = None
    fuse: bool = True

    def __post_init__(self) -> None:
        if type(self.seed) is not int or self.seed < 0:
            raise ConfigError(f"job: expected seed to be an integer >= 0, got {self.seed!r}.")
        if type(self.fuse) is not bool:
            raise ConfigError(f"job: expected fuse to be True or False, got {self.fuse!r}.")
        if self.recipe.distill:
            raise ConfigError(
                f"job: expected a recipe without distillation, got distill={self.recipe.distill}: "
                "a job has no teacher. Leave it at 0; `normattn slim` teaches with the original."
            )
        object.__setattr__(self, "mechanism", Mechanism.parse(self.mechanism).label)
        if isinstance(self.sites, list):
            object.__setattr__(self, "sites", tuple(self.sites))

    def to_json(self) -> dict[str, Any]:
        """Return the job in plain containers, as JSON would give them back."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values |= {"recipe": self.recipe.to_json(), "host_options": dict(self.host_options)}
        plain: dict[str, Any] = json.loads(json.dumps(values))
        return plain

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote; raise ConfigError for an unknown key.

        A job that does not say whether it is fused is from before there were kernels.
        """
        known = [f.name for f in dataclasses.fields(cls)]
        for name in content:
            if name not in known:
                raise ConfigError(unknown("job", "key", name, known))
        return cls(**{"fuse": False, **content, "recipe": Recipe.from_json(content["recipe"])})


def build(job: Job, data: ImageData) -> nn.Module:
    """Build the job's model: host and mechanism each from its own key.

    So with one seed every mechanism, and none, starts from the same host weights.
    """
    with seeded(job.seed, "host"):
        options = {**job.host_options, "in_chans": data.channels}
        model = host(
            job.host,
            len(data.classes),
            stem=job.stem,  # type: ignore[arg-type]  # checked by host
            pretrained=job.pretrained,
            **options,
        )
        if job.recipe.initialisation == "kaiming-uniform" and not job.pretrained:
            for module in model.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_uniform_(module.weight)
    with seeded(job.seed, "attention"):
        model = graft(
            model,
            Mechanism.parse(job.mechanism),
            sites=job.sites,
            input_size=data.size,
            start=job.start,  # type: ignore[arg-type]  # checked by graft
        )
    return fuse(model) if job.fuse else model


def open_job_data(job: Job) -> ImageData:
    """Open the images that the job trains on."""
    return open_data(
        job.data,
        train_limit=job.train_limit,
        on_bad_image=job.on_bad_image,  # type: ignore[arg-type]  # checked by open_data
        image_size=job.image_size,
    )
