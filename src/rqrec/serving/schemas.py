"""The bodies of requests and answers, as OpenAPI describes them."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rqrec.serving.model_registry import Asked

MAX_K = 100
ItemId = Annotated[str, Field(max_length=1000)]
UserId = Annotated[str, Field(max_length=1000)]
Second = Annotated[int, Field(ge=0, lt=2**62)]
Codes = Annotated[list[int], Field(examples=[[12, 7, 201, 0]])]
Title = Annotated[str, Field(examples=["Toy Story (1995)"])]
Words = Annotated[list[str], Field(examples=[["animation", "children"]])]


class RecommendationRequest(BaseModel):
    """One history, or several; everything else is optional."""

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
            ],
        },
    )

    history: list[ItemId] | None = Field(None, description="Item ids of one user, oldest first.")
    histories: list[list[ItemId]] | None = Field(None, description="The same for several users.")
    timestamps: list[Second] | list[list[Second]] | None = Field(
        None,
        description="Unix seconds of each item of history, or of each of histories, where a model asks for it.",
    )
    user: UserId | None = Field(None, description="Whose history it is; some models look at it.")
    users: list[UserId | None] | None = Field(None, description="The same for several users.")
    k: int = Field(10, ge=1, le=MAX_K, description="How many items.")
    exclude_seen: bool = Field(True, description="Leave out the items of the history.")
    allow: list[ItemId] | None = Field(None, description="Only these items may come back.")
    block: list[ItemId] | None = Field(None, description="These items may not come back.")
    max_per_code: int | None = Field(
        None, ge=1, le=MAX_K, description="Items that may share the first code of their semantic IDs."
    )
    unknown: Literal["raise", "skip"] = Field("raise", description="What to do about unknown ids.")
    explain: bool = Field(False, description="Tell the path of codes to each item.")
    model: str | None = Field(None, max_length=1000, description="A model of /v1/models.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.history is None) == (self.histories is None):
            raise ValueError("give either history, for one user, or histories, for several")
        if self.history is None and self.user is not None:
            raise ValueError("user goes with history; several histories have users")
        if self.histories is None and self.users is not None:
            raise ValueError("users goes with histories; one history has a user")
        lengths = [len(items) for items in self._histories()]
        if self.users is not None and len(self.users) != len(lengths):
            raise ValueError(f"{len(lengths)} histories came with {len(self.users)} users")
        if self.timestamps is not None and _lengths(self._timestamps()) != lengths:
            raise ValueError("timestamps must have the shape of the histories, a number for each item")
        return self

    def _histories(self) -> list[list[str]]:
        return [self.history] if self.history is not None else self.histories or []

    def _timestamps(self) -> list[Any]:
        return [self.timestamps] if self.history is not None else list(self.timestamps or [])

    def asked(self) -> list[Asked]:
        """The histories with what else is known of each."""
        histories = self._histories()
        users = [self.user] if self.history is not None else self.users or [None] * len(histories)
        stamps = [None] * len(histories) if self.timestamps is None else self._timestamps()
        return [Asked(*one) for one in zip(histories, stamps, users, strict=True)]


def _lengths(rows: list[Any]) -> list[int]:
    """The lengths of lists of numbers; -1 for what is none."""
    return [
        len(row) if isinstance(row, list) and not any(isinstance(n, list) for n in row) else -1
        for row in rows
    ]


class NamedItem(BaseModel):
    """An item's id and title."""

    item_id: Annotated[str, Field(examples=["1"])]
    title: Title


class BriefItem(NamedItem):
    """An item with its semantic ID."""

    semantic_id: Codes


class Item(BriefItem):
    """An item with what the text encoder read."""

    text: Annotated[str, Field(examples=["Toy Story (1995), Animation, Children's, Comedy"])]


class Step(BaseModel):
    """One code of the path to an item."""

    code: int
    probability: Annotated[float, Field(description="Of the code, given the history and the codes before.")]
    n_items: Annotated[int, Field(description="Items that have the codes up to this one.")]
    others: Annotated[list[NamedItem], Field(description="Some of them.")]


class RecommendedItem(BriefItem):
    """An item that may come next."""

    score: Annotated[float, Field(description="Log-probability.", examples=[-3.21])]
    path: Annotated[list[Step] | None, Field(description="With `explain` only.")] = None


class Recommendations(BaseModel):
    """What one history gets, the likeliest first."""

    items: list[RecommendedItem]
    n_allowed: Annotated[int, Field(description="Items that could have come back.")]
    skipped: Annotated[list[str], Field(description="Unknown ids that were passed over.")]


class RecommendationAnswer(BaseModel):
    """One entry a history, in their order."""

    model: str
    recommendations: list[Recommendations]


class ModelFacts(BaseModel):
    """A served model."""

    name: str
    architecture: Annotated[str, Field(examples=["decoder_only"])]
    parameters: int
    n_items: int
    level_sizes: Annotated[list[int], Field(examples=[[256, 256, 256, 2]])]
    default: bool


class Models(BaseModel):
    """The served models."""

    models: list[ModelFacts]


class User(BaseModel):
    """A user of the dataset."""

    user_id: str
    history: list[NamedItem]


class Users(BaseModel):
    """A few users of the model's dataset; none where it has none."""

    users: list[User]


class ItemPage(BaseModel):
    """A page of items."""

    items: list[BriefItem]
    total: int
    page: int
    page_size: int


class SimilarItem(BriefItem):
    """An item like another."""

    score: Annotated[float, Field(description="Codes shared from the first on, plus nearness, 0 to 1.")]


class SimilarItems(BaseModel):
    """The most similar first."""

    items: list[SimilarItem]


class Child(BaseModel):
    """One code further."""

    code: int
    n_items: int
    words: Words


class SemanticIdNode(BaseModel):
    """What is below a prefix of codes."""

    prefix: Codes
    n_items: int
    words: Words
    children: list[Child]
    items: list[BriefItem]
    page: int
    page_size: int


class Status(BaseModel):
    """Whether the service is well."""

    status: Annotated[str, Field(examples=["ok"])]


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: Annotated[str, Field(examples=["unknown_item"])]
    message: Annotated[str, Field(examples=["Unknown item id '99999': it is not among the 1682 items."])]
    request_id: str


class ErrorBody(BaseModel):
    """The body of every failure."""

    error: ErrorDetail
