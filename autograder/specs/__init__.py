"""One specification per assignment; `ORDER` is the order of the book's chapters."""

ORDER = [
    "patches",
    "patch_embedding",
    "position_embedding",
    "attention",
    "encoder",
    "vision_transformer",
    "training",
    "fine_tuning",
    "attention_maps",
]
