CREATE TABLE rollout (
  id {identity},
  at BIGINT NOT NULL,
  actor TEXT NOT NULL,
  reason TEXT NOT NULL,
  name TEXT NOT NULL,
  action TEXT NOT NULL,
  stage TEXT NOT NULL,
  plan TEXT,
  plan_version TEXT,
  pilot_books INTEGER NOT NULL,
  pilot_from TEXT NOT NULL,
  everybody_from TEXT NOT NULL,
  evidence TEXT NOT NULL
);

CREATE INDEX rollout_name ON rollout (name);

CREATE TABLE rollout_service (
  rollout_id BIGINT NOT NULL REFERENCES rollout (id),
  service TEXT NOT NULL,
  PRIMARY KEY (rollout_id, service)
);

CREATE TABLE twin_import (
  id {identity},
  at BIGINT NOT NULL,
  actor TEXT NOT NULL,
  reason TEXT NOT NULL,
  period TEXT NOT NULL,
  file TEXT NOT NULL,
  digest TEXT NOT NULL,
  rows BIGINT NOT NULL,
  amounts TEXT NOT NULL,
  mapping TEXT NOT NULL
);

CREATE INDEX twin_import_period ON twin_import (period);

CREATE TABLE twin_charge (
  import_id BIGINT NOT NULL REFERENCES twin_import (id),
  row_number BIGINT NOT NULL,
  service TEXT NOT NULL,
  theirs TEXT NOT NULL,
  line TEXT NOT NULL,
  not_billed TEXT NOT NULL,
  amount_minor BIGINT NOT NULL,
  currency TEXT NOT NULL,
  quantity TEXT NOT NULL,
  tax_minor BIGINT,
  PRIMARY KEY (import_id, row_number)
);

CREATE TABLE twin_explanation (
  id {identity},
  at BIGINT NOT NULL,
  actor TEXT NOT NULL,
  reason TEXT NOT NULL,
  period TEXT NOT NULL,
  service TEXT NOT NULL,
  line TEXT NOT NULL,
  currency TEXT NOT NULL,
  difference_minor BIGINT NOT NULL,
  cause TEXT NOT NULL
);

CREATE INDEX twin_explanation_period ON twin_explanation (period);
