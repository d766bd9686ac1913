"""The grader of the Vision Transformer course."""
