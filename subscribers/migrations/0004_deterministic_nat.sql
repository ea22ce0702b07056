CREATE TABLE deterministic_nat_lease (
  id {identity},
  realm TEXT NOT NULL,
  address {bytes} NOT NULL,
  port_first INTEGER NOT NULL,
  port_last INTEGER NOT NULL,
  start_ms BIGINT NOT NULL,
  end_ms BIGINT NOT NULL,
  service_id BIGINT NOT NULL REFERENCES service (id)
);

CREATE INDEX deterministic_nat_lease_address ON deterministic_nat_lease (address);

CREATE TABLE deterministic_nat_position (
  id INTEGER NOT NULL,
  input_version BIGINT NOT NULL,
  settings TEXT NOT NULL,
  PRIMARY KEY (id)
);
