//! Crash points around every operation of the two threads (`CATCHWATER_CRASH_AT=journal.before_submit:3`).

use catchwater_base::crash_point;
use catchwater_storage::journal::JournalPoint;
use catchwater_storage::segment::SegmentPoint;

pub(super) fn before_journal(point: JournalPoint) {
    match point {
        JournalPoint::Submit => crash_point!("journal.before_submit"),
        JournalPoint::Forward => crash_point!("ckpt.before_forward"),
        JournalPoint::Seal => crash_point!("journal.before_seal"),
        JournalPoint::Recycle => crash_point!("journal.before_recycle"),
        JournalPoint::Prepare => crash_point!("journal.before_prepare"),
        JournalPoint::Remove => crash_point!("journal.before_remove"),
    }
}

pub(super) fn after_journal(point: JournalPoint) {
    match point {
        JournalPoint::Submit => crash_point!("journal.after_submit"),
        JournalPoint::Forward => crash_point!("ckpt.after_forward"),
        JournalPoint::Seal => crash_point!("journal.after_seal"),
        JournalPoint::Recycle => crash_point!("journal.after_recycle"),
        JournalPoint::Prepare => crash_point!("journal.after_prepare"),
        JournalPoint::Remove => crash_point!("journal.after_remove"),
    }
}

pub(super) fn before_segment(point: SegmentPoint) {
    match point {
        SegmentPoint::SegLog => crash_point!("seg.before_log"),
        SegmentPoint::SegExt => crash_point!("seg.before_ext"),
        SegmentPoint::SegEnt => crash_point!("seg.before_ent"),
        SegmentPoint::RollCreate => crash_point!("roll.before_create"),
        SegmentPoint::RollDirsync => crash_point!("roll.before_dirsync"),
        SegmentPoint::RollUse => crash_point!("roll.before_use"),
        SegmentPoint::CkptSync => crash_point!("ckpt.before_sync"),
        SegmentPoint::SealLog => crash_point!("seal.before_log"),
        SegmentPoint::SealEnt => crash_point!("seal.before_ent"),
        SegmentPoint::SealExt => crash_point!("seal.before_ext"),
        SegmentPoint::SealTxn => crash_point!("seal.before_txn"),
        SegmentPoint::SealManifest => crash_point!("seal.before_manifest"),
        SegmentPoint::TruncRows => crash_point!("trunc.before_rows"),
        SegmentPoint::TruncFile => crash_point!("trunc.before_file"),
        SegmentPoint::TruncSync => crash_point!("trunc.before_sync"),
        SegmentPoint::TrimManifest => crash_point!("trim.before_manifest"),
        SegmentPoint::TrimUnlink => crash_point!("trim.before_unlink"),
        SegmentPoint::SwitchManifest => crash_point!("switch.before_manifest"),
        SegmentPoint::SwitchDrop => crash_point!("switch.before_drop"),
        SegmentPoint::SnapWrite => crash_point!("snap.before_write"),
        SegmentPoint::SnapSync => crash_point!("snap.before_sync"),
        SegmentPoint::DelRename => crash_point!("del.before_rename"),
        SegmentPoint::DelRemove => crash_point!("del.before_remove"),
        SegmentPoint::Read | SegmentPoint::WriteBack => {}
    }
}

pub(super) fn after_segment(point: SegmentPoint) {
    match point {
        SegmentPoint::SegLog => crash_point!("seg.after_log"),
        SegmentPoint::SegExt => crash_point!("seg.after_ext"),
        SegmentPoint::SegEnt => crash_point!("seg.after_ent"),
        SegmentPoint::RollCreate => crash_point!("roll.after_create"),
        SegmentPoint::RollDirsync => crash_point!("roll.after_dirsync"),
        SegmentPoint::RollUse => crash_point!("roll.after_use"),
        SegmentPoint::CkptSync => crash_point!("ckpt.after_sync"),
        SegmentPoint::SealLog => crash_point!("seal.after_log"),
        SegmentPoint::SealEnt => crash_point!("seal.after_ent"),
        SegmentPoint::SealExt => crash_point!("seal.after_ext"),
        SegmentPoint::SealTxn => crash_point!("seal.after_txn"),
        SegmentPoint::SealManifest => crash_point!("seal.after_manifest"),
        SegmentPoint::TruncRows => crash_point!("trunc.after_rows"),
        SegmentPoint::TruncFile => crash_point!("trunc.after_file"),
        SegmentPoint::TruncSync => crash_point!("trunc.after_sync"),
        SegmentPoint::TrimManifest => crash_point!("trim.after_manifest"),
        SegmentPoint::TrimUnlink => crash_point!("trim.after_unlink"),
        SegmentPoint::SwitchManifest => crash_point!("switch.after_manifest"),
        SegmentPoint::SwitchDrop => crash_point!("switch.after_drop"),
        SegmentPoint::SnapWrite => crash_point!("snap.after_write"),
        SegmentPoint::SnapSync => crash_point!("snap.after_sync"),
        SegmentPoint::DelRename => crash_point!("del.after_rename"),
        SegmentPoint::DelRemove => crash_point!("del.after_remove"),
        SegmentPoint::Read | SegmentPoint::WriteBack => {}
    }
}
