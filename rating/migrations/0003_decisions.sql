CREATE TABLE decision (
  id {identity},
  period TEXT NOT NULL,
  service_id BIGINT NOT NULL REFERENCES service (id),
  subscription_id BIGINT NOT NULL REFERENCES subscription (id),
  plan TEXT NOT NULL,
  plan_version TEXT NOT NULL,
  line TEXT NOT NULL,
  number INTEGER NOT NULL,
  action TEXT NOT NULL,
  detail TEXT NOT NULL,
  threshold BIGINT NOT NULL,
  octets BIGINT NOT NULL,
  reached_ms BIGINT NOT NULL,
  undone_ms BIGINT NOT NULL,
  at BIGINT NOT NULL,
  generation TEXT NOT NULL,
  UNIQUE (subscription_id, period, line, number)
);

CREATE INDEX decision_period ON decision (period);
