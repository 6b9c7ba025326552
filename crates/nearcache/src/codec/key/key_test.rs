use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Serialize;

use super::*;

fn bytes_of<K: Serialize>(key: K) -> Vec<u8> {
    let mut buffer = KeyBuffer::new();
    KeyFor::<K>::key_bytes(&key, &mut buffer).unwrap().to_vec()
}

#[derive(Serialize)]
struct UserId(String);

#[derive(Serialize)]
enum Page {
    Home,
    Of(u32),
    Named { text: String },
}

#[test]
fn text_and_bytes_at_the_top_are_the_key() {
    assert_eq!(bytes_of("user:1".to_owned()), b"user:1");
    assert_eq!(bytes_of(UserId("user:1".into())), b"user:1");
    assert_eq!(bytes_of(vec![0u8, 1, 255]), [0, 1, 255]);
    let mut buffer = KeyBuffer::new();
    assert_eq!(
        KeyFor::<String>::key_bytes("user:1", &mut buffer).unwrap(),
        b"user:1"
    );
    assert_eq!(
        KeyFor::<Vec<u8>>::key_bytes(&[0u8, 1][..], &mut buffer).unwrap(),
        [0, 1]
    );
}

#[test]
fn golden_bytes_of_composites() {
    assert_eq!(bytes_of(1u32), [0, 0, 0, 1]);
    assert_eq!(bytes_of(-1i16), [0x7F, 0xFF]);
    assert_eq!(bytes_of(("a", 1u8)), [b'a', 0, 0, 1]);
    assert_eq!(bytes_of(("a\0b", true)), [b'a', 0, 0xFF, b'b', 0, 0, 1]);
    assert_eq!(bytes_of(vec![1u16, 2]), [1, 0, 1, 1, 0, 2, 0]);
    assert_eq!(bytes_of((vec![7u8], 1u8)), [1, 7, 0, 1]);
    assert_eq!(bytes_of(Some(5u8)), [1, 5]);
    assert_eq!(bytes_of(Page::Home), [0, 0, 0, 0]);
    assert_eq!(bytes_of(Page::Of(2)), [0, 0, 0, 1, 0, 0, 0, 2]);
    assert_eq!(
        bytes_of(Page::Named { text: "x".into() }),
        [0, 0, 0, 2, b'x', 0, 0]
    );
}

#[test]
fn maps_and_floats_are_refused() {
    let mut buffer = KeyBuffer::new();
    let map = BTreeMap::from([(1, 2)]);
    assert_eq!(
        map.key_bytes(&mut buffer),
        Err(KeyError::Unsupported { what: "a map" })
    );
    let nested = (1u8, 1.0f64);
    assert_eq!(
        nested.key_bytes(&mut buffer),
        Err(KeyError::Unsupported { what: "a float" })
    );
}

#[test]
fn empty_and_too_long_keys_are_named_with_their_limit() {
    assert_eq!(check_len(&[], 4), Err(KeyError::EmptyKey));
    let long = Err(KeyError::KeyTooLong {
        len_bytes: 5,
        limit_bytes: 4,
    });
    assert_eq!(check_len(&[0; 5], 4), long);
    assert_eq!(check_len(&[0; 4], 4), Ok(()));
}

type Composite = (String, Vec<String>, Option<i32>, Vec<u8>, u64);

fn composite() -> impl Strategy<Value = Composite> {
    (
        "[\\x00ab]{0,4}",
        prop::collection::vec("[\\x00\\x01a]{0,3}", 0..3),
        any::<Option<i32>>(),
        prop::collection::vec(0u8..3, 0..4),
        0u64..3,
    )
}

proptest! {
    #[test]
    fn different_composites_have_different_bytes(a in composite(), b in composite()) {
        prop_assert_eq!(bytes_of(&a) == bytes_of(&b), a == b);
    }

    #[test]
    fn leading_fields_are_a_prefix(a in composite()) {
        prop_assert!(bytes_of(&a).starts_with(&bytes_of((&a.0, &a.1, &a.2))));
    }

    #[test]
    fn byte_order_is_number_order(a in any::<i64>(), b in any::<i64>()) {
        prop_assert_eq!(bytes_of(a).cmp(&bytes_of(b)), a.cmp(&b));
    }
}
