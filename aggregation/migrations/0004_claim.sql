CREATE TABLE claim (
  segment_id BIGINT NOT NULL PRIMARY KEY REFERENCES segment (id),
  owner TEXT NOT NULL,
  host TEXT NOT NULL,
  pid BIGINT NOT NULL,
  pid_started BIGINT NOT NULL,
  until BIGINT NOT NULL
);
CREATE INDEX claim_owner ON claim (owner);
