//! "Did you mean": the known word closest to an unknown one.

/// The candidate nearest to `word`, if one is near enough to be what was meant.
///
/// Near enough is at most a third of the word's letters changed (at least one, at most three), or a
/// candidate that the word is a part of. Cost: O(candidates × length²), for error messages only.
///
/// Source: optimal string alignment distance; Boytsov, "Indexing methods for approximate dictionary
/// searching", ACM JEA 16, 2011, section 2.1.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(far, candidate)| *far <= allowed || (word.len() > 2 && candidate.contains(word)))
        .min_by_key(|(far, _)| *far)
        .map(|(_, candidate)| candidate)
}

fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().flat_map(char::to_lowercase).take(64).collect();
    let right: Vec<char> = right
        .chars()
        .flat_map(char::to_lowercase)
        .take(64)
        .collect();
    let width = right.len() + 1;
    let mut rows = vec![vec![0; width]; left.len() + 1];
    rows[0] = (0..width).collect();
    for i in 1..=left.len() {
        rows[i][0] = i;
        for j in 1..width {
            let substitution = rows[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
            let mut best = substitution.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_the_word() {
        let words = ["listen", "max_bytes", "time_to_live", "mode"];
        for (typed, meant) in [
            ("lisen", Some("listen")),
            ("lsiten", Some("listen")),
            ("max_byte", Some("max_bytes")),
            ("bytes", Some("max_bytes")),
            ("time_to_life", Some("time_to_live")),
            ("Mode", Some("mode")),
            ("colour", None),
        ] {
            assert_eq!(nearest(typed, words), meant, "{typed}");
        }
    }
}
