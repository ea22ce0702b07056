CREATE TABLE unknown_exporter (
  collector TEXT NOT NULL,
  exporter {bytes} NOT NULL,
  datagrams BIGINT NOT NULL,
  overcount BIGINT NOT NULL,
  first BIGINT NOT NULL,
  last BIGINT NOT NULL,
  PRIMARY KEY (collector, exporter)
);

CREATE TABLE quarantine_file (
  id {identity},
  collector TEXT NOT NULL,
  path TEXT NOT NULL UNIQUE,
  digest TEXT NOT NULL,
  octets_size BIGINT NOT NULL,
  datagrams BIGINT NOT NULL,
  left_out BIGINT NOT NULL,
  received_first BIGINT NOT NULL,
  received_last BIGINT NOT NULL,
  dropped BIGINT
);

CREATE TABLE quarantine_admission (
  file_id BIGINT NOT NULL REFERENCES quarantine_file (id),
  exporter {bytes} NOT NULL,
  datagrams BIGINT NOT NULL,
  at BIGINT NOT NULL,
  PRIMARY KEY (file_id, exporter)
);
