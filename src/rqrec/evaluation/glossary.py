"""The words of reports, in plain sentences."""

from collections.abc import Sequence

from rqrec.evaluation.report import heading, table

MEANINGS = {
    "recall@10": (
        "The share of users whose item that they really took next is among the first ten recommendations "
        "(also called hit rate). 0.10 means: for one user in ten."
    ),
    "NDCG@10": (
        "The same, but a hit counts more the higher it stands: 1 in the first place, 0.63 in the second, "
        "0.29 in the tenth."
    ),
    "MRR": "The mean of 1 / place of the right item, 0 if it is not in the list.",
    "popularity": (
        "A baseline that recommends everybody the items that most people took. A recommender that is no "
        "better has learned nothing about the single user."
    ),
    "validation and test": (
        "The model is chosen by how well it predicts some interactions that it has not learned from "
        "(validation), and then measured once on others (test)."
    ),
    "seen items": (
        "The items of a user's history. They can be left out of the recommendations or allowed in them, "
        "and figures of the two kinds cannot be compared."
    ),
    "interval": "In brackets: the range in which the figure lies for 95 of 100 random samples of the users.",
    "p": (
        "How often chance alone would give a difference at least this large; below 0.05 is usually called "
        "significant."
    ),
    "semantic ID": (
        "A short tuple of codes in place of an item's number. Items with similar content begin with the "
        "same codes, so that the model can learn about an item from similar ones."
    ),
    "code, level": (
        "One number of a semantic ID, and its place in it. The first level divides the items roughly, "
        "each further level more finely."
    ),
    "collision": "Two items with the same codes; one more code makes them different.",
    "perplexity": "How many codes of a level are in use, as if all were used equally often.",
    "probability": (
        "How sure the model is that this item comes next. With thousands of items, a few per cent are a lot."
    ),
    "loss": "What training lowers: how surprised the model is by the right answer.",
    "coverage": "The share of items that are recommended to at least one user.",
    "novelty": (
        "How little known the recommended items are: an item that half as many people took has one bit more."
    ),
    "Gini coefficient": (
        "How unevenly recommendations are spread over the items: 0 if all are shown equally often, 1 if "
        "one item is all that is shown."
    ),
}


def glossary(words: Sequence[str]) -> list[str]:
    """A part of a report that explains some of the words, in this order."""
    return [
        heading("What the words mean"),
        table(["word", "meaning"], [[word, MEANINGS[word]] for word in words]),
    ]
