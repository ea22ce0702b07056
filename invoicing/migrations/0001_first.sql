CREATE TABLE number_series (
  series TEXT NOT NULL,
  last BIGINT NOT NULL,
  PRIMARY KEY (series)
);

CREATE TABLE invoice (
  id {identity},
  number TEXT NOT NULL UNIQUE,
  account TEXT NOT NULL REFERENCES account (account),
  period TEXT NOT NULL,
  currency TEXT NOT NULL,
  net_minor BIGINT NOT NULL,
  tax_minor BIGINT NOT NULL,
  gross_minor BIGINT NOT NULL,
  issued BIGINT NOT NULL,
  due TEXT NOT NULL,
  tax_policy TEXT NOT NULL,
  rate_run_id BIGINT NOT NULL REFERENCES rate_run (id),
  document TEXT NOT NULL,
  digest TEXT NOT NULL
);

CREATE INDEX invoice_period ON invoice (period);

CREATE TABLE invoice_line (
  invoice_id BIGINT NOT NULL REFERENCES invoice (id),
  line INTEGER NOT NULL,
  period TEXT NOT NULL,
  service TEXT NOT NULL,
  plan TEXT NOT NULL,
  plan_version TEXT NOT NULL,
  start_date TEXT NOT NULL,
  end_date TEXT NOT NULL,
  charge_line TEXT NOT NULL,
  kind TEXT NOT NULL,
  zone TEXT,
  class TEXT,
  direction TEXT,
  description TEXT NOT NULL,
  quantity TEXT NOT NULL,
  unit TEXT NOT NULL,
  unit_price TEXT NOT NULL,
  net_minor BIGINT NOT NULL,
  gross_minor BIGINT,
  tax_category TEXT NOT NULL,
  tax_percent TEXT NOT NULL,
  currency TEXT NOT NULL,
  PRIMARY KEY (invoice_id, line)
);

CREATE INDEX invoice_line_charge ON invoice_line (period, service);

CREATE TABLE invoice_tax (
  invoice_id BIGINT NOT NULL REFERENCES invoice (id),
  tax_category TEXT NOT NULL,
  percent TEXT NOT NULL,
  net_minor BIGINT NOT NULL,
  tax_minor BIGINT NOT NULL,
  PRIMARY KEY (invoice_id, tax_category, percent)
);
