"""The course itself: the notebook runner, the pages it shows, its records, and the studies behind them.

The library below never imports this package.
"""
