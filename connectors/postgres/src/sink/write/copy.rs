//! Rows of a snapshot by `COPY … FROM STDIN`, in text: the same texts that the statements cast. Behind a savepoint: a key
//! that is there, or a value that only the statements' casts take, sends the rows the usual way, and the table's later
//! ones, too.

use super::{PgLane, row_texts};
use crate::sink::sql;
use bytes::{BufMut, Bytes, BytesMut};
use catchwater_deliver::sink::{Apply, SinkClass, SinkError, TargetName, What};
use futures_util::SinkExt;
use std::pin::pin;
use std::sync::Arc;

/// Bytes handed to the connection at a time.
const CHUNK_BYTES: usize = 64 * 1024;

impl PgLane {
    /// Tries to copy a group. False = nothing of it was written.
    pub(super) async fn copied(&mut self, applies: &[Apply]) -> Result<bool, SinkError> {
        let mut tables: Vec<&TargetName> = Vec::new();
        for apply in applies {
            let target = &apply.table.target;
            let is_new = matches!(apply.what, What::Upsert(_) | What::Insert(_));
            if !is_new || self.filled.contains(target) {
                return Ok(false);
            }
            if !tables.contains(&target) {
                tables.push(target);
            }
        }
        let order: Vec<TargetName> = self.parents_first(&tables).into_iter().cloned().collect();
        self.sql("SAVEPOINT cw").await?;
        for table in &order {
            match self.copy_table(table, applies).await {
                Ok(()) => {}
                Err(e) if e.class == SinkClass::Row => {
                    self.filled.insert(table.clone());
                    self.sql("ROLLBACK TO SAVEPOINT cw; RELEASE SAVEPOINT cw").await?;
                    return Ok(false);
                }
                Err(e) => return Err(e),
            }
        }
        self.sql("RELEASE SAVEPOINT cw").await?;
        Ok(true)
    }

    async fn copy_table(&mut self, table: &TargetName, applies: &[Apply]) -> Result<(), SinkError> {
        let of: Vec<&Apply> = applies.iter().filter(|a| a.table.target == *table).collect();
        // One COPY for each shape of the table.
        for rows in of.chunk_by(|a, b| Arc::ptr_eq(&a.table, &b.table)) {
            let Some(plan) = rows.first().map(|a| a.table.clone()) else { continue };
            let text = sql::copy(table, &self.columns_of(&plan)?);
            let failed = |e| super::row_fault(&self.config, &sql::shown(table), e);
            let sink = self.session.client.copy_in::<_, Bytes>(&text).await.map_err(failed)?;
            let mut sink = pin!(sink);
            let mut chunk = BytesMut::with_capacity(CHUNK_BYTES + 1024);
            for apply in rows {
                if let What::Upsert(row) | What::Insert(row) = &apply.what {
                    put_row(&mut chunk, &row_texts(&plan, row));
                }
                if chunk.len() >= CHUNK_BYTES {
                    sink.send(chunk.split().freeze()).await.map_err(failed)?;
                }
            }
            if !chunk.is_empty() {
                sink.send(chunk.freeze()).await.map_err(failed)?;
            }
            sink.finish().await.map_err(failed)?;
        }
        Ok(())
    }
}

/// COPY's text format: tabs between columns, `\\N` for NULL, a backslash before what would be read as something else.
fn put_row(out: &mut BytesMut, texts: &[Option<String>]) {
    for (i, text) in texts.iter().enumerate() {
        if i > 0 {
            out.put_u8(b'\t');
        }
        let Some(text) = text else {
            out.put_slice(b"\\N");
            continue;
        };
        for b in text.bytes() {
            match b {
                b'\\' => out.put_slice(b"\\\\"),
                b'\t' => out.put_slice(b"\\t"),
                b'\n' => out.put_slice(b"\\n"),
                b'\r' => out.put_slice(b"\\r"),
                _ => out.put_u8(b),
            }
        }
    }
    out.put_u8(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_copy_reads_otherwise_is_escaped() {
        let mut out = BytesMut::new();
        let some = |t: &str| Some(t.to_owned());
        put_row(&mut out, &[some("a\tb"), None, some("\\N"), some("x\r\ny"), some(""), some("é")]);
        put_row(&mut out, &[]);
        assert_eq!(&out[..], "a\\tb\t\\N\t\\\\N\tx\\r\\ny\t\té\n\n".as_bytes());
    }
}
