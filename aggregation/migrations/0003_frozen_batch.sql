CREATE TABLE frozen_batch (
  batch_id BIGINT NOT NULL REFERENCES batch (id),
  input_version BIGINT NOT NULL,
  at BIGINT NOT NULL,
  why TEXT NOT NULL,
  PRIMARY KEY (batch_id, input_version)
);
