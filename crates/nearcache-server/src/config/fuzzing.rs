//! What the fuzz target of the configuration calls: arbitrary text as a file and as variables.
//!
//! The oracles: no panic; every problem is one line and lies within the file; what is accepted holds its
//! own limits.

use std::path::Path;

use super::{Place, Sources, load};

/// Loads `data` as a configuration. Up to the first NUL it is the file; after it, each line is a variable
/// `NAME=VALUE`.
///
/// # Panics
///
/// When an oracle does not hold.
pub fn config_parse(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (file, variables) = text.split_once('\0').unwrap_or((&text, ""));
    let sources = Sources {
        file: Some((Path::new("fuzz.toml"), file)),
        variables: variables
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (format!("NEARCACHE_{name}"), value.to_owned()))
            .collect(),
        ..Sources::default()
    };
    let problems = match load(&sources) {
        Ok(loaded) => {
            assert_eq!(loaded.config.limits.validate(), Ok(()));
            loaded.warnings
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason");
            problems
        }
    };
    let lines = file.lines().count().max(1);
    for problem in problems {
        let shown = problem.to_string();
        assert!(!shown.contains('\n'), "more than one line: {shown:?}");
        if let Place::File { line, .. } = problem.place {
            // The end of a file that ends with a line end counts as one line more.
            assert!((1..=lines + 1).contains(&line), "line {line} of {lines}");
        }
        let _ = problem.excerpt(file);
    }
}
