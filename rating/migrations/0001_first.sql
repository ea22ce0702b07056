CREATE TABLE plan_version (
  id {identity},
  name TEXT NOT NULL,
  valid_from TEXT NOT NULL,
  currency TEXT NOT NULL,
  tax TEXT NOT NULL,
  prices TEXT NOT NULL,
  calendar TEXT,
  five_minutes INTEGER NOT NULL,
  document TEXT NOT NULL,
  digest TEXT NOT NULL,
  at BIGINT NOT NULL,
  UNIQUE (name, valid_from)
);

CREATE TABLE calendar_version (
  id {identity},
  name TEXT NOT NULL,
  valid_from TEXT NOT NULL,
  document TEXT NOT NULL,
  digest TEXT NOT NULL,
  at BIGINT NOT NULL,
  UNIQUE (name, valid_from)
);

CREATE TABLE rate_run (
  id {identity},
  period TEXT NOT NULL,
  at BIGINT NOT NULL,
  as_of BIGINT NOT NULL,
  engine_version TEXT NOT NULL,
  manifest_version BIGINT NOT NULL,
  generation TEXT,
  path TEXT NOT NULL,
  digest TEXT NOT NULL,
  rows BIGINT NOT NULL,
  usage_path TEXT NOT NULL,
  usage_digest TEXT NOT NULL,
  rated_octets BIGINT NOT NULL,
  without_plan_octets BIGINT NOT NULL,
  sampled_refused_octets BIGINT NOT NULL
);

CREATE INDEX rate_run_period ON rate_run (period);
