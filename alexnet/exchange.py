"""How columns meet: the network asks for a gathering of maps and a sum of partial logits, and does not know where the columns live.

`Together` keeps all columns in one process. Columns on several devices meet by collectives behind the same three methods (section 3.2 of
the paper).
"""

import torch
from torch import Tensor


class Together:
    """All columns in one process."""

    def here(self, columns: int) -> range:
        """Numbers of the columns that this process owns."""
        return range(columns)

    def gather(self, parts: list[Tensor]) -> Tensor:
        """The maps or units of all columns, (N, C, ...), side by side: column 0 first."""
        return torch.cat(parts, dim=1)

    def sum(self, parts: list[Tensor]) -> Tensor:
        """The sum of all columns' partial logits, (N, classes)."""
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
