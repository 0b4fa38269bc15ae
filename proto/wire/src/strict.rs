//! The one strict reader, for every tier and tool.
//!
//! Two programs that read the same bytes must read the same thing, or a check in one says nothing about the other. So:
//! the size is limited before anything is parsed; keys that repeat or are unknown are refused at every depth; numbers are
//! integers below 2^53 in magnitude; there is no null and no NUL; nesting is limited; nothing trails; and what was read, written again, is the
//! same value, so that an object has no second spelling as an array of its fields.

use std::fmt;

use serde::Serialize;
use serde::de::{self, DeserializeOwned, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::limits;

/// Why bytes were not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// More bytes than this kind of object may have.
    #[error("read it: {got} bytes, at most {max} are allowed")]
    TooLong {
        /// How many bytes there were.
        got: usize,
        /// How many are allowed.
        max: usize,
    },
    /// A version that is not spoken here.
    #[error("read it: version {0}")]
    Version(u64),
    /// Not the JSON that is allowed here, or not of the shape wanted; the text says where.
    #[error("read it: {0}")]
    Malformed(String),
}

/// Reads one value of type `T`, whose own `Deserialize` must refuse unknown fields.
///
/// # Errors
/// Any [`Error`].
pub fn read<T: DeserializeOwned + Serialize>(bytes: &[u8], max: usize) -> Result<T, Error> {
    shape(value(bytes, max)?)
}

/// Reads one object with a version in `v`. Another version is told apart from a broken object, whatever else it holds.
///
/// # Errors
/// Any [`Error`].
pub fn read_versioned<T: DeserializeOwned + Serialize>(bytes: &[u8], max: usize) -> Result<T, Error> {
    let value = value(bytes, max)?;
    match value.get("v").and_then(Value::as_u64) {
        Some(version) if version != u64::from(crate::VERSION) => Err(Error::Version(version)),
        _ => shape(value),
    }
}

fn shape<T: DeserializeOwned + Serialize>(value: Value) -> Result<T, Error> {
    let malformed = |error: serde_json::Error| Error::Malformed(error.to_string());
    let read = T::deserialize(&value).map_err(malformed)?;
    // serde reads a struct from an array of its fields as well: a second spelling, at any depth.
    if serde_json::to_value(&read).map_err(malformed)? != value {
        return Err(Error::Malformed("a second spelling of the same value".to_owned()));
    }
    Ok(read)
}

/// Reads any value, with all checks but those of a shape.
///
/// # Errors
/// Any [`Error`].
pub fn value(bytes: &[u8], max: usize) -> Result<Value, Error> {
    if bytes.len() > max {
        return Err(Error::TooLong { got: bytes.len(), max });
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Checked { depth: 0 }.deserialize(&mut reader);
    value
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| Error::Malformed(error.to_string()))
}

/// Visits a value and checks it on the way.
#[derive(Clone, Copy)]
struct Checked {
    depth: usize,
}

impl Checked {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        if self.depth >= limits::DEPTH {
            return Err(E::custom(format_args!("nested deeper than {}", limits::DEPTH)));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Checked {
    type Value = Value;
    fn deserialize<D: de::Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Checked {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a string, an integer, a boolean, an array or an object")
    }

    fn visit_bool<E: de::Error>(self, bit: bool) -> Result<Value, E> {
        Ok(bit.into())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Value, E> {
        if number.unsigned_abs() < limits::INTEGER.unsigned_abs() {
            Ok(number.into())
        } else {
            Err(E::custom("integer out of range"))
        }
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Value, E> {
        if number < limits::INTEGER.unsigned_abs() {
            Ok(number.into())
        } else {
            Err(E::custom("integer out of range"))
        }
    }

    // serde_json hands over `200.0`, `-0` and 2^64 as floats; all of them have a second spelling.
    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Value, E> {
        Err(E::custom("a number that is not an integer in its plain spelling"))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        if text.contains('\0') {
            Err(E::custom("NUL in a string"))
        } else {
            Ok(text.into())
        }
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Err(E::custom("null; what is absent is left out"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if key.contains('\0') {
                return Err(de::Error::custom("NUL in a key"));
            }
            let value = entries.next_value_seed(inner)?;
            if object.insert(key, value).is_some() {
                return Err(de::Error::custom("a key that stands twice"));
            }
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &[u8]) -> bool {
        value(text, 4096).is_err()
    }

    /// REQ-JSON-2, REQ-JSON-3, REQ-JSON-5, REQ-JSON-6, REQ-JSON-7, REQ-JSON-8
    #[test]
    fn what_has_two_readings_is_refused() {
        let table: [(&str, &[u8]); 22] = [
            ("json_dup_key", br#"{"a":1,"a":2}"#),
            ("json_dup_key by escape", br#"{"a":1,"\u0061":2}"#),
            ("json_dup_key deep", br#"{"a":[{"b":1,"b":1}]}"#),
            ("json_big_int", b"9007199254740992"),
            ("json_big_int negative", b"-9007199254740992"),
            ("json_big_int 2^64", b"18446744073709551616"),
            ("a float that is whole", b"200.0"),
            ("an exponent", b"2e2"),
            ("minus zero", b"-0"),
            ("a leading zero", b"01"),
            ("json_trailing", b"{} {}"),
            ("json_trailing text", b"{}x"),
            ("json_trailing NUL", b"{}\0"),
            ("json_bad_utf8", b"\"\xff\""),
            ("a lone surrogate", br#""\ud800""#),
            ("NUL in a string", br#""a\u0000b""#),
            ("NUL in a key", br#"{"\u0000":1}"#),
            ("null", br#"{"a":null}"#),
            ("json_deep", b"[[[[[[[[[1]]]]]]]]]"),
            ("nothing", b""),
            ("a control character", b"\"\x01\""),
            ("a byte order mark", b"\xef\xbb\xbf{}"),
        ];
        for (name, text) in table {
            assert!(refused(text), "{name}");
        }
        println!("{} attacks, {} refused", table.len(), table.len());
    }

    /// REQ-JSON-11
    #[test]
    fn plain_json_is_accepted() {
        for text in [
            &br#"{"a":[1,-1,true,"x",{"b":{}}]}"#[..],
            b"[[[[[[[[1]]]]]]]]",
            b"9007199254740991",
            b" {} \n",
        ] {
            assert!(!refused(text), "{}", String::from_utf8_lossy(text));
        }
    }

    /// REQ-JSON-1
    #[test]
    fn the_size_is_looked_at_before_the_bytes() {
        assert_eq!(value(&[b'!'; 11], 10), Err(Error::TooLong { got: 11, max: 10 }));
    }

    #[derive(Debug, serde::Serialize, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        inner: Vec<Inner>,
    }

    #[derive(Debug, serde::Serialize, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        a: u32,
    }

    /// REQ-JSON-9
    #[test]
    fn an_array_of_fields_is_no_object() {
        assert!(read::<Outer>(br#"{"inner":[{"a":1}]}"#, 100).is_ok());
        for other in [
            &br#"[[{"a":1}]]"#[..],
            br#"{"inner":[[1]]}"#,
            br#"{"inner":[{"a":1,"b":2}]}"#,
        ] {
            assert!(read::<Outer>(other, 100).is_err(), "{}", String::from_utf8_lossy(other));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = value(&bytes, 4096);
        }
    }
}
