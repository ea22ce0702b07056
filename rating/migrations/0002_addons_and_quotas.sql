ALTER TABLE plan_version ADD COLUMN addon INTEGER NOT NULL DEFAULT 0;

CREATE TABLE quota_carried (
  run_id BIGINT NOT NULL REFERENCES rate_run (id),
  subscription BIGINT NOT NULL,
  quota TEXT NOT NULL,
  expires TEXT NOT NULL,
  octets BIGINT NOT NULL,
  PRIMARY KEY (run_id, subscription, quota, expires)
);
