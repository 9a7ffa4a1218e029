"""Which interactions stay in the log."""

import polars as pl

from rqrec.data.interactions import Interactions


def k_core(interactions: Interactions, user_core: int, item_core: int) -> Interactions:
    """The largest part of the log in which every user has `user_core` and every item `item_core` rows.

    Users and items below are removed in turn until none is left to remove; the order of the rows stays.
    Raises ValueError where nothing is left.
    """
    log = interactions.log
    while True:
        kept = log.filter(
            (pl.len().over("user_id") >= user_core) & (pl.len().over("item_id") >= item_core),
        )
        if kept.is_empty():
            raise ValueError(
                f"No interaction is left: no set of users with at least {user_core} and items with at least "
                f"{item_core} interactions exists. Lower the numbers or bring a longer log."
            )
        if kept.height == log.height:
            return Interactions(kept)
        log = kept
