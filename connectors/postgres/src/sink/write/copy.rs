//! Rows of a snapshot by `COPY … FROM STDIN`, in text: the same texts that the statements cast. Behind a savepoint: a key
//! that is there, or a value that only the statements' casts take, sends the rows the usual way, and the table's later
//! ones, too.

use super::PgLane;
use super::texts::cell;
use crate::sink::sql;
use crate::types::write_literal;
use bytes::{BufMut, Bytes, BytesMut};
use catchwater_change::{Cell, Row};
use catchwater_deliver::sink::{Apply, SinkClass, SinkError, TargetName, TargetPlan, What};
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
            let mut scratch = String::new();
            for apply in rows {
                if let What::Upsert(row) | What::Insert(row) = &apply.what {
                    put_row(&mut chunk, &mut scratch, &plan, row);
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
/// `scratch` is a buffer for one value's text.
fn put_row(out: &mut BytesMut, scratch: &mut String, plan: &TargetPlan, row: &Row) {
    for i in 0..plan.columns.len() as u16 {
        if i > 0 {
            out.put_u8(b'\t');
        }
        match cell(plan, row, i) {
            Cell::Value(value) => {
                scratch.clear();
                write_literal(value, scratch);
                put_text(out, scratch.as_bytes());
            }
            Cell::Null | Cell::Unavailable | Cell::Absent => out.put_slice(b"\\N"),
        }
    }
    out.put_u8(b'\n');
}

fn put_text(out: &mut BytesMut, mut text: &[u8]) {
    let special = |b: &u8| matches!(b, b'\\' | b'\t' | b'\n' | b'\r');
    // Most texts have nothing of the kind.
    while let Some(at) = text.iter().position(special) {
        out.put_slice(&text[..at]);
        out.put_slice(match text[at] {
            b'\\' => b"\\\\",
            b'\t' => b"\\t",
            b'\n' => b"\\n",
            _ => b"\\r",
        });
        text = &text[at + 1..];
    }
    out.put_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_copy_reads_otherwise_is_escaped() {
        let mut out = BytesMut::new();
        for (i, text) in ["a\tb", "\\N", "x\r\ny", "", "é", "\\\\t"].iter().enumerate() {
            if i > 0 {
                out.put_u8(b'|');
            }
            put_text(&mut out, text.as_bytes());
        }
        assert_eq!(&out[..], "a\\tb|\\\\N|x\\r\\ny||é|\\\\\\\\t".as_bytes());
    }
}
