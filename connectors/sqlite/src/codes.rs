//! Error codes of this connector; each has a page in `docs/errors/`.

pub const FILE_MISSING: u16 = 550;
pub const NOT_A_DATABASE: u16 = 551;
pub const READ_ONLY: u16 = 552;
pub const TABLE_MISSING: u16 = 553;
pub const OTHER_DATABASE: u16 = 554;
pub const CHANGES_LOST: u16 = 555;
pub const TRIGGERS_GONE: u16 = 556;
pub const NOT_CAPTURABLE: u16 = 557;
pub const SOURCE_BUSY: u16 = 558;
pub const WRITERS_WAIT: u16 = 559;

pub const SINK_BUSY: u16 = 650;
pub const SINK_FILE: u16 = 651;
pub const SINK_NOT_A_DATABASE: u16 = 652;
pub const SINK_READ_ONLY: u16 = 653;
pub const SINK_ROW: u16 = 654;
pub const SINK_TABLE: u16 = 655;
pub const SINK_FENCED: u16 = 656;
pub const SINK_FOREIGN: u16 = 657;
pub const SINK_MOVED: u16 = 658;
pub const SINK_BUG: u16 = 659;
