//! Pure. `schema.name.adjustment.mode` and `field.name.adjustment.mode`: names made legal for Avro, whatever the format.
//!
//! | mode | first character | others | the rest becomes |
//! |---|---|---|---|
//! | `avro` | letter, `_` | and digits | `_`; before a first digit, which stays, too |
//! | `avro_unicode` | letter | and digits | `_u` and its hex digits, `00` before two or fewer; `_` itself, too |
//!
//! A schema's name may have dots behind its first character, a field's may not. Characters are UTF-16's: one beyond the
//! first plane is two. Source: Debezium 3.7, `SchemaNameAdjuster`, `UnicodeReplacementFunction` and its kin; recordings
//! `records-names-avro`, `names`.

use std::borrow::Cow;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum NameMode {
    #[default]
    None,
    Avro,
    AvroUnicode,
}

impl NameMode {
    /// A schema's full name.
    pub fn schema(self, name: &str) -> Cow<'_, str> {
        self.adjusted(name, true)
    }

    /// A field's name.
    pub fn field(self, name: &str) -> Cow<'_, str> {
        self.adjusted(name, false)
    }

    fn adjusted(self, name: &str, dots: bool) -> Cow<'_, str> {
        if self == NameMode::None {
            return name.into();
        }
        let legal = |at: usize, unit: u16| match u8::try_from(unit).unwrap_or(0) {
            b'a'..=b'z' | b'A'..=b'Z' => true,
            b'_' => self == NameMode::Avro,
            b'0'..=b'9' => at > 0,
            b'.' => at > 0 && dots,
            _ => false,
        };
        if name.encode_utf16().enumerate().all(|(at, unit)| legal(at, unit)) {
            return name.into();
        }
        let mut out = String::with_capacity(name.len() + 8);
        for (at, unit) in name.encode_utf16().enumerate() {
            let plain = u8::try_from(unit).ok().filter(u8::is_ascii).map(char::from);
            match (self, plain) {
                (_, Some(c)) if legal(at, unit) => out.push(c),
                // Else two columns that differ in their first digit alone would meet.
                (NameMode::Avro, Some(c)) if at == 0 && c.is_ascii_digit() => out.extend(['_', c]),
                (NameMode::AvroUnicode, _) if unit <= 0xff => out.push_str(&format!("_u00{unit:x}")),
                (NameMode::AvroUnicode, _) => out.push_str(&format!("_u{unit:x}")),
                _ => out.push('_'),
            }
        }
        out.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_legal_as_debezium_makes_them() {
        use NameMode::*;
        for (mode, given, schema, field) in [
            (None, "1st col.ü", "1st col.ü", "1st col.ü"),
            (Avro, "pg.public.T-able.Key", "pg.public.T_able.Key", "pg_public_T_able_Key"),
            (Avro, "1st col", "_1st_col", "_1st_col"),
            (Avro, ".a", "_a", "_a"),
            (Avro, "ü-x", "__x", "__x"),
            (Avro, "_ok9", "_ok9", "_ok9"),
            (Avro, "a😀", "a__", "a__"),
            (Avro, "", "", ""),
            (AvroUnicode, "1st col", "_u0031st_u0020col", "_u0031st_u0020col"),
            (AvroUnicode, "a_b.c", "a_u005fb.c", "a_u005fb_u002ec"),
            (AvroUnicode, "_ok", "_u005fok", "_u005fok"),
            (AvroUnicode, "a\tō中😀", "a_u009_u14d_u4e2d_ud83d_ude00", "a_u009_u14d_u4e2d_ud83d_ude00"),
        ] {
            assert_eq!(mode.schema(given), schema, "{mode:?} {given}");
            assert_eq!(mode.field(given), field, "{mode:?} {given}");
        }
    }
}
