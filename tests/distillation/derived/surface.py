"""CFD's noise on the surface (2501.05445), written from its released program.

In order, for one view: mean surface points and mean opacity at the corners of the latent's pixels; two triangles a
pixel; six charts of the sphere; four shells by radius; each triangle rasterised into the white-noise texture of its
chart and shell; the covered texels summed and divided by the square root of their number. Every choice is stated at
the function that makes it. All arrays are float64 numpy.
"""

from __future__ import annotations

import numpy as np

CHARTS = ((0, 1, 2, +1), (0, 1, 2, -1), (2, 0, 1, +1), (2, 0, 1, -1), (1, 2, 0, +1), (1, 2, 0, -1))
"""The axes read as (a, b, c) and the sign of the depth: the pole of charts 0, 1 is z, of 2, 3 y, of 4, 5 x."""


def square(points, chart):
    """The chart's place (X, Y) in [-1, 1]^2 and its depth, of points [N, 3].

    With (a, b, c) the axes of the chart, theta = atan2(sqrt(a^2 + b^2), |c|), phi = atan2(a, b), d = sqrt(1 - cos
    theta): both half spheres fall on the same square, the pole in its middle, the equator on its edge. In the wedge
    number k of phi, u in (-1, 1] runs over the wedge:
      phi in (0, pi/2]      (d, d u)          phi in (pi/2, pi]     (-d u, d)
      phi in [-pi, -pi/2]   (-d, -d u)        phi in (-pi/2, 0]     (d u, -d)
    so dX dY = (2 / pi) times the sphere's area. The depth is the chart's sign times the radius.
    """
    a, b, c = (points[:, axis] for axis in chart[:3])
    radius = np.sqrt(a**2 + b**2 + c**2)
    d = np.sqrt(1 - np.cos(np.arctan2(np.sqrt(a**2 + b**2), np.abs(c))))
    phi = np.arctan2(a, b)
    wedge = np.maximum(np.ceil(phi / (np.pi / 2)).astype(int), -1)
    u = (phi - (wedge - 1) * np.pi / 2) * 4 / np.pi - 1
    x = np.choose(wedge + 1, [-d, d * u, d, -d * u])
    y = np.choose(wedge + 1, [-d * u, -d, d * u, d])
    return np.stack([x, y], axis=1), chart[3] * radius


def corners(points, opacity, height, width):
    """Mean surface point [(h + 1)(w + 1), 3] and mean opacity [(h + 1)(w + 1)] at the corners of the latent's pixels.

    points [H, W, 3] and opacity [H, W] are those of the render, H = h stride. The window of a corner has k x k pixels,
    k = stride rounded up to an even number, around it, and zeros outside the picture. The point is the mean over the
    window's pixels of opacity above 0.1 (the origin if there is none); the opacity is the mean over the whole window,
    zeros outside the picture included.
    """
    stride = points.shape[0] // height
    half = (stride + 1) // 2
    covered = opacity > 0.1
    fields = np.concatenate([points * covered[..., None], covered[..., None], opacity[..., None]], axis=2)
    fields = np.pad(fields, ((half, half), (half, half), (0, 0)))
    sums = np.array(
        [
            [fields[i * stride : i * stride + 2 * half, j * stride : j * stride + 2 * half].sum((0, 1))]
            for i in range(height + 1)
            for j in range(width + 1)
        ]
    )[:, 0]
    means = sums[:, :3] / np.maximum(sums[:, 3:4], 1)
    return means, sums[:, 4] / (2 * half) ** 2


def triangles(height, width):
    """[2 h w, 3] corner numbers: (i, i + 1, i + w + 1) of every pixel, then (i + 1, i + w + 1, i + w + 2)."""
    first = (np.arange(height)[:, None] * (width + 1) + np.arange(width)).ravel()
    upper = np.stack([first, first + 1, first + width + 1], axis=1)
    lower = np.stack([first + 1, first + width + 1, first + width + 2], axis=1)
    return np.concatenate([upper, lower])


def rasterise(place, depth, faces, size):
    """The number of the front face of each texel, -1 where there is none, [size, size] (row Y, column X).

    A texel belongs to a triangle when its middle (2 (column + 0.5) / size - 1, 2 (row + 0.5) / size - 1) is inside.
    Depth is interpolated linearly; only depths in [-1, 1] are drawn, and the smallest wins (as in OpenGL). A middle
    exactly on an edge counts as outside: the numbers have no such texel.
    """
    middle = (2 * np.arange(size) + 1) / size - 1
    column, row = np.meshgrid(middle, middle)
    front, owner = np.full((size, size), np.inf), np.full((size, size), -1)
    for number, face in enumerate(faces):
        (x0, y0), (x1, y1), (x2, y2) = place[face]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area == 0:
            continue
        second = ((column - x0) * (y2 - y0) - (x2 - x0) * (row - y0)) / area
        third = ((x1 - x0) * (row - y0) - (column - x0) * (y1 - y0)) / area
        first = 1 - second - third
        z = first * depth[face[0]] + second * depth[face[1]] + third * depth[face[2]]
        seen = (first > 0) & (second > 0) & (third > 0) & (np.abs(z) <= 1) & (z < front)
        front[seen], owner[seen] = z[seen], number
    return owner


def surface_noise(points, opacity, textures, background):
    """(noise [C, h, w], number of texels [h, w]) of one view.

    points [H, W, 3] in units of the box's half edge, so that the box is [-1, 1]^3; textures [6, 4, R, R, C];
    background [C, h, w], used where a pixel has no texel (fixed or fresh, the caller's choice).
    A triangle is drawn when its three corners have a mean opacity above 0.1, into all six charts, and only if its
    three radii lie in one shell: (k/4, (k + 1)/4] for k = 0, 1, 2, and above 3/4. Other triangles are dropped.
    The triangles of a shell hide each other in its texture; shells and charts do not. Both triangles, all charts and
    shells are summed: noise = sum of the texels / sqrt(number of texels).
    """
    shells, size = textures.shape[1:3]
    channels, height, width = background.shape
    means, cover = corners(points, opacity, height, width)
    faces = triangles(height, width)
    seen = (cover > 0.1)[faces].all(axis=1)
    radius = np.sqrt((means**2).sum(1))[faces]
    total, count = np.zeros((height * width, channels)), np.zeros(height * width, dtype=int)
    for number, chart in enumerate(CHARTS):
        place, depth = square(means, chart)
        for shell in range(shells):
            inside = radius > shell / shells
            if shell < shells - 1:
                inside &= radius <= (shell + 1) / shells
            chosen = np.flatnonzero(seen & inside.all(axis=1))
            owner = rasterise(place, depth, faces[chosen], size)
            drawn = owner >= 0
            pixel = chosen[owner[drawn]] % (height * width)
            np.add.at(total, pixel, textures[number, shell][drawn])
            np.add.at(count, pixel, 1)
    noise = np.where(count[:, None] > 0, total / np.sqrt(np.maximum(count, 1))[:, None], 0)
    noise = noise.T.reshape(background.shape)
    count = count.reshape(height, width)
    return np.where(count > 0, noise, background), count


# ------------------------------------------------------------------------------------------------- the numbers' world


def field(azimuth, bump, size=32):
    """A made-up view of 32 x 32 pixels, (points, opacity): a bumpy ball seen within 70 and 55 degrees of its middle.

    Pixel (row, column) looks at x = 2 (column + 0.5) / 32 - 1 and y likewise; longitude = azimuth + 70 x degrees,
    latitude = 9 - 55 y degrees; radius = 0.62 + bump sin(3 longitude + 1) cos(2 latitude + 0.4);
    point = radius (cos lat cos lon, cos lat sin lon, sin lat); opacity = 1 / (1 + exp(20 (x^2 + y^2 - 0.8))).
    """
    line = (2 * np.arange(size) + 1) / size - 1
    x, y = np.meshgrid(line, line)
    longitude, latitude = np.radians(azimuth + 70 * x), np.radians(9 - 55 * y)
    radius = 0.62 + bump * np.sin(3 * longitude + 1) * np.cos(2 * latitude + 0.4)
    direction = (np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude))
    return radius[..., None] * np.stack(direction, axis=2), 1 / (1 + np.exp(20 * (x**2 + y**2 - 0.8)))
