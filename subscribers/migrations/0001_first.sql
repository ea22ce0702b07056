CREATE TABLE account (
  account TEXT NOT NULL,
  name TEXT NOT NULL,
  kind TEXT NOT NULL,
  email TEXT NOT NULL,
  phone TEXT NOT NULL,
  address TEXT NOT NULL,
  PRIMARY KEY (account)
);

CREATE TABLE service (
  id {identity},
  service TEXT NOT NULL UNIQUE,
  account TEXT NOT NULL REFERENCES account (account),
  contract TEXT NOT NULL
);

CREATE TABLE subscription (
  id {identity},
  service_id BIGINT NOT NULL REFERENCES service (id),
  plan TEXT,
  start_date TEXT NOT NULL,
  end_date TEXT NOT NULL,
  start_ms BIGINT NOT NULL,
  end_ms BIGINT NOT NULL,
  timezone TEXT NOT NULL,
  currency TEXT NOT NULL,
  UNIQUE (service_id, start_date)
);

CREATE TABLE lease (
  id {identity},
  realm TEXT NOT NULL,
  address {bytes} NOT NULL,
  prefix_length INTEGER NOT NULL,
  protocol INTEGER,
  port_first INTEGER,
  port_last INTEGER,
  start_ms BIGINT NOT NULL,
  end_ms BIGINT NOT NULL,
  service_id BIGINT NOT NULL REFERENCES service (id)
);

CREATE INDEX lease_key ON lease (realm, address, prefix_length);

CREATE TABLE input_change (
  version {identity},
  at BIGINT NOT NULL,
  kind TEXT NOT NULL,
  from_ms BIGINT NOT NULL,
  to_ms BIGINT NOT NULL,
  detail TEXT NOT NULL
);
