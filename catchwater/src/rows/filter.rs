//! Pure. Conditions on rows, as `tap --where` takes them: `status = 'paid' and (total > 10 or note is null)`.
//!
//! ```text
//!  or    := and ("or" and)*          not  := "not" not | "(" or ")" | test
//!  and   := not ("and" not)*         test := COLUMN ("is" ["not"] "null" | OP literal | ["not"] "like" 'TEXT')
//!  OP    := = <> != < <= > >=        literal := number | 'text' | true | false
//! ```
//! Columns: `a_b1` or `"Any name"`. Comparisons with NULL, or with a value that was not sent, are not true, nor is their `not`
//! (SQL's three values).

use super::text;
use catchwater_change::{Cell, Decimal, Row, TableSchema, Value};
use std::cmp::Ordering;

/// Deepest nesting of parentheses and `not`.
const DEPTH_MAX: usize = 64;

#[derive(Clone, PartialEq, Debug)]
pub enum Filter {
    Or(Vec<Filter>),
    And(Vec<Filter>),
    Not(Box<Filter>),
    IsNull(String, bool),
    Compare(String, Op, Literal),
    Like(String, String),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Literal {
    Number(String),
    Text(String),
    Bool(bool),
}

/// What is wrong, and after how many characters.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("column {}: {what}", at + 1)]
pub struct FilterError {
    pub at: usize,
    pub what: String,
}

#[derive(Clone, PartialEq, Debug)]
enum Token {
    Word(String),
    Name(String),
    Text(String),
    Number(String),
    Sign(&'static str),
}

fn tokens(source: &str) -> Result<Vec<(usize, Token)>, FilterError> {
    let chars: Vec<char> = source.chars().collect();
    let mut out = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        let (at, c) = (i, chars[i]);
        let fail = |what: String| FilterError { at, what };
        match c {
            c if c.is_whitespace() => i += 1,
            '\'' | '"' => {
                let mut inner = String::new();
                i += 1;
                loop {
                    match chars.get(i) {
                        None => return Err(fail(format!("{c} without its end"))),
                        Some(x) if *x == c && chars.get(i + 1) == Some(&c) => {
                            inner.push(c);
                            i += 2;
                        }
                        Some(x) if *x == c => break,
                        Some(x) => {
                            inner.push(*x);
                            i += 1;
                        }
                    }
                }
                i += 1;
                out.push((at, if c == '\'' { Token::Text(inner) } else { Token::Name(inner) }));
            }
            c if c.is_ascii_digit()
                || (matches!(c, '-' | '+' | '.') && chars.get(i + 1).is_some_and(char::is_ascii_digit)) =>
            {
                let mut number = String::from(c);
                i += 1;
                while let Some(x) = chars.get(i).filter(|x| {
                    x.is_ascii_alphanumeric() || **x == '.' || (matches!(x, '-' | '+') && number.ends_with(['e', 'E']))
                }) {
                    number.push(*x);
                    i += 1;
                }
                Decimal::parse(&number).map_err(|_| fail(format!("`{number}` is no number")))?;
                out.push((at, Token::Number(number)));
            }
            c if c.is_alphabetic() || c == '_' => {
                let mut word = String::new();
                while let Some(x) = chars.get(i).filter(|x| x.is_alphanumeric() || matches!(x, '_' | '$')) {
                    word.push(*x);
                    i += 1;
                }
                out.push((at, Token::Word(word)));
            }
            _ => {
                let two: String = chars[i..chars.len().min(i + 2)].iter().collect();
                let sign = ["<=", ">=", "<>", "!=", "=", "<", ">", "(", ")"].into_iter().find(|s| two.starts_with(s));
                let sign = sign.ok_or_else(|| fail(format!("`{c}` has no meaning here")))?;
                i += sign.len();
                out.push((at, Token::Sign(sign)));
            }
        }
    }
    Ok(out)
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    end: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, t)| t)
    }
    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |(at, _)| *at)
    }
    fn fail<T>(&self, what: impl Into<String>) -> Result<T, FilterError> {
        Err(FilterError { at: self.at(), what: what.into() })
    }
    fn word(&mut self, wanted: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(w)) if w.eq_ignore_ascii_case(wanted));
        self.next += usize::from(found);
        found
    }
    fn sign(&mut self, wanted: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Sign(s)) if *s == wanted);
        self.next += usize::from(found);
        found
    }

    fn any(&mut self) -> Result<Filter, FilterError> {
        let mut of = vec![self.all()?];
        while self.word("or") {
            of.push(self.all()?);
        }
        Ok(if of.len() == 1 { of.remove(0) } else { Filter::Or(of) })
    }

    fn all(&mut self) -> Result<Filter, FilterError> {
        let mut of = vec![self.one()?];
        while self.word("and") {
            of.push(self.one()?);
        }
        Ok(if of.len() == 1 { of.remove(0) } else { Filter::And(of) })
    }

    fn one(&mut self) -> Result<Filter, FilterError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.fail(format!("more than {DEPTH_MAX} levels"));
        }
        let found = if self.word("not") {
            Filter::Not(Box::new(self.one()?))
        } else if self.sign("(") {
            let inner = self.any()?;
            if !self.sign(")") {
                return self.fail("`)` is missing");
            }
            inner
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(found)
    }

    fn test(&mut self) -> Result<Filter, FilterError> {
        let column = match self.peek() {
            Some(Token::Word(w) | Token::Name(w)) => w.clone(),
            _ => return self.fail("a column is expected"),
        };
        self.next += 1;
        if self.word("is") {
            let not = self.word("not");
            if !self.word("null") {
                return self.fail("`null` is expected");
            }
            return Ok(Filter::IsNull(column, !not));
        }
        let not = self.word("not");
        if self.word("like") {
            let Some(Token::Text(pattern)) = self.peek().cloned() else { return self.fail("a 'text' is expected") };
            self.next += 1;
            let like = Filter::Like(column, pattern);
            return Ok(if not { Filter::Not(Box::new(like)) } else { like });
        }
        if not {
            return self.fail("`like` is expected");
        }
        let op = match self.peek() {
            Some(Token::Sign("=")) => Op::Eq,
            Some(Token::Sign("<>" | "!=")) => Op::Ne,
            Some(Token::Sign("<")) => Op::Lt,
            Some(Token::Sign("<=")) => Op::Le,
            Some(Token::Sign(">")) => Op::Gt,
            Some(Token::Sign(">=")) => Op::Ge,
            _ => return self.fail("one of = <> < <= > >=, `like` or `is null` is expected"),
        };
        self.next += 1;
        let literal = match self.peek().cloned() {
            Some(Token::Number(n)) => Literal::Number(n),
            Some(Token::Text(t)) => Literal::Text(t),
            Some(Token::Word(w)) if w.eq_ignore_ascii_case("true") => Literal::Bool(true),
            Some(Token::Word(w)) if w.eq_ignore_ascii_case("false") => Literal::Bool(false),
            Some(Token::Word(w)) => return self.fail(format!("a text stands in quotes: '{w}'")),
            _ => return self.fail("a number, a 'text', true or false is expected"),
        };
        self.next += 1;
        Ok(Filter::Compare(column, op, literal))
    }
}

/// Reads a condition.
pub fn parse(source: &str) -> Result<Filter, FilterError> {
    let mut parser = Parser { tokens: tokens(source)?, next: 0, end: source.chars().count(), depth: 0 };
    let filter = parser.any()?;
    match parser.peek() {
        None => Ok(filter),
        Some(_) => parser.fail("`and`, `or` or the end is expected"),
    }
}

impl Filter {
    /// The first column it names that the table does not have.
    pub fn unknown<'a>(&'a self, schema: &TableSchema) -> Option<&'a str> {
        match self {
            Filter::Or(of) | Filter::And(of) => of.iter().find_map(|f| f.unknown(schema)),
            Filter::Not(f) => f.unknown(schema),
            Filter::IsNull(c, _) | Filter::Compare(c, ..) | Filter::Like(c, _) => {
                schema.column(c).is_none().then_some(c.as_str())
            }
        }
    }

    /// `None` = neither true nor false.
    pub fn judge(&self, schema: &TableSchema, row: &Row) -> Option<bool> {
        let cell = |name: &str| schema.column(name).and_then(|(i, _)| row.cells.get(i));
        match self {
            Filter::Or(of) => {
                let all: Vec<_> = of.iter().map(|f| f.judge(schema, row)).collect();
                if all.contains(&Some(true)) {
                    Some(true)
                } else {
                    all.iter().all(|v| *v == Some(false)).then_some(false)
                }
            }
            Filter::And(of) => {
                let all: Vec<_> = of.iter().map(|f| f.judge(schema, row)).collect();
                if all.contains(&Some(false)) {
                    Some(false)
                } else {
                    all.iter().all(|v| *v == Some(true)).then_some(true)
                }
            }
            Filter::Not(f) => f.judge(schema, row).map(|v| !v),
            Filter::IsNull(c, wanted) => match cell(c)? {
                Cell::Null => Some(*wanted),
                Cell::Value(_) => Some(!wanted),
                Cell::Unavailable | Cell::Absent => None,
            },
            Filter::Compare(c, op, literal) => {
                let order = compare(cell(c)?.value()?, literal)?;
                Some(match op {
                    Op::Eq => order == Ordering::Equal,
                    Op::Ne => order != Ordering::Equal,
                    Op::Lt => order == Ordering::Less,
                    Op::Le => order != Ordering::Greater,
                    Op::Gt => order == Ordering::Greater,
                    Op::Ge => order != Ordering::Less,
                })
            }
            Filter::Like(c, pattern) => {
                let shown = text(cell(c)?.value()?);
                let (pattern, shown): (Vec<char>, Vec<char>) = (pattern.chars().collect(), shown.chars().collect());
                Some(like(&pattern, &shown))
            }
        }
    }
}

/// `%` any text, `_` one character, `\` takes the next as it is.
fn like(pattern: &[char], text: &[char]) -> bool {
    // The last `%` met, and from where it was tried: no recursion, at most pattern × text steps.
    let (mut p, mut t, mut back) = (0, 0, None::<(usize, usize)>);
    while t < text.len() {
        let step = match pattern.get(p) {
            Some('%') => {
                back = Some((p, t));
                p += 1;
                continue;
            }
            Some('_') => Some(1),
            Some('\\') => (pattern.get(p + 1) == Some(&text[t])).then_some(2),
            Some(c) => (*c == text[t]).then_some(1),
            None => None,
        };
        match (step, back) {
            (Some(n), _) => {
                p += n;
                t += 1;
            }
            (None, Some((at, from))) => {
                back = Some((at, from + 1));
                (p, t) = (at + 1, from + 1);
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|c| *c == '%')
}

/// Numbers by value, truth as truth, everything else as the text that is shown.
pub fn compare(value: &Value, literal: &Literal) -> Option<Ordering> {
    match literal {
        Literal::Bool(b) => match value {
            Value::Bool(v) => Some(v.cmp(b)),
            _ => None,
        },
        Literal::Text(t) => Some(text(value).as_str().cmp(t)),
        Literal::Number(n) => match value {
            Value::Int(_) | Value::UInt(_) | Value::Decimal(_) => exact(&text(value), n).or_else(|| float(value, n)),
            Value::Float32(_) | Value::Float64(_) => float(value, n),
            // A number in a text column is meant as its digits.
            Value::Text(t) => Some(t.as_str().cmp(n)),
            _ => None,
        },
    }
}

fn float(value: &Value, n: &str) -> Option<Ordering> {
    text(value).parse::<f64>().ok()?.partial_cmp(&n.parse::<f64>().ok()?)
}

/// Two decimals by value, at any length.
fn exact(a: &str, b: &str) -> Option<Ordering> {
    let parts = |t: &str| {
        let plain = Decimal::parse(t).ok().filter(|d| matches!(d, Decimal::Finite { .. }))?.to_string();
        let (negative, digits) = plain.strip_prefix('-').map_or((false, plain.as_str()), |d| (true, d));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let (whole, fraction) = (whole.trim_start_matches('0').to_owned(), fraction.trim_end_matches('0').to_owned());
        let negative = negative && !(whole.is_empty() && fraction.is_empty());
        Some((negative, whole, fraction))
    };
    let ((an, aw, af), (bn, bw, bf)) = (parts(a)?, parts(b)?);
    let size = aw.len().cmp(&bw.len()).then_with(|| aw.cmp(&bw)).then_with(|| af.cmp(&bf));
    Some(match (an, bn) {
        (false, false) => size,
        (true, true) => size.reverse(),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use catchwater_change::Type;
    use catchwater_deliver::testing::table;

    #[test]
    fn conditions_are_true_false_or_neither() {
        let int = Type::Int { bits: 64, unsigned: false };
        let columns = [
            ("id", int),
            ("total", Type::Decimal { precision: 0, scale: 0 }),
            ("Name x", Type::Text { length: 0 }),
            ("note", Type::Text { length: 0 }),
            ("big", Type::Text { length: 0 }),
            ("ok", Type::Bool),
            ("f", Type::Float { bits: 64 }),
        ];
        let schema = table("public", "t", &columns, &["id"]);
        let row = Row::new(vec![
            Cell::Value(Value::Int(9_007_199_254_740_993)),
            Cell::Value(Value::Decimal(Decimal::parse("-10.50").unwrap())),
            Cell::Value(Value::Text("it's 100%".into())),
            Cell::Null,
            Cell::Unavailable,
            Cell::Value(Value::Bool(true)),
            Cell::Value(Value::Float64(0.25)),
        ]);
        for (source, want) in [
            ("id = 9007199254740993", Some(true)),
            ("id = 9007199254740992", Some(false)),
            ("total < -10.4", Some(true)),
            ("total = -10.5", Some(true)),
            ("total > -1e1", Some(false)),
            ("\"Name x\" = 'it''s 100%'", Some(true)),
            ("\"Name x\" like 'it%\\%'", Some(true)),
            ("\"Name x\" not like '%s_1%'", Some(false)),
            ("note is null", Some(true)),
            ("note = 'x'", None),
            ("not note = 'x'", None),
            ("note = 'x' or id > 1", Some(true)),
            ("note = 'x' and id > 1", None),
            ("note = 'x' and id < 1", Some(false)),
            ("big is null", None),
            ("big = 'x'", None),
            ("ok = true AND NOT (f >= 0.5)", Some(true)),
            ("f <> .25", Some(false)),
        ] {
            let filter = parse(source).unwrap_or_else(|e| panic!("{source}: {e}"));
            assert_eq!(filter.judge(&schema, &row), want, "{source}");
            assert_eq!(filter.unknown(&schema), None, "{source}");
        }
        assert_eq!(parse("id = 1 and idd = 2").unwrap().unknown(&schema), Some("idd"));
    }

    #[test]
    fn what_is_wrong_has_a_place() {
        for (source, at, word) in [
            ("", 0, "column"),
            ("id", 2, "expected"),
            ("id =", 4, "number"),
            ("id = paid", 5, "'paid'"),
            ("id = 1 2", 7, "end"),
            ("(id = 1", 7, ")"),
            ("id = 'x", 5, "end"),
            ("id ~ 1", 3, "meaning"),
            ("id = 1x", 5, "number"),
            ("id is 5", 6, "null"),
        ] {
            let e = parse(source).err().unwrap_or_else(|| panic!("{source} is taken"));
            assert_eq!(e.at, at, "{source}: {e}");
            assert!(e.what.contains(word), "{source}: {e}");
        }
        assert!(parse(&"(".repeat(100_000)).is_err() && parse(&"not ".repeat(100_000)).is_err());
    }

    #[test]
    fn like_takes_no_exponential_time() {
        let pattern: Vec<char> = "%a".repeat(200).chars().collect();
        let text: Vec<char> = "a".repeat(4000).chars().chain("b".chars()).collect();
        assert!(!like(&pattern, &text));
    }
}
