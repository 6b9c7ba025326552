use proptest::prelude::*;

use super::*;
use crate::{NodeId, Timestamp};

fn version(n: u64) -> Version {
    Version::new(Timestamp::from_u64(n), NodeId::from_u64(1))
}

fn scope() -> impl Strategy<Value = Scope> {
    let name = prop::collection::vec(0_u8..3, 0..4);
    prop_oneof![
        1 => Just(Scope::All),
        6 => name.clone().prop_map(|n| Scope::Prefix(n.into())),
        6 => name.clone().prop_map(|n| Scope::Tag(n.into())),
        3 => name.prop_map(|n| Scope::TagPrefix(n.into())),
    ]
}

fn expected(raised: &[(Scope, Version)], key: &[u8], tags: &Tags) -> Version {
    let covering = raised.iter().filter(|(scope, _)| scope.covers(key, tags));
    covering
        .map(|(_, version)| *version)
        .max()
        .unwrap_or(Version::ZERO)
}

proptest! {
    #[test]
    fn c4_floor_of_an_entry_is_the_highest_that_covers_it(
        raised in prop::collection::vec((scope(), 1_u64..20), 0..30),
        keys in prop::collection::vec(
            (prop::collection::vec(0_u8..3, 0..5), prop::collection::vec(prop::collection::vec(0_u8..3, 0..4), 0..3)),
            20,
        ),
    ) {
        let mut floors = GroupFloors::new(1000);
        let mut narrow = GroupFloors::new(4);
        let raised: Vec<_> = raised.into_iter().map(|(s, v)| (s, version(v))).collect();
        for (scope, version) in &raised {
            floors.raise(scope.clone(), *version);
            narrow.raise(scope.clone(), *version);
            prop_assert!(narrow.len() <= 4);
        }
        for (key, tags) in &keys {
            let tags = Tags::new(tags).unwrap();
            let expected = expected(&raised, key, &tags);
            prop_assert_eq!(floors.of_key(key).max(floors.of_tags(&tags)), expected);
            // With too little room a floor may be higher than asked for, never lower.
            prop_assert!(narrow.of_key(key).max(narrow.of_tags(&tags)) >= expected);
        }
        // What a joining node is told amounts to the same.
        let mut joined = GroupFloors::new(1000);
        for (scope, version) in floors.to_vec() {
            joined.raise(scope, version);
        }
        for (key, tags) in &keys {
            let tags = Tags::new(tags).unwrap();
            let of = |f: &GroupFloors| f.of_key(key).max(f.of_tags(&tags));
            prop_assert_eq!(of(&joined), of(&floors));
        }
    }
}

#[test]
fn neighbours_that_share_most_are_merged_when_there_are_too_many() {
    let mut floors = GroupFloors::new(2);
    floors.raise(Scope::Prefix((*b"a:1").into()), version(1));
    floors.raise(Scope::Prefix((*b"user:17").into()), version(2));
    floors.raise(Scope::Prefix((*b"user:18").into()), version(3));
    assert_eq!(
        floors.to_vec(),
        [
            (Scope::Prefix((*b"a:1").into()), version(1)),
            (Scope::Prefix((*b"user:1").into()), version(3))
        ]
    );
}

#[test]
fn raising_what_is_covered_changes_nothing() {
    let mut floors = GroupFloors::new(10);
    assert!(floors.raise(Scope::Prefix((*b"user:").into()), version(5)));
    assert!(!floors.raise(Scope::Prefix((*b"user:1").into()), version(5)));
    assert!(!floors.raise(Scope::Prefix((*b"user:").into()), version(4)));
    assert!(floors.raise(Scope::All, version(6)));
    assert_eq!(floors.to_vec(), [(Scope::All, version(6))]);
}

#[test]
fn r4_floors_are_forgotten_by_the_age_of_their_versions() {
    let at = |ms| Version::new(Timestamp::from_parts(ms, 0), NodeId::from_u64(1));
    let mut floors = GroupFloors::new(10);
    floors.raise(Scope::Tag((*b"t").into()), at(200));
    floors.raise(Scope::All, at(100));
    assert!(floors.has_any_before(100) && !floors.has_any_before(99));
    floors.collect(100);
    assert_eq!(floors.to_vec(), [(Scope::Tag((*b"t").into()), at(200))]);
}
