//! Pure. Records of tasks in group 0. Page: `docs/formats/task-records.md`.

use super::{Kind, Wish};
use crate::stored::{In, KeyValue, Out, Stored, StoredError, known};
use bytes::Bytes;
use catchwater_record::{CaptureId, NodeId, NodeName, PipelineName, RevisionNo, TaskEpoch, TaskId};

/// One fact. `None` = removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskRecord {
    Task { id: TaskId, task: Option<Task> },
    Status { id: TaskId, status: Option<Status> },
}

/// A task: what it is and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub kind: Kind,
    pub pipeline: PipelineName,
    /// Name of the source or sink inside the pipeline.
    pub node: NodeName,
    pub revision: RevisionNo,
    pub wish: Wish,
    /// Of the present holder, or the last one; 0 = never assigned.
    pub epoch: TaskEpoch,
    pub holder: Option<Holder>,
}

/// The node that runs a task, and which start of it: another process under the id is not the holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    pub node: NodeId,
    pub process: [u8; 16],
}

/// What the holder reported last, of what is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub epoch: TaskEpoch,
    pub state: u8,
    pub code: u16,
    pub at_ms: i64,
    pub progress: Bytes,
}

/// First key kind that is a task's; below are the cluster's.
pub const FIRST_KIND: i16 = 64;
const TASK: i16 = 64;
const STATUS: i16 = 65;

impl Stored for TaskRecord {
    fn to_stored(&self) -> KeyValue {
        let (kind, id) = match self {
            TaskRecord::Task { id, .. } => (TASK, id),
            TaskRecord::Status { id, .. } => (STATUS, id),
        };
        let mut key = Out::version(kind);
        key.i64(id.0 as i64);
        let value = match self {
            TaskRecord::Task { task, .. } => task.as_ref().map(task_value),
            TaskRecord::Status { status, .. } => status.as_ref().map(|s| {
                let mut v = Out::version(0);
                v.i32(s.epoch.0 as i32);
                v.i8(s.state as i8);
                v.i16(s.code as i16);
                v.i64(s.at_ms);
                v.compact(&s.progress);
                v
            }),
        };
        let value = value.map(|mut v| {
            v.end();
            v.finish()
        });
        KeyValue { key: key.finish(), value }
    }

    fn from_stored(key: &[u8], value: Option<&[u8]>) -> Result<Option<Self>, StoredError> {
        let mut k = In::new(key);
        let kind = k.i16()?;
        if !matches!(kind, TASK | STATUS) {
            return Ok(None);
        }
        let id = TaskId(k.i64()? as u64);
        let mut v = match value {
            None if kind == TASK => return Ok(Some(TaskRecord::Task { id, task: None })),
            None => return Ok(Some(TaskRecord::Status { id, status: None })),
            Some(value) => In::new(value),
        };
        known(kind, v.i16()?, 0)?;
        Ok(Some(if kind == TASK {
            TaskRecord::Task { id, task: Some(read_task(&mut v)?) }
        } else {
            let status = Status {
                epoch: TaskEpoch(v.i32()? as u32),
                state: v.i8()? as u8,
                code: v.i16()? as u16,
                at_ms: v.i64()?,
                progress: Bytes::copy_from_slice(v.compact()?),
            };
            TaskRecord::Status { id, status: Some(status) }
        }))
    }
}

fn task_value(t: &Task) -> Out {
    let mut v = Out::version(0);
    let (kind, capture) = match t.kind {
        Kind::Capture(capture) => (0, capture.0),
        Kind::Deliver => (1, 0),
    };
    v.i8(kind);
    v.i64(capture as i64);
    v.compact_string(t.pipeline.as_str());
    v.compact_string(t.node.as_str());
    v.i64(t.revision.0 as i64);
    v.i8(match t.wish {
        Wish::Run => 0,
        Wish::Pause => 1,
        Wish::Stop => 2,
    });
    v.i32(t.epoch.0 as i32);
    v.i32(t.holder.map_or(-1, |h| h.node.0 as i32));
    v.uuid(&t.holder.map_or([0; 16], |h| h.process));
    v
}

fn read_task(v: &mut In<'_>) -> Result<Task, StoredError> {
    let kind = match (v.i8()?, v.i64()?) {
        (0, capture) => Kind::Capture(CaptureId(capture as u64)),
        (1, _) => Kind::Deliver,
        (other, _) => return Err(StoredError::Unknown { what: "task kind", value: i64::from(other) }),
    };
    let (pipeline, node) = (v.compact_string()?.into(), v.compact_string()?.into());
    let revision = RevisionNo(v.i64()? as u64);
    let wish = match v.i8()? {
        0 => Wish::Run,
        1 => Wish::Pause,
        2 => Wish::Stop,
        other => return Err(StoredError::Unknown { what: "wish", value: i64::from(other) }),
    };
    let epoch = TaskEpoch(v.i32()? as u32);
    let holder = match (v.i32()?, v.uuid()?) {
        (-1, _) => None,
        (node, process) => Some(Holder { node: NodeId(node as u32), process }),
    };
    Ok(Task { kind, pipeline, node, revision, wish, epoch, holder })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cluster::records::tests::{bytes, in_page};

    #[test]
    fn records_are_the_golden_bytes_of_the_page() {
        let page = include_str!("../../../docs/formats/task-records.md");
        let capture = Task {
            kind: Kind::Capture(CaptureId(7)),
            pipeline: "p".into(),
            node: "pg".into(),
            revision: RevisionNo(2),
            wish: Wish::Run,
            epoch: TaskEpoch(3),
            holder: Some(Holder { node: NodeId(1), process: [0x22; 16] }),
        };
        let deliver = Task {
            kind: Kind::Deliver,
            node: "out".into(),
            wish: Wish::Pause,
            epoch: TaskEpoch(0),
            holder: None,
            ..capture.clone()
        };
        let status = Status {
            epoch: TaskEpoch(3),
            state: 2,
            code: 0,
            at_ms: 1_700_000_000_000,
            progress: Bytes::from_static(b"ab"),
        };
        let cases = [
            (
                TaskRecord::Task { id: TaskId(1), task: Some(capture) },
                "0040 0000000000000001",
                "0000 00 0000000000000007 0270 037067 0000000000000002 00 00000003 00000001 22222222222222222222222222222222 00",
            ),
            (
                TaskRecord::Task { id: TaskId(2), task: Some(deliver) },
                "0040 0000000000000002",
                "0000 01 0000000000000000 0270 046f7574 0000000000000002 01 00000000 ffffffff 00000000000000000000000000000000 00",
            ),
            (
                TaskRecord::Status { id: TaskId(1), status: Some(status) },
                "0041 0000000000000001",
                "0000 00000003 02 0000 0000018bcfe56800 036162 00",
            ),
        ];
        for (record, key, value) in cases {
            let stored = record.to_stored();
            assert_eq!(&stored.key[..], &bytes(key)[..]);
            assert_eq!(&stored.value.clone().unwrap()[..], &bytes(value)[..], "{record:?}");
            assert_eq!(TaskRecord::from_stored(&stored.key, stored.value.as_deref()), Ok(Some(record)));
            assert!(in_page(page, key) && in_page(page, value), "the page lacks {key} / {value}");
        }
    }

    #[test]
    fn tombstones_come_back_and_kinds_of_the_cluster_are_not_ours() {
        for record in
            [TaskRecord::Task { id: TaskId(4), task: None }, TaskRecord::Status { id: TaskId(4), status: None }]
        {
            let stored = record.to_stored();
            assert_eq!(TaskRecord::from_stored(&stored.key, None), Ok(Some(record)));
        }
        assert_eq!(TaskRecord::from_stored(&[0, 9], None), Ok(None));
    }
}
