"""k-core filtering of an interaction log."""

import polars as pl

from rqrec.data.interactions import Interactions


def k_core(interactions: Interactions, user_core: int, item_core: int) -> Interactions:
    """The largest subset in which every user has >= `user_core` and every item >= `item_core` interactions.

    Users and items below the minimum are removed repeatedly until all remaining ones reach it. The order of the
    rows is kept. Raises ValueError if no interaction remains.
    """
    log = interactions.log
    while True:
        kept = log.filter(
            (pl.len().over("user_id") >= user_core) & (pl.len().over("item_id") >= item_core),
        )
        if kept.is_empty():
            raise ValueError(
                f"No interaction is left: the log has no subset in which users have at least {user_core} and items "
                f"at least {item_core} interactions. Lower these numbers or use a longer log."
            )
        if kept.height == log.height:
            return Interactions(kept)
        log = kept
