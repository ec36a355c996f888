"""Servers: the declaration (`resource.py`), its calls, and the operations behind them."""
