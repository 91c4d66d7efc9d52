//! Pure. The stored shapes, one file each, byte-exact; pages in `docs/formats/`. Everything of ours is little-endian.

pub mod context;
pub mod journal;
pub mod manifest;
pub mod prefix;
pub mod row;
pub mod slot;
pub mod snap;
pub mod txn;

/// Largest index, offset, flush number or generation in a stored file. Nothing of ours comes near; foreign bytes above it
/// are refused where they are decoded, so that no sum behind a decoder can overflow.
pub const NUMBER_MAX: u64 = 1 << 62;

/// True if no number is above [`NUMBER_MAX`].
pub(crate) fn sane(numbers: impl IntoIterator<Item = u64>) -> bool {
    numbers.into_iter().all(|n| n <= NUMBER_MAX)
}

/// Reads little-endian numbers out of a slice whose length the caller has checked.
pub(crate) struct Le<'a>(pub &'a [u8]);

impl Le<'_> {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&self.0[at..at + N]);
        out
    }
    pub fn u8(&self, at: usize) -> u8 {
        self.0[at]
    }
    pub fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }
    pub fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }
    pub fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }
    pub fn i64(&self, at: usize) -> i64 {
        i64::from_le_bytes(self.array(at))
    }
    pub fn b16(&self, at: usize) -> [u8; 16] {
        self.array(at)
    }
}

/// Writes numbers one behind the other.
#[derive(Default)]
pub(crate) struct Put(pub Vec<u8>);

impl Put {
    pub fn with_capacity(n: usize) -> Self {
        Put(Vec::with_capacity(n))
    }
    pub fn bytes(&mut self, b: &[u8]) -> &mut Self {
        self.0.extend_from_slice(b);
        self
    }
    pub fn zeros(&mut self, n: usize) -> &mut Self {
        self.0.resize(self.0.len() + n, 0);
        self
    }
    pub fn u8(&mut self, v: u8) -> &mut Self {
        self.bytes(&[v])
    }
    pub fn u16(&mut self, v: u16) -> &mut Self {
        self.bytes(&v.to_le_bytes())
    }
    pub fn u32(&mut self, v: u32) -> &mut Self {
        self.bytes(&v.to_le_bytes())
    }
    pub fn u64(&mut self, v: u64) -> &mut Self {
        self.bytes(&v.to_le_bytes())
    }
    pub fn i64(&mut self, v: i64) -> &mut Self {
        self.bytes(&v.to_le_bytes())
    }
}

/// Overwrites four bytes with a checksum.
pub(crate) fn set_u32(bytes: &mut [u8], at: usize, v: u32) {
    bytes[at..at + 4].copy_from_slice(&v.to_le_bytes());
}

#[cfg(test)]
pub(crate) fn hex(bytes: &[u8]) -> String {
    // Rows of 16 bytes; a run of equal rows is folded to one line with a count, so that zero padding stays readable.
    let mut out = String::new();
    let rows: Vec<&[u8]> = bytes.chunks(16).collect();
    let mut i = 0;
    while i < rows.len() {
        let run = rows[i..].iter().take_while(|r| **r == rows[i]).count();
        let text: Vec<String> = rows[i].iter().map(|b| format!("{b:02x}")).collect();
        out.push_str(&format!("{:04x}  {}", i * 16, text.join(" ")));
        if run > 2 {
            out.push_str(&format!("  x{run}"));
            i += run;
        } else {
            i += 1;
        }
        out.push('\n');
    }
    out
}

/// Compares `bytes` with the block "```golden <name>" of `docs/formats/<page>`. With `CATCHWATER_BLESS=1` (one test
/// thread) it writes the block instead: for new formats only, stored bytes never change afterwards.
#[cfg(test)]
pub(crate) fn assert_golden(page: &str, name: &str, bytes: &[u8]) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/formats").join(page);
    let text = std::fs::read_to_string(&path).expect("the format page exists");
    let marker = format!("```golden {name}\n");
    let from = text.find(&marker).map(|at| at + marker.len()).expect("the page has this golden block");
    let to = text[from..].find("```").expect("the block is closed") + from;
    if std::env::var_os("CATCHWATER_BLESS").is_some() {
        let new = format!("{}{}{}", &text[..from], hex(bytes), &text[to..]);
        std::fs::write(&path, new).expect("the page can be written");
        return;
    }
    assert_eq!(hex(bytes), text[from..to], "golden {name} of {page}");
}
