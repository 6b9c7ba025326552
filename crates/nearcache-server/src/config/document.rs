//! A TOML file taken apart into settings: dotted path, value, position.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problem};
use super::value::Value;

/// One `key = value` of the file.
#[derive(Debug)]
pub(super) struct Item {
    /// The keys from the root down to this one.
    pub(super) path: Vec<String>,
    /// The value.
    pub(super) value: Value,
    /// Where the key stands.
    pub(super) key_place: Place,
    /// Where the value stands.
    pub(super) value_place: Place,
}

/// Takes `source` apart; tables are descended into, everything else is an item.
///
/// # Errors
/// One problem if the text is not TOML.
pub(super) fn items(path: &Path, source: &str) -> Result<Vec<Item>, Problem> {
    let locator = Locator { path, source };
    let table = DeTable::parse(source).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        let reason: Vec<&str> = error.message().lines().map(str::trim).collect();
        Problem::new(locator.place(&span), reason.join(", "))
    })?;
    let mut items = Vec::new();
    descend(&locator, &mut Vec::new(), table.get_ref(), &mut items);
    items.sort_by_key(|item| match &item.key_place {
        Place::File { line, column, .. } => (*line, *column),
        Place::Variable(_) | Place::Flag(_) | Place::Default => (0, 0),
    });
    Ok(items)
}

fn descend(
    locator: &Locator<'_>,
    path: &mut Vec<String>,
    table: &DeTable<'_>,
    items: &mut Vec<Item>,
) {
    for (key, value) in table {
        path.push(key.get_ref().to_string());
        // A table goes in as well, empty: its own key may be unknown, and `[caches.users]` with
        // nothing below it is a cache with defaults.
        items.push(Item {
            path: path.clone(),
            value: convert(value.get_ref()),
            key_place: locator.place(&key.span()),
            value_place: locator.place(&value.span()),
        });
        if let DeValue::Table(inner) = value.get_ref() {
            descend(locator, path, inner, items);
        }
        path.pop();
    }
}

fn convert(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Value::Other("an integer beyond 64 bits"), Value::Integer),
        DeValue::Float(_) => Value::Other("a fraction"),
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(list) => {
            Value::List(list.iter().map(Spanned::get_ref).map(convert).collect())
        }
        DeValue::Table(table) => match table.iter().next() {
            Some((field, value)) if table.len() == 1 => Value::Field(
                field.get_ref().to_string(),
                Box::new(convert(value.get_ref())),
            ),
            _ => Value::Other("a table"),
        },
    }
}

/// Turns byte offsets into lines and columns.
struct Locator<'a> {
    path: &'a Path,
    source: &'a str,
}

impl Locator<'_> {
    fn place(&self, span: &std::ops::Range<usize>) -> Place {
        let start = floor_char_boundary(self.source, span.start);
        let end = floor_char_boundary(self.source, span.end.max(start));
        let before = self.source.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Place::File {
            path: self.path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            width: self
                .source
                .get(start..end)
                .unwrap_or_default()
                .chars()
                .count()
                .max(1),
        }
    }
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len()))
        .rev()
        .find(|&i| text.is_char_boundary(i))
        .unwrap_or(0)
}
