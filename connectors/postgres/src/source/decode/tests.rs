//! Messages byte by byte, every cut, hostile counts.
#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

fn hex(text: &str) -> Bytes {
    let clean: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let pairs = clean.as_bytes().chunks(2);
    pairs.map(|p| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap()).collect::<Vec<_>>().into()
}

const RELATION: &str =
    "52 00004001 7075626c696300 7400 64 0002 01 696400 00000017 ffffffff 00 6e616d6500 00000019 ffffffff";
const INSERT: &str = "49 00004001 4e 0002 74 00000001 31 74 00000002 6162";

#[test]
fn messages_of_a_transaction() {
    let begin = message(hex("42 00000000019a2f30 0002a1b2c3d4e5f6 000002e7")).unwrap();
    assert_eq!(begin, Message::Begin { final_lsn: 0x019a_2f30, time: 0x0002_a1b2_c3d4_e5f6, xid: 743 });
    let Message::Relation(r) = message(hex(RELATION)).unwrap() else { panic!() };
    assert_eq!((r.oid, r.namespace.as_str(), r.name.as_str(), r.identity), (0x4001, "public", "t", b'd'));
    assert_eq!(r.columns[0], RelationColumn { is_key: true, name: "id".into(), type_oid: 23, modifier: -1 });
    assert_eq!(r.body, hex(RELATION).slice(1..));
    let Message::Insert { oid, new } = message(hex(INSERT)).unwrap() else { panic!() };
    assert_eq!((oid, new.len()), (0x4001, 2));
    let columns: Vec<_> = new.columns().collect();
    assert_eq!(columns, [ColumnData::Text(b"1"), ColumnData::Text(b"ab")]);
    // Key changed, one column unchanged TOAST, one null.
    let update = message(hex("55 00004001 4b 0002 74 00000001 31 6e 4e 0002 74 00000001 32 75")).unwrap();
    let Message::Update { old: Some(OldTuple::Key(old)), new, .. } = update else { panic!() };
    assert_eq!(old.columns().collect::<Vec<_>>(), [ColumnData::Text(b"1"), ColumnData::Null]);
    assert_eq!(new.columns().collect::<Vec<_>>(), [ColumnData::Text(b"2"), ColumnData::Unchanged]);
    let delete = message(hex("44 00004001 4f 0002 74 00000001 31 6e")).unwrap();
    assert!(matches!(delete, Message::Delete { old: OldTuple::Full(_), .. }));
    let truncate = message(hex("54 00000002 00 00004001 00004002")).unwrap();
    assert_eq!(truncate, Message::Truncate { oids: vec![0x4001, 0x4002] });
    let logical = message(hex("4d 01 0000000000000009 6100 00000002 6869")).unwrap();
    assert_eq!(logical, Message::Logical { transactional: true, lsn: 9, prefix: "a".into(), content: "hi".into() });
    let commit = message(hex("43 00 00000000019a2f30 00000000019a2f60 0002a1b2c3d4e5f6")).unwrap();
    assert_eq!(commit, Message::Commit { lsn: 0x019a_2f30, end_lsn: 0x019a_2f60, time: 0x0002_a1b2_c3d4_e5f6 });
    assert_eq!(message(hex("53 000002e7 01")).unwrap(), Message::StreamStart { xid: 743 });
    assert_eq!(message(hex("45")).unwrap(), Message::StreamStop);
    assert_eq!(message(hex("41 000002e7 000002e8")).unwrap(), Message::StreamAbort { xid: 743, sub: 744 });
    let parallel = message(hex("41 000002e7 000002e8 0000000000000010 0000000000000020")).unwrap();
    assert_eq!(parallel, Message::StreamAbort { xid: 743, sub: 744 });
    assert!(message(hex("41 000002e7 000002e8 0000000000000010")).is_err());
    assert_eq!(
        message(hex("63 000002e7 00 0000000000000010 0000000000000020 0000000000000030")).unwrap(),
        Message::StreamCommit { xid: 743, lsn: 16, end_lsn: 32, time: 48 }
    );
    assert_eq!(message(hex("59 00005000 7000 6d6f6f6400")).unwrap(), Message::Type { oid: 0x5000 });
    assert_eq!(message(hex("4f 0000000000000009 6e00")).unwrap(), Message::Origin { lsn: 9, name: "n".into() });
}

#[test]
fn frames() {
    let data = frame(hex("77 0000000000000010 0000000000000020 0000000000000030 42")).unwrap();
    assert_eq!(data, Frame::Data { start: 16, sent: 48, body: hex("42") });
    let keep = frame(hex("6b 0000000000000020 0000000000000030 01")).unwrap();
    assert_eq!(keep, Frame::KeepAlive { end: 32, reply: true });
    assert_eq!(frame(hex("7a")), Err(DecodeError::Frame(b'z')));
}

#[test]
fn every_cut_and_every_tail_is_refused() {
    for text in [RELATION, INSERT, "42 00000000019a2f30 0002a1b2c3d4e5f6 000002e7", "54 00000001 00 00004001"] {
        let whole = hex(text);
        for n in 0..whole.len() {
            assert!(message(whole.slice(..n)).is_err(), "{text} cut at {n}");
        }
        let mut longer = whole.to_vec();
        longer.push(0);
        assert!(matches!(message(longer.into()), Err(DecodeError::Left { .. })), "{text}");
    }
}

#[test]
fn hostile_counts_allocate_nothing() {
    for text in [
        "52 00004001 7000 7400 64 ffff",           // 65,535 columns in no bytes
        "49 00004001 4e ffff 6e",                  // tuple of 65,535 columns
        "49 00004001 4e 0001 74 ffffffff 31",      // a column of 4 GiB
        "54 ffffffff 00 00004001",                 // 4 G tables
        "4d 00 0000000000000009 6100 ffffffff 68", // a message of 4 GiB
    ] {
        assert!(message(hex(text)).is_err(), "{text}");
    }
    // What we did not ask for (two-phase) is unknown, never skipped.
    for tag in [b'b', b'P', b'K', b'r', b'p', 0, 255] {
        assert_eq!(message(Bytes::copy_from_slice(&[tag])), Err(DecodeError::Message(tag)));
    }
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(tag in prop::sample::select(b"BCORYIUDTMSEcA".to_vec()), rest in prop::collection::vec(any::<u8>(), 0..80)) {
        let mut bytes = vec![tag];
        bytes.extend(rest);
        if let Ok(Message::Insert { new, .. }) = message(bytes.into()) {
            new.columns().count();
        }
    }
}
