"""``cifarml explain``: Grad-CAM heat map of a prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cifarml.cli import options
from cifarml.cli.console import print_json, shown_path, suppress_native_output
from cifarml.errors import SettingsError
from cifarml.progress import Progress, show_progress


def explain(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="Image file.", show_default=False)],
    run: options.RunFlag = None,
    class_name: Annotated[
        str | None,
        typer.Option("--class", metavar="NAME", help="Class to explain.", show_default="the predicted one"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="PNG file to write.", show_default="IMAGE_explained.png"
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    top: Annotated[int, typer.Option(min=1, help="Number of classes to show.")] = 5,
    runs_dir: options.RunsDir = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw a Grad-CAM heat map for a class.

    Bright areas of the image increase the score of the class the most.

    [bold]Examples[/bold]

      cifarml explain image.png
      cifarml explain image.png --class dog -o why_dog.png
      cifarml explain image.png --run runs/first --json
    """
    from cifarml.images import image_size
    from cifarml.run_folders import find_run

    output = output or image.with_name(f"{image.stem}_explained.png")
    if output.suffix.lower() != ".png":
        raise SettingsError(f"--output must end in .png. Received: {output}")
    if output.exists() and (not force or output.resolve() == image.resolve()):
        raise SettingsError(f"{output} already exists", hint="choose another --output, or add --force")
    path = find_run(run, options.runs_folder(runs_dir))
    with show_progress(quiet=quiet) as on_progress:
        image_size(image)  # reject an invalid image before TensorFlow is loaded
        on_progress(Progress("loading the network", 0, None))
        with suppress_native_output():
            from cifarml.explain.drawing import explanation_figure
            from cifarml.explain.gradcam import explain_image
            from cifarml.report.plots import save_figure

            explanation = explain_image(path, image, class_name=class_name)
        save_figure(output, explanation_figure(explanation, image, num_classes=top))
    prediction = explanation.prediction
    if json:
        print_json(
            {
                "path": str(image),
                "output": output,
                "run": path,
                **prediction._asdict(),
                "probabilities": prediction.top(top),
                "class": explanation.class_name,
                "layer": explanation.layer,
                "heat": [[round(value, 4) for value in row] for row in explanation.heat.tolist()],
            }
        )
        return
    print("  ".join(f"{name} {share:.1%}" for name, share in prediction.top(top).items()))
    if not explanation.heat.any():
        print(f"No part of the image increases the score of {explanation.class_name}.")
    print(f"Image: {shown_path(output)}   (brighter: more evidence for {explanation.class_name})")
