"""The dataset card: what is in a dataset and how far it can be trusted, for those who have not made it."""

from labelstore.card.card import CARD_DIR, write_card
from labelstore.card.text import Licences

__all__ = ["CARD_DIR", "Licences", "write_card"]
