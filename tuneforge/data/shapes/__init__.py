"""What rows mean: their shape, recognised by their columns, and their content, written in one way.

`recognise` finds the shape by the names of the columns; what it returns reads a row's values. The content of a row
holds what its shape reads and nothing else, so that equal rows are equal whatever their file was.
"""

from tuneforge.data.shapes.names import CONVERSATIONS, LEARNABLE, TRAINABLE, RowShape
from tuneforge.data.shapes.recognition import SHAPES_SENTENCE, Recognition, recognise

__all__ = ["CONVERSATIONS", "LEARNABLE", "SHAPES_SENTENCE", "TRAINABLE", "Recognition", "RowShape", "recognise"]
