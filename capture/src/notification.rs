//! Pure. What a source tells of its snapshots, in Debezium's words: `Initial Snapshot` of the first one and of blocking ones,
//! `Incremental Snapshot` of those beside the stream. Source: Debezium's `InitialSnapshotNotificationService` and
//! `IncrementalSnapshotNotificationService`, and what its 3.7.0.Final wrote (`connectors/postgres/tests/notifications.jsonl`).
//! Its PostgreSQL connector has no others.

/// Where notifications go: `notification.enabled.channels`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Channels {
    /// A line of the node's log, `source.notification`.
    pub log: bool,
    /// `notification.sink.topic.name`, if the channel `sink` is on. The whole name; nobody else writes there.
    pub topic: Option<String>,
}

impl Channels {
    pub fn is_any(&self) -> bool {
        self.log || self.topic.is_some()
    }
}

/// Which service of Debezium's speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aggregate {
    Initial,
    Incremental,
}

impl Aggregate {
    pub fn name(self) -> &'static str {
        match self {
            Aggregate::Initial => "Initial Snapshot",
            Aggregate::Incremental => "Incremental Snapshot",
        }
    }
}

/// How the reading of a table ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    Succeeded,
    Empty,
    NoPrimaryKey,
    UnknownSchema,
    SqlException,
}

impl Ended {
    fn word(self) -> &'static str {
        match self {
            Ended::Succeeded => "SUCCEEDED",
            Ended::Empty => "EMPTY",
            Ended::NoPrimaryKey => "NO_PRIMARY_KEY",
            Ended::UnknownSchema => "UNKNOWN_SCHEMA",
            Ended::SqlException => "SQL_EXCEPTION",
        }
    }
}

/// One thing to tell. Tables are `schema.table`.
#[derive(Clone, PartialEq, Debug)]
pub enum News<'a> {
    Started,
    /// Which tables are read.
    Resolved,
    /// Nothing is read at this start.
    Skipped,
    Paused,
    Resumed,
    /// These tables are not read on; `None` = the snapshot ends with the process.
    Aborted(Option<&'a [String]>),
    Table {
        table: &'a str,
        /// Of an incremental snapshot.
        chunk: Option<Chunk<'a>>,
    },
    Scanned {
        table: &'a str,
        rows: u64,
        /// Of an incremental snapshot that was read: rows it was expected to have.
        of: Option<u64>,
        ended: Ended,
    },
    Completed,
}

/// A chunk of a table.
#[derive(Clone, PartialEq, Debug)]
pub struct Chunk<'a> {
    /// From 1 on.
    pub index: u64,
    pub count: u64,
    /// Rows of the table when it was begun.
    pub rows: u64,
    /// The greatest key then, and the last one of the chunk.
    pub maximum: &'a [String],
    pub last: &'a [String],
}

const LIST: &str = ",";

/// Type and data. `tables` = all that are not at their end (of a first snapshot: all).
pub fn told(
    source: &str,
    of: Aggregate,
    tables: &[String],
    news: &News<'_>,
) -> (&'static str, Vec<(&'static str, String)>) {
    let mut data = vec![("connector_name", source.to_owned())];
    let all = || ("data_collections", tables.join(LIST));
    let kind = match news {
        News::Started => {
            if of == Aggregate::Incremental {
                data.push(all());
            }
            "STARTED"
        }
        News::Resolved => {
            data.push(all());
            "DATA_COLLECTIONS_RESOLVED"
        }
        News::Skipped => "SKIPPED",
        News::Paused | News::Resumed => {
            data.push(all());
            if *news == News::Paused { "PAUSED" } else { "RESUMED" }
        }
        News::Aborted(which) => {
            data.extend(which.map(|t| ("data_collections", t.join(LIST))));
            "ABORTED"
        }
        News::Table { table, chunk } => {
            data.push(all());
            data.push(("current_collection_in_progress", (*table).to_owned()));
            if let Some(chunk) = chunk {
                data.push(("maximum_key", chunk.maximum.join(LIST)));
                data.push(("last_processed_key", chunk.last.join(LIST)));
                data.push(("chunk_index", chunk.index.to_string()));
                data.push(("total_chunks", chunk.count.to_string()));
                data.push(("total_rows", chunk.rows.to_string()));
            }
            "IN_PROGRESS"
        }
        News::Scanned { table, rows, of, ended } => {
            data.push(all());
            data.push(("scanned_collection", (*table).to_owned()));
            data.push(("total_rows_scanned", rows.to_string()));
            data.extend(of.map(|of| ("total_rows", of.to_string())));
            data.push(("status", ended.word().to_owned()));
            "TABLE_SCAN_COMPLETED"
        }
        News::Completed => "COMPLETED",
    };
    (kind, data)
}

/// A random id in the form of a UUID of version 4.
pub fn uuid(random: [u8; 16]) -> String {
    let mut bytes = random;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut out = String::with_capacity(36);
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        for digit in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_debeziums() {
        let tables = ["public.a".to_owned(), "public.b".to_owned()];
        let of = |aggregate, news| {
            let (kind, data) = told("pg", aggregate, &tables, &news);
            let rest: Vec<String> = data.iter().skip(1).map(|(k, v)| format!("{k}={v}")).collect();
            assert_eq!(data[0], ("connector_name", "pg".to_owned()));
            format!("{kind} {}", rest.join(" "))
        };
        assert_eq!(of(Aggregate::Initial, News::Started), "STARTED ");
        assert_eq!(of(Aggregate::Incremental, News::Started), "STARTED data_collections=public.a,public.b");
        let (maximum, last) = (["9".to_owned(), "x".to_owned()], ["4".to_owned(), "y".to_owned()]);
        let chunk = Chunk { index: 2, count: 3, rows: 5, maximum: &maximum, last: &last };
        assert_eq!(
            of(Aggregate::Incremental, News::Table { table: "public.a", chunk: Some(chunk) }),
            "IN_PROGRESS data_collections=public.a,public.b current_collection_in_progress=public.a maximum_key=9,x \
             last_processed_key=4,y chunk_index=2 total_chunks=3 total_rows=5"
        );
        assert_eq!(
            of(Aggregate::Initial, News::Scanned { table: "public.b", rows: 7, of: None, ended: Ended::Succeeded }),
            "TABLE_SCAN_COMPLETED data_collections=public.a,public.b scanned_collection=public.b total_rows_scanned=7 \
             status=SUCCEEDED"
        );
        let stopped = &tables[1..];
        assert_eq!(of(Aggregate::Incremental, News::Aborted(Some(stopped))), "ABORTED data_collections=public.b");
        assert_eq!(of(Aggregate::Initial, News::Aborted(None)), "ABORTED ");
    }

    #[test]
    fn ids_are_uuids_of_version_4() {
        assert_eq!(uuid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uuid([0; 16]), "00000000-0000-4000-8000-000000000000");
    }
}
