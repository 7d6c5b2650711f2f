"""An LSTM that reads an image row by row."""

from torch import Tensor, nn

IMAGE_SIDE = 28


class RowLstm(nn.Module):
    """LSTM over the rows of an image: [batch, 1, 28, 28] -> logits [batch, classes]."""

    def __init__(self, hidden: int, layers: int, classes: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(IMAGE_SIDE, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits read from the state after the last row."""
        states, _ = self.lstm(x.squeeze(1))
        logits: Tensor = self.head(states[:, -1])
        return logits


def lstm(hidden: int = 128, layers: int = 1, classes: int = 10) -> RowLstm:
    """`layers` stacked LSTM layers of `hidden` units and a linear layer."""
    return RowLstm(hidden, layers, classes)
