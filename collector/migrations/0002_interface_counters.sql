CREATE TABLE interface_counter (
  id {identity},
  segment_id BIGINT REFERENCES segment (id),
  exporter {bytes} NOT NULL,
  interface BIGINT NOT NULL,
  at BIGINT NOT NULL,
  in_octets BIGINT NOT NULL,
  out_octets BIGINT NOT NULL,
  source TEXT NOT NULL,
  UNIQUE (exporter, interface, at, source)
);
