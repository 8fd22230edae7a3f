"""The table of the story that this project began with: 85 sessions, 18 of them never closed, the oldest for 444 hours.

Made by a backend whose `disconnect()` forgot the database. Its ids are texts. Everything follows from the row's number,
and from the hour at which the table is made.
"""

from __future__ import annotations

import argparse

from lastcall.embedded import cluster

ROWS = 85
ACTIVE = 18
OLDEST_HOURS = 444
DAYS_ASKED = 7  # by the last of the statements

# A session began every 5 hours, and the 18 longest ago of every fifth were never closed. Its last message came 5 to 22
# minutes after its start. Some durations are wrong: the backend rounded them, or counted from the wrong start.
TABLE = f"""
CREATE TABLE {{table}} (
    session_id       text PRIMARY KEY,
    user_id          text NOT NULL,
    is_active        boolean DEFAULT true,
    session_start    timestamp with time zone DEFAULT now(),
    session_end      timestamp with time zone,
    ended_at         timestamp with time zone,
    duration_seconds integer,
    updated_at       timestamp with time zone
);
WITH numbered AS (
    SELECT n, now() - make_interval(hours => {OLDEST_HOURS} - 5 * n) AS began,
           n % 4 = 0 AND n < {4 * ACTIVE} AS is_open,
           make_interval(secs => 300 + 60 * (n % 18)) AS lasted
      FROM generate_series(0, {ROWS - 1}) n
)
INSERT INTO {{table}}
SELECT 'session_' || substr(md5(n::text), 1, 12), 'user-' || n % 23, is_open, began,
       CASE WHEN NOT is_open THEN began + lasted END, CASE WHEN NOT is_open THEN began + lasted END,
       CASE WHEN NOT is_open THEN extract(epoch FROM lasted)::integer + CASE WHEN n % 10 = 1 THEN 3600 ELSE 0 END END,
       began + lasted
  FROM numbered;
"""

REPAIR = """
UPDATE conversation_sessions SET is_active = false, session_end = NOW(), ended_at = NOW(),
       duration_seconds = EXTRACT(EPOCH FROM (NOW() - session_start)) WHERE is_active = true
"""
ORPHANS = """
SELECT session_id, user_id, EXTRACT(EPOCH FROM (NOW() - session_start)) / 3600 AS hours_active
  FROM conversation_sessions WHERE is_active = true AND session_start < NOW() - INTERVAL '1 hour'
"""
ALERT = """
SELECT COUNT(*) AS orphaned_count FROM conversation_sessions
 WHERE is_active = true AND session_start < NOW() - INTERVAL '2 hours'
"""
METRICS = f"""
SELECT DATE(session_start) AS date, COUNT(*) AS total_sessions, AVG(duration_seconds) AS avg_duration,
       COUNT(*) FILTER (WHERE is_active) AS still_active FROM conversation_sessions
 WHERE session_start > NOW() - INTERVAL '{DAYS_ASKED} days' GROUP BY DATE(session_start) ORDER BY date DESC
"""


def make_table(url: str, table: str = "conversation_sessions") -> None:
    """Creates and fills it in the database at the URL."""
    answer = cluster.run(
        "psql", "--no-psqlrc", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-c", TABLE.format(table=table), url
    )
    if answer.returncode:
        raise SystemExit(answer.stderr.strip())


def main() -> None:
    """Makes the table where the command line says."""
    parser = argparse.ArgumentParser(prog="scripts/story-table", description=__doc__.splitlines()[0])
    parser.add_argument("url", help="of a database in which there is no such table yet, such as postgresql://…/app")
    parser.add_argument("--table", default="conversation_sessions", help="name of the table (default %(default)s)")
    arguments = parser.parse_args()
    make_table(arguments.url, arguments.table)
    print(f"{arguments.table}: {ROWS} sessions, {ACTIVE} of them active, the oldest for {OLDEST_HOURS} hours")


if __name__ == "__main__":
    main()
