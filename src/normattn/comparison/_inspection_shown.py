"""The sections of an inspection's page with pictures: maps, channels, mistakes."""

from collections.abc import Iterator, Sequence

from ._inspection_pictures import channel_grid, sample_strip, single, span
from ._inspection_records import Channels, Guess, Inspected, Sample
from .page import Cell, Column, Item, Picture, Section, Table

#: Bytes of pictures on a page, which as text are a third more; with all else it stays below 3 MB.
ROOM = 1_000_000
_MISTAKES = (
    Column("image", "Validation image", False), Column("truth", "True class", False),
    Column("predicted", "Predicted class", False), Column("probability", "Probability (%)"),
)  # fmt: skip


class Room:
    """How many bytes of pictures a page may still take; what has no place is counted."""

    def __init__(self, size: int = ROOM) -> None:
        self.left, self.refused = size, 0

    def take(self, picture: Picture) -> Iterator[Picture]:
        """Yield the picture if there is room for it."""
        self.left -= len(picture.png)
        if self.left >= 0:
            yield picture
        else:
            self.refused += 1


def titled(models: Sequence[Inspected], model: Inspected, title: str) -> str:
    """Return a title that says whose it is where there are several models."""
    return title if len(models) == 1 else f"{model.name}: {title}"


def maps(models: Sequence[Inspected], room: Room) -> Section:
    items = [
        taken
        for model in models
        for sample in model.samples
        for taken in room.take(_map_picture(models, model, sample))
    ]
    return Section(
        "maps",
        "Where the gates look",
        "The gate of the last site of each size of map, mean over the channels, over the image; "
        "dark is low, bright is high. Above each stand its size, its lowest and its highest value. "
        "In the upper row the colours span these; in the lower row they span the whole scale of a "
        "gate, so that a gate that hardly moves has one colour. Grad-CAM, beside it, is where "
        " the predicted class gets its evidence from in the last layer with maps.",
        tuple(items),
        "No maps could be made.",
    )


def _map_picture(models: Sequence[Inspected], model: Inspected, sample: Sample) -> Picture:
    whole = [site for site in model.gates.sites if not site.part]
    top = 1.0 if max(site.highest for site in whole) <= 1 else 2.0
    spans = "; ".join(f"after {site} {span(values)}" for site, values in sample.maps.items())
    text = f"Image {sample.guess.place} with the gates over it, from left to right: {spans}"
    text += ". Last, Grad-CAM." if sample.cam is not None else "."
    return Picture(
        titled(models, model, f"Image {sample.guess.place}"),
        sample_strip(sample, top),
        text,
        f"{_said(sample.guess)} Gate: {spans}.",
    )


def channels(models: Sequence[Inspected], room: Room) -> Section:
    items = [
        taken
        for model in models
        for found in model.channels
        for taken in room.take(_channel_picture(models, model, found))
    ]
    return Section(
        "channels",
        "The most and the least salient channels",
        "What these channels let by, |x · gate|, on the first images above; bright is much, on one "
        "scale in each row. Above each column stand the channel and its salience.",
        tuple(items),
        "No channels could be shown.",
    )


def _channel_picture(models: Sequence[Inspected], model: Inspected, channels: Channels) -> Picture:
    pairs = [
        f"{channel} ({salience:.2g})"
        for channel, salience in zip(channels.chosen, channels.salience, strict=True)
    ]
    most, least = ", ".join(pairs[: channels.most]), ", ".join(pairs[channels.most :])
    said = f"Ranked by {channels.by}. Most salient: {most}. Least: {least or 'there is one alone'}."
    images = [sample.guess.pixels for sample in model.samples[: len(channels.activations)]]
    size = f"{channels.size[0]}×{channels.size[1]}"
    return Picture(
        titled(models, model, f"{channels.site}, {size}"),
        channel_grid(channels, images),
        f"Activations of channels after {channels.site} on {len(images)} images. {said}",
        said,
    )


def mistakes(models: Sequence[Inspected], room: Room) -> Section:
    pictures: list[Item] = []
    tables: list[Item] = []
    for place, model in enumerate(models):
        if model.samples and model.mistakes:  # as with maps, one model of a mechanism
            for guess in model.mistakes:
                pictures += room.take(_mistake_picture(models, model, guess))
            rows = tuple(
                {"image": Cell(guess.place), "truth": Cell(guess.truth),
                 "predicted": Cell(guess.predicted),
                 "probability": Cell(100 * guess.probability, f"{100 * guess.probability:.1f}")}
                for guess in model.mistakes
            )  # fmt: skip
            title = titled(models, model, "The most confident mistakes")
            tables.append(Table(f"mistakes-{place}", title, _MISTAKES, rows))
    return Section(
        "mistakes",
        "Mistakes with the highest confidence",
        "The images that the model gets wrong with the highest probability for the wrong class.",
        (*pictures, *tables),
        "The model makes no mistake on these images.",
    )


def _mistake_picture(models: Sequence[Inspected], model: Inspected, guess: Guess) -> Picture:
    title = titled(models, model, f"{guess.truth}, taken for {guess.predicted}")
    said = f"Image {guess.place}. {_said(guess)}"
    return Picture(title, single(guess.pixels), said, said)


def _said(guess: Guess) -> str:
    right = guess.truth == guess.predicted
    verdict = "right" if right else f"wrong, it is {guess.truth}"
    return f"Predicted {guess.predicted} with {100 * guess.probability:.1f} % ({verdict})."
