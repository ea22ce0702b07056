CREATE TABLE addon (
  id {identity},
  service_id BIGINT NOT NULL REFERENCES service (id),
  plan TEXT NOT NULL,
  quantity INTEGER NOT NULL,
  start_date TEXT NOT NULL,
  end_date TEXT NOT NULL,
  UNIQUE (service_id, plan, start_date)
);

CREATE TABLE pause (
  id {identity},
  service_id BIGINT NOT NULL REFERENCES service (id),
  kind TEXT NOT NULL,
  start_date TEXT NOT NULL,
  end_date TEXT NOT NULL,
  UNIQUE (service_id, start_date)
);
