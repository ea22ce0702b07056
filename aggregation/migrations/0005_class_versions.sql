CREATE TABLE class_version (
  id {identity},
  valid_from TEXT NOT NULL UNIQUE,
  document TEXT NOT NULL,
  digest TEXT NOT NULL,
  rules BIGINT NOT NULL,
  prefixes BIGINT NOT NULL,
  at BIGINT NOT NULL
);
CREATE TABLE class_prefixes (
  version_id BIGINT NOT NULL REFERENCES class_version (id),
  rule BIGINT NOT NULL,
  prefixes {bytes} NOT NULL,
  PRIMARY KEY (version_id, rule)
);
