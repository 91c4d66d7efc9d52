//! Pure. `tsquery`: the bytes of its operators and operands, each operator before its right and then its left side, → the
//! text that the server prints. Source: PostgreSQL 15, `src/backend/utils/adt/tsquery.c`.

use super::binary::BinaryError;
use bytes::{Buf, Bytes};

/// Deeper ones are not taken: each level is a call.
const DEPTH_MAX: u32 = 400;
const OPERAND: u8 = 1;
const NOT: u8 = 1;
const AND: u8 = 2;
const OR: u8 = 3;
const PHRASE: u8 = 4;
/// Below the weakest operator.
const NONE: u8 = 0;

/// How strongly an operator binds.
fn strength(operator: u8) -> u8 {
    match operator {
        NOT => 4,
        PHRASE => 3,
        AND => 2,
        _ => 1,
    }
}

pub fn text(b: &mut Bytes) -> Result<String, BinaryError> {
    if b.len() < 4 {
        return Err(BinaryError::Foreign);
    }
    match b.get_u32() {
        0 => Ok(String::new()),
        _ => part(b, NONE, false, 0),
    }
}

fn byte(b: &mut Bytes) -> Result<u8, BinaryError> {
    if b.is_empty() { Err(BinaryError::Foreign) } else { Ok(b.get_u8()) }
}

/// `within` = how strongly what is around it binds; `behind_phrase` = it is the right side of `<->`.
fn part(b: &mut Bytes, within: u8, behind_phrase: bool, depth: u32) -> Result<String, BinaryError> {
    if depth > DEPTH_MAX {
        return Err(BinaryError::Foreign);
    }
    if byte(b)? == OPERAND {
        return operand(b);
    }
    let operator = byte(b)?;
    let own = strength(operator);
    let (inner, braces) = match operator {
        NOT => (format!("!{}", part(b, own, false, depth + 1)?), own < within),
        AND | OR | PHRASE => {
            let sign = match operator {
                AND => "&".to_owned(),
                OR => "|".to_owned(),
                _ if b.len() < 2 => return Err(BinaryError::Foreign),
                _ => match b.get_u16() {
                    1 => "<->".to_owned(),
                    distance => format!("<{distance}>"),
                },
            };
            let right = part(b, own, operator == PHRASE, depth + 1)?;
            let left = part(b, own, false, depth + 1)?;
            (format!("{left} {sign} {right}"), own < within || operator == PHRASE && behind_phrase)
        }
        _ => return Err(BinaryError::Foreign),
    };
    Ok(if braces { format!("( {inner} )") } else { inner })
}

fn operand(b: &mut Bytes) -> Result<String, BinaryError> {
    let (weight, prefix) = (byte(b)?, byte(b)? != 0);
    let end = b.iter().position(|c| *c == 0).ok_or(BinaryError::Foreign)?;
    let word = b.split_to(end);
    b.advance(1);
    let word = std::str::from_utf8(&word).map_err(|_| BinaryError::NotUtf8)?;
    let mut out = format!("'{}'", word.replace('\\', "\\\\").replace('\'', "''"));
    if weight != 0 || prefix {
        out.push(':');
    }
    if prefix {
        out.push('*');
    }
    out.extend([(8, 'A'), (4, 'B'), (2, 'C'), (1, 'D')].iter().filter(|(bit, _)| weight & bit != 0).map(|(_, c)| c));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in prop::collection::vec(0u8..5, 0..400)) {
            let _ = text(&mut Bytes::from(bytes));
        }
    }
}
