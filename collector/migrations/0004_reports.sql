ALTER TABLE exporter_state ADD COLUMN refused BIGINT NOT NULL DEFAULT 0;

ALTER TABLE exporter_state ADD COLUMN exported_messages BIGINT NOT NULL DEFAULT 0;

ALTER TABLE exporter_state ADD COLUMN exported_records BIGINT NOT NULL DEFAULT 0;

ALTER TABLE exporter_state ADD COLUMN ignored_packets BIGINT NOT NULL DEFAULT 0;

ALTER TABLE exporter_state ADD COLUMN ignored_octets BIGINT NOT NULL DEFAULT 0;

ALTER TABLE exporter_state ADD COLUMN not_sent_flows BIGINT NOT NULL DEFAULT 0;

ALTER TABLE exporter_state ADD COLUMN not_sent_packets BIGINT NOT NULL DEFAULT 0;

ALTER TABLE exporter_state ADD COLUMN not_sent_octets BIGINT NOT NULL DEFAULT 0;

CREATE TABLE port_block_event (
  id {identity},
  segment_id BIGINT NOT NULL REFERENCES segment (id),
  exporter {bytes} NOT NULL,
  domain BIGINT NOT NULL,
  received BIGINT NOT NULL,
  at BIGINT NOT NULL,
  event INTEGER NOT NULL,
  inside {bytes} NOT NULL,
  outside {bytes} NOT NULL,
  port_first INTEGER NOT NULL,
  port_last INTEGER NOT NULL,
  port_step INTEGER NOT NULL,
  protocol INTEGER NOT NULL,
  outcome TEXT NOT NULL
);

CREATE INDEX port_block_event_outside ON port_block_event (outside);

CREATE TABLE port_block_lease (
  id {identity},
  realm TEXT NOT NULL,
  address {bytes} NOT NULL,
  protocol INTEGER,
  port_first INTEGER NOT NULL,
  port_last INTEGER NOT NULL,
  start_ms BIGINT NOT NULL,
  end_ms BIGINT NOT NULL,
  service_id BIGINT NOT NULL
);

CREATE INDEX port_block_lease_address ON port_block_lease (realm, address);

CREATE TABLE port_block_position (
  id INTEGER PRIMARY KEY,
  event_id BIGINT NOT NULL,
  input_version BIGINT NOT NULL,
  realms TEXT NOT NULL
);
