ALTER TABLE intake ADD COLUMN twin BIGINT NOT NULL DEFAULT 0;

ALTER TABLE decoder_position ADD COLUMN datagrams BIGINT NOT NULL DEFAULT 0;

CREATE TABLE segment_source (
  segment_id BIGINT NOT NULL REFERENCES segment (id),
  collector TEXT NOT NULL,
  block_after BIGINT NOT NULL,
  datagrams_after BIGINT NOT NULL,
  block_until BIGINT NOT NULL,
  datagrams_until BIGINT NOT NULL,
  PRIMARY KEY (segment_id, collector)
);

CREATE TABLE announced_rate (
  id {identity},
  exporter {bytes} NOT NULL,
  domain BIGINT NOT NULL,
  sampler INTEGER NOT NULL,
  received BIGINT NOT NULL,
  numerator BIGINT NOT NULL,
  denominator BIGINT NOT NULL,
  collector TEXT NOT NULL
);

CREATE INDEX announced_rate_key ON announced_rate (exporter, domain, sampler, received);

CREATE TABLE unrated_flows (
  segment_id BIGINT NOT NULL REFERENCES segment (id),
  exporter {bytes} NOT NULL,
  domain BIGINT NOT NULL,
  sampler INTEGER NOT NULL,
  flows BIGINT NOT NULL,
  octets BIGINT NOT NULL,
  from_ms BIGINT NOT NULL,
  to_ms BIGINT NOT NULL,
  PRIMARY KEY (segment_id, exporter, domain, sampler)
);

CREATE INDEX unrated_flows_exporter ON unrated_flows (exporter, domain);
