CREATE TABLE segment (
  id {identity},
  collector TEXT NOT NULL,
  path TEXT NOT NULL UNIQUE,
  digest TEXT NOT NULL,
  content_digest TEXT NOT NULL,
  octets_size BIGINT NOT NULL,
  flows BIGINT NOT NULL,
  octets BIGINT NOT NULL,
  received_first BIGINT,
  received_last BIGINT,
  start_first BIGINT,
  end_last BIGINT,
  block_first BIGINT,
  block_last BIGINT,
  decoder_version TEXT NOT NULL,
  settings_digest TEXT NOT NULL,
  manifest_version BIGINT NOT NULL
);

CREATE TABLE intake (
  id {identity},
  segment_id BIGINT NOT NULL REFERENCES segment (id),
  exporter {bytes} NOT NULL,
  domain BIGINT NOT NULL,
  export_protocol INTEGER NOT NULL,
  slot BIGINT NOT NULL,
  datagrams BIGINT NOT NULL,
  decoded BIGINT NOT NULL,
  faulted BIGINT NOT NULL,
  duplicate BIGINT NOT NULL,
  refused BIGINT NOT NULL,
  data_records BIGINT NOT NULL,
  options_records BIGINT NOT NULL,
  flow_records BIGINT NOT NULL,
  not_a_flow BIGINT NOT NULL,
  faulted_records BIGINT NOT NULL,
  waiting_sets BIGINT NOT NULL
);

CREATE TABLE fault (
  id {identity},
  segment_id BIGINT NOT NULL REFERENCES segment (id),
  exporter {bytes} NOT NULL,
  domain BIGINT NOT NULL,
  kind TEXT NOT NULL,
  count BIGINT NOT NULL
);

CREATE TABLE segment_slot (
  segment_id BIGINT NOT NULL REFERENCES segment (id),
  slot BIGINT NOT NULL,
  octets BIGINT NOT NULL,
  PRIMARY KEY (segment_id, slot)
);

CREATE TABLE exporter_state (
  collector TEXT NOT NULL,
  exporter {bytes} NOT NULL,
  domain BIGINT NOT NULL,
  export_protocol INTEGER NOT NULL,
  received BIGINT NOT NULL,
  missing BIGINT NOT NULL,
  duplicate BIGINT NOT NULL,
  reordered BIGINT NOT NULL,
  restarts BIGINT NOT NULL,
  faulted BIGINT NOT NULL,
  waiting BIGINT NOT NULL,
  first BIGINT NOT NULL,
  last BIGINT NOT NULL,
  PRIMARY KEY (collector, exporter, domain, export_protocol)
);

CREATE TABLE decoder_position (
  collector TEXT NOT NULL,
  block BIGINT NOT NULL,
  state_path TEXT,
  state_digest TEXT,
  PRIMARY KEY (collector)
);

CREATE TABLE replayed_file (
  id {identity},
  digest TEXT NOT NULL,
  name TEXT NOT NULL,
  collector TEXT NOT NULL,
  at BIGINT NOT NULL
);

CREATE INDEX replayed_file_digest ON replayed_file (digest);
