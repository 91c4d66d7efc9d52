//! Pure. PostgreSQL's geometric types as Debezium 3.7 writes them: structs with well-known binary, little endian.

use crate::json;

/// Writes `text` as the struct of the geometric type `native`; false (and nothing written) if it is none or does not
/// parse.
pub fn put(out: &mut Vec<u8>, native: &str, text: &str) -> bool {
    match native {
        "point" => point(out, text),
        "line" => line(out, text),
        "lseg" => shape(out, text, "lseg", None, |p| (p.len() == 2).then(|| wkb(2, false, p))),
        "box" => shape(out, text, "box", None, |p| {
            let [(x1, y1), (x0, y0)] = *p else { return None };
            // The ring that Debezium walks: from the upper right corner, clockwise.
            Some(wkb(3, true, &[(x1, y1), (x1, y0), (x0, y0), (x0, y1), (x1, y1)]))
        }),
        "path" => shape(out, text, "path", Some(text.starts_with('(')), |p| Some(wkb(2, false, p))),
        "polygon" => shape(out, text, "polygon", None, |p| {
            let mut ring = p.to_vec();
            if p.len() > 1 {
                ring.push(p[0]);
            }
            Some(wkb(3, true, &ring))
        }),
        "circle" => circle(out, text),
        _ => return false,
    }
    .is_some()
}

type Point = (f64, f64);

/// All numbers of a text like `((0,0),(1,1))`, in pairs.
fn points(text: &str) -> Option<Vec<Point>> {
    let numbers = numbers(text)?;
    if numbers.is_empty() || !numbers.len().is_multiple_of(2) {
        return None;
    }
    Some(numbers.chunks_exact(2).map(|p| (p[0], p[1])).collect())
}

fn numbers(text: &str) -> Option<Vec<f64>> {
    text.split(['(', ')', '[', ']', '{', '}', '<', '>', ','])
        .filter(|t| !t.is_empty())
        .map(|t| t.parse::<f64>().ok())
        .collect()
}

fn wkb(kind: u32, rings: bool, points: &[Point]) -> Vec<u8> {
    let mut out = vec![1];
    out.extend_from_slice(&kind.to_le_bytes());
    if rings {
        out.extend_from_slice(&1u32.to_le_bytes());
    }
    if kind != 1 {
        out.extend_from_slice(&(points.len() as u32).to_le_bytes());
    }
    for (x, y) in points {
        out.extend_from_slice(&x.to_le_bytes());
        out.extend_from_slice(&y.to_le_bytes());
    }
    out
}

fn put_point(out: &mut Vec<u8>, (x, y): Point) {
    out.extend_from_slice(b"{\"x\":");
    json::put_f64(out, x);
    out.extend_from_slice(b",\"y\":");
    json::put_f64(out, y);
    out.extend_from_slice(b",\"wkb\":");
    json::put_base64(out, &wkb(1, false, &[(x, y)]));
    out.extend_from_slice(b",\"srid\":null}");
}

fn point(out: &mut Vec<u8>, text: &str) -> Option<()> {
    let [p] = points(text)?[..] else { return None };
    put_point(out, p);
    Some(())
}

fn line(out: &mut Vec<u8>, text: &str) -> Option<()> {
    let [a, b, c] = numbers(text)?[..] else { return None };
    for (name, v) in [("{\"a\":", a), (",\"b\":", b), (",\"c\":", c)] {
        out.extend_from_slice(name.as_bytes());
        json::put_f64(out, v);
    }
    out.push(b'}');
    Some(())
}

fn circle(out: &mut Vec<u8>, text: &str) -> Option<()> {
    let [x, y, r] = numbers(text)?[..] else { return None };
    out.extend_from_slice(b"{\"center\":");
    put_point(out, (x, y));
    out.extend_from_slice(b",\"radius\":");
    json::put_f64(out, r);
    out.push(b'}');
    Some(())
}

fn shape(
    out: &mut Vec<u8>,
    text: &str,
    kind: &str,
    closed: Option<bool>,
    wkb: impl Fn(&[Point]) -> Option<Vec<u8>>,
) -> Option<()> {
    let bytes = wkb(&points(text)?)?;
    out.extend_from_slice(b"{\"wkb\":");
    json::put_base64(out, &bytes);
    out.extend_from_slice(b",\"srid\":null,\"extensions\":{\"type\":");
    json::put_string(out, kind);
    if let Some(closed) = closed {
        out.extend_from_slice(b",\"closed\":");
        json::put_string(out, if closed { "true" } else { "false" });
    }
    out.extend_from_slice(b"}}");
    Some(())
}
