"""`normattn evaluate`: what a saved model makes of images."""

import typer


def evaluate(ctx: typer.Context) -> None:
    """."""
