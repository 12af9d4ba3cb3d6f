-- Run as the database's administrator: tracker_owner owns the tables and makes them, tracker_serving has the rights in
-- docs/roles.sql and no others.

\getenv owner_password POSTGRES_OWNER_PASSWORD
\getenv serving_password POSTGRES_SERVING_PASSWORD

-- A statement that fails would be logged with the password in it; one that waits would hold up the service.
SET LOCAL log_min_error_statement = 'panic';
SET LOCAL lock_timeout = '10s';

SELECT format('CREATE ROLE %I', name)
FROM unnest(ARRAY['tracker_owner', 'tracker_serving']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec

ALTER ROLE tracker_owner
    LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'owner_password';
ALTER ROLE tracker_serving
    LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'serving_password';

GRANT USAGE, CREATE ON SCHEMA public TO tracker_owner;

-- In volumes of earlier versions the administrator owns everything. What an extension brought stays its own, and a
-- column's sequence goes with its table.
SELECT format('ALTER %s %s OWNER TO tracker_owner', kind, name)
FROM (
    SELECT 'pg_class'::regclass AS catalogue, oid, relowner AS owner, oid::regclass::text AS name,
           CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
                        ELSE 'TABLE' END AS kind
    FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S')
    UNION ALL
    SELECT 'pg_proc'::regclass, oid, proowner, oid::regprocedure::text, 'ROUTINE'
    FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace
) AS thing
WHERE owner = (SELECT oid FROM pg_roles WHERE rolname = current_user)
  AND NOT EXISTS (
      SELECT FROM pg_depend AS d
      WHERE d.classid = thing.catalogue AND d.objid = thing.oid
        AND (d.deptype = 'e' OR kind = 'SEQUENCE' AND d.deptype IN ('a', 'i')))
\gexec
