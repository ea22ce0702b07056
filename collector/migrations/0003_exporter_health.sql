ALTER TABLE intake ADD COLUMN missing BIGINT NOT NULL DEFAULT 0;
ALTER TABLE intake ADD COLUMN reordered BIGINT NOT NULL DEFAULT 0;
ALTER TABLE intake ADD COLUMN restarts BIGINT NOT NULL DEFAULT 0;
ALTER TABLE intake ADD COLUMN measured BIGINT NOT NULL DEFAULT 0;
ALTER TABLE intake ADD COLUMN records BIGINT NOT NULL DEFAULT 0;
ALTER TABLE intake ADD COLUMN records_min BIGINT NOT NULL DEFAULT 0;
ALTER TABLE intake ADD COLUMN records_max BIGINT NOT NULL DEFAULT 0;
ALTER TABLE intake ADD COLUMN clocked BIGINT NOT NULL DEFAULT 0;
ALTER TABLE intake ADD COLUMN skew_min BIGINT NOT NULL DEFAULT 0;
ALTER TABLE intake ADD COLUMN skew_max BIGINT NOT NULL DEFAULT 0;
ALTER TABLE intake ADD COLUMN skew_last BIGINT NOT NULL DEFAULT 0;

CREATE TABLE kernel_drop (
  segment_id BIGINT NOT NULL REFERENCES segment (id) ON DELETE CASCADE,
  slot BIGINT NOT NULL,
  total BIGINT NOT NULL,
  PRIMARY KEY (segment_id, slot)
);

CREATE TABLE exporter_reading (
  segment_id BIGINT NOT NULL REFERENCES segment (id) ON DELETE CASCADE,
  exporter {bytes} NOT NULL,
  domain BIGINT NOT NULL,
  export_protocol INTEGER NOT NULL,
  flows BIGINT NOT NULL,
  longest_flow BIGINT NOT NULL,
  clock_moved BIGINT NOT NULL,
  quarantined BIGINT NOT NULL,
  PRIMARY KEY (segment_id, exporter, domain, export_protocol)
);

CREATE INDEX exporter_reading_exporter ON exporter_reading (exporter, segment_id);

CREATE TABLE rate_reading (
  segment_id BIGINT NOT NULL REFERENCES segment (id) ON DELETE CASCADE,
  exporter {bytes} NOT NULL,
  domain BIGINT NOT NULL,
  export_protocol INTEGER NOT NULL,
  rate_numerator BIGINT NOT NULL,
  rate_denominator BIGINT NOT NULL,
  rate_source INTEGER NOT NULL,
  flows BIGINT NOT NULL,
  PRIMARY KEY (segment_id, exporter, domain, export_protocol, rate_numerator, rate_denominator, rate_source)
);

CREATE TABLE interface_flow (
  segment_id BIGINT NOT NULL REFERENCES segment (id) ON DELETE CASCADE,
  slot_first BIGINT NOT NULL,
  slot_last BIGINT NOT NULL,
  rows BIGINT NOT NULL,
  data {bytes} NOT NULL,
  PRIMARY KEY (segment_id)
);

CREATE TABLE exporter_template (
  collector TEXT NOT NULL,
  exporter {bytes} NOT NULL,
  domain BIGINT NOT NULL,
  export_protocol INTEGER NOT NULL,
  template BIGINT NOT NULL,
  options INTEGER NOT NULL,
  scope INTEGER NOT NULL,
  fields TEXT NOT NULL,
  defined BIGINT NOT NULL,
  PRIMARY KEY (collector, exporter, domain, export_protocol, template)
);

CREATE TABLE exporter_sampler (
  collector TEXT NOT NULL,
  exporter {bytes} NOT NULL,
  domain BIGINT NOT NULL,
  export_protocol INTEGER NOT NULL,
  kind TEXT NOT NULL,
  sampler BIGINT NOT NULL,
  rate_numerator BIGINT NOT NULL,
  rate_denominator BIGINT NOT NULL,
  PRIMARY KEY (collector, exporter, domain, export_protocol, kind, sampler)
);
