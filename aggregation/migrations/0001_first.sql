CREATE TABLE traffic_class (
  id {identity},
  name TEXT NOT NULL UNIQUE
);

CREATE TABLE batch (
  id {identity},
  from_version BIGINT NOT NULL,
  to_version BIGINT,
  input_version BIGINT NOT NULL,
  from_ms BIGINT NOT NULL,
  to_ms BIGINT NOT NULL
);

CREATE TABLE consumed (
  segment_id BIGINT NOT NULL REFERENCES segment (id),
  batch_id BIGINT NOT NULL REFERENCES batch (id),
  PRIMARY KEY (segment_id)
);

CREATE TABLE cell_file (
  id {identity},
  batch_id BIGINT NOT NULL REFERENCES batch (id),
  kind TEXT NOT NULL,
  path TEXT NOT NULL UNIQUE,
  digest TEXT NOT NULL,
  rows BIGINT NOT NULL,
  octets BIGINT NOT NULL,
  slot_first BIGINT,
  slot_last BIGINT
);

CREATE TABLE attributed (
  batch_id BIGINT NOT NULL REFERENCES batch (id),
  period TEXT NOT NULL,
  octets BIGINT NOT NULL,
  PRIMARY KEY (batch_id, period)
);

CREATE TABLE generation (
  id {identity},
  at BIGINT NOT NULL,
  manifest_version BIGINT NOT NULL,
  path TEXT NOT NULL UNIQUE,
  digest TEXT NOT NULL,
  input_version BIGINT NOT NULL
);
