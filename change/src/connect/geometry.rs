//! Pure. Debezium's transforms of geometries: `SwapGeometryCoordinates`, `GeometryFormatTransformer`.
//!
//! ```text
//! EWKB: order │ type, 0x80… = Z, 0x40… = M, 0x20… = a reference system follows │ [srid] │ counts and ordinates
//! ```
//! Both look at values named [`GEOMETRY`] alone, in whatever structure they stand. The second is to change between WKB and EWKB, and
//! does what its option does not say: an EWKB loses its reference system whatever is asked for, and what has none in it stays.
//! Source: Debezium 3.7 (`SwapGeometryCoordinates`, `GeometryFormatTransformer`, `GeometryTraverser`), recordings `conv-*`.

use super::smt::{Around, Refused, fill};
use super::{Data, Kind, Schema};
use std::collections::BTreeSet;

const GEOMETRY: &str = "io.debezium.data.geometry.Geometry";
const SRID: u32 = 0x2000_0000;
const HEIGHT: u32 = 0x8000_0000;
const MEASURE: u32 = 0x4000_0000;
/// Collections inside collections.
const DEPTH_MAX: usize = 64;

/// What is done to each geometry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Shape {
    /// The first two ordinates change places, in these reference systems.
    Swap(BTreeSet<i64>),
    /// Without its reference system.
    Plain,
}

impl Shape {
    /// All geometries of a structure.
    pub(super) fn apply(&self, schema: &Schema, values: &mut [Data], around: &Around<'_>) -> Result<(), Refused> {
        fill(schema, values, around.defaults);
        for (f, value) in schema.fields.iter().zip(values) {
            self.value(&f.schema, value, around).map_err(|why| format!("field {}: {why}", f.name))?;
        }
        Ok(())
    }

    fn value(&self, schema: &Schema, value: &mut Data, around: &Around<'_>) -> Result<(), Refused> {
        match value {
            Data::Struct(parts) if schema.kind == Kind::Struct && schema.is_named(GEOMETRY) => {
                self.geometry(schema, parts)
            }
            Data::Struct(parts) => self.apply(schema, parts, around),
            // The other transform does not look into lists.
            Data::List(items) if matches!(self, Shape::Swap(_)) => match &schema.items {
                Some(of) => items.iter_mut().try_for_each(|item| self.value(of, item, around)),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn geometry(&self, schema: &Schema, parts: &mut [Data]) -> Result<(), Refused> {
        let place = |name| schema.place(name);
        let srid = place("srid").and_then(|at| parts.get(at));
        let srid = if let Some(Data::Int(srid)) = srid { Some(*srid) } else { None };
        let Some(Data::Bytes(bytes)) = place("wkb").and_then(|at| parts.get_mut(at)) else { return Ok(()) };
        match (self, srid) {
            (Shape::Swap(those), Some(srid)) if those.contains(&srid) => {
                *bytes = swapped(bytes).ok_or("its coordinates are of no form that is known here")?;
            }
            (Shape::Swap(_), _) => {}
            (Shape::Plain, _) => {
                if let Some(plain) = plain(bytes) {
                    *bytes = plain;
                }
            }
        }
        Ok(())
    }
}

/// Reads integers of the order that the first byte says.
struct Reader<'a> {
    rest: &'a [u8],
    is_little: bool,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*front)
    }
    fn number(&mut self) -> Option<u32> {
        let bytes = self.take()?;
        Some(if self.is_little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }
}

/// None = it is no EWKB with a reference system.
fn plain(bytes: &[u8]) -> Option<Vec<u8>> {
    let is_little = *bytes.first()? == 1;
    let mut reader = Reader { rest: bytes.get(1..)?, is_little };
    let kind = reader.number().filter(|kind| kind & SRID != 0)? & !SRID;
    reader.number()?;
    let mut out = vec![bytes[0]];
    out.extend_from_slice(&if is_little { kind.to_le_bytes() } else { kind.to_be_bytes() });
    out.extend_from_slice(reader.rest);
    Some(out)
}

/// None = it is no geometry of points, lines and areas. What stands behind it is left out, as there.
fn swapped(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = bytes.to_vec();
    let mut reader = Reader { rest: bytes.get(1..)?, is_little: *bytes.first()? == 1 };
    whole(&mut reader, bytes.len(), &mut out, 0)?;
    out.truncate(bytes.len() - reader.rest.len());
    Some(out)
}

/// A geometry behind its order: `all` = how long the bytes are in which it stands.
fn whole(from: &mut Reader<'_>, all: usize, out: &mut [u8], depth: usize) -> Option<()> {
    let kind = from.number().filter(|_| depth < DEPTH_MAX)?;
    let ordinates = 2 + usize::from(kind & HEIGHT != 0) + usize::from(kind & MEASURE != 0);
    if kind & SRID != 0 {
        from.number()?;
    }
    let mut points = |from: &mut Reader<'_>, count: u32| {
        for _ in 0..count {
            let at = all - from.rest.len();
            let point = out.get_mut(at..at + 16)?;
            for _ in 0..ordinates {
                from.take::<8>()?;
            }
            point.rotate_left(8);
        }
        Some(())
    };
    // A part of a collection of one kind has its own order and kind, and as many ordinates.
    let part = |from: &mut Reader<'_>| {
        from.is_little = from.take::<1>()? == [1];
        from.number()
    };
    let is_little = from.is_little;
    match kind & 0xff {
        1 => points(from, 1)?,
        2 => {
            let count = from.number()?;
            points(from, count)?;
        }
        3 => {
            for _ in 0..from.number()? {
                let count = from.number()?;
                points(from, count)?;
            }
        }
        of @ 4..=6 => {
            for _ in 0..from.number()? {
                part(from)?;
                let rings = if of == 6 { from.number()? } else { 1 };
                for _ in 0..rings {
                    let count = if of == 4 { 1 } else { from.number()? };
                    points(from, count)?;
                }
                from.is_little = is_little;
            }
        }
        7 => {
            for _ in 0..from.number()? {
                from.is_little = from.take::<1>()? == [1];
                whole(from, all, out, depth + 1)?;
                from.is_little = is_little;
            }
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn point(kind: u32, srid: Option<u32>, ordinates: &[f64]) -> Vec<u8> {
        let mut out = vec![1];
        out.extend((kind | if srid.is_some() { SRID } else { 0 }).to_le_bytes());
        out.extend(srid.into_iter().flat_map(u32::to_le_bytes));
        out.extend(ordinates.iter().flat_map(|o| o.to_le_bytes()));
        out
    }

    #[test]
    fn a_reference_system_is_taken_away_and_ordinates_change_places() {
        assert_eq!(plain(&point(1, Some(4326), &[1.0, 2.0])), Some(point(1, None, &[1.0, 2.0])));
        assert_eq!(plain(&point(1, None, &[1.0, 2.0])), None);
        let of = point(1 | HEIGHT, Some(4326), &[1.0, 2.0, 3.0]);
        assert_eq!(swapped(&of), Some(point(1 | HEIGHT, Some(4326), &[2.0, 1.0, 3.0])));
        let mut more = of.clone();
        more.push(7);
        assert_eq!(swapped(&more).map(|b| b.len()), Some(of.len()), "what stands behind is left out");
        let collection = |inner: &[Vec<u8>]| {
            let mut out = point(7, Some(4326), &[]);
            out.extend((inner.len() as u32).to_le_bytes());
            out.extend(inner.concat());
            out
        };
        let inner = [point(1, None, &[1.0, 2.0]), collection(&[point(1, None, &[3.0, 4.0])])];
        let turned = [point(1, None, &[2.0, 1.0]), collection(&[point(1, None, &[4.0, 3.0])])];
        assert_eq!(swapped(&collection(&inner)), Some(collection(&turned)));
    }

    #[test]
    fn what_is_no_geometry_is_not_swapped() {
        let deep = (0..DEPTH_MAX + 2).fold(point(1, None, &[1.0, 2.0]), |inner, _| {
            let mut out = point(7, None, &[]);
            out.extend(1u32.to_le_bytes());
            out.extend(inner);
            out
        });
        let mut many = point(2, None, &[]);
        many.extend(u32::MAX.to_le_bytes());
        for odd in [vec![], vec![1], point(8, Some(1), &[1.0]), point(1, Some(1), &[1.0]), many, deep] {
            assert_eq!(swapped(&odd), None, "{odd:?}");
        }
        for odd in [&[][..], &[1], &[1, 1, 0, 0, 0x20, 1]] {
            assert_eq!(plain(odd), None);
        }
    }
}
