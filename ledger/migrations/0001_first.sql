CREATE TABLE ledger_transaction (
  id {identity},
  at BIGINT NOT NULL,
  effective TEXT NOT NULL,
  kind TEXT NOT NULL,
  reference TEXT NOT NULL UNIQUE,
  period TEXT,
  actor TEXT NOT NULL,
  reason TEXT NOT NULL
);

CREATE TABLE posting (
  id {identity},
  transaction_id BIGINT NOT NULL REFERENCES ledger_transaction (id),
  ledger_account TEXT NOT NULL,
  subject TEXT NOT NULL,
  currency TEXT NOT NULL,
  amount_minor BIGINT NOT NULL
);

CREATE INDEX posting_account ON posting (ledger_account, subject);

CREATE INDEX posting_transaction ON posting (transaction_id);
