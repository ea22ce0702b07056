CREATE TABLE job_lease (
  name TEXT NOT NULL,
  owner TEXT NOT NULL,
  host TEXT NOT NULL,
  pid BIGINT NOT NULL,
  pid_started BIGINT NOT NULL,
  taken BIGINT NOT NULL,
  until BIGINT NOT NULL,
  PRIMARY KEY (name)
);

CREATE TABLE job_run (
  id {identity},
  name TEXT NOT NULL,
  started BIGINT NOT NULL,
  ended BIGINT,
  result TEXT,
  detail TEXT
);
