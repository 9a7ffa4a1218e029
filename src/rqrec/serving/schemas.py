"""Request and response bodies, from which the OpenAPI description is generated."""

import math
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from rqrec.data.expressions import MAX_LENGTH
from rqrec.data.ids import LONGEST_ID
from rqrec.data.times import lists_to_seconds
from rqrec.retrieval.defaults import DEFAULT_K
from rqrec.serving.model_registry import HistoryRequest
from rqrec.serving.rules import MAX_BOOST, Rules

MAX_K = 100
ItemId = Annotated[str, Field(max_length=LONGEST_ID)]
FieldName = Annotated[str, Field(max_length=1000)]
UserId = Annotated[str, Field(max_length=1000)]
ExpertWord = Annotated[str, Field(max_length=100)]
Time = int | float | Annotated[str, Field(max_length=100)]
Codes = Annotated[list[int], Field(examples=[[12, 7, 201, 0]])]
Title = Annotated[str, Field(examples=["Toy Story (1995)"])]
Image = Annotated[
    str | None, Field(description="Address of the item's picture, relative to the page; null: there is none.")
]
Words = Annotated[list[str], Field(examples=[["animation", "children"]])]


class RecommendationRequest(BaseModel):
    """One history or several; everything else is optional."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        json_schema_extra={
            "oneOf": [
                {"required": ["history"], "properties": {"history": {"type": "array"}}},
                {"required": ["histories"], "properties": {"histories": {"type": "array"}}},
            ],
            "examples": [
                {"history": ["50", "181", "172"], "k": 10},
                {"histories": [["50", "181"], ["1"]], "k": 5, "block": ["172"], "explain": True},
                {"history": ["50", "181"], "experts": ["codes"]},
            ],
        },
    )

    history: list[ItemId] | None = Field(None, description="One user's item ids, oldest first.")
    histories: list[list[ItemId]] | None = Field(None, description="Several users' item ids, oldest first.")
    timestamps: list[Time] | list[list[Time]] | None = Field(
        None,
        description="Time of each item, in the shape of history or histories; some models need them. A number of "
        "seconds (or milli-, micro- or nanoseconds, recognised by their size) since 1970, or ISO 8601 text; all in "
        "the same unit.",
        examples=[[1700000000, 1700003600], ["2023-11-14T22:13:20Z", "2023-11-14T23:13:20Z"]],
    )
    user: UserId | None = Field(None, description="The user's id; used by models trained with user_buckets.")
    users: list[UserId | None] | None = Field(None, description="A user id, or null, for each of histories.")
    k: int = Field(DEFAULT_K, ge=1, le=MAX_K, description="Number of items to recommend.")
    exclude_seen: bool | None = Field(
        None,
        description="Whether to exclude the items of the history; null: as in the model's training.",
    )
    allow: list[ItemId] | None = Field(None, description="If given, only these items may be recommended.")
    block: list[ItemId] | None = Field(None, description="These items may not be recommended.")
    where: str | None = Field(
        None,
        max_length=MAX_LENGTH,
        description="If given, only items of which this expression about fields is true may be recommended; "
        "/v1/models lists the fields.",
        examples=["genres = comedy and not year < 1990"],
    )
    max_per: dict[FieldName, Annotated[int, Field(ge=1, le=MAX_K)]] = Field(
        default_factory=dict,
        max_length=20,
        description="By field: maximum number of items that have the same value; `first_code` is the first code of "
        "the semantic ID.",
        examples=[{"first_code": 2}],
    )
    boost: dict[
        Annotated[str, Field(max_length=MAX_LENGTH)],
        Annotated[float, Field(ge=-MAX_BOOST, le=MAX_BOOST)],
    ] = Field(
        default_factory=dict,
        max_length=100,
        description="By expression: log-odds that are added for items of which it is true, before items are ranked.",
        examples=[{"year >= 1990": 0.5}],
    )
    rules: list[Annotated[str, Field(max_length=1000)]] = Field(
        default_factory=list,
        max_length=100,
        description="Names of rules of the service, which /v1/models lists; they hold in addition.",
    )
    unknown: Literal["raise", "skip"] = Field(
        "raise", description="Whether unknown ids are an error or skipped and listed."
    )
    experts: list[ExpertWord] | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="Ask these experts of a joined model only: names that /v1/models lists, types (codes, dense, "
        "neighbours), or trained: all but the neighbours; null: all. Or a baseline that /v1/models lists, alone.",
        examples=[["codes", "dense"]],
    )
    explain: bool = Field(
        False,
        description="Whether to return why each item is recommended: what each expert says of it, its path of codes, "
        "and the items of the history that are near it or have it among their neighbours.",
    )
    describe: bool = Field(False, description="Whether to return the facets and the picture of each item.")
    model: str | None = Field(None, max_length=1000, description="Name of a model listed by /v1/models.")
    _seconds: list[list[int]] | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if (self.history is None) == (self.histories is None):
            raise ValueError("give either history (one user) or histories (several users)")
        if self.history is None and self.user is not None:
            raise ValueError("user requires history; with histories, give users")
        if self.histories is None and self.users is not None:
            raise ValueError("users requires histories; with history, give user")
        lengths = [len(items) for items in self._histories()]
        if self.users is not None and len(self.users) != len(lengths):
            raise ValueError(
                f"{len(lengths)} histories have {len(self.users)} users: give one, or null, for each history"
            )
        if self.timestamps is not None and _lengths(self._timestamps()) != lengths:
            raise ValueError("timestamps must have the shape of the histories: one time per item")
        if self.timestamps is not None:
            # Here, because requests whose times have other units share a batch.
            try:
                self._seconds = lists_to_seconds(self._timestamps())
            except ValueError as error:
                raise ValueError(f"timestamps: {error}") from error
        return self

    def _histories(self) -> list[list[str]]:
        return [self.history] if self.history is not None else self.histories or []

    def _timestamps(self) -> list[Any]:
        return [self.timestamps] if self.history is not None else list(self.timestamps or [])

    @property
    def own_rules(self) -> Rules:
        """The rules of the request itself."""
        return Rules(() if self.where is None else self.where, self.max_per, self.boost)

    def history_requests(self) -> list[HistoryRequest]:
        """The histories, each with its timestamps in seconds and its user."""
        histories = self._histories()
        users = [self.user] if self.history is not None else self.users or [None] * len(histories)
        times = [None] * len(histories) if self._seconds is None else self._seconds
        return [HistoryRequest(*row) for row in zip(histories, times, users, strict=True)]


def _lengths(rows: list[Any]) -> list[int]:
    """The lengths of lists of numbers; -1 for anything else."""
    return [
        len(row) if isinstance(row, list) and not any(isinstance(n, list) for n in row) else -1
        for row in rows
    ]


FieldValue = str | int | float | bool | None


NewTitle = Annotated[str, Field(min_length=1, max_length=10_000, examples=["Toy Story (1995)"])]


class DescribedItem(BaseModel):
    """What is said of an item; whatever else it has are fields of the catalogue, such as `"price": 9.99`."""

    model_config = ConfigDict(strict=True, extra="allow")
    __pydantic_extra__: dict[str, FieldValue | list[FieldValue]]

    item_id: Annotated[str, Field(min_length=1, max_length=LONGEST_ID)]

    @model_validator(mode="after")
    def _check_finite(self) -> Self:
        for name, value in self.__pydantic_extra__.items():
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, float) and not math.isfinite(one):
                    raise ValueError(f"{name[:100]} is {one}: give a finite number, or null")
        return self


class Change(BaseModel):
    """A change of the catalogue of a model."""

    model_config = ConfigDict(strict=True, extra="forbid")

    model: str | None = Field(None, max_length=1000, description="Name of a model listed by /v1/models.")


class NewItem(DescribedItem):
    """An item to add; whatever else it has are fields of the catalogue, such as `"price": 9.99`."""

    title: NewTitle
    text: str | None = Field(
        None,
        max_length=100_000,
        description="What the text encoder reads; null: made from title and fields, as in the training.",
    )
    vector: list[float] | None = Field(
        None, max_length=65_536, description="Its embedding; needed if those of the model were given, too."
    )


class NewItems(Change):
    """Items to add to the catalogue of a model."""

    items: Annotated[list[NewItem], Field(min_length=1, max_length=10_000)]

    @model_validator(mode="after")
    def _check_vectors(self) -> Self:
        if len({None if item.vector is None else len(item.vector) for item in self.items}) > 1:
            raise ValueError("give each item a vector of the same length, or none a vector")
        return self

    def vectors(self) -> NDArray[np.float32] | None:
        """The vectors float32 [items, dim]; None without any."""
        rows = [item.vector for item in self.items if item.vector is not None]
        with np.errstate(over="ignore"):  # infinite ones are refused
            return np.array(rows, dtype=np.float32) if rows else None


class ItemUpdate(DescribedItem):
    """What is said of an item from now on; what is not given, or null, stays. Whatever else it has are its fields."""

    title: NewTitle | None = None
    text: str | None = Field(None, max_length=100_000)


class ItemUpdates(Change):
    """Items of a model's catalogue to update."""

    items: Annotated[list[ItemUpdate], Field(min_length=1, max_length=10_000)]


class CatalogueVersion(BaseModel):
    """The catalogue after a change."""

    model: str
    version: Annotated[int, Field(description="Its version, as `rqrec items log` lists it.")]
    n_items: Annotated[int, Field(description="Number of items that may be recommended.")]
    notes: Annotated[
        list[str],
        Field(description="What there is to say of the change, such as items that have a vector of zeros."),
    ]


class NamedItem(BaseModel):
    """An item's id and title."""

    item_id: Annotated[str, Field(examples=["1"])]
    title: Title


class Facet(BaseModel):
    """A value of a field that items have in common; of numbers, the item's own and those near it."""

    field: Annotated[str, Field(examples=["genres"])]
    value: Annotated[str, Field(description="The item's own.", examples=["Comedy"])]
    where: Annotated[
        str,
        Field(description="The expression for all items that share it.", examples=["`genres` = 'Comedy'"]),
    ]
    label: Annotated[str, Field(description="What the expression means.", examples=["Comedy"])]


class CodedItem(NamedItem):
    """An item with its semantic ID."""

    semantic_id: Codes


class ItemSummary(CodedItem):
    """An item with its semantic ID, facets and picture."""

    facets: list[Facet]
    image: Image = None


class Item(ItemSummary):
    """An item with the text that the text encoder reads."""

    text: Annotated[str, Field(examples=["Toy Story (1995), Animation, Children's, Comedy"])]


class PathStep(BaseModel):
    """One code of the path to an item."""

    code: int
    probability: Annotated[
        float, Field(description="Probability of the code, given the history and the preceding codes.")
    ]
    n_items: Annotated[
        int, Field(description="Number of items whose semantic IDs start with the codes up to this one.")
    ]
    words: Annotated[list[str], Field(description="Words that are typical of these items.")]
    others: Annotated[list[NamedItem], Field(description="Examples of such items, without the item itself.")]


class Reason(NamedItem):
    """An item of the history that has the recommended item among its neighbours."""

    share: Annotated[float, Field(description="Its part, 0 to 1, of the neighbours' score of the item.")]


class NearItem(NamedItem):
    """An item of the history near the recommended one."""

    shared: Annotated[int, Field(description="Number of leading codes that both have.")]
    closeness: Annotated[float, Field(description="Closeness of their codes, 0 to 1.")]


class RecommendedItem(CodedItem):
    """A recommended item.

    `facets` and `image` are present only with `describe`, `experts`, `path` and so on with `explain`.
    """

    score: Annotated[
        float,
        Field(
            description="Log-probability, plus the boosts of the item; of several experts together, among the items "
            "that they propose.",
            examples=[-3.21],
        ),
    ]
    facets: list[Facet] | None = None
    image: Image = None
    experts: Annotated[
        dict[str, float | None] | None,
        Field(
            description="By expert that was asked: its own log-probability of the item; null if the item is "
            "impossible for it.",
            examples=[{"codes": -2.9, "dense": -4.1, "neighbours": None}],
        ),
    ] = None
    path: Annotated[
        list[PathStep] | None,
        Field(description="The item's codes; their probabilities multiply to that of the expert `codes`."),
    ] = None
    because: Annotated[
        list[Reason] | None,
        Field(
            description="Items of the history that have this item among their neighbours, the largest share first; "
            "empty if none has, or the model has no neighbours."
        ),
    ] = None
    beside: Annotated[
        list[NearItem] | None,
        Field(
            description="The items of the history nearest to this one by their codes, which is what the expert "
            "`codes` reads of them."
        ),
    ] = None


class Recommendations(BaseModel):
    """The recommendations for one history, most probable first."""

    items: list[RecommendedItem]
    n_allowed: Annotated[int, Field(description="Number of items that could have been recommended.")]
    skipped: Annotated[list[str], Field(description="Unknown ids that were skipped.")]


class RecommendationResponse(BaseModel):
    """Recommendations for each history, in the order of the request."""

    model: str
    recommendations: list[Recommendations]
    notes: list[str] = Field(description="What the request says that makes no difference to the model.")


class ExpertInfo(BaseModel):
    """An expert of a model, and how it is joined with the others."""

    name: str
    type: Annotated[
        Literal["codes", "dense", "neighbours", "content"],
        Field(
            description="codes: generates semantic IDs; dense: compares the history with a vector of each item; "
            "neighbours: looks up which items are near those of the history; content: compares the history with the "
            "items that were added after training."
        ),
    ]
    power: Annotated[
        float, Field(description="The power of its probabilities; trained experts' are multiplied.", gt=0)
    ]
    share: Annotated[
        float | None,
        Field(
            description="The share of the probability with which it is mixed in; null: a factor of the product."
        ),
    ]
    index_recall: Annotated[
        float | None,
        Field(
            description="What share of its best items is found by an index; null: it scores every item.",
            ge=0,
            le=1,
        ),
    ]


class ModelInfo(BaseModel):
    """A served model."""

    name: str
    architecture: Annotated[str, Field(description="That of the expert `codes`.", examples=["decoder_only"])]
    parameters: Annotated[int, Field(description="Of all its experts.")]
    experts: list[ExpertInfo]
    baselines: Annotated[
        list[str],
        Field(description="What can be asked instead of its experts, to compare.", examples=[["popularity"]]),
    ]
    n_items: Annotated[int, Field(description="Number of items that may be recommended.")]
    version: Annotated[int, Field(description="Version of its catalogue; 0: that of the training.")]
    level_sizes: Annotated[list[int], Field(examples=[[256, 256, 256, 2]])]
    fields: Annotated[
        list[str],
        Field(description="The fields of its items, for rules.", examples=[["item_id", "title", "genres"]]),
    ]
    rules: Annotated[list[str], Field(description="The names of the service's rules.")]
    default: bool


class Models(BaseModel):
    """The served models."""

    models: list[ModelInfo]


class User(BaseModel):
    """A user of the dataset with a test example."""

    user_id: str
    history: Annotated[list[NamedItem], Field(description="The last items, oldest first.")]
    likes: Annotated[
        list[str],
        Field(
            description="Values of fields, or words, that are typical of them.",
            examples=[["Comedy", "Romance"]],
        ),
    ]
    next: Annotated[
        NamedItem,
        Field(description="What the user took next: the test target, which the model has not learned from."),
    ]
    rank: Annotated[
        int | None,
        Field(
            description="Its place among the model's recommendations for this history; null: not among the first 100."
        ),
    ]


class Users(BaseModel):
    """Sample users of the model's dataset; empty if the dataset is not available."""

    users: list[User]


class StartingPoint(BaseModel):
    """Well-known items of a kind."""

    label: Annotated[str, Field(examples=["Science Fiction"])]
    where: Annotated[
        str | None,
        Field(description="The expression for all items of the kind; null: they share a code and words."),
    ]
    items: list[NamedItem]


class StartingPoints(BaseModel):
    """A few kinds of items, made from the catalogue, to begin with."""

    starting_points: list[StartingPoint]


class ItemPage(BaseModel):
    """A page of items."""

    items: list[ItemSummary]
    total: int
    page: int
    page_size: int


class SimilarItem(CodedItem):
    """A similar item."""

    score: Annotated[
        float,
        Field(description="Length of the shared prefix of codes, plus the closeness of the codes, 0 to 1."),
    ]


class SimilarItems(BaseModel):
    """Similar items, most similar first."""

    items: list[SimilarItem]


BestKnown = Annotated[
    list[NamedItem],
    Field(description="The items that were taken most often, or the first ones if that is not known."),
]


class Child(BaseModel):
    """A code that follows the prefix, and what is below it."""

    code: int
    n_items: int
    words: Words
    best_known: BestKnown


class SemanticIdNode(BaseModel):
    """The node of a prefix of codes."""

    prefix: Codes
    n_items: int
    words: Words
    children: list[Child]
    items: list[ItemSummary]
    page: int
    page_size: int


class Cluster(BaseModel):
    """A cluster of the map and its centre; level 0: to be named at first sight, 1: closer up."""

    level: int
    n_items: int
    x: int
    y: int
    words: Words
    best_known: BestKnown


class Map(BaseModel):
    """A place for every item; one value per item in each list."""

    version: Annotated[int, Field(description="Version of the catalogue.")]
    side: Annotated[int, Field(description="Places are whole numbers from 0 to this.")]
    item_ids: list[str]
    titles: list[str]
    x: list[int]
    y: list[int]
    codes: Annotated[list[int], Field(description="The first code of each item's semantic ID.")]
    clusters: list[Cluster]


class Status(BaseModel):
    """The state of the service."""

    status: Annotated[str, Field(examples=["ok"])]


class ErrorDetail(BaseModel):
    """Code and message of a failure."""

    code: Annotated[str, Field(examples=["unknown_item"])]
    message: Annotated[str, Field(examples=["Unknown item id '99999': it is not among the 1682 items."])]
    request_id: str


class ErrorBody(BaseModel):
    """The body of every error response."""

    error: ErrorDetail
