//! Entity tags of an order, which are positions in its timeline: RFC 9110 section 8.8.3.

use axum::http::{HeaderMap, header};

use crate::order::{FieldCode, FieldError};

/// The positions that `If-Match` names; `None` if any will do. Weak and strong tags are the same here: an order has one
/// tag for each position.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<Vec<u32>>, FieldError> {
    let lines = headers.get_all(header::IF_MATCH);
    if lines.iter().next().is_none() || is_any(headers) {
        return Ok(None);
    }
    let mut positions = Vec::new();
    for line in lines {
        let tags = line.to_str().ok().and_then(opaque_tags).ok_or_else(no_tag)?;
        positions.extend(tags.into_iter().filter_map(position));
    }
    Ok(Some(positions))
}

fn no_tag() -> FieldError {
    let message = "must be one or more ETags of the order, such as W/\"3\", or * for any";
    FieldError::new("If-Match", FieldCode::Header, message)
}

/// Whether it is given once and is `*`.
fn is_any(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(header::IF_MATCH).iter();
    lines.next().is_some_and(|line| line.as_bytes().trim_ascii() == b"*") && lines.next().is_none()
}

/// What stands between the quotes of each tag of a list; `None` if something is no tag, or there is none at all.
fn opaque_tags(list: &str) -> Option<Vec<&str>> {
    let (mut rest, mut found) = (list, Vec::new());
    loop {
        // Empty members are skipped, as RFC 9110 section 5.6.1 wants it.
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return Some(found).filter(|found| !found.is_empty());
        }
        let (opaque, behind) = rest.strip_prefix("W/").unwrap_or(rest).strip_prefix('"')?.split_once('"')?;
        rest = behind.trim_start_matches([' ', '\t']);
        if opaque.contains([' ', '\t']) || !(rest.is_empty() || rest.starts_with(',')) {
            return None;
        }
        found.push(opaque);
    }
}

/// The position that a tag stands for; any other tag is that of something else.
fn position(opaque: &str) -> Option<u32> {
    opaque.parse().ok().filter(|position: &u32| position.to_string() == opaque)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Result<Option<Vec<u32>>, FieldError> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::IF_MATCH, line.parse().expect("a value"));
        }
        if_match(&headers)
    }

    #[test]
    fn tags_are_positions_however_strong() {
        for (lines, expected) in [
            (&[][..], None),
            (&["*"][..], None),
            (&[" * "], None),
            (&["\"3\""], Some(vec![3])),
            (&["W/\"3\""], Some(vec![3])),
            (&["W/\"3\", \"4\",W/\"5\""], Some(vec![3, 4, 5])),
            (&["\"3\"", "\"4\" ,"], Some(vec![3, 4])),
            (&[", ,\"12\""], Some(vec![12])),
            // Tags of other things are tags.
            (&["\"abc\""], Some(vec![])),
            (&["\"03\", \"\", \"3,4\", \"99999999999\""], Some(vec![])),
        ] {
            assert_eq!(read(lines), Ok(expected), "{lines:?}");
        }
    }

    #[test]
    fn what_is_no_tag_is_told() {
        for lines in [
            &["3"][..],
            &[""],
            &[","],
            &["w/\"3\""],
            &["W/3"],
            &["\"3"],
            &["\"3\"\"4\""],
            &["\"3\" x"],
            &["\"3 4\""],
            &["*, \"3\""],
            &["\"3\"", "*"],
            &["*", "*"],
            &["\"3\"", "4"],
        ] {
            let error = read(lines).expect_err("no tag");
            assert_eq!((error.field.as_str(), error.code), ("If-Match", FieldCode::Header), "{lines:?}");
        }
    }
}
