//! Rows of a snapshot by `COPY … FROM STDIN`: in binary where the columns' types are known by their oids, which spares
//! either side the texts, else the same texts that the statements cast. Behind a savepoint: a key that is there, or a
//! value that only the statements' casts take, sends the rows the usual way, and the table's later ones, too.

use super::PgLane;
use super::texts::cell;
use crate::sink::error::misuse;
use crate::sink::sql::{self, CopyForm, Target};
use crate::types::{send, write_literal};
use bytes::{BufMut, Bytes, BytesMut};
use catchwater_change::{Cell, Row, Value};
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
        if !applies.iter().all(|a| matches!(a.what, What::Upsert(_) | What::Insert(_))) {
            return Ok(false);
        }
        for run in applies.chunk_by(|a, b| Arc::ptr_eq(&a.table, &b.table)) {
            let Some(target) = run.first().map(|a| &a.table.target) else { continue };
            if self.filled.contains(target) {
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
        // One COPY for each shape of the table.
        for run in applies.chunk_by(|a, b| Arc::ptr_eq(&a.table, &b.table)) {
            let Some(plan) = run.first().map(|a| a.table.clone()).filter(|p| p.target == *table) else { continue };
            let targets = self.columns_of(&plan)?;
            let mut rest = run;
            if !self.wordy.contains(table) && targets.iter().all(|t| send::fits(t.native)) {
                rest = self.copy_run(&plan, &targets, CopyForm::Binary, rest).await?;
            }
            if !rest.is_empty() {
                // A value that the binary form does not have: there may be more of them.
                self.wordy.insert(table.clone());
                self.copy_run(&plan, &targets, CopyForm::Text, rest).await?;
            }
        }
        Ok(())
    }

    /// Copies rows of one plan, and gives back those that this form cannot say, from the first of them on.
    async fn copy_run<'a>(
        &self,
        plan: &TargetPlan,
        targets: &[Target],
        form: CopyForm,
        rows: &'a [Apply],
    ) -> Result<&'a [Apply], SinkError> {
        let table = &plan.target;
        let failed = |e| super::row_fault(&self.config, &sql::shown(table), e);
        let sink = self.session.client.copy_in::<_, Bytes>(&sql::copy(table, targets, form)).await.map_err(failed)?;
        let mut sink = pin!(sink);
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES + 1024);
        let mut scratch = String::new();
        if form == CopyForm::Binary {
            chunk.put_slice(BINARY_HEAD);
        }
        let mut done = 0;
        for apply in rows {
            let (What::Upsert(row) | What::Insert(row)) = &apply.what else { return Err(misuse("a COPY of changes")) };
            match form {
                CopyForm::Text => put_row(&mut chunk, &mut scratch, plan, row),
                CopyForm::Binary => {
                    if !put_binary_row(&mut chunk, plan, targets, row) {
                        break;
                    }
                }
            }
            done += 1;
            if chunk.len() >= CHUNK_BYTES {
                let room = chunk.len() + 1024;
                let full = std::mem::replace(&mut chunk, BytesMut::with_capacity(room));
                sink.send(full.freeze()).await.map_err(failed)?;
            }
        }
        if form == CopyForm::Binary {
            chunk.put_i16(-1);
        }
        if !chunk.is_empty() {
            sink.send(chunk.freeze()).await.map_err(failed)?;
        }
        sink.finish().await.map_err(failed)?;
        Ok(rows.get(done..).unwrap_or_default())
    }
}

/// COPY's binary format: signature, no flags, no extension. Source: PostgreSQL 15 manual, COPY, "Binary Format".
const BINARY_HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// False = a value has no such form, and nothing was appended.
fn put_binary_row(out: &mut BytesMut, plan: &TargetPlan, targets: &[Target], row: &Row) -> bool {
    let from = out.len();
    let Ok(count) = i16::try_from(targets.len()) else { return false };
    out.put_i16(count);
    for (i, target) in (0u16..).zip(targets) {
        match cell(plan, row, i) {
            Cell::Value(value) => {
                if !send::put(out, target.native, value) {
                    out.truncate(from);
                    return false;
                }
            }
            Cell::Null | Cell::Unavailable | Cell::Absent => out.put_i32(-1),
        }
    }
    true
}

/// COPY's text format: tabs between columns, `\\N` for NULL, a backslash before what would be read as something else.
/// `scratch` is a buffer for one value's text.
fn put_row(out: &mut BytesMut, scratch: &mut String, plan: &TargetPlan, row: &Row) {
    for i in 0..plan.columns.len() as u16 {
        if i > 0 {
            out.put_u8(b'\t');
        }
        match cell(plan, row, i) {
            Cell::Value(Value::Text(text) | Value::Json(text)) => put_text(out, text.as_bytes()),
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
