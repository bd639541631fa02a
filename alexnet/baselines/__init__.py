"""What is not a convolutional network: the other rows of Table 1, and controls."""
