CREATE TABLE lake_part (
  id {identity},
  day BIGINT NOT NULL,
  at BIGINT NOT NULL,
  flows BIGINT NOT NULL,
  octets BIGINT NOT NULL,
  received_first BIGINT NOT NULL,
  received_last BIGINT NOT NULL,
  start_first BIGINT NOT NULL,
  end_last BIGINT NOT NULL,
  networks {bytes} NOT NULL,
  input_version BIGINT NOT NULL,
  truncated BIGINT,
  replaced BIGINT,
  deleted BIGINT,
  manifest_version BIGINT NOT NULL
);

CREATE INDEX lake_part_day ON lake_part (day);

CREATE TABLE lake_file (
  id {identity},
  part_id BIGINT NOT NULL REFERENCES lake_part (id),
  kind TEXT NOT NULL,
  path TEXT NOT NULL UNIQUE,
  digest TEXT NOT NULL,
  octets_size BIGINT NOT NULL,
  flows BIGINT NOT NULL,
  key_first {bytes} NOT NULL,
  key_last {bytes} NOT NULL,
  footer BIGINT NOT NULL,
  row_groups {bytes} NOT NULL
);

CREATE INDEX lake_file_key ON lake_file (part_id, kind, key_first);

CREATE TABLE lake_segment (
  segment_id BIGINT NOT NULL PRIMARY KEY REFERENCES segment (id),
  part_id BIGINT NOT NULL REFERENCES lake_part (id),
  own_file INTEGER NOT NULL
);

CREATE INDEX lake_segment_part ON lake_segment (part_id);
