CREATE TABLE manifest_version (
  id {identity},
  at BIGINT NOT NULL,
  kind TEXT NOT NULL,
  detail TEXT NOT NULL
);
