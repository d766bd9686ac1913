"""Right answers: what student code is compared with, and the reference models."""
