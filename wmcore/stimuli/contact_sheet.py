"""A picture of an image bank: one row per category and view, one column per identity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from wmcore.stimuli.image_bank import ImageBank


def contact_sheet(bank: ImageBank, path: Path, views: int = 2, identities: int | None = None) -> Path:
    """Writes a PNG of renders side by side, in the manifest's order.

    Args:
        bank: where the renders come from.
        path: file to write.
        views: how many views of each category, spread evenly over all of them.
        identities: how many identities of each category; None shows all.
    """
    table = bank.manifest[bank.manifest["location"] == 0]
    names = list(dict.fromkeys(table["view"]))
    chosen = [names[int((position + 0.5) * len(names) / views)] for position in range(min(views, len(names)))]
    rows = []
    for _, objects in table.groupby("category", sort=True):
        for view in chosen:
            images = objects.loc[objects["view"] == view, "image"].to_numpy()[:identities]
            rows.append(np.concatenate([bank.render(int(image)) for image in images], axis=1))
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    Image.fromarray(np.concatenate(padded)).save(path)
    return path
