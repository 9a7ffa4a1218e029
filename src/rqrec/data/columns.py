"""Which column of a table is the user, the item, the time, the rating or the title, by its name.

Names are compared without case, spaces and punctuation: userId, USER_ID and "User Id" are one name.
"""

import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from rqrec.core.errors import first_few

# Of each role: the name that always wins, and others that are understood.
ROLES = {
    "user_id": ("user", "uid", "customerid", "customer", "reviewerid", "visitorid", "memberid", "clientid"),
    "item_id": (
        *("item", "iid", "itemno", "movieid", "productid", "product", "asin", "parentasin", "sku", "articleid"),
        *("bookid", "isbn", "trackid", "songid", "artistid", "videoid", "newsid", "gameid", "recipeid", "businessid"),
    ),
    "timestamp": ("time", "ts", "datetime", "date", "createdat", "eventtime", "unixtime", "unixreviewtime"),
    "rating": ("ratings", "score", "stars", "overall"),
}  # fmt: skip
# Names that are understood where there is none of those above: of exports of shops and services.
RARE = {
    "user_id": (
        *("userpseudoid", "buyerid", "buyer", "shopperid", "accountid", "profileid", "personid", "playerid"),
        *("listenerid", "readerid", "viewerid", "subscriberid", "customerno", "customernumber", "username"),
        *("kundennummer", "kundennr", "kundenid", "kunde", "kdnr", "nutzerid", "nutzer", "benutzerid"),
        *("clienteid", "idclient", "idcliente", "usuario", "idusuario", "utilisateur"),
    ),
    "item_id": (
        *("stockcode", "productcode", "productno", "itemcode", "itemnumber", "lineitemsku", "ean", "gtin", "upc"),
        *("isbn13", "animeid", "showid", "courseid", "postid", "contentid", "documentid", "appid", "placeid"),
        *("artikelnummer", "artikelnr", "artikelid", "artikel", "artnr", "produktnummer", "produktid", "produkt"),
        *("idproducto", "producto", "idproduit", "produit", "idprodotto", "prodotto"),
    ),
    "timestamp": (
        *("invoicedate", "orderdate", "purchasedate", "transactiondate", "eventtimestamp", "eventdate", "visitdate"),
        *("playedat", "watchedat", "dateadded", "reviewdate", "reviewtime", "tdat", "createdtime", "datecreated"),
        *("datum", "zeit", "zeitpunkt", "fecha"),
    ),
    "rating": ("userrating", "reviewscore", "starrating", "bewertung"),
}  # fmt: skip
OPTIONS = {
    "user_id": "user_column",
    "item_id": "item_column",
    "timestamp": "time_column",
    "rating": "rating_column",
}
LOG_ROLES = ("user_id", "item_id", "timestamp")
TITLES = (
    "title",
    "name",
    "producttitle",
    "productname",
    "itemtitle",
    "itemname",
    "movietitle",
    "booktitle",
    "headline",
    "prodname",
    "productdisplayname",
    "trackname",
    "titel",
    "bezeichnung",
    "artikelname",
    "artikelbezeichnung",
    "produktname",
    "titre",
    "titulo",
    "titolo",
)
MOST_NAMES, LONGEST_NAME = 30, 100  # of columns in a message
SINGLE_ID = "id"  # in a table of items, the item's, if no column says so more clearly

_IS_ID = re.compile(r"(^|[^a-z])ids?$|[a-z]I[dD]s?$|^unnamed: \d+$|^index$|^$")
_IS_TIME = re.compile(r"(^|[^a-z])(date|time|datetime|timestamp|at|on)$|[a-z](Date|Time|At|On)$|datum$|zeit$")
_VALUE = re.compile(r"[-+]?\d+([.,]\d+)?([eE][-+]?\d+)?|\d{4}-\d\d-\d\d.*")


def normalised(name: str) -> str:
    """A column name without case, spaces and punctuation."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def listed(names: Sequence[str]) -> str:
    """Column names for a message, on one line."""
    shown = [
        name if name.isprintable() and len(name) < LONGEST_NAME else reprlib.repr(name) for name in names
    ]
    return first_few(shown, MOST_NAMES)


def is_id(name: str) -> bool:
    """Whether a column's name says that it holds ids or row numbers, and nothing about the item."""
    return bool(_IS_ID.search(name.strip()) or _IS_ID.search(name.strip().lower()))


def is_header(first_row: Sequence[str]) -> bool:
    """Whether the first row of a table names its columns: none is a number or a date, unless others are known."""
    known = {"text", *map(normalised, (*ROLES, *TITLES))}
    for names in (*ROLES.values(), *RARE.values()):
        known |= set(names)
    return bool(known & set(map(normalised, first_row))) or not any(
        _VALUE.fullmatch(name.strip()) for name in first_row
    )


def find_column(names: Sequence[str], role: str, *, of_items: bool = False) -> str | None:
    """The column with a role, a key of `ROLES`; None if there is none.

    The role's own name wins (`user_id`, also userId). Raises ValueError naming the columns if several others
    could be it. In a table of items, `id` is an item id.
    """
    for known in ([role], [normalised(role)], ROLES[role], RARE[role]):
        found = [name for name in names if name in known or normalised(name) in known]
        if role in found:
            return role
        if len(found) > 1:
            option = OPTIONS[role]
            raise ValueError(
                f"several columns could be {role}: {listed(found)}. Name the one to use with "
                f"--{option.replace('_', '-')} ({option} in a gin file)."
            )
        if found:
            return found[0]
    if role == "timestamp":  # ordered_at, lastVisitTime, Kaufdatum: if there is only one such column
        found = [
            name for name in names if _IS_TIME.search(name.strip()) or _IS_TIME.search(name.strip().lower())
        ]
        return found[0] if len(found) == 1 else None
    if of_items and role == "item_id":
        return next((name for name in names if normalised(name) == SINGLE_ID), None)
    return None


def log_columns(
    path: Path, names: Sequence[str], given: Mapping[str, str | None], roles: Sequence[str] = LOG_ROLES
) -> dict[str, str]:
    """The column of each role in a log; those in `given` are as the user says.

    Raises ValueError naming `path` if a column is missing, ambiguous or has two roles.
    """
    columns: dict[str, str] = {}
    for role in roles:
        try:
            column = given.get(role) or find_column(names, role)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if column is not None:
            columns[role] = column
    lacking = [role for role in roles if columns.get(role, role) not in names or role not in columns]
    if lacking:
        missing = ", ".join(columns.get(role, role) for role in lacking)
        options = " and ".join(f"--{OPTIONS[role].replace('_', '-')}" for role in lacking)
        raise ValueError(
            f"{path} lacks {missing}; its columns are {listed(names)}. Say which column it is with {options} "
            f"({' and '.join(OPTIONS[role] for role in lacking)} in a gin file)."
        )
    if len(set(columns.values())) < len(columns):
        used = ", ".join(f"{role} from {column}" for role, column in columns.items())
        raise ValueError(f"{path}: one column cannot be two things: {used}.")
    return columns


def renamed(columns: Mapping[str, str]) -> list[str]:
    """What to say about columns with another name than their role's: "user_id is read from userId"."""
    other = [f"{role} from {column}" for role, column in columns.items() if role != column]
    return [f"it reads {', '.join(other)}"] if other else []
