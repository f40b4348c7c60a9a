"""Tally: GRPO post-training for math reasoning that can prove what it trained on."""

__version__ = "0.1.0"
