"""What labels will cost and keep, known before they are paid for."""
