CREATE TABLE late_slot (
  batch_id BIGINT NOT NULL REFERENCES batch (id),
  slot BIGINT NOT NULL,
  octets BIGINT NOT NULL,
  PRIMARY KEY (batch_id, slot)
);
