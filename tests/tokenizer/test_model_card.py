from rqrec.tokenizer.model_card import model_card


def test_the_card_has_data_metrics_and_usage():
    card = model_card(
        "me/beauty-ids",
        "RqVae",
        "rqrec",
        {"input_dim": 384, "n_layers": 3},
        data="Amazon Beauty, 12,101 items.",
        figures={"collision rate": 0.12345},
    )
    assert card.startswith("---\nlibrary_name: rqrec\n")
    for part in (
        "# beauty-ids",
        "Amazon Beauty, 12,101 items.",
        "| collision rate | 0.1235 |",
        "| n_layers | 3 |",
        'tokenizer = RqVae.from_pretrained("me/beauty-ids")',
        "float [items, 384]",
        "## Limits\n\n- It reads embeddings of the encoder",
    ):
        assert part in card


def test_a_card_without_metrics_says_so():
    card = model_card("me/x", "RqVae", "rqrec", {"input_dim": 4}, data="Some.", figures={})
    assert "None were recorded" in card
