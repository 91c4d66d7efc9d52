//! The decoders. A target may refuse its input; it must not panic, loop, or take memory beyond its budget.

use crate::repair;
use bytes::Bytes;
use catchwater_change::decode::debezium_json;
use catchwater_change::encode::debezium_json::FLAT_HEADER;
use catchwater_change::{checkpoint, cut, exact, json, stamp};
use catchwater_connector_postgres::source::decode as pgoutput_decode;
use catchwater_protocol::header::{self, RequestHeader};
use catchwater_protocol::{Message, Reader, Request, versions};
use catchwater_record::batch::validate::{Depth, Rules, validate};
use catchwater_record::batch::{BatchView, iterate};
use catchwater_record::{EntryIndex, Gid, compress};
use catchwater_storage::format::context::EntryContext;
use catchwater_storage::format::journal::{FileHeader, FlushHeader, decode_flush, decode_frame, salvage_flush};
use catchwater_storage::format::manifest::Manifest;
use catchwater_storage::format::row::{EntHeader, Footer, decode_ext, decode_row};
use catchwater_storage::format::slot::{self, BootState, DirMeta, SlotKind};
use catchwater_storage::format::snap::{self, Snap};
use catchwater_storage::format::txn::Aborted;

/// Name and function; the budget of memory is [`crate::budget`] times the last.
pub const TARGETS: [Target; 13] = [
    Target { name: "request", run: request, opens: false },
    Target { name: "response", run: response, opens: false },
    Target { name: "header", run: request_header, opens: false },
    Target { name: "batch", run: batch, opens: true },
    Target { name: "journal", run: journal, opens: false },
    Target { name: "segment", run: segment, opens: false },
    Target { name: "manifest", run: manifest, opens: false },
    Target { name: "snap", run: snapshot, opens: false },
    Target { name: "txn", run: txn, opens: false },
    Target { name: "pgoutput", run: pgoutput, opens: false },
    Target { name: "debezium_json", run: debezium, opens: false },
    Target { name: "stored_records", run: stored_records, opens: false },
    Target { name: "pipeline_yaml", run: pipeline_yaml, opens: false },
];

pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Opens compressed bytes under a cap of its own: memory is bounded by that.
    pub opens: bool,
}

/// Most that a compressed batch may give out here, bytes.
const OUTPUT_BYTES_MAX: usize = 256 << 10;

impl Target {
    /// Bytes by which one input may make live memory grow.
    pub fn budget(&self, input_bytes: usize) -> usize {
        // Decompressors keep windows and tables besides what they give out.
        crate::budget(input_bytes) + if self.opens { 2 * OUTPUT_BYTES_MAX + (12 << 20) } else { 0 }
    }
}

type Decode = fn(Bytes, i16);

/// Decodes, and what was understood is written again to the length it claims.
fn both_ways<M: Message>(body: Bytes, version: i16) {
    if let Ok((message, _)) = catchwater_protocol::decode::<M>(body, version)
        && let Ok(again) = catchwater_protocol::encode(&message, version)
    {
        assert_eq!(again.len(), message.size(version), "size and encode disagree");
    }
}

macro_rules! tables {
    ($($name:ident $request:ident $response:ident;)*) => {
        /// Key, first and last version, request, response.
        const APIS: &[(i16, i16, i16, Decode, Decode)] = &[$((
            <catchwater_protocol::api::$request as Request>::KEY,
            <catchwater_protocol::api::$request as Request>::MIN,
            <catchwater_protocol::api::$request as Request>::MAX,
            both_ways::<catchwater_protocol::api::$request>,
            both_ways::<catchwater_protocol::api::$response>,
        ),)*];
    };
}
catchwater_protocol::each_api!(tables);

/// The first two bytes choose API and version.
fn choose(input: &[u8]) -> Option<(usize, i16, Bytes)> {
    let (api, version) = (usize::from(*input.first()?) % APIS.len(), i16::from(*input.get(1)?));
    let (_, min, max, _, _) = APIS[api];
    Some((api, min + version % (max - min + 1), Bytes::copy_from_slice(&input[2..])))
}

fn request(input: &[u8]) {
    if let Some((api, version, body)) = choose(input) {
        APIS[api].3(body, version);
    }
}

/// Where a key stands in the table of APIs, and its first version.
pub fn place_of(key: i16) -> Option<(usize, i16)> {
    APIS.iter().position(|a| a.0 == key).map(|at| (at, APIS[at].1))
}

fn response(input: &[u8]) {
    if let Some((api, version, body)) = choose(input) {
        APIS[api].4(body, version);
    }
}

fn request_header(input: &[u8]) {
    let _ = header::peek(input);
    let _ = versions::APIS.len();
    for flexible in [false, true] {
        let _ = RequestHeader::decode(&mut Reader::new(Bytes::copy_from_slice(input)), flexible);
        let _ = header::decode_response(&mut Reader::new(Bytes::copy_from_slice(input)), flexible);
    }
}

fn batch(input: &[u8]) {
    let mut repaired = input.to_vec();
    repair::batch(&mut repaired);
    for bytes in [input, &repaired[..]] {
        for depth in [Depth::Header, Depth::Full] {
            let rules = Rules { depth, batch_bytes_max: OUTPUT_BYTES_MAX as u32 / 64, ..Rules::default() };
            let _ = validate(Some(bytes), &rules, 1_700_000_000_000);
        }
        let Ok((view, _)) = BatchView::split(bytes) else { continue };
        let Ok(section) = compress::section(&view, OUTPUT_BYTES_MAX) else { continue };
        for record in iterate::records(&section, view.records_count().max(0).unsigned_abs()) {
            let Ok(record) = record else { break };
            let _ = record.headers().count();
        }
        let _ = compress::first_at_or_after(&view, 5, 1, OUTPUT_BYTES_MAX);
        let _ = compress::first_at_max(&view, 1, OUTPUT_BYTES_MAX);
    }
}

fn journal(input: &[u8]) {
    let mut repaired = input.to_vec();
    repair::flush(&mut repaired);
    let mut head = input.to_vec();
    repair::head64(&mut head, b"CWJF");
    let mut frame = input.to_vec();
    repair::frame(&mut frame);
    for bytes in [input.to_vec(), repaired, head, frame] {
        let _ = FileHeader::decode(&bytes);
        let bytes = Bytes::from(bytes);
        let _ = decode_frame(&bytes);
        if let Some(header) = FlushHeader::decode(&bytes) {
            let content = decode_flush(&header, &bytes);
            assert!(content.frames.len() <= bytes.len() / 64, "more frames than fit");
            let _ = salvage_flush(header.lsn, &bytes);
        }
    }
}

fn segment(input: &[u8]) {
    let mut head = input.to_vec();
    repair::head64(&mut head, b"CWE1");
    let mut footer = input.to_vec();
    repair::footer(&mut footer);
    let _ = (EntHeader::decode(input), EntHeader::decode(&head), Footer::decode(input), Footer::decode(&footer));
    for row in input.chunks(48) {
        let _ = decode_row(row, Gid(7), EntryIndex(1));
    }
    if let Some(context) = decode_ext(EntryIndex(1), input) {
        let _ = EntryContext::decode(&Bytes::copy_from_slice(context));
    }
    let _ = EntryContext::decode(&Bytes::copy_from_slice(input));
}

fn manifest(input: &[u8]) {
    for kind in [SlotKind::DirMeta, SlotKind::BootState, SlotKind::Manifest] {
        let mut repaired = input.to_vec();
        repair::slot(&mut repaired, kind as u16);
        let _ = slot::newest(kind, Some(input), Some(&repaired));
        let Some(found) = slot::decode(kind, &repaired) else { continue };
        let _ = (DirMeta::decode(&found.payload), BootState::decode(&found.payload));
        if let Some(manifest) = Manifest::decode(&found.payload) {
            let _ = manifest.encode();
        }
    }
}

fn txn(input: &[u8]) {
    let mut repaired = input.to_vec();
    repair::txn(&mut repaired);
    for bytes in [input, &repaired] {
        let Some(rows) = Aborted::decode_all(bytes) else { continue };
        let mut again = Vec::new();
        rows.iter().for_each(|row| row.encode(&mut again));
        assert!(rows.iter().all(|row| row.first < row.last), "a transaction without a place");
    }
}

fn snapshot(input: &[u8]) {
    let mut repaired = input.to_vec();
    repair::snap(&mut repaired);
    for bytes in [input.to_vec(), repaired] {
        let Some(snap) = Snap::decode(&bytes.into()) else { continue };
        let Some(sections) = snap::sections(&snap.payload) else { continue };
        for (kind, section) in sections {
            crate::seeds::read_section(kind, &section);
        }
    }
}

fn pgoutput(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    let body = match pgoutput_decode::frame(bytes.clone()) {
        Ok(pgoutput_decode::Frame::Data { body, .. }) => body,
        _ => bytes,
    };
    use pgoutput_decode::{Message, OldTuple, Tuple};
    let walk =
        |tuple: &Tuple| assert_eq!(tuple.columns().count(), tuple.len(), "a column that was counted is not there");
    let old = |tuple: &OldTuple| match tuple {
        OldTuple::Key(t) | OldTuple::Full(t) => walk(t),
    };
    match pgoutput_decode::message(body) {
        Ok(Message::Insert { new, .. }) => walk(&new),
        Ok(Message::Update { old: before, new, .. }) => {
            before.iter().for_each(old);
            walk(&new);
        }
        Ok(Message::Delete { old: before, .. }) => old(&before),
        _ => {}
    }
}

fn debezium(input: &[u8]) {
    let _ = json::parse(input);
    let schema = crate::seeds::table();
    let at = input.iter().position(|b| *b == 0).unwrap_or(input.len());
    let (marks, value) = (&input[at..], &input[..at]);
    let stamp = crate::seeds::stamp_bytes();
    let headers = [(stamp::STAMP_HEADER, Some(&stamp[..])), (exact::EXACT_HEADER, Some(marks))];
    let _ = debezium_json::decode(Some(value), headers, &schema);
    // A row without its envelope: the row before stands in a header.
    let flat = [(stamp::STAMP_HEADER, Some(&stamp[..])), (FLAT_HEADER, Some(marks))];
    let _ = debezium_json::decode(Some(value), flat, &schema);
    let plain = [(stamp::STAMP_HEADER, Some(&stamp[..]))];
    let _ = debezium_json::decode(Some(input), plain, &schema);
}

fn stored_records(input: &[u8]) {
    let _ = stamp::Stamp::decode(input);
    let _ = cut::Cut::decode(input);
    let _ = exact::decode(input);
    let at = usize::from(input.first().copied().unwrap_or(0)).min(input.len());
    if let Ok((_, key)) = checkpoint::StoredKey::decode(&input[..at]) {
        let _ = checkpoint::Stored::decode(key, &input[at..]);
    }
}

fn pipeline_yaml(input: &[u8]) {
    let _ = crate::pipeline::tree::parse(input);
}
