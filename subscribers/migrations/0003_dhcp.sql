CREATE TABLE dhcp_client (
  id {identity},
  digest {bytes} NOT NULL UNIQUE,
  identifiers TEXT NOT NULL
);

CREATE TABLE dhcp_entry (
  id {identity},
  digest {bytes} NOT NULL UNIQUE,
  realm TEXT NOT NULL,
  address {bytes} NOT NULL,
  prefix_length INTEGER NOT NULL,
  state TEXT NOT NULL,
  seen BIGINT NOT NULL,
  start_ms BIGINT NOT NULL,
  end_ms BIGINT NOT NULL,
  client_id BIGINT REFERENCES dhcp_client (id)
);

CREATE INDEX dhcp_entry_address ON dhcp_entry (address);

CREATE TABLE dhcp_lease (
  id {identity},
  realm TEXT NOT NULL,
  address {bytes} NOT NULL,
  prefix_length INTEGER NOT NULL,
  start_ms BIGINT NOT NULL,
  end_ms BIGINT NOT NULL,
  service_id BIGINT NOT NULL REFERENCES service (id)
);

CREATE INDEX dhcp_lease_address ON dhcp_lease (address);

CREATE TABLE dhcp_position (
  id INTEGER NOT NULL,
  services BIGINT NOT NULL,
  PRIMARY KEY (id)
);
