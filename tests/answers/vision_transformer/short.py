"""The small functions in as few symbols as possible."""


def pool_tokens(tokens, pool):
    if pool == "cls":
        return tokens.unbind(dim=1)[0]
    elif pool == "gap":
        return (tokens.sum(dim=1) - tokens[:, 0]) / (tokens.size(1) - 1)
    else:
        raise ValueError("unknown pooling: " + str(pool))


def patches(size, p):
    h, w = [size, size] if isinstance(size, int) else size
    if p <= 0 or h <= 0 or w <= 0 or h % p > 0 or w % p > 0:
        raise ValueError(f"bad image size {h}x{w} for patch size {p}")
    return (h // p) * (w // p)


def parameter_count(image_size, patch_size, in_channels, num_classes, dim, depth, mlp_dim):
    n, d, m, k = patches(image_size, patch_size), dim, mlp_dim, num_classes
    return (
        (patch_size**2 * in_channels + 1 + 1 + n + 1 + 2) * d
        + depth * ((4 * d + 2 * m + 9) * d + m)
        + (d + 1) * k
    )


def macs_per_image(image_size, patch_size, in_channels, num_classes, dim, depth, mlp_dim):
    n, d, m, k = patches(image_size, patch_size), dim, mlp_dim, num_classes
    return d * (n * patch_size**2 * in_channels + depth * (n + 1) * (4 * d + 2 * m + 2 * (n + 1)) + k)
