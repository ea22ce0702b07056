"""The SQL tables as SQLAlchemy describes them: the contract between packages, like `core.schemas` for files.

Each table belongs to one package (named in its comment), which alone writes it and whose `migrations/` make it; a test
holds these descriptions against the migrated database. Instants are int64 UTC milliseconds, dates ISO text,
addresses 16 bytes, amounts whole minor units. An open end of an interval is `core.periods.OPEN_END`.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, Table, Text, UniqueConstraint

from core.collector_tables import (
    announced_rate as announced_rate,
)
from core.collector_tables import (
    decoder_position as decoder_position,
)
from core.collector_tables import (
    exporter_reading as exporter_reading,
)
from core.collector_tables import (
    exporter_sampler as exporter_sampler,
)
from core.collector_tables import (
    exporter_state as exporter_state,
)
from core.collector_tables import (
    exporter_template as exporter_template,
)
from core.collector_tables import (
    exporter_total as exporter_total,
)
from core.collector_tables import (
    fault as fault,
)
from core.collector_tables import (
    fault_total as fault_total,
)
from core.collector_tables import (
    intake as intake,
)
from core.collector_tables import (
    interface_counter as interface_counter,
)
from core.collector_tables import (
    interface_flow as interface_flow,
)
from core.collector_tables import (
    kernel_drop as kernel_drop,
)
from core.collector_tables import (
    port_block_event as port_block_event,
)
from core.collector_tables import (
    port_block_lease as port_block_lease,
)
from core.collector_tables import (
    port_block_position as port_block_position,
)
from core.collector_tables import (
    quarantine_admission as quarantine_admission,
)
from core.collector_tables import (
    quarantine_file as quarantine_file,
)
from core.collector_tables import (
    rate_reading as rate_reading,
)
from core.collector_tables import (
    replayed_file as replayed_file,
)
from core.collector_tables import (
    segment as segment,
)
from core.collector_tables import (
    segment_slot as segment_slot,
)
from core.collector_tables import (
    segment_source as segment_source,
)
from core.collector_tables import (
    unknown_exporter as unknown_exporter,
)
from core.collector_tables import (
    unrated_flows as unrated_flows,
)
from core.dhcp_tables import (
    dhcp_client as dhcp_client,
)
from core.dhcp_tables import (
    dhcp_entry as dhcp_entry,
)
from core.dhcp_tables import (
    dhcp_lease as dhcp_lease,
)
from core.dhcp_tables import (
    dhcp_position as dhcp_position,
)
from core.lake_tables import (
    generation_source as generation_source,
)
from core.lake_tables import (
    lake_file as lake_file,
)
from core.lake_tables import (
    lake_part as lake_part,
)
from core.lake_tables import (
    lake_segment as lake_segment,
)
from core.nat_tables import (
    deterministic_nat_lease as deterministic_nat_lease,
)
from core.nat_tables import (
    deterministic_nat_position as deterministic_nat_position,
)
from core.radius_tables import (
    radius_event as radius_event,
)
from core.radius_tables import (
    radius_lease as radius_lease,
)
from core.radius_tables import (
    radius_position as radius_position,
)
from core.radius_tables import (
    radius_prefix as radius_prefix,
)
from core.rollout_tables import (
    rollout as rollout,
)
from core.rollout_tables import (
    rollout_service as rollout_service,
)
from core.rollout_tables import (
    twin_charge as twin_charge,
)
from core.rollout_tables import (
    twin_explanation as twin_explanation,
)
from core.rollout_tables import (
    twin_import as twin_import,
)
from core.table_columns import ROW_ID, row_id
from core.table_columns import metadata as metadata

# storage ------------------------------------------------------------------------------------------------------------
manifest_version = Table(  # one row a commit that changes which files are the truth
    "manifest_version",
    metadata,
    row_id(),
    Column("at", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("detail", Text, nullable=False),
)

# security -----------------------------------------------------------------------------------------------------------
audit = Table(
    "audit",
    metadata,
    row_id(),
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("before", Text),
    Column("after", Text),
)

# runtime ------------------------------------------------------------------------------------------------------------
job_lease = Table(  # who may do a job now; a dead owner's lease is taken over
    "job_lease",
    metadata,
    Column("name", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("pid_started", BigInteger, nullable=False),
    Column("taken", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False),
)
job_run = Table(
    "job_run",
    metadata,
    row_id(),
    Column("name", Text, nullable=False),
    Column("started", BigInteger, nullable=False),
    Column("ended", BigInteger),
    Column("result", Text),
    Column("detail", Text),
)

# subscribers --------------------------------------------------------------------------------------------------------
account = Table(
    "account",
    metadata,
    Column("account", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("phone", Text, nullable=False),
    Column("address", Text, nullable=False),
)
service = Table(
    "service",
    metadata,
    row_id(),
    Column("service", Text, nullable=False, unique=True),
    Column("account", Text, ForeignKey("account.account"), nullable=False),
    Column("contract", Text, nullable=False),
)
subscription = Table(  # a row of subscribers.csv: a service under one plan for a time
    "subscription",
    metadata,
    row_id(),
    Column("service_id", BigInteger, ForeignKey("service.id"), nullable=False),
    Column("plan", Text),  # null: usage without plan
    Column("start_date", Text, nullable=False),  # ISO local date; empty: from the beginning of time
    Column("end_date", Text, nullable=False),  # ISO local date, exclusive; empty: open
    Column("start_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger, nullable=False),
    Column("timezone", Text, nullable=False),
    Column("currency", Text, nullable=False),
    UniqueConstraint("service_id", "start_date"),
)
addon = Table(  # a plan beside a service's own
    "addon",
    metadata,
    row_id(),
    Column("service_id", BigInteger, ForeignKey("service.id"), nullable=False),
    Column("plan", Text, nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("start_date", Text, nullable=False),  # ISO local date
    Column("end_date", Text, nullable=False),  # ISO local date, exclusive; empty: open
    UniqueConstraint("service_id", "plan", "start_date"),
)
pause = Table(  # a time in which a service rests
    "pause",
    metadata,
    row_id(),
    Column("service_id", BigInteger, ForeignKey("service.id"), nullable=False),
    Column("kind", Text, nullable=False),  # suspension or vacation
    Column("start_date", Text, nullable=False),  # ISO local date
    Column("end_date", Text, nullable=False),  # ISO local date, exclusive; empty: open
    UniqueConstraint("service_id", "start_date"),
)
lease = Table(
    "lease",
    metadata,
    row_id(),
    Column("realm", Text, nullable=False),
    Column("address", LargeBinary, nullable=False),  # first address of the prefix, 16 bytes
    Column("prefix_length", Integer, nullable=False),  # of 128; a lone IPv4 address is 128
    Column("protocol", Integer),  # null: all
    Column("port_first", Integer),
    Column("port_last", Integer),  # null: all
    Column("start_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger, nullable=False),
    Column("service_id", BigInteger, ForeignKey("service.id"), nullable=False),
    Index("lease_key", "realm", "address", "prefix_length"),
)
input_change = Table(  # what attribution depends on has changed for the instants [from_ms, to_ms)
    "input_change",
    metadata,
    Column("version", ROW_ID, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("from_ms", BigInteger, nullable=False),
    Column("to_ms", BigInteger, nullable=False),
    Column("detail", Text, nullable=False),
)

# aggregation --------------------------------------------------------------------------------------------------------
traffic_class = Table(
    "traffic_class",
    metadata,
    row_id(),
    Column("name", Text, nullable=False, unique=True),
)
class_version = Table(  # the rules of traffic classes from a date on
    "class_version",
    metadata,
    row_id(),
    Column("valid_from", Text, nullable=False, unique=True),  # ISO date in the seller's time zone
    Column("document", Text, nullable=False),  # the rules as JSON, without their prefixes (core.class_rules reads it)
    Column("digest", Text, nullable=False),  # of rules and prefixes
    Column("rules", BigInteger, nullable=False),
    Column("prefixes", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
)
class_prefixes = Table(  # the prefixes of one rule
    "class_prefixes",
    metadata,
    Column("version_id", BigInteger, ForeignKey("class_version.id"), primary_key=True),
    Column("rule", BigInteger, primary_key=True),  # its place in the document, from 0
    Column("prefixes", LargeBinary, nullable=False),  # packed by core.class_rules
)
batch = Table(  # cells made from some segments; replaced ones keep their row
    "batch",
    metadata,
    row_id(),
    Column("from_version", BigInteger, nullable=False),  # manifest version that brought it
    Column("to_version", BigInteger),  # manifest version that replaced it, null while it counts
    Column("input_version", BigInteger, nullable=False),  # newest input_change it was made with
    Column("from_ms", BigInteger, nullable=False),
    Column("to_ms", BigInteger, nullable=False),  # extent of its flows
)
consumed = Table(  # exactly once: a segment is in one batch that counts
    "consumed",
    metadata,
    Column("segment_id", BigInteger, ForeignKey("segment.id"), primary_key=True),
    Column("batch_id", BigInteger, ForeignKey("batch.id"), nullable=False),
)
claim = Table(  # who makes cells of segments that are in no batch yet; a dead owner's claims return
    "claim",
    metadata,
    Column("segment_id", BigInteger, ForeignKey("segment.id"), primary_key=True),
    Column("owner", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("pid_started", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False),
    Index("claim_owner", "owner"),
)
cell_file = Table(
    "cell_file",
    metadata,
    row_id(),
    Column("batch_id", BigInteger, ForeignKey("batch.id"), nullable=False),
    Column("kind", Text, nullable=False),  # cells or outcomes
    Column("path", Text, nullable=False, unique=True),
    Column("digest", Text, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("octets", BigInteger, nullable=False),
    Column("slot_first", BigInteger),
    Column("slot_last", BigInteger),
)
attributed = Table(  # the other side of the balance `used_octets`: octets attributed, by the service's local month
    "attributed",
    metadata,
    Column("batch_id", BigInteger, ForeignKey("batch.id"), primary_key=True),
    Column("period", Text, primary_key=True),
    Column("octets", BigInteger, nullable=False),
)
late_slot = Table(  # octets that a batch's late sampling rates add to its flows, by UTC quarter hour
    "late_slot",
    metadata,
    Column("batch_id", BigInteger, ForeignKey("batch.id"), primary_key=True),
    Column("slot", BigInteger, primary_key=True),
    Column("octets", BigInteger, nullable=False),
)
frozen_batch = Table(  # a batch that could not be made again when its inputs changed, its flows being truncated or deleted
    "frozen_batch",
    metadata,
    Column("batch_id", BigInteger, ForeignKey("batch.id"), primary_key=True),
    Column("input_version", BigInteger, primary_key=True),  # the change that it does not know of
    Column("at", BigInteger, nullable=False),
    Column("why", Text, nullable=False),
)
generation = Table(  # a published DuckDB file
    "generation",
    metadata,
    row_id(),
    Column("at", BigInteger, nullable=False),
    Column("manifest_version", BigInteger, nullable=False),
    Column("path", Text, nullable=False, unique=True),
    Column("digest", Text, nullable=False),
    Column("input_version", BigInteger, nullable=False),
)

# rating -------------------------------------------------------------------------------------------------------------
plan_version = Table(
    "plan_version",
    metadata,
    row_id(),
    Column("name", Text, nullable=False),
    Column("valid_from", Text, nullable=False),  # ISO date
    Column("currency", Text, nullable=False),
    Column("tax", Text, nullable=False),
    Column("prices", Text, nullable=False),  # exclusive or inclusive
    Column("calendar", Text),  # null: no zones
    Column("five_minutes", Integer, nullable=False),  # 1: needs 5-minute slots
    Column("document", Text, nullable=False),  # the plan as JSON (core.calendars and rating.plans read it)
    Column("digest", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("addon", Integer, nullable=False, server_default="0"),  # 1: a plan beside a service's own
    UniqueConstraint("name", "valid_from"),
)
calendar_version = Table(
    "calendar_version",
    metadata,
    row_id(),
    Column("name", Text, nullable=False),
    Column("valid_from", Text, nullable=False),
    Column("document", Text, nullable=False),  # JSON with the holidays frozen into it
    Column("digest", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    UniqueConstraint("name", "valid_from"),
)
rate_run = Table(  # the newest row of a period is the one that counts
    "rate_run",
    metadata,
    row_id(),
    Column("period", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("as_of", BigInteger, nullable=False),
    Column("engine_version", Text, nullable=False),
    Column("manifest_version", BigInteger, nullable=False),
    Column("generation", Text),
    Column("path", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("usage_path", Text, nullable=False),
    Column("usage_digest", Text, nullable=False),  # frozen usage it rated
    Column("rated_octets", BigInteger, nullable=False),
    Column("without_plan_octets", BigInteger, nullable=False),
    Column("sampled_refused_octets", BigInteger, nullable=False),
    Index("rate_run_period", "period"),
)
decision = Table(  # what a [[plan.fair_use]] came to, once; append-only
    "decision",
    metadata,
    row_id(),
    Column("period", Text, nullable=False),
    Column("service_id", BigInteger, ForeignKey("service.id"), nullable=False),
    Column("subscription_id", BigInteger, ForeignKey("subscription.id"), nullable=False),
    Column("plan", Text, nullable=False),
    Column("plan_version", Text, nullable=False),
    Column("line", Text, nullable=False),
    Column("number", Integer, nullable=False),  # counts the packages bought; 1 otherwise
    Column("action", Text, nullable=False),  # notify, slow_down, block or buy
    Column("detail", Text, nullable=False),  # the speed, or the add-on
    Column("threshold", BigInteger, nullable=False),  # octets
    Column("octets", BigInteger, nullable=False),  # at the end of the hour in which it was reached
    Column("reached_ms", BigInteger, nullable=False),  # that hour
    Column("undone_ms", BigInteger, nullable=False),  # the reset: the end of the local month
    Column("at", BigInteger, nullable=False),
    Column("generation", Text, nullable=False),  # the published usage that it was made from
    UniqueConstraint("subscription_id", "period", "line", "number"),
    Index("decision_period", "period"),
)
quota_carried = Table(  # what a run leaves of quotas for the next period
    "quota_carried",
    metadata,
    Column("run_id", BigInteger, ForeignKey("rate_run.id"), primary_key=True),
    Column("subscription", BigInteger, primary_key=True),  # row id of a subscription; of an add-on, negative
    Column("quota", Text, primary_key=True),
    Column("expires", Text, primary_key=True),  # the last period that may use it
    Column("octets", BigInteger, nullable=False),
)

# ledger -------------------------------------------------------------------------------------------------------------
ledger_transaction = Table(
    "ledger_transaction",
    metadata,
    row_id(),
    Column("at", BigInteger, nullable=False),
    Column("effective", Text, nullable=False),  # ISO date
    Column("kind", Text, nullable=False),
    Column("reference", Text, nullable=False, unique=True),
    Column("period", Text),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
)
posting = Table(
    "posting",
    metadata,
    row_id(),
    Column("transaction_id", BigInteger, ForeignKey("ledger_transaction.id"), nullable=False),
    Column("ledger_account", Text, nullable=False),  # receivables, revenue:fee, tax:standard …
    Column("subject", Text, nullable=False),  # the subscriber's account, or empty
    Column("currency", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),  # debit positive
    Index("posting_transaction", "transaction_id"),
    Index("posting_account", "ledger_account", "subject"),
)

# invoicing ----------------------------------------------------------------------------------------------------------
number_series = Table(
    "number_series",
    metadata,
    Column("series", Text, primary_key=True),
    Column("last", BigInteger, nullable=False),
)
invoice = Table(
    "invoice",
    metadata,
    row_id(),
    Column("number", Text, nullable=False, unique=True),
    Column("account", Text, ForeignKey("account.account"), nullable=False),
    Column("period", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("net_minor", BigInteger, nullable=False),
    Column("tax_minor", BigInteger, nullable=False),
    Column("gross_minor", BigInteger, nullable=False),
    Column("issued", BigInteger, nullable=False),
    Column("due", Text, nullable=False),
    Column("tax_policy", Text, nullable=False),
    Column("rate_run_id", BigInteger, ForeignKey("rate_run.id"), nullable=False),
    Column("document", Text, nullable=False),  # the frozen invoice as JSON: seller, buyer, versions, lines, taxes
    Column("digest", Text, nullable=False),
    Index("invoice_period", "period"),
)
invoice_line = Table(
    "invoice_line",
    metadata,
    Column("invoice_id", BigInteger, ForeignKey("invoice.id"), primary_key=True),
    Column("line", Integer, primary_key=True),
    Column("period", Text, nullable=False),  # of the charge: an earlier one for a difference
    Column("service", Text, nullable=False),
    Column("plan", Text, nullable=False),
    Column("plan_version", Text, nullable=False),
    Column("start_date", Text, nullable=False),
    Column("end_date", Text, nullable=False),
    Column("charge_line", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("zone", Text),
    Column("class", Text),
    Column("direction", Text),
    Column("description", Text, nullable=False),
    Column("quantity", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("unit_price", Text, nullable=False),
    Column("net_minor", BigInteger, nullable=False),
    Column("gross_minor", BigInteger),
    Column("tax_category", Text, nullable=False),
    Column("tax_percent", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Index("invoice_line_charge", "period", "service"),
)
accepted_incomplete = Table(  # an invoice run that was told to go on although the period's flows are known to be incomplete
    "accepted_incomplete",
    metadata,
    row_id(),
    Column("period", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("findings", Text, nullable=False),  # JSON: what was accepted, word by word
    Column("invoice_first", Text, nullable=False),  # the invoices that the run booked
    Column("invoice_last", Text, nullable=False),
    Index("accepted_incomplete_period", "period"),
)
invoice_tax = Table(
    "invoice_tax",
    metadata,
    Column("invoice_id", BigInteger, ForeignKey("invoice.id"), primary_key=True),
    Column("tax_category", Text, primary_key=True),
    Column("percent", Text, primary_key=True),
    Column("net_minor", BigInteger, nullable=False),
    Column("tax_minor", BigInteger, nullable=False),
)
