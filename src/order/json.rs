//! JSON as it comes from outside: with or without a byte order mark, and sometimes in another encoding.

use serde::de::{DeserializeOwned, Error as _};
use serde_json::Error;

/// Windows tools write it before UTF-8; RFC 8259 lets a reader skip it.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads JSON in UTF-8; the error says where it stops being that.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let text = without_mark(bytes);
    serde_json::from_slice(text).map_err(|error| encoding_fault(text).map_or(error, Error::custom))
}

/// The same of an object: a derived struct would take an array of its fields too.
pub(super) fn object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    if without_mark(bytes).trim_ascii_start().first() == Some(&b'[') {
        return Err(Error::custom("invalid type: sequence, expected a JSON object"));
    }
    read(bytes)
}

/// The bytes behind a byte order mark.
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(MARK).unwrap_or(bytes)
}

/// What is said of bytes that are no JSON because they are no UTF-8 in the first place.
fn encoding_fault(bytes: &[u8]) -> Option<String> {
    // Each encoding's own mark, or the zero bytes of its first character, which is ASCII in any JSON.
    let wide = match bytes {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] | [1..=255, 0, 0, 0, ..] | [0, 0, 0, 1..=255, ..] => {
            "UTF-32"
        }
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [1..=255, 0, ..] | [0, 1..=255, ..] => "UTF-16",
        _ => {
            let at = std::str::from_utf8(bytes).err()?.valid_up_to();
            return Some(format!("must be UTF-8, and is not from byte {} on", at + 1));
        }
    };
    Some(format!("must be UTF-8, and is {wide}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_mark_is_skipped_and_other_encodings_are_named() {
        assert_eq!(read::<Value>(b"\xef\xbb\xbf {\"a\": 1}").expect("JSON"), json!({"a": 1}));
        let said = |bytes: &[u8]| read::<Value>(bytes).expect_err("no JSON in UTF-8").to_string();
        let utf16 = |write: fn(u16) -> [u8; 2], text: &str| -> Vec<u8> {
            text.encode_utf16().flat_map(write).collect()
        };
        for bytes in [
            utf16(u16::to_le_bytes, "\u{feff}{\"a\": 1}"),
            utf16(u16::to_be_bytes, "\u{feff}{\"a\": 1}"),
            utf16(u16::to_le_bytes, "{\"a\": 1}"),
            utf16(u16::to_be_bytes, "{\"a\": 1}"),
        ] {
            assert_eq!(said(&bytes), "must be UTF-8, and is UTF-16");
        }
        assert_eq!(said(b"\xff\xfe\0\0{\0\0\0"), "must be UTF-8, and is UTF-32");
        assert_eq!(said(b"{\0\0\0}\0\0\0"), "must be UTF-8, and is UTF-32");
        assert_eq!(said(b"{\"a\": \"caf\xe9\"}"), "must be UTF-8, and is not from byte 11 on");
        assert_eq!(said(b""), "EOF while parsing a value at line 1 column 0");
        assert_eq!(
            said(b"\xef\xbb\xbf\xef\xbb\xbf{}"),
            "expected value at line 1 column 1",
            "one mark is a mark"
        );
    }
}
