//! Pure. References in values: `${env:NAME}`, `${file:PATH}`, and `${secret:connect/…}` for what the Connect face keeps
//! apart; `$${` is a literal `${`. Resolved at start, stored never.

/// Where a reference points.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reference<'a> {
    Env(&'a str),
    File(&'a str),
    /// Of the node's own store: `connect/NAME/PROPERTY`.
    Secret(&'a str),
}

/// Could it be a place in the store? Words of letters, digits, `.`, `_`, `-`, none of them `.` or `..`.
pub fn is_secret_path(path: &str) -> bool {
    let word = |w: &str| {
        !w.is_empty()
            && !w.starts_with('.')
            && w.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    path.split('/').count() == 3 && path.starts_with("connect/") && path.split('/').all(word)
}

enum Part<'a> {
    Text(&'a str),
    Literal,
    Reference(&'a str),
    Open,
}

fn parts(text: &str) -> Vec<Part<'_>> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push(Part::Text(&rest[..at - 1]));
            out.push(Part::Literal);
            rest = &rest[at + 2..];
            continue;
        }
        out.push(Part::Text(&rest[..at]));
        match rest[at..].find('}') {
            Some(end) => {
                out.push(Part::Reference(&rest[at + 2..at + end]));
                rest = &rest[at + end + 1..];
            }
            None => {
                out.push(Part::Open);
                return out;
            }
        }
    }
    out.push(Part::Text(rest));
    out
}

fn reference(inner: &str) -> Result<Reference<'_>, String> {
    match inner.split_once(':') {
        Some(("env", name)) if !name.is_empty() => Ok(Reference::Env(name)),
        Some(("file", path)) if !path.is_empty() => Ok(Reference::File(path)),
        Some(("secret", path)) if is_secret_path(path) => Ok(Reference::Secret(path)),
        Some(("secret" | "vault", _)) => {
            Err(format!("`${{{inner}}}`: this version reads ${{env:NAME}} and ${{file:PATH}} only"))
        }
        _ => Err(format!("`${{{inner}}}`: a reference is ${{env:NAME}} or ${{file:PATH}}; $${{ is a literal")),
    }
}

/// What is wrong with the references of a text.
pub fn problems(text: &str) -> Vec<String> {
    parts(text)
        .into_iter()
        .filter_map(|p| match p {
            Part::Reference(inner) => reference(inner).err(),
            Part::Open => Some("`${` without `}`".to_owned()),
            _ => None,
        })
        .collect()
}

pub fn has_reference(text: &str) -> bool {
    parts(text).iter().any(|p| matches!(p, Part::Reference(_)))
}

/// A URL with a password that is no reference.
pub fn plain_password(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let in_user = authority
        .rsplit_once('@')
        .and_then(|(user, _)| user.split_once(':'))
        .is_some_and(|(_, password)| !password.is_empty() && !password.contains("${"));
    let in_query = url.split_once('?').is_some_and(|(_, q)| {
        q.split('&').any(|p| p.strip_prefix("password=").is_some_and(|v| !v.is_empty() && !v.contains("${")))
    });
    in_user || in_query
}

/// The text with every reference replaced. The error names the reference, never a value.
pub fn resolve(text: &str, read: &mut dyn FnMut(Reference<'_>) -> Result<String, String>) -> Result<String, String> {
    let mut out = String::new();
    for p in parts(text) {
        match p {
            Part::Text(t) => out.push_str(t),
            Part::Literal => out.push_str("${"),
            Part::Reference(inner) => out.push_str(&read(reference(inner)?)?),
            Part::Open => return Err("`${` without `}`".into()),
        }
    }
    Ok(out)
}

/// As [`resolve`], of a URL: a reference that stands in its login may hold a password as it is, with `/`, `?` or `#` in it, or
/// with those percent-encoded.
pub fn resolve_url(
    text: &str,
    read: &mut dyn FnMut(Reference<'_>) -> Result<String, String>,
) -> Result<String, String> {
    const HERE: char = '\u{1}';
    let template: String = parts(text)
        .iter()
        .map(|p| match p {
            Part::Text(t) => (*t).to_owned(),
            Part::Reference(_) => HERE.to_string(),
            Part::Literal | Part::Open => String::new(),
        })
        .collect();
    let count = |t: &str| t.chars().filter(|c| *c == HERE).count();
    let login = template.split_once("://").and_then(|(scheme, rest)| {
        let authority = rest.split(['/', '?']).next()?;
        let (login, _) = authority.rsplit_once('@')?;
        Some(count(scheme)..count(scheme) + count(login))
    });
    let mut at = 0;
    resolve(text, &mut |r| {
        let in_login = login.as_ref().is_some_and(|l| l.contains(&at));
        at += 1;
        let value = read(r)?;
        Ok(if in_login { login_part(&value) } else { value })
    })
}

/// Percent-encodes what would end a login. Sequences of it that are there stay.
fn login_part(text: &str) -> String {
    let mut out = String::new();
    for (i, c) in text.char_indices() {
        let is_sequence = || text.as_bytes().get(i + 1..i + 3).is_some_and(|b| b.iter().all(u8::is_ascii_hexdigit));
        match c {
            '%' if !is_sequence() => out.push_str("%25"),
            '/' | '?' | '#' | '@' | '[' | ']' | ' ' => out.push_str(&format!("%{:02X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_resolve_and_literals_stay() {
        let mut read = |r: Reference<'_>| match r {
            Reference::Env("PW") => Ok("p@ss".to_owned()),
            other => Err(format!("{other:?} is not set")),
        };
        assert_eq!(resolve("a${env:PW}b$${env:PW}", &mut read).as_deref(), Ok("ap@ssb${env:PW}"));
        assert!(resolve("${env:NO}", &mut read).is_err());
        assert!(resolve("${env:PW", &mut read).is_err());
        assert_eq!(problems("${x}").len(), 1);
        assert_eq!(problems("${secret:a}").len(), 1);
    }

    #[test]
    fn a_password_behind_a_reference_may_be_as_it_is() {
        let mut read = |r: Reference<'_>| match r {
            Reference::Env("PW") => Ok("a/b?c@d#e:f%g%41".to_owned()),
            Reference::File("/run/host") => Ok("h:1/x".to_owned()),
            Reference::Env("URL") => Ok("postgres://u:p%2Fq@h/db?sslmode=disable".to_owned()),
            other => Err(format!("{other:?} is not set")),
        };
        for (text, want) in [
            ("postgres://u:${env:PW}@h:5/db", "postgres://u:a%2Fb%3Fc%40d%23e:f%25g%41@h:5/db"),
            ("postgres://u:x${env:PW}@${file:/run/host}", "postgres://u:xa%2Fb%3Fc%40d%23e:f%25g%41@h:1/x"),
            ("${env:URL}", "postgres://u:p%2Fq@h/db?sslmode=disable"),
            ("postgres://${file:/run/host}", "postgres://h:1/x"),
            ("postgres://u@h/db?password=${env:PW}", "postgres://u@h/db?password=a/b?c@d#e:f%g%41"),
        ] {
            assert_eq!(resolve_url(text, &mut read).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn plain_passwords_are_seen() {
        assert!(plain_password("postgres://u:p@h/db"));
        assert!(plain_password("postgres://u@h/db?password=x"));
        assert!(!plain_password("postgres://u@h/db"));
        assert!(!plain_password("postgres://u:${env:P}@h/db"));
        assert!(!plain_password("postgres://u@h:5432/db?sslmode=disable"));
    }
}
