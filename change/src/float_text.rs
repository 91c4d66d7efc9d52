//! Pure. Floats as PostgreSQL prints them (`extra_float_digits` above 0): the shortest digits that lie strictly between
//! the two neighbours' half ways, plain for exponents from −4 to one below the digits that the type is sure of, else as
//! `1e+20`. Source: PostgreSQL 15, `src/common/d2s.c`, `f2s.c`; checked against servers by the connector's
//! `tests/it/binary.rs`.

/// A `float8`'s text.
pub fn of_f64(v: f64) -> String {
    if let Some(word) = word(v) {
        return word.into();
    }
    let text = format!("{v:e}");
    let text = if is_half_way(&text, 53) {
        strictly_inside(|digits| format!("{v:.digits$e}"), 53, |t| t.parse() == Ok(v))
    } else {
        to_even(text, 53, |t| t.parse() == Ok(v))
    };
    plain(&text, 15)
}

/// A `float4`'s text.
pub fn of_f32(v: f32) -> String {
    if let Some(word) = word(f64::from(v)) {
        return word.into();
    }
    let text = format!("{v:e}");
    let text = if is_half_way(&text, 24) {
        strictly_inside(|digits| format!("{v:.digits$e}"), 24, |t| t.parse() == Ok(v))
    } else {
        to_even(text, 24, |t| t.parse() == Ok(v))
    };
    plain(&text, 6)
}

fn word(v: f64) -> Option<&'static str> {
    match v {
        v if v.is_nan() => Some("NaN"),
        f64::INFINITY => Some("Infinity"),
        f64::NEG_INFINITY => Some("-Infinity"),
        _ => None,
    }
}

/// True if the decimal is exactly the middle of two neighbouring floats of so many bits: an odd number of one bit more,
/// times a power of two. Rust's shortest digits may be such a one (it rounds to the even neighbour), PostgreSQL's not.
fn is_half_way(scientific: &str, bits: u32) -> bool {
    odd_bits(scientific) == Some(bits + 1)
}

/// Bits of the odd number that the decimal is, times a power of two; `None` = it is none, or of too many digits.
fn odd_bits(scientific: &str) -> Option<u32> {
    let (mantissa, exponent) = scientific.trim_start_matches('-').split_once('e')?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    // Times ten to the power of this; the twos in it do not matter.
    let tens = exponent.parse::<i32>().ok()? - fraction.len() as i32;
    if digits == 0 || tens.unsigned_abs() > 27 {
        return None;
    }
    let fives = 5u128.pow(tens.unsigned_abs());
    if tens >= 0 {
        digits = digits.checked_mul(fives)?;
    } else if digits.is_multiple_of(fives) {
        digits /= fives;
    } else {
        return None;
    }
    Some(128 - (digits >> digits.trailing_zeros()).leading_zeros())
}

/// Of two decimals that are equally near PostgreSQL takes the one with an even last digit, Rust the larger one.
fn to_even(scientific: String, bits: u32, is_it: impl Fn(&str) -> bool) -> String {
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let (sign, plain) = mantissa.strip_prefix('-').map_or(("", mantissa), |m| ("-", m));
    let (Ok(digits), Ok(exponent)) = (plain.replace('.', "").parse::<u64>(), exponent.parse::<i32>()) else {
        return scientific;
    };
    if digits.is_multiple_of(2) {
        return scientific;
    }
    let write = |digits: u64, exponent: i32| {
        let text = digits.to_string();
        let point = if text.len() > 1 { "." } else { "" };
        format!("{sign}{}{point}{}e{exponent}", &text[..1], &text[1..])
    };
    let between = write(digits * 10 - 5, exponent);
    let lower = write(digits - 1, exponent);
    let is_exact = odd_bits(&between).is_some_and(|b| b <= bits) && is_it(&between);
    if is_exact && digits > 9 && is_it(&lower) { lower } else { scientific }
}

/// The fewest digits that are the float and no half way: for each number of them the nearest decimal, and the two beside it.
fn strictly_inside(print: impl Fn(usize) -> String, bits: u32, is_it: impl Fn(&str) -> bool) -> String {
    let fits = |text: &String| is_it(text) && !is_half_way(text, bits);
    for digits in 0..17 {
        let nearest = print(digits);
        if let Some(text) = beside(&nearest).into_iter().find(fits) {
            return text;
        }
    }
    print(17)
}

/// The decimal itself, and the next ones with as many digits.
fn beside(scientific: &str) -> Vec<String> {
    let mut out = vec![scientific.to_owned()];
    let (sign, plain) = scientific.strip_prefix('-').map_or(("", scientific), |p| ("-", p));
    let Some((mantissa, exponent)) = plain.split_once('e') else { return out };
    let (Ok(all), Ok(exponent)) = (mantissa.replace('.', "").parse::<u64>(), exponent.parse::<i32>()) else {
        return out;
    };
    let mut write = |digits: u64, exponent: i32| {
        let text = digits.to_string();
        let point = if text.len() > 1 { "." } else { "" };
        out.push(format!("{sign}{}{point}{}e{exponent}", &text[..1], &text[1..]));
    };
    // Below a power of ten there is one digit more.
    if mantissa.trim_end_matches(['0', '.']) == "1" {
        write(all * 10 - 1, exponent - 1)
    } else {
        write(all - 1, exponent)
    }
    if all.to_string().len() == (all + 1).to_string().len() {
        write(all + 1, exponent);
    }
    out
}

/// `-1.5e3` as `-1500`, or as `-1.5e+03`.
fn plain(scientific: &str, sure: i32) -> String {
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific.into() };
    let Ok(exponent) = exponent.parse::<i32>() else { return scientific.into() };
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |m| ("-", m));
    if !(-4..sure).contains(&exponent) {
        let sign_of = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{mantissa}e{sign_of}{:02}", exponent.abs());
    }
    let digits = mantissa.replace('.', "");
    if exponent < 0 {
        return format!("{sign}0.{}{digits}", "0".repeat((-exponent - 1) as usize));
    }
    let wholes = exponent as usize + 1;
    if digits.len() <= wholes {
        return format!("{sign}{digits:0<wholes$}");
    }
    format!("{sign}{}.{}", &digits[..wholes], &digits[wholes..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_as_the_server_prints_them() {
        // Source: psql, PostgreSQL 15.18.
        for (v, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.5, "1.5"),
            (-1500.0, "-1500"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (123456789012345.0, "123456789012345"),
            (1e15, "1e+15"),
            (1e23, "9.999999999999999e+22"),
            (5e-324, "5e-324"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(of_f64(v), text);
        }
        for (v, text) in [
            (0.1f32, "0.1"),
            (1e5, "100000"),
            (1e6, "1e+06"),
            (16_777_216.0, "1.6777216e+07"),
            (9_279_005.0 / 4.0, "2.3197512e+06"),
            (3.4028235e38, "3.4028235e+38"),
            (1e-45, "1e-45"),
        ] {
            assert_eq!(of_f32(v), text);
        }
    }
}
