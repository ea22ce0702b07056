CREATE TABLE accepted_incomplete (
  id {identity},
  period TEXT NOT NULL,
  at BIGINT NOT NULL,
  actor TEXT NOT NULL,
  reason TEXT NOT NULL,
  findings TEXT NOT NULL,
  invoice_first TEXT NOT NULL,
  invoice_last TEXT NOT NULL
);

CREATE INDEX accepted_incomplete_period ON accepted_incomplete (period);
