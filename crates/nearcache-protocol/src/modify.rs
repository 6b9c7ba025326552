//! Read-modify-write: what a caller may ask the key's home node to do.

use std::fmt;

use nearcache_store::{Change, Expiry, Handle, Known, Tags, Version};

use crate::payload::{CodecTag, Payload};

/// When a set is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// In any case.
    Always,
    /// Only if the key holds nothing.
    IfAbsent,
    /// Only if the key holds something.
    IfPresent,
    /// Only if the key holds exactly this version.
    IfVersion(Version),
}

/// When an expiry is changed; a key that never expires counts as expiring later than any other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExpireCondition {
    /// In any case.
    Always,
    /// Only if the entry has no expiry.
    IfNone,
    /// Only if it has one.
    IfSome,
    /// Only if the new one is later.
    IfGreater,
    /// Only if the new one is earlier.
    IfLess,
    /// Only if it has one and the new one is earlier.
    IfSomeAndLess,
}

/// The expiry an entry gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NewExpiry {
    /// The one it has; none if it is new.
    Keep,
    /// None.
    Never,
    /// At this cluster time, in milliseconds since the Unix epoch.
    At(u64),
}

/// A change of one key that depends on what the key holds.
#[derive(Clone)]
pub enum ModifyOp<V> {
    /// Store a value.
    Set {
        /// When.
        condition: Condition,
        /// The value.
        value: V,
        /// Its expiry.
        expiry: NewExpiry,
        /// Its tags.
        tags: Tags,
        /// Whether the reply shall carry what the key held before.
        return_previous: bool,
    },
    /// Remove the key.
    Remove {
        /// When.
        condition: Condition,
        /// Whether the reply shall carry what the key held before.
        return_previous: bool,
    },
    /// Change the expiry and leave the value.
    Expire {
        /// The new expiry; [`NewExpiry::Keep`] reads the entry at its home node.
        expiry: NewExpiry,
        /// When.
        condition: ExpireCondition,
        /// Whether the reply shall carry what the key held before.
        return_previous: bool,
    },
    /// Add to a number in decimal text; a key that holds nothing counts as 0. The expiry is kept.
    Add {
        /// What to add.
        delta: i64,
    },
}

/// What came of a [`ModifyOp`].
#[derive(Clone)]
pub struct Modified<V> {
    /// Whether the condition held and the change was made.
    pub applied: bool,
    /// What the key held before, if asked for.
    pub previous: Option<Handle<V>>,
    /// What the key held right after the decision.
    pub current: Option<Handle<V>>,
    /// The version of the change, if one was made and the home node said so.
    pub version: Option<Version>,
}

/// Why a modify has no result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModifyError {
    /// The key holds something else than a decimal integer of 64 bits. Nothing was changed.
    #[error("value is not an integer or out of range")]
    NotAnInteger,
    /// The sum does not fit 64 bits. Nothing was changed.
    #[error("increment or decrement would overflow")]
    Overflow,
    /// The entry is larger than the cache takes. The older copy, if any, is gone.
    #[error("entry does not fit into the cache")]
    TooLarge,
    /// The value is longer than the key's home node takes. Nothing was changed; never travels.
    #[error("value exceeds the {limit_bytes} bytes that the key's home node takes")]
    TooLargeForHome {
        /// The home node's limit.
        limit_bytes: u32,
    },
    /// The node's clock may not stamp now (it is too far from its peers'). Nothing was changed.
    #[error("clock skew: writes are refused")]
    ClockSkew,
    /// The asked node is not the key's home by its own view. Nothing was changed; never reaches a caller.
    #[error("not the key's home node")]
    NotHome,
    /// Too many requests wait already. Nothing was changed.
    #[error("too many requests are waiting")]
    Overloaded,
    /// No node could be asked in time. Nothing was changed.
    #[error("the key's home node cannot be reached")]
    HomeUnreachable,
    /// The home node was asked and did not answer. The change may have been made, or be made later.
    #[error("no answer from the key's home node: the change may have been made")]
    Indeterminate,
}

impl<V> fmt::Debug for ModifyOp<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Set { .. } => "Set",
            Self::Remove { .. } => "Remove",
            Self::Expire { .. } => "Expire",
            Self::Add { .. } => "Add",
        })
    }
}

impl<V> fmt::Debug for Modified<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Modified")
            .field("applied", &self.applied)
            .finish_non_exhaustive()
    }
}

impl<V: Payload> ModifyOp<V> {
    /// The length of the value it brings, in bytes; 0 without one.
    #[must_use]
    pub fn value_len(&self) -> usize {
        match self {
            Self::Set { value, .. } => value.bytes().len(),
            Self::Remove { .. } | Self::Expire { .. } | Self::Add { .. } => 0,
        }
    }

    /// What this does to a key that holds `known`: the change to merge, or `None` if the condition does not hold.
    ///
    /// # Errors
    /// [`ModifyError::NotAnInteger`] and [`ModifyError::Overflow`], of [`ModifyOp::Add`]. Nothing is changed here in any case.
    pub fn decide(&self, known: &Known<V>) -> Result<Option<Change<V>>, ModifyError> {
        // A value that cannot be had is a miss for those that need it.
        let live = value_of(known);
        let live = live.filter(|entry| !(entry.is_stub() && self.needs_value()));
        match self {
            Self::Set {
                condition,
                value,
                expiry,
                tags,
                ..
            } => {
                if !condition.holds(known) {
                    return Ok(None);
                }
                let expiry = expiry.or_else(live.map(|entry| entry.expiry()));
                Ok(Some(Change::Put {
                    value: value.clone(),
                    expiry,
                    tags: tags.clone(),
                }))
            }
            Self::Remove { condition, .. } => {
                Ok((live.is_some() && condition.holds(known)).then_some(Change::Remove))
            }
            Self::Expire {
                expiry: NewExpiry::Keep,
                ..
            } => Ok(None),
            Self::Expire {
                expiry, condition, ..
            } => {
                let Some(entry) = live else { return Ok(None) };
                let expiry = expiry.or_else(None);
                Ok(condition
                    .holds(entry.expiry(), expiry)
                    .then_some(Change::Expire { expiry }))
            }
            Self::Add { delta } => {
                let Some(entry) = live else {
                    let value = V::from_wire(CodecTag::default(), delta.to_string().as_bytes());
                    return Ok(Some(Change::Put {
                        value,
                        expiry: Expiry::NEVER,
                        tags: Tags::NONE,
                    }));
                };
                let number = decimal(entry.value().bytes()).ok_or(ModifyError::NotAnInteger)?;
                let sum = number.checked_add(*delta).ok_or(ModifyError::Overflow)?;
                let value = V::from_wire(entry.value().codec(), sum.to_string().as_bytes());
                Ok(Some(Change::Put {
                    value,
                    expiry: entry.expiry(),
                    tags: entry.tags().clone(),
                }))
            }
        }
    }

    /// Whether it cannot be decided or answered without the value that the key holds.
    #[must_use]
    pub const fn needs_value(&self) -> bool {
        match self {
            Self::Expire { .. } | Self::Add { .. } => true,
            Self::Set { .. } | Self::Remove { .. } => self.returns_previous(),
        }
    }

    /// Whether the reply shall carry what the key held before.
    #[must_use]
    pub const fn returns_previous(&self) -> bool {
        match self {
            Self::Set {
                return_previous, ..
            }
            | Self::Remove {
                return_previous, ..
            }
            | Self::Expire {
                return_previous, ..
            } => *return_previous,
            Self::Add { .. } => false,
        }
    }
}

impl Condition {
    fn holds<V: Payload>(self, known: &Known<V>) -> bool {
        let live = value_of(known);
        match self {
            Self::Always => true,
            Self::IfAbsent => live.is_none(),
            Self::IfPresent => live.is_some(),
            Self::IfVersion(version) => live.is_some_and(|entry| entry.version() == version),
        }
    }
}

/// The entry that holds a value: one that says that there is none is none.
fn value_of<V: Payload>(known: &Known<V>) -> Option<&Handle<V>> {
    known.live().filter(|entry| !entry.value().is_absent())
}

impl ExpireCondition {
    fn holds(self, current: Expiry, new: Expiry) -> bool {
        match self {
            Self::Always => true,
            Self::IfNone => current.is_never(),
            Self::IfSome => !current.is_never(),
            Self::IfGreater => new > current,
            Self::IfLess => new < current,
            Self::IfSomeAndLess => !current.is_never() && new < current,
        }
    }
}

impl NewExpiry {
    fn or_else(self, current: Option<Expiry>) -> Expiry {
        match self {
            Self::Keep => current.unwrap_or(Expiry::NEVER),
            Self::Never => Expiry::NEVER,
            Self::At(millis) => Expiry::at_millis(millis),
        }
    }
}

/// A number as Redis writes and accepts it: decimal digits, at most one `-` before them, no other sign, no leading zero, no space.
fn decimal(bytes: &[u8]) -> Option<i64> {
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let canonical = bytes == b"0"
        || digits
            .first()
            .is_some_and(|digit| (b'1'..=b'9').contains(digit));
    if !canonical || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Text, entry};

    fn live(text: &str) -> Known<Text> {
        Known::Live(entry("k", 1, text))
    }

    const ABSENT: Known<Text> = Known::Absent {
        floor: Version::ZERO,
        own: Version::ZERO,
    };

    fn add(delta: i64, known: &Known<Text>) -> Result<String, ModifyError> {
        match (ModifyOp::Add { delta }).decide(known)? {
            Some(Change::Put { value, .. }) => Ok(String::from_utf8(value.1).unwrap()),
            other => panic!("an add always stores: {other:?}"),
        }
    }

    #[test]
    fn an_add_counts_from_zero_and_refuses_what_is_no_integer() {
        assert_eq!(add(5, &ABSENT), Ok("5".into()));
        assert_eq!(add(-7, &live("5")), Ok("-2".into()));
        assert_eq!(
            add(1, &live("9223372036854775807")),
            Err(ModifyError::Overflow)
        );
        for text in [
            "",
            "-",
            "+1",
            "01",
            "-0",
            " 1",
            "1 ",
            "1.0",
            "9223372036854775808",
            "x",
        ] {
            assert_eq!(
                add(1, &live(text)),
                Err(ModifyError::NotAnInteger),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_set_is_made_only_if_its_condition_holds() {
        let held = entry("k", 1, "v").version();
        let other = entry("k", 2, "v").version();
        let cases = [
            (Condition::Always, true, true),
            (Condition::IfAbsent, false, true),
            (Condition::IfPresent, true, false),
            (Condition::IfVersion(held), true, false),
            (Condition::IfVersion(other), false, false),
        ];
        for (condition, when_live, when_absent) in cases {
            let op = ModifyOp::Set {
                condition,
                value: Text::new("new"),
                expiry: NewExpiry::Keep,
                tags: Tags::NONE,
                return_previous: false,
            };
            assert_eq!(
                op.decide(&live("v")).unwrap().is_some(),
                when_live,
                "{condition:?}"
            );
            assert_eq!(
                op.decide(&ABSENT).unwrap().is_some(),
                when_absent,
                "{condition:?}"
            );
        }
    }

    #[test]
    fn an_entry_without_expiry_expires_later_than_any_other() {
        let expire = |condition| ModifyOp::<Text>::Expire {
            expiry: NewExpiry::At(5),
            condition,
            return_previous: false,
        };
        let made = |condition| expire(condition).decide(&live("v")).unwrap().is_some();
        assert!(
            made(ExpireCondition::Always)
                && made(ExpireCondition::IfNone)
                && made(ExpireCondition::IfLess)
        );
        assert!(!made(ExpireCondition::IfSome) && !made(ExpireCondition::IfGreater));
        assert!(
            expire(ExpireCondition::Always)
                .decide(&ABSENT)
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn an_expiry_is_changed_only_if_all_that_is_asked_of_it_holds() {
        use ExpireCondition as When;
        let expiries = [Expiry::NEVER, Expiry::at_millis(4), Expiry::at_millis(6)];
        for (condition, allowed) in [
            (When::Always, [true, true, true]),
            (When::IfNone, [true, false, false]),
            (When::IfSome, [false, true, true]),
            (When::IfGreater, [false, true, false]),
            (When::IfLess, [true, false, true]),
            (When::IfSomeAndLess, [false, false, true]),
        ] {
            let found = expiries.map(|held| condition.holds(held, Expiry::at_millis(5)));
            assert_eq!(found, allowed, "{condition:?}");
        }
    }

    #[test]
    fn nothing_is_removed_where_nothing_is() {
        let op = ModifyOp::<Text>::Remove {
            condition: Condition::Always,
            return_previous: false,
        };
        assert!(op.decide(&live("v")).unwrap().is_some());
        assert!(op.decide(&ABSENT).unwrap().is_none());
    }
}
