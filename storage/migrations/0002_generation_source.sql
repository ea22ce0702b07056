CREATE TABLE generation_source (
  path TEXT NOT NULL PRIMARY KEY,
  fingerprint TEXT NOT NULL
);
