"""Parametric airplanes, cars, chairs and tables.

Each function takes a ``Draw`` (the parameter vector of one identity) and returns two lists of solids: the main part
and the second part, which get the two colours of the identity. Sizes are relative; the set is rescaled afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from wmcore.stimuli.object_sets.solids import Solid, bar, box, loft, panel, tapered_box, tube

Parts = tuple[list[Solid], list[Solid]]
T = TypeVar("T")


class Draw(Protocol):
    """One identity's parameters, drawn by name."""

    def between(self, name: str, low: float, high: float) -> float:
        """A number in [low, high]."""
        ...

    def among(self, name: str, options: Sequence[T]) -> T:
        """One of the options."""
        ...


def airplane(draw: Draw) -> Parts:
    """Fuselage and engines; wings and tail."""
    length = draw.between("length", 1.5, 2.5)
    radius = draw.between("radius", 0.11, 0.22)
    span = draw.between("span", 1.5, 2.7)
    chord = draw.between("chord", 0.32, 0.62)
    sweep = draw.between("sweep", -0.05, 0.6)
    wing_y = draw.among("wing_height", (-0.6, 0.0, 0.8)) * radius
    wing_z = draw.between("wing_position", -0.15, 0.12) * length
    engines = draw.among("engines", ("nose", "wings", "tail", "four"))
    tail = draw.among("tail", ("low", "t", "v"))
    fin = draw.between("fin", 0.28, 0.5)

    stations = np.array([-0.5, -0.46, -0.36, -0.2, 0.15, 0.38, 0.5]) * length
    widths = np.array([0.15, 0.55, 0.9, 1.0, 1.0, 0.6, 0.2]) * radius
    axis = np.zeros((len(stations), 3))
    axis[:, 2] = stations
    axis[-2:, 1] = [0.15 * radius, 0.45 * radius]
    main = [tube(axis, widths, sides=14)]
    second: list[Solid] = []

    def surface(
        root: tuple[float, float, float], tip: tuple[float, float, float], c_root: float, c_tip: float
    ) -> Solid:
        a, b = np.array(root), np.array(tip)
        back = np.array([0.0, 0.0, 1.0])
        return panel(np.stack([a, b, b + c_tip * back, a + c_root * back]), 0.05)

    for side in (-1.0, 1.0):
        root = (0.0, wing_y, wing_z - chord / 2)
        tip = (side * span / 2, wing_y + 0.05 * span / 2, wing_z - chord / 2 + sweep)
        second.append(surface(root, tip, chord, 0.45 * chord))
        tail_z = length / 2 - 0.34
        if tail == "v":
            second.append(surface((0, 0, tail_z), (side * fin, fin, tail_z + 0.16), 0.34, 0.2))
        else:
            height = fin if tail == "t" else 0.3 * radius
            second.append(surface((0, height, tail_z + 0.1), (side * 0.24 * span, height, tail_z + 0.22), 0.28, 0.16))
        offsets = {"nose": (), "wings": (0.33,), "tail": (), "four": (0.26, 0.6)}[engines]
        for offset in offsets:
            x = side * offset * span / 2
            z = wing_z - chord / 2 + sweep * offset
            y = wing_y - 0.1
            main.append(tube(np.array([(x, y, z - 0.14), (x, y, z + 0.26)]), (0.09, 0.07), sides=10))
        if engines == "tail":
            x, z = side * (radius + 0.07), length / 2 - 0.6
            main.append(tube(np.array([(x, 0.3 * radius, z), (x, 0.3 * radius, z + 0.36)]), (0.09, 0.07), sides=10))
    if tail != "v":
        second.append(surface((0, 0, length / 2 - 0.36), (0, fin, length / 2 - 0.14), 0.36, 0.2))
    if engines == "nose":
        nose = -length / 2 - 0.02
        blade = 2.2 * radius
        second.append(box((0, 0, nose), (2 * blade, 0.07, 0.03)))
        second.append(box((0, 0, nose), (0.07, 2 * blade, 0.03)))
    return main, second


def car(draw: Draw) -> Parts:
    """Body; cabin and wheels."""
    length = draw.between("length", 1.7, 2.5)
    width = draw.between("width", 0.75, 1.05)
    body = draw.between("body", 0.24, 0.42)
    cabin = draw.between("cabin", 0.26, 0.48)
    wheel = draw.between("wheel", 0.17, 0.3)
    style = draw.among("style", ("sedan", "van", "pickup", "coupe", "hatchback"))
    nose = draw.between("nose", 0.55, 1.0)

    floor = wheel * 0.8
    top = floor + body
    hood_end = -length / 2 + 0.34 * length
    main = [
        tapered_box((0, floor + body / 2, 0.0), (width, body, length), (0.94, 0.97)),
    ]
    if nose < 0.8:
        # A low hood is a wedge in front of the cabin; the body behind it is one box.
        main[0] = tapered_box((0, floor + body / 2, 0.17 * length), (width, body, 0.66 * length), (0.94, 1.0))
        front = np.array(
            [
                [(-width / 2, floor, hood_end), (width / 2, floor, hood_end)],
                [(-width / 2, floor, -length / 2), (width / 2, floor, -length / 2)],
            ]
        ).reshape(4, 3)[[0, 1, 3, 2]]
        upper = front.copy()
        upper[:2, 1] = top
        upper[2:, 1] = floor + nose * body * 0.75
        upper[:, 0] *= 0.94
        main.append(_solid_between(front, upper))
    start, end, front_slope, back_slope = {
        "sedan": (0.3, 0.82, 0.12, 0.12),
        "van": (0.14, 0.98, 0.08, 0.02),
        "pickup": (0.28, 0.58, 0.07, 0.02),
        "coupe": (0.4, 0.9, 0.16, 0.26),
        "hatchback": (0.28, 0.96, 0.14, 0.05),
    }[style]
    z0, z1 = (start - 0.5) * length, (end - 0.5) * length
    base = np.array([(-1, 0, z0), (1, 0, z0), (1, 0, z1), (-1, 0, z1)], dtype=float) * (0.46 * width, 1, 1)
    roof = base * (0.84, 1, 1)
    roof[:2, 2] += front_slope * length
    roof[2:, 2] -= back_slope * length
    base[:, 1], roof[:, 1] = top, top + cabin
    second = [_solid_between(base, roof)]
    if style == "pickup":
        for side in (-1.0, 1.0):
            main.append(box((side * width * 0.45, top + 0.07, 0.29 * length), (0.05, 0.14, 0.4 * length)))
    for z in (-0.31 * length, 0.31 * length):
        for side in (-1.0, 1.0):
            x = side * width / 2
            second.append(tube(np.array([(x - 0.07, wheel, z), (x + 0.07, wheel, z)]), (wheel, wheel), sides=14))
    return main, second


def chair(draw: Draw) -> Parts:
    """Seat and back; legs and arms."""
    width = draw.between("width", 0.75, 1.15)
    depth = draw.between("depth", 0.7, 1.05)
    seat = draw.between("seat_thickness", 0.06, 0.22)
    height = draw.between("seat_height", 0.55, 1.0)
    back = draw.between("back_height", 0.55, 1.25)
    lean = draw.between("lean", 0.02, 0.3)
    style = draw.among("back_style", ("solid", "slats", "ladder", "narrow", "round"))
    legs = draw.among("legs", ("straight", "splayed", "pedestal", "sled"))
    arms = draw.among("arms", (True, False))

    main = [box((0, height - seat / 2, 0), (width, seat, depth))]
    second: list[Solid] = []

    def back_point(x: float, along: float) -> np.ndarray:
        return np.array([x, height + along * back, depth / 2 - 0.04 + along * lean])

    def back_panel(x0: float, x1: float, y0: float, y1: float) -> Solid:
        return panel(np.stack([back_point(x0, y0), back_point(x1, y0), back_point(x1, y1), back_point(x0, y1)]), 0.08)

    half = width / 2
    if style == "solid":
        main.append(back_panel(-half, half, -0.05, 1.0))
    elif style == "narrow":
        main.append(back_panel(-0.22 * width, 0.22 * width, -0.05, 1.0))
        main.append(back_panel(-half, half, 0.72, 1.0))
    elif style == "round":
        centre = back_point(0, 0.55)
        normal = np.cross(back_point(1, 0.5) - back_point(0, 0.5), back_point(0, 1) - back_point(0, 0))
        normal = normal / np.linalg.norm(normal) * 0.045
        main.append(tube(np.stack([centre - normal, centre + normal]), np.full((2, 2), (half, 0.5 * back)), sides=18))
    else:
        for x in (-half + 0.05, half - 0.05):
            main.append(back_panel(x - 0.05, x + 0.05, -0.05, 1.0))
        main.append(back_panel(-half, half, 0.86, 1.0))
        if style == "slats":
            for x in np.linspace(-half, half, 5)[1:-1]:
                main.append(back_panel(x - 0.045, x + 0.045, 0.0, 0.95))
        else:
            for along in (0.25, 0.52):
                main.append(back_panel(-half, half, along, along + 0.14))
    corners = [(sx * (half - 0.06), sz * (depth / 2 - 0.06)) for sx in (-1, 1) for sz in (-1, 1)]
    if legs in ("straight", "splayed"):
        out = 1.3 if legs == "splayed" else 1.0
        second += [bar((out * x, 0, out * z), (x, height - seat, z), 0.055) for x, z in corners]
    elif legs == "pedestal":
        second.append(bar((0, 0.05, 0), (0, height - seat, 0), 0.08, 10))
        for angle in np.arange(5) * 2 * np.pi / 5:
            foot = (0.52 * np.sin(angle), 0.04, 0.52 * np.cos(angle))
            second.append(bar((0, 0.1, 0), foot, 0.05))
    else:
        for sx in (-1, 1):
            x = sx * (half - 0.04)
            second.append(bar((x, 0.04, -depth / 2), (x, 0.04, depth / 2), 0.045))
            for sz in (-1, 1):
                second.append(bar((x, 0.04, sz * depth / 2), (x, height - seat, sz * (depth / 2 - 0.06)), 0.045))
    if arms:
        for sx in (-1, 1):
            x = sx * half
            second.append(box((x, height + 0.32, 0.0), (0.09, 0.06, depth)))
            second.append(bar((x, height - seat / 2, -depth / 2 + 0.08), (x, height + 0.32, -depth / 2 + 0.08), 0.04))
    return main, second


def table(draw: Draw) -> Parts:
    """Top; legs, pedestal or trestle."""
    width = draw.between("width", 1.3, 2.3)
    depth = draw.between("depth", 0.8, 1.35)
    height = draw.between("height", 0.55, 1.15)
    thickness = draw.between("thickness", 0.06, 0.2)
    leg = draw.between("leg", 0.04, 0.11)
    top = draw.among("top", ("rectangle", "round", "oval", "hexagon", "rectangle"))
    support = draw.among("support", ("legs", "splayed", "pedestal", "trestle", "shelf"))

    under = height - thickness
    if top == "rectangle":
        main = [box((0, height - thickness / 2, 0), (width, thickness, depth))]
        reach_x, reach_z = 0.44 * width, 0.42 * depth
    else:
        half_x, half_z = {
            "round": (0.5 * depth + 0.3, 0.5 * depth + 0.3),
            "oval": (0.5 * width, 0.5 * depth),
            "hexagon": (0.45 * width, 0.55 * depth),
        }[top]
        axis = np.array([(0, under, 0), (0, height, 0)])
        main = [tube(axis, np.full((2, 2), (half_x, half_z)), sides=6 if top == "hexagon" else 24)]
        reach_x, reach_z = 0.62 * half_x, 0.62 * half_z
    corners = [(sx * reach_x, sz * reach_z) for sx in (-1, 1) for sz in (-1, 1)]
    second: list[Solid] = []
    if support in ("legs", "shelf"):
        second += [box((x, under / 2, z), (2 * leg, under, 2 * leg)) for x, z in corners]
        if support == "shelf":
            second.append(box((0, 0.3 * under, 0), (2 * reach_x, 0.06, 2 * reach_z)))
    elif support == "splayed":
        second += [bar((1.2 * x, 0, 1.2 * z), (0.75 * x, under, 0.75 * z), leg) for x, z in corners]
    elif support == "pedestal":
        second.append(bar((0, 0, 0), (0, under, 0), 0.06 + leg, 12))
        second.append(tube(np.array([(0, 0, 0), (0, 0.09, 0)]), (0.36, 0.3), sides=16))
    else:
        for sx in (-1, 1):
            second.append(box((sx * reach_x, under / 2, 0), (0.09, under, 1.7 * reach_z)))
        second.append(box((0, 0.35 * under, 0), (2 * reach_x, 0.1, 0.08)))
    return main, second


def _solid_between(lower: np.ndarray, upper: np.ndarray) -> Solid:
    """A solid between two quadrilaterals, (4, 3) each."""
    return loft(np.stack([lower, upper]))


SHAPES: dict[str, Callable[[Draw], Parts]] = {"airplane": airplane, "car": car, "chair": chair, "table": table}
