"""Side information: the user of a history, and the time between its items."""

import polars as pl
import pytest
import torch

from rqrec.data.ids import PADDING
from rqrec.data.times import PER_SECOND, to_seconds
from rqrec.models.architectures import ARCHITECTURES, architecture, build_model
from rqrec.models.retrieval_model import Batch
from rqrec.models.side_information import LONGEST, SHORTEST, SideInformation, user_number
from rqrec.tokenizer.trie import Trie

architectures = pytest.mark.parametrize("name", ARCHITECTURES)
DAY = 24 * 3600


def test_a_user_id_always_has_the_same_number() -> None:
    assert user_number("A1YJEY40YUW4SE") == 1260036062548698549
    assert user_number(None) == PADDING
    numbers = [user_number(str(user)) for user in range(1000)]
    assert len(set(numbers)) == 1000
    assert 0 <= min(numbers) <= max(numbers) < 2**63
    assert len({number % 10 for number in numbers}) == 10


def test_gaps_share_a_bucket_by_their_order_of_magnitude() -> None:
    side = SideInformation(0, 6, 3)
    gaps = [0, SHORTEST - 1, SHORTEST, 100 * SHORTEST, DAY, 30 * DAY, LONGEST - 1, LONGEST, 10 * LONGEST]
    times_BT = torch.tensor([[0, gap] for gap in gaps])
    vectors_B = side.with_gaps(torch.zeros(len(gaps), 2, 1, 3), times_BT)[:, 1, 0]
    rows = [(side.gap.weight == vector).all(1).nonzero().item() for vector in vectors_B]
    assert rows == sorted(rows)
    assert [rows[0], rows[1], rows[2], rows[-3], rows[-2], rows[-1]] == [1, 1, 2, 5, 6, 6]
    assert len(set(rows)) == 6


def test_only_the_last_position_of_an_item_gets_the_gap_and_the_first_item_gets_none() -> None:
    side = SideInformation(0, 6, 3)
    x_BTPD = side.with_gaps(torch.zeros(2, 4, 3, 3), torch.tensor([[1, 2, 3, 4], [5, 6, 7, 0]]))
    assert not x_BTPD[:, :, :2].any()
    assert not x_BTPD[:, 0].any()
    assert x_BTPD[:, 1:, 2].any(-1).all()
    assert side.with_gaps(torch.zeros(2, 0, 3, 3), torch.zeros(2, 0).long()).shape == (2, 0, 3, 3)


def test_without_a_user_begin_is_unchanged() -> None:
    side, begin = SideInformation(4, 0, 3), torch.randn(3, 1, 3)
    assert torch.equal(side.with_user(begin, None), begin)
    numbers = torch.tensor([PADDING, 5, 9])  # 5 and 9 share one of 4 buckets
    added = side.with_user(begin, numbers) - begin
    assert not added[0].any()
    assert added[1].any()
    torch.testing.assert_close(added[1], added[2])


@architectures
def test_models_without_the_options_ignore_times_and_users(name: str) -> None:
    model = build_model(architecture(name).config((4, 3), 5, 8, 8, 2, 1, 0.0)).eval()
    codes, lengths = torch.randint(3, (2, 5, 2)), torch.tensor([5, 3])
    items = codes @ torch.tensor([3, 1])
    trie = Trie.build(torch.cartesian_prod(torch.arange(4), torch.arange(3)).numpy())
    bare = Batch(codes, lengths, items_BT=items)
    full = Batch(codes, lengths, torch.arange(10).view(2, 5), torch.tensor([7, 8]), items)
    assert model(bare, trie).total == model(full, trie).total
    assert not [key for key in model.state_dict() if "side" in key]


@architectures
def test_a_model_that_uses_times_refuses_histories_without_them(name: str) -> None:
    model = build_model(architecture(name).config((4, 3), 5, 8, 8, 2, 1, time_gaps=3))
    with pytest.raises(ValueError, match=r"uses the time between items .* Give the timestamp of each item"):
        model.encode(Batch(torch.zeros(1, 2, 2).long(), torch.tensor([2])))


@architectures
def test_it_learns_from_the_user_and_from_the_time(name: str) -> None:
    """Four histories of the same items, whose next item depends on the user (rows) and the gap (columns)."""
    torch.manual_seed(0)
    model = build_model(architecture(name).config((4, 4), 3, 16, 16, 2, 1, 0.0, user_buckets=50, time_gaps=8))
    codes_BTL = torch.zeros(4, 3, 2).long()
    codes_BTL[:, -1] = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 0]])
    times_BT = torch.tensor([[0, 30, 0], [0, 90 * DAY, 0]] * 2)
    users_B = torch.tensor([user_number(user) for user in ("ann", "ann", "bob", "bob")])
    batch = Batch(codes_BTL, torch.full((4,), 3), times_BT, users_B, codes_BTL @ torch.tensor([4, 1]))
    trie = Trie.build(torch.cartesian_prod(torch.arange(4), torch.arange(4)).numpy())
    copies = Batch(
        *(part if part is None else part.repeat(6, *[1] * (part.dim() - 1)) for part in batch)
    )  # more random targets at each step
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(250):
        optimizer.zero_grad()
        model(copies, trie).total.backward()
        optimizer.step()
    context = model.eval().encode(batch._replace(lengths_B=torch.full((4,), 2)))
    first = model.next_logits(context, torch.zeros(4, 1, 0).long())[:, 0].log_softmax(-1)
    assert first.argmax(1).tolist() == [0, 1, 2, 3]
    assert first.max(1).values.min() > -0.1


@pytest.mark.parametrize("gap", [30, 3600, DAY, 365 * DAY])
def test_a_gap_falls_into_the_same_bucket_in_every_unit(gap: int) -> None:
    side, start = SideInformation(0, 9, 3), 1_700_000_000
    seconds = [start, start + gap]
    columns = [
        *(pl.Series([second * scale for second in seconds]) for scale in PER_SECOND.values()),
        pl.Series([str(float(second)) for second in seconds]),
        pl.from_epoch(pl.Series(seconds), "s"),
        pl.from_epoch(pl.Series(seconds), "s").dt.to_string("iso"),
    ]
    times_BT = torch.tensor([to_seconds(column).seconds.to_list() for column in columns])
    vectors_B = side.with_gaps(torch.zeros(len(columns), 2, 1, 3), times_BT)[:, 1, 0]
    assert (vectors_B == vectors_B[0]).all()
