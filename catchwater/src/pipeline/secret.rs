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
    fn plain_passwords_are_seen() {
        assert!(plain_password("postgres://u:p@h/db"));
        assert!(plain_password("postgres://u@h/db?password=x"));
        assert!(!plain_password("postgres://u@h/db"));
        assert!(!plain_password("postgres://u:${env:P}@h/db"));
        assert!(!plain_password("postgres://u@h:5432/db?sslmode=disable"));
    }
}
