CREATE TABLE radius_event (
  id {identity},
  digest {bytes} NOT NULL UNIQUE,
  source {bytes} NOT NULL,
  nas TEXT NOT NULL,
  session TEXT NOT NULL,
  user_name TEXT NOT NULL,
  status INTEGER NOT NULL,
  at BIGINT NOT NULL,
  received BIGINT NOT NULL,
  prefixes TEXT NOT NULL,
  seconds BIGINT,
  input_octets BIGINT,
  output_octets BIGINT,
  input_packets BIGINT,
  output_packets BIGINT,
  cause BIGINT,
  classes TEXT NOT NULL,
  calling_station TEXT NOT NULL,
  nas_port TEXT NOT NULL
);

CREATE INDEX radius_event_session ON radius_event (nas, session, user_name);

CREATE TABLE radius_prefix (
  id {identity},
  event_id BIGINT NOT NULL REFERENCES radius_event (id),
  address {bytes} NOT NULL,
  prefix_length INTEGER NOT NULL
);

CREATE INDEX radius_prefix_event ON radius_prefix (event_id);

CREATE INDEX radius_prefix_address ON radius_prefix (address);

CREATE TABLE radius_lease (
  id {identity},
  realm TEXT NOT NULL,
  address {bytes} NOT NULL,
  prefix_length INTEGER NOT NULL,
  start_ms BIGINT NOT NULL,
  end_ms BIGINT NOT NULL,
  service_id BIGINT NOT NULL REFERENCES service (id)
);

CREATE INDEX radius_lease_address ON radius_lease (address);

CREATE TABLE radius_position (
  id INTEGER NOT NULL,
  event_id BIGINT NOT NULL,
  services BIGINT NOT NULL,
  settings TEXT NOT NULL,
  PRIMARY KEY (id)
);
