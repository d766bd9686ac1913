"""What the figures of several chapters share: style, photographs, patch grids, pictures in widgets."""

import base64
import io
from pathlib import Path
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_image
from torch import Tensor
from torch.nn.functional import interpolate

STYLE = Path(__file__).with_name("course.mplstyle")


def begin() -> None:
    """Start a page: the course's figure style, two-fold resolution, a fixed seed."""
    from IPython.core.getipython import get_ipython

    plt.style.use(STYLE)
    shell = get_ipython()
    if shell is not None:
        shell.run_line_magic("config", "InlineBackend.figure_formats = ['retina']")
        shell.run_line_magic("config", "InlineBackend.print_figure_kwargs = {'bbox_inches': None}")
    torch.manual_seed(0)


def photograph(name: str = "china.jpg", size: int = 224) -> Tensor:
    """Return a photograph of scikit-learn, cut square and scaled: (1, 3, size, size), values 0 to 1.

    `name` is "china.jpg" (a temple) or "flower.jpg"; both are 427 x 640 pixels.
    """
    pixels = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)[None] / 255
    height, width = pixels.shape[-2:]
    left = (width - height) // 2
    square = pixels[..., left : left + height]
    return interpolate(square, (size, size), mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)


def show(axis: Axes, image: Tensor, title: str = "") -> None:
    """Show a colour image (3, H, W) or a map (H, W) without axis marks."""
    axis.imshow(image.permute(1, 2, 0) if image.ndim == 3 else image)
    axis.set_title(title)
    axis.set_axis_off()


def grid_lines(axis: Axes, height: int, width: int, patch_size: int, color: str = "white") -> None:
    """Draw the borders between patches over an image of height x width pixels."""
    for y in range(patch_size, height, patch_size):
        axis.axhline(y - 0.5, color=color, linewidth=0.8)
    for x in range(patch_size, width, patch_size):
        axis.axvline(x - 0.5, color=color, linewidth=0.8)


def picture(figure: Figure, alt: str) -> ipywidgets.HTML:
    """Return a figure as a widget with a text for those who cannot see it, and close the figure."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=150)
    plt.close(figure)
    code = base64.b64encode(data.getvalue()).decode()
    return ipywidgets.HTML(f'<img alt="{alt}" src="data:image/png;base64,{code}" style="max-width: 100%">')


def choose(label: str, options: list[Any], pictures: list[Any], start: int = 0) -> ipywidgets.VBox:
    """Return buttons that switch between pictures; works in a page without a kernel.

    One picture belongs to each option; `start` is the number of the one that shows first.
    """
    if len(options) != len(pictures):
        raise ValueError(f"pictures has {len(pictures)} entries, options has {len(options)}")
    buttons = ipywidgets.ToggleButtons(
        options=[str(option) for option in options], index=start, description=label,
        style={"button_width": "auto", "description_width": "auto"},
    )  # fmt: skip
    stack = ipywidgets.Stack(pictures, selected_index=start)
    ipywidgets.jslink((buttons, "index"), (stack, "selected_index"))
    return ipywidgets.VBox([buttons, stack])
