"""Tables of the rating that bring a plan or the whole system into use by stages, and hold another billing's charges beside
ours. All of them are append-only; the newest row of a rollout's name, or of a period's import, is the one that counts.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, Table, Text

from core.table_columns import metadata, row_id

rollout = Table(  # a step of a rollout, with all that holds from then on
    "rollout",
    metadata,
    row_id(),
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("action", Text, nullable=False),  # start, advance, back or end
    Column("stage", Text, nullable=False),  # test, pilot, everybody or ended
    Column("plan", Text),  # null: the whole system
    Column("plan_version", Text),  # ISO date; this version of the plan and later ones
    Column("pilot_books", Integer, nullable=False),  # 1: the pilot group is invoiced already in the stage `pilot`
    Column("pilot_from", Text, nullable=False),  # the group's first period that is invoiced here; empty: no bound
    Column("everybody_from", Text, nullable=False),  # the others' first period that is invoiced here; empty: no bound
    Column("evidence", Text, nullable=False),  # JSON: the comparisons that a step was allowed by
    Index("rollout_name", "name"),
)
rollout_service = Table(  # the pilot group, as a step names it; the newest step of a name that names one counts
    "rollout_service",
    metadata,
    Column("rollout_id", BigInteger, ForeignKey("rollout.id"), primary_key=True),
    Column("service", Text, primary_key=True),
)
twin_import = Table(  # another billing's charges of a period
    "twin_import",
    metadata,
    row_id(),
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("file", Text, nullable=False),  # its name
    Column("digest", Text, nullable=False),  # of the file and the mapping
    Column("rows", BigInteger, nullable=False),
    Column("amounts", Text, nullable=False),  # net or gross: what their amounts are
    Column("mapping", Text, nullable=False),  # JSON
    Index("twin_import_period", "period"),
)
twin_charge = Table(
    "twin_charge",
    metadata,
    Column("import_id", BigInteger, ForeignKey("twin_import.id"), primary_key=True),
    Column("row_number", BigInteger, primary_key=True),  # its line in the file
    Column("service", Text, nullable=False),  # by our name
    Column("theirs", Text, nullable=False),  # the line as they name it
    Column("line", Text, nullable=False),  # as we name it
    Column("not_billed", Text, nullable=False),  # why we don't bill it; empty: we do
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("quantity", Text, nullable=False),  # a decimal; empty: not told
    Column("tax_minor", BigInteger),
)
twin_explanation = Table(  # a difference that a person has accepted, as it was
    "twin_explanation",
    metadata,
    row_id(),
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("service", Text, nullable=False),
    Column("line", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("difference_minor", BigInteger, nullable=False),  # ours - theirs
    Column("cause", Text, nullable=False),  # as it was found then
    Index("twin_explanation_period", "period"),
)
