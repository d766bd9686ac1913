"""Plain Python loops; the interpolation one output patch at a time, from the formula of the cubic kernel."""

import math

import torch


def sinusoidal_1d(num_positions, dim, base=10000.0):
    if dim & 1:
        raise ValueError("dim is odd: " + str(dim))
    table = torch.empty(num_positions, dim)
    for p in range(num_positions):
        for i in range(dim // 2):
            angle = p / base ** (2 * i / dim)
            table[p, 2 * i] = math.sin(angle)
            table[p, 2 * i + 1] = math.cos(angle)
    return table


def sinusoidal_2d(grid_height, grid_width, dim, base=10000.0):
    if dim % 2:
        raise ValueError("dim has no two halves: " + str(dim))
    half = dim // 2
    if half % 2:
        raise ValueError("half of dim is odd: " + str(half))
    down, across = sinusoidal_1d(grid_height, half, base), sinusoidal_1d(grid_width, half, base)
    places = [(r, c) for r in range(grid_height) for c in range(grid_width)]
    return torch.stack([torch.cat([down[r], across[c]]) for r, c in places])


def learned_2d(row_embed, col_embed):
    table = []
    for row in row_embed:
        for column in col_embed:
            if len(row) != len(column):
                raise TypeError("halves of different widths")
            table.append(torch.cat([row, column]))
    return torch.stack(table)


def _kernel(distance, a=-0.75):
    distance = abs(distance)
    if distance <= 1:
        return (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    if distance < 2:
        return a * distance**3 - 5 * a * distance**2 + 8 * a * distance - 4 * a
    return 0.0


def _samples(old, new):
    """Return, for every new index, the pairs (old index, weight); indices outside repeat the border."""
    found = []
    for index in range(new):
        where = (index + 0.5) * old / new - 0.5
        left = math.floor(where)
        found.append([(min(max(i, 0), old - 1), _kernel(where - i)) for i in range(left - 1, left + 3)])
    return found


def interpolate_position_embedding(pos_embed, old_grid, new_grid):
    old_height, old_width = old_grid
    if pos_embed.shape[1] != 1 + old_height * old_width:
        raise ValueError("old_grid is " + str(old_grid) + ", but embeddings are " + str(pos_embed.shape[1]))
    rows, columns = _samples(old_height, new_grid[0]), _samples(old_width, new_grid[1])
    result = [pos_embed[0, 0]]
    for row in rows:
        for column in columns:
            total = torch.zeros_like(pos_embed[0, 0])
            for r, weight_r in row:
                for c, weight_c in column:
                    total = total + weight_r * weight_c * pos_embed[0, 1 + r * old_width + c]
            result.append(total)
    return torch.stack(result)[None]


def position_similarity(pos_embed, grid):
    height, width = grid
    if pos_embed.shape[1] != 1 + height * width:
        raise ValueError("grid " + str(grid) + " does not fit " + str(pos_embed.shape[1]) + " embeddings")
    result = []
    for one in pos_embed[0, 1:]:
        for other in pos_embed[0, 1:]:
            result.append(one.dot(other) / (one.norm() * other.norm()))
    return torch.stack(result).reshape(height, width, height, width)
