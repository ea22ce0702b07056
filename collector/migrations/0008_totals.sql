ALTER TABLE intake ADD COLUMN flows BIGINT NOT NULL DEFAULT 0;
ALTER TABLE intake ADD COLUMN octets BIGINT NOT NULL DEFAULT 0;
ALTER TABLE intake ADD COLUMN templates BIGINT NOT NULL DEFAULT 0;
ALTER TABLE intake ADD COLUMN options_templates BIGINT NOT NULL DEFAULT 0;
ALTER TABLE intake ADD COLUMN counter_samples BIGINT NOT NULL DEFAULT 0;
ALTER TABLE intake ADD COLUMN drop_samples BIGINT NOT NULL DEFAULT 0;
ALTER TABLE intake ADD COLUMN released_sets BIGINT NOT NULL DEFAULT 0;
ALTER TABLE intake ADD COLUMN expired_sets BIGINT NOT NULL DEFAULT 0;

CREATE TABLE exporter_total (
  collector TEXT NOT NULL,
  exporter {bytes} NOT NULL,
  domain BIGINT NOT NULL,
  export_protocol INTEGER NOT NULL,
  flows BIGINT NOT NULL,
  octets BIGINT NOT NULL,
  templates BIGINT NOT NULL,
  options_templates BIGINT NOT NULL,
  data_records BIGINT NOT NULL,
  options_records BIGINT NOT NULL,
  not_a_flow BIGINT NOT NULL,
  faulted_records BIGINT NOT NULL,
  waiting_sets BIGINT NOT NULL,
  released_sets BIGINT NOT NULL,
  expired_sets BIGINT NOT NULL,
  counter_samples BIGINT NOT NULL,
  drop_samples BIGINT NOT NULL,
  missed BIGINT NOT NULL,
  recovered BIGINT NOT NULL,
  skew_ms BIGINT,
  PRIMARY KEY (collector, exporter, domain, export_protocol)
);

CREATE TABLE fault_total (
  collector TEXT NOT NULL,
  exporter {bytes} NOT NULL,
  domain BIGINT NOT NULL,
  kind TEXT NOT NULL,
  count BIGINT NOT NULL,
  PRIMARY KEY (collector, exporter, domain, kind)
);

INSERT INTO fault_total (collector, exporter, domain, kind, count)
SELECT segment.collector, fault.exporter, fault.domain, fault.kind, SUM(fault.count)
FROM fault JOIN segment ON segment.id = fault.segment_id
WHERE substr(segment.collector, 1, 6) <> 'replay'
GROUP BY segment.collector, fault.exporter, fault.domain, fault.kind;

INSERT INTO exporter_total
SELECT segment.collector, intake.exporter, intake.domain, intake.export_protocol, SUM(intake.flow_records), 0, 0, 0,
  SUM(intake.data_records), SUM(intake.options_records), SUM(intake.not_a_flow), SUM(intake.faulted_records),
  SUM(intake.waiting_sets), 0, 0, 0, 0, 0, 0, NULL
FROM intake JOIN segment ON segment.id = intake.segment_id
WHERE substr(segment.collector, 1, 6) <> 'replay'
GROUP BY segment.collector, intake.exporter, intake.domain, intake.export_protocol;

UPDATE exporter_total SET missed = COALESCE((
  SELECT exporter_state.missing FROM exporter_state
  WHERE exporter_state.collector = exporter_total.collector AND exporter_state.exporter = exporter_total.exporter
    AND exporter_state.domain = exporter_total.domain AND exporter_state.export_protocol = exporter_total.export_protocol), 0);
