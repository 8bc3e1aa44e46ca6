"""``cifarml explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cifarml.cli import options
from cifarml.cli.console import hidden_native_noise, print_json, shown_path

__all__ = ["explain"]

_SHARP = 480  # pixels of the picture that is drawn, at most


def explain(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="A picture file.", show_default=False)],
    run: Annotated[
        str | None,
        typer.Option(help="Which model: a run folder or its name; the newest when left out."),
    ] = None,
    class_name: Annotated[
        str | None,
        typer.Option(
            "--class", metavar="NAME", help="Explain this class.", show_default="the most probable one"
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The PNG to write.", show_default="PICTURE_explained.png"
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    top: Annotated[int, typer.Option(min=1, help="How many classes to show.")] = 5,
    runs_dir: options.RunsDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw which places of a picture speak for a class, as a heat map over it (Grad-CAM).

    [bold]Examples[/bold]

      cifarml explain image.png
      cifarml explain image.png --class dog -o why_dog.png
      cifarml explain image.png --run runs/first --json
    """
    from cifarml.errors import DataError, PictureError, SettingsError
    from cifarml.images import decode_picture, picture_size
    from cifarml.progress import Progress, show_progress
    from cifarml.run_folders import find_run
    from cifarml.settings import load_settings

    output = output or picture.with_name(f"{picture.stem}_explained.png")
    if output.suffix.lower() != ".png":
        raise SettingsError(f"a PNG is written, so --output must end in .png. Received: {output}")
    if output.exists() and (not force or output.resolve() == picture.resolve()):
        raise SettingsError(f"{output} already exists", hint="take another --output, or add --force")
    try:
        content = picture.read_bytes()
    except OSError as error:
        raise DataError(f"can't read {picture}: {error.strerror}") from error
    path = find_run(run, runs_dir or load_settings().runs_dir)
    with show_progress(quiet=quiet) as on_progress:
        try:
            shown = decode_picture(content, side=max(32, min(_SHARP, *picture_size(content))))
        except PictureError as error:
            raise PictureError(f"{picture}: {error.message}", error.hint, code=error.code) from error
        on_progress(Progress("loading the network", 0, None))
        with hidden_native_noise():
            from cifarml.explain.drawing import explanation_figure
            from cifarml.explain.gradcam import explain_picture
            from cifarml.report.plots import save_figure

            explanation = explain_picture(path, content, class_name=class_name)
        save_figure(output, explanation_figure(explanation, shown, num_classes=top))
    prediction = explanation.prediction
    if json:
        print_json(
            {
                "path": str(picture),
                "output": str(output.resolve()),
                "run": str(path.resolve()),
                "label": prediction.label,
                "probability": prediction.probability,
                "probabilities": prediction.top(top),
                "class": explanation.class_name,
                "layer": explanation.layer,
                "heat": [[round(value, 4) for value in row] for row in explanation.heat.tolist()],
            }
        )
        return
    print("  ".join(f"{name} {share:.1%}" for name, share in prediction.top(top).items()))
    if not explanation.heat.any():
        print(f"Nothing in the picture speaks for {explanation.class_name}.")
    print(f"Picture: {shown_path(output)}   (the brighter, the more it speaks for {explanation.class_name})")
