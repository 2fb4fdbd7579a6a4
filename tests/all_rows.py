"""All rows for the law *cut commutes*."""

import rows_attention
import rows_elementwise
import rows_linear
import rows_shape
from rows import Row

ROWS: list[Row] = [*rows_linear.ROWS, *rows_elementwise.ROWS, *rows_shape.ROWS, *rows_attention.ROWS]
