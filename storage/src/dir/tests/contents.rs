//! What recovery found, entry by entry, and whether what it says of it agrees.

use super::*;

/// The group's log as its readers would see it: rows with the bytes their files hold, then what only the journal has.
pub(super) fn contents(disk: &dyn Disk, layout: &Layout, group: &RecoveredGroup) -> Vec<NewEntry> {
    try_contents(disk, layout, group).unwrap()
}

pub(super) fn try_contents(
    disk: &dyn Disk,
    layout: &Layout,
    group: &RecoveredGroup,
) -> Result<Vec<NewEntry>, crate::read::ReadError> {
    let mut out = Vec::new();
    for segment in &group.segments {
        let stem = format!(
            "/data/log/p/{:016x}/{}",
            group.gid.0,
            crate::segment::segment_stem(segment.base_offset, segment.generation)
        );
        for row in segment.rows.whole().iter().filter(|r| r.kind != EntryKind::Gap) {
            let body = if row.kind == EntryKind::Data {
                let name = (segment.base_index, segment.base_offset, segment.generation);
                let range = FileRead::of_row(group.gid, name, row);
                read_batches(disk, layout, &range)?
            } else {
                Bytes::new()
            };
            let context = if row.ext_len > 0 {
                let record = disk.read(&format!("{stem}.ext"), u64::from(row.ext_pos), usize::from(row.ext_len))?;
                match crate::format::row::decode_ext(row.index, &record) {
                    Some(context) => Bytes::copy_from_slice(context),
                    None => return Err(crate::read::ReadError::Gone(group.gid)),
                }
            } else {
                Bytes::new()
            };
            out.push(NewEntry {
                index: row.index,
                term: row.term,
                kind: row.kind,
                flags: row.flags,
                base_offset: row.base_offset,
                count: row.count,
                max_ts: catchwater_record::BatchView::new(&body).map_or(-1, |b| b.max_timestamp()),
                body,
                context,
            });
        }
    }
    out.extend(group.journaled.iter().cloned());
    Ok(out)
}

/// What a start finds differs from all that is there only in the rows that it has fences of.
pub(super) fn check_fenced(seed: u64, fenced: &[(RecoveredGroup, FoundGroup)], whole: &[(RecoveredGroup, FoundGroup)]) {
    assert_eq!(fenced.len(), whole.len(), "seed {seed}");
    for ((group, files), (all, all_files)) in fenced.iter().zip(whole) {
        assert_eq!(format!("{files:?}"), format!("{all_files:?}"), "seed {seed}");
        let told = |group: &RecoveredGroup| {
            let ends = |s: &SegmentInfo| (s.rows.len(), s.rows.first().copied(), s.rows.last().copied());
            let ends: Vec<_> = group.segments.iter().map(ends).collect();
            (ends, RecoveredGroup { segments: Vec::new(), ..group.clone() })
        };
        assert_eq!(told(group), told(all), "seed {seed}");
        let sealed = group.segments.iter().filter(|s| s.sealed);
        assert!(sealed.into_iter().all(|s| s.rows.tail().is_empty()), "seed {seed}");
    }
}

/// The least timestamp in a footer is that of the rows, or said to be unknown.
pub(super) fn check_least_times(disk: &dyn Disk, group: &RecoveredGroup, log: &[NewEntry]) {
    let mut at = 0;
    for segment in &group.segments {
        let entries = &log[at..at + segment.rows.len()];
        at += segment.rows.len();
        let stem = crate::segment::segment_stem(segment.base_offset, segment.generation);
        let ent = disk.read(&format!("/data/log/p/{:016x}/{stem}.ent", group.gid.0), 0, usize::MAX).unwrap();
        let end = HEADER_BYTES + entries.len() * ROW_BYTES;
        let Some(footer) = ent.get(end..end + FOOTER_BYTES).and_then(Footer::decode) else { continue };
        let least = entries.iter().filter(|e| e.kind == EntryKind::Data).map(|e| e.max_ts).min().unwrap_or(-1);
        assert!(footer.min_ts == -1 || footer.min_ts == least, "{stem}: {} in place of {least}", footer.min_ts);
    }
}

/// Headers and contexts behind the snapshot are those of the log.
pub(super) fn check_since(seed: u64, group: &RecoveredGroup, log: &[NewEntry]) {
    let snap = group.snap.as_ref().map_or(EntryIndex::ZERO, |(i, _)| *i);
    let placed: usize = group.segments.iter().map(|s| s.rows.len()).sum();
    let want: Vec<&NewEntry> = log[..placed].iter().filter(|e| e.index > snap).collect();
    assert_eq!(want.len(), group.since_snap.len(), "seed {seed}");
    for (entry, (row, header, context)) in want.iter().zip(&group.since_snap) {
        assert_eq!((entry.index, &entry.context), (row.index, context), "seed {seed}");
        let told = if entry.flags & !row_flag::CAPTURE == 0 { 0 } else { entry.body.len().min(61) };
        assert_eq!(&entry.body[..told], &header[..], "seed {seed}");
    }
}
